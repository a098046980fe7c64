"""The training benchmark: its bootstrap against physical copies, its peers, its synthetic world, and all of it once."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import arms, bootstrap, conjointsynth, crossed, judge, peers, tasks
from benchmarks.conjointsynth import BACKGROUND, COMMON, CONJOINT, CONTROL, DECOY, DEFINITE, REGIMES, Regime, world
from extractors.features import Features, load, save
from model.config import ModelConfig, TrainConfig
from model.datasets import VideoSet, draw
from model.presets import experiment
from model.train import initialise, train
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action, Predicted, read_ground_truth
from postprocess.evaluation.evaluate import evaluate
from postprocess.evaluation.metrics import Instances, Predictions, average_precision, detect
from postprocess.evaluation.protocols import Scoring

torch.set_num_threads(1)

SMALL = Regime(width=12, train=20, test=12)
CONFIG = TrainConfig(steps=3, batch=6, snippets=40, sampling="pad", lr=1e-3)
CLASSES = ("a", "b")


def videos(count: int = 8, seed: int = 0) -> tuple[VideoSet, list[np.ndarray]]:
    """Videos of 20 to 29 snippets with one action each, and the class of each snippet."""
    rng = np.random.default_rng(seed)
    rows, targets = [], []
    for v in range(count):
        t = int(rng.integers(20, 30))
        target = np.full(t, 2)
        target[5:12] = v % 2
        rows.append((rng.normal(size=(t, 9)) + 2 * np.eye(9)[target]).astype(np.float32))
        targets.append(target)
    labels = np.eye(2, dtype=bool)[np.arange(count) % 2]
    return VideoSet(rows, labels, tuple(f"v{v}" for v in range(count)), CLASSES), targets


# --- the bootstrap ---


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12),
    st.lists(st.integers(0, 3), max_size=4),
    st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=3),
)
def test_weights_are_copies(ranked: list[tuple[bool, int]], missed: list[int], weights: list[list[int]]) -> None:
    """A prediction or an instance of weight w stands w times in the list; of weight 0 it is not there."""
    hits = np.array([hit for hit, _ in ranked], dtype=bool)
    units = np.array([unit for _, unit in ranked], dtype=np.int64)
    positives = np.array([*units[hits], *missed], dtype=np.int64)
    found = bootstrap.weighted_ap(hits, units, positives, np.array(weights))
    for weight, ap in zip(np.array(weights), found, strict=True):
        total = int(weight[positives].sum())
        if total == 0:
            assert np.isnan(ap)
        else:
            copies = np.repeat(hits, weight[units])
            assert ap == pytest.approx(float(average_precision(copies, total)) if len(copies) else 0.0)


def test_drawing_videos_is_copying_them() -> None:
    """With the videos themselves as clips, a draw is an evaluation of the drawn videos, copies and all."""
    rng = np.random.default_rng(3)
    truth = Instances(
        rng.integers(0, 5, 14),
        rng.integers(0, 3, 14),
        np.sort(rng.integers(0, 30, (14, 2)) + np.arange(2), axis=1) * 0.64,
    )
    near = rng.integers(0, 14, 60)
    jitter = rng.integers(-2, 3, (60, 2)) * 0.64
    label = np.where(rng.random(60) < 0.8, truth.label[near], rng.integers(0, 3, 60))
    found = Predictions(truth.video[near], label, np.sort(truth.span[near] + jitter, axis=1), rng.permutation(60) / 60)
    detection = detect(truth, found, judge.TIOUS)
    clips = bootstrap.Clips([np.zeros(1)] * 5, [np.array([v]) for v in range(5)], 5)
    drawn = bootstrap.resample(truth, found, detection, clips, draws=40)
    for weight, values in zip(bootstrap.multiplicities(5, 40), drawn.T, strict=True):
        copies = [(video, copy) for video in range(5) for copy in range(weight[video])]
        rows = [np.flatnonzero(truth.video == video) for video, _ in copies]
        of_truth = truth.take(np.concatenate(rows))
        of_truth = replace(of_truth, video=np.repeat(np.arange(len(copies)), [len(r) for r in rows]))
        rows = [np.flatnonzero(found.video == video) for video, _ in copies]
        of_found = found.take(np.concatenate(rows))
        of_found = replace(of_found, video=np.repeat(np.arange(len(copies)), [len(r) for r in rows]))
        assert values == pytest.approx(detect(of_truth, of_found, judge.TIOUS).mean_ap)


def test_the_weight_is_that_of_the_clip_at_the_middle() -> None:
    clips = bootstrap.Clips([np.array([0.0, 4.0, 9.0]), np.array([1.0])], [np.array([2, 0, 2]), np.array([1])], 3)
    at = clips.at(np.array([0, 0, 0, 0, 1, 1]), np.array([0.0, 3.9, 4.0, 50.0, 0.5, 7.0]))
    assert at.tolist() == [2, 2, 0, 2, 1, 1]
    # Found at tIoU .3 alone: there it weighs as its instance (clip 0), at .5 as its own middle (clip 2).
    truth = Instances(np.array([0, 1]), np.array([0, 0]), np.array([[4.0, 8.0], [1.0, 3.0]]))
    found = Predictions(np.array([0, 1]), np.array([0, 0]), np.array([[6.0, 13.0], [1.0, 3.0]]), np.array([0.9, 0.8]))
    detection = detect(truth, found, np.array([0.2, 0.5]))
    weights = bootstrap.multiplicities(3, 200)
    drawn = bootstrap.resample(truth, found, detection, clips, draws=200)
    for (w0, w1, w2), (loose, strict) in zip(weights, drawn.T, strict=True):
        if w0 + w1 == 0:
            assert np.isnan(loose) and np.isnan(strict)
        else:
            assert loose == 1
            assert strict == pytest.approx(w1 * (w1 / (w1 + w2) if w1 else 0) / (w0 + w1))


def test_every_arm_gets_the_same_draws() -> None:
    assert (bootstrap.multiplicities(7) == bootstrap.multiplicities(7)).all()
    assert (bootstrap.multiplicities(7).sum(axis=1) == 7).all()
    same = {"average": 30.0, "draws": [30.0, float("nan"), 28.0]}
    more = {"average": 32.0, "draws": [33.0, float("nan"), 30.0]}
    interval = judge.difference([more, same], [same, same])
    assert interval.mean == 1 and 1 <= interval.low <= interval.high <= 1.5
    assert judge.difference([{"average": 3.0}, {"average": 5.0}], [{"average": 1.0}, {"average": 1.0}]).mean == 3


# --- the peers ---


@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.parametrize("streams", [9, 8])
def test_peers_learn_with_all_their_weights(name: str, streams: int) -> None:
    """Finite losses, gradients that reach every parameter, and nothing of what stands at padding."""
    data, targets = videos()
    data = replace(data, features=[rows[:, :streams] for rows in data.features])
    peer = peers.PEERS[name]
    net = peers.build(name, ModelConfig(2, streams, 6), seed=0).train()
    if name == "supervised":
        torch.nn.init.constant_(net.alpha, 0.1)  # at 0 they hide the coarse branch and the attention
        torch.nn.init.constant_(net.beta, 0.1)
    seen = data if not peer.supervised else peers._widened(data, targets)
    totals = {n: 0.0 for n, _ in net.named_parameters()}
    for step in range(4):
        batch = draw(seen, CONFIG, step)
        assert batch.mask is not None and not batch.mask.all()
        if peer.supervised:
            rows = batch.features
            batch = batch._replace(features=rows[..., :-1].contiguous(), labels=rows[..., -1].long())
        spoilt = batch.features.masked_fill(~batch.mask.unsqueeze(-1), 0)
        output = net(spoilt, batch.mask)
        assert (output.cas[~batch.mask] == 0).all() and (output.actionness[~batch.mask] == 0).all()
        assert ((output.actionness >= 0) & (output.actionness <= 1)).all()
        loss = peer.loss(output, batch, CONFIG)
        assert loss.shape == () and torch.isfinite(loss)
        net.zero_grad()
        loss.backward()
        for n, parameter in net.named_parameters():
            assert parameter.grad is not None, n
            assert torch.isfinite(parameter.grad).all(), n
            totals[n] += float(parameter.grad.abs().sum())
    assert all(totals.values()), [n for n, total in totals.items() if not total]


@pytest.mark.parametrize("averaging", [0.0, 3.0])
def test_mil_is_the_baseline_to_the_last_digit(averaging: float) -> None:
    data, _ = videos()
    config = replace(CONFIG, seed=5, averaging=averaging)
    model, alone = experiment(1, ModelConfig(2, data.width, 6), config)
    ours = train(initialise(model, CLASSES, ("rgb",), {}, 5), data, alone).state
    theirs = peers.train_peer("mil", data, replace(CONFIG, averaging=averaging), 6, seed=5).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["linear", "supervised"])
def test_ceilings_learn_what_they_are_told(name: str) -> None:
    data, targets = videos(12)
    config = replace(CONFIG, steps=60, lr=1e-2, sampling="perturb")
    net = peers.train_peer(name, data, config, 8, 0, targets)
    unseen, true = videos(4, seed=1)
    right = np.mean(
        [(peers.scores(net, x).cas.argmax(1) == y).mean() for x, y in zip(unseen.features, true, strict=True)]
    )
    assert right > 0.8
    with pytest.raises(ValueError, match="needs classes"):
        peers.train_peer(name, data, config, 8, 0)


def test_um_looks_at_the_largest() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 9.0, 8.0], [1.0, 5.0, 2.0, 4.0, 3.0]])
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    weights = peers._largest(values, mask, 2)
    assert weights.tolist() == [[1, 0, 0, 0, 0], [0, 0.5, 0, 0.5, 0]]
    assert peers._largest(values, None, 1).tolist() == [[pytest.approx(0.2)] * 5] * 2


# --- the world ---


@pytest.mark.parametrize(
    "regime", [*(replace(r, width=12, train=30, test=10) for r in REGIMES.values()), replace(SMALL, shuffled=True)]
)
def test_worlds_are_consistent(regime: Regime) -> None:
    first, again, other = world(regime, 3), world(regime, 3), world(regime, 4)
    assert first.train.data.fingerprint() == again.train.data.fingerprint()
    assert (first.test.truth.span == again.test.truth.span).all()
    assert first.train.data.fingerprint() != other.train.data.fingerprint()
    for half, count in ((first.train, regime.train), (first.test, regime.test)):
        assert len(half.data.names) == count
        for v, (phase, target) in enumerate(zip(half.phase, half.targets, strict=True)):
            action = (phase == COMMON) | (phase == DEFINITE)
            assert (action == (target < 10)).all() and len(phase) == len(half.data.features[v]) >= 100
            assert set(target[action].tolist()) == set(np.flatnonzero(half.data.labels[v]).tolist())
            marked = np.zeros(len(phase), dtype=int)
            for g in np.flatnonzero(half.truth.video == v):
                (s, e), (cs, ce), (ds, de) = (x[g].astype(int) for x in (half.truth.span, half.common, half.definite))
                assert 0 <= s < e <= len(phase)
                assert (target[s:e] == half.truth.label[g]).all()
                assert (phase[cs:ce] == COMMON).all() and (phase[ds:de] == DEFINITE).all()
                assert (ce - cs) + (de - ds) == e - s
                assert (ce == ds and cs == s and de == e) or cs == ce or ds == de
                if half.truth.label[g] in CONTROL:
                    assert cs == ce
                elif not regime.shuffled:
                    assert 0 < ce - cs < e - s
                marked[s:e] += 1
            assert (marked == action).all()  # nothing else is an action, and no two overlap
        assert any((phase == DECOY).any() for phase in half.phase) == (regime.decoys > 0)


def test_worlds_look_as_they_should() -> None:
    """phi is the share asked for, and without noise a common phase looks like its set's, whatever the class."""
    assert 0.05 < world(Regime(width=4), 0).phi < 0.11
    assert 0.15 < world(replace(REGIMES["A"], width=4), 0).phi < 0.26
    clean = world(Regime(width=64, noise=0.0, style=0.0, train=60), 1).train
    looks: dict[tuple[int, int], list[np.ndarray]] = {}
    for v, phase in enumerate(clean.phase):
        for i in range(1, len(phase) - 1):
            if phase[i - 1] == phase[i] == phase[i + 1] != BACKGROUND:
                looks.setdefault((int(phase[i]), int(clean.targets[v][i])), []).append(clean.data.features[v][i])
    means = {key: np.mean(rows, axis=0) for key, rows in looks.items()}
    assert means[COMMON, 4] @ means[COMMON, 5] > 0.99 and means[COMMON, 4] @ means[COMMON, 6] > 0.99
    assert means[COMMON, 0] @ means[COMMON, 2] < 0.6 and means[DEFINITE, 0] @ means[DEFINITE, 1] < 0.6
    noise = conjointsynth._noise(400, 50, np.random.default_rng(0))
    assert np.mean((noise**2).sum(axis=1)) == pytest.approx(1, rel=0.05)
    assert np.mean((noise[1:] * noise[:-1]).sum(axis=1)) == pytest.approx(0.25, abs=0.03)


def test_completeness_by_hand() -> None:
    half = world(SMALL, 0).test
    found = conjointsynth.completeness(half, conjointsynth.definite_oracle(half))
    assert found == {"common": 0.0, "definite": 1.0, "background": 0.0}
    truth = half.truth
    whole = Predictions(truth.video, truth.label, truth.span, np.ones(len(truth)))
    assert conjointsynth.completeness(half, whole) == {"common": 1.0, "definite": 1.0, "background": 0.0}
    # A better score for twice the length: as much background as action.
    length = truth.span[:, 1] - truth.span[:, 0]
    g = np.flatnonzero(np.isin(truth.label, CONJOINT))[0]
    one = replace(half, truth=truth.take(np.array([g])), common=half.common[[g]], definite=half.definite[[g]])
    wide = Predictions(
        np.repeat(truth.video[g], 2),
        np.repeat(truth.label[g], 2),
        np.array([truth.span[g], truth.span[g] + length[g] * np.arange(2)]),
        np.array([1.0, 2.0]),
    )
    assert conjointsynth.completeness(one, wide) == {"common": 1.0, "definite": 1.0, "background": 0.5}
    nothing = whole.take(np.zeros(len(truth), dtype=bool))
    missed = conjointsynth.completeness(half, nothing)
    assert missed["common"] == missed["definite"] == 0 and np.isnan(missed["background"])


def test_actionness_by_phase() -> None:
    half = world(replace(SMALL, decoys=1.0), 0).test
    found = conjointsynth.actionness_by_phase(half, [phase / 10 for phase in half.phase])
    assert found == pytest.approx({"common": 0.1, "definite": 0.2, "background": 0.0, "decoy": 0.3})


def test_the_verdict_asks_for_size_and_for_certainty() -> None:
    def met(full: list[float], common: list[float], frozen: list[float]) -> list[bool]:
        mean_ap = {"baseline": [30.0] * 5, "exp7": [50.0] * 5, "exp7-frozen": frozen, "full": full}
        covered = {"baseline": [0.4] * 5, "full": common}
        return [c.met for c in conjointsynth.verdict(mean_ap, covered, [0.1, 0.2, 0.1, 0.2, 0.1])]

    assert met([42, 44, 41, 43, 45], [0.7] * 5, [40, 41, 42, 43, 44]) == [True] * 4
    assert met([35, 36, 37, 38, 39], [0.5] * 5, [49, 50, 51, 52, 53]) == [False, False, False, True]
    assert not met([30, 31, 30, 30, 120], [0.7] * 5, [40] * 5)[0]  # great in the mean, by one world
    real = replace(REGIMES["B"], width=2048, noise=5.0)
    assert conjointsynth.objections(real, range(5), [30.0] * 5) == []
    assert len(conjointsynth.objections(REGIMES["C"], [1000], [60.0])) == 5
    # scipy.stats.t.ppf(.975, 4) = 2.7764
    interval = conjointsynth.t_interval([1, 2, 3, 4, 5])
    assert interval.high - interval.mean == pytest.approx(2.776 * np.sqrt(2.5 / 5))


# --- all of it ---


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features, labels, ground truth and clips of eight videos, four of each split."""
    folder = tmp_path_factory.mktemp("bench")
    data, targets = videos()
    database, shown, rows = {}, {}, []
    for v, (features, target) in enumerate(zip(data.features, targets, strict=True)):
        split = "train" if v < 4 else "test"
        times = np.stack((np.arange(len(features)), np.arange(1, len(features) + 1)), axis=1) * 0.64
        end = float(times[-1, 1])
        name, label = f"{split}_{v}", CLASSES[v % 2]
        save(Features(features, None, times, end, {}, {}), folder / "features" / split / f"{name}.npz")
        first, last = np.flatnonzero(target < 2)[[0, -1]]
        span = [float(times[first, 0]), float(times[last, 1])]
        annotations = [{"label": label, "segment": span}]
        database[name] = {"subset": split, "duration": end, "annotations": annotations}
        shown[name] = [[0.0, span[0], "other.mp4"], [*span, f"{v}.mp4"], [span[1], end, "other.mp4"]]
        rows.append((f"{split}/{name}.mp4", label, split))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "labels", "split"), *rows])
    (folder / "truth.json").write_text(json.dumps({"database": database}))
    (folder / "clips.json").write_text(json.dumps(shown))
    return folder


def arguments(bench: Path, *more: object) -> list[str]:
    files = [bench / "features", "--ground-truth", bench / "truth.json", "--labels", bench / "labels.csv"]
    return list(map(str, ["benchmarks/arms.py", *files, "--clips", bench / "clips.json", *more]))


def test_files_are_joined(bench: Path) -> None:
    files = tasks.Files(bench / "features", bench / "truth.json", bench / "labels.csv", bench / "clips.json")
    task = tasks.load(files, 0)
    _, targets = videos()
    assert all((ours == y).all() for ours, y in zip(task.targets, targets[:4], strict=True))
    assert task.truth.video.tolist() == [0, 1, 2, 3] and task.truth.label.tolist() == [0, 1, 0, 1]
    assert task.clips is not None and task.clips.count == 5  # "other" is one clip, wherever it is shown
    middle = task.clips.at(task.truth.video, task.truth.span.mean(axis=1))
    assert len(set(middle.tolist())) == 4
    assert task.clips.at(np.arange(4), np.zeros(4)).tolist() == task.clips.at(np.arange(4), np.full(4, 99.0)).tolist()


def test_numbers_are_those_of_evaluate(bench: Path) -> None:
    """The table's mAP is the product's own, by either ranking."""
    files = tasks.Files(bench / "features", bench / "truth.json", bench / "labels.csv", bench / "clips.json")
    task = tasks.load(files, 0)
    net = arms.learn(arms.Job("full", files, replace(CONFIG, steps=30, lr=1e-2), (("dim", 8),)), task)
    judged = judge.judge(task, net)
    scores = [peers.scores(net, rows) for rows in task.test.features]
    for rule, rankings in judge.RANKED_BY.items():
        segments = judge._segments(task, scores, LocalizeConfig(rule=rule))
        for name, by in rankings.items():
            found = {
                v: [Action(s.start, s.end, s.label, getattr(s, by)) for s in each]
                for v, each in zip(task.test.names, segments, strict=True)
            }
            theirs = evaluate(read_ground_truth(bench / "truth.json"), Predicted(found), Scoring(subset="test"))
            assert judged["rules"][name]["average"] == pytest.approx(theirs.overall.average["0.3:0.9"], abs=1e-3)
            assert judged["rules"][name]["mAP"]["0.5"] == pytest.approx(theirs.overall.mean_ap["0.5"], abs=1e-3)
            assert judged["rules"][name]["predictions"] == theirs.predictions


def test_end_to_end_and_resumed(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*more: object) -> str:
        monkeypatch.setattr(sys, "argv", arguments(bench, *more))
        arms.main()
        return "".join(capsys.readouterr())

    out = tmp_path / "results.json"
    few = ["--steps", 3, "--dim", 6, "--seeds", 0, 1]
    first = command("--arms", "full", "linear", *few, "--out", out)
    assert "| full | paper |" in first and "| linear | runs |" in first and "full 1: " in first
    entries = json.loads(out.read_text())["entries"]
    assert len(entries) == 4
    draws = [entry["rules"][rule]["draws"] for entry in entries.values() for rule in ("paper", "runs")]
    assert {len(values) for values in draws} == {1000}
    # Nothing is computed twice, and what is new joins.
    second = command("--arms", "full", "linear", "um", *few, "--out", out)
    assert "um 1: " in second and "linear 0: " not in second and "full 0: " not in second
    merged = json.loads(out.read_text())["entries"]
    assert len(merged) == 6 and all(merged[name] == entry for name, entry in entries.items())
    # Other settings are another result.
    command("--arms", "linear", *few, "--gate-lr", 3, "--out", out)
    assert len(json.loads(out.read_text())["entries"]) == 8
    # As a script, in two processes: the same numbers.
    other = tmp_path / "other.json"
    line = [sys.executable, *arguments(bench, "--arms", "um", *few, "--out", other, "--jobs", 2)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = json.loads(other.read_text())["entries"]
    assert len(again) == 2
    for name, entry in again.items():
        assert merged[name]["rules"] == entry["rules"]


def test_each_precision_is_trained_on_and_judged_with_each(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bench / "features", tmp_path / "int8")
    for path in (tmp_path / "int8" / "test").glob("*.npz"):  # whose test videos show nothing that was learned
        stored = load(path)
        assert stored.rgb is not None
        save(replace(stored, rgb=np.zeros_like(stored.rgb)), path)
    monkeypatch.setattr(crossed, "preset", lambda *_: replace(CONFIG, steps=30))
    about = ["--ground-truth", bench / "truth.json", "--labels", bench / "labels.csv", "--seeds", 0, "--first", 4, 3]
    monkeypatch.setattr(sys, "argv", list(map(str, ["crossed.py", bench / "features", tmp_path / "int8", *about])))
    crossed.main()
    runs, paper = capsys.readouterr().out.split("\n\n")
    assert paper.startswith("| paper: trained on | tested on features | tested on int8 |")
    for line in (*paper.splitlines()[2:], *runs.splitlines()[2:]):
        _, seen, blank = (cell.strip() for cell in line.strip("|").split("|"))
        assert float(seen.split(",")[0]) > float(blank.split(",")[0])


def test_worlds_end_to_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--width", "12", "--train", "20", "--test", "10", "--steps", "3", "--dim", "6", "--worlds", "2"]
    monkeypatch.setattr(sys, "argv", ["arms.py", "--world", "conjoint-B", *small])
    arms.main()
    said = capsys.readouterr().out
    assert "| exp7-frozen | paper |" in said and "A common" in said
    assert "Not the acceptance test: the regime is not B; the width is 12, not 2048; 2 worlds are" in said


def test_wrong_input_is_one_sentence(bench: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "labels.csv"
    empty.write_text("video,labels\nx.mp4,a\n")
    for labels, wanted in ((empty, "lacks the column 'split'"), (tmp_path / "none.csv", "No such file")):
        line = ["arms.py", bench / "features", "--ground-truth", bench / "truth.json", "--labels", labels]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        with pytest.raises(SystemExit, match=wanted):
            arms.main()

"""Training: it learns to localise a toy, survives a kill to the last digit, and says what is wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors import torch as safetensors_torch

import model.train
from model.checkpoint import CheckpointError, fingerprint, save
from model.config import LossConfig, ModelConfig, TrainConfig
from model.datasets import VideoSet
from model.predict import predict
from model.presets import experiment, model_settings, preset
from model.train import LOG_NAME, STATE_NAME, TrainError, initialise, train
from support.files import identity, write_temporary

torch.set_num_threads(1)

WIDTH, CLASSES = 16, ("a", "b", "c")
MODEL = ModelConfig(classes=3, in_dim=WIDTH, dim=8)
CONFIG = TrainConfig(steps=12, batch=8, snippets=20, lr=1e-3, save_every=4)


def toy(count: int = 24, seed: int = 0, length: tuple[int, int] = (20, 40)) -> tuple[VideoSet, list[np.ndarray]]:
    """Videos of one action or two among background, every sixth without any, and where the actions are, (T,) bool."""
    world = np.random.default_rng(99)
    prototypes = world.normal(size=(len(CLASSES) + 3, WIDTH))
    prototypes *= 4 / np.linalg.norm(prototypes, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    rows, labels, truth = [], np.zeros((count, len(CLASSES)), dtype=bool), []
    for v in range(count):
        t = int(rng.integers(*length))
        scene = prototypes[3 + rng.integers(3, size=2)][np.arange(t) * 2 // t]
        here = np.zeros(t, dtype=bool)
        if v % 6 != 5:
            c, start = v % 3, int(rng.integers(0, t - 8))
            here[start : start + 6] = True
            scene[here] = prototypes[c]
            labels[v, c] = True
        rows.append(np.abs(scene + 0.5 * rng.normal(size=scene.shape)).astype(np.float32))
        truth.append(here)
    return VideoSet(rows, labels, tuple(f"v{v}" for v in range(count)), CLASSES), truth


DATA, _ = toy(8)


def start(config: ModelConfig = MODEL, seed: int = 0) -> "model.train.Checkpoint":
    return initialise(config, CLASSES, ("rgb",), {"rgb": {"fps": 25.0}}, seed)


def columns(folder: Path) -> dict[str, list[str]]:
    header, *rows = [line.split(",") for line in (folder / LOG_NAME).read_text().splitlines()]
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def test_a_toy_is_localised(tmp_path: Path) -> None:
    data, _ = toy(36)
    config = replace(preset("own", data.lengths), steps=200, lr=3e-3, seed=1)
    trained = train(start(ModelConfig(3, WIDTH, 16), seed=1), data, config, tmp_path)
    log = columns(tmp_path)
    losses = [float(value) for value in log["loss"]]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])
    assert abs(float(log["alpha"][-1])) > 0.01 and abs(float(log["beta"][-1])) > 0.01
    unseen, truth = toy(18, seed=1)
    net, right, inside, outside, pointed = trained.build(), 0, [], [], 0
    for video, here in enumerate(truth):
        scores = predict(net, unseen.features[video])
        if not here.any():
            outside.append(scores.actionness.mean())
            continue
        c = int(np.argmax(unseen.labels[video]))
        right += int(np.argmax(scores.video)) == c
        inside.append(scores.actionness[here].mean())
        outside.append(scores.actionness[~here].mean())
        pointed += bool(here[np.argmax(scores.suppressed[:, c])])
    assert right >= 13 and pointed >= 13, (right, pointed)  # of 15
    assert np.mean(inside) > np.mean(outside) + 0.2, (np.mean(inside), np.mean(outside))


def test_gates_move_and_can_be_frozen(tmp_path: Path) -> None:
    for name, rate, least, most in (("free", 1.0, 1e-3, 0.02), ("fast", 10.0, 0.02, 0.2), ("frozen", 0.0, 0.0, 0.0)):
        state = train(start(), DATA, replace(CONFIG, gate_lr=rate), tmp_path / name).state
        for gate in ("alpha", "beta"):
            # Adam moves a scalar by its learning rate a step at most, or little more: 12 steps of 1e-3.
            assert least <= abs(state[gate].item()) <= most, (name, gate)


@pytest.mark.parametrize("eta", [1, 3])
def test_the_result_is_the_average_of_the_weights_of_all_steps(eta: int) -> None:
    """Step i of n counts as i (i + 1) ... (i + eta - 1), divided by their sum."""
    steps = 5
    each = [train(start(), DATA, replace(CONFIG, steps=n)).state for n in range(1, steps + 1)]
    weights = np.array([math.comb(i + eta - 1, eta) for i in range(1, steps + 1)], dtype=np.float64)
    found = train(start(), DATA, replace(CONFIG, steps=steps, averaging=eta)).state
    assert set(found) == set(each[0])
    for name, tensor in found.items():
        wanted = np.average([state[name].double().numpy() for state in each], axis=0, weights=weights)
        np.testing.assert_allclose(tensor.numpy(), wanted, rtol=1e-5, atol=1e-7, err_msg=name)


def test_an_averaged_training_is_prolonged_as_if_it_had_never_ended(tmp_path: Path) -> None:
    config = replace(CONFIG, averaging=3.0)
    train(start(), DATA, config, tmp_path)
    longer = replace(config, steps=15)
    assert fingerprint(train(start(), DATA, longer, tmp_path)) == fingerprint(train(start(), DATA, longer))


def test_a_state_from_before_there_was_an_average_goes_on(tmp_path: Path) -> None:
    train(start(), DATA, CONFIG, tmp_path)
    path = tmp_path / STATE_NAME
    with safe_open(path, framework="pt") as file:
        ((key, text),) = file.metadata().items()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    header = json.loads(text)
    del header["averaging"]
    path.write_bytes(safetensors_torch.save(tensors, {key: json.dumps(header)}))
    longer = replace(CONFIG, steps=15)
    assert fingerprint(train(start(), DATA, longer, tmp_path)) == fingerprint(train(start(), DATA, longer))


def test_decay_is_not_for_gates() -> None:
    net = start().build()
    others, gates = model.train._adam(net, CONFIG).param_groups
    assert {id(p) for p in gates["params"]} == {id(net.alpha), id(net.beta)}
    assert gates["weight_decay"] == 0 and others["weight_decay"] == 1e-3
    assert len(others["params"]) + 2 == len(list(net.parameters()))
    bare = start(replace(MODEL, cad=False, tea=False)).build()
    assert len(model.train._adam(bare, CONFIG).param_groups) == 1


@pytest.mark.parametrize(("sampling", "averaging"), [("perturb", 0.0), ("pad", 3.0)])
@pytest.mark.parametrize("stop", [1, 4, 7, 12])
def test_resume_is_exact(tmp_path: Path, stop: int, sampling: str, averaging: float) -> None:
    config = replace(CONFIG, sampling=sampling, averaging=averaging)
    whole = train(start(), DATA, config, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stopping(stage: str, done: int, total: int) -> None:
        if done == stop:
            raise Stop

    with pytest.raises(Stop):
        train(start(), DATA, config, tmp_path / "cut", on_progress=stopping)
    torch.rand(7)  # whatever else draws numbers in between
    done = []
    again = train(start(), DATA, config, tmp_path / "cut", on_progress=lambda stage, n, total: done.append(n))
    assert done == list(range(stop // 4 * 4 + 1, 13))  # on from the last state, no step from before it
    assert (tmp_path / "cut" / LOG_NAME).read_bytes() == (tmp_path / "whole" / LOG_NAME).read_bytes()
    assert fingerprint(again) == fingerprint(whole)
    assert again.provenance == whole.provenance
    assert all(torch.equal(again.state[name], whole.state[name]) for name in whole.state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, h: t.pop("history"), "has no history"),
        (lambda t, h: t.update(history=torch.zeros(3)), "has no history"),
        (lambda t, h: t.pop(next(n for n in t if n.startswith("net."))), "has no net"),
        (lambda t, h: t.update({n: torch.zeros(1) for n in t if n.startswith("net.")}), "has no net"),
        (lambda t, h: t.update({n: torch.zeros(1) for n in t if n.endswith("exp_avg")}), "has no adam"),
        (lambda t, h: t.pop("mean.alpha"), r"has no mean\.alpha"),
        (lambda t, h: t.update({n: torch.zeros(1) for n in t if n.startswith("mean.")}), "has no mean"),
        (lambda t, h: h.update(train="[]"), "is not a complete training state|belongs to another training"),
        (lambda t, h: h.update(train="3"), "is not a complete training state"),
        (lambda t, h: h.update(train="[" * 100_000), "is not a complete training state"),
        (lambda t, h: h.clear(), "is not a complete training state"),
    ],
)
def test_a_state_of_a_stranger_is_one_sentence(tmp_path: Path, change: Any, said: str) -> None:
    averaged = replace(CONFIG, averaging=3.0)
    train(start(), DATA, averaged, tmp_path)
    with safe_open(tmp_path / STATE_NAME, framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    (key,) = header
    named = {"train": header[key]}
    change(tensors, named)
    written = {key: named["train"]} if named else None
    (tmp_path / STATE_NAME).write_bytes(safetensors_torch.save(tensors, written))
    with pytest.raises(TrainError, match=said):
        train(start(), DATA, replace(averaged, steps=CONFIG.steps + 4), tmp_path)


CHILD = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, str(Path("tests/model").resolve()))
from test_train import CONFIG, DATA, replace, start, train
print("ready", flush=True)
train(start(), DATA, replace(CONFIG, averaging=3.0, steps=100_000, save_every=2), Path(sys.argv[1]))
"""


def test_kill_minus_nine(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "cut")], cwd=root, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "cut" / STATE_NAME).exists() and time.monotonic() < deadline:
            assert child.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)  # anywhere: in a step, in a write
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with safe_open(tmp_path / "cut" / STATE_NAME, framework="pt") as file:
        behind = len(file.get_tensor("history"))
    assert behind >= 2 and behind % 2 == 0
    config = replace(CONFIG, averaging=3.0, steps=behind + 5, save_every=2)
    cut = train(start(), DATA, config, tmp_path / "cut")
    whole = train(start(), DATA, config, tmp_path / "whole")
    assert (tmp_path / "cut" / LOG_NAME).read_bytes() == (tmp_path / "whole" / LOG_NAME).read_bytes()
    assert fingerprint(cut) == fingerprint(whole)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [LOG_NAME, STATE_NAME]  # no orphans


def test_what_a_kill_in_a_write_leaves_is_removed(tmp_path: Path) -> None:
    machine, _, started = identity().split("-")
    dead = f"{machine}-{2**22 + 1}-{started}"  # a process number beyond the kernel's largest
    for name in (STATE_NAME, LOG_NAME):
        write_temporary(tmp_path, name, b"half").rename(tmp_path / f".{name}.{dead}.x1.part")
    (tmp_path / "notes.tmp").write_bytes(b"somebody's")
    train(start(), DATA, replace(CONFIG, steps=1), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOG_NAME, "notes.tmp", STATE_NAME]


def test_seeds_do_not_share_steps() -> None:
    seeds = [model.train._dropout_seed(seed, step) for seed in range(4) for step in range(50)]
    assert len(set(seeds)) == 200


def test_a_finished_training_is_not_done_again_but_can_be_prolonged(tmp_path: Path) -> None:
    first, steps = train(start(), DATA, CONFIG, tmp_path / "a"), []
    again = train(start(), DATA, CONFIG, tmp_path / "a", on_progress=lambda stage, done, total: steps.append(done))
    assert steps == [] and fingerprint(again) == fingerprint(first) and again.provenance == first.provenance
    longer = train(start(), DATA, replace(CONFIG, steps=15, save_every=9), tmp_path / "a")
    assert fingerprint(longer) == fingerprint(train(start(), DATA, replace(CONFIG, steps=15)))
    with pytest.raises(TrainError, match="15 steps behind it, more than the 12"):
        train(start(), DATA, CONFIG, tmp_path / "a")
    anew = train(start(), DATA, CONFIG, tmp_path / "a", resume=False)
    assert fingerprint(anew) == fingerprint(first)


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    short = replace(CONFIG, steps=1)
    train(start(), DATA, short, tmp_path)
    kept = (tmp_path / STATE_NAME).read_bytes()
    other, _ = toy(8, seed=5)
    for data, config, begin, words in (
        (DATA, replace(short, lr=2e-3), start(), "lr 0.001, now 0.002"),
        (DATA, replace(short, loss=LossConfig(norm=0.1)), start(), "loss norm 0.8, now 0.1"),
        (DATA, replace(short, averaging=3), start(), r"averaging 0\.0, now 3\.0"),
        (other, short, start(), "data "),
        (DATA, short, start(seed=1), "initial weights "),
        (DATA, short, start(replace(MODEL, dropout=0.5)), r"dropout 0\.7, now 0\.5"),
    ):
        with pytest.raises(TrainError, match=f"belongs to another training .*{words}"):
            train(begin, data, config, tmp_path)
    assert (tmp_path / STATE_NAME).read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"\x80\x04 pickle", "cut", "other"])
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / STATE_NAME
    train(start(), DATA, replace(CONFIG, steps=1), tmp_path)
    if content == "other":
        save(start(), path)
    else:
        path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match=r"not a complete training state.*delete it"):
        train(start(), DATA, CONFIG, tmp_path)


def test_a_failed_write_keeps_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    train(start(), DATA, replace(CONFIG, steps=4), tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(CheckpointError, match="No space left"):
            train(start(), DATA, CONFIG, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_log(tmp_path: Path) -> None:
    train(start(), DATA, CONFIG, tmp_path)
    log = columns(tmp_path)
    terms = ["mil", "temp", "supp", "coarse", "coarse_supp", "cas", "norm", "guide"]
    assert list(log) == ["step", "loss", *terms, "gradient", "alpha", "beta"]
    assert log["step"] == [str(step) for step in range(1, 13)]
    weights = CONFIG.loss.__dict__
    for row in zip(*(map(float, log[name]) for name in ["loss", *terms]), strict=True):
        assert row[0] == pytest.approx(
            sum(weights[n] * value for n, value in zip(terms, row[1:], strict=True)), rel=1e-5
        )
    assert float(log["alpha"][0]) == 0 != float(log["alpha"][1])  # the gates that gave the row's losses
    assert np.isfinite([float(value) for value in log["gradient"]]).all()


def test_what_comes_back(tmp_path: Path) -> None:
    begin = replace(start(), groups={"a": "sport"}, provenance={"about": "x"})
    before = {name: tensor.clone() for name, tensor in begin.state.items()}
    torch.manual_seed(1234)  # not what another training may have left
    random = torch.get_rng_state()
    trained = train(begin, DATA, CONFIG)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(begin.state[name], before[name]) for name in before)
    assert not any(torch.equal(trained.state[n], before[n]) for n in before if n != "query.bias")
    assert (trained.config, trained.classes, trained.streams) == (MODEL, CLASSES, ("rgb",))
    assert trained.features == begin.features and trained.groups == {"a": "sport"}
    assert trained.provenance["about"] == "x"
    about = trained.provenance["training"]
    assert TrainConfig.from_dict(about["settings"]) == CONFIG and about["videos"] == 8
    save(trained, tmp_path)  # plain JSON, finite
    assert predict(trained.build(), DATA.features[0]).cas.shape == (len(DATA.features[0]), 4)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_experiments_train(number: int, tmp_path: Path) -> None:
    config, settings = experiment(number, MODEL, CONFIG)
    trained = train(start(config), DATA, settings, tmp_path)
    save(trained, tmp_path)
    assert fingerprint(train(start(config), DATA, settings, tmp_path)) == fingerprint(trained)  # from the state
    assert ("alpha" in columns(tmp_path)) == config.cad and ("beta" in columns(tmp_path)) == config.tea


@pytest.mark.parametrize("case", ["no pair", "background", "one snippet", "long", "one video"])
def test_hard_data_train_without_nan(case: str) -> None:
    config = replace(CONFIG, steps=3, batch=4)
    data, _ = toy(6)
    if case == "no pair":
        data = replace(data, features=data.features[:3], labels=data.labels[:3], names=data.names[:3])
    if case == "background":  # batches without any action among them
        data, config = (
            replace(data, labels=np.eye(6, 3, dtype=bool) & (np.arange(6) < 1)[:, None]),
            replace(config, batch=1),
        )
    if case == "one snippet":
        data = replace(data, features=[rows[:1] for rows in data.features])
        config = replace(config, sampling="pad")
    if case == "long":
        data, config = toy(2, length=(2900, 3000))[0], replace(config, snippets=3000, batch=2)
    if case == "one video":
        data = replace(data, features=data.features[:1], labels=data.labels[:1], names=data.names[:1])
    trained = train(start(), data, config)
    assert all(torch.isfinite(tensor).all() for tensor in trained.state.values())
    assert torch.isfinite(torch.tensor(list(trained.provenance["training"]["last"].values()))).all()


def test_divergence_stops_before_it_is_kept(tmp_path: Path) -> None:
    wild = replace(CONFIG, lr=1e12, steps=50, save_every=1)
    with pytest.raises(TrainError, match=r"diverged at step \d+ .*lower lr"):
        train(start(), DATA, wild, tmp_path)
    assert all(np.isfinite(float(value)) for values in columns(tmp_path).values() for value in values)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(TrainError, match="classes a, b, c and the labels a, b, x"):
        train(start(), replace(DATA, classes=("a", "b", "x")), CONFIG)
    with pytest.raises(TrainError, match="16 wide and these are 8"):
        train(start(), replace(DATA, features=[rows[:, :8] for rows in DATA.features]), CONFIG)
    with pytest.raises(ValueError, match="needs the TEA module"):
        train(start(replace(MODEL, tea=False)), DATA, CONFIG)


def test_presets() -> None:
    paper, long, wide = (preset(name, [100] * 200) for name in ("paper", "long", "activitynet"))
    assert (paper.steps, paper.batch, paper.pairs, paper.snippets, paper.lr) == (1000, 20, 3, 500, 1e-4)
    assert paper.weight_decay == 1e-3 and paper.loss == LossConfig() and paper.sampling == "perturb"
    assert long == replace(paper, steps=5000)
    assert preset("activitynet", [60] * 4819).steps == 4820
    assert (wide.snippets, wide.loss.topk_divisor) == (60, 5)
    assert ModelConfig(100, **model_settings("activitynet")).smooth == 13 and model_settings("paper") == {}
    own = preset("own", [62, 40] * 30)
    assert (own.steps, own.batch, own.snippets, own.lr, own.sampling) == (480, 20, 62, 2e-3, "pad")
    assert own.averaging == 3 and paper.averaging == long.averaging == 0
    little = preset("own", [12] * 24)
    assert (little.steps, little.lr, little.averaging) == (240, 1e-3, 3)
    assert preset("own", [3]).batch == 1 and model_settings("own") == {"dim": 128, "qk_scale": True, "smooth": 3}
    assert preset("own", [9000] * 700).snippets == 500
    assert [preset("own", [90] * n).steps for n in (16, 100, 600, 700)] == [480, 800, 4800, 5000]
    for name, lengths, words in (("owm", [3], "no training preset 'owm'"), ("own", [], "no videos")):
        with pytest.raises(ValueError, match=words):
            preset(name, lengths)  # type: ignore[arg-type]


def test_settings_round_trip_and_name_mistakes() -> None:
    config = replace(CONFIG, loss=LossConfig(norm=0.1))
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict({"lr": 1, "loss": {"cas": 0}}).loss.cas == 0.0
    for settings, words in (
        ({"step": 3}, "Unknown training setting 'step'; did you mean steps"),
        ({"loss": {"nrom": 3}}, "Unknown loss setting 'nrom'; did you mean norm"),
        ({"loss": 3}, "Loss settings must be a table"),
        ({"steps": 0}, "Training setting steps must be a whole number from 1 to"),
        ({"batch": 2.0}, "batch must be a whole"),
        ({"seed": -1}, "seed must be a whole"),
        ({"lr": 0}, "lr must be above 0"),
        ({"gate_lr": -1}, "gate_lr must be a number from 0 to 1e"),
        ({"averaging": -1}, "averaging must be a number from 0 to 1e"),
        ({"sampling": "crop"}, "sampling must be perturb or pad"),
    ):
        with pytest.raises(ValueError, match=words):
            TrainConfig.from_dict(settings)
    with pytest.raises(ValueError, match="1 to 10, not 11"):
        experiment(11, MODEL, CONFIG)

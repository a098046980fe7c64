"""Which part of JCDNet earns its keep: ablations, peers and ceilings, trained alike and judged on the same videos.

    python benchmarks/arms.py FEATURES --ground-truth ground_truth.json --labels labels.csv [--clips clips.json]
    python benchmarks/arms.py --world B --worlds 5 [--shuffled] [--phi .04] [--decoys 1] [--noise 5 --width 2048]

FEATURES: what `jcdnet extract` makes of the videos that labels.csv (`video,labels,split`; benchmarks/sportsmini.py)
names: test/test_000.mp4 has its features in FEATURES/test/test_000.npz. An arm learns from the labels of the train
split and is judged on the test split, once with each of --seeds. With --world the videos are ConjointSynth's, and
world w is learned with seed w.

Both rules of localisation are judged. `paper` ranks by psi. `runs` ranks by confidence, which is the number that
`run` shows people (table, subtitles, --min-confidence); the results file has it ranked by psi, too ("runs by score"),
as `evaluate` ranks result documents. mAP is in percent, at tIoU .3 to .9 and at .5. Of the runs of an arm: mean and
standard deviation; the difference to `full` is of the same seeds.

Its 95 % interval: the clips that the test videos are cut from are drawn with replacement, 1,000 times, the same draws
for every arm. An instance, and whoever finds it, weighs as often as the clip at its middle was drawn, a false positive
as often as the clip at its own; without --clips whole videos are drawn. It is of what footage was chosen, given these
trainings; of the trainings the standard deviation speaks. Between worlds it is Student's, over their differences.

All arms have the settings of the preset `own`, which were chosen for JCDNet; those of the worlds were the pilot's.

An (arm, seed) that the results file holds with the same data and settings is not computed again.
"""

import argparse
import csv
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import conjointsynth, peers
from benchmarks.conjointsynth import Half, Interval, Regime, t_interval
from extractors.config import STREAMS
from extractors.features import FeaturesError
from extractors.features import load as load_features
from model.checkpoint import write_atomically
from model.config import ModelConfig, TrainConfig, experiment, model_settings, preset
from model.datasets import DatasetError, VideoSet
from model.predict import Scores
from model.train import TrainError, initialise, train
from pipeline.annotations import read_ground_truth
from postprocess.config import RULES, LocalizeConfig
from postprocess.localize import localize
from postprocess.metrics import (
    Detection,
    Instances,
    Predictions,
    classification_ap,
    detect,
    ranking,
    video_scores,
)
from postprocess.protocols import EvaluateError, match_names, tiou_name
from postprocess.segment import Segment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FORMAT = 1  # of an entry of the results file; raise it when the same settings would give other numbers
TIOUS = np.round(np.arange(0.3, 0.95, 0.1), 9)
DRAWS = 1000
RANKED_BY = {"paper": {"paper": "score"}, "runs": {"runs": "confidence", "runs by score": "score"}}
REFERENCE = "full"


@dataclass(frozen=True)
class Ablation:
    """An experiment of Table 4, and what else is changed: gates frozen at 0, or lambda_3."""

    experiment: int
    frozen: bool = False
    norm: float | None = None

    def configs(self, model: ModelConfig, config: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
        """The settings with the ablation's."""
        model, config = experiment(self.experiment, model, config)
        loss = config.loss if self.norm is None else replace(config.loss, norm=self.norm)
        return model, replace(config, loss=loss, gate_lr=0.0 if self.frozen else config.gate_lr)


ABLATIONS = {
    "baseline": Ablation(1),
    "cad": Ablation(2),
    "ncad": Ablation(3),
    "tea": Ablation(4),
    **{f"exp{n}": Ablation(n) for n in range(5, 10)},
    "full": Ablation(10),
    "exp7-frozen": Ablation(7, frozen=True),
    **{f"full-norm{norm:g}": Ablation(10, norm=norm) for norm in (0.0, 0.1, 0.8)},
}
ARMS = (*ABLATIONS, *peers.PEERS)
# `mil` is the baseline once more, to the last digit: tests/test_benchmarks.py.
ON_FEATURES = (
    "baseline",
    "cad",
    "tea",
    "exp7",
    "full",
    "full-norm0.8",
    "basnet",
    "um",
    "co2net",
    "linear",
    "supervised",
)
ON_WORLDS = ("baseline", "cad", "tea", "exp7", "exp7-frozen", "full", "full-norm0.1")


# --- what is learned from, and what is judged on ---


@dataclass(frozen=True, eq=False)
class Clips:
    """Which clip is shown when: of each video (N,) starts in seconds, ascending, and (N,) clips by number."""

    starts: list[Floats]
    numbers: list[Ints]
    count: int

    def at(self, videos: Ints, seconds: Floats) -> Ints:
        """(N,) the clip shown in each video at that time; before the first and after the last, that one."""
        found = np.zeros(len(videos), dtype=np.int64)
        for v in np.unique(videos):
            rows = videos == v
            piece = np.searchsorted(self.starts[v], seconds[rows], side="right") - 1
            found[rows] = self.numbers[v][np.maximum(piece, 0)]
        return found


@dataclass(frozen=True, eq=False)
class Task:
    """Videos to learn from and videos to be judged on.

    Attributes:
        train: features and labels per video.
        targets: of each training video (T,) the class of every snippet, C for background, for supervised arms alone.
        test: the others.
        times: of each test video (T, 2) seconds.
        durations: of each test video, seconds.
        truth: the actions in the test videos, seconds.
        clips: what the bootstrap draws; None: no bootstrap.
        half: of a synthetic world, the phases of the test videos; phi: its median share of definite phases.
    """

    train: VideoSet
    targets: list[Ints]
    test: VideoSet
    times: list[Floats]
    durations: list[float]
    truth: Instances
    clips: Clips | None
    half: Half | None = None
    phi: float | None = None

    def fingerprint(self) -> str:
        """SHA-256 in hex over all that decides a result."""
        digest = hashlib.sha256(f"{self.train.fingerprint()} {self.test.fingerprint()} {self.durations}".encode())
        clips = [] if self.clips is None else [*self.clips.starts, *self.clips.numbers]
        for array in (*self.targets, *self.times, self.truth.video, self.truth.label, self.truth.span, *clips):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Files:
    """Where a task is read from; clips: None: whole videos are drawn."""

    features: Path
    ground_truth: Path
    labels: Path
    clips: Path | None


Source = Files | Regime


@lru_cache(maxsize=1)
def load(source: Source, seed: int) -> Task:
    """The videos; those of files are the same whatever the seed."""
    if isinstance(source, Regime):
        return _world_task(conjointsynth.world(source, seed))
    return _files_task(source)


def _world_task(world: conjointsynth.World) -> Task:
    test = world.test
    grid = [np.arange(n, dtype=np.float64) for n in test.data.lengths]
    return Task(
        train=world.train.data,
        targets=world.train.targets,
        test=test.data,
        times=[np.stack((t, t + 1), axis=1) for t in grid],
        durations=[float(len(t)) for t in grid],
        truth=test.truth,
        clips=None,
        half=test,
        phi=world.phi,
    )


def _files_task(files: Files) -> Task:
    """Read and join.

    Raises:
        FeaturesError, EvaluateError, DatasetError: a file is missing, damaged, or does not fit the others.
    """
    with files.labels.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if missing := {"video", "labels", "split"} - set(rows[0] if rows else ()):
        raise DatasetError(f"{files.labels}: lacks the column {sorted(missing)[0]!r}; it needs video,labels,split.")
    labelled = {row["video"]: tuple(filter(None, row["labels"].split("|"))) for row in rows}
    classes = tuple(sorted({label for labels in labelled.values() for label in labels}))
    database = read_ground_truth(files.ground_truth)
    names = match_names(labelled, database)
    halves = {}
    for split in ("train", "test"):
        videos = [row["video"] for row in rows if row["split"] == split]
        if not videos:
            raise DatasetError(f"{files.labels}: no video has the split {split!r}; name one at least.")
        read = [load_features(files.features / PurePosixPath(v).with_suffix(".npz")) for v in videos]
        streams = tuple(name for name in STREAMS if getattr(read[0], name) is not None)
        marked = np.array([[c in labelled[v] for c in classes] for v in videos], dtype=bool).reshape(len(videos), -1)
        halves[split] = videos, read, VideoSet([f.stacked(streams) for f in read], marked, tuple(videos), classes)
    number = {label: c for c, label in enumerate(classes)}

    def actions(video: str) -> list[tuple[int, float, float]]:
        found = [(number.get(a.label, -1), a.start, a.end) for a in database[names[video]].actions]
        if any(c < 0 for c, _, _ in found):
            raise DatasetError(f"{files.ground_truth}: {video} has an action that {files.labels} does not name.")
        return found

    videos, read, learned = halves["train"]
    targets = [_classes_of_snippets(f.times, actions(v), len(classes)) for v, f in zip(videos, read, strict=True)]
    videos, read, judged = halves["test"]
    truth = [(v, *action) for v, name in enumerate(videos) for action in actions(name)]
    columns = np.array(truth, dtype=np.float64).reshape(-1, 4)
    return Task(
        train=learned,
        targets=targets,
        test=judged,
        times=[f.times for f in read],
        durations=[f.duration for f in read],
        truth=Instances(columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2:]),
        clips=_clips(files.clips, [names[v] for v in videos]),
    )


def _classes_of_snippets(times: Floats, actions: Sequence[tuple[int, float, float]], background: int) -> Ints:
    """(T,) the class of the action at each snippet's middle, of several the last annotated."""
    middle = times.mean(axis=1)
    found = np.full(len(times), background, dtype=np.int64)
    for c, start, end in actions:
        found[(start <= middle) & (middle < end)] = c
    return found


def _clips(path: Path | None, videos: Sequence[str]) -> Clips:
    """Those of the given videos alone: what is not shown in them cannot be drawn."""
    if path is None:
        return Clips([np.zeros(1)] * len(videos), [np.array([v]) for v in range(len(videos))], len(videos))
    shown = json.loads(path.read_text())
    if unknown := next((v for v in videos if not shown.get(v)), None):
        raise DatasetError(f"{path}: says nothing of {unknown}; leave --clips out, or give the file of these videos.")
    known = {name: n for n, name in enumerate(sorted({clip for v in videos for _, _, clip in shown[v]}))}
    starts = [np.array([start for start, _, _ in shown[v]], dtype=np.float64) for v in videos]
    return Clips(starts, [np.array([known[clip] for _, _, clip in shown[v]]) for v in videos], len(known))


# --- one training ---


@dataclass(frozen=True)
class Job:
    """One arm with one seed. config, settings: of training, the seed included, and of the network, for all arms.

    settings: those of ModelConfig that are not its defaults, as pairs.
    """

    arm: str
    source: Source
    config: TrainConfig
    settings: tuple[tuple[str, Any], ...]


def learn(job: Job, task: Task) -> nn.Module:
    """The trained network."""
    config, seed, settings = job.config, job.config.seed, dict(job.settings)
    if job.arm in peers.PEERS:
        targets = task.targets if peers.PEERS[job.arm].supervised else None
        return peers.train_peer(job.arm, task.train, config, settings.pop("dim"), seed, targets, settings)
    whole = ModelConfig(len(task.train.classes), task.train.width, **settings)
    model, config = ABLATIONS[job.arm].configs(whole, config)
    return train(initialise(model, task.train.classes, ("rgb",), {}, seed), task.train, config).build()


def run(job: Job) -> dict[str, Any]:
    """Train and judge, on one thread: the same numbers however many jobs there are."""
    torch.set_num_threads(1)
    task = load(job.source, job.config.seed)
    begin = time.perf_counter()
    net = learn(job, task)
    seconds = time.perf_counter() - begin
    about = {"arm": job.arm, "seed": job.config.seed, "training_seconds": round(seconds, 1)}
    return {**about, "settings": {**job.config.to_dict(), **dict(job.settings)}, **judge(task, net)}


def judge(task: Task, net: nn.Module) -> dict[str, Any]:
    """Every number of one trained network, as JSON."""
    scores = [peers.scores(net, rows) for rows in task.test.features]
    present = np.zeros(task.test.labels.shape, dtype=bool)
    present[task.truth.video, task.truth.label] = True
    ap = classification_ap(np.stack([video_scores(s.cas) for s in scores]), present)
    found: dict[str, Any] = {"classification_mAP": round(float(100 * np.nanmean(ap)), 4), "rules": {}}
    if task.half is not None:
        means = conjointsynth.actionness_by_phase(task.half, [s.actionness for s in scores])
        found["actionness"] = {name: round(value, 4) for name, value in means.items()}
        oracle = conjointsynth.definite_oracle(task.half)
        found["definite_oracle"] = _of_classes(detect(task.truth, oracle, TIOUS), conjointsynth.CONJOINT)
        found["phi"] = round(task.phi or 0.0, 4)
    for rule in RULES:
        segments = _segments(task, scores, rule)
        for name, by in RANKED_BY[rule].items():
            found["rules"][name] = _quality(task, _predictions(segments, task.test.classes, by), draw=name == rule)
    return found


def _segments(task: Task, scores: Sequence[Scores], rule: str) -> list[list[Segment]]:
    config = LocalizeConfig(rule=rule)
    return [
        localize(s.cas, s.actionness, s.video, times, task.test.classes, duration=duration, config=config)
        for s, times, duration in zip(scores, task.times, task.durations, strict=True)
    ]


def _predictions(segments: Sequence[Sequence[Segment]], classes: Sequence[str], by: str) -> Predictions:
    number = {label: c for c, label in enumerate(classes)}
    rows = [(v, number[s.label], s.start, s.end, getattr(s, by)) for v, found in enumerate(segments) for s in found]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5)
    video, label = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return Predictions(video, label, columns[:, 2:4], columns[:, 4])


def _quality(task: Task, predictions: Predictions, draw: bool) -> dict[str, Any]:
    detection = detect(task.truth, predictions, TIOUS)
    mean_ap = 100 * detection.mean_ap
    quality: dict[str, Any] = {
        "predictions": len(predictions),
        "mAP": {tiou_name(t): round(value, 4) for t, value in zip(TIOUS, mean_ap.tolist(), strict=True)},
        "average": round(float(mean_ap.mean()), 4),
    }
    if task.clips is not None and draw:
        drawn = 100 * resample(task.truth, predictions, detection, task.clips)
        quality["draws"] = np.round(drawn.mean(axis=0), 3).tolist()
    if task.half is not None:
        quality["conjoint"] = _of_classes(detection, conjointsynth.CONJOINT)
        quality["control"] = _of_classes(detection, conjointsynth.CONTROL)
        coverage = conjointsynth.completeness(task.half, predictions)
        quality["coverage"] = {n: None if math.isnan(x) else round(x, 4) for n, x in coverage.items()}
    return quality


def _of_classes(detection: Detection, classes: Sequence[int]) -> float:
    """mAP 0.3:0.9 in percent over some of the classes."""
    return round(float(100 * detection.ap[:, np.isin(detection.classes, classes)].mean()), 4)


# --- the bootstrap ---


def multiplicities(count: int, draws: int = DRAWS, seed: int = 0) -> Ints:
    """(draws, count): how often each of `count` clips comes up when as many are drawn with replacement."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def weighted_ap(hits: NDArray[np.bool_], units: Ints, positives: Ints, weights: NDArray[Any]) -> Floats:
    """AP of one class, all-point interpolated, for many weightings at once.

    With whole numbers as weights it is the AP of a list in which everything stands as often as it weighs.

    Args:
        hits: (N,) whether each prediction is right, best first.
        units: (N,) the unit whose weight each prediction has: of a hit that of its instance.
        positives: (G,) the unit of each instance.
        weights: (B, U) 0 or more, by draw and unit.

    Returns:
        (B,) in [0, 1]; nan where no instance has any weight.
    """
    at = np.flatnonzero(hits)
    wrong = np.flatnonzero(~hits)
    # False positives between one hit and the next, by unit: what follows the last hit changes nothing.
    between = np.zeros((len(at) + 1, weights.shape[1]))
    np.add.at(between, (np.searchsorted(at, wrong), units[wrong]), 1)
    false = weights @ np.cumsum(between[:-1], axis=0).T
    here = weights[:, units[at]].astype(np.float64)
    true = np.cumsum(here, axis=1)
    precision = np.divide(true, true + false, out=np.zeros(true.shape), where=true > 0)
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = weights[:, positives].sum(axis=1)
    return np.divide((best_from_here * here).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0)


def resample(
    truth: Instances, predictions: Predictions, detection: Detection, clips: Clips, draws: int = DRAWS
) -> Floats:
    """(K, draws) mAP in [0, 1] over the classes that a draw has instances of; nan where it has none at all.

    Who finds what is settled once, on the videos as they are.
    """
    weights = multiplicities(clips.count, draws)
    of_truth = clips.at(truth.video, truth.span.mean(axis=1))
    of_found = clips.at(predictions.video, predictions.span.mean(axis=1))
    order = ranking(predictions)
    ap = np.empty((len(detection.tious), len(detection.classes), draws))
    for c, label in enumerate(detection.classes):
        ranked = order[predictions.label[order] == label]
        positives = of_truth[truth.label == label]
        for k, match in enumerate(detection.match[:, ranked]):
            units = np.where(match >= 0, of_truth[match], of_found[ranked])
            ap[k, c] = weighted_ap(match >= 0, units, positives, weights)
    some = ~np.isnan(ap)
    count = some.sum(axis=1)
    return np.divide(np.where(some, ap, 0.0).sum(axis=1), count, out=np.full(count.shape, np.nan), where=count > 0)


def difference(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> Interval:
    """mAP 0.3:0.9 of some runs minus that of others, one by one; what `judge` gave for a rule."""
    pairs = list(zip(ours, theirs, strict=True))
    values = [a["average"] - b["average"] for a, b in pairs]
    if not all("draws" in run for pair in pairs for run in pair):
        return t_interval(values)
    drawn = np.mean([np.subtract(a["draws"], b["draws"]) for a, b in pairs], axis=0)
    low, high = np.nanpercentile(drawn, [2.5, 97.5]).tolist()
    return Interval(float(np.mean(values)), low, high)


# --- all of them ---


def identity(job: Job, data: str) -> str:
    """What decides a job's numbers, as a short hash. data: of the videos."""
    rules = [asdict(LocalizeConfig(rule=rule)) for rule in RULES]
    ablation = asdict(ABLATIONS[job.arm]) if job.arm in ABLATIONS else None
    settings = {**job.config.to_dict(), **dict(job.settings), "arm": job.arm, "ablation": ablation, "rules": rules}
    if job.arm in peers.PEERS and peers.PEERS[job.arm].revision:
        settings["revision"] = peers.PEERS[job.arm].revision
    text = json.dumps([FORMAT, data, settings, DRAWS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fingerprint(source: Source, seed: int) -> str:
    """Of the videos; those of a world follow from its number."""
    if isinstance(source, Regime):
        return json.dumps([conjointsynth.FORMAT, asdict(source), seed])
    return load(source, 0).fingerprint()


def run_all(jobs: Sequence[Job], out: Path | None, workers: int) -> list[dict[str, Any]]:
    """The entry of each job, in order; those that `out` lacks are computed, and written as they come."""
    entries: dict[str, Any] = {}
    if out is not None and out.exists():
        entries = json.loads(out.read_text())["entries"]
    files: dict[Source, str] = {job.source: fingerprint(job.source, 0) for job in jobs if isinstance(job.source, Files)}
    names = [identity(job, files.get(job.source) or fingerprint(job.source, job.config.seed)) for job in jobs]
    waiting = {name: job for name, job in zip(names, jobs, strict=True) if name not in entries}
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    for name, entry in parallel(joblib.delayed(_named)(name, job) for name, job in waiting.items()):
        entries[name] = entry
        if out is not None:
            write_atomically(out, json.dumps({"schema": 1, "entries": entries}).encode())
        shown = ", ".join(f"{rule} {entry['rules'][rule]['average']:.1f}" for rule in RULES)
        print(f"{entry['arm']} {entry['seed']}: {entry['training_seconds']} s; {shown}", file=sys.stderr, flush=True)
    return [entries[name] for name in names]


def _named(name: str, job: Job) -> tuple[str, dict[str, Any]]:
    return name, run(job)


def by_arm(entries: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Arm → its runs, in the order of the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(entries, key=lambda e: e["seed"]):
        found.setdefault(entry["arm"], []).append(entry)
    return found


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown; a row an arm and rule."""
    lines = [
        f"| arm | rule | mAP 0.3:0.9 | mAP@0.5 | classification mAP | mAP 0.3:0.9 minus {REFERENCE}'s [95 %] |",
        "|---|---|---|---|---|---|",
    ]
    for arm, entries in runs.items():
        for rule in RULES:
            judged = [entry["rules"][rule] for entry in entries]
            versus = ""
            if arm != REFERENCE and REFERENCE in runs:
                versus = _signed(difference(judged, [entry["rules"][rule] for entry in runs[REFERENCE]]))
            average = _spread([q["average"] for q in judged])
            half = _spread([q["mAP"]["0.5"] for q in judged])
            kind = _spread([entry["classification_mAP"] for entry in entries])
            lines.append(f"| {arm} | {rule} | {average} | {half} | {kind} | {versus} |")
    return "\n".join(lines)


def phases_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown; what is known of synthetic worlds alone, rule `paper`."""
    lines = [
        "| arm | conjoint mAP | control mAP | common covered | definite covered | background in it | "
        "A common | A definite | A background |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, entries in runs.items():
        rules = [entry["rules"]["paper"] for entry in entries]
        cells = [_spread([q[name] for q in rules]) for name in ("conjoint", "control")]
        cells += [_spread([q["coverage"][name] for q in rules], 2) for name in ("common", "definite", "background")]
        for name in ("common", "definite", "background"):
            cells.append(_spread([entry["actionness"][name] for entry in entries], 2))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def judgement(runs: dict[str, list[dict[str, Any]]], regime: Regime, worlds: Sequence[int]) -> str:
    """The acceptance test of conjointsynth, in words."""
    if missing := [arm for arm in conjointsynth.ARMS_OF_VERDICT if arm not in runs]:
        return f"No verdict: it needs {', '.join(missing)}."
    of_paper = {arm: [entry["rules"]["paper"] for entry in entries] for arm, entries in runs.items()}
    mean_ap = {arm: [q["average"] for q in judged] for arm, judged in of_paper.items()}
    common = {arm: [q["coverage"]["common"] for q in judged] for arm, judged in of_paper.items()}
    contrast = [entry["actionness"]["common"] - entry["actionness"]["background"] for entry in runs["full"]]
    criteria = conjointsynth.verdict(mean_ap, common, contrast)
    lines = [
        f"{'met    ' if c.met else 'NOT MET'} {c.name}: {_signed(c.found, 2)}, at least {c.least:g} and above 0 asked"
        for c in criteria
    ]
    said = conjointsynth.objections(regime, worlds, mean_ap["baseline"])
    passed = "PASSED" if all(c.met for c in criteria) else "FAILED"
    verdict = f"Not the acceptance test: {'; '.join(said)}." if said else f"Acceptance test: {passed}."
    return "\n".join([*lines, verdict])


def _spread(values: Sequence[float | None], digits: int = 1) -> str:
    known = [value for value in values if value is not None]
    mean = f"{np.mean(known):.{digits}f}" if known else "–"
    return mean if len(known) < 2 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"


def _signed(interval: Interval, digits: int = 1) -> str:
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return f"{interval.mean:+.{digits}f}{bounds}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="?", metavar="FEATURES")
    parser.add_argument("--ground-truth", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dim", type=int, help="D; of preset `own`, and 64 of worlds")
    parser.add_argument("--steps", type=int, help="of preset `own`, and 400 of worlds")
    parser.add_argument("--gate-lr", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--world", type=lambda name: name.removeprefix("conjoint-"), choices=conjointsynth.REGIMES)
    parser.add_argument("--worlds", type=int, default=5)
    parser.add_argument("--first-world", type=int, default=0)
    # Those of Regime that are numbers, and its one switch.
    for field in fields(Regime):
        if field.name != "common":
            kind = {"action": "store_true"} if field.name == "shuffled" else {"type": type(field.default)}
            parser.add_argument(f"--{field.name}", default=None, help="of --world", **kind)
    given = parser.parse_args()
    changes = {f.name: value for f in fields(Regime) if (value := getattr(given, f.name, None)) is not None}
    try:
        if given.world is None:
            if None in (given.features, given.ground_truth, given.labels) or changes:
                parser.error("give FEATURES, --ground-truth and --labels, or --world and its settings")
            source: Source = Files(given.features, given.ground_truth, given.labels, given.clips)
            seeds, arms, task = given.seeds, given.arms or ON_FEATURES, load(source, 0)
            base, model = preset("own", task.train.lengths), model_settings("own")
        else:
            source = replace(conjointsynth.REGIMES[given.world], **changes)
            seeds, arms = list(range(given.first_world, given.first_world + given.worlds)), given.arms or ON_WORLDS
            # The pilot's, which no result of these worlds has touched.
            base, model = TrainConfig(steps=400, snippets=120, lr=1e-3), {"dim": 64}
            base = replace(base, loss=replace(base.loss, topk_divisor=8))
        base = replace(base, steps=given.steps or base.steps, gate_lr=given.gate_lr)
        settings = tuple({**model, "dim": given.dim or model["dim"]}.items())
        # World by world, so that a worker makes each once.
        jobs = [Job(arm, source, replace(base, seed=seed), settings) for seed in seeds for arm in arms]
        runs = by_arm(run_all(jobs, given.out, given.jobs))
    except (DatasetError, EvaluateError, FeaturesError, TrainError, OSError) as error:
        sys.exit(str(error))
    runs = {arm: runs[arm] for arm in arms}
    of_network = ", ".join(f"{name} {value}" for name, value in settings)
    print(f"{base.steps} steps of {base.batch} videos, lr {base.lr:g}, {of_network}; seeds {' '.join(map(str, seeds))}")
    print(f"{base.loss}\n")
    print(table(runs))
    if isinstance(source, Regime):
        some = [entry for entries in runs.values() for entry in entries]
        phi, floor = (float(np.mean([entry[name] for entry in some])) for name in ("phi", "definite_oracle"))
        print(f"\n{source}\nmedian phi {phi:.3f}; definite phases alone would have a conjoint mAP of {floor:.1f}\n")
        print(phases_table(runs))
        print(f"\n{judgement(runs, source, seeds)}")


if __name__ == "__main__":
    # Under its own name, so that worker processes find what they are sent.
    from benchmarks import arms

    arms.main()

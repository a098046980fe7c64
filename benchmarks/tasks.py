"""What the arms of arms.py learn from and are judged on: features of files, or a world of ConjointSynth."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks import conjointsynth
from benchmarks.bootstrap import Clips, Floats, Ints
from benchmarks.conjointsynth import Half, Regime
from extractors.config import STREAMS
from extractors.features import load as load_features
from model.datasets import DatasetError, VideoSet
from postprocess.evaluation.annotations import read_ground_truth
from postprocess.evaluation.metrics import Instances
from postprocess.evaluation.names import match_names

FPS = 25


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
        spans: of each training video its actions, (class, start, end) in seconds; empty where nothing can be marked.
        train_times: of each training video (T, 2) seconds; empty with `spans`.
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
    spans: tuple[tuple[tuple[int, float, float], ...], ...] = ()
    train_times: tuple[Floats, ...] = ()

    @property
    def stride(self) -> int:
        """Frames of the 25 fps grid from one snippet to the next; of videos in seconds, with two snippets or more."""
        return round(FPS * float(np.diff(self.times[0][:2, 0])[0]))

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
        spans=tuple(tuple(actions(v)) for v in halves["train"][0]),
        train_times=tuple(f.times for f in halves["train"][1]),
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

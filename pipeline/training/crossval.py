"""A check of how good a model is: each video is judged by a network that was trained without it.

The networks of the folds are trained with the same settings as the model itself. A class counts as found in a video if
`run` would draw a segment of it. The check needs only labels per video; with marked times it judges times, too.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from extractors.exact import exact
from model.checkpoint import Checkpoint, fingerprint, write_atomically
from model.config import TrainConfig
from model.datasets import VideoSet
from model.predict import Scores, predict
from model.train import LOG_NAME, STATE_NAME, train
from pipeline.training.found import TimesQuality, judge_times
from pipeline.training.snippets import Timed
from postprocess.config import LocalizeConfig
from postprocess.evaluation.metrics import classification_ap
from postprocess.localize import Activations, localize
from postprocess.segment import Segment
from support.progress import Progress, silent

FILE_NAME = "quality.json"
ENOUGH = 10  # with fewer videos of a class, its numbers say little
KNOWN = 0.9  # above this average precision, the scores of whole videos tell a class apart


@dataclass(frozen=True)
class ClassQuality:
    """How well one class was found in the held-out videos."""

    label: str
    videos: int
    """videos that show the class"""
    found: int
    """videos that show it and in which a segment of it is drawn"""
    wrongly: int
    """videos that do not show it and in which a segment of it is drawn"""
    ap: float
    """average precision of the video-level scores, in [0, 1]"""
    mistaken_for: tuple[str, int] | None
    """the class that is most often drawn instead where this one was missed, and how often"""


@dataclass(frozen=True)
class Quality:
    """The result of the check: all classes, and advice on what to add."""

    folds: int
    videos: int
    right: int
    """videos in which exactly their labels are drawn"""
    empty: int
    """videos without any action"""
    empty_right: int
    """videos without any action in which nothing is drawn"""
    classes: tuple[ClassQuality, ...]
    times: TimesQuality | None = None
    """how well marked times were found; None if nothing is marked"""

    def advice(self) -> list[str]:
        """What to do next as sentences, the most useful one first; empty if nothing is wrong."""
        advice = []
        for c in sorted(self.classes, key=lambda c: c.found / c.videos):
            missed = c.videos - c.found
            if c.videos < ENOUGH:
                advice.append(
                    f"{c.label}: {c.videos} videos are few; with {ENOUGH} or more its numbers would mean more."
                )
            if missed > c.videos / 4:
                instead, times = c.mistaken_for or ("", 0)
                often = "once" if times == 1 else f"{times} times"
                mistaken = f", {often} drawn as {instead}" if instead else ""
                # A class with sure scores is missed because its actions are too short, or just below θ.
                known = c.ap > KNOWN and not instead
                then = "its scores are right, so draw more with a lower --threshold, or train on longer videos"
                then = then if known else "add videos that show it"
                advice.append(f"{c.label}: missed in {missed} of {c.videos} videos{mistaken}; {then}.")
            if c.wrongly > max(1, c.videos / 4):
                advice.append(
                    f"{c.label}: drawn in {c.wrongly} videos not labelled with it; check their labels, "
                    "or add videos of what it is mistaken for."
                )
        if not self.empty:
            advice.append("every video shows an action; add a few without any (rows with empty labels).")
        elif self.empty_right < 0.75 * self.empty:
            wrong = self.empty - self.empty_right
            advice.append(f"something is drawn in {wrong} of {self.empty} videos without action; add more of them.")
        return advice

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `times` is left out if nothing is marked."""
        about = {name: value for name, value in asdict(self).items() if name != "times" or value is not None}
        return about | {"advice": self.advice()}


def assign_folds(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Deal the videos into folds so that every class is spread as evenly as possible.

    This is iterative stratification (Sechidis et al. 2011). The rarest label is dealt first. Each video goes to the
    fold that has the fewest videos of this label; ties are settled by the video's other labels, then by fold size.

    Args:
        labels: (N, C) bool.
        count: number of folds, at least 2.
        seed: decides the order within a class.

    Returns:
        (N,) fold of each video.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    fold = np.full(len(labels), -1)
    held = np.zeros((count, labels.shape[1]), dtype=np.int64)
    size = np.zeros(count, dtype=np.int64)

    def deal(video: int, label: int | None) -> None:
        wanted = held[:, label] if label is not None else size
        chosen = int(np.lexsort((size, held[:, labels[video]].sum(axis=1), wanted))[0])
        fold[video] = chosen
        held[chosen] += labels[video]
        size[chosen] += 1

    while (left := labels[fold < 0].sum(axis=0)).any():
        rarest = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        for video in order[(fold[order] < 0) & labels[order, rarest]]:
            deal(int(video), rarest)
    for video in order[fold[order] < 0]:
        deal(int(video), None)
    return fold


@dataclass(frozen=True)
class Check:
    """The settings of a check."""

    folds: int
    """how many networks are trained, at least 2"""
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
    """how segments are drawn in the held-out videos"""
    timed: Timed | None = None
    """when the snippets of each video are, and what is marked; None judges labels only"""


def cross_validate(
    start: Checkpoint,
    data: VideoSet,
    config: TrainConfig,
    check: Check,
    folder: Path,
    *,
    device: str = "cpu",
    resume: bool = True,
    on_progress: Progress = silent,
) -> Quality:
    """Train one network for each fold without that fold's videos, and judge these videos by it.

    Args:
        start: the untrained network.
        data: all videos.
        config: the settings of the training, the same for each fold.
        check: the number of folds, and how segments are drawn.
        folder: gets the state of each fold, and at the end quality.json.
        device: where to compute.
        resume: continue a check that was killed. Each fold's training resumes, and the result of a finished check of
            the same training is read from quality.json.
        on_progress: ("check", steps done, steps of all folds).

    Raises:
        TrainError, CheckpointError: as in `train`.
    """
    identity = _identity(start, data, config, check)
    path = folder / FILE_NAME
    if resume and (existing := _existing(path, identity)) is not None:
        return existing
    path.unlink(missing_ok=True)  # it belongs to another training
    folds = check.folds
    fold = assign_folds(data.labels, folds, config.seed)
    drawn = np.zeros_like(data.labels)
    scores = np.zeros(data.labels.shape)
    segments: dict[int, list[Segment]] = {}
    for k in range(folds):
        inside, outside = np.flatnonzero(fold != k).tolist(), np.flatnonzero(fold == k).tolist()
        part = data.take(inside)

        def report(stage: str, done: int, total: int, k: int = k) -> None:
            on_progress("check", k * total + done, folds * total)

        # The number of folds is part of the name, so that checks with different numbers never share a state.
        below = folder / f"fold-{k + 1}-of-{folds}"
        net = train(start, part, config, below, device=device, resume=resume, on_progress=report).build()
        for v in outside:
            with exact():
                found = predict(net, data.features[v], device=device)
            scores[v] = found.video
            segments[v] = _drawn(found, data.classes, check, v)
            drawn[v] = np.isin(data.classes, [segment.label for segment in segments[v]])
    quality = _judge(data, drawn, scores, folds)
    if check.timed is not None:
        of, ordered = check.timed, [segments[v] for v in range(len(data.names))]
        quality = replace(quality, times=judge_times(data.names, of.durations, of.marked, ordered, data.classes))
    write_atomically(path, json.dumps({"identity": identity, **quality.to_dict()}, indent=2).encode())
    sweep(folder)
    return quality


def sweep(folder: Path) -> None:
    """Remove the training states of all folds, which a finished check does not need."""
    for below in folder.glob("fold-*-of-*"):
        for name in (STATE_NAME, LOG_NAME):
            (below / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder may hold a file that is not ours
            below.rmdir()


def _drawn(scores: Scores, classes: Sequence[str], check: Check, video: int) -> list[Segment]:
    """The segments that `run` would draw. Without marks times do not matter, and a snippet lasts one second."""
    if check.timed is None:
        t = np.arange(len(scores.cas), dtype=np.float64)
        times, duration = np.stack((t, t + 1), axis=1), float(len(t))
    else:
        times, duration = check.timed.times[video], check.timed.durations[video]
    return localize(Activations(scores.cas, scores.actionness, scores.video, times, classes, duration), check.localize)


def _judge(data: VideoSet, drawn: np.ndarray, scores: np.ndarray, folds: int) -> Quality:
    ap = classification_ap(scores, data.labels)
    classes = []
    for c, label in enumerate(data.classes):
        shown = data.labels[:, c]
        instead = Counter(
            data.classes[other]
            for v in np.flatnonzero(shown & ~drawn[:, c])
            for other in np.flatnonzero(drawn[v] & ~data.labels[v])
        ).most_common(1)
        classes.append(
            ClassQuality(
                label=label,
                videos=int(shown.sum()),
                found=int((shown & drawn[:, c]).sum()),
                wrongly=int((~shown & drawn[:, c]).sum()),
                ap=float(ap[c]),
                mistaken_for=instead[0] if instead else None,
            )
        )
    empty = ~data.labels.any(axis=1)
    right = (drawn == data.labels).all(axis=1)
    return Quality(folds, len(drawn), int(right.sum()), int(empty.sum()), int((right & empty).sum()), tuple(classes))


def _identity(start: Checkpoint, data: VideoSet, config: TrainConfig, check: Check) -> str:
    described = [fingerprint(start), config.to_dict(), asdict(check.localize), check.folds, data.fingerprint()]
    if check.timed is not None:
        described += [[asdict(of) for of in check.timed.marked], [t.tolist() for t in check.timed.times]]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _existing(path: Path, identity: str) -> Quality | None:
    """The result of an earlier check of the same training, if there is one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("identity") != identity:
            return None
        document.pop("advice")
        classes = tuple(
            ClassQuality(**{**c, "mistaken_for": tuple(c["mistaken_for"]) if c["mistaken_for"] else None})
            for c in document.pop("classes")
        )
        times = document.pop("times", None)
        return Quality(classes=classes, times=times and TimesQuality.from_dict(times), **document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # an unreadable result is not an error: the check is done again

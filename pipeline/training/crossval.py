"""Is a model any good? Each video is judged by a network that has not seen it, from labels per video alone.

The folds are trained as the model itself is, with the same settings; a class counts as found in a video where `run`
would draw a segment of it. No timestamp is looked at, because a user who trains here has none.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from extractors.exact import exact
from model.checkpoint import Checkpoint, fingerprint, write_atomically
from model.config import TrainConfig
from model.datasets import VideoSet
from model.predict import predict
from model.train import LOG_NAME, STATE_NAME, train
from postprocess.config import LocalizeConfig
from postprocess.evaluation.metrics import classification_ap
from postprocess.localize import Activations, localize
from support.progress import Progress, silent

FILE_NAME = "quality.json"
ENOUGH = 10  # videos of a class, below which its numbers say little
KNOWN = 0.9  # average precision from which on the scores of whole videos tell a class apart


@dataclass(frozen=True)
class ClassQuality:
    """One class over the held-out videos.

    videos: that show it; found: of these, where a segment of it is drawn; wrongly: videos without it where one is
    drawn; ap: average precision of the video-level scores, in [0, 1]; mistaken_for: the class most often drawn
    instead, with how often, where it was not found.
    """

    label: str
    videos: int
    found: int
    wrongly: int
    ap: float
    mistaken_for: tuple[str, int] | None


@dataclass(frozen=True)
class Quality:
    """All classes, and what to add. right: videos with exactly their labels drawn; empty: videos without any action,
    and empty_right: those of them where nothing was drawn."""

    folds: int
    videos: int
    right: int
    empty: int
    empty_right: int
    classes: tuple[ClassQuality, ...]

    def advice(self) -> list[str]:
        """Sentences, the most useful first; none where nothing is wrong."""
        said = []
        for c in sorted(self.classes, key=lambda c: c.found / c.videos):
            missed = c.videos - c.found
            if c.videos < ENOUGH:
                said.append(f"{c.label}: {c.videos} videos are few; with {ENOUGH} or more its numbers would mean more.")
            if missed > c.videos / 4:
                instead, times = c.mistaken_for or ("", 0)
                often = "once" if times == 1 else f"{times} times"
                mistaken = f", {often} drawn as {instead}" if instead else ""
                known = c.ap > KNOWN and not instead  # what a sure score does not draw is too short, or just below θ
                then = "its scores are right, so draw more with a lower --threshold, or train on longer videos"
                then = then if known else "add videos that show it"
                said.append(f"{c.label}: missed in {missed} of {c.videos} videos{mistaken}; {then}.")
            if c.wrongly > max(1, c.videos / 4):
                said.append(
                    f"{c.label}: drawn in {c.wrongly} videos not labelled with it; check their labels, "
                    "or add videos of what it is mistaken for."
                )
        if not self.empty:
            said.append("no video is without action; a few (a row with empty labels) teach what is nothing.")
        elif self.empty_right < 0.75 * self.empty:
            wrong = self.empty - self.empty_right
            said.append(f"something is drawn in {wrong} of {self.empty} videos without action; add more of them.")
        return said

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"advice": self.advice()}


def assign_folds(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(N,) fold of each video, so that every class is spread over the folds as evenly as can be.

    The rarest label is dealt first (iterative stratification, Sechidis et al. 2011), each video to the fold that
    has the fewest of it, then of its other labels, then to the smallest.

    Args:
        labels: (N, C) bool.
        count: of folds, at least 2.
        seed: of the order within a class.
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


def cross_validate(
    start: Checkpoint,
    data: VideoSet,
    config: TrainConfig,
    localize_config: LocalizeConfig,
    folds: int,
    folder: Path,
    *,
    device: str = "cpu",
    resume: bool = True,
    on_progress: Progress = silent,
) -> Quality:
    """Train `folds` networks, each without its share of the videos, and judge each share by the one without it.

    Goes on where a killed one stopped: each fold's training resumes, and a finished check of the same training is
    read from `folder`/quality.json; not so without `resume`. on_progress: ("check", steps done, steps of all folds).

    Raises:
        TrainError, CheckpointError: as `train`.
    """
    identity = _identity(start, data, config, localize_config, folds)
    path = folder / FILE_NAME
    if resume and (kept := _kept(path, identity)) is not None:
        return kept
    path.unlink(missing_ok=True)  # it is of another training
    fold = assign_folds(data.labels, folds, config.seed)
    drawn = np.zeros_like(data.labels)
    scores = np.zeros(data.labels.shape)
    for k in range(folds):
        inside, outside = np.flatnonzero(fold != k).tolist(), np.flatnonzero(fold == k).tolist()
        part = replace(
            data,
            features=[data.features[v] for v in inside],
            labels=data.labels[inside],
            names=tuple(data.names[v] for v in inside),
        )

        def told(stage: str, done: int, total: int, k: int = k) -> None:
            on_progress("check", k * total + done, folds * total)

        # The number of folds is in the name: what a check with another number left is not this one's.
        below = folder / f"fold-{k + 1}-of-{folds}"
        net = train(start, part, config, below, device=device, resume=resume, on_progress=told).build()
        for v in outside:
            with exact():
                found = predict(net, data.features[v], device=device)
            scores[v] = found.video
            drawn[v] = _drawn(found.cas, found.actionness, found.video, data.classes, localize_config)
    quality = _judge(data, drawn, scores, folds)
    write_atomically(path, json.dumps({"identity": identity, **quality.to_dict()}, indent=2).encode())
    sweep(folder)
    return quality


def sweep(folder: Path) -> None:
    """Remove the states of folds: of a check that is done they are not needed any more."""
    for below in folder.glob("fold-*-of-*"):
        for name in (STATE_NAME, LOG_NAME):
            (below / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it may hold a file of somebody else's
            below.rmdir()


def _drawn(
    cas: np.ndarray, actionness: np.ndarray, video: np.ndarray, classes: Sequence[str], config: LocalizeConfig
) -> np.ndarray:
    """(C,) bool: which classes `run` would draw. Seconds do not matter here: a snippet counts as one."""
    t = np.arange(len(cas), dtype=np.float64)
    times = np.stack((t, t + 1), axis=1)
    segments = localize(Activations(cas, actionness, video, times, classes, float(len(cas))), config)
    labels = {segment.label for segment in segments}
    return np.array([name in labels for name in classes])


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


def _identity(
    start: Checkpoint, data: VideoSet, config: TrainConfig, localize_config: LocalizeConfig, folds: int
) -> str:
    described = [fingerprint(start), config.to_dict(), asdict(localize_config), folds, data.fingerprint()]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _kept(path: Path, identity: str) -> Quality | None:
    """What an earlier check of the same training found."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("identity") != identity:
            return None
        document.pop("advice")
        classes = tuple(
            ClassQuality(**{**c, "mistaken_for": tuple(c["mistaken_for"]) if c["mistaken_for"] else None})
            for c in document.pop("classes")
        )
        return Quality(classes=classes, **document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is only a kept answer: the check is done again

"""From marked times to what is known about each snippet of a video, for `model.timed`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EDGE = 0.64
"""Seconds before and after a marked action that count as background, unless they are marked: a snippet at stride 16."""


@dataclass(frozen=True)
class Mark:
    """A marked action in seconds: all of it, or one point inside it if `end` is None."""

    start: float
    end: float | None
    label: str


@dataclass(frozen=True)
class Marked:
    """What a person marked in one video.

    Attributes:
        marks: the marked actions.
        complete: whether every action of the video is marked, so that the rest is background.
    """

    marks: tuple[Mark, ...]
    complete: bool = False


NOTHING = Marked(())


def lengths(marked: Iterable[Marked]) -> list[float]:
    """Seconds of each marked span, without points."""
    return [mark.end - mark.start for of in marked for mark in of.marks if mark.end is not None]


def known(times: Floats, marked: Marked, classes: Sequence[str], margin: float = 0.0) -> NDArray[np.float32]:
    """The share of each snippet that shows each class, and the share that is background; the rest is unknown.

    A point says what the snippet around it shows, and nothing about others. Where spans of several classes overlap,
    they share the snippet.

    Args:
        times: (T, 2) start and end of each snippet in seconds.
        marked: what was marked; every label is one of `classes`.
        classes: C names.
        margin: seconds before and after each marked span that count as background, unless they are marked.

    Returns:
        (T, C+1), the background last. Rows sum to 1 where everything is known, and to 0 where nothing is.
    """
    number = {label: c for c, label in enumerate(classes)}
    found = np.zeros((len(times), len(classes) + 1))
    spans = [m for m in marked.marks if m.end is not None]
    for label in {m.label for m in spans}:
        found[:, number[label]] = _share(times, [(m.start, m.end or 0.0) for m in spans if m.label == label])
    for mark in marked.marks:
        if mark.end is None:
            row = found[int(np.argmin(np.abs(times.mean(axis=1) - mark.start)))]
            row[:] = 0
            row[number[mark.label]] = 1
    found /= np.maximum(found.sum(axis=1, keepdims=True), 1)
    free = 1 - found.sum(axis=1)
    if marked.complete:
        found[:, -1] = free
    elif margin > 0:
        around = [(m.start - margin, (m.end or 0.0) + margin) for m in spans]
        covered = [(m.start, m.end or 0.0) for m in spans]
        found[:, -1] = np.minimum(_share(times, around) - _share(times, covered), free).clip(min=0)
    return found.astype(np.float32)


def _share(times: Floats, spans: Sequence[tuple[float, float]]) -> Floats:
    """(T,) how much of each snippet lies inside the union of some spans, in [0, 1]."""
    inside = np.zeros(len(times))
    reach = -np.inf
    for start, end in sorted(spans):
        start = max(start, reach)
        if end > start:
            inside += (np.minimum(times[:, 1], end) - np.maximum(times[:, 0], start)).clip(min=0)
            reach = end
    return np.asarray(np.minimum(inside / np.maximum(times[:, 1] - times[:, 0], 1e-9), 1.0))


@dataclass(frozen=True, eq=False)
class Timed:
    """When the snippets of each video are, and what was marked.

    Attributes:
        times: for each video (T, 2) start and end of each snippet in seconds.
        durations: seconds of each video.
        marked: the marks of each video.
    """

    times: tuple[Floats, ...]
    durations: tuple[float, ...]
    marked: tuple[Marked, ...]

"""How well marked times were found in held-out videos: mAP, and sentences that a coach can use.

A marked action counts as found if `run` would draw a segment of its class that overlaps it with a tIoU of .5 or more;
one that is marked by a point, if such a segment contains the point. A segment can find one action. What is drawn
elsewhere is false if the video is complete; in other videos nobody knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from pipeline.training.snippets import Mark, Marked
from postprocess.evaluation.metrics import Instances, Predictions, detect
from postprocess.nms import SAME
from postprocess.segment import Segment

TIOU = 0.5
TIOUS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class ClassTimes:
    """How well the marked actions of one class were found."""

    label: str
    marked: int
    found: int
    false: int
    """segments in complete videos that find no action"""
    off: float | None
    """median over the starts and ends of what was found, in seconds: how far they are from those marked"""

    def sentence(self) -> str:
        """As a person says it."""
        if not self.marked:
            return f"{self.label}: none marked, {self.false} false"
        off = "" if self.off is None else f", boundaries off by {self.off:.1f} s in the median"
        return f"{self.label}: found {self.found} of {self.marked}, {self.false} false{off}"


@dataclass(frozen=True)
class HeldOut:
    """A held-out video: what was marked and what was drawn, as (start, end, label); the end of a point is its start."""

    video: str
    duration: float
    complete: bool
    marked: tuple[tuple[float, float, str], ...]
    drawn: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class TimesQuality:
    """The result for all classes.

    Attributes:
        mean_ap: "0.3", "0.5", "0.7" → mAP in percent over the complete videos, ranked by confidence; empty if there are
            no spans in complete videos.
        complete: number of complete videos.
        off: median over all starts and ends that were found, in seconds; None if there are none.
        classes: each class.
        confusion: (C+1, C+1). Row: what was marked, last nothing. Column: what was drawn there, last nothing.
        videos: each video with marks.
    """

    mean_ap: dict[str, float]
    complete: int
    off: float | None
    classes: tuple[ClassTimes, ...]
    confusion: tuple[tuple[int, ...], ...]
    videos: tuple[HeldOut, ...]

    def sentence(self) -> str:
        """All classes together."""
        off = "" if self.off is None else f", boundaries off by {self.off:.1f} s in the median"
        counts = (sum(c.found for c in self.classes), sum(c.marked for c in self.classes))
        return f"found {counts[0]} of {counts[1]}, {sum(c.false for c in self.classes)} false{off}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "TimesQuality":
        """The inverse of `to_dict`, after JSON.

        Raises:
            KeyError, TypeError, ValueError: the document has another form.
        """
        videos = tuple(
            HeldOut(**{**v, "marked": tuple(map(tuple, v["marked"])), "drawn": tuple(map(tuple, v["drawn"]))})
            for v in given["videos"]
        )
        classes = tuple(ClassTimes(**c) for c in given["classes"])
        confusion = tuple(tuple(map(int, row)) for row in given["confusion"])
        return cls(dict(given["mean_ap"]), int(given["complete"]), given["off"], classes, confusion, videos)


@dataclass
class _Tally:
    """What is counted of one class."""

    found: int
    false: int
    off: list[float]


def judge_times(
    names: Sequence[str],
    durations: Sequence[float],
    marked: Sequence[Marked],
    drawn: Sequence[Sequence[Segment]],
    classes: Sequence[str],
) -> TimesQuality:
    """Compare what was marked in each video with the segments that `run` would draw."""
    tallies = {label: _Tally(0, 0, []) for label in classes}
    confusion = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    number = {label: c for c, label in enumerate(classes)}
    for of, segments in zip(marked, drawn, strict=True):
        if not (of.marks or of.complete):
            continue
        taken = _match(of.marks, segments, same_label=True)
        for mark, s in taken:
            tally = tallies[mark.label]
            tally.found += 1
            if mark.end is not None:
                tally.off += [abs(segments[s].start - mark.start), abs(segments[s].end - mark.end)]
        anyhow = {id(mark): s for mark, s in _match(of.marks, segments, same_label=False)}
        for mark in of.marks:
            column = number[segments[anyhow[id(mark)]].label] if id(mark) in anyhow else len(classes)
            confusion[number[mark.label], column] += 1
        if of.complete:
            right = {s for _, s in taken}
            for s, segment in enumerate(segments):
                tallies[segment.label].false += s not in right
                confusion[-1, number[segment.label]] += s not in anyhow.values()
    offs = [seconds for tally in tallies.values() for seconds in tally.off]
    counts = {label: sum(m.label == label for of in marked for m in of.marks) for label in classes}
    return TimesQuality(
        _mean_ap(marked, drawn, number),
        sum(of.complete for of in marked),
        float(median(offs)) if offs else None,
        tuple(
            ClassTimes(label, counts[label], t.found, t.false, float(median(t.off)) if t.off else None)
            for label, t in tallies.items()
        ),
        tuple(tuple(int(n) for n in row) for row in confusion),
        tuple(
            HeldOut(
                name,
                seconds,
                of.complete,
                tuple((m.start, m.start if m.end is None else m.end, m.label) for m in of.marks),
                tuple((s.start, s.end, s.label) for s in segments),
            )
            for name, seconds, of, segments in zip(names, durations, marked, drawn, strict=True)
            if of.marks or of.complete
        ),
    )


def _match(marks: Sequence[Mark], segments: Sequence[Segment], same_label: bool) -> list[tuple[Mark, int]]:
    """Pairs of a mark and the segment that finds it, each at most once, those that overlap most first."""
    pairs = [
        (overlap, m, s)
        for m, mark in enumerate(marks)
        for s, segment in enumerate(segments)
        if (mark.label == segment.label or not same_label) and (overlap := _overlap(mark, segment)) >= TIOU - SAME
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    found: dict[int, int] = {}
    for _, m, s in pairs:
        if m not in found and s not in found.values():
            found[m] = s
    return [(marks[m], s) for m, s in sorted(found.items())]


def _overlap(mark: Mark, segment: Segment) -> float:
    """tIoU; of a point 1 if the segment contains it, else 0."""
    if mark.end is None:
        return float(segment.start <= mark.start <= segment.end)
    both = min(mark.end, segment.end) - max(mark.start, segment.start)
    return max(both, 0.0) / (max(mark.end, segment.end) - min(mark.start, segment.start))


def _mean_ap(
    marked: Sequence[Marked], drawn: Sequence[Sequence[Segment]], number: Mapping[str, int]
) -> dict[str, float]:
    """tIoU → mAP in percent over the complete videos."""
    complete = [(v, of) for v, of in enumerate(marked) if of.complete]
    spans = [(v, number[m.label], m.start, m.end) for v, of in complete for m in of.marks if m.end is not None]
    if not spans:
        return {}
    truth = np.array(spans, dtype=np.float64)
    rows = [(v, number[s.label], s.start, s.end, s.confidence) for v, _ in complete for s in drawn[v]]
    found = np.array(rows, dtype=np.float64).reshape(-1, 5)
    detection = detect(
        Instances(truth[:, 0].astype(np.int64), truth[:, 1].astype(np.int64), truth[:, 2:]),
        Predictions(found[:, 0].astype(np.int64), found[:, 1].astype(np.int64), found[:, 2:4], found[:, 4]),
        np.array(TIOUS),
    )
    return {f"{t:g}": round(float(100 * value), 2) for t, value in zip(TIOUS, detection.mean_ap, strict=True)}

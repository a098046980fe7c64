"""Marked times of actions, read from a CSV or from ActivityNet's JSON, and everything that may be wrong with them.

The CSV has the columns `video,start,end,label`, and may have `complete`. Times are seconds, or minutes and hours as in
1:02.5. A row without an end is a point inside an action. `complete` = yes on any row of a video means that all of its
actions are marked, so that the rest of it is background. A complete video without any action has one row with empty
start, end and label. In the JSON, a video may have the key `complete`, and a segment of one number is a point.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.datasets import DatasetError
from pipeline.training.snippets import Mark, Marked
from pipeline.training.tables import read_table
from postprocess.evaluation.names import label_key, nfc, suggest
from postprocess.evaluation.protocols import AMBIGUOUS

EXAMPLE = "video,start,end,label"
BEYOND = 0.5  # seconds by which tools disagree about the end of a video
YES, NO = ("yes", "true", "1", "x", "y"), ("no", "false", "0", "", "n")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?|[.,]\d+)")


@dataclass(frozen=True)
class Row:
    """A row of the times as it was written.

    Attributes:
        video, start, end, label: the cells; start and end are text.
        complete: whether the row says that its video is complete.
        at: where the row stands, for messages: "line 4".
    """

    video: str
    start: str
    end: str
    label: str
    complete: bool
    at: str


@dataclass(frozen=True)
class Times:
    """What was marked in all videos, by the names in the file.

    Attributes:
        path: the file.
        videos: video → its marks.
        places: video → where it comes first, for messages.
        problems: a sentence for each mistake, beginning with its place.
        notes: sentences about the file.
    """

    path: Path
    videos: dict[str, Marked]
    places: dict[str, str]
    lines: dict[str, tuple[str, ...]]
    """video → the place of each of its marks, in their order"""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that are marked."""
        return tuple(dict.fromkeys(m.label for of in self.videos.values() for m in of.marks))


def read_times(path: Path) -> Times:
    """Read the marks of all videos.

    Mistakes in single rows are returned as problems, so that `plan` can say all of them at once.

    Raises:
        DatasetError: the file cannot be read, is not a table or not ActivityNet's JSON, or holds nothing.
    """
    rows, notes = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    problems: list[str] = []
    marks: dict[str, list[Mark]] = defaultdict(list)
    lines: dict[str, list[str]] = defaultdict(list)
    complete: dict[str, bool] = defaultdict(bool)
    places: dict[str, str] = {}
    for row in rows:
        places.setdefault(row.video, row.at)
        complete[row.video] |= row.complete
        if not row.video:
            problems.append(f"{row.at}: names no video")
            continue
        mark, wrong = _mark(row)
        problems += [f"{row.at}: {fault}" for fault in wrong]
        if mark is not None:
            marks[row.video].append(mark)
            lines[row.video].append(row.at)
    videos = {video: Marked(tuple(marks[video]), complete[video]) for video in places if video}
    found = Times(path, videos, places, {v: tuple(lines[v]) for v in videos}, notes=tuple(notes))
    problems += [fault for video in videos for fault in _faults(found, video)]
    if not videos and not problems:
        raise DatasetError(f"{path}: holds no video; write a row for each action, as in `match.mp4,12.4,15.1,golf`.")
    return replace(found, problems=tuple(problems))


def respelled(times: Times, classes: Sequence[str]) -> Times:
    """The same times with labels spelled as in `classes`, where only case, blanks or underscores differ."""
    meant = {label_key(label): label for label in classes}
    return replace(
        times,
        videos={
            video: replace(of, marks=tuple(replace(m, label=meant.get(label_key(m.label), m.label)) for m in of.marks))
            for video, of in times.videos.items()
        },
    )


def beyond(times: Times, durations: Mapping[str, float]) -> list[str]:
    """A sentence for each mark that reaches beyond its video. `durations` are seconds by video; 0 is not known."""
    return [
        f"{at}: {_said(m)} reaches beyond the video, which ends at {durations[video]:g} s"
        for video, of in times.videos.items()
        for m, at in zip(of.marks, times.lines[video], strict=True)
        if durations.get(video) and (m.start if m.end is None else m.end) > durations[video] + BEYOND
    ]


def unknown_labels(times: Times, known: Sequence[str], source: Path) -> list[str]:
    """A sentence for each label that is none of those in the labels."""
    keys = {label_key(label) for label in known}
    problems = []
    for label in times.labels:
        if label_key(label) in keys:
            continue
        at = next(
            at
            for video, of in times.videos.items()
            for m, at in zip(of.marks, times.lines[video], strict=True)
            if m.label == label
        )
        close = suggest(label, known)
        hint = f"; did you mean {close!r}?" if close else f"; there are {', '.join(sorted(known))}"
        problems.append(f"{at}: {label!r} is no label of {source.name}{hint}")
    return problems


def contradictions(times: Times, labels: Mapping[str, Sequence[str]], source: Path) -> list[str]:
    """A sentence for each complete video in which an action that the labels name is not marked."""
    problems = []
    for video, of in times.videos.items():
        marked = {label_key(m.label) for m in of.marks}
        missing = [label for label in labels.get(video, ()) if of.complete and label_key(label) not in marked]
        if missing:
            problems.append(
                f"{times.places[video]}: {video} is complete without any {' or '.join(missing)}, "
                f"which {source.name} names; mark it, correct the label, or do not call the video complete"
            )
    return problems


def _csv_rows(path: Path) -> tuple[list[Row], list[str]]:
    table, notes = read_table(path, ("video", "start", "end", "label"), EXAMPLE)
    rows, doubtful = [], []
    for row in table:
        video, start, end, label, said = (row.cells.get(n, "") for n in ("video", "start", "end", "label", "complete"))
        if said.lower() not in YES + NO:
            doubtful.append(f"line {row.line}: complete is {said!r}")
        rows.append(Row(video, start, end, nfc(label), said.lower() in YES, f"line {row.line}"))
    if doubtful:
        raise DatasetError(f"{path}: {'; '.join(doubtful[:5])}; write yes or no.")
    return rows, notes


def _json_rows(path: Path) -> tuple[list[Row], list[str]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        database = document["database"]
        rows = [row for name, entry in database.items() for row in _entry(str(name), entry)]
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is not JSON in UTF-8 ({error}); check that it is the right file.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f'{path}: does not have the form of ActivityNet, {{"database": {{VIDEO: {{"annotations": [{{"label": …, '
            '"segment": [start, end]}]}}}; save it in that form, or as CSV.'
        ) from error
    return rows, []


def _entry(name: str, entry: Mapping[str, Any]) -> Iterator[Row]:
    complete = entry.get("complete", False)
    if not isinstance(complete, bool):
        raise TypeError("complete")
    annotations = [a for a in entry["annotations"] if a["label"] not in AMBIGUOUS]
    for i, annotation in enumerate(annotations, start=1):
        start, end = [*map(_cell, annotation["segment"]), "", ""][:2]
        yield Row(name, start, end, nfc(str(annotation["label"])), complete, f"{name}, annotation {i}")
    if not annotations:
        yield Row(name, "", "", "", complete, name)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _mark(row: Row) -> tuple[Mark | None, list[str]]:
    """The mark of a row, None if it has none; and what is wrong with it."""
    if not (row.start or row.end or row.label):
        return None, []
    wrong = [] if row.label else ["has a time but no label"]
    times = []
    for name, cell in (("start", row.start), ("end", row.end)):
        seconds = _seconds(cell) if cell else None
        if cell and seconds is None:
            wrong.append(f"{name} is {cell[:40]!r}; write seconds, as in 12.4, or minutes, as in 1:02.5")
        times.append(seconds)
    if not row.start:
        wrong.append(f"{row.label!r} has no start")
    start, end = times
    if start is not None and end is not None and end <= start:
        relation = "where" if end == start else "before"
        wrong.append(f"ends at {end:g} s, {relation} it starts ({start:g} s)")
    if wrong or start is None:
        return None, wrong
    return Mark(start, end, row.label), []


def _seconds(cell: str) -> float | None:
    match = _CLOCK.fullmatch(cell)
    if match is None:
        try:
            value = float(cell)
        except ValueError:
            return None
        return value if math.isfinite(value) and value >= 0 else None
    hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _faults(times: Times, video: str) -> Iterator[str]:
    """What is wrong with the marks of one video together: overlaps of one class, and points in a complete video."""
    of, lines = times.videos[video], times.lines[video]
    points = [at for m, at in zip(of.marks, lines, strict=True) if m.end is None]
    if of.complete and points:
        yield (
            f"{', '.join(points[:3])}: {video} is complete, but of {len(points)} of its {len(of.marks)} actions only a "
            "point is marked; give their ends, or do not call the video complete"
        )
    by_label: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for m, at in zip(of.marks, lines, strict=True):
        by_label[label_key(m.label)].append((m.start, m.start if m.end is None else m.end, at))
    for spans in by_label.values():
        spans.sort()
        reach, before = -math.inf, ""
        for start, end, at in spans:
            if start < reach:
                yield f"{before} and {at}: two marks of one label overlap in {video}; join them, or move an edge"
            if end > reach:
                reach, before = end, at


def _said(mark: Mark) -> str:
    return f"{mark.start:g} to {mark.end:g} s" if mark.end is not None else f"{mark.start:g} s"

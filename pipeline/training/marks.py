"""Joins marked times with the rows of the labels: which video is meant, and what the two say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.run.videos import VIDEO_SUFFIXES
from pipeline.training.labels import LabelledVideo, find_videos
from pipeline.training.snippets import Marked
from pipeline.training.times import Times, beyond, contradictions, respelled, unknown_labels
from postprocess.evaluation.names import label_key


@dataclass(frozen=True)
class Joined:
    """Rows to train on, with their marks.

    Attributes:
        rows: those of the labels with the labels that are marked in them, then the videos that only the times name.
        times: the marks, by the names of the rows.
        problems: a sentence for each mistake in the times.
        notes: sentences about what follows from the times.
    """

    rows: tuple[LabelledVideo, ...]
    times: Times
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def beyond(self, durations: Mapping[str, float]) -> list[str]:
        """A sentence for each mark beyond the end of its video; `durations` in seconds by row, 0 if not known."""
        return [f"{self.times.path.name} {problem}" for problem in beyond(self.times, durations)]

    def marked(self, classes: Sequence[str]) -> dict[str, Marked]:
        """The marks of each row, with labels spelled as the classes are."""
        return respelled(self.times, classes).videos


def join(
    times: Times, listing: Sequence[LabelledVideo], chosen: Sequence[LabelledVideo], labels: Path | None
) -> Joined:
    """Give each row the marks of its video.

    A video that only the times name is added: its labels are those that are marked. With labels, a marked label that
    none of them names is a mistake, since it is likely misspelt.

    Args:
        times: the marks.
        listing: all rows of the labels, of every split; none if there are no labels.
        chosen: the rows to train on.
        labels: the file of the labels.
    """
    given = [LabelledVideo(v, (), "", n, f"{times.path.name} row") for n, v in enumerate(times.videos, start=1)]
    found, _ = find_videos(given, {row.video: Path(row.video) for row in listing}, VIDEO_SUFFIXES)
    meant = {video: row.video for video in times.videos for row in listing if found.get(video) == Path(row.video)}
    problems = list(times.problems)
    problems += [
        f"{times.places[video]}: {video} is the same video as {other}, which comes before; use one name"
        for n, (video, name) in enumerate(meant.items())
        for other in list(meant)[:n]
        if meant[other] == name
    ]
    here = {row.video for row in chosen}
    used = [video for video in times.videos if video not in meant or meant[video] in here]
    names = {video: meant.get(video, video) for video in used}
    of_rows = replace(
        times,
        videos={names[v]: times.videos[v] for v in used},
        places={names[v]: times.places[v] for v in used},
        lines={names[v]: times.lines[v] for v in used},
    )
    rows = [_with(row, of_rows.videos.get(row.video)) for row in chosen]
    added = [
        _with(LabelledVideo(video, (), "", _line(times.places[video]), f"{times.path.name} line"), times.videos[video])
        for video in used
        if video not in meant
    ]
    if labels is not None:
        said = {row.video: row.labels for row in chosen}
        problems += unknown_labels(times, [label for row in listing for label in row.labels], labels)
        problems += contradictions(of_rows, said, labels)
    return Joined(
        (*rows, *added),
        of_rows,
        tuple(f"{times.path.name} {problem}" for problem in problems),
        (*(f"{times.path}: {note}" for note in times.notes), *_notes(times, chosen, rows, added, len(used), labels)),
    )


def _with(row: LabelledVideo, marked: Marked | None) -> LabelledVideo:
    """A row with the labels that are marked in its video."""
    if marked is None:
        return row
    return replace(row, labels=tuple(dict.fromkeys((*row.labels, *(mark.label for mark in marked.marks)))))


def _notes(
    times: Times,
    before: Sequence[LabelledVideo],
    rows: Sequence[LabelledVideo],
    added: Sequence[LabelledVideo],
    used: int,
    labels: Path | None,
) -> list[str]:
    notes = []
    if left := len(times.videos) - used:
        notes.append(f"{times.path}: {_count(left)} of another split: not trained on.")
    if labels is not None and added:
        notes.append(f"{times.path}: {_count(len(added))} not in {labels.name}; what is marked there are their labels.")
    if grown := sum(_keys(a) != _keys(b) for a, b in zip(before, rows, strict=True)):
        notes.append(f"{times.path}: in {_count(grown, verb=False)} it marks actions that {labels} does not name.")
    return notes


def _keys(row: LabelledVideo) -> set[str]:
    return set(map(label_key, row.labels))


def _count(videos: int, verb: bool = True) -> str:
    noun, is_ = ("video", " is") if videos == 1 else ("videos", " are")
    return f"{videos} {noun}{is_ if verb else ''}"


def _line(place: str) -> int:
    """The number at the end of "line 4"; 0 for a video of a JSON."""
    return int(place.removeprefix("line ")) if place.startswith("line ") else 0

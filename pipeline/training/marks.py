"""Joins marked times with the rows of the labels: which video is meant, and what the two say together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.run.videos import VIDEO_SUFFIXES
from pipeline.training.labels import LabelledVideo, find_videos
from pipeline.training.snippets import Marked
from pipeline.training.times import Times, beyond, contradictions, respelled, unknown_labels
from postprocess.evaluation.names import as_path, label_key


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
    names = {as_path(row.video).as_posix(): row.video for row in listing}
    found, _ = find_videos(given, {name: Path(name) for name in names}, VIDEO_SUFFIXES)
    meant = {video: names[path.as_posix()] for video, path in found.items()}
    problems = list(times.problems)
    first: dict[str, str] = {}
    for video, row_name in meant.items():
        if (other := first.setdefault(row_name, video)) != video:
            problems.append(f"{times.places[video]}: {video} is the video that {other} names, too; use one name")
    here = {row.video for row in chosen}
    used = [video for video in times.videos if video not in meant or meant[video] in here]
    of_rows = replace(
        times,
        videos={meant.get(v, v): times.videos[v] for v in used},
        places={meant.get(v, v): times.places[v] for v in used},
        lines={meant.get(v, v): times.lines[v] for v in used},
    )
    known = None if labels is None else {label_key(label) for row in listing for label in row.labels}
    rows = [_with(row, of_rows.videos.get(row.video), known) for row in chosen]
    added = [
        _with(_row(times, n, video), times.videos[video], known)
        for n, video in enumerate(times.videos, start=1)
        if video in used and video not in meant
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


def _with(row: LabelledVideo, marked: Marked | None, known: Collection[str] | None) -> LabelledVideo:
    """A row with the labels that are marked in its video, without those that are not known: they are mistakes."""
    found = () if marked is None else (m.label for m in marked.marks if known is None or label_key(m.label) in known)
    return replace(row, labels=tuple(dict.fromkeys((*row.labels, *found))))


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


def _row(times: Times, number: int, video: str) -> LabelledVideo:
    """A row for a video that only the times name, the `number`-th of them."""
    place = times.places[video]
    if place.startswith("line "):
        return LabelledVideo(video, (), "", int(place.removeprefix("line ")), f"{times.path.name} line")
    return LabelledVideo(video, (), "", number, f"{times.path.name} video")

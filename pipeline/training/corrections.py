"""Corrections made in our page or in another tool, as labels and times for `train` and ground truth for `evaluate`."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.run.videos import VIDEO_SUFFIXES
from pipeline.training.labels import COMMAS, SHOWN, LabelledVideo, find_videos
from postprocess.evaluation.names import as_path, nfc
from postprocess.formats.annotated import Annotated, ExchangeError
from postprocess.formats.elan import read_elan
from postprocess.formats.labelstudio import read_labelstudio
from postprocess.formats.marked import PATTERN, SUFFIX, read_marked
from postprocess.formats.sportscode import read_sportscode
from postprocess.segment import Result
from support.errors import UsageError

READERS: dict[str, Callable[[Path], list[Annotated]]] = {
    "labelstudio": read_labelstudio,
    "elan": read_elan,
    "sportscode": read_sportscode,
}
PAGE = "jcdnet"  # the source that is our own page


def read_corrections(paths: Sequence[Path], source: str, folder: Path | None = None) -> list[Annotated]:
    """Read the annotations that a person made, one `Annotated` for each video.

    Videos are named relative to `folder`, or by their file names if there is no folder. Files of our page may be given
    as the folder that holds them; if a video was saved several times, its last corrections count.

    Raises:
        UsageError: the source is unknown, a video comes twice, `folder` does not hold a video or holds it twice, or a
            label cannot be written into a CSV of labels.
        ExchangeError: a file cannot be read; of files of our page, everything that is wrong with any of them.
    """
    if source not in READERS and source != PAGE:
        raise UsageError(f"--from {source}: there are {', '.join((PAGE, *READERS))}.")
    if source == PAGE:
        found = _of_the_page(paths)
        # A browser saves them wherever it likes, so that no path in them is relative to them.
        places = [video.video for _, video in found]
    else:
        found = [(path, video) for path in paths for video in READERS[source](path)]
        places = [str((path.parent / as_path(video.video)).resolve()) for path, video in found]
    names = _names(places, [video.video for _, video in found], folder)
    named = [replace(video, video=name) for name, (_, video) in zip(names, found, strict=True)]
    seen: set[str] = set()
    for video in named:
        if nfc(video.video) in seen:
            hint = "give each video once" if folder else "tell them apart with --videos FOLDER"
            raise UsageError(f"{video.video}: comes twice in the given files; {hint}.")
        seen.add(nfc(video.video))
        if bad := next((s.label for s in video.spans if "|" in s.label or "\n" in s.label), None):
            raise UsageError(f"{video.video}: the label {bad!r} holds a | or a new line; rename it.")
    return [replace(video, notes=video.notes + _doubtful(video) + _left_out(video)) for video in named]


def marked_before(folder: Path | None) -> Callable[[Result], Annotated | None]:
    """Gives, for a result, what a person marked in its video on an earlier page; None without a folder.

    A video is known by its path, or by its name if there is only one of that name.

    Raises:
        UsageError: the folder holds no corrections.
        ExchangeError: a file cannot be read.
    """
    found = [] if folder is None else [video for _, video in _of_the_page([folder])]

    def of(result: Result) -> Annotated | None:
        name = as_path(nfc(result.video))
        same = [video for video in found if as_path(nfc(video.video)).name == name.name]
        exact = [video for video in same if as_path(nfc(video.video)) == name]
        return (exact or same)[0] if exact or len(same) == 1 else None

    return of


def _of_the_page(paths: Sequence[Path]) -> list[tuple[Path, Annotated]]:
    """Each video's last corrections, with the file that they are from."""
    files: list[Path] = []
    for path in paths:
        below = sorted(path.rglob(PATTERN)) if path.is_dir() else [path]
        if not below:
            raise UsageError(f"{path}: no file in it ends in {SUFFIX}; give the folder into which the page saved them.")
        files += below
    marked, faults = [], []
    for path in dict.fromkeys(files):
        try:
            marked += [(path, one) for one in read_marked(path)]
        except ExchangeError as error:
            faults.append(str(error))
    if faults:
        raise ExchangeError("\n".join(faults))
    latest: dict[str, tuple[Path, Annotated]] = {}
    for path, one in sorted(marked, key=lambda pair: pair[1].saved):
        video, notes = one.video, one.video.notes
        if (before := latest.get(nfc(video.video))) is not None:
            notes += (f"{before[0]}: {path} has later corrections of the same video, and these count.",)
        latest[nfc(video.video)] = path, replace(video, notes=notes)
    return [latest[name] for name in sorted(latest)]


def _doubtful(video: Annotated) -> tuple[str, ...]:
    """A note for each label that `train` would refuse in a CSV."""
    labels = dict.fromkeys(s.label for s in video.spans if COMMAS.search(s.label))
    return tuple(
        f"{video.video}: {label!r} holds a comma, which `train` refuses in a CSV; rename it." for label in labels
    )


def _left_out(video: Annotated) -> tuple[str, ...]:
    """A note about what only some of the files hold."""
    if _says_nothing(video):
        return (f"{video.video}: nothing is marked in it and it is not called complete, so that it is left out.",)
    points = 0 if video.complete is None else sum(s.start == s.end for s in video.spans)
    marks = "1 mark has" if points == 1 else f"{points} marks have"
    return (f"{video.video}: {marks} no end, so that the ground truth leaves it out.",) if points else ()


def _says_nothing(video: Annotated) -> bool:
    return video.complete is False and not video.spans


def _names(places: Sequence[str], videos: Sequence[str], folder: Path | None) -> list[str]:
    """The name of each video, given the path that it may have here and its name in the annotation file."""
    if folder is None:
        return [as_path(video).name for video in videos]
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the videos.")
    below = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    available = {p.relative_to(folder).as_posix(): p for p in below}
    # A video that was moved, or annotated on another machine, is found by its file name.
    there, _ = find_videos(_rows(places), available, VIDEO_SUFFIXES)
    asked = [path if path in there else as_path(video).name for path, video in zip(places, videos, strict=True)]
    found, problems = find_videos(_rows(asked), available, VIDEO_SUFFIXES)
    if problems := [p for p in problems if not p.startswith("lines")]:  # the caller reports a video that comes twice
        shown = "; ".join(p.partition(": ")[2] for p in problems[:SHOWN])
        raise UsageError(f"{folder}: {shown}.")
    return [found[name].relative_to(folder).as_posix() for name in asked]


def _rows(names: Sequence[str]) -> list[LabelledVideo]:
    return [LabelledVideo(name, (), "", i) for i, name in enumerate(dict.fromkeys(names), start=1)]


def labels_csv(videos: Sequence[Annotated]) -> str:
    """A CSV with `video,labels`, as `train` reads it. A row without labels is a video in which nothing was drawn."""
    rows = ((v.video, "|".join(dict.fromkeys(s.label for s in v.spans))) for v in videos if not _says_nothing(v))
    return _csv(("video", "labels"), rows)


def times_csv(videos: Sequence[Annotated]) -> str:
    """A CSV with `video,start,end,label,complete`, as `train --times` reads it, in seconds to the millisecond.

    A row without an end is a single moment. `complete` is yes if everything that happens in the video is marked; if
    nothing happens in such a video, it has one row without start, end and label.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    for video in videos:
        complete = "yes" if video.complete else "no"
        for s in video.spans:
            end = f"{s.end:.3f}" if s.end > s.start else ""
            rows.append((video.video, f"{s.start:.3f}", end, s.label, complete))
        if video.complete and not video.spans:
            rows.append((video.video, "", "", "", complete))
    return _csv(("video", "start", "end", "label", "complete"), rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def ground_truth_json(videos: Sequence[Annotated]) -> str:
    """ActivityNet's `database`, as `evaluate` reads it, with times in seconds to the millisecond.

    `complete` says whether everything in a video is marked, where the source knows. Single moments have no length that
    could be scored and are left out.
    """
    database: dict[str, dict[str, object]] = {}
    for video in videos:
        if _says_nothing(video):
            continue
        annotations = [
            {"label": s.label, "segment": [round(s.start, 3), round(s.end, 3)]}
            for s in video.spans
            if video.complete is None or s.end > s.start
        ]
        known = {} if video.complete is None else {"complete": video.complete}
        database[video.video] = {**known, "annotations": annotations}
    return json.dumps({"version": "jcdnet, corrected", "database": database}, indent=2, ensure_ascii=True) + "\n"

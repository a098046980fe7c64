"""Corrections that were made in another tool, turned into labels for `train` and into ground truth for `evaluate`."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.run.videos import VIDEO_SUFFIXES
from pipeline.training.labels import COMMAS, SHOWN, LabelledVideo, find_videos
from postprocess.evaluation.names import as_path, nfc
from postprocess.formats.annotated import Annotated
from postprocess.formats.elan import read_elan
from postprocess.formats.labelstudio import read_labelstudio
from postprocess.formats.sportscode import read_sportscode
from support.errors import UsageError

READERS: dict[str, Callable[[Path], list[Annotated]]] = {
    "labelstudio": read_labelstudio,
    "elan": read_elan,
    "sportscode": read_sportscode,
}


def read_corrections(paths: Sequence[Path], source: str, folder: Path | None = None) -> list[Annotated]:
    """Read the annotations that a person made, one `Annotated` for each video.

    Videos are named relative to `folder`, or by their file names if there is no folder.

    Raises:
        UsageError: the source is unknown, a video comes twice, `folder` does not hold a video or holds it twice, or a
            label cannot be written into a CSV of labels.
        ExchangeError: a file cannot be read.
    """
    if source not in READERS:
        raise UsageError(f"--from {source}: there are {', '.join(READERS)}.")
    found = [(path, video) for path in paths for video in READERS[source](path)]
    names = _names([(path, video.video) for path, video in found], folder)
    named = [replace(video, video=name) for name, (_, video) in zip(names, found, strict=True)]
    seen: set[str] = set()
    for video in named:
        if nfc(video.video) in seen:
            hint = "give each video once" if folder else "tell them apart with --videos FOLDER"
            raise UsageError(f"{video.video}: comes twice in the given files; {hint}.")
        seen.add(nfc(video.video))
        if bad := next((s.label for s in video.spans if "|" in s.label or "\n" in s.label), None):
            raise UsageError(f"{video.video}: the label {bad!r} holds a | or a new line; rename it.")
    return [replace(video, notes=video.notes + _doubtful(video)) for video in named]


def _doubtful(video: Annotated) -> tuple[str, ...]:
    """A note for each label that `train` would refuse in a CSV."""
    labels = dict.fromkeys(s.label for s in video.spans if COMMAS.search(s.label))
    return tuple(
        f"{video.video}: {label!r} holds a comma, which `train` refuses in a CSV; rename it." for label in labels
    )


def _names(videos: Sequence[tuple[Path, str]], folder: Path | None) -> list[str]:
    """The name of each video, given (annotation file, name of the video in this file)."""
    if folder is None:
        return [as_path(video).name for _, video in videos]
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the videos.")
    below = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    available = {p.relative_to(folder).as_posix(): p for p in below}
    # A video that was moved, or annotated on another machine, is found by its file name.
    whole = [str((file.parent / as_path(video)).resolve()) for file, video in videos]
    there, _ = find_videos(_rows(whole), available, VIDEO_SUFFIXES)
    asked = [path if path in there else as_path(video).name for path, (_, video) in zip(whole, videos, strict=True)]
    found, problems = find_videos(_rows(asked), available, VIDEO_SUFFIXES)
    if problems := [p for p in problems if not p.startswith("lines")]:  # the caller reports a video that comes twice
        shown = "; ".join(p.partition(": ")[2] for p in problems[:SHOWN])
        raise UsageError(f"{folder}: {shown}.")
    return [found[name].relative_to(folder).as_posix() for name in asked]


def _rows(names: Sequence[str]) -> list[LabelledVideo]:
    return [LabelledVideo(name, (), "", i) for i, name in enumerate(dict.fromkeys(names), start=1)]


def labels_csv(videos: Sequence[Annotated]) -> str:
    """A CSV with `video,labels`, as `train` reads it. A row without labels is a video in which nothing was drawn."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "labels"))
    for video in videos:
        writer.writerow((video.video, "|".join(dict.fromkeys(s.label for s in video.spans))))
    return text.getvalue()


def ground_truth_json(videos: Sequence[Annotated]) -> str:
    """ActivityNet's `database`, as `evaluate` reads it, with times in seconds to the millisecond."""
    database = {
        video.video: {
            "annotations": [{"label": s.label, "segment": [round(s.start, 3), round(s.end, 3)]} for s in video.spans]
        }
        for video in videos
    }
    return json.dumps({"version": "jcdnet, corrected", "database": database}, indent=2, ensure_ascii=True) + "\n"

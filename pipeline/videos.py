"""Which videos are meant by files, folders and patterns, and what their results are called."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from postprocess.writers import is_made

RESERVED = frozenset({"_run", "segments", "index"})  # what a run writes beside the results
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


@dataclass(frozen=True)
class Job:
    """A video, and the name of its results below the output folder, without suffix."""

    video: Path
    name: Path


def find_videos(paths: Sequence[str]) -> list[Job]:
    """The videos in files, folders (recursive) and glob patterns, each once, in the order given.

    A file that is named is taken whatever its suffix; in folders and patterns the suffix decides.

    Raises:
        UsageError: a folder or a pattern without a video in it, or two results would get one name.
    """
    found: dict[Path, tuple[Path, Path]] = {}  # resolved -> (video, name with suffix)
    for given in paths:
        refuse(given)
        path = Path(given)
        try:
            folder, there = path.is_dir(), path.exists()
        except OSError:  # too long a name, or a folder that may not be looked into: reading it says so
            folder, there = False, True
        if folder:
            pairs = [(p, p.relative_to(path)) for p in sorted(_below(path))]
        elif not there and glob.has_magic(given):
            matches = sorted(Path(p) for p in glob.glob(given, recursive=True))  # noqa: PTH207
            pairs = [(p, Path(p.name)) for p in matches if p.suffix.lower() in VIDEO_SUFFIXES and not is_made(p)]
        else:
            pairs = [(path, Path(path.name))]
        if not pairs:
            raise UsageError(f"{given}: no video in it; known suffixes: {' '.join(sorted(VIDEO_SUFFIXES))}.")
        for video, name in pairs:
            found.setdefault(Path(os.path.realpath(video)), (video, name))  # `resolve` raises where links go in circles
    return _named(list(found.values()))


def refuse(given: str) -> None:
    """What cannot be the name of a file, though people give it as one.

    Raises:
        UsageError: an address, or nothing.
    """
    if not given.strip():
        raise UsageError("a video's name is empty; was a variable of the shell meant that is not set?")
    scheme = _ADDRESS.match(given)
    if scheme is None or Path(given).exists():
        return
    if (scheme[1] or "").lower() == "file":
        raise UsageError(f"{given}: jcdnet reads files: give its path, without file://.")
    how = {"http": "yt-dlp", "https": "yt-dlp", "s3": "aws s3 cp", "gs": "gsutil cp"}.get((scheme[1] or "http").lower())
    raise UsageError(f"{given}: jcdnet reads files: download it first{f' ({how} {given})' if how else ''}.")


_ADDRESS = re.compile(r"(?:([a-z][a-z0-9+.-]+)://|www\.[^/]+/)", re.IGNORECASE)


def _below(folder: Path) -> Iterator[Path]:
    """The videos in a folder, through links to other folders too, each folder once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root).stat()
        if (here.st_dev, here.st_ino) in seen:  # a link back to where we were
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders.sort()
        for name in files:
            path = Path(root, name)
            video = path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and not is_made(path)
            if video and path.is_file():
                yield path


def _named(pairs: list[tuple[Path, Path]]) -> list[Job]:
    """Names for results: the stem; with the suffix where two share it or a run writes it; else below the parent's."""
    names = [name if name.stem in RESERVED else name.with_suffix("") for _, name in pairs]
    for wider in (lambda video, name: name, lambda video, name: Path(video.absolute().parent.name) / name):
        taken = Counter(names)
        names = [
            wider(video, name) if taken[short] > 1 else short for (video, name), short in zip(pairs, names, strict=True)
        ]
    taken = Counter(names)
    clash = next((name for name in names if taken[name] > 1), None)
    if clash is not None:
        raise UsageError(f"two videos would both be written as {clash}; run their folders one at a time.")
    return [Job(video, name) for (video, _), name in zip(pairs, names, strict=True)]

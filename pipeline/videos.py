"""Which videos are meant by files, folders and patterns, and what their results are called."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from postprocess.writers import SUFFIXES, is_made

RESERVED = frozenset({"_run", "segments", "index"})  # what a run writes beside the results
# fmt: off
# What cameras, recorders and tools call their videos, in any case. FFmpeg decides by the content what is in a file.
# Not .lrv, which is a camera's small copy of the MP4 beside it, nor suffixes that mostly mean something else (.dat).
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".266", ".360", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".av1", ".avc", ".avi", ".dav",
    ".divx", ".dv", ".dvr-ms", ".f4v", ".flv", ".gif", ".gxf", ".h264", ".h265", ".hevc", ".insv", ".ismv", ".ivf",
    ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp2v",
    ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mqv", ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogm", ".ogv", ".ogx",
    ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob", ".vro", ".webm", ".wmv", ".wtv", ".xvid", ".y4m",
})
# What stands beside videos and nobody misses: results of ours, pictures, sound, subtitles.
QUIET = frozenset({
    ".ass", ".bak", ".bmp", ".csv", ".eaf", ".edl", ".fcpxml", ".heic", ".html", ".ini", ".jpeg", ".jpg", ".json",
    ".jsonl", ".m4a", ".mp3", ".npz", ".part", ".png", ".srt", ".svg", ".thm", ".tmp", ".vtt", ".wav", ".webp", ".xml",
})
# fmt: on
KINDS = 6  # of suffixes named in one sentence


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
        path = Path(given)
        if path.is_dir():
            pairs = [(p, p.relative_to(path)) for p in sorted(_below(path))]
        elif not path.exists() and glob.has_magic(given):
            matches = sorted(Path(p) for p in glob.glob(given, recursive=True))  # noqa: PTH207
            pairs = [(p, Path(p.name)) for p in matches if p.suffix.lower() in VIDEO_SUFFIXES and not is_made(p)]
        else:
            pairs = [(path, Path(path.name))]
        if not pairs:
            there = _counted(_others(given))
            raise UsageError(
                f"{given}: no video in it{f', but {there}' if there else ''}; a file that is named is read whatever "
                f"its suffix, in folders these count: {' '.join(sorted(VIDEO_SUFFIXES))}."
            )
        for video, name in pairs:
            found.setdefault(video.resolve(), (video, name))
    return _named(list(found.values()))


def left_out(paths: Sequence[str]) -> list[str]:
    """A sentence for each folder or pattern in which files are no videos by their names, and not just beside them."""
    found = ((given, _counted(_others(given))) for given in paths)
    return [f"{given}: left out what is no video by its name: {there}." for given, there in found if there]


def _others(given: str) -> list[Path]:
    """The files in a folder or of a pattern that `find_videos` leaves out, but for what is quiet."""
    path = Path(given)
    files = _files(path) if path.is_dir() else ()
    if not path.exists() and glob.has_magic(given):
        files = (Path(p) for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207
    quiet = tuple(suffix for suffix in SUFFIXES.values() if suffix.count(".") > 1)
    return [p for p in files if p.suffix.lower() not in VIDEO_SUFFIXES | QUIET and not p.name.endswith(quiet)]


def _counted(files: Sequence[Path]) -> str:
    """3 files (2 .txt, 1 .lrv); "" for none."""
    kinds = Counter(path.suffix.lower() or "without suffix" for path in files).most_common()
    shown = [f"{count} {kind}" for kind, count in kinds[:KINDS]]
    if more := sum(count for _, count in kinds[KINDS:]):
        shown.append(f"{more} of other kinds")
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({', '.join(shown)})" if files else ""


def _below(folder: Path) -> Iterator[Path]:
    """The videos in a folder, through links to other folders too, each folder once."""
    return (path for path in _files(folder) if path.suffix.lower() in VIDEO_SUFFIXES and not is_made(path))


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder that are not hidden, through links to other folders too, each folder once."""
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
            if not name.startswith(".") and path.is_file():
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

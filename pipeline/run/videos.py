"""Finds the videos in files, folders and patterns, here or in a store, and gives their results names."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from pipeline.cache.content import Video
from postprocess.formats.writers import SUFFIXES, is_made, is_result
from support.errors import UsageError
from support.paths import is_missing, is_url, missing

RESERVED = frozenset({"_run", "segments", "index"})  # names of files that a run writes beside the results
# fmt: off
# Suffixes of cameras, recorders and tools; upper and lower case are the same. FFmpeg looks at the content instead.
# Left out are .lrv, a camera's small copy of the MP4 beside it, and suffixes that usually mean something else (.dat).
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".266", ".360", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".av1", ".avc", ".avi", ".dav",
    ".divx", ".dv", ".dvr-ms", ".f4v", ".flv", ".gif", ".gxf", ".h264", ".h265", ".hevc", ".insv", ".ismv", ".ivf",
    ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp2v",
    ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mqv", ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogm", ".ogv", ".ogx",
    ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob", ".vro", ".webm", ".wmv", ".wtv", ".xvid", ".y4m",
})
# Files that are expected beside videos: results of ours, pictures, sound, subtitles. No message lists them.
QUIET = frozenset({
    ".ass", ".bak", ".bmp", ".csv", ".eaf", ".edl", ".fcpxml", ".heic", ".html", ".ini", ".jpeg", ".jpg", ".json",
    ".jsonl", ".m4a", ".mp3", ".npz", ".part", ".png", ".srt", ".svg", ".thm", ".tmp", ".vtt", ".wav", ".webp", ".xml",
})
# fmt: on
KINDS = 6  # the most suffixes that one sentence names


@dataclass(frozen=True)
class Job:
    """A video, and the name of its results: below the output folder and without suffix."""

    video: Video
    name: Path
    older: tuple[Path, ...] = ()
    """names that another run or an earlier version may have given it"""


def find_videos(paths: Sequence[str]) -> list[Job]:
    """Find the videos in files, in folders with everything below them, and in glob patterns, each once and in order.

    A file that is named is taken whatever its suffix is. In folders and patterns the suffix decides, and videos that
    were made here from others are left out, unless there is nothing else. Each may also be the address of something in
    a store, which is listed, and asked about single videos later.

    Raises:
        UsageError: a folder or a pattern holds no video, no file that is named exists, or two results get one name.
        StoreError, EnvironmentMissing: a store cannot be listed, or its package is missing.
    """
    found: dict[Path | str, _Place] = {}  # by resolved path, or by address
    for given in paths:
        refuse(given)
    paths = [_without_file(given) for given in paths]
    if any(map(is_url, paths)):
        from pipeline.run import remotes  # here and below: only for addresses

        remotes.forget()
    folders = _outermost([_absolute(given) for given in paths if _is_folder(given)])
    made: list[Path] = []
    for given in paths:
        videos: Sequence[Video]
        ours: Sequence[Path] = ()
        if is_url(given):
            videos = remotes.videos(given, VIDEO_SUFFIXES, _is_video)
        else:
            videos, ours = _told_apart(given)
        if not (videos or ours):
            raise UsageError(_no_video(given))
        made += ours
        for video in videos:
            # Path.resolve raises where links lead in a circle.
            real = Path(os.path.realpath(video)) if isinstance(video, Path) else str(video)
            found.setdefault(real, _Place(video, folders))
    if not found:  # nothing else can be meant
        found = {Path(os.path.realpath(path)): _Place(path, folders) for path in made}
    named = [place.video for place in found.values()]
    if named and all(isinstance(video, Path) and is_missing(video) for video in named):  # else these alone fail later
        raise UsageError(missing(named[0], len(named)))
    return _named(list(found.values()))


def _without_file(given: str) -> str:
    """A file:// address as a path; anything else stays as it is."""
    if given[:7].lower() != "file://":
        return given
    from support.urls import local_file

    return str(local_file(given))


def _is_video(path: PurePath) -> bool:
    """Whether something in a store, of which the name is known, is a video of the user's."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and not is_made(path)


def _told_apart(given: str) -> tuple[list[Path], list[Path]]:
    """(the user's videos, the videos that were made here from others) that a name on this machine means, in order."""
    if not (_is_folder(given) or _is_pattern(given)):
        return [Path(given)], []
    from pipeline.clips.made import made_here  # a run of single videos needs none of that

    videos = sorted(path for path in _inside(given) if path.suffix.lower() in VIDEO_SUFFIXES)
    made = made_here(videos)
    return [path for path in videos if path not in made], sorted(made)


def _inside(given: str) -> list[Path]:
    """The files in a folder with everything below it, or of a pattern."""
    if _is_folder(given):
        return list(_files(Path(given)))
    return [path for path in map(Path, glob.glob(given, recursive=True)) if path.is_file()]  # noqa: PTH207


def _no_video(given: str) -> str:
    """The sentence about a folder or a pattern without a video."""
    if not is_url(given) and any(path.name.endswith(".scores.npz") for path in _inside(given)):
        return f"{given}: holds results and no video; name the folder of the videos."
    others = _counted(_others(given))
    return (
        f"{given}: no video in it{f', but {others}' if others else ''}; a file that is named is read whatever its "
        f"suffix, in folders these count: {' '.join(sorted(VIDEO_SUFFIXES))}."
    )


def _is_folder(given: str | Path) -> bool:
    if isinstance(given, str) and is_url(given):
        from pipeline.run import remotes

        return remotes.is_folder(given, VIDEO_SUFFIXES)
    try:
        return Path(given).is_dir()
    except OSError:  # the name is too long, or the folder is closed to us; reading it will say so
        return False


def _is_pattern(given: str) -> bool:
    try:
        return glob.has_magic(given) and not Path(given).exists()
    except OSError:
        return False


def left_out(paths: Sequence[str]) -> list[str]:
    """Return a sentence for each folder or pattern with videos that were made here, and for each with other files.

    The other files are those that are neither videos by their names nor QUIET.
    """
    said = []
    parts = {given: _told_apart(_without_file(given)) for given in paths if not is_url(_without_file(given))}
    alone = len(parts) == len(set(paths)) and not any(own for own, _ in parts.values())
    for given in paths:
        if made := parts.get(given, ([], []))[1]:
            what = f"{len(made)} videos, such as {made[0]}," if len(made) > 1 else str(made[0])
            said.append(
                f"{given}: all there is was made by jcdnet from other videos; it is taken, since nothing else is named."
                if alone
                else f"{given}: left out {what} that jcdnet made; a file that you name itself is always taken."
            )
        if there := _counted(_others(given)):
            said.append(f"{given}: left out what is no video by its name: {there}.")
    return said


def _others(given: str) -> list[Path]:
    """The files in a folder or of a pattern that `find_videos` leaves out, without those that are QUIET."""
    given = _without_file(given)
    files: Iterable[Path] = ()
    if is_url(given):
        from pipeline.run import remotes

        files = [path for path in remotes.files(given, VIDEO_SUFFIXES) if not path.name.startswith(".")]
    elif _is_folder(given) or _is_pattern(given):
        files = _inside(given)
    quiet = tuple(suffix for suffix in SUFFIXES.values() if suffix.count(".") > 1)
    return [p for p in files if p.suffix.lower() not in VIDEO_SUFFIXES | QUIET and not p.name.endswith(quiet)]


def _counted(files: Sequence[Path]) -> str:
    """Such as "3 files (2 .txt, 1 .lrv)"; "" for no files."""
    kinds = Counter(path.suffix.lower() or "without suffix" for path in files).most_common()
    shown = [f"{count} {kind}" for kind, count in kinds[:KINDS]]
    if more := sum(count for _, count in kinds[KINDS:]):
        shown.append(f"{more} of other kinds")
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({', '.join(shown)})" if files else ""


def refuse(given: str) -> None:
    """Refuse what users give as a video and cannot be one.

    Raises:
        UsageError: it is an address that nothing here reads, or holds credentials, or is empty.
    """
    if not given.strip():
        raise UsageError("a video's name is empty; is a variable of the shell not set?")
    scheme = _ADDRESS.match(given)
    if scheme is None or Path(given).exists():
        return
    from support.urls import address, redacted

    if is_url(given):
        _without_file(given) if given[:7].lower() == "file://" else address(given)
        return
    shown = redacted(given)
    how = "yt-dlp" if (scheme[1] or "http").lower() in ("http", "https") else ""
    raise UsageError(f"{shown}: jcdnet reads files: download it first{f' ({how} {shown})' if how else ''}.")


_ADDRESS = re.compile(r"(?:([a-z][a-z0-9+.-]+)://|www\.[^/]+/)", re.IGNORECASE)


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it that are not hidden; links to folders are followed, each is read once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root).stat()
        if (here.st_dev, here.st_ino) in seen:  # a link back to a folder that was read
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders.sort()
        for name in files:
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _outermost(folders: Sequence[Path]) -> dict[Path, Path]:
    """Map each given folder that is in no other one, as an absolute path, to the folder of its results.

    For a single folder that is the output folder itself. Of several, each has a folder of its own name there; equal
    names get as many of the folders above in front as make them differ.
    """
    whole = {folder.resolve(): folder for folder in folders}
    top = [path for real, path in whole.items() if not any(other in real.parents for other in whole)]
    if len(top) == 1:
        return {top[0]: Path()}
    for depth in itertools.count(1):
        labels = [Path(*path.parts[1:][-depth:]) for path in top]
        if len(set(labels)) == len(labels):
            return dict(zip(top, labels, strict=True))
    raise AssertionError("unreachable")


class _Place:
    """A video and the name of its results, which can grow."""

    def __init__(self, video: Video, folders: Mapping[Path, Path]) -> None:
        self.video, self.path = video, _absolute(video)
        self.folder = next((folder for folder in folders if self.path.is_relative_to(folder)), None)
        self.label = Path() if self.folder is None else folders[self.folder]
        self.depth = 0
        """how many of the folders above are part of the name, if the video is in no given folder"""

    @property
    def name(self) -> Path:
        """The name of its results; the video's suffix is part of it only if it is needed."""
        return self.label / self._within / (self.path.name if self._must_be_told_apart() else _stem(self.path))

    def widen(self) -> bool:
        """Make one more folder part of the name; returns False if there is none."""
        self.depth += 1
        return self.folder is None and self.depth < len(self.path.parts) - 1

    @property
    def older(self) -> tuple[Path, ...]:
        """The names that it may have got in runs of other videos or from an earlier version."""
        above = [Path(), self._within, self.label / self._within, Path(self.path.parent.name)]
        if self.folder is not None:
            above += [Path(self.folder.name) / self._within]
        names = [place / name for place in above for name in (_stem(self.path), self.path.name)]
        return tuple(name for name in dict.fromkeys(names) if name != self.name)

    @property
    def _within(self) -> Path:
        if self.folder is not None:
            return self.path.parent.relative_to(self.folder)
        return Path(*self.path.parts[1:-1][-self.depth :]) if self.depth else Path()

    def _must_be_told_apart(self) -> bool:
        where = str(self.path.parent) if isinstance(self.video, Path) else self.video.url.rpartition("/")[0]
        stem, (names, stems) = _stem(self.path), _videos_in(where)
        alike = stems[stem] > (self.path.name in names) or (stem in names and stem != self.path.name)
        return alike or stem in RESERVED or not is_result(Path(f"_{stem}.json"))


def path_of(video: Video | str) -> Path:
    """The path that a user gave, or one with the parts of the address that a user gave, to derive names from."""
    return video if isinstance(video, Path) else _absolute(video) if is_url(str(video)) else Path(str(video))


def _absolute(path: Video | str) -> Path:
    """The absolute path without ".."; links are not followed. An address gets a path that no file has."""
    if not isinstance(path, Path) and is_url(str(path)):
        from support.urls import address, virtual

        return virtual(address(str(path)))
    return Path(os.path.abspath(str(path)))  # noqa: PTH100


def _stem(path: Path) -> str:
    return path.with_suffix("").name


@lru_cache(maxsize=64)
def _videos_in(folder: str) -> tuple[frozenset[str], Counter[str]]:
    """The names of the videos in a folder, and how many of them have each stem."""
    names: list[Path] = []
    if is_url(folder):
        from pipeline.run import remotes

        names = [Path(name) for name in remotes.names_in(folder)]
    else:
        with contextlib.suppress(OSError):
            names = [Path(name) for name in os.listdir(folder)]  # noqa: PTH208
    videos = [p for p in names if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".") and not is_made(p)]
    return frozenset(p.name for p in videos), Counter(map(_stem, videos))


def _named(places: list[_Place]) -> list[Job]:
    """Give the results their names.

    Results of one folder are named as the videos in it, those of several folders below each folder's name, and those of
    single files by their own names, where equal names get as many of their folders in front as make them differ.
    Where possible, a name does not depend on the other videos of the run.
    """
    _videos_in.cache_clear()
    while True:
        taken = Counter(place.name for place in places)
        alike = [place for place in places if taken[place.name] > 1]
        if not alike:
            return [Job(place.video, place.name, place.older) for place in places]
        if not any([place.widen() for place in alike]):
            raise UsageError(
                f"two videos would both be written as {alike[0].name}; run their folders one at a time, each with its "
                "own -o."
            )

"""The content of a video, whether its file changes, and where the features of a content are kept.

Features are kept only if they came from the content that was hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from extractors.config import Stretch
from extractors.decode.video import ReadError, VideoError
from extractors.features import PART
from support.locks import Lock
from support.paths import cache_dir, is_url, missing
from support.progress import Progress, silent

if TYPE_CHECKING:
    from pipeline.cache.spool import Remote
    from support.store import Found

    Video: TypeAlias = Path | Remote
else:
    Video = Any
"""a video as the user named it: a file, or something in a store (`spool.Remote`, which a local run does not import)"""


def place_of(video: Video) -> str:
    """Where a video is: its absolute path, or its address."""
    return str(video.absolute()) if isinstance(video, Path) else str(video)


CONTENT_BLOCK = 1 << 20
# Bytes. Hashing them takes 0.6 ms at 1.7 GB a second, and asking a worker costs the machine that runs 3.6 ms
# (benchmarks/cluster.md).
LITTLE = 1 << 20
LOCK = ".lock"


@dataclass(frozen=True)
class Stamp:
    """What the file system says about a file. Writing to the file changes it."""

    size: int
    written: int
    """ns; a copying tool may set it back"""
    changed: int
    """ns; nobody can set it back, but new permissions or another name change it too"""

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp of a file as it is now. Raises OSError."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def same(self, other: Stamp, strictly: bool = False) -> bool:
        """Whether nobody wrote to the file in between. `strictly`: also notice a time that was set back."""
        if strictly and self.changed != other.changed:
            return False
        return (self.size, self.written) == (other.size, other.written)


class Content(str):
    """SHA-256 of a video's bytes, with the stamp that the file had before they were read."""

    stamp: Stamp
    version: Found
    """instead of a stamp: what the store said of a video there"""


def content_hash(path: Video, on_progress: Progress = silent) -> Content:
    """SHA-256 of a video's bytes: a renamed or moved video is still the same video.

    A video in a store is fetched for that, unless an earlier run has read this version of it.

    Raises:
        VideoError: the file cannot be read, or the video cannot be fetched.
        ReadError: somebody writes to it meanwhile.
    """
    if not isinstance(path, Path):
        from pipeline.cache.spool import read  # only for a store

        version, sha256 = read(path, on_progress)
        found = Content(sha256)
        found.version = version
        return found
    digest = hashlib.sha256()
    try:
        if not path.is_file() and path.exists() and not path.is_dir():
            raise VideoError(f"{path}: is a pipe or a device, not a file; give a file.")
        before, done = Stamp.of(path), 0
        with path.open("rb") as file:
            while block := file.read(CONTENT_BLOCK):
                digest.update(block)
                done += len(block)
                if done > before.size:  # it may grow for hours
                    raise changed(path)
                on_progress("hash", done, before.size)
        after = Stamp.of(path)
    except FileNotFoundError as error:
        raise VideoError(missing(path)) from error
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk.") from error
    if not before.same(after):
        raise changed(path)
    found = Content(digest.hexdigest())
    found.stamp = before
    return found


def content_at_once(video: Video) -> Content | None:
    """The content of a video if that takes next to no time: a small file, or a version in a store that was read before.

    Raises:
        VideoError, ReadError: as `content_hash`.
    """
    if isinstance(video, Path):
        return content_hash(video) if size_of(video) <= LITTLE else None
    from pipeline.cache.spool import known_content, seen

    known = known_content(seen(video))
    return None if known is None else Content(known)


def keep_in_mind(video: Video, content: Content) -> None:
    """Note what a worker elsewhere has read, so that the next run need not fetch it."""
    if not isinstance(video, Path):
        from pipeline.cache.spool import remember

        remember(content.version, content)


def video_at(given: str | Path) -> Video:
    """The video that a path or an address names.

    Raises:
        UsageError: the address holds credentials, or names nothing.
    """
    if not is_url(given):
        return Path(given)
    from pipeline.cache.spool import Remote
    from support.urls import is_file_url, local_file

    return local_file(str(given)) if is_file_url(str(given)) else Remote.of(str(given))


@contextlib.contextmanager
def at_hand(video: Video, content: str | None = None, on_progress: Progress = silent) -> Iterator[Path]:
    """Give the block a video's file; a video in a store is fetched, and must have this `content`.

    Raises:
        ReadError, VideoError, EnvironmentMissing: as `spool.held`.
    """
    if isinstance(video, Path):
        yield video
        return
    from pipeline.cache.spool import held  # only for a store

    with held(video, content, on_progress) as path:
        yield path


def known_version(video: Remote) -> bool:
    """Whether an earlier run has read this version of a video in a store. Raises VideoError."""
    from pipeline.cache.spool import known_content, seen

    return known_content(seen(video)) is not None


def size_of(video: Video) -> int:
    """The size of a video in bytes; 0 if it is not there, or if its store was not asked yet."""
    if not isinstance(video, Path):
        return video.size or 0
    try:
        return video.stat().st_size if video.is_file() else 0
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _content_as_of(path: Path, stamp: Stamp) -> Content:
    """`content_hash`, once for each state of a file: a worker on another machine extracts many chunks of a video."""
    return content_hash(path)


def changed(path: Video) -> ReadError:
    """The error for a file that was written to while we read it."""
    return ReadError(f"{path}: changed while it was read; run again when it is complete.")


class Watched:
    """Watches the file of a video while features are extracted from it.

    A video in a store is not watched: its copy is complete, was hashed, and nobody else writes to it.
    """

    def __init__(self, path: Video, content: str) -> None:
        """`content`: from `content_hash`, which has a stamp; for a plain string it is taken at the first reading."""
        self.path, self.content = path, content
        self._since: Stamp | None = getattr(content, "stamp", None)
        self._sure: Stamp | None = None
        """the state in which the content was checked, after damage"""

    def begin(self) -> None:
        """Call this before reading the file.

        Raises:
            ReadError: the file has other content by now, or cannot be reached.
        """
        if not isinstance(self.path, Path):
            return
        now = self._now(self.path)
        # It was touched, or this machine has a copy of its own: compare the bytes.
        if self._since is not None and not self._since.same(now):
            self._compare(self.path, _content_as_of, now)
        self._since = now

    def check(self, damaged: bool = False, finally_: bool = False) -> None:
        """Call this after reading the file, before anything of it is kept.

        `damaged`: the reading met damage or an early end. The cause may be another content, replaced meanwhile, or a
        failing disk. So the whole file is read again, the first time and at the end (`finally_`).

        Raises:
            ReadError: the file was written to, or cannot be read.
        """
        if not isinstance(self.path, Path):
            return
        now = self._now(self.path)
        if self._since is None:
            self._since = now
        if not self._since.same(now, strictly=damaged):
            raise changed(self.path)
        if damaged and (finally_ or self._sure != now):
            self._compare(self.path, lambda path, stamp: content_hash(path), now)
            self._sure = now

    def _now(self, path: Path) -> Stamp:
        try:
            return Stamp.of(path)
        except OSError as error:
            raise ReadError(
                f"{path}: cannot be reached any more ({error.strerror}); check the disk or the network, then run again."
            ) from error

    def _compare(self, path: Path, hash_of: Callable[[Path, Stamp], str], now: Stamp) -> None:
        if self._since is not None and self._since.size != now.size:
            raise changed(path)
        try:
            found = hash_of(path, now)
        except ReadError:
            raise
        except VideoError as error:  # the disk fails, so what was read before cannot be trusted either
            raise ReadError(str(error)) from error
        if found != self.content:
            raise changed(path)


class CacheFolder:
    """One file for each stream of a video, named by the video's content and by every setting that changes it."""

    def __init__(self, folder: Path | None = None, part: int = PART) -> None:
        """`part`: the number of snippets in a part."""
        self.folder, self.part = folder or cache_dir() / "features", part

    def entry(self, content: str, settings: Mapping[str, object], stretch: Stretch) -> Path:
        """The file for the features of one stream."""
        key = json.dumps({"settings": settings, "range": [stretch.start, stretch.end]}, sort_keys=True)
        return self.folder / content[:2] / f"{content}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def lock(self, content: str) -> Lock:
        """The lock that a process holds while it extracts a video, so that no other process extracts it too."""
        return Lock(self.folder / content[:2] / f"{content}{LOCK}")

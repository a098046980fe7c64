"""Which bytes a file holds, and whether it still does: features are kept under a hash only if they came from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from extractors.decode.container import ReadError, VideoError
from support.progress import Progress, silent

CONTENT_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file; whoever writes to it changes this."""

    size: int
    written: int
    """ns; a copying tool may put it back"""
    changed: int
    """ns; nobody can put it back, but new permissions or another name change it, too"""

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """That of a file as it is now. Raises OSError."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def same(self, other: Stamp, strictly: bool = False) -> bool:
        """Whether nobody wrote to the file in between. `strictly`: nor put its time back."""
        if strictly and self.changed != other.changed:
            return False
        return (self.size, self.written) == (other.size, other.written)


class Content(str):
    """SHA-256 of a file's bytes, with what the file system said of the file before they were read."""

    stamp: Stamp


def content_hash(path: Path, on_progress: Progress = silent) -> Content:
    """SHA-256 of a file's bytes: a renamed or moved video is still the same video.

    Raises:
        VideoError: the file cannot be read; ReadError: somebody writes to it meanwhile.
    """
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
        raise VideoError(f"{path}: no such file; check the path.") from error
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk.") from error
    if not before.same(after):
        raise changed(path)
    found = Content(digest.hexdigest())
    found.stamp = before
    return found


@lru_cache(maxsize=256)
def _content_as_of(path: Path, stamp: Stamp) -> Content:
    """`content_hash`, once for each state of a file: a worker elsewhere has many stretches of a video to do."""
    return content_hash(path)


def changed(path: Path) -> ReadError:
    """The error for a file that somebody writes to."""
    return ReadError(f"{path}: changed while it was read; run again when it is complete.")


class Watched:
    """A file that is read for its features, and the content that they are to be of."""

    def __init__(self, path: Path, content: str) -> None:
        """`content`: as of `content_hash`, which knows since when; a plain string counts from the first reading on."""
        self.path, self.content = path, content
        self._since: Stamp | None = getattr(content, "stamp", None)
        self._sure: Stamp | None = None
        """when it had this content for certain, after damage was met"""

    def begin(self) -> None:
        """Before a reading.

        Raises:
            ReadError: the file has other content by now, or cannot be reached.
        """
        now = self._now()
        # Touched since, or another machine's own copy: the bytes decide.
        if self._since is not None and not self._since.same(now):
            self._compare(_content_as_of, now)
        self._since = now

    def check(self, damaged: bool = False, finally_: bool = False) -> None:
        """After a reading, before anything of it is kept.

        `damaged`: it met damage or an early end. That may be another content's, which was put back meanwhile, or a
        disk's: the whole file is read once more, the first time and at the end (`finally_`).

        Raises:
            ReadError: the file was written to, or cannot be read.
        """
        now = self._now()
        if self._since is None:
            self._since = now
        if not self._since.same(now, strictly=damaged):
            raise changed(self.path)
        if damaged and (finally_ or self._sure != now):
            self._compare(lambda path, stamp: content_hash(path), now)
            self._sure = now

    def _now(self) -> Stamp:
        try:
            return Stamp.of(self.path)
        except OSError as error:
            raise ReadError(
                f"{self.path}: cannot be reached any more ({error.strerror}); look after the disk or the network, then "
                "run again."
            ) from error

    def _compare(self, hash_of: Callable[[Path, Stamp], str], now: Stamp) -> None:
        if self._since is not None and self._since.size != now.size:
            raise changed(self.path)
        try:
            found = hash_of(self.path, now)
        except ReadError:
            raise
        except VideoError as error:  # the disk fails: what was read before says nothing about the file either
            raise ReadError(str(error)) from error
        if found != self.content:
            raise changed(self.path)

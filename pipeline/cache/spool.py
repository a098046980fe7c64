"""Videos in a store: their identity, and the temporary files that they are copied into while they are decoded.

The decoder runs in a process of its own and reads a file, so a video from a store is copied to the temporary disk
first, whole, and hashed on the way. What its size and ETag say is kept in a small map in the cache's folder: a video
whose features are in the cache is not fetched again.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from extractors.decode.video import ReadError, VideoError
from support.errors import FULL, UsageError, UserError
from support.files import move, scratch_folder, write_atomically, write_temporary
from support.paths import cache_dir, call, called
from support.progress import Progress, silent
from support.store import Found, StoreError, TooLarge, fetch, look
from support.urls import address

LIMIT = "JCDNET_SPOOL"  # the variable with the most GB that videos may take on the temporary disk
RESERVE = 64 << 20  # bytes of the temporary disk that stay free
# Copies that are kept after their last use, since the next stage, or a worker here, may want them: as many as take so
# many bytes, or the last two.
IDLE_BYTES, IDLE = 1 << 30, 2


@dataclass(frozen=True)
class Remote:
    """A video in a store, by an address without credentials. It can be sent to workers, which fetch it themselves."""

    url: str
    size: int | None = None
    """bytes, by a listing; None: the store was not asked yet"""
    tag: str | None = None
    """what a listing says of its version, as in `store.Found`"""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its address."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """The suffix of its name."""
        return PurePosixPath(self.url).suffix

    @classmethod
    def of(cls, given: str | Found) -> Remote:
        """The video at an address, or one that a listing named.

        Raises:
            UsageError: the address holds credentials, or names nothing.
        """
        return cls(given.url, given.size, given.tag) if isinstance(given, Found) else cls(address(given))


def content_of(video: Remote, on_progress: Progress = silent) -> str:
    """SHA-256 of a video's bytes: from the map, or else the video is fetched.

    Raises:
        VideoError, EnvironmentMissing: it cannot be fetched.
    """
    return read(video, on_progress)[1]


def read(video: Remote, on_progress: Progress = silent) -> tuple[Found, str]:
    """(the version of a video that was read, SHA-256 of its bytes); raises as `content_of`."""
    version = seen(video)
    if (known := known_content(version)) is not None:
        return version, known
    with _SPOOL.using(video, None, on_progress) as copy:
        return copy.version or version, copy.content


def seen(video: Remote) -> Found:
    """The version of a video: by the listing that named it, or else the store is asked.

    Raises:
        VideoError, EnvironmentMissing: the store does not say.
    """
    if video.size is not None and video.tag:
        return Found(video.url, video.size, video.tag)
    with _as_video_errors():
        return look(video.url)


@contextlib.contextmanager
def _as_video_errors() -> Iterator[None]:
    """Whoever handles the error of a video handles that of its store, too."""
    try:
        yield
    except StoreError as error:
        raise VideoError(str(error)) from None


def known_content(version: Found) -> str | None:
    """What the map says about a version of a video; None if it does not know it, or the version has no tag."""
    try:
        found = json.loads(_entry(version).read_bytes()) if version.tag else {}
    except (OSError, ValueError):
        return None
    content = found.get("sha256") if isinstance(found, dict) and found.get("url") == version.url else None
    return content if isinstance(content, str) and len(content) == 64 else None


def remember(version: Found, content: str) -> None:
    """Note in the map what a version of a video holds."""
    if version.tag:
        with contextlib.suppress(OSError):  # the next run fetches the video again
            document = {"url": version.url, "size": version.size, "tag": version.tag, "sha256": content}
            write_atomically(_entry(version), json.dumps(document).encode())


def _entry(version: Found) -> Path:
    key = hashlib.sha256(json.dumps([version.url, version.size, version.tag]).encode()).hexdigest()
    return cache_dir() / "urls" / key[:2] / f"{key[:32]}.json"


@contextlib.contextmanager
def held(video: Remote, content: str | None = None, on_progress: Progress = silent) -> Iterator[Path]:
    """Give the block a local file with the video's bytes; errors in the block name the video by its address.

    Args:
        content: the SHA-256 that the bytes must have; None: whatever the store has now.

    Raises:
        ReadError: they have another.
        VideoError, EnvironmentMissing: it cannot be fetched.
    """
    if content is None:
        content = content_of(video, on_progress)
    with _SPOOL.using(video, content, on_progress) as copy:
        try:
            yield copy.path
        except UserError as error:
            text = called(str(error))
            if text == str(error):
                raise
            raise type(error)(text) from error.__cause__


@dataclass
class _Copy:
    path: Path
    content: str
    users: int = 0
    version: Found | None = None
    """what the store said when it was fetched; None: another process has fetched it"""


class _Spool:
    """The copies of this process. Other processes of this user here take them over by a second name (hard link)."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._copies: list[_Copy] = []
        """the one that was used last comes last"""
        self._folder: Path | None = None

    @contextlib.contextmanager
    def using(self, video: Remote, content: str | None, on_progress: Progress) -> Iterator[_Copy]:
        with self._lock:
            copy = self._take(video, content, on_progress)
            copy.users += 1
        try:
            yield copy
        finally:
            with self._lock:
                copy.users -= 1
                while self._idle_bytes() > IDLE_BYTES and self._drop_oldest(IDLE):
                    pass

    def _take(self, video: Remote, content: str | None, on_progress: Progress) -> _Copy:
        copy = next((one for one in self._copies if content is not None and one.content == content), None)
        if copy is not None:
            self._copies.remove(copy)
        elif content is None or (copy := self._linked(video, content)) is None:
            copy = self._fetched(video, on_progress)
            if content is not None and copy.content != content:
                self._drop(copy)
                raise ReadError(f"{video}: changed since it was first read; run again when it is complete.")
        call(copy.path, video.url)
        self._copies.append(copy)
        return copy

    def _place(self) -> Path:
        if self._folder is None or not self._folder.exists():
            self._folder = scratch_folder("spool")
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def _linked(self, video: Remote, content: str) -> _Copy | None:
        """A copy that another process of this user has made."""
        folder = self._place()
        for other in folder.parent.glob(f".spool.*/{content}{_safe(video.suffix)}"):
            path = folder / other.name
            with contextlib.suppress(OSError):  # gone meanwhile, or no hard links here
                os.link(other, path)
                return _Copy(path, content)
        return None

    def _fetched(self, video: Remote, on_progress: Progress) -> _Copy:
        folder = self._place()
        temporary = write_temporary(folder, "video", b"")
        try:
            most = self._room(seen(video).size)
            try:
                with _as_video_errors():
                    version, content = fetch(video.url, temporary, on_progress, most)
            except TooLarge as error:
                raise _too_large(video, error.found.size, most, folder) from None
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise VideoError(
                    f"{video}: the temporary disk became full ({folder.parent}); make room, or set TMPDIR to a folder "
                    "on a larger one."
                ) from error
            path = folder / f"{content}{_safe(video.suffix)}"
            same = next((one for one in self._copies if one.path == path), None)
            if same is None:
                move(temporary, path)
            else:  # the same bytes under another address
                self._copies.remove(same)
        finally:
            temporary.unlink(missing_ok=True)
        remember(version, content)
        copy = same or _Copy(path, content)
        copy.version = version
        return copy

    def _room(self, size: int) -> int:
        """Make room for a video of so many bytes, if possible; returns the most bytes that may be written now."""
        while (room := self._free()) < size and self._drop_oldest(0):
            pass
        return room

    def _free(self) -> int:
        free = shutil.disk_usage(self._place()).free - RESERVE
        limit = spool_limit()
        if limit is not None:
            taken = sum(one.path.stat().st_size for one in self._copies if one.path.exists())
            free = min(free, limit - taken)
        return max(free, 0)

    def _idle_bytes(self) -> int:
        return sum(one.path.stat().st_size for one in self._copies if not one.users and one.path.exists())

    def _drop_oldest(self, least: int) -> bool:
        """Remove the oldest copy that nobody uses, if there are more than `least`; returns whether there were."""
        idle = [one for one in self._copies if not one.users]
        if len(idle) <= least:
            return False
        self._copies.remove(idle[0])
        self._drop(idle[0])
        return True

    def _drop(self, copy: _Copy) -> None:
        with contextlib.suppress(OSError):
            copy.path.unlink()


_SPOOL = _Spool()


def spool_limit() -> int | None:
    """The most bytes that videos may take on the temporary disk, by JCDNET_SPOOL (in GB); None: what is free.

    Raises:
        UsageError: the variable is not a number above 0.
    """
    given = os.environ.get(LIMIT)
    if not given:
        return None
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e9:
        raise UsageError(f"{LIMIT} must be a number of GB above 0, not {given!r}.")
    return round(limit * 1e9)


def _too_large(video: Remote, size: int, most: int, folder: Path) -> VideoError:
    way = "make room" if spool_limit() is None else "raise --spool"
    return VideoError(
        f"{video}: has {size / 1e6:.0f} MB, and {most / 1e6:.0f} MB may be taken on the temporary disk "
        f"({folder.parent}); {way}, or set TMPDIR to a folder on a larger one."
    )


def _safe(suffix: str) -> str:
    """A suffix as part of a file's name, for the demuxers that look at it; "" for an odd one."""
    return suffix.lower() if suffix[1:].isascii() and suffix[1:].replace("-", "").isalnum() else ""

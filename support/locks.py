"""Locks that processes take in turn, also across machines that share a folder; a dead holder loses its lock.

A lock is a file. It is made by a hard link, which is atomic on network file systems too, and its holder writes it anew
every few seconds. The kernel's own locks would do on one machine; some network file systems do not share them, and some
keep them after the holder's machine died. Clocks are never compared: a process that waits counts, by its own steady
clock, for how long the file does not change. It need not wait for a process of its own machine, which it sees die.

Why not `filelock.SoftFileLease` (4.3.1 was tried): it takes over from a dead holder by exchanging two names
(renameat2's RENAME_EXCHANGE). NFS and SMB on Linux refuse that with EINVAL, and then the lock is never given up. It
also leaves an empty file alone for ever, and takes two machines with one host name for one machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from support.files import identity, is_alive, move, write_temporary

BEAT = 5.0  # seconds between two signs of life
STALE = 60.0  # seconds without one, after which a holder on another machine is taken for dead
POLL = 0.5  # seconds between two attempts of a process that waits


class Lock:
    """A lock file. Threads must not share one; processes may each have their own on the same path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine = ""
        self._stop = threading.Event()
        self._watched: tuple[bytes, float] | None = None
        """the content of another holder's file, and since when it has been that, by our clock"""

    def take(self) -> bool:
        """Take the lock if it is free or its holder is dead; returns whether it is ours now.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            if self._claim():
                return True
            if not self._break_if_dead():
                return False
        return False

    def wait(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the lock, however long that takes; returns False if `stop` returns True first."""
        while not self.take():
            if stop():
                return False
            time.sleep(POLL)
        return True

    def holder_lives(self) -> bool:
        """Return whether a running process of this machine holds the lock; False for one of another machine."""
        return _alive(self._read()) is True

    def release(self) -> None:
        """Give the lock back, if it is still ours. If the folder cannot be reached any more, the lock goes stale."""
        self._stop.set()
        with contextlib.suppress(OSError):  # the work under the lock is done; an error here must not lose it
            if self._mine and self._read().startswith(self._mine.encode()):
                self.path.unlink(missing_ok=True)
        self._mine = ""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Give back a lock that was taken when the block ends."""
        try:
            yield
        finally:
            self.release()

    def _claim(self) -> bool:
        """Make the lock file; returns False if there is one."""
        mine = f"{identity()} {uuid.uuid4().hex}"
        temporary = write_temporary(self.path.parent, self.path.name, f"{mine} 0\n".encode())
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError:  # this file system has no hard links (FAT); the next best thing
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            try:
                os.write(handle, f"{mine} 0\n".encode())
            except OSError:  # the disk is full; an empty lock file would keep others waiting
                self.path.unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
        finally:
            temporary.unlink(missing_ok=True)
        self._mine, self._watched = mine, None
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(mine, self._stop), name="lock", daemon=True).start()
        return True

    def _beat(self, mine: str, stop: threading.Event) -> None:
        """Write the file anew every BEAT seconds, until the lock is released or lost."""
        count = 0
        while not stop.wait(BEAT):
            count += 1
            with contextlib.suppress(OSError):
                if not self._read().startswith(mine.encode()):
                    return  # another process took over while this machine slept
                with self.path.open("r+b") as file:
                    file.write(f"{mine} {count}\n".encode())

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _break_if_dead(self) -> bool:
        """Remove the file of a dead holder; returns whether another attempt is worth it."""
        content = self._read()
        if not content:
            self._watched = self._watched or (content, time.monotonic())
            return not self.path.exists() or (self._unchanged(content) and self._remove(content))
        if alive := _alive(content):
            return False
        return (alive is False or self._unchanged(content)) and self._remove(content)

    def _unchanged(self, content: bytes) -> bool:
        """Whether the file has had this content for longer than STALE."""
        now = time.monotonic()
        if self._watched is None or self._watched[0] != content:
            self._watched = (content, now)
        return now - self._watched[1] > STALE

    def _remove(self, content: bytes) -> bool:
        """Remove the file if its holder is still the one that was judged dead; returns whether it is gone."""
        aside = self.path.with_name(f".{self.path.name[:40]}.{identity()}.{uuid.uuid4().hex[:8]}.part")
        try:
            move(self.path, aside)
        except FileNotFoundError:
            return True  # another process removed it first
        try:
            if aside.read_bytes().split()[:2] != content.split()[:2]:  # a new holder took it meanwhile: put it back
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
                return False
            return True
        finally:
            aside.unlink(missing_ok=True)


def _alive(content: bytes) -> bool | None:
    """Whether the process that wrote a lock file runs; None if it is of another machine, or the file is not whole."""
    try:
        return is_alive(content.split()[0].decode())
    except (ValueError, IndexError):
        return None

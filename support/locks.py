"""One process at a time on a piece of work, also across machines that share a folder, and none for ever.

A lock is a file that is made by a hard link, which is atomic on network file systems too, and that its holder writes
anew every few seconds. The kernel's own locks would do on one machine; on a network some are not shared and some stay
when their machine dies. No clock is compared with another one: whoever waits counts the seconds, by its own steady
clock, in which the file does not change. On the holder's machine there is no need to wait: a dead process is seen.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from support.files import identity, is_alive, write_temporary

BEAT = 5.0  # seconds between two signs of life
STALE = 60.0  # seconds without one, after which a holder on another machine is taken for dead
POLL = 0.5


class Lock:
    """A lock file; not for sharing between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine = ""
        self._stop = threading.Event()
        self._watched: tuple[bytes, float] | None = None
        """what stood in somebody else's file, and since when by our clock"""

    def take(self) -> bool:
        """Take it if it is free, or its holder is dead; whether it is ours now.

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
        """Take it, however long that takes; False when `stop` said so first."""
        while not self.take():
            if stop():
                return False
            time.sleep(POLL)
        return True

    def holder_lives(self) -> bool:
        """Whether another process of this machine holds it; of one elsewhere that cannot be known at once."""
        return _alive(self._read()) is True

    def release(self) -> None:
        """Give it back, if it is still ours. Where the folder is gone or closed by now, it goes stale by itself."""
        self._stop.set()
        with contextlib.suppress(OSError):  # the work under it is done, and is not lost over this
            if self._mine and self._read().startswith(self._mine.encode()):
                self.path.unlink(missing_ok=True)
        self._mine = ""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For a lock that was taken: give it back when the block ends."""
        try:
            yield
        finally:
            self.release()

    def _claim(self) -> bool:
        mine = f"{identity()} {uuid.uuid4().hex}"
        temporary = write_temporary(self.path.parent, self.path.name, f"{mine} 0\n".encode())
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here (FAT): the next best thing
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            try:
                os.write(handle, f"{mine} 0\n".encode())
            except OSError:  # full: an empty lock would hold up others
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
        count = 0
        while not stop.wait(BEAT):
            count += 1
            with contextlib.suppress(OSError):
                if not self._read().startswith(mine.encode()):
                    return  # it was broken while this machine slept: what we write is the same as the other's
                with self.path.open("r+b") as file:
                    file.write(f"{mine} {count}\n".encode())

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _break_if_dead(self) -> bool:
        """Remove the file of a holder that is dead; whether it is worth to try again."""
        there = self._read()
        if not there:
            self._watched = self._watched or (there, time.monotonic())
            return not self.path.exists() or (self._unchanged(there) and self._remove(there))
        if alive := _alive(there):
            return False
        return (alive is False or self._unchanged(there)) and self._remove(there)

    def _unchanged(self, there: bytes) -> bool:
        now = time.monotonic()
        if self._watched is None or self._watched[0] != there:
            self._watched = (there, now)
        return now - self._watched[1] > STALE

    def _remove(self, there: bytes) -> bool:
        aside = self.path.with_name(f".{self.path.name[:40]}.{identity()}.{uuid.uuid4().hex[:8]}.part")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return True  # somebody else was quicker
        try:
            if aside.read_bytes().split()[:2] != there.split()[:2]:  # not the one that was judged: put it back
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
                return False
            return True
        finally:
            aside.unlink(missing_ok=True)


def _alive(there: bytes) -> bool | None:
    """Whether the process that wrote a lock file runs; None: of another machine, or not whole."""
    try:
        return is_alive(there.split()[0].decode())
    except (ValueError, IndexError):
        return None

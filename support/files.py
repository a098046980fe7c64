"""Files that are there whole or not at all, and what killed processes left of them cleared away."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

# A temporary file of another machine that is this much older (s, by the file system's clock) has no writer any more.
ABANDONED = 3600.0
_TEMPORARY = re.compile(r"\.([0-9a-f]{8}-\d+-\d+)\.\w+\.part$")


def identity() -> str:
    """This process: machine, number and start, so that a number that was given again is not taken for it."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid())}"


def is_alive(who: str) -> bool | None:
    """Whether the process of an `identity` still runs; None when it is not of this machine (or container)."""
    machine, number, started = who.split("-")
    if machine != _machine():
        return None
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # there, and somebody else's
        pass
    return _started(int(number)) == int(started)


@lru_cache
def _machine() -> str:
    """Eight digits for this machine since it was started, and this container: process numbers count within one."""
    parts = [platform.node()]
    for name in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(name) if name.endswith("pid") else Path(name).read_text())  # noqa: PTH115
        except OSError:
            continue
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _started(number: int) -> int:
    """Clock ticks from the machine's start to the process's, 0 where the system does not tell; -1 when it is dead."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return 0
    state, *rest = text.rpartition(")")[2].split()  # the name before it may hold blanks
    return -1 if state in "ZX" else int(rest[18])


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temp file in the same folder, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(path.parent, path.name, data)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_temporary(folder: Path, name: str, data: bytes) -> Path:
    """A hidden file of its own with these bytes, named so that `sweep` knows it once its writer is dead."""
    # Cut short, or a name of 250 characters, which a video may have, would leave no room for the rest.
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:40]}.{identity()}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from colleagues
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Path(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove(path: Path) -> None:
    """Take out a file, a folder with all in it, or a link, whose target stays."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def sweep(folder: Path) -> int:
    """Remove the temporary files and folders in a folder whose writers are dead; how many there were.

    Those of other machines go when they are ABANDONED. Their age is the file system's own affair: it is compared
    with a file written just now, so that no machine's clock counts.
    """
    removed, now = 0, None
    for path in folder.iterdir() if folder.is_dir() else ():
        if (found := _TEMPORARY.search(path.name)) is None:
            continue
        alive = is_alive(found[1])
        if alive is None and now is None:
            probe = write_temporary(folder, "now", b"")
            now = probe.stat().st_mtime
            probe.unlink()
        try:
            if alive is False or (alive is None and now is not None and now - path.stat().st_mtime > ABANDONED):
                remove(path)
                removed += 1
        except FileNotFoundError:  # its writer renamed it, or another sweep was quicker
            continue
    return removed

"""Files that appear whole or not at all, and the removal of what killed processes left of them.

Temporary files and renames stand here alone: everything that writes a file calls one of these functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import mmap
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from support.errors import cannot_write

# When a temporary file of another machine is this many seconds old, its writer is taken for dead. The file system's
# clock counts.
ABANDONED = 3600.0
# The same for folders of temporary files: while a film is decoded, nobody writes to its folder for hours.
LEFT_ALONE = 7 * 24 * 3600.0
_TEMPORARY = re.compile(r"\.([0-9a-f]{8}-\d+-\d+)\.\w+\.part$")


def identity() -> str:
    """Return a name for this process: its machine, its number and its start, since systems reuse process numbers."""
    return _identity(os.getpid())


@lru_cache
def _identity(number: int) -> str:
    """The `identity` of this process, whose number changes when it forks; the system need not be asked twice."""
    return f"{_machine()}-{number}-{_started(number)}"


def is_alive(who: str) -> bool | None:
    """Return whether the process of an `identity` still runs; None if it belongs to another machine or container."""
    machine, number, started = who.split("-")
    if machine != _machine():
        return None
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process exists and belongs to another user
        pass
    return _started(int(number)) == int(started)


@lru_cache
def _machine() -> str:
    """Eight digits for this boot of this machine and for this container, since process numbers are unique in both."""
    parts = [platform.node()]
    for name in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(name) if name.endswith("pid") else Path(name).read_text())  # noqa: PTH115
        except OSError:
            continue
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _started(number: int) -> int:
    """Clock ticks from the machine's start to the process's; 0 if the system does not say, -1 if it is dead."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return 0
    state, *rest = text.rpartition(")")[2].split()  # the process's name, in parentheses, may contain blanks
    return -1 if state in "ZX" else int(rest[18])


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all; a failure leaves the file that was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(path.parent, path.name, data)
    try:
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: Path, otherwise: str = "choose another folder") -> Iterator[None]:
    """Write a file of the user's in this block: an OSError in it becomes the error of `cannot_write`.

    Raises:
        OutputError, EnvironmentMissing, DiskFull: as `cannot_write` chooses.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, otherwise) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty temporary file beside `path`; it becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(path.parent, path.name, b"")
    try:
        yield temporary
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_temporary(folder: Path, name: str, data: bytes) -> Path:
    """Write a new hidden file, whose name tells `sweep` which process wrote it."""
    # Only the beginning of the name: a video's name of 250 characters would leave no room for the rest.
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:40]}.{identity()}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the content must reach the disk before the name does
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from colleagues
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Path(temporary)


def scratch(folder: str | None = None, suffix: str = "") -> tuple[int, str]:
    """Make an empty file that only this user can read, in `folder` or the system's folder for temporary files.

    Returns:
        An open descriptor and the file's name. The caller closes the one and removes the other.
    """
    return tempfile.mkstemp(prefix="jcdnet-", suffix=suffix, dir=folder)


@contextlib.contextmanager
def shared_file(size: int) -> Iterator[tuple[Path, mmap.mmap]]:
    """A file of `size` bytes for this process and one that it started: its name, and its content. It is in memory if
    possible: in /dev/shm, or where that is full (Docker gives it 64 MiB), in a file of Linux that no folder holds.

    Raises:
        OSError: there is no room for it.
    """
    # Memory without a folder has no name but the one in /proc, by which the other process opens it.
    nameless = hasattr(os, "memfd_create") and Path("/proc/self/fd").exists()
    possible = {"/dev/shm": os.access("/dev/shm", os.W_OK), "memory": nameless}
    for place in (*(name for name, here in possible.items() if here), None):
        handle, name = (os.memfd_create("jcdnet"), "") if place == "memory" else scratch(place)
        if (own := Path(f"/proc/{os.getpid()}/fd/{handle}")).exists():  # Linux: this name is enough,
            Path(name).unlink() if name else None  # so that a killed process leaves nothing behind
            name = str(own)
        try:
            # The space is reserved: writing to a full /dev/shm would kill the other process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                os.truncate(handle, size)
        except OSError:
            os.close(handle)
            if name != str(own):
                Path(name).unlink()
            if place is None:
                raise
            continue
        break
    try:
        # The mapping is not closed here: it is released together with the last array that uses it.
        yield Path(name), mmap.mmap(handle, size)
    finally:
        os.close(handle)
        if name != str(own):
            Path(name).unlink(missing_ok=True)


def scratch_folder(purpose: str) -> Path:
    """Make an empty folder that only this user can read, on the disk for temporary files (TMPDIR).

    It lies in a folder of this user's there, whose leftovers of killed processes are removed first. The caller removes
    it.
    """
    top = Path(tempfile.gettempdir()) / f"jcdnet-{os.getuid() if hasattr(os, 'getuid') else 'temporary'}"
    top.mkdir(mode=0o700, exist_ok=True)
    found = top.lstat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077 or top.is_symlink()):
        top = Path(tempfile.gettempdir())  # somebody else made that name, who could exchange our files
    else:
        sweep(top, LEFT_ALONE)
    return Path(tempfile.mkdtemp(prefix=f".{purpose}.{identity()}.", suffix=".part", dir=top))


def move(source: Path, target: Path) -> Path:
    """Rename a file within one file system, in one step; it replaces a file of that name. Returns the new path."""
    return source.replace(target)


def back_up(path: Path) -> Path:
    """Give a file a second name that ends in .bak, so that a new file can take the first; returns the second name.

    Where that name is taken by a file with other content, .bak2, .bak3 and so on follow.
    """
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak{'' if number == 1 else number}")
        try:
            os.link(path, backup)
        except FileExistsError:
            if sha256(backup) != sha256(path):
                continue
        except OSError:  # this file system has no hard links (FAT)
            if backup.exists():
                continue
            write_atomically(backup, path.read_bytes())
        return backup
    raise AssertionError("unreachable")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove(path: Path) -> None:
    """Remove a file, a folder with everything in it, or a link; a link's target stays."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def sweep(folder: Path, abandoned: float | None = None) -> int:
    """Remove temporary files and folders whose writers are dead; returns how many there were.

    Those of other machines go when nobody has written to them for `abandoned` seconds (None: ABANDONED). Their age is
    measured against a file that is written now, so that only the file system's clock counts.
    """
    removed, now, limit = 0, None, ABANDONED if abandoned is None else abandoned
    for path in folder.iterdir() if folder.is_dir() else ():
        if (found := _TEMPORARY.search(path.name)) is None:
            continue
        alive = is_alive(found[1])
        if alive is None and now is None:
            probe = write_temporary(folder, "now", b"")
            now = probe.stat().st_mtime
            probe.unlink()
        try:
            if alive is False or (alive is None and now is not None and now - path.stat().st_mtime > limit):
                remove(path)
                removed += 1
        except FileNotFoundError:  # its writer renamed it, or another process swept it first
            continue
    return removed

"""The folder for Numba's compiled kernels. Call `prepare` before importing numba, which reads its environment once.

Numba's cache holds machine code and pickles, and runs them without a check; no other cache of ours holds code. So it is
in a folder that nobody else can write, even if a team shares the features' cache.
"""

import contextlib
import os
import stat
import tempfile
import warnings
from pathlib import Path

from support.paths import NoHome, cache_dir, user_cache_dir


def prepare() -> bool:
    """Set NUMBA_CACHE_DIR, unless it is set, and return whether that folder can be written.

    The folder is `numba` in jcdnet's cache. If somebody else could write there, it is in the user's own cache, or in
    the folder for temporary files. An unwritable folder gives a warning, and every process compiles the kernels again.
    """
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or _private())
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    try:
        _make(folder)
    except OSError as error:
        warnings.warn(
            f"compiled flow kernels cannot be kept in {folder} ({error.strerror}): every run compiles them again; "
            "set NUMBA_CACHE_DIR to a folder that can be written, or leave it out",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _private() -> Path:
    """The first folder that only we can write; if there is none, a new folder for this process."""
    first = cache_dir() / "numba"
    if not hasattr(os, "getuid"):
        return first
    folders = [first]
    with contextlib.suppress(NoHome):  # JCDNET_CACHE need not be in a home folder
        folders.append(user_cache_dir() / "numba")
    for folder in (*folders, Path(tempfile.gettempdir()) / f"jcdnet-numba-{os.getuid()}"):
        # Make it first and check it then: between a check and the making, somebody else could make it.
        if all(map(_is_safe, folder.absolute().parents)):
            try:
                _make(folder)
            except OSError:
                continue
            about = folder.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022:
                return folder
    return Path(tempfile.mkdtemp(prefix="jcdnet-numba-"))


def _is_safe(parent: Path) -> bool:
    """Whether nobody else can replace a folder below this one. A parent that does not exist yet will be ours."""
    try:
        about = parent.stat()
    except OSError:
        return True
    mine = about.st_uid in (0, os.getuid())
    return mine and (not about.st_mode & 0o022 or bool(about.st_mode & stat.S_ISVTX))

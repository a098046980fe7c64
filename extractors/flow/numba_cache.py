"""Where Numba keeps compiled kernels. To be called before numba is imported: it reads its environment once.

What it keeps is machine code and pickles, which are run as they are: the one cache in which a file can be code. So it
stands where nobody else can write, also when the features' cache is shared by a team.
"""

import contextlib
import os
import stat
import tempfile
import warnings
from pathlib import Path

from support.paths import NoHome, cache_dir, user_cache_dir


def prepare() -> bool:
    """Point NUMBA_CACHE_DIR, unless it is set, at `numba` in the product's cache, or, where somebody else could write
    there, in the user's own, or in the folder for temporary files; say whether it can be written.

    An unwritable folder is a warning, not an error: the kernels are then compiled in every process.
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
    """The first folder that is ours alone; where none is, a new one for this process."""
    first = cache_dir() / "numba"
    if not hasattr(os, "getuid"):
        return first
    folders = [first]
    with contextlib.suppress(NoHome):  # JCDNET_CACHE need not lie in a home folder
        folders.append(user_cache_dir() / "numba")
    for folder in (*folders, Path(tempfile.gettempdir()) / f"jcdnet-numba-{os.getuid()}"):
        # Looked at when it is there, not before: between a look and the making somebody else could make it.
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
    """Whether nobody else can put another folder in the place of one below it; one that is not there yet is ours."""
    try:
        about = parent.stat()
    except OSError:
        return True
    mine = about.st_uid in (0, os.getuid())
    return mine and (not about.st_mode & 0o022 or bool(about.st_mode & stat.S_ISVTX))

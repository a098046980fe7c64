"""Where Numba keeps compiled kernels. To be called before numba is imported: it reads its environment once.

What it keeps is machine code and pickles, which are run as they are: the one cache in which a file can be code. So it
stands where nobody else can write, also when the features' cache is shared by a team.
"""

import os
import tempfile
import warnings
from pathlib import Path

from extractors.config import cache_dir, user_cache_dir


def prepare() -> bool:
    """Point NUMBA_CACHE_DIR, unless it is set, at `numba` in the product's cache, or in the user's own where others
    can write into that; say whether it can be written.

    An unwritable folder is a warning, not an error: the kernels are then compiled in every process.
    """
    folder = Path(os.environ.setdefault("NUMBA_CACHE_DIR", str(_private())))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        warnings.warn(
            f"compiled flow kernels cannot be kept in {folder} ({error.strerror}): every run compiles them again; "
            "set JCDNET_CACHE to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _private() -> Path:
    folder, own = cache_dir() / "numba", user_cache_dir() / "numba"
    return own if any(map(_open_to_others, (folder.parent, folder))) else folder


def _open_to_others(folder: Path) -> bool:
    """Whether somebody else can put files into a folder that is there."""
    try:
        about = folder.stat()
    except OSError:
        return False
    return hasattr(os, "getuid") and (about.st_uid not in (0, os.getuid()) or bool(about.st_mode & 0o022))

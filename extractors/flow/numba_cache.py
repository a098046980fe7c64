"""Where Numba keeps compiled kernels. To be called before numba is imported: it reads its environment once."""

import os
import tempfile
import warnings
from pathlib import Path

from extractors.config import cache_dir


def prepare() -> bool:
    """Point NUMBA_CACHE_DIR at `numba` in the product's cache unless it is set; say whether it can be written.

    An unwritable folder is a warning, not an error: the kernels are then compiled in every process.
    """
    folder = Path(os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir() / "numba")))
    try:
        folder.mkdir(parents=True, exist_ok=True)
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

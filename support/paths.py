"""How jcdnet is called here, and the folders that it keeps things in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from support.errors import EnvironmentMissing


def program() -> str:
    """How jcdnet is called here, for sentences that name a command: `jcdnet` where it is installed (its folders lie in
    jcdnet/_app then), `python cli.py` in a checkout."""
    return "jcdnet" if Path(__file__).resolve().parents[1].name == "_app" else "python cli.py"


class NoHome(EnvironmentMissing):
    """A folder was to be found in a home folder, and there is none; one sentence with the next step."""


def cache_dir() -> Path:
    """Folder for features, fetched weights and compiled kernels: `JCDNET_CACHE`, or the user's cache folder.

    Raises:
        NoHome: this user has no home folder.
    """
    chosen = os.environ.get("JCDNET_CACHE")
    return expand("JCDNET_CACHE", chosen) if chosen else user_cache_dir()


def user_cache_dir() -> Path:
    """The user's own cache folder of jcdnet, whatever `JCDNET_CACHE` says.

    Raises:
        NoHome: this user has no home folder.
    """
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "jcdnet"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home()) / "jcdnet" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "jcdnet"


def expand(variable: str, folder: str) -> Path:
    """A folder that an environment variable names, with `~` for the user's home.

    Raises:
        NoHome: the user that it names has none.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise NoHome(f"{variable} is {folder}, and that home folder is not known here; give a full path.") from error


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container that is run as a user whom its /etc/passwd does not know
        raise NoHome(
            "there is no folder for the cache: HOME is not set, and this user has no home folder; set JCDNET_CACHE to "
            "a folder that can be written."
        ) from error

"""The command that starts jcdnet on this machine, and the folders that it uses."""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path

from support.errors import EnvironmentMissing

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# What reads each kind of address, beside fsspec: a package, or nothing more.
STORES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "memory": "", "file": ""}
_called: dict[str, str] = {}


def is_url(given: str | Path) -> bool:
    """Return whether a name is the address of something in a store, such as s3://bucket/match.mp4, or file://."""
    return isinstance(given, str) and (found := _SCHEME.match(given)) is not None and found[1].lower() in STORES


def call(path: Path, url: str) -> None:
    """Have messages name a local copy, and everything below it, by its address."""
    _called[str(path)] = url


def called(text: str) -> str:
    """Return a message in which local copies are named by their addresses (`call`)."""
    for path, url in _called.items():
        text = text.replace(path, url)
    return text


def with_suffix(path: Path, suffix: str) -> Path:
    """Return a path with a suffix added. Path.with_suffix would replace the ".v2" of "clip.v2"."""
    return path.with_name(path.name + suffix)


def program() -> str:
    """Return the command that starts jcdnet, for messages: `jcdnet` if it is installed, `python cli.py` in a checkout.

    An installed jcdnet has its folders in jcdnet/_app.
    """
    return "jcdnet" if Path(__file__).resolve().parents[1].name == "_app" else "python cli.py"


class NoHome(EnvironmentMissing):
    """A folder in the user's home folder is needed, and there is no home folder."""


def cache_dir() -> Path:
    """Return the folder for features, weights and compiled kernels: `JCDNET_CACHE` or the user's cache folder.

    Raises:
        NoHome: this user has no home folder.
    """
    chosen = os.environ.get("JCDNET_CACHE")
    return expand("JCDNET_CACHE", chosen) if chosen else user_cache_dir()


def user_cache_dir() -> Path:
    """Return the user's own cache folder of jcdnet, whatever `JCDNET_CACHE` says.

    Raises:
        NoHome: this user has no home folder.
    """
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "jcdnet"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home()) / "jcdnet" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "jcdnet"


def expand(variable: str, folder: str) -> Path:
    """Return the folder that an environment variable names, where `~` is the user's home folder.

    Raises:
        NoHome: the user that it names has no home folder.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise NoHome(f"{variable} is {folder}, and that home folder is not known here; give a full path.") from error


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container runs as a user that is not in its /etc/passwd
        raise NoHome(
            "there is no folder for the cache: HOME is not set, and this user has no home folder; set JCDNET_CACHE to "
            "a folder that can be written."
        ) from error


def is_missing(path: Path) -> bool:
    """Return whether there is no file of this name; False for one that cannot be looked at."""
    try:
        return not os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def missing(path: object, count: int = 1) -> str:
    """The sentence about a file that is not there, the first one of `count`."""
    more = f" None of the {count} files is there." if count > 1 else ""
    return f"{path}: no such file{near(Path(str(path))) or '; check the path.'}{more}"


def near(path: Path, most: int = 3) -> str:
    """A sentence's end about a file that is not there: which names in its folder are near, or that the folder is gone.

    Such as "; is 'match.mp4' meant?"; "" if nothing is near.
    """
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} is not there, either."
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return ""
    alike = [name for name in names if Path(name).suffix.lower() == path.suffix.lower()]
    stems: dict[str, list[str]] = {}
    for name in alike or names:  # a video is meant where one is named, and not the page beside it
        stems.setdefault(Path(name).stem.casefold(), []).append(name)
    close = difflib.get_close_matches(path.stem.casefold(), stems, n=most, cutoff=0.7)
    found = [name for stem in close for name in stems[stem]][:most]
    return f"; is {' or '.join(map(repr, found))} meant?" if found else ""

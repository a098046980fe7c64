"""Finds the videos that addresses of a store name: one file, a folder with everything below it, or a pattern."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePath

from pipeline.cache.spool import Remote
from support.store import Found, NotThere, StoreError, below, beside, look, matching
from support.urls import address

MAGIC = frozenset("*?[")
FILE, FOLDER, PATTERN = "file", "folder", "pattern"
_names: dict[str, set[str]] = defaultdict(set)
"""by folder, the names in it, where a listing showed all of them"""


def forget() -> None:
    """Forget all listings, since what is in the stores may have changed."""
    _listed.cache_clear()
    _names.clear()


def is_folder(given: str, suffixes: frozenset[str]) -> bool:
    """Whether an address names a folder. `suffixes`, and errors: as `videos`."""
    return _listed(given, suffixes)[0] == FOLDER


def videos(given: str, suffixes: frozenset[str], is_video: Callable[[PurePath], bool]) -> list[Remote]:
    """The videos that an address means. One file that is named is taken whatever its suffix is.

    Args:
        suffixes: a name with one of these is taken for a file without asking the store, because a list of thousands
            may be given.

    Raises:
        UsageError: the address holds credentials, or names nothing.
        NotThere: the store has nothing there.
        StoreError, EnvironmentMissing: the store does not answer, or its package is missing.
    """
    kind, found = _listed(given, suffixes)
    chosen = [one for one in found if kind == FILE or is_video(PurePath(one.url))]
    return [Remote(one.url) if one.size < 0 else Remote.of(one) for one in chosen]


def files(given: str, suffixes: frozenset[str]) -> list[Path]:
    """The names of all files in the folder, or of the pattern, that an address means."""
    kind, found = _listed(given, suffixes)
    return [Path(one.url) for one in found if kind != FILE]


@lru_cache(maxsize=256)
def _listed(given: str, suffixes: frozenset[str]) -> tuple[str, tuple[Found, ...]]:
    """What an address is, and the files that it means."""
    url = address(given)
    pattern = bool(MAGIC & set(url))
    if PurePath(url).suffix.lower() in suffixes and not pattern and not given.endswith("/"):
        return FILE, (Found(url, -1, ""),)
    try:
        found = look(url)
        if not found.folder:
            return FILE, (found,)  # also one whose name has [ or ? in it
        inside = tuple(below(url))
    except NotThere:
        if pattern:
            return PATTERN, tuple(matching(url))
        inside = tuple(below(url))  # a store may have no entries of folders
        if not inside:
            raise
    for one in inside:
        folder, _, name = one.url.rpartition("/")
        _names[folder].add(name)
    return FOLDER, inside


def names_in(folder: str) -> set[str]:
    """The names in a folder of a store; none if the store does not say."""
    if folder not in _names:
        try:
            _names[folder] = set(beside(folder))
        except StoreError:  # the video's own error says so
            _names[folder] = set()
    return _names[folder]

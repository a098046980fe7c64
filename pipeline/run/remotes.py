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
_names: dict[str, set[str]] = defaultdict(set)
"""by folder, the names in it, where a listing showed all of them"""


def forget() -> None:
    """Forget all listings, since what is in the stores may have changed."""
    _listed.cache_clear()
    _names.clear()


def is_folder(given: str, suffixes: frozenset[str]) -> bool:
    """Whether an address names a folder. `suffixes`, and errors: as `videos`."""
    return _listed(given, suffixes)[0]


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
    folder, files = _listed(given, suffixes)
    named = not folder and not MAGIC & set(given)
    chosen = [one for one in files if named or is_video(PurePath(one.url))]
    return [Remote(one.url) if one.size < 0 else Remote.of(one) for one in chosen]


def files(given: str, suffixes: frozenset[str]) -> list[Path]:
    """The names of all files in the folder, or of the pattern, that an address means."""
    folder, found = _listed(given, suffixes)
    return [Path(one.url) for one in found if folder or MAGIC & set(given)]


@lru_cache(maxsize=256)
def _listed(given: str, suffixes: frozenset[str]) -> tuple[bool, tuple[Found, ...]]:
    """The files that an address means, and whether it is a folder."""
    url = address(given)
    if MAGIC & set(url):
        return False, tuple(matching(url))
    if PurePath(url).suffix.lower() in suffixes and not given.endswith("/"):
        return False, (Found(url, -1, ""),)
    try:
        found = look(url)
        if not found.folder:
            return False, (found,)
        inside = tuple(below(url))
    except NotThere:
        inside = tuple(below(url))  # a store may have no entries of folders
        if not inside:
            raise
    for one in inside:
        folder, _, name = one.url.rpartition("/")
        _names[folder].add(name)
    return True, inside


def names_in(folder: str) -> set[str]:
    """The names in a folder of a store; none if the store does not say."""
    if folder not in _names:
        try:
            _names[folder] = set(beside(folder))
        except StoreError:  # the video's own error says so
            _names[folder] = set()
    return _names[folder]

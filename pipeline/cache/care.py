"""Upkeep of the feature cache: list, prune and verify its entries."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.featurefile import made_of
from extractors.features import FeaturesError, load
from extractors.parts import load_part
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import PARTS
from support.files import remove, sweep


@dataclass(frozen=True)
class Entry:
    """The features of one stream of a video, or the parts that are there so far."""

    path: Path
    content: str
    """hash of the video's content"""
    size: int
    """bytes"""
    age: float
    """seconds since the last use; 0 if the clock was set back"""
    unfinished: bool

    @property
    def video(self) -> str:
        """The path that the video had when its features were extracted; "" if the entry does not say."""
        named = {} if self.unfinished else made_of(self.path)
        return str(named.get("video", ""))


def scan(cache: FeatureCache | None = None) -> list[Entry]:
    """All entries. Temporary files of killed runs are removed."""
    folder, found = (cache or FeatureCache()).folder, []
    now = time.time()
    # Links are not followed: in a shared cache, somebody else's link may lead anywhere.
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()) if folder.is_dir() else ():
        sweep(place)
        for path in sorted(place.iterdir()):
            unfinished = path.suffix == PARTS
            if path.is_symlink() or (not unfinished and path.suffix != ".npz"):
                continue
            with contextlib.suppress(FileNotFoundError):  # just removed, or completed, by another process
                files = list(path.iterdir()) if unfinished else [path]
                stats = [file.stat() for file in files]
                used = max((stat.st_mtime for stat in stats), default=path.stat().st_mtime)
                size = sum(stat.st_size for stat in stats)
                found.append(Entry(path, path.name.partition("-")[0], size, max(now - used, 0.0), unfinished))
    return found


def prune(age: float | None, most: float | None, cache: FeatureCache | None = None) -> tuple[list[Entry], list[Entry]]:
    """Remove entries not used for `age` seconds, then the least recently used ones until `most` bytes are left.

    Entries that another process is working on stay.

    Returns:
        The entries that were removed, and those that could not be, since they belong to somebody else.
    """
    cache = cache or FeatureCache()
    gone: list[Entry] = []
    stuck: list[Entry] = []
    entries = sorted(scan(cache), key=lambda entry: -entry.age)
    left = sum(entry.size for entry in entries)
    for entry in entries:
        if (age is not None and entry.age > age) or (most is not None and left > most):
            lock = cache.lock(entry.content)
            try:
                if not lock.take():
                    continue
                with lock.held():
                    remove(entry.path)
            except FileNotFoundError:  # another process has just removed it
                left -= entry.size
                continue
            except OSError:
                stuck.append(entry)
                continue
            left -= entry.size
            gone.append(entry)
    return gone, stuck


def verify(entries: Sequence[Entry]) -> Iterator[tuple[Path, str]]:
    """Read every file of the entries; yields each damaged one with the cause, and removes it."""
    for entry in entries:
        for file in sorted(entry.path.glob("*.npz")) if entry.unfinished else [entry.path]:
            try:
                load_part(file) if entry.unfinished else load(file)
            except FeaturesError as error:
                if file.exists():
                    file.unlink(missing_ok=True)
                    yield file, str(error)

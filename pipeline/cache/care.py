"""Looking after the feature cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.features import FeaturesError, load
from extractors.parts import load_part
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import PARTS
from support.files import remove, sweep


@dataclass(frozen=True)
class Entry:
    """The features of one stream of a video, or the parts of them that there are."""

    path: Path
    content: str
    """hash of the video"""
    size: int
    """bytes"""
    age: float
    """seconds since it was used last, 0 for a clock that was set back"""
    unfinished: bool


def scan(cache: FeatureCache | None = None) -> list[Entry]:
    """All entries; what killed runs left of their writing is cleared away."""
    folder, found = (cache or FeatureCache()).folder, []
    now = time.time()
    # Links are not followed: in a cache that is shared, somebody else's may lead anywhere.
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()) if folder.is_dir() else ():
        sweep(place)
        for path in sorted(place.iterdir()):
            unfinished = path.suffix == PARTS
            if path.is_symlink() or (not unfinished and path.suffix != ".npz"):
                continue
            with contextlib.suppress(FileNotFoundError):  # just taken out, or finished, by another process
                files = list(path.iterdir()) if unfinished else [path]
                stats = [file.stat() for file in files]
                used = max((stat.st_mtime for stat in stats), default=path.stat().st_mtime)
                size = sum(stat.st_size for stat in stats)
                found.append(Entry(path, path.name.partition("-")[0], size, max(now - used, 0.0), unfinished))
    return found


def prune(age: float | None, most: float | None, cache: FeatureCache | None = None) -> tuple[list[Entry], list[Entry]]:
    """Take out entries not used for `age` seconds, then those used longest ago until `most` bytes are left.

    What another process is at work on stays.

    Returns:
        Those that are gone, and those that may not be taken out: somebody else's.
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
            except FileNotFoundError:  # another process has just taken it out
                left -= entry.size
                continue
            except OSError:
                stuck.append(entry)
                continue
            left -= entry.size
            gone.append(entry)
    return gone, stuck


def verify(entries: Sequence[Entry]) -> Iterator[tuple[Path, str]]:
    """Read every file of the entries; gives those that were damaged, with the cause, and takes them out."""
    for entry in entries:
        for file in sorted(entry.path.glob("*.npz")) if entry.unfinished else [entry.path]:
            try:
                load_part(file) if entry.unfinished else load(file)
            except FeaturesError as error:
                if file.exists():
                    file.unlink(missing_ok=True)
                    yield file, str(error)

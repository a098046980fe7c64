"""The extraction of a video into the cache: parts are kept as they come, and joined when all are there."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from extractors.config import WHOLE, Stretch
from extractors.decode.video import ReadError, VideoError, is_partial
from extractors.features import Extractor, Features, FeaturesError, load, save
from extractors.parts import Part, consistent, from_the_start, gaps, load_part, ordered, save_part
from extractors.snippets import nothing_there, snippet_range
from pipeline.cache.content import CacheFolder, Video, Watched, at_hand, place_of
from support.files import sweep
from support.progress import Progress, silent

PARTS = ".parts"  # suffix of the folder beside an entry that is not complete yet
Notify = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Snippets first <= i < last of a video that must be extracted, for these streams."""

    first: int
    last: float
    streams: tuple[str, ...]
    from_start: bool = False
    """whether the video must be read from its start"""


class Extraction:
    """A video on its way into the cache: which of its features are there, and which are missing."""

    def __init__(
        self,
        cache: CacheFolder,
        path: Video,
        content: str,
        extractor: Extractor,
        stretch: Stretch = WHOLE,
        on_damage: Notify = lambda message: None,
        strict: bool = False,
    ) -> None:
        """As `FeatureCache.features`. `strict`: raise an OSError for a part that cannot be written."""
        self.strict = strict
        self.cache, self.path, self.extractor = cache, path, extractor
        self.watched = Watched(path, content)
        self.stretch, self.on_damage = stretch, on_damage
        self.entries = {n: cache.entry(content, s, stretch) for n, s in extractor.settings().items()}
        self.whole: dict[str, Features] = {}
        self.parts: dict[str, list[Part]] = {}
        self.assumed: set[str] = set()
        """streams whose entries were not read"""
        self.writable = True

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def found(self) -> Features | None:
        """The features, if the cache has those of every stream. A damaged entry is reported and removed."""
        for name, entry in self.entries.items():
            try:
                if name not in self.whole and entry.exists():
                    self.whole[name] = load(entry)
                    with contextlib.suppress(OSError):  # the time of the last use, for `cache prune`
                        os.utime(entry)
            except OSError as error:
                self.unwritable(error)
            except FeaturesError as error:
                self.on_damage(f"damaged cache entry: {error}")
                with contextlib.suppress(OSError):
                    entry.unlink()
        if self.missing:
            return None
        for entry in self.entries.values():
            shutil.rmtree(parts_folder(entry), ignore_errors=True)  # left by a run that was killed just before its end
        return merge([self.whole[name] for name in self.entries])

    @property
    def missing(self) -> tuple[str, ...]:
        """Streams without an entry."""
        return tuple(name for name in self.entries if name not in {*self.whole, *self.assumed})

    def assume(self) -> bool:
        """Take the entries that exist for whole, without reading them; returns whether there is one for each stream."""
        with contextlib.suppress(OSError):  # no permission
            self.assumed = {name for name, entry in self.entries.items() if entry.exists()}
        return not self.missing

    def drop_rows(self) -> None:
        """Forget the numbers of the parts, and keep which snippets are there."""
        for name, parts in self.parts.items():
            self.parts[name] = [dataclasses.replace(part, rows={}) for part in parts]

    def look(self) -> None:
        """Read the parts that are there. A damaged part is reported and removed."""
        self.parts = {name: [] for name in self.missing}
        for name in self.missing:
            folder = parts_folder(self.entries[name])
            with contextlib.suppress(OSError):
                sweep(folder)
                sweep(folder.parent)
            try:
                files = sorted(folder.glob("*.npz")) if folder.is_dir() and not folder.is_symlink() else []
            except OSError as error:  # no permission
                self.unwritable(error)
                continue
            for file in files:
                try:
                    self.parts[name].append(load_part(file))
                except FeaturesError as error:
                    self.on_damage(f"damaged part in the cache: {error}")
                    file.unlink(missing_ok=True)
        self._settle()

    def _settle(self) -> None:
        """Drop the parts that do not fit together with the others."""
        self.parts = {name: ordered(consistent(parts)) for name, parts in self.parts.items()}

    @property
    def _all(self) -> list[Part]:
        return [part for parts in self.parts.values() for part in parts]

    def chunks(self) -> list[Chunk]:
        """The chunks that must be extracted, in order."""
        everything = self._all
        begin, last = 0, math.inf
        if everything:
            origin = everything[0].seen.origin
            begin, last = snippet_range(self.stretch, origin, self.extractor.config)
        streams: dict[tuple[int, float], list[str]] = {}
        for name in self.missing:
            for gap in gaps(self.parts.get(name, []), begin, last):
                streams.setdefault(gap, []).append(name)
        again = from_the_start(everything)
        return [Chunk(a, b, tuple(names), again) for (a, b), names in sorted(streams.items())]

    def next_chunk(self) -> Chunk | None:
        """The first chunk that must be extracted, if any."""
        return next(iter(self.chunks()), None)

    def extract(
        self,
        chunk: Chunk,
        on_progress: Progress = silent,
        stop: Callable[[], bool] = lambda: False,
        each: bool = False,
        on_part: Callable[[int], None] = lambda until: None,
    ) -> None:
        """Extract a chunk, and keep each part as it comes.

        Args:
            each: keep also a part that is the whole video, although its entry would be written next.
            on_part: called after each part with the index of the snippet behind it.

        Raises:
            VideoError: it cannot be decoded.
            ReadError: the file cannot be read, or was written to meanwhile; no part of it is kept.
        """
        with self._all_or_nothing():
            try:
                self._extract(chunk, on_progress, stop, each, on_part)
            except ReadError:
                raise
            except VideoError:
                self.watched.check()  # if the file was written to, that is the cause
                raise
        self._settle()

    def _extract(
        self,
        chunk: Chunk,
        on_progress: Progress,
        stop: Callable[[], bool],
        each: bool,
        on_part: Callable[[int], None],
    ) -> None:
        span = (chunk.first, chunk.last)
        self.watched.begin()
        with at_hand(self.path, self.watched.content, on_progress) as path:
            for part in self.extractor.parts(
                path,
                self.stretch,
                chunk.streams,
                on_progress,
                self.cache.part,
                span,
                chunk.from_start,
                stop,
            ):
                for name in chunk.streams:
                    self.parts.setdefault(name, []).append(part.only(name))
                if each or self.next_chunk() is not None or len(self) > len(chunk.streams):
                    self.keep(part)
                on_part(part.until)

    def keep(self, part: Part) -> None:
        """Write a part, or report once that it cannot be written.

        Raises:
            ReadError: the video's file has changed since it was hashed.
        """
        self.watched.check(suspicious(part))
        try:
            if self.writable:
                for name in part.rows:
                    file = parts_folder(self.entries[name]) / f"{part.first:08d}-{part.until:08d}.npz"
                    save_part(part.only(name), file)
        except OSError as error:
            self.unwritable(error)

    def unwritable(self, error: OSError) -> None:
        """Notify once that the folder cannot be written."""
        if self.strict:
            raise error
        if self.writable:
            self.writable = False
            self.on_damage(
                f"{self.cache.folder}: features cannot be kept there ({error.strerror}), the next run will extract "
                "them again; set JCDNET_CACHE to another folder."
            )

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except ReadError:
            self.forget()
            raise

    def forget(self) -> None:
        """Remove all parts of a video whose file could not be read: FFmpeg may have skipped pictures silently."""
        self.parts = {}
        for name in self.missing:
            shutil.rmtree(parts_folder(self.entries[name]), ignore_errors=True)

    def finish(self) -> Features:
        """Join the parts, write the entries, and return the features.

        Raises:
            VideoError: the video has no snippet in the stretch.
            ReadError: the file cannot be read, or was written to meanwhile; no part of it is kept.
        """
        with self._all_or_nothing():
            self.watched.check(any(map(suspicious, self._all)), finally_=True)
        for name, parts in self.parts.items():
            if not any(len(part.times) for part in parts):
                for entry in self.entries.values():
                    shutil.rmtree(parts_folder(entry), ignore_errors=True)
                raise VideoError(nothing_there(self.path, self.stretch, parts[-1].seen.end))
            self.whole[name] = self.extractor.join(parts, self.stretch.open_ended)
            try:
                if self.writable:
                    save(self.whole[name], self.entries[name], {"video": place_of(self.path)})
            except OSError as error:
                self.unwritable(error)
        if self.writable:
            for name in self.parts:
                shutil.rmtree(parts_folder(self.entries[name]), ignore_errors=True)
        return merge([self.whole[name] for name in self.entries])


def suspicious(part: Part) -> bool:
    """Whether a part has damage that a file would also show while it is cut short or overwritten."""
    seen = part.seen
    return bool(seen.damage.errors or seen.damage.jumps) or is_partial(seen.damage, seen.missing)


def parts_folder(entry: Path) -> Path:
    """The folder for the parts of an entry until it is complete."""
    return entry.with_suffix(PARTS)


def merge(parts: list[Features]) -> Features:
    """The streams of one video as one Features.

    Raises:
        FeaturesError: their times differ.
    """
    first, *rest = parts
    for other in rest:
        if not np.array_equal(first.times, other.times):
            raise FeaturesError("the streams of this video were cut differently; delete its cache entries.")
        first = dataclasses.replace(
            first,
            rgb=first.rgb if other.rgb is None else other.rgb,
            flow=first.flow if other.flow is None else other.flow,
            settings=first.settings | other.settings,
        )
    return first

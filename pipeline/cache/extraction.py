"""A video on its way into the cache: parts that are kept as they come, and joined when all are there."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extractors.config import WHOLE, Stretch
from extractors.decode.container import ReadError, VideoError
from extractors.decode.grid import is_partial
from extractors.features import Extractor, Features, FeaturesError, load, save
from extractors.parts import Part, consistent, from_the_start, gaps, load_part, ordered, save_part
from extractors.snippets import nothing_there, snippet_range
from pipeline.cache.content import Watched
from support.files import sweep
from support.progress import Progress, silent

if TYPE_CHECKING:
    from pipeline.cache.entries import FeatureCache

PARTS = ".parts"  # suffix of the folder beside an entry that is not whole yet
Told = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Snippets first <= i < last of a video that are to be extracted, for these streams."""

    first: int
    last: float
    streams: tuple[str, ...]
    from_start: bool = False
    """whether the video must be read from its start"""


class Extraction:
    """A video on its way into the cache: what is there of its features, and what is not."""

    def __init__(
        self,
        cache: FeatureCache,
        path: Path,
        content: str,
        extractor: Extractor,
        stretch: Stretch = WHOLE,
        on_damage: Told = lambda message: None,
        strict: bool = False,
    ) -> None:
        """As `FeatureCache.features`; `strict`: a part that cannot be written is an error (OSError)."""
        self.strict = strict
        self.cache, self.path, self.extractor = cache, path, extractor
        self.watched = Watched(path, content)
        self.stretch, self.on_damage = stretch, on_damage
        self.entries = {n: cache.entry(content, s, stretch) for n, s in extractor.settings().items()}
        self.whole: dict[str, Features] = {}
        self.parts: dict[str, list[Part]] = {}
        self.writable = True

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def found(self) -> Features | None:
        """The features, when the cache has those of every stream; damaged entries are told about."""
        for name, entry in self.entries.items():
            try:
                if name not in self.whole and entry.exists():
                    self.whole[name] = load(entry)
                    with contextlib.suppress(OSError):  # when it was used last, for `cache prune`
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
            shutil.rmtree(parts_folder(entry), ignore_errors=True)  # of a run that was killed just before the end
        return merge([self.whole[name] for name in self.entries])

    @property
    def missing(self) -> tuple[str, ...]:
        """Streams that no entry holds."""
        return tuple(name for name in self.entries if name not in self.whole)

    def look(self) -> None:
        """Read what parts there are; damaged ones are told about and removed."""
        self.parts = {name: [] for name in self.missing}
        for name in self.missing:
            folder = parts_folder(self.entries[name])
            with contextlib.suppress(OSError):
                sweep(folder)
                sweep(folder.parent)
            try:
                files = sorted(folder.glob("*.npz")) if folder.is_dir() and not folder.is_symlink() else []
            except OSError as error:  # may not be looked at
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
        """Of the parts, those that stand together."""
        kept = {name: ordered(consistent(parts)) for name, parts in self.parts.items()}
        self.parts = kept

    @property
    def _all(self) -> list[Part]:
        return [part for parts in self.parts.values() for part in parts]

    def chunks(self) -> list[Chunk]:
        """What is to be extracted, stretch by stretch."""
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
        """The first of them."""
        return next(iter(self.chunks()), None)

    def extract(
        self,
        chunk: Chunk,
        on_progress: Progress = silent,
        stop: Callable[[], bool] = lambda: False,
        each: bool = False,
        on_part: Callable[[int], None] = lambda until: None,
    ) -> None:
        """Extract a chunk, keeping each part as it comes, and telling where it ends.

        `each`: keep also one that is the whole video, and of which the entry itself would come next.

        Raises:
            VideoError: it cannot be decoded; ReadError: the file cannot be read, or is written to, and nothing of it is
                kept.
        """
        with self._all_or_nothing():
            try:
                self._extract(chunk, on_progress, stop, each, on_part)
            except ReadError:
                raise
            except VideoError:
                self.watched.check()  # that somebody writes to it is the better reason
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
        for part in self.extractor.parts(
            self.path,
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
        """Write a part, or say once that it cannot be.

        Raises:
            ReadError: the file that it was read from is not the one that was hashed any more.
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
        """Say once that the folder takes nothing."""
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
        """Take away what was kept of a video whose reading failed: FFmpeg may have left pictures out in silence."""
        self.parts = {}
        for name in self.missing:
            shutil.rmtree(parts_folder(self.entries[name]), ignore_errors=True)

    def finish(self) -> Features:
        """Join the parts, put them into the cache as one, and give them.

        Raises:
            VideoError: there is nothing between the seconds that were asked for; ReadError: the file was written to
                while it was read, or cannot be read, and nothing of it is kept.
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
                    save(self.whole[name], self.entries[name])
            except OSError as error:
                self.unwritable(error)
        if self.writable:
            for name in self.parts:
                shutil.rmtree(parts_folder(self.entries[name]), ignore_errors=True)
        return merge([self.whole[name] for name in self.entries])


def suspicious(part: Part) -> bool:
    """Whether a part shows something that a file which was cut or overwritten for a while would show, too."""
    seen = part.seen
    return bool(seen.damage.errors or seen.damage.jumps) or is_partial(seen.damage, seen.missing)


def parts_folder(entry: Path) -> Path:
    """Where the parts of an entry stand until it is whole."""
    return entry.with_suffix(PARTS)


def merge(parts: list[Features]) -> Features:
    """Streams of one video as one Features.

    Raises:
        FeaturesError: they do not share their time axis.
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

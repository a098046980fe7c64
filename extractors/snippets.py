"""From frames to snippets. Only this module decides about the tail of a video and about the extra frame for flow."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from extractors.config import FeatureConfig, Stretch
from extractors.decode.video import TIME_EPS

Picture = TypeVar("Picture")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Snippet(Generic[Picture]):
    """L consecutive frames of the grid."""

    index: int
    """row of the feature matrix, counted from the start of the video"""
    frames: tuple[Picture, ...]
    """L frames, each (H, W, 3) uint8 RGB: arrays on the CPU, tensors on a device"""
    following: Picture | None
    """the next frame, for the last flow field; None at the end of the video"""
    padded: bool = False
    """whether the last frame was repeated to fill the snippet"""


Window = list[Snippet[Picture]]
"""snippets in a row that the network sees at once"""


def snippets(
    frames: Iterable[tuple[int, Picture]], *, length: int, stride: int, last: float = math.inf
) -> Iterator[Snippet[Picture]]:
    """Cut grid frames into snippets; snippet i holds frames [i*stride, i*stride + length).

    An incomplete tail is dropped, as W-TALC does (201 frames give 12 snippets). Only a video that is shorter than one
    snippet is filled up with its last frame; that snippet is marked `padded`.

    Args:
        frames: (k, picture) with k rising by 1 from a multiple of `stride`.
        last: snippets from this index on are left out, since they belong to the next chunk.
    """
    window: deque[Picture] = deque()
    begin = None  # grid index of the window's first frame
    for k, picture in frames:
        begin = k if begin is None else begin
        if k < begin:  # with a stride longer than the snippet, some frames are in no snippet
            continue
        window.append(picture)
        if len(window) > length:
            if begin // stride >= last:
                return
            yield Snippet(begin // stride, tuple(window)[:length], picture)
            for _ in range(min(stride, len(window))):
                window.popleft()
            begin += stride
    if begin is None or not window or begin // stride >= last:
        return
    if len(window) == length:
        yield Snippet(begin // stride, tuple(window), None)
    elif begin == 0:
        filler = (window[-1],) * (length - len(window))
        yield Snippet(0, tuple(window) + filler, None, padded=True)


def snippet_range(stretch: Stretch, origin: float, config: FeatureConfig) -> tuple[int, float]:
    """Indices [first, last) of the snippets that cover a stretch of a video; `origin`: seconds of grid point 0."""
    start, end = stretch.start, stretch.end
    step = config.stride / config.fps
    zero, _ = snippet_times(0, origin, config)
    first = max(math.floor((start - zero) / step + TIME_EPS), 0)
    last = math.inf if stretch.open_ended else max(math.ceil((end - zero) / step - TIME_EPS), first + (end > origin))
    return first, last


def frame_range(first: int, last: float, config: FeatureConfig) -> tuple[int, float]:
    """Grid points [first, last) of the snippets [first, last), with the extra frame for flow."""
    return first * config.stride, (last - 1) * config.stride + config.length + 1


def nothing_there(path: object, stretch: Stretch, shown: float) -> str:
    """The message for a stretch in which a video has no snippet; `shown`: where the video ends (s)."""
    asked = f"between {stretch.start:g} s and {stretch.end:g} s"
    if stretch.open_ended:
        asked = f"after {stretch.start:g} s"
    return f"{path}: nothing {asked}; the video ends at {shown:.2f} s, give an earlier --start."


def snippet_times(index: int, origin: float, config: FeatureConfig) -> tuple[float, float]:
    """Seconds (start, end) that snippet `index` stands for.

    They are `stride` frames long, around the snippet's centre. For the default stride they are exactly the snippet's
    own 16 frames, [0.64 i, 0.64 (i+1)). For a smaller stride they still cover time without gap or overlap.
    """
    start = index * config.stride + (config.length - config.stride) / 2
    return origin + start / config.fps, origin + (start + config.stride) / config.fps


class Peeking(Generic[Picture]):
    """An iterator over snippets that can tell whether another one follows."""

    def __init__(self, source: Iterator[Snippet[Picture]]) -> None:
        self._source = source
        self._next: Snippet[Picture] | None = None

    def __iter__(self) -> Iterator[Snippet[Picture]]:
        return self

    def __next__(self) -> Snippet[Picture]:
        if not self.goes_on():
            raise StopIteration
        found, self._next = self._next, None
        assert found is not None
        return found

    def goes_on(self) -> bool:
        """Whether another snippet follows; this reads it."""
        if self._next is None:
            self._next = next(self._source, None)
        return self._next is not None


def batched(items: Iterable[Item], size: int, first: int = 0) -> Iterator[list[Item]]:
    """Lists of `size` items; the first one has `first`, if that is given, and the last one may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, first or size)):
        yield batch
        first = 0


def block(config: FeatureConfig) -> int:
    """Snippets from one index at which a window begins to the next, see `windows`."""
    return 1 if config.together == 1 else config.together * config.length // config.stride


def whole_blocks(count: int, config: FeatureConfig) -> int:
    """The least number of snippets that is not below `count` and makes whole blocks."""
    return -(-count // block(config)) * block(config)


def windows(batch: list[Snippet[Picture]], config: FeatureConfig) -> list[Window[Picture]]:
    """The windows of snippets that the network sees at once: `config.together` each, without gap or overlap.

    Windows begin at multiples of `block(config)`; with a stride below the length, others begin a stride, two strides, …
    later. So they do not depend on how a video is divided. At an edge of what was asked for, snippets are missing, and
    those that are there are repeated in turn, as I3D's authors do with videos that are too short.
    """
    if config.together == 1:
        return [[snippet] for snippet in batch]
    phases, found = config.length // config.stride, dict[tuple[int, int], list[Snippet[Picture]]]()
    for snippet in batch:
        found.setdefault((snippet.index // block(config), snippet.index % phases), []).append(snippet)
    return [(window * config.together)[: config.together] for window in found.values()]

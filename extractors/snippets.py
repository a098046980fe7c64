"""From frames to snippets: the only place that decides about the tail and about the frame that flow needs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from extractors.config import FeatureConfig, Stretch
from extractors.decode.container import TIME_EPS

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class Snippet(Generic[Picture]):
    """L consecutive frames of the grid."""

    index: int
    """row of the feature matrix, counted from the start of the video"""
    frames: tuple[Picture, ...]
    """L frames, each (H, W, 3) uint8 RGB: arrays on the CPU, tensors on a device"""
    following: Picture | None
    """the frame behind them, from which the last flow field comes; None at the end of the video"""
    padded: bool = False
    """whether the last frame was repeated to fill it"""


def snippets(
    frames: Iterable[tuple[int, Picture]], *, length: int, stride: int, last: float = math.inf
) -> Iterator[Snippet[Picture]]:
    """Cut grid frames into snippets; snippet i holds frames [i*stride, i*stride + length).

    The incomplete tail is dropped, as W-TALC does (201 frames give 12 snippets). Only a video that is shorter
    than one snippet is padded with its last frame to one, marked `padded`.

    Args:
        frames: (k, picture) with k rising by 1 from a multiple of `stride`.
        last: no snippet of this index or above is made: it belongs to the next chunk.
    """
    window: deque[Picture] = deque()
    begin = None  # grid index of the window's first frame
    for k, picture in frames:
        begin = k if begin is None else begin
        if k < begin:  # a stride longer than the snippet leaves frames out
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
    """Grid points [first, last) that the snippets [first, last) are made of, flow's extra frame included."""
    return first * config.stride, (last - 1) * config.stride + config.length + 1


def nothing_there(path: Path, stretch: Stretch, shown: float) -> str:
    """The message for a stretch in which a video has no snippet; `shown`: where the video ends (s)."""
    asked = f"between {stretch.start:g} s and {stretch.end:g} s"
    if stretch.open_ended:
        asked = f"after {stretch.start:g} s"
    return f"{path}: nothing {asked}; the video ends at {shown:.2f} s, give an earlier --start."


def snippet_times(index: int, origin: float, config: FeatureConfig) -> tuple[float, float]:
    """Seconds (start, end) of the stretch that snippet `index` speaks for.

    It is `stride` frames long, around the snippet's centre: for the default stride exactly the snippet's own
    16 frames, [0.64 i, 0.64 (i+1)); for a smaller stride the cells still tile time without overlap.
    """
    start = index * config.stride + (config.length - config.stride) / 2
    return origin + start / config.fps, origin + (start + config.stride) / config.fps

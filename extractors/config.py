"""Feature settings. This module imports no torch, so that `--help` can show the defaults quickly."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DECODERS = ("cpu", "nvdec")
PRECISIONS = ("auto", "float32", "float16", "bfloat16", "int8")
PRECISION_SETTINGS = ("dtype", "engine", "int8")
"""the feature settings that follow from the precision; features that differ in nothing else may be mixed"""
CENTRE, WHOLE_FRAME = "centre", "whole"
VIEWS = (CENTRE, WHOLE_FRAME)
USUAL: Mapping[str, Any] = {"view": CENTRE, "together": 1}
"""settings that are left out where they have this value, as they are missing in what older versions made"""
MOST_TOGETHER = 8
STEP = 8  # frames; in time, I3D's last map has one row for so many
LONGEST = 3.0  # of a whole frame, its long side over the short one; beyond, the middle is seen
STREAMS = ("rgb", "flow")  # the order in which streams are stacked, as in W-TALC and CO2-Net


@dataclass(frozen=True)
class FeatureConfig:
    """The settings that decide a video's features. The defaults are W-TALC's and CO2-Net's (PEERS.md section 0)."""

    backbone: str = "i3d"
    """network that turns a snippet into a feature"""
    fps: float = 25.0
    """frames per second of the grid; the video is resampled to it"""
    length: int = 16
    """frames in a snippet"""
    stride: int = 16
    """frames from one snippet to the next"""
    short_side: int = 256
    """pixels of the shorter side after resizing"""
    crop: int = 224
    """pixels of the square centre crop that the network sees"""
    view: str = CENTRE
    """what the network sees of a frame. centre: a square of `crop` pixels, as W-TALC and CO2-Net; whole: the frame, up
    to LONGEST times as long as it is wide"""
    together: int = 1
    """snippets in a row that the network sees at once. Each has a feature of its own, which then also knows what comes
    before and after; 4 are the 64 frames that I3D was trained on"""
    precision: str = "auto"
    """of the numbers in the networks. float32, float16, bfloat16: by PyTorch (bfloat16 by OpenVINO on a CPU that has
    it); int8: most of RGB in int8, by OpenVINO; auto: on a GPU float16, on a CPU the fastest of OpenVINO's int8,
    bfloat16 and float32 that it has"""
    decoder: str = "cpu"
    """cpu, or nvdec: NVIDIA's decoder, whose pictures differ by rounding; a file that it cannot decode fails"""
    flow: str = "auto"
    """optical flow backend"""
    flow_clip: float = 20.0
    """pixels; flow is clipped at this value and then divided by it"""

    def __post_init__(self) -> None:
        for name in ("fps", "length", "stride", "flow_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        if not 1 <= self.together <= MOST_TOGETHER:
            raise ValueError(f"together must be between 1 and {MOST_TOGETHER}, not {self.together}.")
        if self.together > 1 and (self.length % STEP or self.length % self.stride):
            raise ValueError(
                f"stride must be a divisor of {self.length} where the network sees {self.together} snippets at once, "
                f"not {self.stride}."
            )
        if self.view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, not {self.view!r}.")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, not {self.decoder!r}.")
        if not 32 <= self.crop <= self.short_side:
            raise ValueError(f"crop ({self.crop}) must be between 32 and short_side ({self.short_side}).")


def seen(height: int, width: int, config: FeatureConfig) -> tuple[slice, slice]:
    """Rows and columns of what the network sees of a frame."""
    if config.view == WHOLE_FRAME:
        most = round(LONGEST * min(height, width))
        rows, columns = min(height, most), min(width, most)
    else:
        rows = columns = config.crop
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def setting_of(settings: Mapping[str, Any], name: str) -> Any:
    """One of a stream's settings; settings that do not name it may be older than it, or leave out its usual value."""
    return settings.get(name, USUAL.get(name))


@dataclass(frozen=True)
class Stretch:
    """Seconds of a video, always counted from the start of the whole video."""

    start: float = 0.0
    end: float = math.inf
    """infinite: to the end of the video"""

    @property
    def open_ended(self) -> bool:
        """Whether it goes to the end of the video."""
        return math.isinf(self.end)

    def as_json(self) -> list[float | None]:
        """The stretch in results and features files: [start, end], with None for an infinite end."""
        return [self.start, None if self.open_ended else self.end]


WHOLE = Stretch()
NOTHING = Stretch(0.0, 0.0)
"""for a look at a video: opening it decodes its first frame, and no other frame is asked for"""


@dataclass(frozen=True)
class Limits:
    """Limits for one video, which is given up beyond them. They do not change any features."""

    timeout: float = 0.0
    """seconds of work on a video; 0: no limit"""
    stall: float = 120.0
    """seconds without a sign of life from the decoder"""
    memory: float = 4.0
    """GiB of memory in the decoder (Linux only), not counting what the process and its threads take; 0: no limit"""

    def __post_init__(self) -> None:
        for name in ("timeout", "memory"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        if not 0 < self.stall < float("inf"):
            raise ValueError(f"stall must be positive, not {self.stall}.")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MOST_DECODERS = 8  # for one video; each takes a process, a ring in memory and two cores


def decoders_for(device: str, threads: int | None) -> int:
    """How many decoders read a video at once, if nobody says it: one for two cores, where a GPU does the rest.

    On a CPU the networks take the cores. `threads`: those of a worker, which shares the machine; it has one decoder.
    """
    return 1 if device == "cpu" or threads is not None else max(1, min(MOST_DECODERS, cores() // 2))

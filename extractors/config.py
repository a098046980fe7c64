"""Feature settings, free of torch so that `--help` can read the defaults in a blink."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

DECODERS = ("cpu", "nvdec")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
STREAMS = ("rgb", "flow")  # the order in which streams are stacked: RGB first (W-TALC, CO2-Net)


@dataclass(frozen=True)
class FeatureConfig:
    """What decides the features of a video; the defaults are the W-TALC / CO2-Net grid (PEERS.md section 0)."""

    backbone: str = "i3d"
    """network that turns a snippet into a feature"""
    fps: float = 25.0
    """frames per second of the grid that frames are resampled to"""
    length: int = 16
    """frames in a snippet"""
    stride: int = 16
    """frames from one snippet to the next"""
    short_side: int = 256
    """pixels of the shorter side after resizing"""
    crop: int = 224
    """pixels of the square centre crop that the network sees"""
    precision: str = "auto"
    """float32, float16 or bfloat16 in the networks; auto: float32, but float16 for RGB on a GPU"""
    decoder: str = "cpu"
    """cpu, or nvdec: NVIDIA's decoder, whose pictures differ by rounding; files that it cannot decode fail"""
    flow: str = "auto"
    """optical flow backend"""
    flow_clip: float = 20.0
    """pixels at which flow is clipped before it is divided by the same number"""

    def __post_init__(self) -> None:
        for name in ("fps", "length", "stride", "flow_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, not {self.decoder!r}.")
        if not 32 <= self.crop <= self.short_side:
            raise ValueError(f"crop ({self.crop}) must be between 32 and short_side ({self.short_side}).")


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
    """What one video may cost before it is given up; none of it changes a number."""

    timeout: float = 0.0
    """seconds of work on a video; 0: any number"""
    stall: float = 120.0
    """seconds in which the decoder gives no sign of life"""
    memory: float = 4.0
    """GiB of memory for a video in the decoder (Linux only), beside what the process and threads take; 0: any amount"""

    def __post_init__(self) -> None:
        for name in ("timeout", "memory"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        if not 0 < self.stall < float("inf"):
            raise ValueError(f"stall must be positive, not {self.stall}.")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

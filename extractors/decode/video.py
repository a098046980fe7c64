"""What is known about a video that is decoded: its facts, its damage, and the errors that it can cause.

Every part of the program may import this file. The modules that decode load FFmpeg and OpenCV, and a run needs them in
the decoder's process (child.py) alone, so whoever only handles an error or a warning takes it from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.errors import ENVIRONMENT, INPUT_FAILED, UserError

Image = NDArray[np.uint8]

# Seconds. PTS are rounded to the container's clock (1 ms in Matroska); smaller differences are ignored.
TIME_EPS = 1e-6
RING_BYTES = 32 << 20  # about 90 frames of 256 x 455; half of Docker's 64 MiB for /dev/shm
MOST_SLOTS, LEAST_SLOTS = 128, 4
MISSING_TAIL = 1.0  # seconds; a video that ends so long before its header says is reported as partial


class VideoError(UserError):
    """A video cannot be read; the message names the file, the cause and the next step."""

    exit_code = INPUT_FAILED


class ReadError(VideoError):
    """A file could not be read, or was written to meanwhile, so what was decoded cannot be trusted."""


class DecoderUnavailable(UserError):
    """The user asked for NVDEC, and this machine has none; the message names the next step."""

    exit_code = ENVIRONMENT


@dataclass(frozen=True)
class VideoInfo:
    """What the container says about its video; the size is upright and in square pixels."""

    path: Path
    duration: float
    """seconds; 0 if the container does not say"""
    width: int
    height: int
    rate: str
    """nominal frame rate as a fraction, such as 30000/1001"""
    start_timecode: str | None


@dataclass
class Damage:
    """What is wrong with a file; filled while the file is decoded."""

    errors: int = 0
    """number of places that could not be decoded, or that the demuxer or the decoder marks as corrupt"""
    jumps: int = 0
    """number of long gaps that were closed"""
    made_up: int = 0
    """number of frames whose time was made up, since they have none or one that does not rise"""


@dataclass
class Clip:
    """A video that is being decoded.

    `damage` and `sought` are up to date with the last frame; `end`, `exhausted` and `missing` are set at the end.
    """

    info: VideoInfo
    origin: float
    """seconds of grid point 0"""
    first: int
    last: float
    """the request is for the snippets first <= i < last"""
    size: tuple[int, int]
    """(H, W) of the frames"""
    seekable: bool = True
    """whether reading a stretch costs no more than the stretch's own length"""
    damage: Damage = field(default_factory=Damage)
    sought: bool = False
    """whether the reading jumped over the beginning, and over any damage there"""
    end: float = 0.0
    """seconds at which the last frame that was read stops being shown"""
    exhausted: bool = False
    """whether that was the last frame of the video"""
    missing: float = 0.0
    """seconds by which an exhausted video is shorter than its header declares"""

    @property
    def partial(self) -> bool:
        """Whether frames are missing from the request."""
        return is_partial(self.damage, self.missing if math.isinf(self.last) else 0.0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages for the user about the file."""
        return warnings(self.damage, self.missing if math.isinf(self.last) else 0.0)


def is_partial(damage: Damage, missing: float) -> bool:
    """Whether frames are missing: some could not be decoded, or they end `missing` seconds before the header says."""
    return bool(damage.errors) or missing > MISSING_TAIL


def warnings(damage: Damage, missing: float) -> tuple[str, ...]:
    """Messages for the user about a file; `missing`: as in `is_partial`."""
    messages = []
    if damage.errors:
        messages.append(f"it is damaged in {damage.errors} place{'s' if damage.errors > 1 else ''}.")
    if missing > MISSING_TAIL:
        messages.append(f"its frames end {missing:.1f} s before the file says that they do.")
    if damage.jumps:
        messages.append("its clock jumps; the frames behind a jump follow at once.")
    return tuple(messages)


def fit(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) scaled so that the shorter side is `short_side`; the aspect ratio stays."""
    height, width = size
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


def ring_slots(size: tuple[int, int]) -> int:
    """How many frames (H, W) the ring of one decoder holds."""
    return min(max(RING_BYTES // (size[0] * size[1] * 3), LEAST_SLOTS), MOST_SLOTS)

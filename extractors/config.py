"""Feature settings and folders, free of torch so that `--help` can read the defaults in a blink."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DECODERS = ("cpu", "nvdec")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
Progress = Callable[[str, int, int], None]
"""(stage, done, total): how far something has come; features count snippets, of an estimated total"""
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


def program() -> str:
    """How jcdnet is called here, for sentences that name a command: `jcdnet` where it is installed (its folders lie in
    jcdnet/_app then), `python cli.py` in a checkout."""
    return "jcdnet" if Path(__file__).resolve().parents[1].name == "_app" else "python cli.py"


class NoHome(Exception):
    """A folder was to be found in a home folder, and there is none; one sentence with the next step."""


def cache_dir() -> Path:
    """Folder for features, fetched weights and compiled kernels: `JCDNET_CACHE`, or the user's cache folder.

    Raises:
        NoHome: this user has no home folder.
    """
    chosen = os.environ.get("JCDNET_CACHE")
    return expand("JCDNET_CACHE", chosen) if chosen else user_cache_dir()


def user_cache_dir() -> Path:
    """The user's own cache folder of jcdnet, whatever `JCDNET_CACHE` says.

    Raises:
        NoHome: this user has no home folder.
    """
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "jcdnet"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home()) / "jcdnet" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "jcdnet"


def expand(variable: str, folder: str) -> Path:
    """A folder that an environment variable names, with `~` for the user's home.

    Raises:
        NoHome: the user that it names has none.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise NoHome(f"{variable} is {folder}, and that home folder is not known here; give a full path.") from error


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container that is run as a user whom its /etc/passwd does not know
        raise NoHome(
            "there is no folder for the cache: HOME is not set, and this user has no home folder; set JCDNET_CACHE to "
            "a folder that can be written."
        ) from error

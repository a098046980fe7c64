"""TV-L1 by OpenCV: the reference that the other backends are measured against."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from extractors.flow.tvl1 import FlowError, FlowUnavailable, check, over_pairs


def version() -> str:
    """Return e.g. "opencv-5.0.0.93": 4.14 and 5.0 give different fields, so it belongs in every cache key."""
    try:
        from cv2.version import opencv_version
    except ImportError:  # a build that is not from a wheel
        return f"opencv-{cv2.__version__}"
    return f"opencv-{opencv_version}"


def flow(grey: np.ndarray, workers: int | None = None) -> np.ndarray:
    """Compute TV-L1 between consecutive frames with OpenCV's default settings.

    grey: (N+1, H, W) uint8; returns (N, H, W, 2) float32, the displacement in x, then y, in pixels, at every pixel
    of the first frame of each pair. Any size from 2×2 on works. Raises FlowError, and
    FlowUnavailable (a FlowError) if this OpenCV has no TV-L1.
    """
    check(grey)
    if min(grey.shape[1:]) < 2:  # its gradient reads beyond such a frame, and sometimes the field is not finite
        raise FlowError("OpenCV has no TV-L1 for frames 1 px high or wide: use the flow backend numba")
    out = np.empty((len(grey) - 1, *grey.shape[1:], 2), np.float32)
    # OpenCV's own threads do not speed up TV-L1, whose slowest step is serial. So each thread gets pairs of its own.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        over_pairs(lambda: solver(grey, out), len(out), workers)
    finally:
        cv2.setNumThreads(before)
    return out


def require() -> Any:
    """Return cv2.optflow. Raises FlowUnavailable if this OpenCV does not have it."""
    optflow: Any = getattr(cv2, "optflow", None)
    if optflow is None:
        raise FlowUnavailable(
            "this OpenCV has no TV-L1 (cv2.optflow): uninstall it and install opencv-contrib-python-headless"
        )
    return optflow


def solver(grey: np.ndarray, out: np.ndarray) -> Callable[[int], None]:
    """Return a function that computes one pair of `grey` into `out`, for one thread and one frame size.

    OpenCV's object is not thread-safe, and after a small frame it keeps the smaller number of scales.
    """
    tvl1 = require().DualTVL1OpticalFlow_create()

    def one(pair: int) -> None:
        out[pair] = tvl1.calc(grey[pair], grey[pair + 1], None)

    return one

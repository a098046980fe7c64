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
    of the first frame of each pair. Any size from 2×2 on. Raises FlowError, and
    FlowUnavailable (a FlowError) where OpenCV comes without it.
    """
    check(grey)
    if min(grey.shape[1:]) < 2:  # its gradient reads beyond such a frame: now and then the field is not finite
        raise FlowError("OpenCV has no TV-L1 for frames 1 px high or wide: use the flow backend numba")
    out = np.empty((len(grey) - 1, *grey.shape[1:], 2), np.float32)
    # OpenCV's own threads gain nothing on TV-L1 (its costliest step is serial): the pairs are spread instead.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        over_pairs(lambda: solver(grey, out), len(out), workers)
    finally:
        cv2.setNumThreads(before)
    return out


def require() -> Any:
    """Return cv2.optflow. Raises FlowUnavailable where OpenCV comes without it."""
    optflow: Any = getattr(cv2, "optflow", None)
    if optflow is None:
        raise FlowUnavailable(
            "this OpenCV has no TV-L1 (cv2.optflow): uninstall it and install opencv-contrib-python-headless"
        )
    return optflow


def solver(grey: np.ndarray, out: np.ndarray) -> Callable[[int], None]:
    """Return what computes one pair of `grey` into `out`. One a thread and size.

    OpenCV's object is not thread-safe, and one small frame shrinks its number of scales for good.
    """
    tvl1 = require().DualTVL1OpticalFlow_create()

    def one(pair: int) -> None:
        out[pair] = tvl1.calc(grey[pair], grey[pair + 1], None)

    return one

"""Optical flow: one file a backend, one signature for all.

`FLOWS[name](grey, workers=None, device="cpu")`: grey (N+1, H, W) uint8 to (N, H, W, 2) float32 pixels, consecutive
pairs, x displacement then y. To add a backend, write its file and add it to FLOWS and VERSIONS.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from extractors.flow.tvl1 import FlowError

__all__ = ["FLOWS", "VERSIONS", "FlowError", "resolve", "version"]


# Each backend is imported by its first use: cv2, numba and torch take up to seconds to import.
def _opencv(grey: np.ndarray, workers: int | None = None, device: str = "cpu") -> np.ndarray:
    from extractors.flow import opencv

    return opencv.flow(grey, workers)


def _opencv_version() -> str:
    from extractors.flow import opencv

    return opencv.version()


def _numba(grey: np.ndarray, workers: int | None = None, device: str = "cpu") -> np.ndarray:
    from extractors.flow import numba_tvl1

    return numba_tvl1.flow(grey, workers)


def _numba_version() -> str:
    from extractors.flow import numba_tvl1

    return numba_tvl1.version()


FLOWS: dict[str, Callable[..., np.ndarray]] = {
    "opencv": _opencv,
    "numba": _numba,
}
VERSIONS: dict[str, Callable[[], str]] = {
    "opencv": _opencv_version,
    "numba": _numba_version,
}


def version(name: str) -> str:
    """Return what identifies the results of a backend in a cache key, e.g. "opencv-5.0.0.93". Raises FlowError."""
    return VERSIONS[resolve(name)]()


def resolve(name: str, device: str = "cpu") -> str:
    """Turn "auto" into the name of the fastest backend for `device` ("cpu", "cuda", "cuda:1"); pass others on.

    Raises FlowError for a name that is not in FLOWS.
    """
    if name == "auto":
        if str(device).startswith("cuda") and "triton" in FLOWS and find_spec("triton"):
            return "triton"
        return "numba" if "numba" in FLOWS else "opencv"
    if name not in FLOWS:
        raise FlowError(f"there is no flow backend {name!r}: choose auto, {', '.join(FLOWS)}")
    return name

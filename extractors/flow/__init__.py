"""Optical flow: one file for each backend, one signature for all.

`FLOWS[name](grey, workers=None, device="cpu")`: grey (N+1, H, W) uint8 to (N, H, W, 2) float32 pixels, consecutive
pairs, x displacement then y. To add a backend, write its file and add it to FLOWS and VERSIONS.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from extractors.flow.tvl1 import FlowError, FlowUnavailable

__all__ = [
    "FLOWS",
    "VERSIONS",
    "FlowError",
    "FlowUnavailable",
    "must_compile",
    "require",
    "resolve",
    "version",
    "warmup",
]


# Each backend is imported when it is first used, since cv2, numba and torch can take seconds to import.
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


def _torch(grey: np.ndarray, workers: int | None = None, device: str = "cpu") -> np.ndarray:
    from extractors.flow import torch_tvl1

    return torch_tvl1.flow(grey, device)


def _torch_version() -> str:
    from extractors.flow import torch_tvl1

    return torch_tvl1.version()


def _cuda(grey: np.ndarray, workers: int | None = None, device: str = "cuda") -> np.ndarray:
    from extractors.flow import cuda_tvl1

    return cuda_tvl1.flow(grey, device)


def _cuda_version() -> str:
    from extractors.flow import cuda_tvl1

    return cuda_tvl1.version()


FLOWS: dict[str, Callable[..., np.ndarray]] = {
    "opencv": _opencv,
    "numba": _numba,
    "torch": _torch,
    "cuda": _cuda,
}
VERSIONS: dict[str, Callable[[], str]] = {
    "opencv": _opencv_version,
    "numba": _numba_version,
    "torch": _torch_version,
    "cuda": _cuda_version,
}


def version(name: str) -> str:
    """Return the name and version that identify a backend's results, e.g. "opencv-5.0.0.93". Raises FlowError."""
    return VERSIONS[resolve(name)]()


def resolve(name: str, device: str = "cpu") -> str:
    """Turn "auto" into the name of the fastest backend for `device` ("cpu", "cuda", "cuda:1"); pass others on.

    Raises FlowError for a name that is not in FLOWS.
    """
    if name == "auto":
        if str(device).startswith("cuda") and "cuda" in FLOWS and find_spec("cuda") and find_spec("cuda.bindings"):
            return "cuda"
        return "numba" if "numba" in FLOWS else "opencv"
    if name not in FLOWS:
        raise FlowError(f"there is no flow backend {name!r}: choose auto, {', '.join(FLOWS)}")
    return name


def require(name: str, device: str = "cpu") -> None:
    """Check that a backend works on `device`, before hours of decoding.

    Raises FlowUnavailable if a device or a package is missing.
    """
    backend = resolve(name, device)
    if backend == "cuda":
        from extractors.flow import cuda_tvl1

        cuda_tvl1.require(device)
    elif backend == "opencv":
        from extractors.flow import opencv

        opencv.require()


def must_compile(name: str, width: int) -> bool:
    """Tell whether the first flow of frames of this width will compile kernels for this CPU, which takes seconds."""
    if resolve(name) != "numba":
        return False
    from extractors.flow import numba_tvl1

    return not numba_tvl1.is_compiled(width)


def warmup(name: str, width: int) -> None:
    """Compile or load the kernels for frames of this width, if the backend has any."""
    if resolve(name) == "numba":
        from extractors.flow import numba_tvl1

        numba_tvl1.warmup(width)

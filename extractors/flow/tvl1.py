"""What all TV-L1 backends share: the constants of OpenCV's defaults, the pyramid, the checks, the threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from extractors.config import cores
from support.errors import ENVIRONMENT, UserError

# The defaults of cv2.optflow.DualTVL1OpticalFlow_create(), which the published I3D features were made with.
TAU = 0.25
LAMBDA = 0.15
THETA = 0.3
SCALES = 5
SCALE_STEP = 0.8
WARPS = 5
EPSILON = 0.01
INNER = 30
OUTER = 10
MEDIAN = 5
SMALLEST = 16  # a pyramid level with a side below this is not used; the first level always is

CLAMP = LAMBDA * THETA  # bound on the step of the primal variable, in units of the gradient
TAUT = TAU / THETA
SOURCE_STEP = 1.0 / SCALE_STEP  # exactly 1.25: the resize steps by this, not by the ratio of the rounded sizes
FLAT = float(np.finfo(np.float32).eps)  # |∇I|² at or below this (1.19e-7) counts as no gradient
CUBIC_A = -0.75  # the cubic of the bicubic warp


class FlowError(UserError, ValueError):
    """No flow can be computed from these frames, or there is no such backend. One sentence for the user."""


class FlowUnavailable(FlowError):
    """The backend cannot work on this machine: a package or a device is missing."""

    exit_code = ENVIRONMENT


def levels(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes (H, W) of the pyramid, finest first; an 8×8 frame has one level.

    Each is the rounded 0.8 of the one before (half to even, as OpenCV's cvRound), down to sides of 16.
    """
    sizes = [(height, width)]
    while len(sizes) < SCALES:
        h, w = (round(side * SCALE_STEP) for side in sizes[-1])
        if h < SMALLEST or w < SMALLEST:
            break
        sizes.append((h, w))
    return sizes


def check(grey: np.ndarray) -> None:
    """Raise FlowError unless `grey` is (N+1, H, W) uint8 with N ≥ 1 and H, W ≥ 1.

    Floats are refused: OpenCV takes them as 0..1, and a 0..255 float frame is a silent ×255 error.
    """
    if not isinstance(grey, np.ndarray) or grey.dtype != np.uint8:
        kind = getattr(grey, "dtype", type(grey).__name__)
        raise FlowError(f"optical flow takes grey frames as uint8 (0..255), and these are {kind}: convert them first")
    if grey.ndim != 3:
        raise FlowError(f"optical flow takes grey frames of shape (frames, height, width), not {grey.shape}")
    if grey.shape[0] < 2:
        raise FlowError(f"optical flow needs at least two frames, and there is {grey.shape[0]}")
    if 0 in grey.shape:
        raise FlowError(f"optical flow needs frames of at least 1×1 pixel, not {grey.shape[2]}×{grey.shape[1]}")


def over_pairs(make_solver: Callable[[], Callable[[int], None]], pairs: int, workers: int | None) -> None:
    """Call a solver for every pair index 0..pairs−1, over `workers` threads (None: the number of cores).

    `make_solver` runs once in each thread and returns the function that computes one pair, so no state is shared. A
    thread takes the next pair when it is free, since pairs differ fivefold in cost. Which thread takes a pair does not
    change the result. Raises FlowError for workers below 1.
    """
    workers = cores() if workers is None else workers
    if workers < 1:
        raise FlowError(f"the number of flow workers must be at least 1, not {workers}")
    todo = iter(range(pairs))  # next() on a range iterator is atomic under the interpreter lock

    def work() -> None:
        solve = make_solver()
        for pair in todo:
            solve(pair)

    count = min(workers, pairs)
    if count == 1:
        work()
        return
    with ThreadPoolExecutor(count, thread_name_prefix="flow") as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()

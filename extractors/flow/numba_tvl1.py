"""TV-L1 on the CPU: OpenCV's numerics in kernels compiled for this machine, one pair a core."""

from collections.abc import Callable
from typing import Any

import numpy as np

from extractors.flow.tvl1 import check, levels, over_pairs

ALGORITHM = 1  # raise it with every change that moves a result


def version() -> str:
    """Return e.g. "numba-1". The kernels are strict IEEE, so that neither Numba nor the CPU model changes them."""
    return f"numba-{ALGORITHM}"


def flow(grey: np.ndarray, workers: int | None = None) -> np.ndarray:
    """Compute TV-L1 between consecutive frames, as OpenCV 5.0 does with its defaults.

    grey: (N+1, H, W) uint8; returns (N, H, W, 2) float32, the displacement in x, then y, in pixels. Any size from
    1×1 on; the same bytes for any number of workers. Raises FlowError. The first call compiles (see `warmup`).
    """
    check(grey)
    from extractors.flow import numba_kernels

    _, height, width = grey.shape
    out = np.empty((len(grey) - 1, height, width, 2), np.float32)

    def make_solver() -> Callable[[int], None]:
        scratch = workspace(height, width)

        def solve(pair: int) -> None:
            numba_kernels.solve(grey[pair], grey[pair + 1], out[pair], *scratch)

        return solve

    over_pairs(make_solver, len(out), workers)
    return out


def stride(width: int) -> int:
    """Return the floats from one plane of a row to the next: room for LEAD, the pixels and a column after them.

    An odd number of cache lines, so that the planes of a pixel do not fall into one set of the L1 cache. At least
    272: LLVM gives up wide vectors where it sees stores 32 vectors ahead of loads. Widths share a stride, because
    each stride is a compilation.
    """
    lines = -(-(16 + -(-width // 16) * 16 + 1) // 16)
    return 16 * max(lines | 1, 17)


def workspace(height: int, width: int) -> tuple[Any, ...]:
    """Allocate what `numba_kernels.solve` needs for frames of one size; one a thread."""
    from extractors.flow.numba_kernels import PLANES

    step = stride(width)
    row = np.dtype([(name, np.float32, (step,)) for name in PLANES])
    slab = np.zeros((height + 4) * row.itemsize + 64, np.uint8)
    slab = slab[-slab.ctypes.data % 64 :][: (height + 4) * row.itemsize]
    sizes = levels(height, width)
    line = np.dtype(
        [
            ("weights", np.float32, (8, step)),
            ("columns", np.float32, (5, step)),
            ("pairs", np.float32, (10, step)),
            ("errors", np.float32, (4, step)),
            ("row", np.int32, (step,)),
            ("column", np.int32, (step,)),
        ]
    )
    return (
        slab.view(row),
        slab.view(np.float32).reshape(height + 4, len(PLANES), step),
        np.array(sizes, np.uint64),
        np.empty((2, len(sizes), height, width), np.float32),
        np.empty((2, height, width), np.float32),
        np.empty((height, 6, step), np.float32),
        np.empty((height + 8, width + 8, 4), np.float32),
        np.empty((height + 4, step), np.float32),
        np.empty(1, line),
    )

"""TV-L1 on the CPU: OpenCV's numerics in kernels compiled for this machine, one pair for each core."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from extractors.flow.tvl1 import check, levels, over_pairs

ALGORITHM = 1  # raise it with every change of a result


def version() -> str:
    """Return e.g. "numba-1". The kernels are strict IEEE, so neither Numba nor the CPU model matters."""
    return f"numba-{ALGORITHM}"


def flow(grey: np.ndarray, workers: int | None = None) -> np.ndarray:
    """Compute TV-L1 between consecutive frames, as OpenCV 5.0 does with its defaults.

    grey: (N+1, H, W) uint8; returns (N, H, W, 2) float32, the displacement in x, then y, in pixels. Any size from
    1×1 on works, and any number of workers gives the same bytes. The first call compiles (see `is_compiled`).
    Raises FlowError.
    """
    check(grey)
    warmup(grey.shape[2])
    out = np.empty((len(grey) - 1, *grey.shape[1:], 2), np.float32)
    over_pairs(lambda: solver(grey, out), len(out), workers)
    return out


def solver(grey: np.ndarray, out: np.ndarray) -> Callable[[int], None]:
    """Return a function that computes one pair of `grey` into `out`. It has its own scratch memory, for one thread."""
    grey = np.require(grey, requirements=["C", "W"])  # Numba would compile again for a read-only array
    solve, scratch = _kernels().solve, workspace(*grey.shape[1:])

    def one(pair: int) -> None:
        solve(grey[pair], grey[pair + 1], out[pair], *scratch)

    return one


def warmup(width: int) -> None:
    """Compile the kernels for frames of this width, or load them from disk.

    About ten seconds the first time for a width (widths share kernels by 32 pixels), half a second in later processes.
    """
    kernels = _kernels()
    types = _types(width)
    if types not in kernels.solve.overloads:
        with _one_process_at_a_time(kernels.CACHED):
            kernels.solve.compile(types)


def is_compiled(width: int) -> bool:
    """Tell whether `warmup` would be quick, so that the user can be told about a compilation before it starts.

    If Numba's cache cannot be read, the answer is no.
    """
    kernels = _kernels()
    types = _types(width)
    if types in kernels.solve.overloads:
        return True
    try:
        cache = kernels.solve._cache
        return cache._index_key(types, kernels.solve.targetctx.codegen()) in cache._cache_file._load_index()
    except Exception:  # internals of Numba, which another version may have elsewhere
        return False


def stride(width: int) -> int:
    """Return the floats from one plane of a row to the next: 16 before the pixels, and at least one after them.

    An odd number of cache lines, so that the planes of a pixel do not fall into one set of the L1 cache. At least
    272: LLVM gives up wide vectors where a store comes fewer than 32 vectors before a load.
    """
    lines = -(-(16 + -(-width // 16) * 16 + 1) // 16)
    return 16 * max(lines | 1, 17)


def workspace(height: int, width: int) -> tuple[Any, ...]:
    """Allocate the memory of `numba_kernels.solve` for one thread and frame size: 18 MB at 340×256."""
    step = stride(width)
    row = np.dtype([(plane, np.float32, (step,)) for plane in _kernels().PLANES])
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
    sizes = levels(height, width)
    slab = np.zeros((height + 4) * row.itemsize + 64, np.uint8)
    slab = slab[-slab.ctypes.data % 64 :][: (height + 4) * row.itemsize]  # on a cache line
    return (
        slab.view(row),
        slab.view(np.float32).reshape(height + 4, len(row.names or ()), step),
        np.array(sizes, np.uint64),
        np.empty((2, len(sizes), height, width), np.float32),
        np.empty((2, height, width), np.float32),
        np.empty((height, 6, step), np.float32),
        np.empty((height + 8, width + 8, 4), np.float32),
        np.empty((height + 4, step), np.float32),
        np.empty(1, line),
    )


def _kernels() -> ModuleType:
    from extractors.flow import numba_kernels  # numba takes a second to import

    return numba_kernels


def _types(width: int) -> tuple[Any, ...]:
    """Numba's types of the arguments of `solve`, which depend on the frame's size only by the stride."""
    import numba

    frame = np.empty((1, width), np.uint8)
    arguments = (frame, frame, np.empty((1, width, 2), np.float32), *workspace(1, width))
    return tuple(numba.typeof(argument) for argument in arguments)


@contextmanager
def _one_process_at_a_time(cached: bool) -> Iterator[None]:
    """Hold a lock on the kernel cache while compiling.

    Numba numbers its files without a lock, so two processes that compile two strides at once can mix them up. Processes
    that have waited find the kernels on disk.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    if not cached:
        yield
        return
    with (Path(os.environ["NUMBA_CACHE_DIR"]) / "jcdnet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

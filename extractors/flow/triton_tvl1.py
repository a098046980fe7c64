"""TV-L1 on a CUDA device: OpenCV's numerics in fused Triton kernels, many pairs in one launch."""

import os
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from extractors.flow import compiler, tvl1
from extractors.flow.torch_tvl1 import coarse_to_fine, gradient
from extractors.flow.tvl1 import FlowError, FlowUnavailable, check

ALGORITHM = 1  # raise it with every change of a result
BATCH = 128  # pairs at a time: 32 planes of them in memory, 1.4 GB at 340×256
BLOCK = 512  # pixels for each program


def version() -> str:
    """Return e.g. "triton-1"."""
    return f"triton-{ALGORITHM}"


def require(device: str) -> None:
    """Check, in a tenth of a second, that Triton works on `device`, before anything is decoded.

    Raises FlowUnavailable without a CUDA device, without Triton, or without a C compiler that works.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not str(device).startswith("cuda") and not interpreted:
        raise FlowUnavailable(f"the flow backend triton needs a CUDA device, and this is {device}: use numba")
    if not find_spec("triton"):
        raise FlowUnavailable("the flow backend triton needs the package triton: install it, or use torch")
    if not interpreted and (found := compiler.fault()):
        cause, fix = found
        raise FlowUnavailable(f"Triton builds a small C program when it starts, and {cause}: {fix}, or use torch")


def flow(grey: np.ndarray, device: str = "cuda") -> np.ndarray:
    """Compute TV-L1 between consecutive frames, as OpenCV 5.0 does with its defaults.

    grey: (N+1, H, W) uint8; returns (N, H, W, 2) float32, the displacement in x, then y, in pixels. Raises FlowError,
    and FlowUnavailable (a FlowError) as `require` does.
    """
    check(grey)
    require(device)
    return tv_l1(torch.from_numpy(np.require(grey, requirements=["C", "W"])).to(device)).cpu().numpy()


@torch.inference_mode()
def tv_l1(frames: Tensor) -> Tensor:
    """`flow` for a tensor (N+1, H, W), 0..255, on its own device; returns (N, H, W, 2) float32 there."""
    frames = frames.float()
    return torch.cat([_solve(frames[i : i + BATCH + 1]) for i in range(0, len(frames) - 1, BATCH)])


def _solve(frames: Tensor) -> Tensor:
    if frames.shape[1] * frames.shape[2] * 2 > 2**31:
        raise FlowError(f"frames of {frames.shape[2]}×{frames.shape[1]} are too large for the flow backend triton")
    return coarse_to_fine(frames, _level)


def _level(first: Tensor, second: Tensor, field: Tensor) -> Tensor:
    """Refine `field` (2, B, H, W) on one level of the pyramid, without waiting for the device."""
    from extractors.flow import triton_kernels as kernels

    pairs, h, w = first.shape
    tiles = -(-h * w // BLOCK)
    constants = {"BLOCK": BLOCK, "TILES": 1 << (tiles - 1).bit_length()}
    numbers = {"THETA": tvl1.THETA, "TAUT": tvl1.TAUT, "CLAMP": tvl1.CLAMP}
    size = (h, w, pairs, tiles, tvl1.EPSILON**2 * h * w)
    state = first.new_zeros(2, 6, pairs, h, w)
    state[0, :2] = field
    smooth, slopes = torch.empty_like(field), first.new_empty(4, pairs, h, w)
    # Separate tensors: views at odd addresses would be compiled for again.
    counts = [first.new_zeros(pairs, dtype=torch.int32) for _ in range(2)]
    partial = [first.new_empty(pairs, tiles) for _ in range(2)]
    slope_x, slope_y = (image.contiguous() for image in gradient(second))
    now = 0  # which of the two sets of counts and partial sums is current
    for _ in range(tvl1.WARPS):
        kernels.warp[(tiles, pairs)](
            *(state, counts[now], first, second, slope_x, slope_y, slopes, h, w, pairs),
            BLOCK=BLOCK, A=tvl1.CUBIC_A, FLAT=tvl1.FLAT,
        )  # fmt: skip
        partial[now].fill_(torch.inf)
        done = _Done(first.device)
        for _ in range(tvl1.OUTER):
            kernels.median[(tiles, pairs, 2)](state, smooth, partial[now], counts[now], *size, **constants)
            for inner in range(tvl1.INNER):
                sums = partial[now], partial[1 - now], counts[now], counts[1 - now]
                kernels.iterate[(tiles, pairs)](
                    state, smooth, slopes, *sums, *size, FIRST=inner == 0, **constants, **numbers
                )
                now = 1 - now
                if not first.is_cuda and not (partial[now].sum(1) > size[-1]).any():
                    break  # for the interpreter a launch is expensive and this test is cheap
            done.ask(partial[now].sum(1) > size[-1])
            if done.known():
                break
    odd = (counts[now] % 2).bool()[:, None, None]
    return torch.where(odd, state[1, :2], state[0, :2])


class _Done:
    """Tells whether all pairs have converged, as far as is known without waiting for the device.

    Going on after all are done costs only time, since the kernels skip pairs that have converged.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.answers: list[tuple[Tensor, torch.cuda.Event | None]] = []

    def ask(self, active: Tensor) -> None:
        if not self.cuda:
            self.answers.append((active.any(), None))
            return
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(active.any(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.answers.append((answer, event))

    def known(self) -> bool:
        return any(not answer for answer, event in self.answers if event is None or event.query())

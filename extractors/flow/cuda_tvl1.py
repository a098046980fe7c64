"""TV-L1 on a CUDA device: OpenCV's numerics, one thread block for each pair. The kernel is in cuda_tvl1.cu."""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extractors import nvrtc
from extractors.flow import tvl1
from extractors.flow.torch_tvl1 import resize
from extractors.flow.tvl1 import FlowError, FlowUnavailable, check

ALGORITHM = 1  # raise it with every change of a result
BATCH = 512  # pairs in one launch, of frames up to BATCH_PIXELS: the pyramids of their frames take at most 670 MB
BATCH_PIXELS = 2**17  # of 512×256; of larger frames fewer pairs go into a launch
BLOCKS_PER_CORE = 1  # that a multiprocessor holds (the kernel's launch bounds)
THREADS = 512  # in a block
PLANES = 18  # of scratch memory for each block: state, slopes, smooth
PAD = 4  # zeros around the taps
MEMORY = 0.25  # the share of the device's memory that scratch memory may take
LARGEST = 2**31 // (PLANES + 4)  # pixels of a frame: the kernel counts in 32 bits
SOURCE = Path(__file__).with_suffix(".cu")


def version() -> str:
    """Return e.g. "cuda-1"."""
    return f"cuda-{ALGORITHM}"


def require(device: str) -> None:
    """Check, in a moment, that the kernel can run on `device`, before anything is decoded.

    Raises FlowUnavailable without a CUDA device, or without NVIDIA's Python bindings.
    """
    if not str(device).startswith("cuda"):
        raise FlowUnavailable(f"the flow backend cuda needs a CUDA device, and this is {device}: use numba")
    if not torch.cuda.is_available():
        raise FlowUnavailable("the flow backend cuda needs a CUDA device, and this machine has none: use numba")
    if not nvrtc.is_here():
        raise FlowUnavailable(
            "the flow backend cuda needs the package cuda-bindings, which PyTorch for CUDA brings: install it, or use "
            "torch"
        )


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
    """`flow` for a tensor (N+1, H, W), 0..255, on its own device; returns (N, H, W, 2) float32 there.

    It does not wait for the device. Each pair is computed by itself, so the batches change no result.
    """
    frames = frames.float()
    pairs = max(1, min(BATCH, BATCH * BATCH_PIXELS // (frames.shape[1] * frames.shape[2])))
    return torch.cat([solve(frames[i : i + pairs + 1]) for i in range(0, len(frames) - 1, pairs)])


class Pyramid(ctypes.Structure):
    """The kernel's first argument: the levels' images, finest first, and their sizes."""

    _fields_ = (
        ("images", ctypes.c_void_p * tvl1.SCALES),
        ("heights", ctypes.c_int * tvl1.SCALES),
        ("widths", ctypes.c_int * tvl1.SCALES),
        ("levels", ctypes.c_int),
        ("pairs", ctypes.c_int),
    )


@dataclass(frozen=True)
class Machine:
    """What the host must know about a device."""

    blocks: int
    """that run at the same time"""
    memory: int
    """bytes"""


def solve(frames: Tensor) -> Tensor:
    """One launch: (N+1, H, W) float32 -> (N, H, W, 2) px."""
    _, height, width = frames.shape
    if height * width > LARGEST:
        raise FlowError(f"frames of {width}×{height} are too large for the flow backend cuda: use torch")
    sizes = tvl1.levels(height, width)
    images = [frames.contiguous()]
    for size in sizes[1:]:
        images.append(resize(images[-1], size, tvl1.SOURCE_STEP, tvl1.SOURCE_STEP).contiguous())
    pyramid = Pyramid(levels=len(sizes), pairs=len(frames) - 1)
    for level, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        pyramid.images[level], pyramid.heights[level], pyramid.widths[level] = image.data_ptr(), h, w
    plane = -(-height * width // 32) * 32
    slot = PLANES * plane + -(-4 * (height + 2 * PAD) * (width + 2 * PAD) // 32) * 32
    here = machine(frames.device)
    blocks = max(1, min(len(frames) - 1, here.blocks, int(here.memory * MEMORY) // (4 * slot)))
    scratch = frames.new_empty(blocks * slot)
    queue = torch.zeros(1, dtype=torch.int32, device=frames.device)
    out = frames.new_empty(len(frames) - 1, height, width, 2)
    launch(
        frames.device,
        blocks,
        (
            pyramid,
            ctypes.c_void_p(scratch.data_ptr()),
            ctypes.c_longlong(slot),
            ctypes.c_int(plane),
            ctypes.c_void_p(queue.data_ptr()),
            ctypes.c_void_p(out.data_ptr()),
        ),
    )
    return out


@cache
def machine(device: torch.device) -> Machine:
    """What PyTorch says about a device."""
    about = torch.cuda.get_device_properties(device)
    return Machine(BLOCKS_PER_CORE * about.multi_processor_count, about.total_memory)


def constants() -> dict[str, str]:
    """The constants of the kernel's source, as C++ literals."""
    floats = {
        "THETA": tvl1.THETA,
        "TAUT": tvl1.TAUT,
        "CLAMP": tvl1.CLAMP,
        "EPSILON2": tvl1.EPSILON**2,
        "FLAT": tvl1.FLAT,
        "CUBIC_A": tvl1.CUBIC_A,
        "ZOOM": tvl1.SOURCE_STEP,
    }
    counts = {"WARPS": tvl1.WARPS, "OUTER": tvl1.OUTER, "INNER": tvl1.INNER}
    counts |= {"THREADS": THREADS, "BLOCKS_PER_CORE": BLOCKS_PER_CORE, "LEVELS": tvl1.SCALES, "PAD": PAD}
    literals = {name: f"{np.float32(value):.9e}f" for name, value in floats.items()}
    return literals | {name: str(value) for name, value in counts.items()}


def launch(device: torch.device, blocks: int, arguments: tuple[Any, ...]) -> None:
    """Launch the kernel.

    Raises FlowUnavailable.
    """
    try:
        nvrtc.launch(SOURCE, "tv_l1", device, blocks, arguments, tuple(constants().items()))
    except (nvrtc.NvrtcError, ImportError, OSError) as error:
        raise FlowUnavailable(f"the flow kernel does not run on this machine ({error}): use torch") from error

"""The CUDA backend: its kernel run on the CPU, thread by thread, and on a GPU where there is one (`-m gpu`)."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from extractors import flow, nvrtc
from extractors.flow import FlowError, FlowUnavailable, cuda_tvl1, numba_tvl1, require, resolve, torch_tvl1
from extractors.flow.cuda_tvl1 import Machine

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
GUARD = 1024  # floats before, between and after what the kernel may touch

# One level; two rows of strips; two levels of the pyramid. (64×50 has all five.)
SIZES = [(1, 1), (1, 9), (9, 1), (8, 8), (17, 40), (24, 33)]
WITH_A_LARGE_ONE = [*SIZES, pytest.param((64, 50), marks=pytest.mark.slow)]

# Each block gets its own share of the pairs. (Blocks run one after another here, so that the first would take all.)
KERNEL = """
#include "cuda_on_cpu.h"
#include "cuda_tvl1.cu"
extern "C" void launch(
    int blocks, Pyramid *pyramid, float *scratch, long long slot, int plane, int *queue, float2 *out, int backwards
) {
    int share = (pyramid->pairs + blocks - 1) / blocks;
    emulator::backwards = backwards;
    emulator::run(blocks, THREADS, [=] {
        Pyramid part = *pyramid;
        part.pairs = min(part.pairs, (blockIdx.x + 1) * share);
        if (threadIdx.x == 0) *queue = blockIdx.x * share;
        tv_l1(part, scratch, slot, plane, queue, out);
    });
}
"""

Emulate = Callable[..., list[int]]


def textured(count: int, height: int, width: int) -> np.ndarray:
    """Frames (count, H, W) uint8 of a smooth random texture that moves by (0.7, -0.4) pixels a frame."""
    noise = np.random.default_rng(height * 1000 + width).random((height + 40, width + 40), np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), np.empty(0), 0, 255, cv2.NORM_MINMAX)
    shifts = [np.array([[1, 0, 0.7 * k], [0, 1, -0.4 * k]]) for k in range(count)]
    moved = [cv2.warpAffine(texture, shift, texture.shape[::-1]) for shift in shifts]
    return np.stack(moved)[:, 20 : 20 + height, 20 : 20 + width].clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernel as a library for this CPU, without fused products, which Numba's kernels do not have either."""
    if COMPILER is None:
        pytest.skip("there is no g++ here to build the kernel for the CPU")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.cpp").write_text(KERNEL)
    options = ["-O2", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-std=c++17", "-fPIC", "-shared", "-w"]
    options += [f"-D{name}={value}" for name, value in cuda_tvl1.constants().items()]
    options += [f"-I{HERE}", f"-I{cuda_tvl1.SOURCE.parent}"]
    built = folder / "kernel.so"
    subprocess.run([COMPILER, *options, folder / "kernel.cpp", "-o", built], check=True)
    library = ctypes.CDLL(str(built))
    library.launch.restype = None
    return library


@pytest.fixture
def emulate(kernel: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Emulate:
    """Make the backend's launches run on the CPU; returns the list of their numbers of blocks, which grows."""

    def prepare(blocks: int = 2, memory: int = 1 << 40, backwards: bool = False) -> list[int]:
        launched: list[int] = []

        def launch(device: torch.device, count: int, arguments: tuple[Any, ...]) -> None:
            launched.append(count)
            guarded(kernel, count, arguments, backwards)

        monkeypatch.setattr(cuda_tvl1, "launch", launch)
        monkeypatch.setattr(cuda_tvl1, "machine", lambda device: Machine(blocks, memory))
        return launched

    return prepare


def guarded(kernel: ctypes.CDLL, blocks: int, arguments: tuple[Any, ...], backwards: bool) -> None:
    """Launch with NaN in all memory; what is around each slot and around the result must still be NaN afterwards."""
    pyramid, _, slot, plane, queue, out = arguments
    step = slot.value + GUARD
    scratch = np.full(GUARD + blocks * step, np.nan, np.float32)
    height, width = pyramid.heights[0], pyramid.widths[0]
    fields = np.full(2 * GUARD + pyramid.pairs * height * width * 2, np.nan, np.float32)
    kernel.launch(
        blocks,
        ctypes.byref(pyramid),
        ctypes.c_void_p(scratch[GUARD:].ctypes.data),
        ctypes.c_longlong(step),
        plane,
        queue,
        ctypes.c_void_p(fields[GUARD:].ctypes.data),
        int(backwards),
    )
    assert np.isnan(scratch[:GUARD]).all()
    assert np.isnan(scratch[GUARD:].reshape(blocks, step)[:, slot.value :]).all()
    assert np.isnan(fields[:GUARD]).all() and np.isnan(fields[-GUARD:]).all()
    inside = fields[GUARD:-GUARD]
    ctypes.memmove(out, inside.ctypes.data, inside.nbytes)


def solve(frames: np.ndarray) -> np.ndarray:
    return cuda_tvl1.tv_l1(torch.from_numpy(frames)).numpy()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("size", WITH_A_LARGE_ONE)
def test_the_kernel_gives_the_bytes_of_numba(size: tuple[int, int], backwards: bool, emulate: Emulate) -> None:
    """One block, so that the second pair finds in its memory what the first has left there."""
    launched = emulate(blocks=1, backwards=backwards)
    frames = textured(3, *size)
    fields = solve(frames)
    assert fields.shape == (2, *size, 2) and fields.dtype == np.float32
    assert fields.tobytes() == numba_tvl1.flow(frames, workers=1).tobytes()
    assert launched == [1]


@pytest.mark.parametrize("size", WITH_A_LARGE_ONE)
def test_the_kernel_is_close_to_torch(size: tuple[int, int], emulate: Emulate) -> None:
    """torch_tvl1.py shares no line with the kernel: its roots, sums and medians are PyTorch's."""
    emulate()
    frames = textured(2, *size)
    error = np.sqrt(((solve(frames) - torch_tvl1.flow(frames)) ** 2).sum(-1))
    assert error.mean() < 0.05
    assert np.quantile(error, 0.99) < 0.5


def test_noise_gives_the_bytes_of_numba(emulate: Emulate) -> None:
    """Nothing matches in noise: iterations end at their greatest number."""
    emulate()
    frames = np.random.default_rng(5).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    assert solve(frames).tobytes() == numba_tvl1.flow(frames, workers=1).tobytes()


@pytest.mark.parametrize("brighter", [-130, 130])
@pytest.mark.parametrize("turned", [False, True])
def test_samples_far_outside_of_the_frame_are_zeros(brighter: int, turned: bool, emulate: Emulate) -> None:
    """A slope of grey that gets brighter or darker looks like one that moves by more than the whole frame."""
    emulate()
    slope = np.tile(np.arange(20) * 6 + (135 if brighter < 0 else 5), (6, 1))
    frames = np.stack([slope, slope + brighter]).astype(np.uint8)
    frames = frames.transpose(0, 2, 1) if turned else frames
    fields = solve(np.ascontiguousarray(frames))
    assert fields.tobytes() == numba_tvl1.flow(frames, workers=1).tobytes()
    assert np.abs(fields).max() > 8


def test_a_repeated_frame_does_not_move_beside_one_that_moves(emulate: Emulate) -> None:
    emulate(blocks=1)
    frames = textured(2, 17, 40)[[0, 0, 1, 1]]
    fields = solve(frames)
    assert fields.tobytes() == numba_tvl1.flow(frames, workers=1).tobytes()
    assert not fields[0].any() and fields[1].any() and not fields[2].any()


@pytest.mark.parametrize("blocks", [2, 3, 7])
def test_the_number_of_blocks_changes_no_byte(blocks: int, emulate: Emulate) -> None:
    launched = emulate(blocks=blocks)
    frames = textured(4, 8, 8)
    assert solve(frames).tobytes() == numba_tvl1.flow(frames, workers=1).tobytes()
    assert launched == [min(blocks, 3)]


def test_neither_batches_nor_a_second_launch_change_a_byte(emulate: Emulate, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = emulate()
    frames = textured(4, 8, 8)
    whole = solve(frames)
    assert solve(frames).tobytes() == whole.tobytes()
    monkeypatch.setattr(cuda_tvl1, "BATCH", 2)
    assert solve(frames).tobytes() == whole.tobytes()
    assert launched == [2, 2, 2, 1]


def test_memory_limits_the_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int]] = []

    def launch(device: torch.device, blocks: int, arguments: tuple[Any, ...]) -> None:
        taken.append((blocks, 4 * blocks * arguments[2].value))

    monkeypatch.setattr(cuda_tvl1, "launch", launch)
    frames = torch.zeros(10, 48, 64)
    for memory in (1, 5_000_000, 1 << 40):
        monkeypatch.setattr(cuda_tvl1, "machine", lambda device, memory=memory: Machine(6, memory))
        cuda_tvl1.tv_l1(frames)
    (fewest, _), (some, size), (most, _) = taken
    assert (fewest, most) == (1, 6)
    assert 1 < some < 6 and size <= cuda_tvl1.MEMORY * 5_000_000 < size // some * (some + 1)


def test_frames_that_32_bits_cannot_count_are_refused() -> None:
    frames = torch.zeros(1, 1, 1).expand(2, 10_000, 10_000)  # no memory is behind them
    with pytest.raises(FlowError, match="10000×10000 are too large"):
        cuda_tvl1.tv_l1(frames)


def no_bindings(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    """Pretend that this module of NVIDIA's bindings is not installed, or that all of them are."""
    for module in (flow, nvrtc):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == absent else object())


def test_it_says_what_is_missing_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    no_bindings(monkeypatch, "")
    with pytest.raises(FlowUnavailable, match="needs a CUDA device, and this is cpu: use numba") as caught:
        require("cuda", "cpu")
    assert caught.value.exit_code == 4
    no_bindings(monkeypatch, "cuda.bindings")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(FlowUnavailable, match="cuda-bindings"):
        require("cuda", "cuda:0")


@pytest.mark.parametrize("absent", ["cuda", "cuda.bindings"])
def test_auto_is_cuda_where_the_bindings_are(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no_bindings(monkeypatch, "")
    assert resolve("auto", "cuda:0") == resolve("auto", "cuda") == "cuda"
    assert resolve("auto", "cpu") == resolve("auto", "mps") == "numba"
    no_bindings(monkeypatch, absent)
    assert resolve("auto", "cuda:0") == "numba"


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("size", [(256, 340), (64, 80), (37, 53), (8, 8), (1, 1), (1, 40)])
def test_a_gpu_gives_the_bytes_of_numba_twice(size: tuple[int, int]) -> None:
    frames = textured(4, *size)
    fields = cuda_tvl1.flow(frames)
    assert fields.tobytes() == numba_tvl1.flow(frames).tobytes()
    assert cuda_tvl1.flow(frames).tobytes() == fields.tobytes()


@pytest.mark.gpu
@needs_gpu
def test_batches_change_no_byte_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = textured(200, 37, 53)  # more pairs than blocks
    whole = cuda_tvl1.flow(frames)
    assert whole.tobytes() == numba_tvl1.flow(frames).tobytes()
    monkeypatch.setattr(cuda_tvl1, "BATCH", 7)
    assert cuda_tvl1.flow(frames).tobytes() == whole.tobytes()

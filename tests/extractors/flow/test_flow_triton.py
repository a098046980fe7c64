"""The Triton kernels against the torch backend: interpreted where there is no GPU, and at full size where there is."""

import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

from extractors.flow import FLOWS, FlowUnavailable, resolve, torch_tvl1, tvl1

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
HEIGHT, WIDTH, PAIRS, BLOCK = 19, 37, 3, 256
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def test_the_kernels_interpreted() -> None:
    """Runs those below in a process of its own: the interpreter must be chosen before Triton is first imported."""
    if CUDA or INTERPRETED:
        pytest.skip("the kernels are tested directly")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "PASSED tests/extractors/flow/test_flow_triton.py::test_iterate[True]" in done.stdout


@pytest.fixture
def kernels() -> ModuleType:
    if not (CUDA or INTERPRETED):
        pytest.skip("no GPU; test_the_kernels_interpreted runs this")
    from extractors.flow import triton_kernels

    return triton_kernels


def planes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, PAIRS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


TILES = -(-HEIGHT * WIDTH // BLOCK)
GRID = (TILES, PAIRS)
SIZE = (HEIGHT, WIDTH, PAIRS, TILES, 1.0)


def progress(counts: list[int], error: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Iterations done, and sums of tiles that add up to `error`."""
    sums = torch.tensor(error, device=DEVICE)[:, None].repeat(1, TILES) / TILES
    return torch.tensor(counts, dtype=torch.int32, device=DEVICE), sums


@pytest.mark.parametrize("first", [True, False])
def test_iterate(kernels: ModuleType, first: bool) -> None:
    state, smooth, slopes = planes(2, 6), planes(2, seed=1), planes(4, seed=2)
    before = state.clone()
    count, partial = progress([0, 3, 4], [torch.inf, 2.0, 0.5])  # the last has converged
    count_out, partial_out = torch.zeros_like(count), torch.zeros_like(partial)
    kernels.iterate[GRID](
        *(state, smooth, slopes, partial, partial_out, count, count_out, *SIZE),
        FIRST=first, BLOCK=BLOCK, TILES=4, THETA=tvl1.THETA, TAUT=tvl1.TAUT, CLAMP=tvl1.CLAMP,
    )  # fmt: skip
    assert count_out.tolist() == [1, 4, 4]
    for pair, side in ((0, 0), (1, 1)):
        one = before[side, :, pair : pair + 1]
        field = smooth[:, pair : pair + 1] if first else one[:2]
        ix, iy, rho, inverse = slopes[:, pair : pair + 1]
        active = torch.ones(1, dtype=torch.bool, device=DEVICE)
        args = torch.stack([ix, iy]), inverse, rho, active
        field, dual, moved = torch_tvl1._iterate(field, one[2:].unflatten(0, (2, 2)), *args)
        expected = torch.cat([field, dual.flatten(0, 1)])[:, 0]
        torch.testing.assert_close(state[1 - side, :, pair], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(partial_out[pair].sum(), moved[0], rtol=1e-4, atol=0)
        assert (state[side, :, pair] == before[side, :, pair]).all()
    assert (state[:, :, 2] == before[:, :, 2]).all()
    assert (partial_out[2] == partial[2]).all()


def test_median(kernels: ModuleType) -> None:
    state, smooth = planes(2, 6), torch.zeros_like(planes(2))
    count, partial = progress([2, 5, 1], [3.0, 2.0, 0.9])
    kernels.median[(TILES, PAIRS, 2)](state, smooth, partial, count, *SIZE, BLOCK=BLOCK, TILES=4)
    for pair, side in ((0, 0), (1, 1)):
        assert (smooth[:, pair] == torch_tvl1.median(state[side, :2])[:, pair]).all()
    assert (smooth[:, 2] == 0).all()


def test_warp(kernels: ModuleType) -> None:
    state, first, second = planes(2, 6) * 5, planes(seed=1), planes(seed=2)
    state[0, 0, 0, 0, :3] = torch.tensor([1e6, -1e6, -3])
    slope_x, slope_y = (image.contiguous() for image in torch_tvl1.gradient(second))
    slopes = torch.zeros_like(planes(4))
    count, _ = progress([0, 1, 2], [0.0] * 3)
    kernels.warp[GRID](
        *(state, count, first, second, slope_x, slope_y, slopes, *SIZE[:3]),
        BLOCK=BLOCK, A=tvl1.CUBIC_A, FLAT=tvl1.FLAT,
    )  # fmt: skip
    field = torch.stack([state[0, :2, 0], state[1, :2, 1], state[0, :2, 2]], dim=1)
    warped, ix, iy = torch_tvl1.warp(torch.stack([second, slope_x, slope_y], dim=1), field).unbind(1)
    norm = ix * ix + iy * iy
    rho = warped - ix * field[0] - iy * field[1] - first
    torch.testing.assert_close(slopes[:3], torch.stack([ix, iy, rho]), atol=2e-5, rtol=1e-5)
    steep = norm > 1e-4  # elsewhere the inverse magnifies the last bit
    torch.testing.assert_close(slopes[3][steep], 1 / norm[steep], rtol=1e-3, atol=0)
    assert (slopes[3][norm == 0] == 0).all()


def frames(count: int, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x - 1.5 * i) / 3) + np.cos((y + 0.5 * i) / 4 + x / 9) for i in range(count)]
    return (np.stack(waves) * 55 + 127).round().astype(np.uint8)


@pytest.mark.slow
def test_the_whole_interpreted(kernels: ModuleType) -> None:
    grey = np.concatenate([frames(2, 20, 26), np.full((2, 20, 26), 9, np.uint8)])
    difference = np.abs(FLOWS["triton"](grey, device=DEVICE) - FLOWS["torch"](grey))
    assert difference.max() < 1e-2


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(FlowUnavailable, match="CUDA"):
        FLOWS["triton"](frames(2, 16, 16), device="cpu")


def test_auto_on_cuda_is_triton() -> None:
    assert resolve("auto", "cuda:0") == "triton"


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(256, 340), (64, 80), (37, 53), (8, 8), (1, 1), (1, 40)])
def test_on_a_gpu(size: tuple[int, int]) -> None:
    grey = np.concatenate([frames(4, *size), np.full((2, *size), 9, np.uint8)])
    fields = FLOWS["triton"](grey, device="cuda")
    again = FLOWS["triton"](grey, device="cuda")
    assert (fields == again).all()
    difference = np.abs(fields - FLOWS["numba"](grey))
    assert difference.mean() < 0.02
    assert np.quantile(difference, 0.99) < 0.2


@pytest.mark.gpu
def test_batches_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from extractors.flow import triton_tvl1

    grey = frames(8, 64, 80)
    together = FLOWS["triton"](grey, device="cuda")
    monkeypatch.setattr(triton_tvl1, "BATCH", 3)
    assert (FLOWS["triton"](grey, device="cuda") == together).all()

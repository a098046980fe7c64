"""Every flow backend: what it computes, what it refuses, and that it agrees with OpenCV."""

import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from extractors.flow import FLOWS, VERSIONS, FlowError, must_compile, resolve, version, warmup
from extractors.flow.tvl1 import levels, over_pairs

NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
BACKENDS = [pytest.param(name, marks=NEEDS_GPU if name == "cuda" else ()) for name in FLOWS]
# Those that are compared with OpenCV. jcdnet installs an OpenCV with TV-L1, but a machine with a GPU may bring its own.
NEEDS_OPTFLOW = pytest.mark.skipif(not hasattr(cv2, "optflow"), reason="this OpenCV has no TV-L1 to compare with")
COMPARED = {"cuda": [*NEEDS_GPU, NEEDS_OPTFLOW]}
OTHERS = [pytest.param(name, marks=COMPARED.get(name, ())) for name in FLOWS if name != "opencv"]


def moving(count: int, height: int, width: int, dx: int = 2, dy: int = -1) -> np.ndarray:
    """Frames (count, H, W) uint8 of a smooth random texture that moves by (dx, dy) pixels a frame."""
    margin = 4 * count
    noise = np.random.default_rng(3).random((height + 2 * margin, width + 2 * margin)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), np.empty(0), 0, 255, cv2.NORM_MINMAX)
    starts = [(margin - dy * i, margin - dx * i) for i in range(count)]
    return np.stack([texture[y : y + height, x : x + width] for y, x in starts]).round().astype(np.uint8)


def end_point_error(fields: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.sqrt(((fields - reference) ** 2).sum(-1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_translation(backend: str) -> None:
    fields = FLOWS[backend](moving(3, 48, 64), workers=1)
    assert fields.shape == (2, 48, 64, 2)
    assert fields.dtype == np.float32
    inside = fields[:, 6:-6, 6:-6]
    assert np.median(inside[..., 0]) == pytest.approx(2, abs=0.02)
    assert np.median(inside[..., 1]) == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(40, 50), (8, 8), (1, 1), (1, 30), (30, 2)])
def test_constant_frames_do_not_move(backend: str, size: tuple[int, int]) -> None:
    if backend == "opencv" and min(size) == 1:
        pytest.skip("OpenCV refuses frames of 1 px (test_tiny_frames)")
    frames = np.full((3, *size), 77, np.uint8)
    assert (FLOWS[backend](frames, workers=1) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_repeated_frame_does_not_move(backend: str) -> None:
    frame = moving(2, 40, 50)[:1]
    assert (FLOWS[backend](np.concatenate([frame, frame]), workers=1) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 3), (17, 19)])
def test_tiny_frames_give_finite_fields(backend: str, size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)
    if backend == "opencv" and min(size) == 1:
        with pytest.raises(FlowError, match="1 px"):
            FLOWS[backend](frames, workers=1)
        return
    fields = FLOWS[backend](frames, workers=1)
    assert fields.shape == (1, *size, 2)
    assert np.isfinite(fields).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("frames", "word"),
    [
        (np.zeros((3, 20, 20), np.float32), "float32"),
        (np.zeros((3, 20, 20), np.uint16), "uint16"),
        ([[1, 2]], "list"),
        (np.zeros((20, 20), np.uint8), "shape"),
        (np.zeros((3, 20, 20, 3), np.uint8), "shape"),
        (np.zeros((1, 20, 20), np.uint8), "two frames"),
        (np.zeros((0, 20, 20), np.uint8), "two frames"),
        (np.zeros((2, 0, 20), np.uint8), "1×1"),
    ],
)
def test_wrong_frames_are_refused(backend: str, frames: np.ndarray, word: str) -> None:
    with pytest.raises(FlowError, match=word):
        FLOWS[backend](frames)


@pytest.mark.parametrize("backend", BACKENDS)
def test_neither_the_company_of_a_pair_nor_the_workers_change_its_bytes(backend: str) -> None:
    frames = moving(4, 24, 36, dx=3)
    frames = np.concatenate([frames[:2], np.full((1, 24, 36), 90, np.uint8), frames[3:, ::-1]])
    singly = np.concatenate([FLOWS[backend](frames[i : i + 2], workers=1) for i in range(len(frames) - 1)])
    for workers in (1, 2, 5):
        together = FLOWS[backend](frames, workers=workers)
        assert together.tobytes() == singly.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_order_and_writability_do_not_matter(backend: str) -> None:
    frames = moving(2, 24, 32)
    plain = FLOWS[backend](frames, workers=1)
    fixed = frames.copy()
    fixed.flags.writeable = False
    strided = np.repeat(frames, 2, axis=2)[:, :, ::2]
    assert (FLOWS[backend](fixed, workers=1) == plain).all()
    assert (FLOWS[backend](strided, workers=1) == plain).all()
    assert (FLOWS[backend](np.asfortranarray(frames), workers=1) == plain).all()


def test_a_small_frame_does_not_spoil_opencv_for_a_large_one() -> None:
    large = moving(2, 64, 80)
    before = FLOWS["opencv"](large, workers=1)
    FLOWS["opencv"](moving(2, 16, 16), workers=1)
    assert (FLOWS["opencv"](large, workers=1) == before).all()


def test_opencv_gets_its_threads_back() -> None:
    before = cv2.getNumThreads()
    FLOWS["opencv"](moving(2, 16, 16))
    with pytest.raises(FlowError):
        FLOWS["opencv"](moving(2, 16, 16), workers=0)
    assert cv2.getNumThreads() == before


def test_opencv_without_the_contrib_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(FlowError, match="opencv-contrib-python-headless"):
        FLOWS["opencv"](moving(2, 16, 16))


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("size", [(64, 80), (37, 53), (16, 17), (8, 8), (20, 239), (60, 20)])
def test_parity_on_a_texture(backend: str, size: tuple[int, int]) -> None:
    frames = moving(3, *size, dx=1, dy=1)
    error = end_point_error(FLOWS[backend](frames, workers=1), FLOWS["opencv"](frames, workers=1))
    assert error.mean() < 0.02
    assert np.quantile(error, 0.99) < 0.2


@pytest.mark.parametrize("width", [340, pytest.param(1000, marks=pytest.mark.slow)])  # each compiles kernels of its own
def test_parity_of_a_wide_frame(width: int) -> None:
    frames = moving(2, 16, width)
    error = end_point_error(FLOWS["numba"](frames), FLOWS["opencv"](frames))
    assert error.mean() < 0.02
    assert np.quantile(error, 0.99) < 0.2


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("clip", ["BaseballPitch/BaseballPitch_001.mp4", "TennisStroke/TennisStroke_001.mp4"])
def test_parity_on_real_frames(backend: str, clip: str, corpus: Path) -> None:
    with av.open(str(corpus / clip)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][8:10]
    grey = np.stack([np.asarray(cv2.resize(frame, (170, 128), interpolation=cv2.INTER_AREA)) for frame in frames])
    error = end_point_error(FLOWS[backend](grey.astype(np.uint8)), FLOWS["opencv"](grey.astype(np.uint8)))
    assert error.mean() < 0.05
    assert np.quantile(error, 0.99) < 0.5


def test_names_and_versions() -> None:
    assert FLOWS.keys() == VERSIONS.keys()
    assert resolve("auto") == "numba"
    assert resolve("opencv", "cuda") == "opencv"
    assert version("auto") == version("numba") == "numba-1"
    assert version("opencv").startswith(f"opencv-{cv2.__version__}")
    with pytest.raises(FlowError, match="opencv"):
        resolve("farneback")


def test_only_numba_compiles_ahead() -> None:
    assert must_compile("numba", 30_000)
    assert not must_compile("opencv", 30_000)
    for name in FLOWS:
        warmup(name, 64)
        assert not must_compile(name, 64)


def test_nothing_heavy_is_imported_before_its_use() -> None:
    code = "import sys, extractors.flow; print([m for m in ('torch', 'numba', 'cv2', 'cuda') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pyramid_sizes() -> None:
    assert levels(256, 340) == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert levels(8, 8) == [(8, 8)]
    assert levels(20, 400) == [(20, 400), (16, 320)]
    assert len(levels(4000, 4000)) == 5


def test_an_error_in_a_worker_comes_out() -> None:
    def failing() -> None:
        raise RuntimeError("lost")

    for workers in (1, 2):
        with pytest.raises(RuntimeError, match="lost"):
            over_pairs(lambda: lambda pair: failing(), 4, workers)

"""The GPU's form of I3D against the plain one, and its kernels, run on the CPU by an emulator, against PyTorch."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from extractors import nvrtc
from extractors.backbones import i3d_cuda
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.i3d_cuda import Kernels, PlanarI3d, Torch

EMULATOR = Path(__file__).parents[1] / "flow" / "cuda_on_cpu.h"
ENTRIES = """
#include "{emulator}"
#include "{source}"
extern "C" void run_pool(int blocks, const int4 *source, int4 *target, Pool of) {{
    emulator::run(blocks, THREADS, [=] {{ pool(source, target, of); }});
}}
extern "C" void run_join(int blocks, const int4 *source, int4 *target, Join of) {{
    emulator::run(blocks, THREADS, [=] {{ join(source, target, of); }});
}}
"""
KINDS = (torch.float16, torch.bfloat16, torch.float32)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, ctypes.CDLL]:
    """The kernels as functions of this machine, for numbers of two bytes and of four."""
    if shutil.which("g++") is None:
        pytest.skip("the kernels are emulated where there is a C++ compiler (g++)")
    folder, found = tmp_path_factory.mktemp("kernels"), {}
    (folder / "all.cpp").write_text(ENTRIES.format(emulator=EMULATOR, source=i3d_cuda.SOURCE))
    for wide in (False, True):
        target = folder / f"wide{wide}.so"
        options = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-w", "-fPIC", "-shared", f"-DTHREADS={i3d_cuda.THREADS}"]
        options += ["-DWIDE=1"] if wide else []
        subprocess.run(["g++", *options, str(folder / "all.cpp"), "-o", str(target)], check=True)
        found[wide] = ctypes.CDLL(str(target))
    return found


@pytest.fixture
def emulated(libraries: dict[bool, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(source: Path, name: str, device: Any, blocks: int, arguments: Any, macros: nvrtc.Macros) -> None:
        getattr(libraries["WIDE" in dict(macros)], f"run_{name}")(blocks, *arguments)

    monkeypatch.setattr(nvrtc, "launch", launch)


def picture(*shape: int, kind: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((3, 3, 3), (1, 1, 1)), ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))],
    ids=str,
)
def test_pool(emulated: None, kind: torch.dtype, kernel: Any, stride: Any) -> None:
    for sizes in ((4, 6, 8), (5, 7, 3), (1, 1, 1)):
        x = picture(2, *sizes, 16, kind=kind)
        expected = Torch().pool(x, kernel, stride)
        assert torch.equal(Kernels().pool(x, kernel, stride), expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (7, 2), (1, 1)])
def test_join(emulated: None, kind: torch.dtype, kernel: int, stride: int) -> None:
    for frames in (4, 5, 1):
        whole = picture(2, frames, 3, 5, 40, kind=kind)
        for x in (whole, whole[..., 8:32]):
            assert torch.equal(Kernels().join(x, kernel, stride), Torch().join(x, kernel, stride))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gather(emulated: None, kind: torch.dtype) -> None:
    wide = picture(2, 3, 4, 2, 48, kind=kind)
    parts = [wide[..., :16], picture(2, 3, 4, 2, 8, kind=kind, seed=1), wide[..., 24:48]]
    assert torch.equal(Kernels().gather(parts), Torch().gather(parts))


def test_a_joined_window_is_the_frames_around_it() -> None:
    """Written out, for the layout that the weights expect: channel k·C + c is channel c of frame k of the window."""
    x = torch.arange(1.0, 13.0).reshape(1, 3, 1, 1, 4)  # 3 frames of 4 channels
    rows = Torch().join(x, 3, 1)[0, :, 0, 0].tolist()
    zeros, a, b, c = [0.0] * 4, [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]
    assert rows == [zeros + a + b, a + b + c, b + c + zeros]


@pytest.fixture(scope="module")
def net() -> Callable[[int], InceptionI3d]:
    def made(channels: int) -> InceptionI3d:
        torch.manual_seed(0)
        plain = InceptionI3d(channels)
        for module in plain.modules():
            if isinstance(module, torch.nn.Conv3d):  # so that the features are of a usual size
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.1)
        return plain.fold()

    return made


@pytest.mark.parametrize(("channels", "frames", "height", "width"), [(3, 16, 64, 64), (2, 10, 53, 70)])
@torch.inference_mode()
def test_it_is_the_same_network(
    net: Callable[[int], InceptionI3d], channels: int, frames: int, height: int, width: int
) -> None:
    plain = net(channels)
    x = torch.rand(2, channels, frames, height, width) * 2 - 1
    expected = plain(x)
    assert 1e-3 < expected.abs().max() < 1e3
    assert (PlanarI3d(plain)(x) - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.inference_mode()
def test_on_a_gpu(net: Callable[[int], InceptionI3d], kind: torch.dtype) -> None:
    plain = net(3)
    x = torch.rand(4, 3, 16, 224, 224) * 2 - 1
    expected = plain(x)
    planar = PlanarI3d(plain).cuda().to(kind)
    got = planar(x.cuda().to(kind)).cpu()
    assert torch.nn.functional.cosine_similarity(got, expected).min() > 0.999
    assert torch.equal(planar(x.cuda().to(kind)).cpu(), got)

"""What PyTorch is told about arithmetic: seen from inside a network, where a parameter that is left out would show."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from extractors import features
from extractors.backbones.engines import Way, choose
from extractors.backbones.registry import Backbone
from extractors.config import FeatureConfig
from extractors.exact import exact
from extractors.features import Extractor

CONFIG = FeatureConfig(length=4, stride=4, short_side=32, crop=32)
SEEN: list[dict[str, Any]] = []


def settings() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
        "allow_tf32": cudnn.allow_tf32,
        "convolution": cudnn.conv.fp32_precision,
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "autocast": torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32,
        "inference": torch.is_inference_mode_enabled(),
    }


class Witness(torch.nn.Module):
    """A network that notes how it is run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        SEEN.append(settings())
        return x.float().mean(dim=(3, 4)).flatten(1)


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        weights, width, graph = "stub", 8, False

        @staticmethod
        def load() -> torch.nn.Module:
            return Witness()

    monkeypatch.setattr(features.registry, "find", lambda *_: Found)
    SEEN.clear()


EXACT = {
    "enabled": True,
    "benchmark": False,
    "deterministic": True,
    "allow_tf32": False,
    "convolution": "ieee",
    "matmul": "ieee",
    "inference": True,
}


@pytest.mark.parametrize("before", [{}, {"enabled": False, "benchmark": True, "deterministic": True}], ids=str)
def test_a_network_runs_with_cudnn_and_without_tf32(
    witness: None, monkeypatch: pytest.MonkeyPatch, before: dict[str, bool]
) -> None:
    for name, value in before.items():
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    outside = settings()
    extractor = Extractor(CONFIG, ("rgb", "flow"))
    extractor.forward(torch.zeros(1, 3, 4, 32, 32), "rgb")
    extractor.forward(torch.zeros(1, 2, 4, 32, 32), "flow")
    assert list(SEEN) == [EXACT | {"autocast": torch.float32}] * 2
    assert {k: v for k, v in settings().items() if k != "matmul"} == {k: v for k, v in outside.items() if k != "matmul"}


def test_matrix_products_are_exact_too_and_what_stood_before_comes_back() -> None:
    """The environment of NVIDIA's containers allows TF32 in them (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE)."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with exact():
            assert settings()["matmul"] == "ieee"
        assert settings()["matmul"] == "tf32"
    finally:
        matmul.fp32_precision = before


def test_threads_that_overlap_do_not_switch_it_off_for_one_another() -> None:
    """The settings are the process's: the one that leaves first must not put back what stood before."""
    before = settings()
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with exact():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(60)
    with exact():
        leave.set()
        thread.join()
        inside = settings()
    assert inside["enabled"] and inside["deterministic"] and not inside["allow_tf32"]
    after = settings()
    assert (after["allow_tf32"], after["deterministic"]) == (before["allow_tf32"], before["deterministic"])


def test_an_error_inside_leaves_nothing_switched() -> None:
    before = settings()["deterministic"]
    with pytest.raises(ZeroDivisionError), exact():
        raise ZeroDivisionError
    assert settings()["deterministic"] == before


# --- the precision of each stream -------------------------------------------------------------------------------------


def test_both_streams_are_in_float16_on_a_gpu() -> None:
    stub = Backbone(Witness, 8, "stub")
    found = {(s, d): choose("auto", s, stub, d) for s in ("rgb", "flow") for d in ("cpu", "cuda", "cuda:1")}
    assert {way.engine for way in found.values()} == {"torch"}
    assert {key: way.dtype for key, way in found.items()} == {
        ("rgb", "cpu"): "float32",
        ("rgb", "cuda"): "float16",
        ("rgb", "cuda:1"): "float16",
        ("flow", "cpu"): "float32",
        ("flow", "cuda"): "float16",
        ("flow", "cuda:1"): "float16",
    }
    for asked in ("float32", "float16", "bfloat16"):  # what is asked for holds for both
        assert {choose(asked, s, stub, "cuda") for s in ("rgb", "flow")} == {Way("torch", asked)}


def test_each_streams_settings_name_its_own_precision(witness: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.engines, "gpu_batch", lambda device: 4)
    config = replace(CONFIG, flow="numba")
    found = Extractor(config, ("rgb", "flow"), device="cuda").settings()
    assert {name: found[name]["dtype"] for name in found} == {"rgb": "float16", "flow": "float16"}
    found = Extractor(replace(config, precision="bfloat16"), ("rgb", "flow"), device="cuda").settings()
    assert {name: found[name]["dtype"] for name in found} == {"rgb": "bfloat16", "flow": "bfloat16"}


def test_each_streams_network_runs_in_its_own_precision(witness: None) -> None:
    extractor = Extractor(replace(CONFIG, precision="bfloat16"), ("rgb", "flow"))
    extractor.ways["flow"] = Way("torch", "float32")
    extractor.forward(torch.zeros(1, 3, 4, 32, 32), "rgb")
    extractor.forward(torch.zeros(1, 2, 4, 32, 32), "flow")
    assert [seen["autocast"] for seen in SEEN] == [torch.bfloat16, torch.float32]


@pytest.mark.gpu
def test_two_passes_on_a_gpu_give_the_same_bytes(corpus: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    clip = corpus / "GolfSwing" / "GolfSwing_001.mp4"
    one, other = (Extractor(FeatureConfig(), ("rgb", "flow"), device="cuda").chunk(clip) for _ in range(2))
    assert one.rgb.tobytes() == other.rgb.tobytes()
    assert one.flow.tobytes() == other.flow.tobytes()

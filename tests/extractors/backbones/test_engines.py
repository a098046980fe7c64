"""OpenVINO beside PyTorch: the same network, the right choice for each CPU, and nothing sent to anyone."""

import json
import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extractors.backbones import engines, graph, registry, runtime, weights
from extractors.backbones.engines import OPENVINO, TORCH, Way, choose, require
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.registry import Backbone
from extractors.config import FeatureConfig, Stretch
from extractors.features import Extractor
from support.errors import EnvironmentMissing, UsageError

ROOT = Path(__file__).parents[3]
needs_openvino = pytest.mark.skipif(not runtime.available(), reason="no OpenVINO on this machine")
PUBLISHED = Backbone(torch.nn.Identity, 1024, engines._ranges()[0], graph=True)
OTHER = Backbone(torch.nn.Identity, 1024, "sha256:1234", graph=True)
R50 = Backbone(torch.nn.Identity, 2048, "sha256:5678")


def network(channels: int) -> InceptionI3d:
    """A network with random weights, as spread as the published ones, so that no layer's output dies."""
    torch.manual_seed(0)
    net = InceptionI3d(channels)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.bias, -0.2, 0.4)
            torch.nn.init.uniform_(module.running_var, 0.1, 0.4)
    return net.fold()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@needs_openvino
@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize("size", [(16, 64, 64), (16, 40, 72), (8, 33, 47)])
def test_the_graph_is_the_network(channels: int, size: tuple[int, int, int]) -> None:
    """PyTorch's own forward pass, with its explicit padding, is the oracle; odd sizes show a zero on the wrong side."""
    net = network(channels)
    x = torch.rand(2, channels, *size) * 2 - 1
    with torch.inference_mode():
        expected = net(x).numpy()
        found = engines.Network(net, Way(OPENVINO, "float32"), 1)(x).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@needs_openvino
@pytest.mark.skipif(runtime.VNNI not in runtime.abilities(), reason="without VNNI, sums of int8 products saturate")
def test_an_int8_layer_rounds_as_its_definition_says() -> None:
    """One layer in int8: the input in 255 steps of its range, the weights in 127 of each channel's largest."""
    net = network(3)
    unit = net.Conv3d_1a_7x7
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 2, 8, 8)).astype(np.float32)
    low, high = -1.0078740119934082, 1.0
    builder = graph._Builder({"Conv3d_1a_7x7": [low, high]})
    ov, ops = runtime.openvino(), runtime.openvino().opset13
    pixels = ops.parameter(list(x.shape), np.float32)
    model = ov.Model([builder.unit("Conv3d_1a_7x7", unit, builder.rounded("Conv3d_1a_7x7", pixels))], [pixels], "one")
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = ov.Core().compile_model(model, "CPU", options)(x)[0]
    step = (high - low) / 255
    steps = np.clip(np.rint((x.astype(np.float64) - low) / step), 0, 255) * step + low
    weight = unit.conv3d.weight.detach().double().numpy()
    scale = np.abs(weight).max(axis=(1, 2, 3, 4), keepdims=True) / 127
    whole = np.rint(weight / scale) * scale
    with torch.inference_mode():
        padded = torch.nn.functional.pad(torch.from_numpy(steps), (2, 3, 2, 3, 2, 3))
        expected = torch.nn.functional.conv3d(padded, torch.from_numpy(whole), unit.conv3d.bias.double(), 2).relu()
    # A value on the edge between two steps may fall to either side: one step of one weight.
    np.testing.assert_allclose(found, expected.numpy(), atol=2.5 * float(scale.max()) * 1.01)
    assert np.abs(found - expected.numpy()).mean() < 1e-3


# --- the choice -------------------------------------------------------------------------------------------------------

BOTH, NONE = {runtime.VNNI, runtime.BF16}, set[str]()
CHOICES = [
    ("auto", "rgb", PUBLISHED, BOTH, Way(OPENVINO, "int8+bfloat16")),
    ("auto", "rgb", PUBLISHED, {runtime.VNNI}, Way(OPENVINO, "int8+float32")),
    ("auto", "rgb", PUBLISHED, {runtime.BF16}, Way(OPENVINO, "bfloat16")),
    ("auto", "rgb", PUBLISHED, NONE, Way(OPENVINO, "float32")),
    ("auto", "rgb", OTHER, BOTH, Way(OPENVINO, "bfloat16")),
    ("auto", "flow", OTHER, {runtime.VNNI}, Way(OPENVINO, "float32")),
    ("auto", "rgb", R50, BOTH, Way(TORCH, "float32")),
    ("int8", "rgb", PUBLISHED, BOTH, Way(OPENVINO, "int8+bfloat16")),
    ("int8", "flow", OTHER, BOTH, Way(OPENVINO, "bfloat16")),
    ("float32", "rgb", PUBLISHED, BOTH, Way(TORCH, "float32")),
    ("bfloat16", "rgb", PUBLISHED, BOTH, Way(OPENVINO, "bfloat16")),
    ("bfloat16", "rgb", PUBLISHED, NONE, Way(TORCH, "bfloat16")),
]


@pytest.mark.parametrize(("asked", "stream", "backbone", "can", "way"), CHOICES)
def test_the_choice_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, asked: str, stream: str, backbone: Backbone, can: set[str], way: Way
) -> None:
    monkeypatch.setattr(runtime, "available", lambda: True)
    monkeypatch.setattr(runtime, "abilities", lambda: frozenset(can))
    assert choose(asked, stream, backbone, "cpu") == way


def test_without_openvino_pytorch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available", lambda: False)
    assert choose("auto", "rgb", PUBLISHED, "cpu") == Way(TORCH, "float32")
    assert choose("bfloat16", "rgb", PUBLISHED, "cpu") == Way(TORCH, "bfloat16")
    with pytest.raises(EnvironmentMissing, match=r"needs OpenVINO, .* use --precision float32"):
        choose("int8", "rgb", PUBLISHED, "cpu")


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available", lambda: True)
    monkeypatch.setattr(runtime, "abilities", lambda: frozenset({runtime.BF16}))
    with pytest.raises(EnvironmentMissing, match="a CPU with VNNI, and this one has none; use --precision float32"):
        choose("int8", "rgb", PUBLISHED, "cpu")
    with pytest.raises(UsageError, match="measured for the published RGB weights"):
        choose("int8", "rgb", OTHER, "cpu")
    with pytest.raises(UsageError, match="int8 is for CPUs"):
        choose("int8", "rgb", PUBLISHED, "cuda")
    require(Way(OPENVINO, "bfloat16"), OTHER)
    monkeypatch.setattr(runtime, "abilities", lambda: frozenset())
    with pytest.raises(EnvironmentMissing, match="a CPU with BF16"):
        require(Way(OPENVINO, "bfloat16"), OTHER)


@pytest.mark.parametrize(
    ("limit", "can"),
    [
        ("", {"VNNI", "BF16"}),
        ("ALL", {"VNNI", "BF16"}),
        ("avx2", NONE),
        ("AVX512_CORE", NONE),
        ("AVX512_CORE_VNNI", {"VNNI"}),
        ("AVX2_VNNI", NONE),
        ("AVX512_CORE_BF16", {"VNNI", "BF16"}),
    ],
)
def test_a_limit_of_onednn_is_followed(monkeypatch: pytest.MonkeyPatch, limit: str, can: set[str]) -> None:
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True, "avx512_bf16": True}, raising=False
    )
    assert runtime.abilities() == can


def test_settings_tell_the_engine() -> None:
    torch_way, int8 = Way(TORCH, "float32").settings(), Way(OPENVINO, "int8+bfloat16").settings()
    assert torch_way == {"dtype": "float32", "engine": "torch"}
    assert int8["dtype"] == "int8+bfloat16" and int8["engine"].startswith("openvino-")
    assert int8["int8"] == engines.RANGES_SHA256[:16]
    assert Way(OPENVINO, "float32").settings() != torch_way
    assert pickle.loads(pickle.dumps(Way(OPENVINO, "float32"))) == Way(OPENVINO, "float32")


def test_the_shipped_ranges_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    identity, ranges = engines._ranges()
    assert identity == f"sha256:{weights.WEIGHTS['i3d-rgb'].sha256}"
    assert len(ranges) == 22 and all(low < high for low, high in ranges.values())
    damaged = tmp_path / "ranges.json"
    damaged.write_text(json.dumps({"weights": identity, "ranges": {}}))
    engines._ranges.cache_clear()
    monkeypatch.setattr(engines, "RANGES", damaged)
    with pytest.raises(weights.WeightsError, match=r"not the file that was measured .*; install jcdnet again\."):
        engines.int8_ranges()
    monkeypatch.setattr(engines, "RANGES", tmp_path / "none.json")
    with pytest.raises(weights.WeightsError, match="cannot be read"):
        engines.int8_ranges()
    engines._ranges.cache_clear()


# --- the real network -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(corpus: Path) -> Path:
    if weights.find("i3d-rgb") is None:
        pytest.skip("no published RGB weights")
    return corpus / "GolfSwing" / "GolfSwing_001.mp4"


@pytest.mark.parametrize(
    ("has", "limit", "slow"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, "", False),
        ({"architecture": "x86_64", "avx512_f": True}, "AVX512_CORE", False),
        ({"architecture": "x86_64", "avx512_f": True}, "AVX2", True),
        ({"architecture": "x86_64", "avx512_f": False}, "", True),
        ({"architecture": "aarch64"}, "", False),
        ({}, "", False),  # an old PyTorch, which does not say
    ],
)
def test_bfloat16_is_refused_where_the_cpu_emulates_it(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, Any], limit: str, slow: bool
) -> None:
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    refused = pytest.raises(UsageError, match="lacks AVX-512; use --precision auto") if slow else nullcontext()
    with refused:
        engines.check("bfloat16", "cpu")
    engines.check("float32", "cpu")
    engines.check("bfloat16", "cuda")
    # A worker that was sent this way by another machine says so before it works.
    refused = pytest.raises(EnvironmentMissing, match="AVX-512; use --precision float32") if slow else nullcontext()
    with refused:
        require(Way(TORCH, "bfloat16"), PUBLISHED)
    require(Way(TORCH, "float32"), PUBLISHED)
    require(Way(TORCH, "bfloat16"), PUBLISHED, "cuda")


@needs_openvino
@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_a_real_clip_is_near_to_float32_and_the_same_however_it_is_cut(clip: Path, precision: str) -> None:
    if precision == "bfloat16" and runtime.emulates_bfloat16():
        pytest.skip("bfloat16 takes minutes on this CPU")
    part = Stretch(end=3.0)  # five snippets
    exact = Extractor(FeatureConfig(precision="float32")).chunk(clip, part)
    found = Extractor(FeatureConfig(precision=precision)).chunk(clip, part)
    assert exact.rgb is not None and found.rgb is not None
    # The least over 700 snippets is .9969 (benchmarks/README.md).
    assert cosines(exact.rgb, found.rgb).min() >= 0.996
    with_two = Extractor(FeatureConfig(precision=precision), threads=2)
    with_two.batch = 3
    parts = list(with_two.parts(clip, part, size=2))
    assert np.concatenate([part.rows["rgb"] for part in parts]).tobytes() == found.rgb.tobytes()


IN_ANOTHER_PROCESS = """
import json, socket, sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
def refuse(*_):
    raise AssertionError("something connects")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import numpy as np
from extractors.config import FeatureConfig, Stretch
from extractors.features import Extractor
extractor = Extractor(FeatureConfig())
found = extractor.chunk(Path(sys.argv[1]), Stretch(end=2.0))
np.save(sys.argv[2], found.rgb)
reported = [name for name in sys.modules if name.startswith(("openvino_telemetry", "openvino.tools.ovc"))]
print(json.dumps([found.settings["rgb"], reported]))
"""


@needs_openvino
@pytest.mark.parametrize("limit", ["", "AVX2"])
def test_nothing_is_sent_or_written_and_an_old_cpu_takes_float32(clip: Path, tmp_path: Path, limit: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")} | {
        "HOME": str(home),
        "ONEDNN_MAX_CPU_ISA": limit,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(clip), str(tmp_path / "rgb.npy")],
        env=environment, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings, reported = json.loads(done.stdout)
    assert settings["engine"] == runtime.version()
    assert reported == []
    assert [path for path in home.rglob("*") if path.is_file() and "openvino" in path.as_posix().lower()] == []
    assert not (home / "intel").exists()
    if limit:
        assert settings["dtype"] == "float32"
        exact = Extractor(FeatureConfig(precision="float32")).chunk(clip, Stretch(end=2.0))
        np.testing.assert_allclose(np.load(tmp_path / "rgb.npy"), exact.rgb, atol=1e-5)


@needs_openvino
def test_other_weights_run_without_int8(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "weights.pt"
    published = weights.find("i3d-rgb")
    assert published is not None
    torch.save(registry.i3d_state(published), copy)
    way = Extractor(FeatureConfig(), weights={"rgb": copy}).ways["rgb"]
    assert way.engine == OPENVINO and not way.is_int8

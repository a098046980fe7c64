"""Which engine computes a stream's network, and in which precision; and the network of OpenVINO.

On a CPU OpenVINO runs I3D faster than PyTorch, and on CUDA its form of 2-D convolutions does (i3d_cuda.py;
benchmarks/README.md has the figures). Bytes differ between engines, and from one version of OpenVINO to the next, so
the engine is part of the feature settings.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extractors.backbones import runtime
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.registry import Backbone
from extractors.backbones.weights import WeightsError
from support.errors import EnvironmentMissing, UsageError

TORCH, OPENVINO, PLANAR = "torch", "openvino", "planar"
PLANAR_VERSION = 1  # raise it with every change of a result
INT8 = "int8"
RANGES = Path(__file__).with_name("i3d_rgb_int8.json")
RANGES_SHA256 = "e4bf81560085f6c3f6b2eb79a826ba297ebbbe23d31e4f870465e704cec6518c"
SHAPES = 2  # of inputs for which a compiled graph is kept
# Snippets that OpenVINO computes at once. Two threads that share one snippet wait for each other, and spin meanwhile:
# beside a decoder on the same two cores this took a quarter more CPU time (benchmarks/README.md).
AT_ONCE = 2
# Bytes of GPU memory; a snippet in the networks and in flow takes well under this much.
SNIPPET_BYTES = 512 << 20
MOST_SNIPPETS = 32  # 512 frame pairs of flow at once; a larger batch would only slow down short videos


_SLOW_BFLOAT16 = "bfloat16 takes minutes on this CPU, which lacks AVX-512; use --precision "


@dataclass(frozen=True)
class Way:
    """How a network is computed."""

    engine: str
    """torch, openvino, or planar: I3D as 2-D convolutions, on CUDA"""
    dtype: str
    """float32, float16, bfloat16, int8+bfloat16 or int8+float32; behind the + stands that of the other layers"""

    def settings(self) -> dict[str, str]:
        """What decides the numbers, for the feature settings."""
        versions = {OPENVINO: runtime.version, PLANAR: lambda: f"{PLANAR}-{PLANAR_VERSION}"}
        engine = versions[self.engine]() if self.engine in versions else TORCH
        return {"dtype": self.dtype, "engine": engine} | ({INT8: RANGES_SHA256[:16]} if self.is_int8 else {})

    @property
    def is_int8(self) -> bool:
        """Whether some layers are in int8."""
        return self.dtype.startswith(f"{INT8}+")

    @property
    def rest(self) -> str:
        """The precision of the layers that are not in int8."""
        return self.dtype.rpartition("+")[2]

    @property
    def autocast(self) -> torch.dtype:
        """What PyTorch's autocast should use; float32: nothing."""
        found: torch.dtype = getattr(torch, self.dtype) if self.engine == TORCH else torch.float32
        return found

    def __str__(self) -> str:
        names = {TORCH: "PyTorch", OPENVINO: "OpenVINO", PLANAR: "PyTorch and our own kernels"}
        return f"{self.dtype.replace('+', ' and ')} ({names[self.engine]})"


def check(asked: str, device: str) -> None:
    """Check that a precision does not take minutes a snippet on this device.

    Raises:
        UsageError: it is one that this CPU emulates.
    """
    if torch.device(device).type != "cpu":
        return
    if asked == "float16":  # 189 s for two snippets (benchmarks/precision.py)
        raise UsageError("float16 on a CPU takes minutes a snippet; use --precision auto or float32.")
    if asked == "bfloat16" and runtime.emulates_bfloat16():
        raise UsageError(f"{_SLOW_BFLOAT16}auto or float32.")


def choose(asked: str, stream: str, backbone: Backbone, device: str) -> Way:
    """The way for a stream: `asked`, or for `auto` the fastest that this device has and that holds.

    Raises:
        UsageError, EnvironmentMissing: this network or this machine has no int8.
    """
    if torch.device(device).type != "cpu":
        if asked == INT8:
            raise UsageError(f"--precision int8 is for CPUs, and this is {device}; use --precision auto.")
        from extractors import nvrtc

        # With the same pixels, the least cosine of float16 to float32 is .99999 in both streams (H200).
        own = torch.device(device).type == "cuda" and backbone.graph and nvrtc.is_here()
        return Way(PLANAR if own else TORCH, "float16" if asked == "auto" else asked)
    ready = runtime.available() and backbone.graph
    can = runtime.abilities() if ready else frozenset()
    quick = "bfloat16" if runtime.BF16 in can else "float32"
    if asked == INT8 and stream == "rgb":
        way = Way(OPENVINO, f"{INT8}+{quick}")
        require(way, backbone)
        return way
    if asked in ("auto", INT8):
        if not ready:
            return Way(TORCH, "float32")
        return Way(OPENVINO, f"{INT8}+{quick}" if runtime.VNNI in can and _has_int8(backbone) else quick)
    return Way(OPENVINO if asked == quick == "bfloat16" else TORCH, asked)


def require(way: Way, backbone: Backbone, device: str = "cpu") -> None:
    """Check that this machine can go this way, which another one may have chosen.

    Raises:
        UsageError: the network has no int8.
        EnvironmentMissing: the machine lacks OpenVINO, or its CPU the instructions, or the precision would take
            minutes a snippet here.
    """
    if way.is_int8 and not _has_int8(backbone):
        raise UsageError(
            "--precision int8 was measured for the published RGB weights, and these are others; use --precision auto."
        )
    if way == Way(TORCH, "bfloat16") and torch.device(device).type == "cpu" and runtime.emulates_bfloat16():
        raise EnvironmentMissing(f"{_SLOW_BFLOAT16}float32.")
    if way.engine != OPENVINO:
        return
    if not runtime.available():
        raise EnvironmentMissing(
            f"{way.dtype} needs OpenVINO, which this machine does not have; pip install openvino (x86-64 alone), or "
            "use --precision float32."
        )
    can = runtime.abilities()
    needed = {runtime.VNNI} if way.is_int8 else set()
    needed |= {runtime.BF16} if way.rest == "bfloat16" else set()
    if lacking := sorted(needed - can):
        raise EnvironmentMissing(
            f"{way.dtype} needs a CPU with {' and '.join(lacking)}, and this one has none; use --precision float32."
        )


def load(way: Way, backbone: Backbone, threads: int | None = None) -> nn.Module:
    """The network, ready: (B, C, L, H, W) in [-1, 1] -> (B, D), as InceptionI3d.

    threads: for OpenVINO; default: PyTorch's number.
    """
    net = backbone.load()
    if way.engine == TORCH:
        return net
    assert isinstance(net, InceptionI3d)
    if way.engine == PLANAR:
        from extractors.backbones.i3d_cuda import PlanarI3d

        return PlanarI3d(net).to(getattr(torch, way.dtype))
    return Network(net, way, threads or torch.get_num_threads())


class Network(nn.Module):
    """I3D in OpenVINO, for inputs of any size."""

    def __init__(self, net: InceptionI3d, way: Way, threads: int) -> None:
        super().__init__()
        hint = {"float32": "f32", "bfloat16": "bf16"}[way.rest]
        self._at_once = min(threads, AT_ONCE)
        # No thread is bound to a core: several workers would all be bound to the same ones. Compiling takes .2 to .5 s,
        # so its results are not kept on the disk.
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self._at_once,
            "ENABLE_CPU_PINNING": False,
        }
        ranges = int8_ranges() if way.is_int8 else None
        from extractors.backbones import graph  # it imports OpenVINO

        self._build: Callable[[tuple[int, ...], int], Any] = lambda shape, n: graph.build(net, shape, ranges, n)
        self._core = runtime.openvino().Core()
        self._requests: dict[tuple[tuple[int, ...], int], list[Any]] = {}

    def forward(self, x: Tensor, together: int = 1) -> Tensor:
        """(B, C, L, H, W) in [-1, 1] -> (B together, 1024), as InceptionI3d.

        AT_ONCE inputs are computed at a time, and each has the bytes that it has alone.
        """
        requests = self._requests_for((1, *x.shape[1:]), together)
        pixels = x.float().contiguous().numpy()
        rows = []
        for first in range(0, len(pixels), len(requests)):
            running = list(zip(requests, pixels[first : first + len(requests)], strict=False))
            for request, one in running:
                request.start_async([one[None]], share_inputs=True)
            for request, _ in running:
                request.wait()
                rows.append(torch.from_numpy(request.get_output_tensor().data.copy()))
        return torch.cat(rows)

    def _requests_for(self, shape: tuple[int, ...], together: int) -> list[Any]:
        key = shape, together
        if key not in self._requests:
            while len(self._requests) >= SHAPES:
                self._requests.pop(next(iter(self._requests)))
            compiled = self._core.compile_model(self._build(*key), "CPU", self._options)
            self._requests[key] = [compiled.create_infer_request() for _ in range(self._at_once)]
        return self._requests[key]


@cache
def _ranges() -> tuple[str, Mapping[str, Any]]:
    """The weights that the shipped ranges belong to, and the ranges.

    Raises:
        WeightsError: the file is missing, or not the one that was measured.
    """
    try:
        data = RANGES.read_bytes()
    except OSError as error:
        raise WeightsError(f"{RANGES}: cannot be read ({error.strerror}); install jcdnet again.") from error
    if hashlib.sha256(data).hexdigest() != RANGES_SHA256:
        raise WeightsError(f"{RANGES}: not the file that was measured (its hash differs); install jcdnet again.")
    made = json.loads(data)
    return made["weights"], made["ranges"]


def int8_ranges() -> Mapping[str, Any]:
    """The range of each int8 layer's input of the published RGB network (benchmarks/quantise_i3d.py)."""
    return _ranges()[1]


def _has_int8(backbone: Backbone) -> bool:
    return backbone.graph and backbone.weights == _ranges()[0]


def gpu_batch(device: str) -> int:
    """Snippets in a batch: a power of two that fits into the device's free memory, between 1 and MOST_SNIPPETS."""
    if torch.device(device).type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return 1 << int(math.log2(min(max(free // SNIPPET_BYTES, 1), MOST_SNIPPETS)))

"""Networks that turn a snippet into a feature vector, with their weights, ready for inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from extractors.backbones import weights
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.weights import WeightsError
from support.errors import UsageError
from support.files import sha256
from support.paths import program


@dataclass(frozen=True)
class Backbone:
    """A network for one stream, and the identity of its weights, which are read by `load` alone."""

    load: Callable[[], nn.Module]
    """the network in eval mode: (B, 3 for rgb or 2 for flow, L, H, W) in [-1, 1] -> (B, D)"""
    width: int
    """D"""
    weights: str
    """identity of the weights: part of the feature settings, the cache key and every checkpoint"""
    graph: bool = False
    """whether it is Inception-I3D, which OpenVINO can compute (graph.py), and which can see several snippets at once"""


def find(name: str, stream: str, path: Path | None = None, together: int = 1) -> Backbone:
    """Backbone `name` for `stream` ("rgb" or "flow"), with the weights at `path` or the published ones.

    Raises:
        UsageError: it cannot see several snippets `together`.
        WeightsError: unknown backbone, stream it does not have, or weights that are missing; on `load`, weights
            that do not fit.
    """
    if name not in BACKBONES:
        raise WeightsError(f"unknown backbone {name!r}; there are: {', '.join(BACKBONES)}.")
    found = BACKBONES[name](stream, path)
    if together > 1 and not found.graph:
        raise UsageError(f"the backbone {name} sees one snippet at a time; use --together 1, or --backbone i3d.")
    return found


def _fill(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load `state` into `net`; only the counters that old versions of PyTorch lack may be missing."""
    try:
        result = net.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path}: tensors of other shapes than this network's: {_last(error)}") from error
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        odd = (missing or result.unexpected_keys)[0]
        raise WeightsError(f"{path}: not weights of this network ({odd} is {'missing' if missing else 'unknown'}).")


def _last(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _i3d(stream: str, path: Path | None) -> Backbone:
    """Inception-I3D. Without published flow weights, the flow network is made from the RGB network."""
    own = path or weights.find(f"i3d-{stream}")
    source = own or _published_rgb()
    identity = _identity(source)

    def load() -> nn.Module:
        net = InceptionI3d(channels=3 if stream == "rgb" else 2)
        state = i3d_state(source)
        _fill(net, state if own else weights.inflate_flow(state), source)
        return net.fold().to(memory_format=torch.channels_last_3d)

    return Backbone(load, 1024, identity if own else f"inflated from rgb {identity}", graph=True)


def i3d_head(path: Path | None = None) -> tuple[Tensor, Tensor, str]:
    """The Kinetics head of the RGB network: rows (400, 1024), biases (400,), and the identity of its weights.

    Raises:
        WeightsError: the weights are missing or have no head.
    """
    source = path or _published_rgb()
    identity, state = _identity(source), i3d_state(source)
    try:
        return state["logits.conv3d.weight"].flatten(1), state["logits.conv3d.bias"], identity
    except KeyError as error:
        raise WeightsError(f"{source}: not weights of this network ({error} is missing).") from error


def _published_rgb() -> Path:
    path = weights.find("i3d-rgb")
    if path is None:
        raise WeightsError(
            f"the I3D weights i3d-kinetics-400.ckpt are not on this machine; run `{program()} models fetch i3d-rgb` "
            "(47 MB), or name the file with --rgb-weights."
        )
    return path


def _identity(path: Path) -> str:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; check the path.")
    return f"sha256:{sha256(path)}"


def i3d_state(path: Path) -> dict[str, Tensor]:
    """State dict of an I3D file: DeepMind's numbers as arrays (.ckpt), or a PyTorch checkpoint.

    Raises:
        WeightsError: it is neither.
    """
    if path.suffix == ".ckpt":
        arrays = weights.load_numpy_pickle(path)
        try:
            return weights.from_jax(arrays)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
    return weights.load_torch(path)


class _R50(nn.Module):
    """pytorchvideo's I3D-R50 without its projection: mean over time and space, 2048-d."""

    def __init__(self) -> None:
        super().__init__()
        # Imported here, since it is slow. Only pytorchvideo.models works with current versions of torchvision.
        from pytorchvideo.models.hub.resnet import i3d_r50

        blocks = i3d_r50(pretrained=False).blocks
        blocks[-1] = nn.Identity()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, L, H, W) in [-1, 1] -> (B, 2048)."""
        x = ((x + 1) / 2 - 0.45) / 0.225  # the normalisation of pytorchvideo's training
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3, 4))


def _i3d_r50(stream: str, path: Path | None) -> Backbone:
    """I3D-R50 of pytorchvideo, for RGB only; no package has its weights, so a path must be given."""
    if stream != "rgb":
        raise WeightsError("the backbone i3d_r50 has no flow stream; use --streams rgb.")
    if path is None:
        raise WeightsError(
            "the backbone i3d_r50 needs its weights by path: --rgb-weights I3D_8x8_R50.pyth "
            "(from pytorchvideo's model zoo)."
        )
    identity, source = _identity(path), path

    def load() -> nn.Module:
        net = _R50()
        trunk = {k: v for k, v in weights.load_torch(source).items() if not k.startswith("blocks.6.")}
        _fill(net, trunk, source)
        return net.eval().to(memory_format=torch.channels_last_3d)

    return Backbone(load, 2048, identity)


BACKBONES: dict[str, Callable[[str, Path | None], Backbone]] = {"i3d": _i3d, "i3d_r50": _i3d_r50}

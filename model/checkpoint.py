"""A trained JCDNet as one safetensors file, which holds the tensors and everything needed to use them.

Nothing in the file can be executed. The settings are a JSON string in the header of the same file, so weights and
settings always belong together, and a single rename makes the write atomic.
"""

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

from model.config import ModelConfig
from model.jcdnet import JCDNet
from support import files
from support.errors import UserError

FILE_NAME = "model.safetensors"
FORMAT = 1

_HEADER_KEY = "jcdnet"
_STREAMS = (("rgb",), ("flow",), ("rgb", "flow"))
_PICKLE_SUFFIXES = {".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".tar"}


CLOSED = 3  # the most groups of classes that a user who knows what was filmed names


class CheckpointError(UserError):
    """A checkpoint cannot be read, written or used; the message is one sentence with the cause and the next step."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model.

    Attributes:
        config: shape and behaviour of the network.
        classes: C action names in the order of the network's columns, without the background.
        streams: ("rgb",), ("flow",) or ("rgb", "flow"), in the order in which features are stacked.
        features: settings of the features that it was trained on, as the extractor records them (JSON).
        state: name → tensor of the network, float32.
        groups: class → group (a sport, for example), for classes that have one.
        localize: settings of the localisation rule `runs` for this model; empty means the defaults.
        provenance: where the model comes from, as free-form JSON.
        closed: group → what is added to the logits of its classes if the user names it: somebody who knows what was
            filmed is shown more.
        named: how the scores are read if the user names groups alone (model/predict.py): `added`, group → what is added
            to the logits of its classes; `scale`, by which S^coarse is multiplied; `localize`, settings that replace
            those above. Empty: as `closed` says.
    """

    config: ModelConfig
    classes: tuple[str, ...]
    streams: tuple[str, ...]
    features: dict[str, Any]
    state: dict[str, Tensor]
    groups: dict[str, str] = field(default_factory=dict)
    localize: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    closed: dict[str, float] = field(default_factory=dict)
    named: dict[str, Any] = field(default_factory=dict)

    def build(self) -> JCDNet:
        """Build the network on the CPU, in evaluation mode, with its own copy of the tensors.

        Raises:
            CheckpointError: the parts do not fit together.
        """
        _check(self, "This checkpoint")
        with torch.device("meta"):  # saves drawing random weights that would be overwritten
            net = JCDNet(self.config)
        # `assign` gives the network these tensors. (`to_empty` would import SymPy: 3.5 s on a machine with a GPU.)
        net.load_state_dict({name: tensor.clone() for name, tensor in self.state.items()}, assign=True)
        return net.eval()


def localize_settings_for(model: Checkpoint, classes: frozenset[str] | None) -> dict[str, Any]:
    """The localisation settings that a model declares and that hold for these classes (None means all classes).

    The embedded model's confidence was calibrated on sports. For other classes it stays the mean probability.
    """
    if not model.groups or (classes is not None and classes <= model.groups.keys()):
        return model.localize
    return {name: value for name, value in model.localize.items() if "confidence" not in name}


def added_logits(model: Checkpoint, classes: frozenset[str]) -> np.ndarray | None:
    """(C+1,) float32 what is added to the logits S because the user named these classes; None adds nothing.

    A name changes how likely its sport is before anything is seen. It was measured for one sport (`Checkpoint.closed`),
    and the more sports are named, the less it says: beyond CLOSED of them it says nothing.
    """
    groups = {model.groups.get(name, name) for name in classes}
    if not model.closed or len(groups) > CLOSED:
        return None
    rows = [model.closed.get(model.groups.get(c, ""), 0.0) if c in classes else 0.0 for c in model.classes]
    return np.array([*rows, 0.0], np.float32)


def save(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint to a .safetensors file, or as `model.safetensors` into a folder, which is made if missing.

    The file is written completely or not at all. The same checkpoint always gives the same bytes.

    Raises:
        CheckpointError: the parts do not fit together, or the file cannot be written.
    """
    path = _file_of(Path(path))
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CheckpointError(f"{path}: checkpoints are safetensors; name a folder or a .safetensors file.")
    _check(checkpoint, str(path))
    optional = {"closed": checkpoint.closed, "named": checkpoint.named}
    header = {
        "format": FORMAT,
        "config": checkpoint.config.to_dict(),
        "classes": checkpoint.classes,
        "streams": checkpoint.streams,
        "features": checkpoint.features,
        "groups": checkpoint.groups,
        "localize": checkpoint.localize,
        "provenance": checkpoint.provenance,
    } | {name: value for name, value in optional.items() if value}
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: features and provenance must be plain JSON ({error}).") from error
    # Copies, because safetensors refuses tensors that share memory.
    state = {name: _plain(tensor).clone() for name, tensor in checkpoint.state.items()}
    write_atomically(path, safetensors_torch.save(state, {_HEADER_KEY: text}))


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint from its file or folder. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind, or its parts do not fit together.
    """
    path = _existing(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata() or {})
            # Copies, because the tensors are mapped into memory: if the file were overwritten later, they would change,
            # or the process would crash.
            state = {name: file.get_tensor(name).clone() for name in list(file.keys())}
    except SafetensorError as error:
        raise CheckpointError(_unreadable(path, error)) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from error
    try:
        config = ModelConfig.from_dict(header["config"])
    except ValueError as error:
        raise CheckpointError(f"{path} has settings that this version cannot use: {error}") from error
    checkpoint = Checkpoint(
        config=config,
        classes=tuple(header["classes"]),
        streams=tuple(header["streams"]),
        features=header["features"],
        state=state,
        groups=header["groups"],
        localize=header["localize"],
        provenance=header["provenance"],
        closed=header["closed"],
        named=header["named"],
    )
    _check(checkpoint, str(path))
    return checkpoint


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 in hex over the tensors (names, types, shapes, bytes), the config and the classes.

    Equal content gives an equal fingerprint. The file and the device of the tensors do not matter.
    """
    shapes = [(name, str(t.dtype), list(t.shape)) for name, t in sorted(checkpoint.state.items())]
    described = [checkpoint.config.to_dict(), checkpoint.classes, shapes]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for _, tensor in sorted(checkpoint.state.items()):
        digest.update(_plain(tensor).numpy().reshape(-1).data)  # .data is the memory itself, not a copy
    return digest.hexdigest()


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _file_of(path: Path) -> Path:
    """`path` itself if it names a file, otherwise the model file in the folder that it names."""
    is_file = path.suffix.lower() in {".safetensors", *_PICKLE_SUFFIXES} and not path.is_dir()
    return path if is_file else path / FILE_NAME


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file as `support.files.write_atomically` does, with a CheckpointError when that fails."""
    try:
        files.write_atomically(path, data)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        then = "make room and run again, what is complete is kept" if full else "choose another folder"
        raise CheckpointError(f"{path} cannot be written ({error.strerror or error}); {then}.") from error


def _existing(path: Path) -> Path:
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise CheckpointError(f"{path} is a folder without a {FILE_NAME}; name the folder that a training wrote.")
        return path / FILE_NAME
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; check the name, or train a model there first.")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; name a {FILE_NAME} or its folder.")
    return path


def _unreadable(path: Path, error: Exception) -> str:
    """Explain why safetensors cannot read a file, from its first bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    if size == 0:
        return f"{path} is empty; copy or download it again."
    if head[8:9] == b"{":  # a safetensors header begins like this, after its length
        return f"{path} is cut short or damaged ({error}); copy or download it again."
    pickled = head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5")
    if pickled or path.suffix.lower() in _PICKLE_SUFFIXES:
        return (
            f"{path} looks like a pickle, as PyTorch's .pth files are; such files can execute code and are "
            "not read, so give a checkpoint that jcdnet wrote (.safetensors)."
        )
    return f"{path} is not a safetensors file; give a checkpoint that jcdnet wrote."


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON header, with every part present and of the right type. `_check` checks their content."""

    def fail(cause: str) -> NoReturn:
        raise CheckpointError(f"{path} {cause}; give a checkpoint that jcdnet wrote.")

    if _HEADER_KEY not in metadata:
        fail("holds tensors but no jcdnet settings")
    try:
        header = json.loads(metadata[_HEADER_KEY])
        json.dumps(header, allow_nan=False)  # Python reads NaN and Infinity, which are not JSON
    except (ValueError, RecursionError):
        fail("has jcdnet settings that are not JSON")
    if not isinstance(header, dict):
        fail("has jcdnet settings that are not a table")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.get('format')!r} and this version reads {FORMAT}; "
            "update jcdnet, or train the model again."
        )
    kinds = {
        "config": dict,
        "classes": list,
        "streams": list,
        "features": dict,
        "groups": dict,
        "localize": dict,
        "provenance": dict,
        "closed": dict,
        "named": dict,
    }
    header = {"localize": {}, "closed": {}, "named": {}} | header  # not every checkpoint has these entries
    for name, kind in kinds.items():
        if not isinstance(header.get(name), kind):
            fail(f"has no usable {name!r} among its settings")
    return header


def _check(checkpoint: Checkpoint, subject: str) -> None:
    """Raise a CheckpointError unless names, groups, streams and tensors fit the config and each other."""
    fault = next(_faults(checkpoint), None)
    if fault is not None:
        raise CheckpointError(f"{subject} {fault}; train or fetch the model again.")


def _readable(named: Mapping[str, Any]) -> bool:
    numbers = [named.get("scale"), *values.values()] if isinstance(values := named.get("added"), dict) else [None]
    return isinstance(named.get("localize"), dict) and all(isinstance(n, int | float) for n in numbers)


def _faults(checkpoint: Checkpoint) -> Iterator[str]:
    """The faults of a checkpoint. Only the first is certain, because each test relies on those before it."""
    classes, config = checkpoint.classes, checkpoint.config
    if len(classes) != config.classes:
        yield f"names {len(classes)} classes and its network has {config.classes}"
    if not all(isinstance(name, str) and name.strip() for name in classes):
        yield "has a class without a name"
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        yield f"names the class {name!r} {times} times"
    if checkpoint.streams not in _STREAMS:
        yield f"declares the streams {list(checkpoint.streams)}, not rgb, flow, or rgb and flow"
    for name, group in checkpoint.groups.items():
        if name not in classes or not isinstance(group, str):
            yield f"groups {name!r} as {group!r}, which is no class with the name of a group"
    if checkpoint.named and not _readable(checkpoint.named):
        yield "declares for named groups other settings than numbers of 'added', a 'scale' and a table 'localize'"
    with torch.device("meta"):  # shapes only, so that a wrong config allocates no memory
        expected = JCDNet(config).state_dict()
    for name, wanted in expected.items():
        tensor = checkpoint.state.get(name)
        if tensor is None:
            yield f"lacks the tensor {name!r}"
        elif tensor.shape != wanted.shape:
            yield f"has the tensor {name!r} {tuple(tensor.shape)}, not {tuple(wanted.shape)}"
        elif tensor.dtype != torch.float32:
            yield f"has the tensor {name!r} as {tensor.dtype}, not torch.float32"
        elif not torch.isfinite(tensor).all():
            yield f"has a tensor {name!r} with numbers that are not finite"
    for name in checkpoint.state:
        if name not in expected:
            yield f"has a tensor {name!r} that the network does not"

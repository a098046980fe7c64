"""Weights: what is refused, that nothing in a file runs, and that what is read is what was written."""

import hashlib
import io
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extractors.backbones import registry, weights
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.weights import WEIGHTS, WeightsError
from support.files import sha256

FIRST = "Conv3d_1a_7x7.conv3d.weight"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A weights folder of the test's own, and no packages beside it. Gone at once: a network is 50 MB."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("JCDNET_WEIGHTS", str(folder))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    yield folder
    shutil.rmtree(tmp_path)


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    return text


# --- hashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"hello\n", bytes(range(256)) * 9000])
def test_git_blob_is_what_git_says(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert weights.git_blob(path) == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    assert sha256(path) == hashlib.sha256(data).hexdigest()
    try:
        said = subprocess.run(["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git here")
    assert weights.git_blob(path) == said.stdout.strip()


def test_published_files_are_known_by_one_hash_each() -> None:
    for name, file in WEIGHTS.items():
        assert file.name == name
        assert bool(file.sha256) != bool(file.git_blob)
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256 or "0" * 64)
        assert re.fullmatch(r"[0-9a-f]{40}", file.git_blob or "0" * 40)


# --- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
def test_other_bytes_under_a_published_name_are_refused(alone: Path, name: str) -> None:
    assert weights.find(name) is None
    path = alone / WEIGHTS[name].filename
    path.write_bytes(b"half a download")
    with pytest.raises(WeightsError, match="its hash differs") as caught:
        weights.find(name)
    assert str(path) in sentence(caught.value)


def test_a_file_is_found_by_its_hash(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = alone / "x.pt"
    path.write_bytes(b"weights")
    blob = hashlib.sha1(b"blob 7\0weights").hexdigest()
    known = weights.WeightsFile("x", "x.pt", None, blob, None, None, "none", "a test")
    monkeypatch.setitem(weights.WEIGHTS, "x", known)
    assert weights.find("x") == path


def test_no_weights_at_all_says_how_to_get_them() -> None:
    for stream in ("rgb", "flow"):
        with pytest.raises(WeightsError, match="models fetch i3d-rgb") as caught:
            registry.find("i3d", stream)
        sentence(caught.value)


def test_unknown_backbone() -> None:
    with pytest.raises(WeightsError, match="i3d, i3d_r50") as caught:
        registry.find("resnet", "rgb")
    sentence(caught.value)


@pytest.mark.parametrize("name", ["i3d", "i3d_r50"])
def test_a_path_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        registry.find(name, "rgb", tmp_path / "none.pt")
    sentence(caught.value)


# --- the restricted unpickler -----------------------------------------------------------------------------------------


def opcodes(text: str) -> bytes:
    return text.encode()


class _PointerType:
    """A dtype of objects whose flags deny it, so that NumPy would take an array's bytes for addresses."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class Pointers:
    def __reduce__(self) -> tuple[Any, ...]:
        make = np.empty(0).__reduce__()[0]
        return make, (np.ndarray, (0,), b"b"), (1, (1,), _PointerType(), False, b"A" * 8)


def payloads(witness: Path) -> dict[str, bytes]:
    """Pickles that want to run something, each in its own way."""
    touch = f"touch {witness}"
    array = np.arange(3.0)
    return {
        "plain": pickle.dumps(Evil(witness)),
        "protocol 0": pickle.dumps(Evil(witness), protocol=0),
        "nested": pickle.dumps({"params": {"x": [array, (Evil(witness),)]}}),
        "as a key": pickle.dumps({frozenset([1]): Evil(witness)}),
        "in an object array": pickle.dumps(np.array([Evil(witness), None], dtype=object)),
        "builtins.exec": opcodes(f"cbuiltins\nexec\n(S'open({str(witness)!r}, \"w\")'\ntR."),
        "eval through inst": opcodes(f"(S'{touch}'\nios\nsystem\n."),
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        "numpy's own exec": b"\x80\x04\x8c\x12numpy.testing._private.utils\x8c\x09runstring\x93.",
        "numpy.load": b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.",
        "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
        "persistent id": b"Psome-id\n.",
        "extension": b"\x82\x01.",
        "pointers": pickle.dumps({"params": Pointers()}),
    }


@pytest.mark.parametrize("kind", payloads(Path("w")))
def test_the_unpickler_runs_nothing(tmp_path: Path, kind: str) -> None:
    witness = tmp_path / "witness"
    path = tmp_path / "evil.ckpt"
    path.write_bytes(payloads(witness)[kind])
    with pytest.raises(WeightsError, match="nothing was run") as caught:
        weights.load_numpy_pickle(path)
    assert str(path) in str(caught.value)
    assert not witness.exists()
    with pytest.raises(WeightsError):
        registry.find("i3d", "rgb", path).load()
    assert not witness.exists()


def test_the_payloads_are_dangerous(tmp_path: Path) -> None:
    """Or refusing them would prove nothing."""
    for kind in ("plain", "protocol 0", "nested", "in an object array", "eval through inst", "builtins.exec"):
        witness = tmp_path / kind.replace(" ", "-")
        pickle.loads(payloads(witness)[kind])
        assert witness.exists(), kind


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"a": np.ones(3)})[:-20], b"\x80\x05"])
def test_damaged_pickles(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=re.escape(str(path))) as caught:
        weights.load_numpy_pickle(path)
    sentence(caught.value)


@pytest.mark.parametrize("thing", [[np.ones(3)], np.ones(3), 5, None])
def test_a_pickle_of_something_else(tmp_path: Path, thing: object) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(pickle.dumps(thing))
    with pytest.raises(WeightsError, match="not a dict"):
        weights.load_numpy_pickle(path)


@pytest.mark.parametrize(
    ("core", "protocol"), [("numpy.core", 3), ("numpy._core", 3), ("numpy._core", 4), ("numpy._core", 5)]
)
def test_arrays_of_either_numpy_are_read(tmp_path: Path, core: str, protocol: int) -> None:
    """NumPy 1 wrote numpy.core.multiarray, NumPy 2 writes numpy._core.multiarray."""
    wanted = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "c": np.array([1, 2], ">i4"), "n": "text"}
    buffer = io.BytesIO()

    class Reduced(pickle.Pickler):
        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, np.ndarray):  # through _reconstruct, as protocols below 5 do
                return np.ndarray.__reduce__(thing)
            return NotImplemented

    Reduced(buffer, protocol).dump(wanted)
    data = buffer.getvalue()
    if core == "numpy.core":
        data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert f"{core}.multiarray".encode() in data
    path = tmp_path / "a.ckpt"
    path.write_bytes(data)
    found = weights.load_numpy_pickle(path)
    np.testing.assert_array_equal(found["a"]["b"], wanted["a"]["b"])
    np.testing.assert_array_equal(found["c"], wanted["c"])
    assert found["n"] == "text"


# --- DeepMind's numbers as arrays -------------------------------------------------------------------------------------

BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}


def as_jax(net: InceptionI3d) -> dict[str, Any]:
    """The network's state laid out as in i3d-kinetics-400.ckpt: DHWIO kernels, a batch norm without scale."""
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for key in [k.removesuffix(".conv3d.weight") for k in state if k.endswith(".conv3d.weight")]:
        kernel = state[f"{key}.conv3d.weight"].transpose(2, 3, 4, 1, 0)
        if key == "logits":
            params["Logits/Conv3d_0c_1x1"] = {"Conv_0": {"kernel": kernel, "bias": state["logits.conv3d.bias"]}}
            continue
        module, _, branch = key.partition(".")
        where, told = params.setdefault(module, {}), stats.setdefault(module, {})
        if branch:
            where, told = where.setdefault(BRANCHES[branch], {}), told.setdefault(BRANCHES[branch], {})
        wide = (1, 1, 1, 1, -1)
        where |= {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": state[f"{key}.bn.bias"]}}
        told["BatchNorm_0"] = {
            "mean": state[f"{key}.bn.running_mean"].reshape(wide),
            "var": state[f"{key}.bn.running_var"].reshape(wide),
        }
    return {"params": params, "batch_stats": stats}


@pytest.fixture(scope="module")
def net() -> InceptionI3d:
    torch.manual_seed(0)
    net = InceptionI3d()
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_from_jax_is_the_network(net: InceptionI3d) -> None:
    found = weights.from_jax(as_jax(net))
    wanted = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key


def test_a_file_of_arrays_gives_the_network(tmp_path: Path, net: InceptionI3d, pixels: torch.Tensor) -> None:
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(pickle.dumps(as_jax(net)))
    backbone = registry.find("i3d", "rgb", path)
    assert backbone.weights == f"sha256:{sha256(path)}"
    assert backbone.width == 1024
    loaded = backbone.load()
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels), net(pixels), atol=1e-4, rtol=1e-4)


def drop(*keys: str) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        drop("batch_stats"),
        drop("params", "Mixed_4c"),
        drop("params", "Mixed_4c", "Branch_1/Conv3d_0b_3x3"),
        drop("params", "Conv3d_2b_1x1", "BatchNorm_0"),
        drop("batch_stats", "Mixed_5c", "Branch_3/Conv3d_0b_1x1", "BatchNorm_0", "var"),
        drop("params", "Logits/Conv3d_0c_1x1"),
        put(np.ones((1, 1, 1, 64)), "params", "Conv3d_2b_1x1", "Conv_0", "kernel"),
        put(np.ones((1, 1, 1, 64, 65), np.float32), "params", "Conv3d_2b_1x1", "Conv_0", "kernel"),
        put(3.5, "params", "Conv3d_2b_1x1", "Conv_0", "kernel"),
        put(np.array(["a"]), "params", "Conv3d_2b_1x1", "BatchNorm_0", "bias"),
        put(np.ones(5), "params"),
        put([], "params", "Mixed_3b"),
        put({}, "params", "Foo"),
    ],
)
def test_missing_and_misshaped_arrays(
    tmp_path: Path, net: InceptionI3d, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]
) -> None:
    tree = as_jax(net)
    change(tree)
    path = tmp_path / "i3d.ckpt"
    path.touch()
    monkeypatch.setattr(weights, "load_numpy_pickle", lambda path: tree)
    with pytest.raises(WeightsError) as caught:
        registry.find("i3d", "rgb", path).load()
    assert sentence(caught.value).startswith(f"{path}: ")


# --- PyTorch checkpoints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("legacy", "wrapped"), [(True, None), (False, "model_state"), (False, "state_dict")])
def test_torch_files(
    tmp_path: Path, net: InceptionI3d, pixels: torch.Tensor, legacy: bool, wrapped: str | None
) -> None:
    """The published .pt files are in the old, non-ZIP format; pytorchvideo wraps its tensors in `model_state`."""
    path = tmp_path / "i3d.pt"
    state: Any = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({wrapped: state} if wrapped else state, path, _use_new_zipfile_serialization=not legacy)
    assert (path.read_bytes()[:2] == b"PK") != legacy
    loaded = registry.find("i3d", "rgb", path).load()
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels), net(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pt"
    torch.save({FIRST: Evil(witness)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="nothing was run") as caught:
        registry.find("i3d", "rgb", path).load()
    assert sentence(caught.value).startswith(f"{path}: ")
    assert not witness.exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("not weights"),
        lambda p: p.write_bytes(pickle.dumps({"a": 1})),
        lambda p: torch.save([torch.ones(3)], p),
        lambda p: torch.save({"a": 1}, p),
        lambda p: torch.save({1: torch.ones(3)}, p),
        lambda p: torch.save({}, p),
        lambda p: torch.save(torch.ones(3), p),
        lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100)),
        lambda p: (torch.save({"a": torch.ones(1000)}, p), p.write_bytes(p.read_bytes()[:2000])),
    ],
)
@pytest.mark.parametrize("name", ["i3d", "i3d_r50"])
def test_files_that_are_no_weights(tmp_path: Path, write: Callable[[Path], Any], name: str) -> None:
    path = tmp_path / "a.pt"
    write(path)
    with pytest.raises(WeightsError) as caught:
        registry.find(name, "rgb", path).load()
    assert sentence(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop("Mixed_4c.b1b.bn.running_var"), "Mixed_4c.b1b.bn.running_var"),
        (drop(FIRST), FIRST),
        (put(torch.ones(3), "extra.weight"), "extra.weight"),
        (put(torch.ones(64, 2, 7, 7, 7), FIRST), FIRST),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, net: InceptionI3d, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], named: str
) -> None:
    state = dict(net.state_dict())
    change(state)
    path = tmp_path / "a.pt"
    path.touch()
    monkeypatch.setattr(weights, "load_torch", lambda path: state)
    with pytest.raises(WeightsError) as caught:
        registry.find("i3d", "rgb", path).load()
    assert sentence(caught.value).startswith(f"{path}: ")
    assert named in str(caught.value)


# --- flow -------------------------------------------------------------------------------------------------------------


def test_inflate_flow(net: InceptionI3d) -> None:
    """A flow field whose two channels are both the mean of R, G and B gives what RGB gives, scaled by 2/3."""
    state = weights.inflate_flow(net.state_dict())
    assert state[FIRST].shape == (64, 2, 7, 7, 7)
    rgb = net.state_dict()[FIRST].numpy()
    for channel in range(2):
        np.testing.assert_allclose(state[FIRST][:, channel].numpy(), (rgb[:, 0] + rgb[:, 1] + rgb[:, 2]) / 3, atol=1e-6)
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items() if k != FIRST)
    assert net.state_dict()[FIRST].shape[1] == 3
    grey = torch.rand(1, 1, 8, 32, 32)
    flow = InceptionI3d(2)
    flow.load_state_dict(state)
    with torch.no_grad():
        ours = flow.Conv3d_1a_7x7.conv3d(grey.expand(-1, 2, -1, -1, -1))
        theirs = net.Conv3d_1a_7x7.conv3d(grey.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(ours, theirs * 2 / 3, atol=1e-4, rtol=1e-4)


def test_without_flow_weights_the_flow_network_starts_from_rgb(
    alone: Path, net: InceptionI3d, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = alone / WEIGHTS["i3d-rgb"].filename
    path.write_bytes(pickle.dumps(as_jax(net)))
    known = weights.WeightsFile("i3d-rgb", path.name, sha256(path), None, None, None, "none", "a test")
    monkeypatch.setitem(weights.WEIGHTS, "i3d-rgb", known)
    flow, rgb = registry.find("i3d", "flow"), registry.find("i3d", "rgb")
    assert flow.weights == f"inflated from rgb {rgb.weights}"
    with torch.no_grad():
        assert flow.load()(torch.rand(1, 2, 8, 32, 32)).shape == (1, 1024)

    own = alone.parent / "flow.pt"
    two = InceptionI3d(2)
    torch.save(two.state_dict(), own)
    given = registry.find("i3d", "flow", own)
    assert given.weights == f"sha256:{sha256(own)}"
    given.load()


# --- pytorchvideo's I3D-R50 -------------------------------------------------------------------------------------------


def test_i3d_r50_without_weights_says_so() -> None:
    with pytest.raises(WeightsError, match="needs its weights by path") as caught:
        registry.find("i3d_r50", "rgb")
    sentence(caught.value)
    with pytest.raises(WeightsError, match="no flow stream"):
        registry.find("i3d_r50", "flow", Path("any.pyth"))


def test_i3d_r50_from_a_file(tmp_path: Path) -> None:
    """Its feature is what its own head would pool: the mean over time and space of the last stage."""
    from pytorchvideo.models.hub.resnet import i3d_r50

    torch.manual_seed(0)
    whole = i3d_r50(pretrained=False).eval()
    path = tmp_path / "I3D_8x8_R50.pyth"
    torch.save({"model_state": whole.state_dict()}, path)
    backbone = registry.find("i3d_r50", "rgb", path)
    loaded = backbone.load()
    x = torch.rand(1, 3, 8, 64, 64) * 2 - 1
    with torch.no_grad():
        stage = ((x + 1) / 2 - 0.45) / 0.225
        for block in list(whole.blocks)[:-1]:
            stage = block(stage)
        found = loaded(x)
    assert found.shape == (1, backbone.width) == (1, 2048)
    torch.testing.assert_close(found, stage.flatten(2).mean(2), atol=1e-4, rtol=1e-4)


def test_kinetics_names() -> None:
    names = weights.kinetics400_names()
    assert len(names) == len(set(names)) == 400
    assert {"playing tennis", "golf driving", "hitting baseball"} <= set(names)
    assert all(name == name.strip() != "" for name in names)

"""Checkpoints: what goes in comes out, and every way in which a file can be wrong has its sentence."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import model.checkpoint
from model.checkpoint import Checkpoint, CheckpointError, fingerprint, load, save
from model.config import ModelConfig
from model.jcdnet import JCDNet

torch.set_num_threads(1)


def checkpoint(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    config = ModelConfig(classes=3, in_dim=6, dim=5, smooth=3)
    return Checkpoint(
        config=config,
        classes=("Saut à la perche", "高跳", "Long | Jump"),
        streams=("rgb", "flow"),
        features={"fps": 25, "flow": {"backend": "opencv", "clip": 20.0}, "stride": 16},
        state={name: torch.randn(t.shape) for name, t in JCDNet(config).state_dict().items()},
        groups={"高跳": "jump", "Long | Jump": "jump"},
        provenance={"seed": 3, "epochs": [1, 2], "note": None},
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def without(table: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != name}


def test_round_trip(tmp_path: Path) -> None:
    original = checkpoint()
    save(original, tmp_path / "a.safetensors")
    back = load(tmp_path / "a.safetensors")
    for name in ("config", "classes", "streams", "features", "groups", "provenance"):
        assert getattr(back, name) == getattr(original, name), name
    assert back.state.keys() == original.state.keys()
    assert all(torch.equal(back.state[name], original.state[name]) for name in back.state)
    assert fingerprint(back) == fingerprint(original)


def test_build_gives_the_network_that_was_saved(tmp_path: Path) -> None:
    net = JCDNet(ModelConfig(classes=3, in_dim=6, dim=5)).eval()
    with torch.no_grad():
        net.beta.fill_(0.3)
    save(replace(checkpoint(), config=net.config, state=net.state_dict()), tmp_path)
    loaded = load(tmp_path)
    before = torch.get_rng_state()
    built = loaded.build()
    assert torch.equal(torch.get_rng_state(), before)  # a seeded training that loads one stays reproducible
    assert not built.training
    x = torch.randn(1, 9, 6)
    assert torch.equal(built(x).cas, net(x).cas)
    with torch.no_grad():
        built.alpha.fill_(7)
    assert loaded.state["alpha"] == 0  # its own copy
    assert all(p.requires_grad for p in built.parameters())


@pytest.mark.parametrize("name", ["new/deeper", "run.v1.2", "."])
def test_a_folder_holds_the_model(tmp_path: Path, name: str) -> None:
    save(checkpoint(), tmp_path / name)
    assert files(tmp_path / name) == ["model.safetensors"]
    assert load(tmp_path / name).classes == load(tmp_path / name / "model.safetensors").classes


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    original = checkpoint()
    shuffled = replace(original, state=dict(reversed(original.state.items())))
    save(original, tmp_path / "a.safetensors")
    save(shuffled, str(tmp_path / "b.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_tensors_may_share_memory_or_be_strided(tmp_path: Path) -> None:
    original = checkpoint()
    square = torch.arange(25.0).reshape(5, 5, 1)
    state = {
        **original.state,
        "query.weight": square,
        "key.weight": square.transpose(0, 1),
        "value.weight": square,
    }
    save(replace(original, state=state), tmp_path)
    back = load(tmp_path)
    assert torch.equal(back.state["key.weight"], square.transpose(0, 1))
    assert fingerprint(back) == fingerprint(replace(original, state=state))


def test_loaded_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    save(checkpoint(), tmp_path)
    back = load(tmp_path)
    kept = {name: tensor.clone() for name, tensor in back.state.items()}
    file = tmp_path / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.write(b"\xff" * size)
    assert all(torch.equal(back.state[name], kept[name]) for name in kept)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoint(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\); make room"):
        save(checkpoint(1), tmp_path)
    assert files(tmp_path) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file.*cannot be written"):
        save(checkpoint(), tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"model\.pth: checkpoints are safetensors"):
        save(checkpoint(), tmp_path / "model.pth")
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), Path("x")])
def test_what_json_cannot_hold_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match="plain JSON"):
        save(replace(checkpoint(), provenance={"value": value}), tmp_path)
    assert not files(tmp_path)


State = dict[str, torch.Tensor]
WRONG: dict[str, tuple[Callable[[Checkpoint], Checkpoint], str]] = {
    "too few classes": (
        lambda c: replace(c, classes=c.classes[:2], groups={}),
        "names 2 classes and its network has 3",
    ),
    "same name": (lambda c: replace(c, classes=("a", "b", "a"), groups={}), "names the class 'a' 2 times"),
    "no name": (lambda c: replace(c, classes=("a", " ", "b"), groups={}), "class without a name"),
    "no stream": (lambda c: replace(c, streams=()), "declares the streams"),
    "order of streams": (lambda c: replace(c, streams=("flow", "rgb")), "declares the streams"),
    "group of nothing": (lambda c: replace(c, groups={"golf": "ball"}), "groups 'golf'"),
    "missing": (lambda c: replace(c, state=without(c.state, "alpha")), "lacks the tensor 'alpha'"),
    "extra": (lambda c: replace(c, state={**c.state, "x": torch.ones(1)}), "tensor 'x' that the network"),
    "shape": (
        lambda c: replace(c, state={**c.state, "temp.bias": torch.ones(4)}),
        r"tensor 'temp.bias' \(4,\), not \(3,\)",
    ),
    "type": (
        lambda c: replace(c, state={**c.state, "temp.bias": torch.ones(3).half()}),
        "tensor 'temp.bias' as torch.float16",
    ),
    "nan": (
        lambda c: replace(c, state={**c.state, "beta": torch.tensor(float("nan"))}),
        "tensor 'beta' with numbers that are not finite",
    ),
    "infinite": (
        lambda c: replace(c, state={**c.state, "temp.bias": torch.tensor([0, 0, float("inf")])}),
        "tensor 'temp.bias' with numbers that are not finite",
    ),
    "config": (
        lambda c: replace(c, config=replace(c.config, dim=65536)),
        r"tensor 'embed_a.weight' \(5, 6, 3\), not \(65536, 6, 3\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_parts_that_do_not_fit(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, words = WRONG[case]
    wrong = spoil(checkpoint())
    with pytest.raises(CheckpointError, match=words):
        wrong.build()
    with pytest.raises(CheckpointError, match=words):
        save(wrong, tmp_path / "a.safetensors")
    assert not files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(model.checkpoint, "_check", lambda *_: None)
        save(wrong, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=rf"a\.safetensors .*{words}.*; train or fetch"):
        load(tmp_path / "a.safetensors")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "weights.bin"])
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_pickles_are_not_opened(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"x": Bomb()}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=rf"{name} looks like a pickle.*execute code.*not\s+read"):
        load(path)
    assert not Path("executed").exists()


def test_files_that_are_missing_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing does not exist; check the name"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"is a folder without a model\.safetensors; name"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe is not a file"):
        load(tmp_path / "pipe")
    for content, words in (
        (b"", "is empty; copy or download it again"),
        (b"abc", "is not a safetensors file"),
        (b"# a readme that is longer than a header", "is not a safetensors file"),
        (b"\0" * 100, "is not a safetensors file"),
    ):
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"a\.safetensors {words}"):
            load(tmp_path / "a.safetensors")


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    save(checkpoint(), tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for size in (1, 7, 8, 9, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        words = "cut short or damaged" if size > 8 else "is not a safetensors file"
        with pytest.raises(CheckpointError, match=rf"model\.safetensors .*{words}.*; "):
            load(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        load(path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 3000), byte=st.integers(0, 255))
def test_a_damaged_byte_is_an_error_or_harmless(
    position: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    save(checkpoint(), path)
    data = bytearray(path.read_bytes())
    data[position % len(data)] = byte
    path.write_bytes(data)
    try:
        load(path).build()
    except CheckpointError as error:
        assert str(path) in str(error)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace the JSON of a checkpoint by what `change` makes of it; a string goes in as it is."""
    save(checkpoint(), path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    changed = change(json.loads(header["__metadata__"]["jcdnet"]))
    save_file(load_file(path), path, {"jcdnet": changed if isinstance(changed, str) else json.dumps(changed)})


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "not json": (lambda h: "{", "settings that are not JSON"),
    "deep": (lambda h: "[" * 200_000, "settings that are not JSON"),
    "a list": (lambda h: [h], "settings that are not a table"),
    "newer": (lambda h: {**h, "format": 2}, "format 2 and this version reads 1; update jcdnet"),
    "no format": (lambda h: without(h, "format"), "format None"),
    "no config": (lambda h: without(h, "config"), "no usable 'config'"),
    "classes a string": (lambda h: {**h, "classes": "abc"}, "no usable 'classes'"),
    "classes not strings": (lambda h: {**h, "classes": [1, [], None]}, "class without a name"),
    "streams of lists": (lambda h: {**h, "streams": [["rgb"]]}, "declares the streams"),
    "groups a list": (lambda h: {**h, "groups": []}, "no usable 'groups'"),
    "group of lists": (lambda h: {**h, "groups": {"高跳": []}}, "groups '高跳'"),
    "no features": (lambda h: without(h, "features"), "no usable 'features'"),
    "no provenance": (lambda h: {**h, "provenance": None}, "no usable 'provenance'"),
    "unknown setting": (
        lambda h: {**h, "config": {**h["config"], "dims": 4}},
        "cannot use: Unknown model setting 'dims'; did you mean dim",
    ),
    "wrong setting": (lambda h: {**h, "config": {**h["config"], "dim": "4"}}, "dim must be a whole number"),
    "no classes": (lambda h: {**h, "config": without(h["config"], "classes")}, "classes is missing"),
    "terabytes": (lambda h: {**h, "config": {**h["config"], "dim": 10**12}}, "dim must lie in"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_are_wrong(case: str, tmp_path: Path) -> None:
    change, words = HEADERS[case]
    rewrite(tmp_path / "a.safetensors", change)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors .*{words}"):
        load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_somebody_elses_safetensors(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file(checkpoint().state, tmp_path / "a.safetensors", metadata)
    with pytest.raises(CheckpointError, match="no jcdnet settings; give a checkpoint that jcdnet wrote"):
        load(tmp_path / "a.safetensors")


def test_fingerprint_follows_content_alone(tmp_path: Path) -> None:
    original = checkpoint()
    expected = fingerprint(original)
    assert len(expected) == 64
    same = replace(original, provenance={"other": 1}, state=dict(reversed(original.state.items())))
    assert fingerprint(same) == expected
    nudged = {**original.state, "alpha": torch.nextafter(original.state["alpha"], torch.tensor(9.0))}
    swapped = {
        **original.state,
        "query.weight": original.state["key.weight"],
        "key.weight": original.state["query.weight"],
    }
    others = [
        replace(original, state=nudged),
        replace(original, state=swapped),
        replace(original, classes=original.classes[::-1]),
        replace(original, config=replace(original.config, smooth=0)),
    ]
    assert len({expected, *map(fingerprint, others)}) == 5

"""What a stranger's file can do, whichever kind of file it is: be refused in one sentence, and nothing else.

No code of it is run, no memory beyond its own size's worth is taken, nothing outside the named folders is written.
"""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coded, encode
from safetensors.torch import save as save_tensors

from extractors.backbones import weights
from extractors.backbones.weights import WeightsError
from extractors.features import Features, FeaturesError, load, save
from model.checkpoint import Checkpoint
from model.checkpoint import save as save_checkpoint
from model.config import ModelConfig
from model.jcdnet import JCDNet
from pipeline.cache.care import prune, scan, verify
from pipeline.datasets.wtalc import read_numpy_objects
from pipeline.training.labels import SHOWN, label_problems, load_labels
from support import locks
from support.npz import SMALL
from support.pickles import text, unpickle_arrays

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = 640 << 20  # bytes that each bomb here unfolds to, at least
ROOM = 320 << 20  # bytes that a refusal may take


@contextmanager
def within(room: int = ROOM) -> Iterator[None]:
    """The peak of this process's memory grows by no more; not measured where the kernel does not tell."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        yield
        return
    reset.write_text("5")  # the peak counts from now on
    before = _peak()
    yield
    grown = _peak() - before
    assert grown < room, f"it took {grown / 2**20:.0f} MiB"


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


class Evil:
    """Unpickled, it leaves a mark in the working folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("code-ran",)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "code-ran").exists()


@pytest.fixture
def refused(jcdnet: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run the command line, within bounds, to its refusal: one sentence, and the exit code."""

    def run(expected: int, *arguments: object) -> str:
        with within():
            code, _, said = jcdnet(*arguments)
        assert code == expected, said
        assert "Traceback" not in said and "a bug in jcdnet" not in said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert len(said) < 3000
        return errors[0]

    return run


def test_the_marks_are_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil()))
    (tmp_path / "code-ran").rmdir()
    with pytest.raises(AssertionError, match="it took"), within():
        assert np.ones(HUGE, np.uint8).all()


# --- features, and entries of the cache -------------------------------------------------------------------------------

META = {"settings": {"rgb": {}}, "duration": 1.28, "media": {}, "warnings": [], "partial": False}
ARRAYS = {
    "times": np.array([[0, 0.64], [0.64, 1.28]]),
    "rgb": np.zeros((2, 4), np.float32),
    "settings": np.array(json.dumps(META)),
}
FEW = Features(ARRAYS["rgb"], None, ARRAYS["times"], 1.28, {}, {"rgb": {}})


def npy(array: np.ndarray, **claims: object) -> bytes:
    """An .npy file; `claims`: what its header says otherwise."""
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    out = io.BytesIO()
    np.lib.format.write_array_header_2_0(out, header | claims)
    return out.getvalue() + array.tobytes()


def write_npz(path: Path, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in ({f"{n}.npy": npy(a) for n, a in ARRAYS.items()} | (members or {})).items():
            archive.writestr(name, data)


def zeros(path: Path, size: int, name: str = "rgb", others: dict[str, np.ndarray] = ARRAYS) -> None:
    """Arrays of which one is `size` bytes of nothing, a hundredth of that on disk."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other in others.keys() - {name}:
            archive.writestr(f"{other}.npy", npy(others[other]))
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(npy(np.zeros((0, 4), np.float32), shape=(size // 16, 4)))
            for _ in range(size >> 24):
                member.write(bytes(1 << 24))


def encrypted(path: Path) -> None:
    write_npz(path)
    data = bytearray(path.read_bytes())
    for mark in (b"PK\1\2", b"PK\3\4"):
        at = data.find(mark)
        data[at + (8 if mark == b"PK\1\2" else 6)] |= 1
    path.write_bytes(data)


def other_settings(text: str) -> Callable[[Path], None]:
    return lambda path: write_npz(path, {"settings.npy": npy(np.array(text))})


def changed(**parts: object) -> Callable[[Path], None]:
    return other_settings(json.dumps(META | parts))


FEATURES: dict[str, Callable[[Path], None]] = {
    "a pickle in the zip": lambda p: write_npz(p, {"rgb.npy": npy(np.zeros(2), descr="|O") + pickle.dumps(Evil())}),
    "a pickle instead": lambda p: p.write_bytes(pickle.dumps(Evil())),
    "an array of objects": lambda p: np.savez(p, **ARRAYS | {"rgb": np.array([Evil()], dtype=object)}),
    "a bomb": lambda p: zeros(p, HUGE),
    "rows of one byte each": lambda p: np.savez_compressed(
        p, **ARRAYS | {"times": np.zeros((SMALL // 4, 2), bool), "rgb": np.zeros((SMALL // 4, 1), bool)}
    ),
    "a claim of terabytes": lambda p: write_npz(p, {"rgb.npy": npy(np.zeros((1, 4), np.float32), shape=(10**12, 4))}),
    "a claim beyond counting": lambda p: write_npz(p, {"rgb.npy": npy(np.zeros(1, np.float32), shape=(2**62, 2**62))}),
    "a negative shape": lambda p: write_npz(p, {"rgb.npy": npy(np.zeros((2, 4), np.float32), shape=(-1, 4))}),
    "a huge header": lambda p: write_npz(p, {"rgb.npy": b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + b" " * 999}),
    "a header that is code": lambda p: write_npz(
        p, {"rgb.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 40) + b"__import__('os').mkdir('code-ran')".ljust(40)}
    ),
    "encrypted": encrypted,
    "deep settings": other_settings(DEEP),
    "settings of NaN": other_settings("NaN"),
    "a duration without end": other_settings(json.dumps(META).replace("1.28", "1e999")),
    "a duration of many digits": other_settings(json.dumps(META).replace("1.28", "9" * 5000)),
    "a list for a table": changed(media=[1]),
    "a number for a table": changed(settings=3),
    "a number for settings of a stream": changed(settings={"rgb": 3}),
    "no text for a warning": changed(warnings=[{"a": 1}]),
    "media of NaN": changed(media={"width": float("nan")}),
    "rows that go back": lambda p: write_npz(p, {"times.npy": npy(np.array([[5, 6], [1, 2.0]]))}),
    "rows that end before they begin": lambda p: write_npz(p, {"times.npy": npy(np.array([[1, 0], [2, 1.0]]))}),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    (tmp_path / "features").mkdir()
    FEATURES[kind](tmp_path / "features" / "a.npz")
    with within(), pytest.raises(FeaturesError, match=r"a\.npz: not a whole features file \("):
        load(tmp_path / "features" / "a.npz")
    (tmp_path / "labels.csv").write_text("video,labels\na,golf\n")
    said = refused(3, "train", "labels.csv", "--features", "features", "-o", "out")
    assert "delete it and extract again" in said


def test_names_that_climb_out_of_a_zip_write_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    write_npz(inside / "a.npz", {"../../escaped.npy": npy(np.zeros(1)), "/tmp/jcdnet-escaped.npy": npy(np.zeros(1))})
    assert load(inside / "a.npz").rgb is not None  # they are not looked at
    assert [p.name for p in tmp_path.rglob("*.npy")] == []
    assert not Path("/tmp/jcdnet-escaped.npy").exists()


def test_features_that_were_compressed_again_are_read(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", compression=zipfile.ZIP_DEFLATED)
    assert load(tmp_path / "a.npz").times.tolist() == ARRAYS["times"].tolist()


# --- published feature sets and weights -------------------------------------------------------------------------------


def laughs(levels: int = 30) -> bytes:
    """A pickle of ten lists of ten lists of ten …, by reference: 10^levels items in some hundred bytes."""
    parts = b"]q\0" + b"".join(
        b"]q" + bytes([i]) + b"(" + (b"h" + bytes([i - 1])) * 10 + b"e" for i in range(1, levels)
    )
    return b"\x80\2" + parts + b"."


PICKLES = {
    "code": pickle.dumps(Evil()),
    "lists without end": laughs(),
    "bytes of terabytes": b"\x80\5\x8e" + struct.pack("<Q", 10**13) + b".",
    "changeable bytes of gigabytes": b"\x80\5\x96" + struct.pack("<Q", HUGE) + b".",
    "a frame of terabytes": b"\x80\4\x95" + struct.pack("<Q", 10**13) + b".",
    "a list in itself": b"\x80\2]q\0h\0a.",
    "deep lists": b"\x80\2" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a function that is changed": b"\x80\2c_codecs\nencode\n}X\4\0\0\0nameK\1sb.",
    "parts of a function that are changed": b"\x80\2c_codecs\nencode\nN}X\x0c\0\0\0__defaults__)s\x86b.",
    "a class that is changed": b"\x80\2cnumpy\nndarray\n}X\4\0\0\0nameK\1sb.",
    "an attribute of a class": b"\x80\4\x8c\5numpy\x8c\x10ndarray.__init__\x93.",
    "a persistent thing": b"\x80\2K\1Q.",
    "a registered thing": b"\x80\2\x82\1.",
}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("stream", [io.BytesIO, None], ids=["memory", "file"])
def test_pickles_of_a_stranger(tmp_path: Path, kind: str, stream: Any) -> None:
    (tmp_path / "a.pkl").write_bytes(PICKLES[kind])
    with (
        (tmp_path / "a.pkl").open("rb") if stream is None else stream(PICKLES[kind]) as file,
        within(),
        pytest.raises(Exception),  # noqa: B017 — of any kind, as it says
    ):
        unpickle_arrays(file)


def test_a_pickle_that_remembers_by_large_numbers_costs_nothing() -> None:
    """The unpickler in C makes room for all numbers below: here 4 GiB, and 64 GiB at most."""
    with within():
        assert unpickle_arrays(io.BytesIO(b"\x80\2]r\xff\xff\xff\x0f.")) == []


@pytest.mark.parametrize("kind", PICKLES)
def test_feature_sets_and_weights_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(np.zeros(0), descr="|O", shape=(1,)) + PICKLES[kind])
    with within(), pytest.raises(ValueError, match=r"a\.npy: not an array of plain data \(.*nothing in it was run"):
        read_numpy_objects(path)
    (tmp_path / "a.ckpt").write_bytes(PICKLES[kind])
    with within(), pytest.raises(WeightsError, match=r"a\.ckpt: (not a pickle of plain NumPy arrays|holds a)"):
        weights.load_numpy_pickle(tmp_path / "a.ckpt")


def test_text_is_shown_short_whatever_it_is() -> None:
    with pytest.raises(ValueError, match=r"^a list where text is expected$"):
        text([[["a"] * 100] * 100] * 100)  # by reference, a few more levels take a minute to be written out
    with pytest.raises(ValueError, match=r"^3 where text is expected$"):
        text(3)


def torch_bomb(path: Path) -> None:
    """A PyTorch file whose storage is compressed, which PyTorch never does."""
    torch.save({"w": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
                for _ in range(HUGE >> 24 if name.endswith("/data/0") else 0):
                    member.write(bytes(1 << 24))


def unseen_bomb(path: Path) -> None:
    """One whose last bytes have Python's zipfile say that it is no ZIP; PyTorch looks at the first ones."""
    torch_bomb(path)
    path.write_bytes(path.read_bytes() + b"PK\5\6")


def two_faced_bomb(path: Path) -> None:
    """One with two directories: Python reads the one before the end, in which all sizes are 1, PyTorch the other."""
    torch_bomb(path)
    data = path.read_bytes()
    end = data.rfind(b"PK\5\6")
    size, start = struct.unpack("<II", data[end + 12 : end + 20])
    told, at = bytearray(data[start : start + size]), 0
    while told[at : at + 4] == b"PK\1\2":
        lengths = struct.unpack("<HHH", told[at + 28 : at + 34])
        told[at + 20 : at + 28] = struct.pack("<II", 1, 1)
        (where,) = struct.unpack("<I", told[at + 42 : at + 46])
        told[at + 42 : at + 46] = struct.pack("<I", (where - size) % 2**32)
        at += 46 + sum(lengths)
    path.write_bytes(data[:end] + bytes(told) + data[end:])


TORCH: dict[str, Callable[[Path], Any]] = {
    "code": lambda p: torch.save({"w": Evil()}, p),
    "code, in the old format": lambda p: torch.save({"w": Evil()}, p, _use_new_zipfile_serialization=False),
    "a bomb": torch_bomb,
    "a bomb that is no ZIP to Python": unseen_bomb,
    "a bomb with two directories": two_faced_bomb,
    "one number shown as terabytes": lambda p: torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, p),
    "a tensor of no memory": lambda p: torch.save({"w": torch.zeros(10**12, device="meta")}, p),
    "a sparse tensor": lambda p: torch.save({"w": torch.sparse_coo_tensor([[0]], [1.0], (10**12,))}, p),
    "text": lambda p: p.write_text("weights"),
    "nothing": lambda p: p.write_bytes(b""),
}


@pytest.mark.parametrize("kind", TORCH)
def test_torch_files_of_a_stranger(tmp_path: Path, kind: str) -> None:
    TORCH[kind](tmp_path / "a.pt")
    with (
        within(),
        pytest.raises(WeightsError, match=r"a\.pt: (not a PyTorch file of plain tensors|a PyTorch file, but)"),
    ):
        weights.load_torch(tmp_path / "a.pt")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint(**changes: Any) -> Checkpoint:
    config = ModelConfig(classes=2, in_dim=4, dim=4)
    state = {name: torch.zeros(t.shape) for name, t in JCDNet(config).state_dict().items()}
    return Checkpoint(config, ("a", "b"), ("rgb",), {"rgb": {}}, state, **changes)


def forged(path: Path, **changes: object) -> None:
    """A checkpoint whose settings were changed by hand; a text stands for the whole of them."""
    save_checkpoint(checkpoint(), path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    settings = json.loads(header["__metadata__"]["jcdnet"])
    for name, value in changes.items():
        if name == "config":
            settings["config"] |= value  # type: ignore[operator]
        else:
            settings[name] = value
    tensors = {n: torch.zeros(e["shape"]) for n, e in header.items() if n != "__metadata__"}
    path.write_bytes(save_tensors(tensors, {"jcdnet": str(changes.get("text", json.dumps(settings)))}))


def headed(header: bytes, length: int | None = None, body: bytes = b"") -> Callable[[Path], Any]:
    return lambda p: p.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


def tensor_of(**entry: object) -> Callable[[Path], Any]:
    return headed(
        json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry}).encode(), None, b"1234"
    )


CHECKPOINTS: dict[str, Callable[[Path], Any]] = {
    "a header of exabytes": headed(b"{}", 2**63),
    "a header of gigabytes": headed(b"{}", 2**32),
    "a deep header": headed(DEEP.encode()),
    "no header": headed(b""),
    "offsets beyond its end": tensor_of(data_offsets=[0, 2**40], shape=[2**38]),
    "offsets that go back": tensor_of(data_offsets=[4, 0]),
    "a shape beyond counting": tensor_of(shape=[2**40, 2**40]),
    "a kind that is none": tensor_of(dtype="O"),
    "a pickle": lambda p: p.write_bytes(pickle.dumps(Evil())),
    "a PyTorch file": lambda p: torch.save({"w": Evil()}, p),
    "deep settings": lambda p: forged(p, text=DEEP),
    "settings that are a list": lambda p: forged(p, text="[]"),
    "settings of many digits": lambda p: forged(p, text="9" * 5000),
    "a network of terabytes": lambda p: forged(p, config={"dim": 10**6, "in_dim": 10**6}),
    "a network beyond counting": lambda p: forged(p, config={"dim": 10**30}),
    "a setting that is no number": lambda p: forged(p, config={"dropout": float("nan")}),
    "a setting that is a list": lambda p: forged(p, config={"suppress": []}),
    "a setting that does not exist": lambda p: forged(p, config={"__class__": "os"}),
    "classes that are numbers": lambda p: forged(p, classes=[1, 2]),
    "classes that are lists": lambda p: forged(p, classes=[[], []]),
    "streams that are lists": lambda p: forged(p, streams=[["rgb"]]),
    "groups of lists": lambda p: forged(p, groups={"a": []}),
    "provenance of NaN": lambda p: forged(p, provenance={"seed": float("nan")}),
    "features of NaN": lambda p: forged(p, features={"rgb": {"fps": float("inf")}}),
    "localize of NaN": lambda p: forged(p, localize={"threshold": float("nan")}),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    CHECKPOINTS[kind](path)
    assert "model.safetensors" in refused(2, "models", "classes", path)


# --- results, curves, ground truth, labels, settings, other tools' files ----------------------------------------------

RESULT = {
    "schema": 1,
    "video": "a.mp4",
    "duration": 1.28,
    "media": {"width": 4, "height": 4, "rate": "25", "start_timecode": None},
    "partial": False,
    "warnings": [],
    "segments": [{"start": 0, "end": 1, "score": 1, "confidence": 0.5, "label": "a"}],
    "provenance": {},
}
NAN = json.dumps(RESULT).replace('"confidence": 0.5', '"confidence": NaN')
TEXTS = {"deep": DEEP, "NaN": NAN, "many digits": NAN.replace("NaN", "9" * 5000), "inf": NAN.replace("NaN", "1e999")}


@pytest.mark.parametrize("kind", TEXTS)
def test_results_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.json").write_text(TEXTS[kind])
    for command, output in {"report": "out.html", "plot": "out.png", "clips": "out"}.items():
        assert "a.json" in refused(3, command, "a.json", "-o", output)
    (tmp_path / "truth.json").write_text(TEXTS[kind])
    assert "truth.json" in refused(2, "evaluate", "--predictions", "a.json", "--ground-truth", "truth.json")
    save(FEW, tmp_path / "f" / "a.npz")
    (tmp_path / "labels.json").write_text(TEXTS[kind])
    assert "labels.json" in refused(2, "train", "labels.json", "--features", "f", "-o", "out")
    assert "a.json" in refused(2, "labels", "import", "a.json", "--from", "labelstudio")


CURVES = {
    "times": np.array([[0, 0.64], [0.64, 1.28]]),
    "actionness": np.zeros(2),
    "cas": np.zeros((2, 2)),
    "coarse_cas": np.zeros((2, 2)),
    "classes": np.array(["a"]),
}
OTHER_CURVES: dict[str, dict[str, Any]] = {
    "a pickle": {"cas": np.array([[Evil()]], dtype=object)},
    "classes that are a pickle": {"classes": np.array([Evil()], dtype=object)},
    "no curve": {"cas": None},
    "a number": {"cas": np.float64(1)},
    "text": {"cas": np.array([["a", "b"], ["c", "d"]])},
    "no list of classes": {"classes": np.array(3)},
}


@pytest.mark.parametrize("kind", [*OTHER_CURVES, "a bomb", "a pickle instead", "an array instead"])
def test_curves_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.scores.npz"
    if kind == "a bomb":
        zeros(path, HUGE, "cas", CURVES)
    elif kind == "a pickle instead":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "an array instead":
        path.write_bytes(npy(np.zeros(3)))
    else:
        np.savez(path, **{n: a for n, a in (CURVES | OTHER_CURVES[kind]).items() if a is not None})
    (tmp_path / "a.json").write_text(json.dumps(RESULT))
    (tmp_path / "a.mp4").write_bytes(b"")
    assert "a.scores.npz" in refused(3, "plot", "a.json", "-o", "out.png")
    (tmp_path / "truth.json").write_text(
        json.dumps({"database": {"a": {"annotations": [{"label": "a", "segment": [0, 1]}]}}})
    )
    assert "a.scores.npz" in refused(2, "evaluate", "--predictions", "a.json", "--ground-truth", "truth.json")


CSVS = {
    "a million columns": "video,labels" + ",x" * 1_000_000 + "\n" + "a,b\n" * 20_000,
    "a cell of megabytes": "video,labels\na," + "x" * 5_000_000 + "\n",
    "an open quote": 'video,labels\n"' + "a,b\n" * 100_000,
    "zero bytes": "video,labels\n\0\0\0,\0\n",
    "a name that is none": "video,labels\n" + "../" * 50_000 + "etc/passwd,golf\n",
    "a picture": "\x89PNG\r\n\x1a\n\0\0",
}


@pytest.mark.parametrize("kind", CSVS)
def test_labels_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    save(FEW, tmp_path / "f" / "a.npz")
    (tmp_path / "labels.csv").write_text(CSVS[kind], encoding="latin-1")
    said = refused(2, "train", "labels.csv", "--features", "f", "-o", "out")
    assert "labels.csv" in said
    assert not (tmp_path / "out").exists()


def test_labels_that_are_captions_are_not_compared_with_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong column taken for labels: to compare 20,000 captions, each with all others, takes hours."""
    captions = "".join(f"v{i}.mp4,caption number {i} of a video\n" for i in range(1000))
    (tmp_path / "labels.csv").write_text(f"video,labels\n{captions}")
    compared: list[int] = []
    monkeypatch.setattr("difflib.get_close_matches", lambda word, others, **_: compared.append(len(others)) or [])
    assert len(label_problems(load_labels(tmp_path / "labels.csv")[0])) == 1000
    assert sum(compared) == SHOWN * 999


TOMLS = {
    "deep lists": "a = " + DEEP,
    "lists as deep as fit": "a = " + "[" * 8000 + "]" * 8000,
    "deep tables": "[features" + ".a" * 8000 + "]\nb = 1\n",
    "a deep key": "features" + ".a" * 8000 + " = 1\n",
    "tables within tables": "features = " + "{a = " * 2500 + "1" + "}" * 2500,
    "many digits": "[features]\nstride = " + "9" * 5000,
    "no number": "[features]\nfps = nan\n",
    "without end": "[localize]\nthreshold = inf\n",
    "a large number": "[features]\nfps = " + "9" * 400 + "\nlr = " + "9" * 400 + "\n",
}


@pytest.mark.parametrize("kind", TOMLS)
def test_settings_of_a_stranger(refused, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.toml").write_text(TOMLS[kind])
    (tmp_path / "a.mp4").write_bytes(b"")
    assert "a.toml" in refused(2, "run", "a.mp4", "--config", "a.toml")
    save(FEW, tmp_path / "f" / "a.npz")
    (tmp_path / "labels.csv").write_text("video,labels\na,golf\na2,golf\n")
    save(FEW, tmp_path / "f" / "a2.npz")
    (tmp_path / "a.toml").write_text(TOMLS[kind].replace("[features]", "[training]").replace("stride", "steps"))
    assert "a.toml" in refused(2, "train", "labels.csv", "--features", "f", "-o", "out", "--config", "a.toml")


LOL = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
XMLS = {
    "entities without end": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LOL}]><a>&l11;</a>',
    "an entity of another file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "deep": "<a>" * 100_000 + "</a>" * 100_000,
    "an encoding that is none": '<?xml version="1.0" encoding="x-none"?><a/>',
    "many bytes a character": '<?xml version="1.0" encoding="utf-7"?><a/>',
    "nothing": "",
}


@pytest.mark.parametrize("kind", XMLS)
@pytest.mark.parametrize("source", ["elan", "sportscode"])
def test_exports_of_a_stranger(refused, tmp_path: Path, kind: str, source: str) -> None:
    (tmp_path / "a.xml").write_text(XMLS[kind])
    said = refused(2, "labels", "import", "a.xml", "--from", source)
    assert "a.xml" in said
    assert "root:" not in said


@pytest.mark.parametrize(
    "task",
    [
        {"data": {"video": "a", "fps": "1/0"}, "annotations": [{"result": [1]}]},
        {"data": [], "annotations": [{}]},
        {"data": {"video": "a", "fps": "1e999999999"}, "annotations": [{"result": [{"type": "timelinelabels", "value":
            {"ranges": [{"start": 1, "end": 2}]}}]}]},
        {"data": {"video": "a", "fps": 25}, "annotations": [{"result": [{"type": "timelinelabels", "value":
            {"ranges": [{"start": 1, "end": 10**400}]}}]}]},
        {"data": {"video": "a", "fps": 25}, "annotations": [{"result": [{"type": "labels", "value":
            {"start": "x", "end": 2}}]}]},
    ],
)  # fmt: skip
def test_tasks_of_a_stranger(refused, tmp_path: Path, task: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps([task]))
    assert "a.json" in refused(2, "labels", "import", "a.json", "--from", "labelstudio")


@pytest.mark.parametrize("duration", [1e300, 1e15, 5e-324])
def test_a_result_of_a_length_that_no_video_has(jcdnet, tmp_path: Path, duration: float) -> None:
    """Axes, thumbnails and time codes of it are drawn, or it is refused; nothing counts up to its end."""
    encode(tmp_path / "a.mp4", [coded(k) for k in range(4)])
    segment = {"start": 0, "end": duration, "score": 1e300, "confidence": 1, "label": "a"}
    (tmp_path / "a.json").write_text(json.dumps(RESULT | {"duration": duration, "segments": [segment]}))
    np.savez(tmp_path / "a.scores.npz", **CURVES | {"times": np.array([[0, duration / 2], [duration / 2, duration]])})
    for command in (
        ("report", "-o", "out"),
        ("plot", "-o", "a.png"),
        ("plot", "-o", "a.svg"),
        ("clips", "-o", "clips"),
    ):
        with within():
            code, _, said = jcdnet(command[0], "a.json", *command[1:])
        assert code in (0, 2, 3), said


# --- folders ---


def test_links_in_the_cache_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken out or cleared away is the link, never what it points to."""
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    place, mine = tmp_path / "cache" / "features" / "aa", tmp_path / "mine"
    place.mkdir(parents=True)
    mine.mkdir()
    (mine / "precious.npz").write_text("precious")
    content = "a" * 64
    dead = "00000000-1-1"
    (place / f"{content}-1.npz").symlink_to(mine / "precious.npz")
    (place / f"{content}-2.parts").symlink_to(mine, target_is_directory=True)
    (place / f"{content}-3.npz").symlink_to(tmp_path / "nowhere")
    (place / f".x.{dead}.a.part").symlink_to(mine, target_is_directory=True)
    (tmp_path / "cache" / "features" / "bb").symlink_to(mine, target_is_directory=True)
    for path in place.iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
    monkeypatch.setattr("support.files.ABANDONED", -1.0)
    damaged = list(verify(scan()))
    prune(age=0.0, most=0.0)
    assert (mine / "precious.npz").read_text() == "precious"
    assert damaged == []
    assert {path.name for path in place.iterdir()} == {f"{content}-{i}" for i in ("1.npz", "2.parts", "3.npz")}


def test_what_may_not_be_taken_out_is_said(jcdnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's entries in a shared cache: neither counted as gone nor a bug."""
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path))
    entry = tmp_path / "features" / "ab" / f"ab{'0' * 62}-1.npz"
    entry.parent.mkdir(parents=True)
    write_npz(entry)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pipeline.cache.care.remove", denied)
    code, out, said = jcdnet("cache", "prune", "--larger-than", "0KB")
    assert code == 3 and out.startswith("0 taken out")
    assert f"{entry.name}: may not be taken out; it is somebody else's." in said.replace("\n", "")
    assert entry.exists()

    def gone(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("pipeline.cache.care.remove", gone)  # another process was quicker
    code, out, said = jcdnet("cache", "prune", "--larger-than", "0KB")
    assert (code, said) == (0, "") and out.startswith("0 taken out")


def test_links_in_the_output_folder_are_replaced(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.write_text("precious")
    out.mkdir()
    (out / "a.npz").symlink_to(mine)
    save(FEW, out / "a.npz")
    assert mine.read_text() == "precious"
    assert not (out / "a.npz").is_symlink()
    save_checkpoint(checkpoint(), out)
    (out / "model.safetensors").unlink()
    (out / "model.safetensors").symlink_to(mine)
    save_checkpoint(checkpoint(), out)
    assert mine.read_text() == "precious"


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"a-b", b"x" * 10_000, b"00000000-99999999999999999999-1 a 0", b"\xff"]
)
def test_a_lock_of_a_stranger_is_waited_for_and_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(locks, "STALE", 0.05)
    monkeypatch.setattr(locks, "POLL", 0.02)
    path = tmp_path / "a.lock"
    path.write_bytes(content)
    lock = locks.Lock(path)
    assert lock.wait()
    lock.release()


# --- the terminal ---


def test_a_file_cannot_write_to_the_terminal_what_it_likes(jcdnet, tmp_path: Path) -> None:
    """Escape sequences in labels and names: they can move the cursor, change the title, or type for the user."""
    escape = "\x1b]0;title\x07\x1b[2J\x9b31m"
    save_checkpoint(replace(checkpoint(), classes=(f"a{escape}", "b")), tmp_path / "model.safetensors")
    code, out, said = jcdnet("models", "classes", "model.safetensors")
    assert code == 0
    (tmp_path / "a.json").write_text(json.dumps(RESULT | {"video": f"{escape}.mp4", "schema": f"{escape}"}))
    for command in (("plot", "a.json", "-o", "x.png"), ("run", f"{escape}.mp4"), ("models", "classes", escape)):
        code, more, error = jcdnet(*command)
        assert code in (2, 3), error
        out, said = out + more, said + error
    assert not {"\x1b", "\x07", "\x9b"} & set(out + said)


# --- the network ---

NO_NETWORK = """
import socket, sys
def forbidden(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        if isinstance(address, (str, bytes)) and event.startswith("socket.connect"):
            return  # a Unix socket: the machine's own
        with open({mark!r}, "a") as file:
            file.write(f"{{event}} {{address}}\\n")
        raise OSError(f"no network here: {{event}}")
sys.addaudithook(forbidden)
"""


def test_nothing_asks_the_network_unless_a_download_is_asked_for(tmp_path: Path) -> None:
    """doctor, extract, train and run, and all that they start, under a hook that sees each connection and look-up."""
    mark = tmp_path / "asked"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(NO_NETWORK.format(mark=str(mark)))
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "hook"),
        "JCDNET_CACHE": str(tmp_path / "cache"),
        "JCDNET_WEIGHTS": str(tmp_path / "no weights"),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("JCDNET_OFFLINE", None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(root / "cli.py"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    seen = run("models", "fetch", "i3d-flow")
    assert seen.returncode == 4 and mark.exists(), "the hook sees what it should: " + seen.stderr
    mark.unlink()
    (tmp_path / "footage").mkdir()
    for name in ("a", "b"):
        encode(tmp_path / "footage" / f"{name}.mp4", [coded(k + 7 * ord(name)) for k in range(20)])
    (tmp_path / "labels.csv").write_text("video,labels\na.mp4,golf\nb.mp4,golf\n")
    for arguments in (
        ("doctor",),
        ("extract", "footage", "-o", "features", "--streams", "rgb"),
        ("train", "labels.csv", "--videos", "footage", "-o", "a", "--steps", "2", "--dim", "8", "--folds", "0"),
        ("run", "footage", "--model", "a", "-o", "results", "--jobs", "2"),
    ):
        done = run(*arguments)
        if weights.find("i3d-rgb") is not None and arguments[0] != "doctor":
            assert done.returncode == 0, done.stderr
        assert not mark.exists(), f"{arguments[0]}: {mark.read_text()}"

"""Feature sets as W-TALC published them, in files of every age: made here, for several tests."""

import io
import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Writer = Callable[[Path, np.ndarray], None]


def objects(items: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def modern(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=True)


def with_header(path: Path, array: np.ndarray, body: bytes) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    path.write_bytes(file.getvalue() + body)


def numpy1(path: Path, array: np.ndarray) -> None:
    """Python 3 with an old NumPy: protocol 2, in which bytes are an encoded text, and the old module name."""
    if not array.dtype.hasobject:
        return modern(path, array)
    body = pickle.dumps(array, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return with_header(path, array, body)


def python2(path: Path, array: np.ndarray) -> None:
    """Python 2: text is bytes, and so are the numbers of an array."""
    if not array.dtype.hasobject:
        return modern(path, array)
    return with_header(path, array, b"\x80\x02" + _python2(array) + b".")


def _python2(item: Any) -> bytes:
    """What Python 2's cPickle writes of it, protocol 2, without the memo."""
    if item is None or isinstance(item, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[item]
    if isinstance(item, np.ndarray):
        data = list(item.ravel()) if item.dtype.hasobject else item.tobytes()
        state = (1, item.shape, item.dtype, False, data)
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _python2((0,)) + _python2("b") + b"\x87R"
        return start + _python2(state) + b"b"
    if isinstance(item, np.dtype):
        sizes = (item.itemsize, 1) if item.kind == "S" else (-1, -1)
        state = (3, item.str[0], None, None, None, *sizes, 63 if item.hasobject else 0)
        return b"cnumpy\ndtype\n" + _python2(item.str[1:]) + b"K\x00K\x01\x87R" + _python2(state) + b"b"
    if isinstance(item, np.float64):
        return b"cnumpy.core.multiarray\nscalar\n" + _python2(item.dtype) + _python2(item.tobytes()) + b"\x86R"
    if isinstance(item, str | bytes):
        text = item.encode() if isinstance(item, str) else item
        return b"T" + struct.pack("<i", len(text)) + text
    if isinstance(item, int):
        return b"J" + struct.pack("<i", item)
    if isinstance(item, float):
        return b"G" + struct.pack(">d", item)
    assert isinstance(item, list | tuple)
    close = b"e" if isinstance(item, list) else b"t"
    return (b"](" if isinstance(item, list) else b"(") + b"".join(map(_python2, item)) + close


CLASSES = ("HighJump", "LongJump", "Shotput")
FPS = 25.0


def rows(length: int, seed: int = 0, width: int = 2048) -> np.ndarray:
    return np.random.default_rng(seed).random((length, width), np.float32)


def wtalc(
    folder: Path, videos: Sequence[dict[str, Any]], write: Writer = modern, name: str = "Thumos14reduced"
) -> None:
    """The published files, shapes and types. A video: name, rows, labels, subset, segments as (start, end, label)."""
    about = folder / f"{name}-Annotations"
    about.mkdir(parents=True)
    np.save(about / "videoname.npy", np.array([v["name"].encode() for v in videos]))
    np.save(about / "subset.npy", np.array([v["subset"].encode() for v in videos]))
    np.save(about / "classlist.npy", np.array([label.encode() for label in CLASSES]))
    np.save(about / "duration.npy", np.array([[len(v["rows"]) * 0.64 + 0.3] for v in videos]))
    np.save(about / "extracted_fps.npy", np.full(len(videos), 10))
    np.save(about / "original_fps.npy", np.full(len(videos), 30.0))
    write(about / "labels_all.npy", objects([list(v["labels"]) for v in videos]))
    write(about / "labels.npy", objects([[label for *_, label in v["segments"]] for v in videos]))
    write(about / "segments.npy", objects([[[start, end] for start, end, _ in v["segments"]] for v in videos]))
    write(folder / f"{name}-I3D-JOINTFeatures.npy", objects([v["rows"] for v in videos]))


def video(i: int, subset: str = "test", **changes: Any) -> dict[str, Any]:
    """Of 20 to 29 rows; labels and a segment of class i and, in every third, of the next one."""
    labels = tuple(CLASSES[(i + k) % 3] for k in range(1 + (i % 3 == 0)))
    segments = [(1.0 + 4 * k, 3.5 + 4 * k, label) for k, label in enumerate(labels)]
    name = f"video_{subset}_{i:07d}"
    return {
        "name": name,
        "rows": rows(20 + i % 10, i),
        "labels": labels,
        "subset": subset,
        "segments": segments,
    } | changes

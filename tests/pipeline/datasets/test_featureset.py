"""Feature sets on disk: each published layout, written by any Python, and nothing in it is run."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from featuresets import CLASSES, Writer, modern, numpy1, objects, python2, rows, video, with_header, wtalc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extractors.features import Features, FeaturesError, save
from model.config import ModelConfig, TrainConfig
from model.datasets import DatasetError, VideoSet
from model.predict import predict
from model.train import initialise, train
from pipeline.datasets.featureset import FeatureSet, StoredVideo
from pipeline.datasets.layouts import grid, read_feature_set
from pipeline.datasets.wtalc import VideoLabels, labels_from_ground_truth, read_numpy_objects
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action, AnnotatedVideo, from_results, read_ground_truth
from postprocess.evaluation.evaluate import evaluate
from postprocess.evaluation.protocols import CONJOINT, EvaluateError, Scoring
from postprocess.localize import Activations, localize
from postprocess.segment import Result

torch.set_num_threads(1)


# --- files of every age ---


AGES = [modern, numpy1, python2]


def plain(item: Any) -> Any:
    """Make values comparable: arrays and tuples become lists, and text becomes bytes, as in Python 2."""
    if isinstance(item, np.ndarray | list | tuple):
        return [plain(part) for part in item]
    return item.encode() if isinstance(item, str) else item


ITEMS = st.recursive(
    st.one_of(
        st.integers(-(2**31), 2**31 - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(codec="ascii"), max_size=5),
        st.floats(allow_nan=False).map(np.float64),
        st.integers(0, 3).map(lambda n: np.arange(2.0 * n).reshape(n, 2)),
        st.integers(1, 3).map(lambda n: np.arange(n, dtype=">f4")),
        st.just(np.array([b"HighJump", b"Shotput"])),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=8,
)


@given(items=st.lists(ITEMS, max_size=4), age=st.sampled_from(AGES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_objects_come_back_as_numpy_itself_would_read_them(tmp_path: Path, items: list[Any], age: Writer) -> None:
    path = tmp_path / "items.npy"
    age(path, objects(items))
    read = read_numpy_objects(path)
    assert read.dtype == object and read.shape == (len(items),)
    expected = np.load(path, allow_pickle=True, encoding="bytes")
    assert plain(read) == plain(expected) == plain(items)
    for item, other in zip(read, expected, strict=True):
        if isinstance(item, np.ndarray):
            assert item.shape == other.shape and item.dtype.newbyteorder("=") == other.dtype


@pytest.mark.parametrize(
    "array",
    [np.array([b"a", b"bc"]), np.array([[1.5], [2]]), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["é"])],
)
def test_numbers_and_text_need_no_pickle(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(read_numpy_objects(tmp_path / "a.npy"), array)


def test_the_order_of_an_objects_array_is_kept(tmp_path: Path) -> None:
    inner = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    outer = np.asfortranarray(objects([inner, "b", "c", "d"]).reshape(2, 2))
    np.save(tmp_path / "a.npy", outer, allow_pickle=True)
    read = read_numpy_objects(tmp_path / "a.npy")
    assert np.array_equal(read[0, 0], inner) and read[0, 1] == "b" and read[1, 0] == "c"


class Calls:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


class Pointers:
    """An array of objects has bytes that are no objects; NumPy would follow them as pointers."""

    def __reduce__(self) -> tuple[Any, ...]:
        start = np.empty(0).__reduce__()[0]
        return start, (np.ndarray, (0,), b"b"), (1, (1,), Type(), False, struct.pack("<Q", 0x4141414141414141))


class Type:
    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class Fields:
    """A type of numbers claims to hold objects."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, -1, -1, 0)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("hostile", ["system", "eval", "open", "pickle", "codec", "subclass", "pointers", "fields"])
def test_what_asks_for_more_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    payload: dict[str, Any] = {
        "system": Calls(os.system, "touch run"),
        "eval": Calls(eval, "__import__('os').system('touch run')"),
        "open": Calls(open, "run", "w"),
        "pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, "touch run"))),
        "codec": Calls(__import__("codecs").encode, "a", "rot13"),
        "subclass": np.zeros(2).view(np.memmap),
        "pointers": Pointers(),
        "fields": Fields(),
    }
    path = tmp_path / "hostile.npy"
    with_header(path, np.empty(1, object), pickle.dumps(payload[hostile], protocol=protocol))
    with pytest.raises(DatasetError, match=r"hostile\.npy: not an array of plain data \(.*nothing in it was run"):
        read_numpy_objects(path)
    assert not (tmp_path / "run").exists()


def test_a_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    modern(tmp_path / "a.npy", objects([1, Calls(os.system, "touch run")]))
    with pytest.raises(DatasetError, match=r"asks for (posix|nt)\.system"):
        read_numpy_objects(tmp_path / "a.npy")


@pytest.mark.parametrize("age", AGES)
def test_a_cut_file_is_an_error_at_every_length(tmp_path: Path, age: Writer) -> None:
    path = tmp_path / "a.npy"
    age(path, objects([["HighJump"], np.ones((2, 3), np.float32)]))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="nothing in it was run"):
            read_numpy_objects(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.npy: cannot be read \(No such file"):
        read_numpy_objects(tmp_path / "none.npy")


# --- W-TALC ---


@pytest.mark.parametrize("age", AGES)
def test_wtalc(tmp_path: Path, age: Writer) -> None:
    written = [video(i, "validation" if i < 3 else "test") for i in range(5)]
    wtalc(tmp_path, written, age)
    found = read_feature_set(tmp_path)
    assert list(found.videos) == [v["name"] for v in written]
    assert found.streams == ("rgb", "flow") and found.classes == CLASSES and found.notes == ()
    about = {"layout": "W-TALC", "fps": 25.0, "length": 16, "stride": 16}
    assert found.settings == {"rgb": about, "flow": about}
    for stored, one in zip(found.videos.values(), written, strict=True):
        assert np.array_equal(stored.load(), one["rows"]) and stored.load().dtype == np.float32
        assert (stored.labels, stored.subset) == (tuple(sorted(one["labels"])), one["subset"])
        assert stored.duration == pytest.approx(len(one["rows"]) * 0.64 + 0.3)
        assert stored.times[:2].tolist() == [[0, 0.64], [0.64, 1.28]]
        truth = found.ground_truth[stored.name]
        assert truth == AnnotatedVideo(one["subset"], tuple(Action(*s) for s in one["segments"]))
    for stream, columns in (("rgb", slice(0, 1024)), ("flow", slice(1024, 2048))):
        for half in (found.select([stream]), read_feature_set(tmp_path, streams=[stream])):
            assert half.streams == (stream,) and half.settings == {stream: about}
            assert np.array_equal(half.videos[written[0]["name"]].load(), written[0]["rows"][:, columns])
    assert found.select(["flow", "rgb"]).streams == ("rgb", "flow")  # in our order, not the caller's


def test_wtalc_of_videos_of_one_length_and_one_label_is_no_array_of_objects(tmp_path: Path) -> None:
    one = [video(i, rows=rows(4, i), labels=["Shotput"]) for i in range(2)]
    wtalc(tmp_path, one)
    about = tmp_path / "Thumos14reduced-Annotations"
    np.save(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", np.array([v["rows"] for v in one]))
    np.save(about / "labels_all.npy", np.array([v["labels"] for v in one]))
    found = read_feature_set(tmp_path)
    assert [v.labels for v in found.videos.values()] == [("Shotput",)] * 2
    assert np.array_equal(found.videos[one[1]["name"]].load(), one[1]["rows"])


def test_wtalc_videos_that_could_not_be_had_are_left_out_and_counted(tmp_path: Path) -> None:
    gone = [np.zeros((7, 2048), np.float32), np.zeros((0, 2048), np.float32), np.zeros(0, np.float32)]
    wtalc(tmp_path, [video(0), *(video(i, rows=gone[i - 1]) for i in (1, 2, 3))])
    found = read_feature_set(tmp_path)
    assert list(found.videos) == ["video_test_0000000"]
    assert found.notes == ("3 of 4 videos have no features and were left out.",)
    assert len(found.ground_truth) == 4  # actions in videos without features still count as missed


def test_wtalc_needs_neither_segments_nor_durations(tmp_path: Path) -> None:
    wtalc(tmp_path, [video(0), video(1)])
    for name in ("segments", "duration"):
        (tmp_path / f"Thumos14reduced-Annotations/{name}.npy").unlink()
    found = read_feature_set(tmp_path)
    assert found.ground_truth == {} and {v.duration for v in found.videos.values()} == {None}


def test_wtalc_rows_that_do_not_fit_the_durations_need_a_rate(tmp_path: Path) -> None:
    wtalc(tmp_path, [video(0), video(1), video(2)])
    path = tmp_path / "Thumos14reduced-Annotations/duration.npy"
    np.save(path, np.load(path) / 2)
    with pytest.raises(DatasetError, match=r"its rows come from 48\.\d frames per second, not 25; give fps"):
        read_feature_set(tmp_path)
    found = read_feature_set(tmp_path, fps=50)
    assert found.settings["flow"]["fps"] == 50
    assert found.videos["video_test_0000000"].times[-1].tolist() == pytest.approx([19 * 0.32, 20 * 0.32])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["Diving"]}, "its label 'Diving' is not in classlist.npy"),
        ({"labels": [3]}, "3 where text is expected"),
        ({"segments": [(1, 2, "Diving")]}, "its label 'Diving' is not in classlist.npy"),
        ({"segments": [(2, 1, "HighJump")]}, "a segment from 2 to 1 s"),
        ({"segments": [(0, float("nan"), "HighJump")]}, "a segment from 0 to nan s"),
        ({"rows": np.ones((3, 1024), np.float32)}, r"features float32 \(3, 1024\), not \(T, 2048\)"),
        ({"rows": np.ones((3, 2048), np.int32)}, r"features int32 \(3, 2048\)"),
        ({"name": "video_test_0000000"}, "'video_test_0000000': it comes twice"),
    ],
)
def test_wtalc_a_wrong_video_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    wtalc(tmp_path, [video(0), video(1, **changes)])
    with pytest.raises(DatasetError, match=rf"JOINTFeatures\.npy and Thumos14reduced-Annotations: video .*{said}"):
        read_feature_set(tmp_path)


def test_wtalc_files_that_do_not_fit_one_another_are_named(tmp_path: Path) -> None:
    wtalc(tmp_path, [video(0), video(1)])
    about = tmp_path / "Thumos14reduced-Annotations"
    np.save(about / "subset.npy", np.array([b"test"] * 3))
    with pytest.raises(DatasetError, match=r"videoname\.npy names 2 videos, and subset is \(3,\)"):
        read_feature_set(tmp_path)
    (about / "subset.npy").unlink()
    with pytest.raises(DatasetError, match=r"subset\.npy: cannot be read"):
        read_feature_set(tmp_path)
    about.rename(tmp_path / "Thumos14-Annotations")
    with pytest.raises(DatasetError, match="put the folder Thumos14reduced-Annotations there"):
        read_feature_set(tmp_path)


def test_wtalc_labels_and_segments_must_agree(tmp_path: Path) -> None:
    wtalc(tmp_path, [video(0), video(1)])
    modern(tmp_path / "Thumos14reduced-Annotations/labels.npy", objects([["HighJump"], ["HighJump"]]))
    with pytest.raises(DatasetError, match="video 'video_test_0000000': 2 segments with 1 labels"):
        read_feature_set(tmp_path)


# --- UM ---


def stream_files(folder: Path, lengths: dict[str, tuple[int, int]], dtype: type = np.float32) -> None:
    for i, (name, counts) in enumerate(lengths.items()):
        for k, (stream, count) in enumerate(zip(("rgb", "flow"), counts, strict=True)):
            (folder / stream).mkdir(parents=True, exist_ok=True)
            np.save(folder / stream / f"{name}.npy", rows(count, 2 * i + k, 1024).astype(dtype))


def um(folder: Path) -> None:
    """Make two videos to train on and two to test on, one of them unlisted."""
    stream_files(folder / "features/train", {"t1": (5, 5), "t2": (6, 5)})
    stream_files(folder / "features/test", {"e1": (7, 8), "unlisted": (3, 3)}, np.float64)
    (folder / "split_train.txt").write_text("t2\nt1\n")
    (folder / "split_test.txt").write_text("e1\n\n")
    labels = {"t1": ["LongJump"], "t2": ["HighJump", "LongJump"], "e1": ["HighJump", "Ambiguous"]}
    database = {
        name: {"subset": name[0], "annotations": [{"segment": ["1.5", 2], "label": label} for label in shown]}
        for name, shown in labels.items()
    }
    (folder / "gt.json").write_text(json.dumps({"database": database}))


def test_um(tmp_path: Path) -> None:
    um(tmp_path)
    found = read_feature_set(tmp_path)
    assert list(found.videos) == ["t2", "t1", "e1"] and found.classes == ("HighJump", "LongJump")
    assert {n: (v.labels, v.subset, len(v.times)) for n, v in found.videos.items()} == {
        "t1": (("LongJump",), "t", 5),
        "t2": (("HighJump", "LongJump"), "t", 5),
        "e1": (("HighJump",), "e", 7),
    }
    t2 = found.videos["t2"].load()
    assert np.array_equal(t2, np.concatenate([rows(6, 2, 1024)[:5], rows(5, 3, 1024)], axis=1))
    e1 = found.select(["flow"]).videos["e1"].load()
    assert e1.dtype == np.float32 and np.array_equal(e1, rows(8, 1, 1024)[:7])
    assert found.ground_truth["t1"].actions == (Action(1.5, 2, "LongJump"),)
    assert found.settings["rgb"] == {"layout": "UM", "fps": 25.0, "length": 16, "stride": 16}


def test_um_in_part(tmp_path: Path) -> None:
    um(tmp_path)
    found = read_feature_set(tmp_path / "features", fps=30)  # this folder has neither lists nor labels
    assert {n: v.subset for n, v in found.videos.items()} == dict.fromkeys(("t1", "t2"), "train") | dict.fromkeys(
        ("e1", "unlisted"), "test"
    )
    assert found.classes is None and found.videos["t1"].labels is None and found.settings["rgb"]["fps"] == 30
    one = read_feature_set(tmp_path / "features/test")  # and this one has no subset
    assert {n: v.subset for n, v in one.videos.items()} == {"e1": "", "unlisted": ""}
    rgb = one.select(["rgb"]).videos["e1"].load()
    assert np.array_equal(rgb, rows(7, 0, 1024))


def test_um_lists_name_the_subset_of_videos_in_one_folder(tmp_path: Path) -> None:
    stream_files(tmp_path, {"a": (2, 2), "b": (2, 2), "c": (2, 2)})
    (tmp_path / "split_train.txt").write_text("a\n")
    (tmp_path / "split_test.txt").write_text("b\n")
    assert {n: v.subset for n, v in read_feature_set(tmp_path).videos.items()} == {"a": "train", "b": "test"}


@given(rgb=st.integers(1, 9), flow=st.integers(1, 9))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_streams_may_differ_by_one_row(tmp_path: Path, rgb: int, flow: int) -> None:
    stream_files(tmp_path, {"v": (rgb, flow)})
    if abs(rgb - flow) > 1:
        with pytest.raises(DatasetError, match=f"video 'v' has {rgb} of rgb and {flow} of flow rows"):
            read_feature_set(tmp_path)
        return
    found = read_feature_set(tmp_path).videos["v"]
    shortest = min(rgb, flow)
    both = [rows(rgb, 0, 1024)[:shortest], rows(flow, 1, 1024)[:shortest]]
    assert np.array_equal(found.load(), np.concatenate(both, axis=1)) and len(found.times) == shortest


@given(count=st.integers(0, 3000), fps=st.floats(1, 240))
def test_rows_tile_time(count: int, fps: float) -> None:
    times = grid(count, fps)
    assert times.shape == (count, 2) and times.dtype == np.float64
    assert np.array_equal(times[1:, 0], times[:-1, 1])  # exactly, or localize would see gaps
    expected = [(16 * i / fps, 16 * (i + 1) / fps) for i in range(count)]
    assert np.allclose(times, np.array(expected).reshape(-1, 2), rtol=1e-12)


def test_um_errors(tmp_path: Path) -> None:
    um(tmp_path)
    (tmp_path / "features/test/flow/e1.npy").unlink()
    with pytest.raises(DatasetError, match=r"flow: no e1\.npy in it"):
        read_feature_set(tmp_path)
    assert read_feature_set(tmp_path, streams=["rgb"]).streams == ("rgb",)
    (tmp_path / "split_test.txt").write_text("gone\n")
    with pytest.raises(DatasetError, match=r"test.rgb: no gone\.npy in it"):
        read_feature_set(tmp_path)
    (tmp_path / "split_test.txt").write_text("t1\n")
    with pytest.raises(DatasetError, match="video 't1' comes twice"):
        read_feature_set(tmp_path)
    (tmp_path / "split_test.txt").write_text("unlisted\n")
    with pytest.raises(EvaluateError, match="'unlisted' is not in the ground truth"):
        read_feature_set(tmp_path)
    (tmp_path / "split_test.txt").write_text("")
    assert {v.subset for v in read_feature_set(tmp_path).videos.values()} == {"t"}
    (tmp_path / "split_test.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DatasetError, match=r"split_test\.txt: not a list of videos"):
        read_feature_set(tmp_path)
    with pytest.raises(DatasetError, match=r"hold no \.npy files"):
        (tmp_path / "empty/rgb").mkdir(parents=True)
        read_feature_set(tmp_path / "empty")


def test_a_missing_stream_is_named(tmp_path: Path) -> None:
    stream_files(tmp_path / "train", {"a": (2, 2)})
    (tmp_path / "test/rgb").mkdir(parents=True)
    with pytest.raises(DatasetError, match="test: has no flow/"):
        read_feature_set(tmp_path)
    with pytest.raises(DatasetError, match="streams are rgb and flow, not 'depth'"):
        read_feature_set(tmp_path, streams=["depth"])
    with pytest.raises(DatasetError, match="there is no flow stream in these features, only rgb"):
        read_feature_set(tmp_path / "train", streams=["rgb"]).select(["rgb", "flow"])


# --- plain arrays ---


def test_plain(tmp_path: Path) -> None:
    for i, name in enumerate(("b.v2", "a")):
        np.save(tmp_path / f"{name}.npy", rows(3 + i, i))
    (tmp_path / "._a.npy").write_bytes(b"left by a file manager")
    found = read_feature_set(tmp_path)
    assert list(found.videos) == ["a", "b.v2"] and found.streams == ("rgb", "flow")
    loaded = found.videos["b.v2"].load()
    assert isinstance(loaded, np.memmap) and np.array_equal(loaded, rows(3, 0))
    assert np.array_equal(found.select(["flow"]).videos["a"].load(), rows(4, 1)[:, 1024:])
    assert np.array_equal(read_feature_set(tmp_path, streams=("rgb",)).videos["a"].load(), rows(4, 1)[:, :1024])
    about = found.videos["a"]
    assert (about.labels, about.duration, about.subset, about.times.shape) == (None, None, "", (4, 2))
    assert found.settings["flow"]["layout"] == "plain" and found.classes is None


def test_one_plain_stream_must_be_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(3, 0, 1024).astype(np.float16))
    for streams in (None, ("rgb", "flow")):
        with pytest.raises(DatasetError, match=r"a\.npy: is 1024 wide, one stream; say which, rgb or flow"):
            read_feature_set(tmp_path, streams=streams)
    found = read_feature_set(tmp_path, streams=["flow"])
    assert found.streams == ("flow",) and list(found.settings) == ["flow"]
    assert found.videos["a"].load().dtype == np.float32 and found.videos["a"].load().shape == (3, 1024)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((3, 512), np.float32), "is 512 wide; understood are 1024"),
        (np.ones(2048, np.float32), r"holds float32 \(2048,\), not floating-point \(T, D\); understood are"),
        (np.ones((3, 2048), np.int64), r"holds int64 \(3, 2048\)"),
        (np.ones((0, 2048), np.float32), "holds no row"),
        (objects([np.ones((3, 2048))]), "not a whole array of numbers"),
    ],
)
def test_plain_errors(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DatasetError, match=rf"a\.npy: {said}"):
        read_feature_set(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 1024)}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 1024)}}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1024)}",
        "{'descr'",
        "{{}: 1}",
    ],
)
def test_plain_headers_of_a_stranger(tmp_path: Path, header: str) -> None:
    text = header.encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(4096))
    with pytest.raises(DatasetError, match=r"a\.npy: (not a whole array of numbers; get|holds)") as caught:
        read_feature_set(tmp_path, streams=["rgb"])
    assert "pickle" not in str(caught.value)


def test_plain_damage_and_mixture(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(3))
    whole = (tmp_path / "a.npy").read_bytes()
    for wrong in (b"", whole[:50], whole[:-1], b"text", b"PK\x03\x04"):
        (tmp_path / "a.npy").write_bytes(wrong)
        with pytest.raises(DatasetError, match=r"a\.npy: not a whole array of numbers"):
            read_feature_set(tmp_path)
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, rows=rows(3))
    with pytest.raises(DatasetError, match=r"a\.npy: holds an archive"):
        read_feature_set(tmp_path)
    (tmp_path / "a.npy").write_bytes(whole)
    np.save(tmp_path / "b.npy", rows(3, 0, 1024))
    with pytest.raises(DatasetError, match=r"a\.npy is 2048 wide and b\.npy 1024; one folder, one width"):
        read_feature_set(tmp_path)


# --- our own ---

OWN = Features(
    rgb=rows(4, 0, 8),
    flow=rows(4, 1, 8),
    times=grid(4, 25) + 0.02,
    duration=2.9,
    media={},
    settings={"rgb": {"fps": 25.0, "crop": 224}, "flow": {"fps": 25.0, "crop": 224, "flow": "opencv"}},
    warnings=("cut short",),
)


def test_own(tmp_path: Path) -> None:
    save(OWN, tmp_path / "tennis/clip.v1.npz")
    save(replace(OWN, warnings=()), tmp_path / "b.npz")
    np.savez(tmp_path / "b.scores.npz", cas=np.ones(3))  # a result's curves may be in the folder
    found = read_feature_set(tmp_path)
    assert list(found.videos) == ["b", "tennis/clip.v1"] and found.settings == OWN.settings
    assert found.streams == ("rgb", "flow") and found.notes == ("tennis/clip.v1: cut short",)
    stored = found.videos["tennis/clip.v1"]
    assert np.array_equal(stored.load(), OWN.stacked(("rgb", "flow"))) and stored.duration == 2.9
    assert np.array_equal(stored.times, OWN.times)
    rgb = read_feature_set(tmp_path, streams=["rgb"])
    assert np.array_equal(rgb.videos["b"].load(), OWN.rgb) and list(rgb.settings) == ["rgb"]


def test_own_settings_must_agree_in_the_streams_that_are_used(tmp_path: Path) -> None:
    save(OWN, tmp_path / "a.npz")
    save(OWN, tmp_path / "b.npz")
    other = OWN.settings | {"flow": {"fps": 25.0, "crop": 224, "flow": "numba"}}
    save(replace(OWN, settings=other), tmp_path / "c.npz")
    with pytest.raises(DatasetError, match=r"a and c were extracted with .* \(flow flow: opencv, numba\)"):
        read_feature_set(tmp_path)
    assert len(read_feature_set(tmp_path, streams=["rgb"]).videos) == 3
    save(replace(OWN, flow=None, settings={"rgb": OWN.settings["rgb"]}), tmp_path / "c.npz")
    with pytest.raises(DatasetError, match=r"a and c were extracted with .* \(rgb and flow, not rgb\)"):
        read_feature_set(tmp_path)
    with pytest.raises(DatasetError, match=r"c\.npz: has no flow stream"):
        read_feature_set(tmp_path, streams=["rgb", "flow"])


def test_own_errors(tmp_path: Path) -> None:
    save(OWN, tmp_path / "a.npz")
    with pytest.raises(DatasetError, match="know their own times; leave fps out"):
        read_feature_set(tmp_path, fps=25)
    emptied = replace(OWN, rgb=OWN.rgb[:0], flow=None, times=OWN.times[:0], settings={"rgb": OWN.settings["rgb"]})
    save(emptied, tmp_path / "a.npz")
    with pytest.raises(DatasetError, match=r"a\.npz: holds no snippet"):
        read_feature_set(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"cut")
    with pytest.raises(FeaturesError, match=r"a\.npz: not a whole features file"):
        read_feature_set(tmp_path)


# --- which layout ---


def test_an_unknown_folder_says_what_it_holds_and_what_is_understood(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none: no such folder"):
        read_feature_set(tmp_path / "none")
    with pytest.raises(DatasetError, match="no features in it, only nothing; understood are"):
        read_feature_set(tmp_path)
    for name in ("a.mp4", "b.mp4", "x.csv"):
        (tmp_path / name).touch()
    (tmp_path / "clips").mkdir()
    with pytest.raises(DatasetError, match=r"only 2 \.mp4 files, clips/, 1 \.csv files; understood are") as caught:
        read_feature_set(tmp_path)
    assert "JOINTFeatures.npy beside" in str(caught.value) and "(T, 1024) or (T, 2048)" in str(caught.value)
    with pytest.raises(DatasetError, match="0 frames per second make no sense"):
        read_feature_set(tmp_path, fps=0)


def test_an_ambiguous_folder_is_not_guessed_at(tmp_path: Path) -> None:
    wtalc(tmp_path, [video(0)])
    assert read_feature_set(tmp_path).classes == CLASSES
    wtalc(tmp_path, [video(0)], name="ActivityNet1.2")
    both = r"holds ActivityNet1\.2-I3D-JOINTFeatures\.npy and Thumos14reduced-I3D-JOINTFeatures\.npy; put each"
    with pytest.raises(DatasetError, match=both):
        read_feature_set(tmp_path)
    save(OWN, tmp_path / "other/a.npz")
    stream_files(tmp_path / "other", {"a": (1, 1)})
    np.save(tmp_path / "other/a.npy", rows(2))
    with pytest.raises(DatasetError, match=r"holds 1 \.npz files and rgb/ or flow/ folders and 1 \.npy files"):
        read_feature_set(tmp_path / "other")


# --- labels ---


def bare(names: Sequence[str]) -> FeatureSet:
    """Make videos that are never loaded."""

    def read(streams: tuple[str, ...]) -> np.ndarray:
        raise AssertionError

    return FeatureSet({name: StoredVideo(name, read, ("rgb",), grid(2, 25)) for name in names}, ("rgb",), {"rgb": {}})


def test_labels_come_from_a_ground_truth() -> None:
    truth = {
        "a": AnnotatedVideo("training", (Action(0, 1, "x"), Action(2, 3, "Ambiguous"), Action(3, 4, "x"))),
        "b": AnnotatedVideo("validation", (Action(0, 1, "y"), Action(2, 3, "x"))),
        "c": AnnotatedVideo("", ()),
        "d": AnnotatedVideo("training", (Action(0, 1, "z"),)),
    }
    assert labels_from_ground_truth(truth) == {
        "a": VideoLabels(("x",), "training"),
        "b": VideoLabels(("x", "y"), "validation"),
        "c": VideoLabels((), ""),
        "d": VideoLabels(("z",), "training"),
    }
    found = bare(["v_b", "c", "a.mp4"]).annotated(truth)  # ActivityNet names its files v_<id>
    assert {n: (v.labels, v.subset) for n, v in found.videos.items()} == {
        "v_b": (("x", "y"), "validation"),
        "c": ((), ""),
        "a.mp4": (("x",), "training"),
    }
    assert found.classes == ("x", "y")  # no video with features shows z
    with pytest.raises(EvaluateError, match="'e' is not in the ground truth"):
        bare(["a", "e"]).annotated(truth)


@pytest.fixture
def thumos() -> dict[str, AnnotatedVideo]:
    shared = Path(os.environ.get("JCDNET_SHARED", Path(__file__).parents[4] / "shared"))
    path = shared / "reference" / "thumos14_gt.json"
    if not path.is_file():
        pytest.skip("no THUMOS14 ground truth (JCDNET_SHARED)")
    return read_ground_truth(path)


def test_the_conjoint_subset_of_thumos14(thumos: dict[str, AnnotatedVideo]) -> None:
    whole = bare(list(thumos)).annotated(thumos)
    assert whole.classes is not None and len(whole.classes) == 20
    assert (whole.classes[0], whole.classes[7], whole.classes[19]) == ("BaseballPitch", "Diving", "VolleyballSpiking")
    found = whole.conjoint()
    assert found.classes == tuple(sorted(CONJOINT["all"]))
    for subset, videos, instances in (("test", 127, 2074), ("train", 118, 1985)):  # counted in WTAL, section 4
        assert sum(v.subset == subset for v in found.videos.values()) == videos
        assert sum(len(v.actions) for v in found.ground_truth.values() if v.subset == subset) == instances
    for stored in found.videos.values():
        assert stored.labels and set(stored.labels) <= set(CONJOINT["all"])
    without = whole.conjoint("without diving")
    assert without.classes == tuple(c for c in found.classes if "Diving" not in c)
    dived = {n for n, v in found.videos.items() if set(v.labels or ()) <= {"Diving", "CliffDiving"}}
    assert without.videos.keys() == found.videos.keys() - dived and dived
    assert not {a.label for v in without.ground_truth.values() for a in v.actions} & {"Diving", "CliffDiving"}


def test_a_conjoint_subset_needs_its_classes() -> None:
    with pytest.raises(DatasetError, match="the labels lack BaseballPitch"):
        bare(["a"]).conjoint()
    with pytest.raises(DatasetError, match="unknown conjoint subset 'none'; there are: all, without diving"):
        bare(["a"]).conjoint("none")


# --- from the published files to a figure ---


def test_published_features_train_and_are_scored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = []
    for i in range(12):
        one = video(i, "validation" if i < 8 else "test", rows=rows(int(rng.integers(20, 41)), i))
        one["rows"] *= one["rows"] > 0.9  # sparse, like the features of a network with ReLUs
        one["rows"][:, [CLASSES.index(label) for label in one["labels"]]] += 4
        written.append(one)
    wtalc(tmp_path, written)
    found = read_feature_set(tmp_path)
    assert found.classes is not None

    learn = [v for v in found.videos.values() if v.subset == "validation"]
    labels = np.array([[name in (v.labels or ()) for name in found.classes] for v in learn])
    data = VideoSet([v.load() for v in learn], labels, tuple(v.name for v in learn), found.classes)
    start = initialise(ModelConfig(3, data.width, 16), found.classes, found.streams, found.settings, seed=0)
    trained = train(start, data, TrainConfig(steps=8, batch=6, snippets=24, lr=1e-3))
    assert trained.features == found.settings and trained.streams == ("rgb", "flow")

    net, results = trained.build(), []
    for v in (v for v in found.videos.values() if v.subset == "test"):
        scores = predict(net, v.load())
        assert v.duration is not None
        given = Activations(scores.cas, scores.actionness, scores.video, v.times, trained.classes, v.duration)
        segments = localize(given, LocalizeConfig(rule="paper"))
        results.append(Result(v.name, v.duration, {}, tuple(segments), (), {}, False))
    scored = evaluate(found.ground_truth, from_results(results), Scoring(subset="test"))
    assert (scored.overall.videos, scored.overall.instances) == (4, sum(len(v["segments"]) for v in written[8:]))
    assert scored.predictions > 0 and not scored.notes

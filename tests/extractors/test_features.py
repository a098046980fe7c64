"""Features: cutting a video changes nothing, and a features file is whole or refused."""

import itertools
import json
import math
import os
import stat
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Pixels, coded, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.config import FeatureConfig, Stretch, setting_of
from extractors.decode.grid import Frames
from extractors.decode.video import VideoError
from extractors.features import Extractor, Features, FeaturesError, load, save
from extractors.inputs.host import flow_input, rgb_input
from extractors.snippets import Snippet, snippets
from support.files import write_atomically

pytestmark = pytest.mark.usefixtures("stubs")

CONFIG = FeatureConfig(backbone="stub", flow="stub", short_side=48, crop=32)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(CONFIG, ("flow", "rgb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def video(folder: Path, name: str, frames: int, **how: Any) -> Path:
    path = folder / f"{frames}-{name}"
    return path if path.exists() else encode(path, [coded(k) for k in range(frames)], **how)


# --- cutting ----------------------------------------------------------------------------------------------------------

H264 = {"preset": "medium", "bf": "3", "g": "60"}
KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {"options": H264},
    "a.mkv": {"options": H264, "rate": 30},
    "a.ts": {"options": H264, "sound": 8},
    "a.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "40"}},
    "late.mkv": {"options": H264, "times": [3 + k / 25 for k in range(201)], "sound": 2},
}


@pytest.mark.parametrize("name", KINDS)
def test_chunks_join_to_the_whole_bit_for_bit(extractor: Extractor, folder: Path, name: str) -> None:
    path = video(folder, name, 201, **KINDS[name])
    whole = extractor.chunk(path)
    assert whole.rgb is not None and whole.flow is not None
    count = len(whole.times)
    origin = whole.times[0, 0]
    for cuts in ([4], [1, 2, 9], range(1, count)):
        edges = [0.0, *(origin + 0.64 * c for c in cuts), math.inf]
        parts = [extractor.chunk(path, Stretch(a, b)) for a, b in itertools.pairwise(edges)]
        for stream in ("rgb", "flow", "times"):
            joined = np.concatenate([getattr(part, stream) for part in parts])
            assert joined.tobytes() == getattr(whole, stream).tobytes(), (cuts, stream)
        assert not any(part.partial for part in parts)
        assert parts[-1].duration == whole.duration


def test_201_frames(extractor: Extractor, folder: Path) -> None:
    found = extractor.chunk(video(folder, "a.mp4", 201, **KINDS["a.mp4"]))
    np.testing.assert_allclose(found.times, [(0.64 * i, 0.64 * (i + 1)) for i in range(12)])
    assert found.duration == pytest.approx(201 / 25)
    assert found.warnings == ()
    assert found.settings == extractor.settings()


@pytest.mark.parametrize(("length", "stride"), [(16, 4), (8, 16), (1, 1)])
def test_other_strides_cut_alike(folder: Path, length: int, stride: int) -> None:
    path = video(folder, "a.mp4", 60, options=H264)
    small = Extractor(replace(CONFIG, length=length, stride=stride), ("rgb", "flow"))
    whole = small.chunk(path)
    middle = float(whole.times[len(whole.times) // 2, 0])
    parts = [small.chunk(path, Stretch(0.0, middle)), small.chunk(path, Stretch(middle))]
    assert np.concatenate([p.rgb for p in parts]).tobytes() == whole.rgb.tobytes()
    assert np.concatenate([p.flow for p in parts]).tobytes() == whole.flow.tobytes()
    np.testing.assert_array_equal(np.concatenate([p.times for p in parts]), whole.times)


def test_a_chunk_covers_what_was_asked(extractor: Extractor, folder: Path) -> None:
    path = video(folder, "a.mp4", 201, **KINDS["a.mp4"])
    part = extractor.chunk(path, Stretch(3.0, 5.0))
    assert part.times[0, 0] <= 3.0 < part.times[0, 1]
    assert part.times[-1, 0] < 5.0 <= part.times[-1, 1]
    assert part.duration == pytest.approx(201 / 25)
    assert not part.partial
    with pytest.raises(VideoError, match=r"nothing after 50 s; the video ends at 8\.04 s, give an earlier --start\."):
        extractor.chunk(path, Stretch(50.0))


def test_only_the_asked_stream_is_computed(extractor: Extractor, folder: Path) -> None:
    path = video(folder, "a.mp4", 60, options=H264)
    both, rgb = extractor.chunk(path), extractor.chunk(path, streams=("rgb",))
    assert rgb.flow is None
    assert list(rgb.settings) == ["rgb"]
    np.testing.assert_array_equal(rgb.rgb, both.rgb)


@pytest.mark.parametrize("frames", [1, 5, 15])
def test_a_short_video_is_one_snippet_and_says_so(extractor: Extractor, folder: Path, frames: int) -> None:
    found = extractor.chunk(video(folder, "a.mp4", frames))
    assert found.times.tolist() == [[0.0, 0.64]]
    assert found.duration == pytest.approx(frames / 25)
    assert "shorter than a snippet (0.64 s)" in " ".join(found.warnings)
    grid = found.flow.reshape(2, 16, -1)
    assert not grid[:, frames:].any()  # nothing moves where the last frame is repeated


def test_progress_is_told_by_stage(extractor: Extractor, folder: Path) -> None:
    extractor.batch = 2
    told: list[tuple[str, int, int]] = []
    extractor.chunk(video(folder, "a.mp4", 60, options=H264), on_progress=lambda *said: told.append(said))
    assert [done for stage, done, _ in told if stage == "decode"] == [2, 3]
    assert {stage for stage, _, _ in told} == {"decode", "flow", "i3d"}
    assert all(1 <= done <= total for _, done, total in told)


def test_what_is_wrong_with_the_file_is_told(extractor: Extractor, folder: Path) -> None:
    whole = video(folder, "a.mkv", 100)
    cut = folder / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found = extractor.chunk(cut)
    assert found.partial
    assert "before the file says" in " ".join(found.warnings)
    assert found.duration < 3


def test_settings_tell_apart_what_changes_the_numbers() -> None:
    base = Extractor(CONFIG, ("rgb", "flow")).settings()
    assert list(base) == ["rgb", "flow"]
    assert json.loads(json.dumps(base)) == base
    changes: list[dict[str, Any]] = [{"fps": 30.0}, {"length": 8}, {"stride": 8}, {"short_side": 64}, {"crop": 48}]
    for change in changes:
        other = Extractor(replace(CONFIG, **change), ("rgb", "flow")).settings()
        assert other["rgb"] != base["rgb"], change
        assert other["flow"] != base["flow"], change
    whole = Extractor(replace(CONFIG, view="whole"), ("rgb", "flow")).settings()
    # Features of the centre, which were made before there was a choice, say nothing about it.
    assert whole == {stream: about | {"view": "whole"} for stream, about in base.items()}
    assert [setting_of(found["rgb"], "view") for found in (base, whole)] == ["centre", "whole"]
    clipped = Extractor(replace(CONFIG, flow_clip=10.0), ("rgb", "flow")).settings()
    assert clipped["rgb"] == base["rgb"]
    assert clipped["flow"] != base["flow"]
    heavier = Extractor(CONFIG, ("rgb", "flow"), weights={"flow": Path("own.pt")}).settings()
    assert heavier["rgb"] == base["rgb"]
    assert heavier["flow"] != base["flow"]


# --- network inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((49, 80), (0, 49, 0, 80)),
        ((80, 49), (0, 80, 0, 49)),
        ((48, 200), (0, 48, 28, 172)),
        ((150, 48), (3, 147, 0, 48)),
    ],
)
def test_a_whole_frame_is_seen_up_to_three_times_as_long_as_wide(
    size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    top, bottom, left, right = expected
    found = rgb_input((frame, frame), replace(CONFIG, length=2, view="whole")).numpy()
    np.testing.assert_allclose(found[:, 1], frame[top:bottom, left:right].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_rgb_input_is_the_centre_square_in_minus_one_to_one() -> None:
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (49, 80, 3), np.uint8) for _ in range(3))
    found = rgb_input(frames, replace(CONFIG, length=3)).numpy()
    assert found.shape == (3, 3, 32, 32)
    for channel in range(3):
        for t in range(3):
            expected = frames[t][8:40, 24:56, channel] / 255 * 2 - 1
            np.testing.assert_allclose(found[channel, t], expected, atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_flow_input_is_clipped_and_its_last_field_repeated(last: bool) -> None:
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (48, 50, 3), np.uint8) for _ in range(5))
    snippet = Snippet(0, frames[:4], None if last else frames[4])
    found = flow_input(snippet, replace(CONFIG, length=4), "stub").numpy()
    assert found.shape == (2, 4, 32, 32)
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(float)[8:40, 9:41] for f in frames]
    for t in range(4):
        source = 2 if last and t == 3 else t
        change = grey[source + 1] - grey[source]
        np.testing.assert_allclose(found[0, t], np.clip(change, -20, 20) / 20, atol=1e-6)
        np.testing.assert_allclose(found[1, t], np.clip(change / 2, -20, 20) / 20, atol=1e-6)


def test_flow_of_one_frame_at_the_end_is_nothing() -> None:
    found = flow_input(Snippet(0, (coded(0, 48, 48),), None), replace(CONFIG, length=1), "stub")
    assert found.shape == (2, 1, 32, 32)
    assert not found.any()


def test_the_rows_are_the_frames_of_the_grid(extractor: Extractor, folder: Path) -> None:
    """The whole way, a second time by hand."""
    path = video(folder, "a.mp4", 60, options=H264)
    found = extractor.chunk(path)
    with Frames(path, CONFIG.fps, CONFIG.short_side) as frames:
        cut = list(snippets(frames.grid(), length=16, stride=16))
    for row, snippet in enumerate(cut):
        expected = Pixels()(rgb_input(snippet.frames, CONFIG)[None])[0].numpy()
        np.testing.assert_array_equal(found.rgb[row], expected)


# --- the file ---------------------------------------------------------------------------------------------------------


def example(t: int = 3, flow_too: bool = True) -> Features:
    rng = np.random.default_rng(t)
    return Features(
        rgb=rng.normal(size=(t, 8)).astype(np.float32),
        flow=rng.normal(size=(t, 4)).astype(np.float32) if flow_too else None,
        times=np.arange(2 * t, dtype=np.float64).reshape(t, 2) / 3,
        duration=1 / 3,
        media={"width": 4, "height": 3, "rate": "30000/1001", "start_timecode": None},
        settings={"rgb": {"fps": 25.0, "weights": "é"}} | ({"flow": {"fps": 25.0}} if flow_too else {}),
        warnings=("it is damaged in 1 place.",),
        partial=True,
    )


def same(one: Features, other: Features) -> bool:
    arrays = all(
        (a is None and b is None) or (a.dtype == b.dtype and a.tobytes() == b.tobytes() and a.shape == b.shape)
        for a, b in ((one.rgb, other.rgb), (one.flow, other.flow), (one.times, other.times))
    )
    rest = ("duration", "media", "settings", "warnings", "partial")
    return arrays and all(getattr(one, name) == getattr(other, name) for name in rest)


@pytest.mark.parametrize("flow_too", [True, False])
@pytest.mark.parametrize("t", [1, 3, 100])
def test_round_trip(tmp_path: Path, t: int, flow_too: bool) -> None:
    path = tmp_path / "deep" / "er" / "a.npz"
    save(example(t, flow_too), path)
    assert same(load(path), example(t, flow_too))


def test_anyone_can_read_the_file_without_us(tmp_path: Path) -> None:
    save(example(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"rgb", "flow", "times", "settings"}
        assert archive["rgb"].dtype == archive["flow"].dtype == np.float32
        assert archive["times"].dtype == np.float64
        assert json.loads(str(archive["settings"]))["settings"] == example().settings


def test_stacked_puts_rgb_first() -> None:
    both = example()
    np.testing.assert_array_equal(both.stacked(("flow", "rgb")), np.hstack([both.rgb, both.flow]))
    np.testing.assert_array_equal(both.stacked(("flow",)), both.flow)
    with pytest.raises(FeaturesError, match="needs the flow stream"):
        example(flow_too=False).stacked(("rgb", "flow"))


def refuse(path: Path, word: str = "") -> None:
    with pytest.raises(FeaturesError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert word in text


def test_no_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.npz", "no such features file")
    refuse(tmp_path, "no such features file")


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    save(example(), tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    for size in [*range(0, len(data), 37), len(data) - 1]:
        (tmp_path / "cut.npz").write_bytes(data[:size])
        refuse(tmp_path / "cut.npz")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_never_gives_other_features(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp("bits") / "a.npz"
    save(example(), path)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        found = load(path)
    except FeaturesError:
        return
    # The ZIP has bytes that mean nothing, such as dates; nothing else may pass.
    assert same(found, example())


def test_a_damaged_name_in_the_directory_hides_no_stream(tmp_path: Path) -> None:
    save(example(), tmp_path / "a.npz")
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[raw.rindex(b"rgb.npy")] ^= 1
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(FeaturesError, match="rgb stream that its settings describe is not there"):
        load(tmp_path / "a.npz")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("jcdnet-was-here",)


def meta(**changed: Any) -> np.ndarray:
    said = {"settings": {}, "duration": 1.0, "media": {}, "warnings": [], "partial": False} | changed
    return np.array(json.dumps(said))


GOOD = {"rgb": np.ones((2, 3), np.float32), "times": np.ones((2, 2)), "settings": meta()}


@pytest.mark.parametrize(
    "changed",
    [
        {"rgb": np.ones((3, 3), np.float32)},
        {"rgb": np.ones(2, np.float32)},
        {"rgb": np.ones((2, 3, 1), np.float32)},
        {"rgb": np.array([[1, np.nan, 1]] * 2, np.float32)},
        {"flow": np.array([[1, np.inf, 1]] * 2, np.float32)},
        {"rgb": np.array([["a", "b"]] * 2)},
        {"rgb": None},
        {"times": None},
        {"times": np.ones((2, 3))},
        {"times": np.ones(2)},
        {"times": np.array(1.0)},
        {"times": np.full((2, 2), np.nan)},
        {"settings": None},
        {"settings": np.array("not JSON")},
        {"settings": np.array('["a list"]')},
        {"settings": meta(duration="long")},
        {"settings": meta(duration=math.nan)},
        {"settings": meta(media=None)},
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    arrays = {name: value for name, value in (GOOD | changed).items() if value is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    refuse(tmp_path / "a.npz", "not a whole features file")
    np.savez(tmp_path / "good.npz", **GOOD)
    load(tmp_path / "good.npz")


def test_pickles_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = np.array([[Evil()]], dtype=object)
    np.savez("a.npz", **GOOD | {"rgb": evil})
    refuse(Path("a.npz"))
    np.savez("b.npz", **GOOD | {"extra": evil})
    load(Path("b.npz"))  # what else is in it is not read
    np.save("c.npy", evil, allow_pickle=True)
    Path("c.npy").rename("c.npz")
    refuse(Path("c.npz"))
    evil.dump("d.npz")
    refuse(Path("d.npz"))
    assert not Path("jcdnet-was-here").exists()


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refuse(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.ones(3))
    refuse(tmp_path / "b.npy")


# --- writing ----------------------------------------------------------------------------------------------------------


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    target = tmp_path / "a.npz"
    write_atomically(target, b"old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "chmod": (Path, "chmod"), "replace": (Path, "replace")}[step], fail)
    with pytest.raises(type(error)):
        write_atomically(target, b"new and longer")
    monkeypatch.undo()
    assert listing(tmp_path) == ["a.npz"]
    assert target.read_bytes() == b"old"


def test_the_temporary_file_stands_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename across file systems is no rename."""
    seen: list[Path] = []
    replace_ = Path.replace

    def watch(self: Path, target: Any) -> Any:
        seen.append(self)
        assert self.read_bytes() == b"data"  # whole before it takes the name
        return replace_(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    write_atomically(tmp_path / "a.json", b"data")
    assert [p.parent for p in seen] == [tmp_path]
    assert seen[0].name.startswith(".")


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a", b"x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask
    finally:
        assert os.umask(before) == mask  # the write left it as it was


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "é" * 120 + ".json", "a b'c\"%.npz"])
def test_long_and_odd_names(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"data")
    assert listing(tmp_path) == [name]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        save(example(), tmp_path / "file" / "a.npz")

"""Container time and damaged files: every frame carries its number, so that the grid can be checked exactly."""

import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from conftest import coded, encode, number_of, probe
from hypothesis import given
from hypothesis import strategies as st

from extractors.decode import clock
from extractors.decode import container as video
from extractors.decode.clock import decode
from extractors.decode.container import Orientation, open_video
from extractors.decode.grid import Frames
from extractors.decode.video import Damage, VideoError, fit
from pipeline.clips import overlay as render
from pipeline.clips import read as cut

Image = np.ndarray
NTSC = Fraction(30000, 1001)
H264 = {"preset": "medium", "bf": "3", "g": "40"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "40"}


def clip(n: int, height: int = 48, width: int = 72, first: int = 0) -> list[Image]:
    return [coded(k, height, width) for k in range(first, first + n)]


def read(path: Path, first: int = 0, last: float = math.inf, side: int = 48) -> tuple[dict[int, Image], Frames]:
    with Frames(path, 25, side) as frames:
        return dict(frames.grid(first, last)), frames


def numbers(path: Path) -> list[int]:
    images, _ = read(path)
    assert list(images) == list(range(len(images)))
    return [number_of(image) for image in images.values()]


def nearest(times: list[float], k: int, fps: float = 25.0) -> int:
    """The rule, by trying every frame: the nearest PTS, the earlier one of a tie."""
    return min(range(len(times)), key=lambda j: (round(abs(times[j] - times[0] - k / fps), 9), j))


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("rate", [24, 25, 30, 60, 10, NTSC, 2 * NTSC, Fraction(25, 2)], ids=str)
def test_a_grid_point_shows_the_nearest_frame(tmp_path: Path, rate: Fraction | int, suffix: str) -> None:
    n = 60
    path = encode(tmp_path / f"a.{suffix}", clip(n), rate=rate)
    times = [float(j / rate) for j in range(n)]
    if suffix == "mkv":  # its clock ticks in milliseconds
        times = [round(t, 3) for t in times]
    seen = numbers(path)
    assert seen == [nearest(times, k) for k in range(len(seen))]
    missing = n / rate * 25 - len(seen)  # grid points before the end of the last frame
    assert -1 < missing <= (0.05 if suffix == "mkv" else 0.001)


@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("m2v", "mpeg2video")])
@pytest.mark.parametrize("rate", [25, 30, 50, NTSC], ids=str)
def test_a_raw_stream_without_time_stamps_keeps_the_rate_that_it_declares(
    tmp_path: Path, suffix: str, codec: str, rate: Fraction | int
) -> None:
    path = encode(tmp_path / f"a.{suffix}", clip(60), codec, rate, options={"x265-params": "log-level=none"})
    seen = numbers(path)
    count = math.floor(60 / rate * 25)
    assert count - 1 <= len(seen) <= count + 1
    # A frame at each end may be another, where B-frames hold the first one back.
    assert all(abs(j - nearest([i / rate for i in range(60)], k)) <= 1 for k, j in enumerate(seen[:count]))


CONTAINERS = {  # suffix of a camera or a recorder: what its files are inside
    ".MOD": ("mpg", "mpeg2video"),
    ".TOD": ("ts", "libx264"),
    ".m2t": ("ts", "mpeg2video"),
    ".dv": ("dv", "dvvideo"),
    ".f4v": ("f4v", "libx264"),
    ".3g2": ("3g2", "libx264"),
    ".qt": ("mov", "mjpeg"),
    ".insv": ("mp4", "libx265"),
    ".divx": ("avi", "mpeg4"),
    ".mpe": ("mpg", "mpeg1video"),
    ".rmvb": ("rm", "rv20"),
    ".wtv": ("wtv", "mpeg2video"),
    ".mxf": ("mxf", "mpeg2video"),
    ".y4m": ("y4m", "wrapped_avframe"),
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_what_a_camera_calls_its_videos_decides_nothing(tmp_path: Path, suffix: str) -> None:
    made_as, codec = CONTAINERS[suffix]
    size = (576, 720) if codec == "dvvideo" else (48, 72)
    images = [coded(k, *size) for k in range(30)]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else H264 if codec == "libx264" else {}
    made = encode(tmp_path / f"a.{made_as}", images, codec, options=options)
    assert numbers(made.rename(tmp_path / f"a{suffix}")) == list(range(30))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("seed", range(3))
def test_varying_rate_with_a_gap(tmp_path: Path, suffix: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.008, 0.017, 0.033, 0.04, 0.08, 0.2], size=60)
    steps[30] = 3.0
    times = [round(float(t), 3) for t in np.cumsum(steps)]
    path = encode(tmp_path / f"a.{suffix}", clip(60), times=times, tick=Fraction(1, 1000), options=H264)
    seen = numbers(path)
    until = math.floor((times[-1] - times[0]) * 25)
    assert seen[:until] == [nearest(times, k) for k in range(until)]
    assert set(seen[until:]) <= {58, 59}


@given(
    steps=st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.0333, 0.04, 0.05, 0.08, 0.6]), max_size=30),
    start=st.floats(-5, 5000),
    duration=st.sampled_from([0.0, 0.0001, 0.04, 0.5]),
    first=st.integers(0, 40),
    count=st.integers(1, 60),
)
def test_nearest_equals_brute_force(steps: list[float], start: float, duration: float, first: int, count: int) -> None:
    times = [start + sum(steps[:j]) for j in range(len(steps) + 1)]
    frames = Frames(Path("none"), 25, 48)
    frames.origin, frames.size = start, (48, 72)
    frames._stream = SimpleNamespace(average_rate=50, guessed_rate=None, start_time=0)  # type: ignore[assignment]
    frames._look = None  # type: ignore[assignment]
    shown = [
        (t, SimpleNamespace(number=j, time_base=Fraction(1, 10**6), duration=round(duration * 1e6)))
        for j, t in enumerate(times)
    ]
    source = frames._nearest(shown[0], iter(shown[1:]), first, first + count)  # type: ignore[arg-type]
    found = [(k, frame.number) for k, frame in source]  # type: ignore[attr-defined]
    end = times[-1] + (duration or 1 / 50)
    points = [k for k in range(first, first + count) if start + k / 25 < end - 1e-5]
    assert [k for k, _ in found][: len(points)] == points
    assert len(found) <= len(points) + 1
    for k, j in found:
        distances = [abs(t - start - k / 25) for t in times]
        assert distances[j] <= min(distances) + 1e-5  # a tie, or what floats make of one
        assert j == 0 or distances[j] < distances[j - 1] - 1e-9 or distances[j] < 1e-9


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4", "flv"])
def test_0_s_is_the_start_of_the_container(tmp_path: Path, suffix: str) -> None:
    late = encode(tmp_path / f"late.{suffix}", clip(30), times=[7 + k / 25 for k in range(30)])
    _, frames = read(late)
    assert frames.origin == pytest.approx(0, abs=1e-5)
    assert frames.end == pytest.approx(30 / 25, abs=1e-3)
    assert numbers(late) == list(range(30))
    assert not frames.partial(whole=True)


def test_a_last_frame_without_a_duration_lasts_as_long_as_the_others(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", clip(60), rate=60, times=[3 + k / 60 for k in range(60)])
    images, frames = read(path)
    assert len(images) == 25
    assert frames.end == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_picture_that_starts_after_the_sound_keeps_its_seconds(tmp_path: Path, suffix: str) -> None:
    path = encode(tmp_path / f"a.{suffix}", clip(30), times=[2 + k / 25 for k in range(30)], sound=4)
    _, frames = read(path)
    assert frames.origin == pytest.approx(2, abs=0.03)
    assert frames.end == pytest.approx(2 + 30 / 25, abs=0.03)
    assert numbers(path) == list(range(30))
    assert not frames.partial(whole=True)


def test_frames_without_trustworthy_pts_rise_and_stay_within_two_frames(tmp_path: Path) -> None:
    """H.264 in AVI carries decoding order: B-frames come out with times that jump back."""
    path = encode(tmp_path / "a.avi", clip(100), options=H264)
    with open_video(path) as (container, stream):
        times, shown = zip(*decode(container, stream, Damage()), strict=True)
        order = [number_of(frame.to_ndarray(format="rgb24")) for frame in shown]
    assert order == list(range(100))
    assert (np.diff(times) > 0).all()
    late = np.array(times) * 25 - np.arange(100)
    assert times[0] <= 1 / 25 + 1e-9
    assert np.abs(late - late[0]).max() <= 2 + 1e-9


CODECS: dict[str, dict[str, Any]] = {
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "40"}},
    "mjpeg.avi": {"codec": "mjpeg"},
    "a.gif": {"codec": "gif"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2"},
    "raw.h264": {"options": H264},  # no times at all
    "live.mkv": {"container_options": {"live": "1"}},  # no duration, no index
    "live.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},  # no frame count
}


@pytest.mark.parametrize("name", CODECS)
def test_every_frame_of_a_25_fps_video_is_shown_once(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, clip(50), **CODECS[name])
    assert numbers(path) == list(range(50))
    _, frames = read(path)
    assert frames.end - frames.origin == pytest.approx(2.0, abs=0.011)
    assert frames.warnings(whole=True) == ()


# --- size and orientation ---------------------------------------------------------------------------------------------

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(image: Image) -> str:
    """Colours of the four quarters, in reading order."""
    height, width = image.shape[:2]
    names = {RED: "R", GREEN: "G", BLUE: "B", WHITE: "W"}
    spots = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join(names[tuple(int(v > 127) * 255 for v in image[spot])] for spot in spots)


# The angle is counter-clockwise, as the file wants it shown; "RGBW" is how it is stored.
ORIENTATIONS = {
    (0, False): "RGBW",
    (90, False): "GWRB",
    (180, False): "WBGR",
    (270, False): "BRWG",
    (0, True): "GRWB",
    (90, True): "WGBR",
    (180, True): "BWRG",
    (270, True): "RBGW",
}


@pytest.mark.parametrize(("degrees", "mirrored"), ORIENTATIONS)
def test_the_display_matrix_is_applied(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    def turn(stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=mirrored)

    path = encode(tmp_path / "a.mp4", [QUARTERS] * 3, prepare=turn)
    info = probe(path)
    assert (info.height, info.width) == ((128, 192) if degrees % 180 == 0 else (192, 128))
    images, _ = read(path)
    assert images[0].shape == ((48, 72, 3) if degrees % 180 == 0 else (72, 48, 3))
    assert corners(images[0]) == ORIENTATIONS[degrees, mirrored]
    assert images[0].flags.c_contiguous


def reoriented(path: Path, target: Path, degrees: int) -> Path:
    """A copy of an H.264 video whose key frames have a display orientation SEI message, and its header nothing."""
    with av.open(str(path)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        made = out.add_stream_from_template(stream)
        what = f"h264_metadata=display_orientation=insert:rotate={degrees}"
        turn = BitStreamFilterContext(what, stream, made)
        for packet in given.demux(stream):
            for turned in turn.filter(packet if packet.dts is not None else None):
                turned.stream = made
                out.mux(turned)
    return target


QUARTERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(64, 0).repeat(96, 1)


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_an_orientation_that_only_key_frames_carry_is_every_frames(tmp_path: Path, suffix: str) -> None:
    plain = encode(tmp_path / "plain.mp4", [QUARTERS] * 60, options={"g": "20", "bf": "2"})
    path = reoriented(plain, tmp_path / f"a.{suffix}", 90)
    with open_video(path) as (container, stream):
        assert {frame.rotation for frame in container.decode(stream)} == {0, 90}
    info = probe(path)
    assert (info.height, info.width) == (192, 128)
    for first in (0, 33):  # from the start, and after a jump
        images, frames = read(path, first)
        assert frames.size == (72, 48)
        assert {corners(image) for image in images.values()} == {ORIENTATIONS[90, False]}
    for shown in (cut.pictures(path, 0.0, 9.0), cut.pictures(path, 1.3, 9.0)):
        assert {corners(image) for _, image in shown} == {ORIENTATIONS[90, False]}
    assert render.playable(plain) and not render.playable(path)  # browsers would show it lying


@pytest.mark.parametrize("turned_first", [True, False])
def test_the_first_frame_decides_for_all_of_them(tmp_path: Path, turned_first: bool) -> None:
    """Also for one that is jumped to, whose own key frame says otherwise."""
    plain = encode(tmp_path / "plain.ts", [QUARTERS] * 50, options={"g": "25"})
    turned = reoriented(plain, tmp_path / "turned.ts", 270)
    path = tmp_path / "a.ts"
    parts = [turned, plain] if turned_first else [plain, turned]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    expected = ORIENTATIONS[270 if turned_first else 0, False]
    for first in (0, 80):
        images, frames = read(path, first)
        assert frames.size == ((72, 48) if turned_first else (48, 72))
        assert {corners(image) for image in images.values()} == {expected}
    for start in (0.0, 3.0):
        assert {corners(image) for _, image in cut.pictures(path, start, 9.0)} == {expected}


def test_a_case_whose_key_frames_alone_say_how_it_stands(cases: Path) -> None:
    with Frames(cases / "seirot.mp4", 25, 256) as one, Frames(cases / "ref.mp4", 25, 256) as other:
        assert one.size == other.size == (256, 384)
        for (_, a), (_, b) in zip(one.grid(), other.grid(), strict=True):
            assert np.abs(a.astype(int) - b).mean() < 4
    shown = list(cut.pictures(cases / "seirot.mp4", 3.0, 4.0))
    assert len(shown) == 25 and all(image.shape == (256, 384, 3) for _, image in shown)


def test_a_phone_clip_stands_upright(corpus: Path) -> None:
    path = corpus / "originals" / "Kickflip79.mov"
    with open_video(path) as (container, stream):
        frame = next(container.decode(stream))
        assert frame.width > frame.height
        assert frame.rotation
    info = probe(path)
    assert info.height > info.width


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square(tmp_path: Path, turned: bool) -> None:
    def anamorphic(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        if turned:
            stream.set_display_rotation(90)

    path = encode(tmp_path / "a.mp4", clip(3), prepare=anamorphic)
    info = probe(path)
    assert (info.height, info.width) == ((144, 48) if turned else (48, 144))
    images, _ = read(path, side=32)
    assert images[0].shape == ((96, 32, 3) if turned else (32, 96, 3))


def test_a_damaged_aspect_ratio_does_not_blow_the_frame_up() -> None:
    frame = SimpleNamespace(width=640, height=480)
    for ratio in (Fraction(1, 65535), Fraction(65535), Fraction(0), None):
        stream = SimpleNamespace(sample_aspect_ratio=ratio)
        assert video.upright_size(frame, stream, Orientation()) == (480, 640)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(51, 97), (1, 1), (8, 8), (3, 200), (2160, 4096)])
def test_any_size(tmp_path: Path, height: int, width: int) -> None:
    options = {"qmin": "1"} if height == 2160 else {}
    path = encode(tmp_path / "a.mkv", clip(2, height, width), codec="mjpeg" if options else "ffv1", options=options)
    info = probe(path)
    assert (info.height, info.width) == (height, width)
    images, frames = read(path)
    assert min(images[0].shape[:2]) == 48
    assert images[0].shape[:2] == frames.size == fit((height, width), 48)
    if min(height, width) > 40:
        assert [number_of(image) for image in images.values()] == [0, 1]


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([32, 224, 256]))
def test_fit_keeps_the_shape(height: int, width: int, side: int) -> None:
    h, w = fit((height, width), side)
    assert min(h, w) == side
    assert abs(h - side * max(1, height / width)) <= 0.5
    assert abs(w - side * max(1, width / height)) <= 0.5


def test_shrinking_averages_and_does_not_alias(tmp_path: Path) -> None:
    """A fine chequerboard becomes grey; sampling every third pixel of it would give black and white."""
    board = (np.indices((144, 144)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    images, _ = read(encode(tmp_path / "a.mkv", [board], codec="ffv1"))
    assert np.abs(images[0].astype(int) - 128).max() < 32


# --- what the header says ---------------------------------------------------------------------------------------------


def test_probe(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mov", clip(60), rate=NTSC)
    info = probe(path)
    assert (info.path, info.width, info.height, info.rate) == (path, 72, 48, "30000/1001")
    assert info.duration == pytest.approx(60 / float(NTSC), abs=1e-3)
    assert Fraction(info.rate) == NTSC
    assert info.start_timecode is None


def test_probe_reads_the_timecode(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as out:
        out.metadata["timecode"] = "01:02:03:04"
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 72, "yuv420p"
        for image in clip(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode(None))
    assert probe(path).start_timecode == "01:02:03:04"


def test_missing_duration(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.webm", clip(20), codec="libvpx-vp9", options=VP9, container_options={"live": "1"})
    assert probe(path).duration == 0
    images, frames = read(path)
    assert len(images) == 20
    assert frames.end == pytest.approx(0.8, abs=1e-3)
    assert not frames.partial(whole=True)


def test_one_frame(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv", "gif", "ts", "avi"):
        path = encode(tmp_path / f"a.{suffix}", clip(1, first=5), codec="gif" if suffix == "gif" else "libx264")
        assert set(numbers(path)) == {5}


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 72, "yuv420p"
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        out.mux(cover.encode(None))
        for image in clip(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode(None))
    assert numbers(path) == list(range(10))


def test_sound_that_outlasts_the_picture_is_no_damage(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv", "ts", "flv", "avi"):
        _, frames = read(encode(tmp_path / f"a.{suffix}", clip(25), sound=4))
        assert not frames.partial(whole=True), suffix
    _, frames = read(encode(tmp_path / "a.wmv", clip(25), codec="wmv2", sound=4))
    assert not frames.partial(whole=True)


# --- start and end ----------------------------------------------------------------------------------------------------

SEEKABLE: dict[str, dict[str, Any]] = {
    "long-gop.mp4": {"options": {**H264, "g": "500"}},
    "open-gop.mp4": {"options": {**H264, "x264-params": "open-gop=1:keyint=30"}},
    "intra-refresh.mp4": {"options": {"bf": "0", "x264-params": "intra-refresh=1:keyint=30"}},
    "a.mkv": {"options": H264},
    "a.ts": {"options": H264},
    "sound.ts": {"options": H264, "sound": 6},
    "open-gop.ts": {"options": {**H264, "x264-params": "open-gop=1:keyint=30"}},
    "a.avi": {"options": H264},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "40"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "40"}},
    "mpeg2.vob": {"codec": "mpeg2video", "options": {"bf": "2", "g": "18"}},
    "a.flv": {"options": H264},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "a.wmv": {"codec": "wmv2", "options": {"g": "40"}},
    "a.gif": {"codec": "gif"},
    "raw.h264": {"options": H264},
    "late.mkv": {"options": H264, "times": [5 + k / 25 for k in range(150)]},
    "ntsc.mp4": {"options": H264, "rate": NTSC},
}


@pytest.mark.parametrize("name", SEEKABLE)
def test_a_stretch_shows_the_same_pixels_as_the_whole(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, clip(150), **SEEKABLE[name])
    whole, _ = read(path)
    for first, last in [(1, 3), (33, 50), (41, 42), (80, 97), (121, 138), (len(whole) - 1, math.inf), (400, 420)]:
        part, frames = read(path, first, last)
        assert list(part) == [k for k in whole if first <= k < last]
        assert all(np.array_equal(part[k], whole[k]) for k in part)
        assert not frames.damage.errors


def test_seeking_does_jump(tmp_path: Path) -> None:
    """Or the equality above would prove nothing, and a long video's last minute would cost the whole of it."""
    path = encode(tmp_path / "a.mp4", clip(150), options=H264)
    with Frames(path, 25, 48) as frames:
        sought = frames._seek(frames._head[1], 130 / 25)
        assert sought is not None
        assert 90 / 25 < sought[0][0] <= 130 / 25


@pytest.fixture
def spliced(tmp_path: Path) -> Path:
    """Two recordings, one behind the other: the clock starts anew, and a sound track appears midway."""
    mute = encode(tmp_path / "1.ts", clip(100), options={"g": "25", "bf": "2"})
    loud = encode(tmp_path / "2.ts", clip(120, first=100), options={"g": "25", "bf": "2"}, sound=4.8)
    path = tmp_path / "spliced.ts"
    path.write_bytes(mute.read_bytes() + loud.read_bytes())
    return path


def test_a_spliced_recording_is_one_video(spliced: Path) -> None:
    assert numbers(spliced) == list(range(220))
    _whole, frames = read(spliced)
    assert frames.end == pytest.approx(220 / 25, abs=0.05)
    for first in (30, 110, 150, 210):
        part, _ = read(spliced, first, first + 5)
        assert [number_of(image) for image in part.values()] == list(range(first, first + 5))


def test_a_stream_that_appears_midway_ends_nothing(spliced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV's demuxer reads past its own table of streams then, and may raise an IndexError after the last packet."""

    def tripping(packets: Any) -> Any:
        yield from packets
        raise IndexError("list index out of range")

    with open_video(spliced) as (container, stream):
        fake = SimpleNamespace(
            demux=lambda s: tripping(container.demux(s)), start_time=container.start_time, format=container.format
        )
        assert len(list(decode(fake, stream, Damage()))) == 220  # type: ignore[arg-type]


def test_a_clock_that_jumps_far_ahead_is_closed_up(tmp_path: Path) -> None:
    times = [k / 25 + (0 if k < 40 else 5000) for k in range(80)]
    path = encode(tmp_path / "a.mkv", clip(80), times=times, options=H264)
    assert numbers(path) == list(range(80))
    _, frames = read(path)
    assert frames.damage.jumps == 1
    assert "clock jumps" in " ".join(frames.warnings(whole=True))


def test_a_last_frame_that_claims_to_last_for_days_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 72, "yuv420p"
        packets = [p for image in clip(5) for p in stream.encode(av.VideoFrame.from_ndarray(image))]
        packets += stream.encode(None)
        packets[-1].duration = 25 * 86400 * 3
        for packet in packets:
            out.mux(packet)
    with Frames(path, 25, 48) as frames:
        assert sum(1 for _ in frames.grid(0, 10**6)) <= 5 + 25 * clock.LONGEST_STILL


# --- damaged and odd files --------------------------------------------------------------------------------------------


def refuse(path: Path, *words: str) -> None:
    for read_it in (probe, read):
        with pytest.raises(VideoError) as caught:
            read_it(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: "), message
        assert "\n" not in message
        assert message.endswith(".")
        for word in words:
            assert word in message


def test_no_such_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.mp4", "no such file")


def test_folder(tmp_path: Path) -> None:
    refuse(tmp_path, "is a folder")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    refuse(tmp_path / "a.mp4", "empty")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", clip(2))
    path.chmod(0)
    refuse(path, "permissions")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mp4", "This is not a video.\n" * 200),
        ("notes.txt", "FFmpeg would draw this as ANSI art.\n" * 20),
        ("read.nfo", "And this.\n"),
        ("live.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n"),  # would be read again for ever
        ("a.mkv", "ffconcat version 1.0\nfile '1.ts'\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_text_is_no_video(tmp_path: Path, name: str, text: str) -> None:
    encode(tmp_path / "1.ts", clip(3))
    (tmp_path / name).write_text(text)
    refuse(tmp_path / name, "not a video")


@pytest.mark.parametrize("cover", [False, True])
def test_sound_only(tmp_path: Path, cover: bool) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        if cover:  # which FFmpeg calls a video stream
            picture = out.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            out.mux(picture.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        out.mux(stream.encode(silence))
        out.mux(stream.encode(None))
    refuse(path, "no video stream")


def test_no_decoder(tmp_path: Path) -> None:
    """PyAV has no codec context then, and decoding without one ends the interpreter (PyAV#2344)."""
    path = encode(tmp_path / "a.mp4", clip(3))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    refuse(path, "no decoder")


def noisy(n: int) -> list[Image]:
    rng = np.random.default_rng(0)
    return [coded(k) // 2 + rng.integers(0, 90, (48, 72, 3), np.uint8) for k in range(n)]


def test_a_cut_mp4_without_its_index(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", noisy(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refuse(path, "if the download was incomplete, get it again")


@pytest.mark.parametrize("sound", [0, 4])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
def test_a_cut_file_with_its_index_in_front_is_partial(tmp_path: Path, suffix: str, sound: float) -> None:
    front = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = encode(tmp_path / f"a.{suffix}", noisy(100), sound=sound, container_options=front)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    images, frames = read(path)
    assert 20 < len(images) < 80
    assert frames.partial(whole=True)
    assert frames.end < 3.5
    if not (suffix == "flv" and sound):  # FLV gives one duration for both
        assert "before the file says" in " ".join(frames.warnings(whole=True))


@pytest.mark.parametrize("suffix", ["mp4", "ts", "avi", "mpg"])
def test_damage_in_the_middle_is_partial_and_the_rest_is_shown(tmp_path: Path, suffix: str) -> None:
    path = encode(
        tmp_path / f"a.{suffix}",
        noisy(150),
        codec="mpeg2video" if suffix == "mpg" else "libx264",
        options={"g": "25", "bf": "2"},
    )
    data = bytearray(path.read_bytes())
    middle, size = len(data) // 2, len(data) // 30
    data[middle : middle + size] = bytes(size)
    path.write_bytes(data)
    images, frames = read(path)
    assert len(images) > 140
    assert frames.partial(whole=True)
    assert "damaged" in " ".join(frames.warnings(whole=True))


@pytest.mark.parametrize("limit", [20, 500], ids=["more than is tried", "less"])
def test_nothing_that_can_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Noise behind a good header."""
    monkeypatch.setattr(clock, "MAX_DAMAGE", limit)
    path = encode(tmp_path / "a.mp4", noisy(60), container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    refuse(path, "no frame of it can be decoded")


def test_much_damage_behind_a_good_start_is_still_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "MAX_DAMAGE", 20)
    path = encode(tmp_path / "a.mp4", noisy(300), container_options={"movflags": "faststart"}, options={"g": "25"})
    data = bytearray(path.read_bytes())
    start, size = data.index(b"mdat") + len(data) // 5, len(data) // 2
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    images, frames = read(path)
    assert list(images) == list(range(300))
    assert frames.damage.errors > clock.MAX_DAMAGE
    assert not np.array_equal(images[270], images[290])
    assert frames.partial(whole=True)


@pytest.mark.parametrize("name", ["match:final.mp4", "shot %03d.mp4", "Ä b'c\"#?.mp4", "-i.mp4", "http:x.mp4"])
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    encode(tmp_path / "a.mp4", clip(3)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers(Path(name)) == [0, 1, 2]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    try:
        encode(tmp_path / "a.mp4", clip(3)).rename(path)
    except OSError:
        pytest.skip("this file system takes only Unicode")
    assert numbers(path) == [0, 1, 2]


@pytest.mark.parametrize("break_it", [lambda p: p.unlink(), lambda p: p.write_bytes(b"")], ids=["gone", "emptied"])
def test_a_file_that_goes_away_while_it_is_sought_in(tmp_path: Path, break_it: Callable[[Path], Any]) -> None:
    """A jump that finds no keyframe opens the file anew."""
    path = encode(tmp_path / "a.ts", clip(60), options={"g": "500"})
    with pytest.raises(VideoError, match=r"no such file|empty"), Frames(path, 25, 48) as frames:
        frames._rising = lambda: break_it(path) and False  # type: ignore[method-assign]
        list(frames.grid(30, 40))

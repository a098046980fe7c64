"""`clips --copy`: which frames a copy holds, whether they equal the video's, and which sound goes with them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import Image, coded, encode, number_of
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.decode.clock import decode
from extractors.decode.container import open_video
from extractors.decode.video import Damage
from pipeline.clips import cut as clips
from pipeline.clips.remux import _decoding_times
from postprocess.segment import Segment
from support.errors import OutputError

HERTZ, SECONDS = 48_000, 6
MADE_UP = (".avi", ".mxf")  # times of H.264 with B-frames are places in decoding order

H264 = {"preset": "veryfast", "g": "25", "sc_threshold": "0"}
OPEN = "open-gop=1:keyint=25:min-keyint=25:scenecut=0:bframes=3:b-adapt=0"
X264, X265 = ("libx264", "aac"), ("libx265", "aac")
KINDS = {
    "{0}-ipp": (X264, {**H264, "bf": "0"}, ".mp4 .mov .mkv .ts .m2ts .avi .flv .m4v .3gp .mxf"),
    "{0}-b": (X264, {**H264, "bf": "3"}, ".mp4 .mov .mkv .ts .mts .avi .flv .m4v .3gp .mxf"),
    "{0}-open": (X264, {"preset": "veryfast", "x264-params": OPEN}, ".mp4 .mov .mkv .ts"),
    "hevc-b": (X265, {"x265-params": OPEN.replace("open-gop=1", "open-gop=0") + ":log-level=none"}, ".mp4 .mkv .ts"),
    "hevc-open": (X265, {"x265-params": OPEN + ":log-level=none"}, ".mp4 .mkv .ts"),
    "mpeg2-b": (("mpeg2video", "mp2"), {"g": "12", "bf": "2", "sc_threshold": "1000000000"}, ".mpg .vob .ts .mkv .avi"),
    "mpeg2-closed": (("mpeg2video", "mp2"), {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"},
                     ".mpg .ts .mkv"),
    "mpeg4-b": (("mpeg4", "libmp3lame"), {"g": "25", "bf": "2"}, ".avi .mp4 .mkv"),
    "mpeg4-ipp": (("mpeg4", "libmp3lame"), {"g": "25", "bf": "0"}, ".avi"),
    "vp9": (("libvpx-vp9", "libopus"), {"g": "25", "deadline": "realtime", "cpu-used": "8"}, ".webm .mkv"),
    "vp8": (("libvpx", "libopus"), {"g": "25", "deadline": "realtime"}, ".webm"),
    "wmv2": (("wmv2", "wmav2"), {"g": "25"}, ".wmv"),
    "mjpeg": (("mjpeg", "pcm_s16le"), {}, ".avi .mov .mkv"),
}  # fmt: skip
CASES = [
    pytest.param(codecs, options, suffix, sound, id=f"{name.format('h264')}{suffix}{'-sound' if sound else ''}")
    for name, (codecs, options, suffixes) in KINDS.items()
    for suffix in suffixes.split()
    for sound in (False, True)
    if not (sound and suffix == ".mxf")
]


def segment(start: float, end: float) -> Segment:
    return Segment(start, end, 1.0, 0.8, "serve")


def video(path: Path, codecs: tuple[str, str], options: dict[str, str], sound: bool) -> Path:
    """Make a video whose frames carry their number; its sound is a beep of 20 ms at each half second."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream(codecs[0], rate=25, options=options)
        picture.height, picture.width = 48, 72
        picture.pix_fmt = "yuvj420p" if codecs[0] == "mjpeg" else "yuv420p"
        picture.codec_context.thread_count = 1
        # AAC in AVI is refused.
        codec = "libmp3lame" if codecs[1] == "aac" and path.suffix == ".avi" else codecs[1]
        audio = out.add_stream(codec, rate=HERTZ, layout="mono") if sound else None
        if audio is not None and codec == "wmav2":
            audio.bit_rate = 64_000
        form = audio.codec_context.codec.audio_formats[0].name if audio else ""
        for k in range(25 * SECONDS):
            frame = av.VideoFrame.from_ndarray(coded(k), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(picture.encode(frame))
            if audio is None:
                continue
            at = np.arange(k * 1920, (k + 1) * 1920)
            loud = (at % (HERTZ // 2) < 960) & (at >= HERTZ // 2)
            samples = (0.8 * np.sin(at * 2 * np.pi * 1000 / HERTZ) * loud)[None].astype(np.float32)
            whole = form.startswith("s16")
            given = (samples * 32767).astype(np.int16) if whole else samples
            heard = av.AudioFrame.from_ndarray(given, format=form if whole or form == "flt" else "fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = HERTZ, k * 1920, Fraction(1, HERTZ)
            out.mux(audio.encode(heard))
        out.mux(picture.encode(None))
        if audio is not None:
            out.mux(audio.encode(None))
    return path


def shown(path: Path) -> list[tuple[float, int, bool, Image]]:
    """Return (seconds, number, whether it is a keyframe, picture) of each frame, by our clock."""
    with open_video(path) as (container, stream):
        frames = [(time, f.key_frame, f.to_ndarray(format="rgb24")) for time, f in decode(container, stream, Damage())]
    return [(time, number_of(image), key, image) for time, key, image in frames]


def beeps(path: Path) -> list[float]:
    """Return the seconds of the container's clock at which a beep begins."""
    with av.open(str(path)) as container:
        zero = (container.start_time or 0) / 1e6
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=HERTZ)
        pieces = [(float(f.pts * f.time_base) - zero, p) for f in container.decode(stream) if f.pts is not None
                  for g in resampler.resample(f) for p in [g.to_ndarray()[0]]]  # fmt: skip
    total = np.zeros(round(HERTZ * (SECONDS + 2)), np.float32)
    for at, piece in pieces:
        first = round(at * HERTZ)
        piece = piece[max(0, -first) :]
        total[max(0, first) : max(0, first) + len(piece)] = piece
    loud = np.abs(total) > 0.3
    starts = np.flatnonzero(loud & ~np.concatenate(([False], loud[:-1])))
    return [float(s) / HERTZ for i, s in enumerate(starts) if i == 0 or s - starts[i - 1] > 4800]


@pytest.mark.parametrize(("codecs", "options", "suffix", "sound"), CASES)
def test_a_copy_holds_the_frames_from_the_keyframe_to_the_end_as_they_were(
    codecs: tuple[str, str], options: dict[str, str], suffix: str, sound: bool, tmp_path: Path
) -> None:
    path = video(tmp_path / f"match{suffix}", codecs, options, sound)
    whole = shown(path)
    assert [number for _, number, _, _ in whole] == list(range(25 * SECONDS))
    pictures = {number: image for _, number, _, image in whole}
    for number, (start, end) in enumerate([(2.9, 4.1), (0.3, 0.9), (1.5, 1.9), (4.5, 6.0)]):
        keys = [(time, n) for time, n, key, _ in whole if key and time <= start + 1e-6]
        begins, first = keys[-1] if keys else (whole[0][0], whole[0][1])
        (made,) = clips.copy(clips.plan(path, f"{number}", [segment(start, end)], SECONDS), tmp_path / "out")
        assert made.path.suffix == suffix
        if first > 0 or suffix not in MADE_UP:
            assert made.begins == pytest.approx(begins, abs=0.0011)
        copied = shown(made.path)
        numbers = [n for _, n, _, _ in copied]
        last = max(n for time, n, _, _ in whole if time < end - 1e-6)
        assert numbers[0] == first
        assert numbers[: last - first + 1] == list(range(first, last + 1))
        assert len(numbers) <= last - first + 1 + 8, "hardly more than was asked for"
        for _, n, _, image in copied[: last - first + 1]:
            np.testing.assert_array_equal(image, pictures[n])
        if suffix not in MADE_UP:
            times = [time - copied[0][0] for time, _, _, _ in copied[: last - first + 1]]
            assert times == pytest.approx([k / 25 for k in range(last - first + 1)], abs=0.0015)
        if sound:
            # Where packets have only places, the sound keeps its distance to them.
            placed = suffix == ".avi" and codecs == X264 and options["bf"] == "3"
            found = np.array(beeps(made.path)) - (0.0 if placed else copied[0][0])
            for beep in [t - (first / 25 if placed else begins) for t in beeps(path)]:
                if 0.15 < beep < end - begins - 0.15:
                    assert np.abs(found - beep).min() < (0.013 if suffix == ".avi" else 0.003), (beep, found)


def test_the_first_keyframe_serves_a_segment_before_it(tmp_path: Path) -> None:
    """A recording begins in the middle of a group of pictures; the first frames cannot be shown."""
    whole = video(tmp_path / "whole.ts", X264, {**H264, "bf": "3"}, sound=False)
    late = tmp_path / "late.ts"
    with av.open(str(whole)) as given, av.open(str(late), "w") as out:
        target = out.add_stream_from_template(given.streams.video[0])
        for n, packet in enumerate(given.demux(given.streams.video[0])):
            if n >= 10 and packet.dts is not None:
                packet.stream = target
                out.mux(packet)
    (made,) = clips.copy(clips.plan(late, "late", [segment(0.1, 1.2)], 5.0), tmp_path / "out")
    assert [n for _, n, _, _ in shown(made.path)][:3] == [25, 26, 27]
    assert made.begins == pytest.approx(next(time for time, n, _, _ in shown(late) if n == 25), abs=0.0011)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_one_group_of_pictures_is_longer_than_any_jump_back(suffix: str, tmp_path: Path) -> None:
    frames = [coded(k) for k in range(25 * 13)]
    path = encode(tmp_path / f"long{suffix}", frames, options={**H264, "g": "1000", "bf": "3"})
    (made,) = clips.copy(clips.plan(path, "long", [segment(12.0, 12.2)], 13.0), tmp_path / "out")
    assert [n for _, n, _, _ in shown(made.path)][:305] == list(range(305))
    assert made.begins == pytest.approx(0.0, abs=0.0011)


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    steps = np.random.default_rng(2).choice([0.02, 0.04, 0.1], 120)
    times = [0.0, *np.cumsum(steps)[:-1].tolist()]
    path = encode(tmp_path / "phone.mp4", [coded(k) for k in range(120)], times=times, options={**H264, "bf": "3"})
    start = times[60]
    (made,) = clips.copy(clips.plan(path, "phone", [segment(start, times[90])], times[-1]), tmp_path / "out")
    copied = shown(made.path)
    first = copied[0][1]
    assert first == max(n for time, n, key, _ in shown(path) if key and time <= start + 1e-6)
    assert [n for _, n, _, _ in copied][: 90 - first] == list(range(first, 90))
    found = [time - copied[0][0] for time, *_ in copied[: 90 - first]]
    assert found == pytest.approx([t - times[first] for t in times[first:90]], abs=1e-4)


def test_a_rotated_video_stays_upright(tmp_path: Path) -> None:
    def turned(stream: av.VideoStream) -> None:
        stream.set_display_rotation(90)

    path = encode(tmp_path / "phone.mp4", [coded(k) for k in range(50)], options=H264, prepare=turned)
    (made,) = clips.copy(clips.plan(path, "phone", [segment(1.0, 1.6)], 2.0), tmp_path / "out")
    with av.open(str(path)) as given, av.open(str(made.path)) as copied:
        assert next(given.decode(video=0)).rotation == next(copied.decode(video=0)).rotation != 0


def test_theora_with_empty_packets(cases: Path, tmp_path: Path) -> None:
    path = cases / "a.ogv"
    whole = shown(path)
    (made,) = clips.copy(clips.plan(path, "a", [segment(2.5, 4.0)], 5.12), tmp_path / "out")
    first = max(i for i, (time, _, key, _) in enumerate(whole) if key and time <= 2.5)
    assert made.begins == pytest.approx(whole[first][0])
    for (_, _, _, image), (_, _, _, expected) in zip(shown(made.path)[:30], whole[first : first + 30], strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("name", "codec", "says"),
    [
        ("match.gif", "gif", "no clips of the format CompuServe"),
        ("match.h264", "libx264", "no clips of the format raw H.264"),
        ("match.avi", "aac", "AAC"),
        ("spliced.ts", "libx264", "its clock goes back"),
        ("short.mp4", "libx264", "its clock ends before"),
    ],
)
def test_what_cannot_be_copied_is_one_sentence_and_leaves_nothing(
    name: str, codec: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if codec == "aac":
        encode(path, [coded(k) for k in range(50)], codec="mpeg4", options={}, sound=2.0)
    else:
        encode(path, [coded(k) for k in range(50)], codec=codec, options=H264 if codec == "libx264" else {})
    if name == "spliced.ts":
        path.write_bytes(path.read_bytes() * 2)
    meant = segment(0.2, 3.6) if name != "short.mp4" else segment(8.2, 9.0)
    with pytest.raises(OutputError, match=says) as caught:
        list(clips.copy(clips.plan(path, "v", [meant], 10.0), tmp_path / "out"))
    assert str(caught.value).startswith(f"{path}: cannot be copied (") and "leave --copy out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def naive_dts(pts: list[int]) -> list[int]:
    """Find the latest rising times of which none is after its pts, by trying every delay."""
    ordered = sorted(pts)
    for delay in range(len(pts)):
        moved = [ordered[0] - (delay - i) for i in range(delay)] + ordered[: len(pts) - delay]
        if all(d <= p for d, p in zip(moved, pts, strict=True)):
            return moved
    raise AssertionError("unreachable: the first is before all others")


@settings(deadline=None)
@given(st.permutations(range(12)), st.integers(0, 1000))
def test_decoding_times_rise_and_never_come_after_display_times(order: list[int], zero: int) -> None:
    found = _decoding_times([zero + p for p in order], 1)
    kept = [p for p in order if p >= order[0]]
    assert [times is None for _, times in found] == [p < order[0] for p in order]
    assert [times[0] for _, times in found if times] == [p - order[0] for p in kept]
    assert [times[1] for _, times in found if times] == [d - order[0] for d in naive_dts(kept)]

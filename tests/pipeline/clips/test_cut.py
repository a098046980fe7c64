"""Clips, reels, overlay and proxy, checked by decoding: which frame is where, and which sound goes with it."""

import math
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import Image, coded, encode, number_of

from extractors.decode.video import VideoError
from pipeline.clips import cut as clips
from pipeline.clips import overlay as render
from pipeline.clips.draw import Overlay, card
from pipeline.clips.encode import boxed, open_movie
from pipeline.clips.names import reel_names
from pipeline.clips.read import pictures, shape_of
from postprocess.segment import Result, Segment
from support.errors import OutputError, UsageError

HERTZ = 48_000
NTSC = Fraction(30000, 1001)


def segment(start: float, end: float, label: str = "serve", confidence: float = 0.8) -> Segment:
    return Segment(start, end, 1.0, confidence, label)


def frames(path: Path) -> list[tuple[float, Image]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(stream)]


def heard(path: Path) -> np.ndarray:
    """Return the sound of the first channel from 0 s on, at 48 kHz."""
    with av.open(str(path)) as container:
        pieces = [(f.pts * f.time_base, f.to_ndarray()[0]) for f in container.decode(container.streams.audio[0])]
    total = np.zeros(max(round(float(at) * HERTZ) + len(p) for at, p in pieces), np.float32)
    for at, piece in pieces:
        first = round(float(at) * HERTZ)
        total[max(first, 0) : first + len(piece)] = piece[max(-first, 0) :]
    return total


def source(path: Path, seconds: float, rate: Fraction, every: float = 1.0, **changes: object) -> Path:
    """Make a video whose frames carry their number, with a beep of 20 ms at each multiple of `every` seconds."""
    count = round(seconds * rate)
    silent = encode(path.with_suffix(".silent.mp4"), [coded(k) for k in range(count)], rate=rate, **changes)
    samples = np.zeros(round(seconds * HERTZ), np.float32)
    for k in range(1, math.ceil(seconds / every)):
        first = round(k * every * HERTZ)
        samples[first : first + 960] = 0.8 * np.sin(np.arange(960) * 2 * np.pi * 1000 / HERTZ)
    with av.open(str(silent)) as given, av.open(str(path), "w") as out:
        picture = out.add_stream_from_template(given.streams.video[0])
        audio = out.add_stream("aac", rate=HERTZ, layout="mono")
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = picture
                out.mux(packet)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = HERTZ, 0, Fraction(1, HERTZ)
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    silent.unlink()
    return path


def beeps(path: Path) -> list[float]:
    """Return the seconds at which a beep begins."""
    loud = np.abs(heard(path)) > 0.2
    starts = np.flatnonzero(loud & ~np.concatenate(([False], loud[:-1])))
    return [float(s) / HERTZ for i, s in enumerate(starts) if i == 0 or s - starts[i - 1] > 4800]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), NTSC, Fraction(60000, 1001)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_an_exact_clip_begins_with_the_frame_nearest_to_the_start_and_sounds_with_it(
    rate: Fraction, suffix: str, tmp_path: Path
) -> None:
    video = source(tmp_path / f"match{suffix}", 6.0, rate, options={"g": "50"})
    with av.open(str(video)) as container:  # MPEG-TS: the sound's priming comes before the first frame
        first = next(container.decode(video=0))
        origin = Fraction(first.pts * first.time_base) - Fraction(container.start_time, 10**6)
    cuts = clips.plan(video, "match", [segment(2.503, 4.511), segment(0.0, 0.2), segment(5.5, 6.0)], 6.0)
    made = list(clips.cut(cuts, tmp_path / "out"))
    assert [m.path.name for m in made] == [f"match_{i:03d}_serve.mp4" for i in (1, 2, 3)]
    slack = Fraction(1, 2) / rate + Fraction(1, 1000)  # containers round to a millisecond
    for one, cut in zip(made, cuts, strict=True):
        shown = frames(one.path)
        assert shown[0][0] == 0.0
        numbers = [number_of(image) for _, image in shown]
        begins = origin + numbers[0] / rate
        assert abs(begins - max(Fraction(cut.start), origin)) <= slack
        assert one.begins == pytest.approx(begins, abs=0.001)
        assert abs(origin + (numbers[-1] + 1) / rate - min(Fraction(cut.end), origin + round(6 * rate) / rate)) <= slack
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        for (time, _), number in zip(shown, numbers, strict=True):
            assert time == pytest.approx((number - numbers[0]) / rate, abs=0.001)
    # A beep at 3 s and at 4 s of the video, with the frames that are shown there.
    found = beeps(made[1].path)
    assert found == pytest.approx([float(origin) + t - made[1].begins for t in (3, 4)], abs=0.002)


def test_padding_stays_inside_the_video(tmp_path: Path) -> None:
    cuts = clips.plan(Path("v.mp4"), "v", [segment(0.5, 1.0), segment(9.0, 9.8)], 10.0, before=2.0, after=1.0)
    assert [(c.start, c.end) for c in cuts] == [(0.0, 2.0), (7.0, 10.0)]


def test_a_variable_rate_a_late_start_and_a_segment_shorter_than_a_frame(tmp_path: Path) -> None:
    times = [0.5, 0.54, 0.58, 2.0, 2.04, 2.08, 2.12]
    video = encode(tmp_path / "vfr.mkv", [coded(k) for k in range(7)], times=times)

    def shown(start: float, end: float) -> list[tuple[float, int]]:
        return [(round(t, 3), number_of(i)) for t, i in pictures(video, start, end)]

    zero = 0.5  # Matroska's start time is that of its first frame, which players call 0 s
    assert shown(0.0, 0.07) == [(0.0, 0), (0.04, 1)]
    # 1 s lies in the long third frame, which is still shown.
    assert shown(1.0, 1.57) == [(1.0, 2), (2.0 - zero, 3), (2.04 - zero, 4)]
    assert shown(1.0, 1.1) == [(1.0, 2)]
    assert shown(1.5, 1.501) == [(1.5, 3)]
    assert shown(99.0, 100.0) == [(99.0, 6)]


def test_avi_without_timestamps_and_an_upright_clip_of_a_rotated_video(tmp_path: Path) -> None:
    video = encode(tmp_path / "old.avi", [coded(k) for k in range(50)], codec="mpeg4")
    (made,) = clips.cut(clips.plan(video, "old", [segment(1.0, 1.4)], 2.0), tmp_path)
    assert [number_of(image) for _, image in frames(made.path)] == list(range(25, 35))
    with av.open(str(made.path)) as container:
        assert not container.streams.audio


def test_odd_sizes_are_cut_to_even_ones(tmp_path: Path) -> None:
    images = [np.full((49, 73, 3), k, np.uint8) for k in range(5)]
    video = encode(tmp_path / "odd.mkv", images, codec="ffv1")
    (made,) = clips.cut(clips.plan(video, "odd", [segment(0, 0.2)], 0.2), tmp_path)
    assert frames(made.path)[0][1].shape == (48, 72, 3)


def test_a_copy_begins_at_the_keyframe_and_changes_no_picture(tmp_path: Path) -> None:
    video = source(tmp_path / "match.mp4", 6.0, Fraction(25), options={"g": "50", "sc_threshold": "0"})
    (made,) = clips.copy(clips.plan(video, "match", [segment(2.9, 4.1)], 6.0), tmp_path / "out")
    assert made.path.name == "match_001_serve.mp4" and made.begins == pytest.approx(2.0, abs=0.001)
    numbers = [number_of(image) for _, image in frames(made.path)]
    assert numbers[:10] == list(range(50, 60)) and 102 <= max(numbers) + 1 <= 108
    assert beeps(made.path)[-2:] == pytest.approx([1.0, 2.0], abs=0.002)
    whole = [image for _, image in frames(video)]
    np.testing.assert_array_equal(frames(made.path)[0][1], whole[50])


def test_what_cannot_be_copied_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    video = encode(tmp_path / "v.xyz.avi", [coded(k) for k in range(10)], codec="mpeg4")
    odd = video.rename(tmp_path / "v.unknown")
    with pytest.raises(OutputError, match="leave --copy out"):
        list(clips.copy(clips.plan(odd, "v", [segment(0, 0.2)], 0.4), tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_reels_have_a_card_and_every_clip_in_step(tmp_path: Path) -> None:
    long = source(tmp_path / "a.mp4", 4.0, Fraction(25))
    small = encode(tmp_path / "b.mp4", [coded(k, 32, 32) for k in range(25)])
    cuts = clips.plan(long, "a", [segment(0.9, 1.3), segment(2.8, 3.6), segment(0.0, 0.4, "a/b")], 4.0)
    cuts += clips.plan(small, "b", [segment(0.2, 0.6)], 1.0)
    made = list(clips.reels(cuts, tmp_path / "out"))
    assert sorted(m.path.name for m in made) == ["a_b.mp4", "serve.mp4"]
    serve = next(m.path for m in made if m.path.name == "serve.mp4")
    shown = frames(serve)
    assert shown[0][0] == 0.0 and shown[1][0] == pytest.approx(clips.CARD_SECONDS)
    numbers = [number_of(image) for _, image in shown[1:]]
    first = [k for k in range(22, 33)][: numbers.index(70)]
    assert numbers[: len(first)] == first and numbers[len(first) : len(first) + 20] == list(range(70, 90))
    # The beeps of 1 s and 3 s come with frames 25 and 75.
    where = [shown[1 + numbers.index(k)][0] for k in (25, 75)]
    assert beeps(serve) == pytest.approx(where, abs=0.021)
    last = shown[-1][1]
    assert last[:, :8].max() < 40 and last[:, 16:56].max() > 60  # a square picture between black borders
    assert np.diff([time for time, _ in shown]).min() > 0


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{player}", "its fields are"),
        ("{label.__class__}", "write fields as"),
        ("{label[0]}", "write fields as"),
        ("{start:.1", "cannot be filled in"),
        ("{", "cannot be filled in"),
        ("{0}", "cannot be filled in"),
        ("../{index}", "no file name below"),
        ("/tmp/{index}", "no file name below"),
        ("", "no file name below"),
        ("{label}", "two clips the name"),
    ],
)
def test_a_bad_template_is_one_sentence(template: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        clips.plan(Path("v.mp4"), "v", [segment(0, 1), segment(2, 3)], 10.0, template=template)


def test_names_from_labels_are_harmless() -> None:
    labels = ("../../etc/passwd", "<script>", 'a"b|c?', "", "CON.", "x" * 400, "💥 ünï", "a\udce9b")
    cuts = clips.plan(Path("v.mp4"), "..", [segment(i, i + 1, n) for i, n in enumerate(labels)], 100.0)
    for cut in cuts:
        assert "/" not in cut.name and len(cut.name.encode()) <= 200 and not cut.name.startswith(".")
    (nested,) = clips.plan(Path("v.mp4"), "v", [segment(61, 62)], 99.0, template="{label}/{clock}_{confidence:.0%}")
    assert nested.name == "serve/1-01.00_80%"
    assert len(set(reel_names([Segment(0, 1, 1, 1, label) for label in ("a/b", "a|b", "A_B")]).values())) == 3


def test_overlay_draws_what_is_running_and_keeps_time_and_sound(tmp_path: Path) -> None:
    video = source(tmp_path / "match.mp4", 3.0, NTSC)
    what = Result(str(video), 3.0, {}, (segment(1.0, 2.0), segment(1.5, 2.5, "ace <b>", 0.31)), (), {})
    render.overlay(what, video, tmp_path / "o.mp4")
    plain, drawn = frames(video), frames(tmp_path / "o.mp4")
    assert [t for t, _ in drawn] == pytest.approx([t for t, _ in plain], abs=0.001)
    assert beeps(tmp_path / "o.mp4") == pytest.approx(beeps(video), abs=0.002)

    def changed(at: float) -> np.ndarray:
        k = round(at * NTSC)
        return (np.abs(plain[k][1].astype(int) - drawn[k][1]).max(axis=2) > 60).any(axis=1)

    assert not changed(0.5)[:44].any()  # only the strip changed
    assert changed(1.2)[26:44].any() and not changed(1.2)[:20].any()


def test_the_bar_is_as_long_as_the_confidence() -> None:
    image = np.zeros((360, 640, 3), np.uint8)
    lengths = []
    for confidence in (0.25, 0.5, 1.0):
        found = Overlay([segment(0, 1, "serve", confidence)], 10.0).draw(image, 0.5)
        row = found[344]
        colour = np.array(Overlay([segment(0, 1)], 1.0).colour["serve"])
        lengths.append(int((row == colour).all(axis=1).sum()))
    assert lengths[2] == pytest.approx(80, abs=2)
    assert lengths[0] / lengths[2] == pytest.approx(0.25, abs=0.05) and lengths[1] / lengths[2] == pytest.approx(
        0.5, abs=0.05
    )
    assert not image.any()


@pytest.mark.parametrize("size", [(48, 72), (256, 340), (1080, 1920), (1920, 1080)])
def test_a_card_has_letters_in_its_middle_and_none_at_its_edges(size: tuple[int, int]) -> None:
    for title in ("serve", "a very long label that goes on and on and on and on, and on", "💥", ""):
        image = card(size, title, "3 clips · 0:12.00")
        assert image.shape == (*size, 3) and image.max() > 200
        assert not image[0].any() and not image[:, -1].any()


def test_what_browsers_play_and_what_needs_a_proxy(tmp_path: Path) -> None:
    images = [coded(k) for k in range(30)]
    assert render.playable(encode(tmp_path / "a.mp4", images))
    for name, codec in (("a.avi", "mpeg4"), ("a.gif", "gif"), ("a.mkv", "libx264"), ("b.mp4", "libx265")):
        video = encode(tmp_path / name, images, codec=codec, options={})
        assert not render.playable(video)
        made = tmp_path / f"{name}.proxy.mp4"
        assert render.proxy(video, made, "sha256:1")
        assert render.playable(made)
        shown = frames(made)
        # GIF counts hundredths of seconds, and its colours are not exact.
        assert [number_of(i) for _, i in shown] == list(range(30))
        assert [t for t, _ in shown] == pytest.approx([k / 25 for k in range(30)], abs=0.011)
    assert not render.proxy(tmp_path / "a.gif", tmp_path / "a.gif.proxy.mp4", "sha256:1")  # it exists already
    assert render.proxy(
        tmp_path / "a.gif", tmp_path / "a.gif.proxy.mp4", "sha256:2"
    )  # the existing one is of another video


def test_a_proxy_is_small(tmp_path: Path) -> None:
    video = encode(tmp_path / "big.mkv", [coded(k, 1080, 1920) for k in range(3)])
    render.proxy(video, tmp_path / "p.mp4")
    assert frames(tmp_path / "p.mp4")[0][1].shape == (720, 1280, 3)


def test_a_film_that_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_movie(tmp_path / "f.mp4", (48, 72), Fraction(25)) as movie:
        movie.picture(coded(1), 0.0)
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        list(clips.cut(clips.plan(encode(tmp_path / "v.mp4", [coded(0)]), "v", [segment(0, 1)], 1.0), blocked / "x"))


def test_a_video_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        shape_of(tmp_path / "missing.mp4")
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(1600))
    with pytest.raises(VideoError, match="no video stream"):
        list(clips.cut(clips.plan(sound, "s", [segment(0, 1)], 1.0), tmp_path))


def test_fitting_keeps_the_shape() -> None:
    image = np.full((30, 60, 3), 200, np.uint8)
    fitted = boxed(image, (40, 40))
    assert fitted.shape == (40, 40, 3) and (fitted[10:30] == 200).all() and not fitted[:10].any()
    assert boxed(image, (30, 60)) is not None and (boxed(image, (29, 59)) == 200).all()

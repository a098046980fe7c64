"""Which stream of a file with several: its default, else the largest, never a still; the same one everywhere."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from conftest import coded, number_of, probe

from extractors.decode.grid import Frames
from pipeline.clips import cut as clips
from pipeline.clips import overlay as render
from pipeline.clips.read import pictures, sound
from pipeline.run import views
from postprocess.segment import Result, Segment

BIG, SMALL = (96, 144), (48, 72)
NONE, DEFAULT = Disposition(0), Disposition.default
# (codec, (height, width), flags, frames)
Track = tuple[str, tuple[int, int], Disposition, int]


def several(path: Path, tracks: Sequence[Track], tones: Sequence[tuple[float, Disposition]] = ()) -> Path:
    """A file of video streams whose frames carry 1000 * the stream's index + their number, and of tones (Hz)."""
    with av.open(str(path), "w") as out:
        streams = []
        for codec, (height, width), flags, _ in tracks:
            stream = out.add_stream(codec, rate=25)
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.options = {"bf": "0"} if codec == "libx264" else {}
            stream.disposition = flags
            streams.append(stream)
        heard = []
        for _, flags in tones:
            audio = out.add_stream("aac", rate=48000, layout="mono")
            audio.disposition = flags
            heard.append(audio)
        for k in range(max(count for *_, count in tracks)):
            for index, (stream, (_, size, _, count)) in enumerate(zip(streams, tracks, strict=True)):
                if k < count:
                    frame = av.VideoFrame.from_ndarray(coded(1000 * index + k, *size))
                    frame.pts = k
                    out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
        for audio, (hertz, _) in zip(heard, tones, strict=True):
            wave = np.sin(np.arange(48000) * 2 * np.pi * hertz / 48000)[None].astype(np.float32) / 2
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


def numbers(path: Path) -> list[int]:
    with Frames(path, 25, 48) as frames:
        return [number_of(image) for _, image in frames.grid()]


CASES: dict[str, tuple[str, Sequence[Track], int]] = {
    "the second has the flag": ("mkv", [("libx264", BIG, NONE, 25), ("libx264", SMALL, DEFAULT, 25)], 1),
    "the first has the flag": ("mkv", [("libx264", SMALL, DEFAULT, 25), ("libx264", BIG, NONE, 25)], 0),
    "both have it": ("mkv", [("libx264", SMALL, DEFAULT, 25), ("libx264", BIG, DEFAULT, 25)], 1),
    "none has it": ("ts", [("libx264", SMALL, NONE, 25), ("libx264", BIG, NONE, 25)], 1),
    "none has it, alike": ("ts", [("libx264", SMALL, NONE, 25), ("libx264", SMALL, NONE, 25)], 0),
    "for the impaired": (
        "mkv",
        [("libx264", BIG, Disposition.visual_impaired, 25), ("libx264", SMALL, NONE, 25)],
        1,
    ),
    "a still with the flag": ("mkv", [("mjpeg", BIG, DEFAULT, 1), ("libx264", SMALL, NONE, 25)], 1),
    "a still in MP4": ("mp4", [("mjpeg", BIG, DEFAULT, 1), ("libx264", SMALL, NONE, 25)], 1),
    "a still in MOV": ("mov", [("mjpeg", BIG, DEFAULT, 1), ("libx264", SMALL, DEFAULT, 25)], 1),
    "a cover": ("mp4", [("mjpeg", BIG, Disposition.attached_pic, 1), ("libx264", SMALL, NONE, 25)], 1),
}


@pytest.mark.parametrize("name", CASES)
def test_the_stream_that_is_meant(tmp_path: Path, name: str) -> None:
    suffix, tracks, meant = CASES[name]
    path = several(tmp_path / f"a.{suffix}", tracks)
    assert numbers(path) == list(range(1000 * meant, 1000 * meant + 25))
    info = probe(path)
    assert (info.height, info.width) == tracks[meant][1]


def test_everything_that_is_made_of_a_video_shows_the_same_stream(tmp_path: Path) -> None:
    path = several(
        tmp_path / "a.mkv",
        [("libx264", BIG, NONE, 50), ("libx264", SMALL, DEFAULT, 50)],
        [(440.0, NONE), (1000.0, DEFAULT)],
    )
    assert [number_of(image) for _, image in pictures(path, 0.4, 0.8)] == list(range(1010, 1020))
    cuts = clips.plan(path, "a", [Segment(0.4, 0.8, 1.0, 0.9, "serve")], 2.0)
    makes: list[Callable[..., object]] = [clips.cut, clips.copy, clips.reels]
    for number, make in enumerate(makes):
        (made,) = make(cuts, tmp_path / str(number))  # type: ignore[misc]
        assert 1015 in numbers(made.path)
        assert pitch(made.path) == pytest.approx(1000, abs=50)  # not 440
    render.proxy(path, tmp_path / "p.mp4")
    assert numbers(tmp_path / "p.mp4") == list(range(1000, 1050))
    result = Result(str(path), 2.0, {}, (), (), {})
    render.overlay(result, path, tmp_path / "o.mp4")
    with Frames(tmp_path / "o.mp4") as frames:
        assert frames.size == SMALL
    assert all(image.shape[:2] == SMALL for image in views.stills(path, 2.0, 3))


def pitch(path: Path) -> float:
    """Hz of the loudest tone that a file plays."""
    samples = np.concatenate([piece[0] for _, piece in sound(path, 0.0, 5.0, 1)])
    return float(np.abs(np.fft.rfft(samples)).argmax() * 48000 / len(samples))


def test_a_browser_shows_the_first_stream_whatever_its_flags(tmp_path: Path) -> None:
    plain = several(tmp_path / "a.mp4", [("libx264", SMALL, DEFAULT, 5)], [(440.0, DEFAULT)])
    assert render.playable(plain)
    later = several(tmp_path / "b.mp4", [("libx264", SMALL, NONE, 5), ("libx264", BIG, DEFAULT, 5)])
    assert not render.playable(later)
    other_sound = several(tmp_path / "c.mp4", [("libx264", SMALL, DEFAULT, 5)], [(440.0, NONE), (1000.0, DEFAULT)])
    assert not render.playable(other_sound)


def test_a_case_of_a_second_track_by_default(cases: Path) -> None:
    with Frames(cases / "default_second.mkv", 25, 256) as one, Frames(cases / "ref.mp4", 25, 256) as other:
        for (k, a), (j, b) in zip(one.grid(), other.grid(), strict=True):
            assert k == j
            assert np.abs(a.astype(int) - b).mean() < 1

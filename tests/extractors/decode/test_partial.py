"""`partial` means that pictures are missing: sound files are not called so, and damaged ones are."""

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from conftest import coded, encode, number_of

from extractors.decode.clock import decode
from extractors.decode.container import open_video
from extractors.decode.grid import Frames
from extractors.decode.video import Damage, is_partial, warnings

OPTIONS = {"g": "25", "bf": "2", "preset": "ultrafast"}


def read(path: Path) -> tuple[list[int], Frames]:
    """Numbers of the frames on the grid, and what was seen."""
    with Frames(path, 25, 48) as frames:
        return [number_of(image) for _, image in frames.grid()], frames


def whole(path: Path, numbers: list[int]) -> None:
    found, frames = read(path)
    assert found == numbers
    assert frames.exhausted
    assert not frames.partial(whole=True)
    assert not [said for said in frames.warnings(whole=True) if "damaged" in said or "before the file says" in said]


def film(path: Path, first: int = 0, count: int = 75, **more: object) -> Path:
    return encode(path, [coded(k) for k in range(first, first + count)], options=OPTIONS, **more)  # type: ignore[arg-type]


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [0, 3])
@pytest.mark.parametrize("before", [0.5, 1.2, 26.4])
def test_a_clock_of_33_bits_that_wraps(tmp_path: Path, before: float, sound: float) -> None:
    """FFmpeg takes what stands before the wrap for negative, and the container for one that starts before 0 s.

    33 bits of 90 kHz: ISO/IEC 13818-1, 2.4.3.7.
    """
    start = 2**33 / 90000 - before
    path = film(tmp_path / "plain.ts", times=[start + k / 25 for k in range(75)])
    if sound:
        silent, path = path, tmp_path / "sound.ts"
        other = film(tmp_path / "other.mp4", sound=sound)
        with av.open(str(silent)) as a, av.open(str(other)) as b, av.open(str(path), "w") as out:
            picture, audio = a.streams.video[0], b.streams.audio[0]
            streams = {"p": out.add_stream_from_template(picture), "a": out.add_stream_from_template(audio)}
            for packet in [p for p in a.demux(picture) if p.dts is not None]:
                packet.stream = streams["p"]
                packet.pts, packet.dts = packet.pts + 2**33, packet.dts + 2**33
                out.mux(packet)
            for packet in [p for p in b.demux(audio) if p.dts is not None]:
                packet.stream = streams["a"]
                moved = round(start / audio.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                out.mux(packet)
    with av.open(str(path)) as container:
        assert container.start_time < 0
    whole(path, list(range(75)))


@pytest.mark.parametrize("before", [1.2, 26.4])
def test_a_wrapping_clock_does_not_hide_a_tail_that_is_missing(tmp_path: Path, before: float) -> None:
    """What a header declares counts from the stream's own start there."""
    start = 2**33 / 90000 - before
    path = film(tmp_path / "a.ts", times=[start + k / 25 for k in range(75)])
    with Frames(path, 25, 48) as frames:
        for _ in frames.grid(0, 40):
            pass
        assert frames.missing == pytest.approx(3.0 - frames.end)


# --- files that were joined -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 3), (3, 0), (3, 3)], ids=str)
def test_sound_files_joined_by_cat(tmp_path: Path, first: float, second: float) -> None:
    one = film(tmp_path / "1.ts", sound=first)
    two = film(tmp_path / "2.ts", 75, 80, sound=second)
    path = tmp_path / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    whole(path, list(range(155)))
    path.write_bytes(one.read_bytes() + two.read_bytes() + one.read_bytes())
    whole(path, [*range(155), *range(75)])


def noisy(path: Path, count: int = 100) -> Path:
    """Pictures that take many packets of a transport stream each."""
    rng = np.random.default_rng(0)
    images = [coded(k) // 2 + rng.integers(0, 90, (48, 72, 3), np.uint8) for k in range(count)]
    return encode(path, images, options=OPTIONS | {"g": "10"})


@pytest.mark.parametrize("share", [0.5, 0.7, 0.93])
def test_a_file_that_was_cut_and_then_joined(tmp_path: Path, share: float) -> None:
    data = noisy(tmp_path / "1.ts").read_bytes()
    cut = data[: int(len(data) // 188 * share) * 188]
    path = tmp_path / "both.ts"
    path.write_bytes(cut + film(tmp_path / "2.ts").read_bytes())
    assert read(path)[1].partial(whole=True)


def test_packets_that_were_lost(tmp_path: Path) -> None:
    """Wherever FFmpeg or a decoder sees a hole, the file is partial; near key frames too."""
    data, rng = noisy(tmp_path / "a.ts").read_bytes(), random.Random(1)
    count, path, seen = len(data) // 188, tmp_path / "lost.ts", 0
    for _ in range(30):
        at, size = rng.randrange(20, count - 20), rng.choice([1, 2, 5, 20])
        path.write_bytes(data[: at * 188] + data[(at + size) * 188 :])
        marked = 0
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                marked += packet.is_corrupt
                try:
                    marked += sum(frame.is_corrupt for frame in packet.decode())
                except av.error.FFmpegError:
                    marked += 1
        seen += bool(marked)
        assert read(path)[1].partial(whole=True) == bool(marked), (at, size)
    assert seen > 25


# --- packets without a picture ----------------------------------------------------------------------------------------


def test_theora_repeats_a_picture_by_an_empty_packet(cases: Path) -> None:
    with Frames(cases / "a.ogv", 25, 48) as frames:
        count = sum(1 for _ in frames.grid())
        assert frames.damage == Damage()
        assert (count, frames.end) == (128, pytest.approx(5.12))
        assert not frames.partial(whole=True)
        assert frames.warnings(whole=True) == ()


def test_a_picture_that_stays_until_the_end_is_shown_until_then(tmp_path: Path) -> None:
    """The demuxer is a stub: no muxer here writes packets without a picture."""
    path = encode(tmp_path / "a.mkv", [coded(k) for k in range(50)], codec="mjpeg")
    with open_video(path) as (container, stream):

        def packets(chosen: Any) -> Iterator[Any]:
            for k, packet in enumerate(container.demux(chosen)):
                real = packet.pts is None or k < 10 or k == 20
                yield (
                    packet
                    if real
                    else SimpleNamespace(size=0, pts=packet.pts, dts=packet.dts, is_corrupt=False, is_keyframe=False)
                )

        stub = SimpleNamespace(demux=packets, start_time=container.start_time, format=container.format)
        damage = Damage()
        found = [(time, number_of(frame.to_ndarray(format="rgb24"))) for time, frame in decode(stub, stream, damage)]  # type: ignore[arg-type]
    assert [number for _, number in found] == [*range(10), 20, 20]
    assert [time for time, _ in found] == pytest.approx([*(k / 25 for k in range(10)), 0.8, 49 / 25], abs=2e-3)
    assert damage == Damage()


def test_what_partial_means() -> None:
    assert is_partial(Damage(errors=1), 0.0)
    assert is_partial(Damage(), 1.5)
    assert not is_partial(Damage(jumps=3, made_up=9), 0.5)
    assert warnings(Damage(errors=2), 0.0) == ("it is damaged in 2 places.",)

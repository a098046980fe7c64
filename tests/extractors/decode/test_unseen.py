"""Packets that need not be decoded: none that a grid point shows, whatever the codec, the rate and the place."""

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from conftest import coded, encode, number_of

from extractors.decode import container, unseen
from extractors.decode.container import open_video
from extractors.decode.grid import Frames
from extractors.decode.unseen import Unseen

H264 = {"preset": "veryfast", "bf": "3", "b-pyramid": "normal"}
HEVC = {"preset": "ultrafast", "x265-params": "bframes=3:log-level=none"}


@pytest.fixture
def left_out(monkeypatch: pytest.MonkeyPatch) -> list[av.Packet]:
    """The packets that were not decoded."""
    found: list[av.Packet] = []
    every = Unseen.marked

    def marked(self: Unseen, packets: Iterator[av.Packet]) -> Iterator[tuple[av.Packet, bool]]:
        for packet, without in every(self, packets):
            found.extend([packet] * without)
            yield packet, without

    monkeypatch.setattr(Unseen, "marked", marked)
    return found


def shown(path: Path, first: int = 0, last: float = float("inf")) -> tuple[list[tuple[int, int]], Any]:
    """Grid points with the numbers of their frames, and what is known at the end."""
    with Frames(path, threads=1) as frames:
        found = [(k, number_of(image)) for k, image in frames.grid(first, last)]
        return found, (frames.origin, frames.end, frames.exhausted, frames.damage)


def nearest(times: list[float], points: int) -> list[int]:
    """The oracle: for each point of a 25 fps grid the number of the nearest frame; a tie goes to the earlier one."""
    given = np.array(times)
    return [int(np.argmin(np.abs(given - k / 25) - 1e-7 * (given < k / 25))) for k in range(points)]


CASES: list[tuple[str, float, str, dict[str, str], bool]] = [
    ("a.mp4", 60, "libx264", H264, True),
    ("a.mkv", 50, "libx264", H264, True),
    ("a.mov", 59.94, "libx265", HEVC, True),
    ("b.mp4", 120, "libx265", HEVC, True),
    ("b.mov", 30, "libx264", H264, True),
    ("c.mp4", 25, "libx264", H264, False),
    ("c.mkv", 24, "libx264", H264, False),
    ("d.mp4", 60, "libx264", {"preset": "veryfast", "bf": "0"}, False),  # every frame is needed for the next
    ("a.ts", 60, "libx264", H264, False),  # no lengths of units
    ("a.webm", 60, "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, False),
]


@pytest.mark.parametrize(("name", "rate", "codec", "options", "some"), CASES)
def test_the_grid_shows_the_nearest_frames(
    tmp_path: Path, left_out: list[av.Packet], name: str, rate: float, codec: str, options: dict[str, str], some: bool
) -> None:
    times = [k / rate for k in range(150)]
    path = encode(tmp_path / name, [coded(k) for k in range(150)], codec, 25, times, options=options)
    found, end = shown(path)
    assert [k for k, _ in found] == list(range(len(found))) and len(found) >= 150 / rate * 25 - 1
    wrong = [k for k, number in found if number != nearest(times, len(found))[k]]
    # Matroska rounds time stamps to 1 ms, so ties fall either way.
    assert not wrong or (name.endswith(("mkv", "webm")) and len(wrong) < len(found) / 2)
    assert bool(left_out) == some
    assert end[2] and end[3].errors == 0


def test_every_part_of_odd_rates(tmp_path: Path, left_out: list[av.Packet], monkeypatch: pytest.MonkeyPatch) -> None:
    """With variable rates, whole and in parts, the same as when everything is decoded."""
    rng = random.Random(3)
    times = np.cumsum([rng.choice((1, 1, 1, 2, 3, 9)) / 90 for _ in range(240)]).tolist()
    path = encode(tmp_path / "a.mp4", [coded(k) for k in range(240)], "libx264", 25, times, options=H264 | {"g": "40"})
    last = len(shown(path)[0])
    parts = [(0, 10.0**9), (0, last // 2)] + [(k := rng.randrange(last), k + rng.randrange(1, 30)) for _ in range(12)]
    before = [shown(path, *part) for part in parts]
    assert left_out
    left_out.clear()
    monkeypatch.setattr(unseen, "disposable", lambda stream: None)
    assert before == [shown(path, *part) for part in parts]
    assert not left_out


def test_other_frames_do_not_need_them(tmp_path: Path) -> None:
    """Without every packet that is called disposable, the other frames are the same."""
    for name, codec, options in (("a.mp4", "libx264", H264), ("b.mp4", "libx265", HEVC)):
        path = encode(tmp_path / name, [coded(k) for k in range(60)], codec, options=options)

        def pictures(path: Path, every: bool) -> dict[int, bytes]:
            with open_video(path, threads=1) as (file, stream):
                test = unseen.disposable(stream)
                assert test is not None
                frames = (
                    frame
                    for packet in file.demux(stream)
                    if every or not packet.size or not test(memoryview(packet))
                    for frame in packet.decode()
                )
                return {int(frame.pts or 0): frame.to_ndarray(format="rgb24").tobytes() for frame in frames}

        whole, rest = pictures(path, True), pictures(path, False)
        assert 10 < len(rest) < 50 and rest == {pts: whole[pts] for pts in rest}


def test_damaged_units_are_decoded() -> None:
    sei, slice_ = bytes([0, 0, 0, 2, 6, 5]), bytes([0, 0, 0, 3, 1, 9, 9])
    assert unseen._h264(memoryview(sei + slice_ + slice_), 4)
    for broken in (sei, slice_[:-1], slice_ + b"\0", bytes([0, 0, 0, 0]) + slice_, bytes([0, 0, 0, 3, 0x21, 9, 9])):
        assert not unseen._h264(memoryview(broken), 4)
    slice_ = bytes([0, 0, 0, 3, 0, 1, 9])
    assert unseen._hevc(memoryview(slice_), 4, 1)
    for broken in (b"", slice_[:-1], bytes([0, 0, 0, 1, 0]), bytes([0, 0, 0, 3, 2, 1, 9])):
        assert not unseen._hevc(memoryview(broken), 4, 1)
    assert not unseen._hevc(memoryview(slice_), 4, 2)  # a higher sub-layer may refer to it


def test_errors_come_behind_the_packets_before_them(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", [coded(k) for k in range(30)], options=H264)
    with open_video(path, threads=1) as (file, stream):
        packets = list(file.demux(stream))[:10]

        def breaking() -> Iterator[av.Packet]:
            yield from packets
            raise IndexError

        found = []
        with pytest.raises(IndexError):
            for packet, _ in Unseen(stream, 0.0, 25.0, 0.0).marked(breaking()):
                found.append(packet)
        assert found == packets


@pytest.mark.parametrize("odd", [{"pts": None}, {"dts": 10**9}, {"pts": 3, "dts": 3}])
def test_odd_time_stamps_end_it(tmp_path: Path, odd: dict[str, int | None]) -> None:
    path = encode(tmp_path / "a.mp4", [coded(k) for k in range(90)], "libx264", 60, options=H264)
    with open_video(path, threads=1) as (file, stream):
        one = Unseen(stream, 0.0, 25.0, 0.0)
        given = list(file.demux(stream))
        fake: list[Any] = [SimpleNamespace(pts=p.pts, dts=p.dts, size=p.size, is_discard=False) for p in given]
        vars(fake[0]).update({"pts": given[3].pts, "dts": 3} if odd == {"pts": 3, "dts": 3} else odd)
        one._candidate = lambda packet: packet.size > 0  # type: ignore[method-assign]
        found = list(one.marked(iter(fake)))
        assert [packet for packet, _ in found] == fake
        assert not any(without for _, without in found)


def test_only_frames_that_are_shrunk_much_keep_the_edges_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (30, 24, 32, 3)).repeat(10, 1).repeat(10, 2)
    images = [np.asarray(coded(k, 240, 320) * 0.7 + noise[k], np.uint8) for k in range(30)]
    path = encode(tmp_path / "a.mp4", images, options=H264 | {"crf": "35"})

    def pictures(short_side: int) -> np.ndarray:
        with Frames(path, 25, short_side, threads=1) as frames:
            return np.stack([image for _, image in frames.grid()]).astype(int)

    much, little = pictures(80), pictures(81)
    monkeypatch.setattr(container, "SHRINKS", 10**6)
    assert 0 < np.abs(much - pictures(80)).mean() < 0.5
    assert (little == pictures(81)).all()

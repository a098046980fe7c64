"""Memory does not grow with a video: nothing waits for Python's collector, and the limit is not used up by threads.

Each figure is of a process of its own, in which the collector is off. `-m slow -s` prints them beside the arithmetic.
"""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from conftest import coded, encode

from extractors.config import FeatureConfig, Limits, cores
from extractors.decode import container as video
from extractors.decode import tone
from extractors.decode.grid import Frames
from extractors.decode.process import Decoder
from pipeline.clips import overlay as render
from pipeline.clips import read as cut

FULL_HD, ULTRA_HD = (1080, 1920), (2160, 3840)
ROOT = Path(__file__).parents[3]
MB = 10**6
# As cameras code: frames that lean on others, before and behind.
CAMERA = {"preset": "ultrafast", "refs": "4", "bf": "3", "g": "50"}


def long(folder: Path, size: tuple[int, int], seconds: int, piece: int = 2) -> Path:
    """A video of so many seconds, of which a few (`piece`) are encoded once and repeated with later times."""
    short = encode(folder / f"{size[0]}-short.mp4", [coded(k, *size) for k in range(25 * piece)], options=CAMERA)
    path = folder / f"{size[0]}.mp4"
    with av.open(str(short)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        packets = [(p.pts, p.dts, p.is_keyframe, bytes(p)) for p in given.demux(stream) if p.dts is not None]
        target = out.add_stream_from_template(stream)
        assert stream.time_base is not None
        for times in range(seconds // piece):
            for pts, dts, key, data in packets:
                packet = av.Packet(data)
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, target, key
                shift = round(piece * times / stream.time_base)
                packet.pts, packet.dts = pts + shift, dts + shift
                out.mux(packet)
    return path


class Uncollected(Decoder):
    """A decoder whose child never runs Python's collector."""

    def _command(self) -> list[str]:
        memory = super()._command()[-1]
        code = f"import gc; gc.disable(); from extractors.decode.child import serve; serve({memory})"
        return [sys.executable, "-P", "-c", code]


def resident(pid: int, what: str = "VmRSS") -> int:
    """Bytes of a process in memory; what it shares, as the ring of frames, is in VmRSS and not in RssAnon."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{what}:")]
    return int(value) * 1024


def measured(path: Path, threads: int) -> Iterator[tuple[float, int]]:
    """(second of the video, bytes that the decoder's process has for itself), once a second; the last: its peak RSS."""
    child = Uncollected(threads=threads)
    with child.open(path, FeatureConfig()) as (_, grid):
        for k, _ in grid:
            assert child._child is not None
            if k % 25 == 0:
                yield k / 25, resident(child._child.pid, "RssAnon")
    yield -1.0, resident(child._child.pid, "VmHWM")
    child.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """A minute of 1080p and of 4K."""
    folder = tmp_path_factory.mktemp("long")
    return {size: long(folder, size, 60) for size in (FULL_HD, ULTRA_HD)}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory of a process")


def frames_alive() -> int:
    return sum(type(one) is av.VideoFrame for one in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
def test_a_frame_is_gone_once_it_has_been_shown(tmp_path: Path) -> None:
    """For features and for clips; turned and in HDR, so that there is side data, and more to be done."""

    def prepare(stream: Any) -> None:
        stream.set_display_rotation(90)
        stream.codec_context.color_trc, stream.codec_context.color_primaries = tone.PQ, tone.BT2020

    for change in (None, prepare):
        path = encode(tmp_path / "a.mp4", [coded(k) for k in range(100)], **{"prepare": change} if change else {})
        before = frames_alive()
        with Frames(path, 25, 32, threads=1) as shown:
            assert sum(1 for _ in shown.grid()) == 100
            assert frames_alive() - before <= 3  # the first, which `Frames` keeps, and the last two
        del shown
        assert frames_alive() == before
        assert sum(1 for _ in cut.pictures(path, 1.0, 4.0)) == 75
        for _ in range(10):
            assert next(iter(cut.pictures(path, 2.0, 2.1, 32)))
        made = render.proxy(path, tmp_path / "p.mp4")
        assert made
        assert frames_alive() == before
        (tmp_path / "p.mp4").unlink()


@linux
def test_the_decoders_process_stays_as_large_as_it_is(tmp_path: Path) -> None:
    *sizes, (_, peak) = measured(long(tmp_path, FULL_HD, 5, piece=1), threads=1)
    assert max(size for _, size in sizes[2:]) - sizes[1][1] <= 10 * MB
    assert peak <= 200 * MB


@linux
@pytest.mark.parametrize("threads", [1, 32])
def test_the_limit_is_the_videos(tmp_path: Path, threads: int) -> None:
    """A quarter of a GiB is enough for 1080p, whatever the interpreter, the stacks and the frames of threads take."""
    path = long(tmp_path, FULL_HD, 1, piece=1)
    with Decoder(limits=Limits(memory=0.25), threads=threads).open(path, FeatureConfig()) as (_, grid):
        assert sum(1 for _ in grid) == 25


def test_no_more_threads_than_speed_a_decoder_up_or_than_memory_allows() -> None:
    def threads(wanted: int, height: int, width: int, bits: int) -> int:
        codec = SimpleNamespace(width=width, height=height, format=SimpleNamespace(padded_bits_per_pixel=bits))
        return video.decoder_threads(wanted, SimpleNamespace(codec_context=codec))  # type: ignore[arg-type]

    assert [threads(n, *FULL_HD, 12) for n in (1, 2, 15, 16, 128)] == [1, 3, 16, 16, 16]
    assert threads(32, *ULTRA_HD, 12) == threads(32, *ULTRA_HD, 24) == 16
    assert threads(32, 4320, 7680, 24) == 5  # 100 MB each
    assert threads(32, 65535, 65535, 48) == 1
    assert threads(32, 0, 0, 0) == 16
    assert threads(0, *FULL_HD, 12) == threads(cores(), *FULL_HD, 12)


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("size", "most"), [(FULL_HD, 200 * MB), (ULTRA_HD, 400 * MB)], ids=["1080p", "4K"])
def test_one_thread_over_a_minute(videos: dict[tuple[int, int], Path], size: tuple[int, int], most: int) -> None:
    *sizes, (_, peak) = measured(videos[size], threads=1)
    print(f"\n1 thread, {size[0]} rows: peak {peak / MB:.0f} MB; a frame {bytes_of(size) / MB:.1f} MB")
    assert max(n for _, n in sizes[5:]) - min(n for _, n in sizes[5:]) <= 100 * MB
    assert peak <= most


@linux
@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 16, 32])
@pytest.mark.parametrize("size", [FULL_HD, ULTRA_HD], ids=["1080p", "4K"])
def test_threads_over_a_minute(videos: dict[tuple[int, int], Path], size: tuple[int, int], threads: int) -> None:
    """Nothing is refused under the default limit, and what more threads hold is their frames."""
    *sizes, (_, peak) = measured(videos[size], threads)
    used = min(threads + video.SPARE_THREADS, video.MOST_THREADS)
    held = 2 * used + 7  # in each thread, decoded and waiting for each, 4 leant on, 3 to be put in order
    print(
        f"\n{threads} threads ({used} used), {size[0]} rows: peak {peak / MB:.0f} MB, of which {held} frames of "
        f"{bytes_of(size) / MB:.1f} MB may be {held * bytes_of(size) / MB:.0f} MB"
    )
    assert max(n for _, n in sizes[5:]) - min(n for _, n in sizes[5:]) <= 100 * MB


def bytes_of(size: tuple[int, int]) -> float:
    """Bytes of a decoded frame, 4:2:0 in 8 bits."""
    return size[0] * size[1] * 1.5


REEL = """
import gc, sys
gc.disable()
from pathlib import Path
from pipeline.clips import cut as clips
from postprocess.segment import Segment
path, out = Path(sys.argv[1]), Path(sys.argv[2])
segments = [Segment(5.0 * k, 5.0 * k + 3.0, 1.0, 0.9, "serve") for k in range(10)]
assert len(list(clips.reels(clips.plan(path, "v", segments, 60.0), out))) == 1
assert "torch" not in sys.modules  # 500 MB, for nothing
(line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:")]
print(int(line.split()[1]) * 1024)  # getrusage would tell the parent's, where that is larger
"""


@linux
@pytest.mark.slow
def test_a_reel_of_ten_segments(videos: dict[tuple[int, int], Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REEL, videos[FULL_HD], tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    print(f"\nreel: peak {int(done.stdout) / MB:.0f} MB")
    assert int(done.stdout) <= 800 * MB

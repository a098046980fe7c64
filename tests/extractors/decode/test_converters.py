"""Threads that make pictures: the order, errors, and the same frames by any number of threads."""

import gc
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode

from extractors.config import FeatureConfig
from extractors.decode.child import converters
from extractors.decode.converters import Converters
from extractors.decode.grid import Frames
from extractors.decode.process import Decoder, DecoderBug

CONFIG = FeatureConfig(short_side=32, crop=32)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_work_is_begun_in_order_and_errors_are_the_callers(threads: int) -> None:
    begun: list[int] = []

    def work(k: int) -> None:
        begun.append(k)
        time.sleep(0.001 * (k % 3))
        if k == 7:
            raise ZeroDivisionError

    with Converters(threads) as pool:
        jobs = [pool.submit(lambda k=k: work(k)) for k in range(20)]
        for k, job in enumerate(jobs):
            if k == 7:
                with pytest.raises(ZeroDivisionError):
                    job.wait()
            else:
                job.wait()
            assert job.done
    assert sorted(begun) == list(range(20))
    assert threads > 1 or begun == list(range(20))
    assert not any(thread.name == "converter" for thread in threading.enumerate())


def test_no_work_keeps_its_frame_once_it_is_done() -> None:
    class Frame:
        pass

    frame = Frame()
    kept = weakref.ref(frame)
    gc.disable()
    try:
        with Converters(1) as pool:
            job = pool.submit(lambda one=frame: None)
            job.wait()
            del frame
            pool.submit(lambda: None).wait()
            assert kept() is None
    finally:
        gc.enable()


def test_how_many() -> None:
    assert [converters(n) for n in (1, 2, 3, 4, 8, 16)] == [0, 0, 1, 2, 4, 4]


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("rate", [25, 10, 60])  # as they are; repeated; with frames left out
def test_any_number_of_threads_gives_the_same_frames(tmp_path: Path, threads: int, rate: int) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k, 64, 96) for k in range(300)], rate=rate)
    with Frames(video, CONFIG.fps, CONFIG.short_side) as direct:
        ours = list(direct.grid())
    with Decoder(threads=threads).open(video, CONFIG) as (clip, frames):
        theirs = list(frames)
    assert [k for k, _ in ours] == [k for k, _ in theirs] == list(range(len(ours)))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))
    assert clip.exhausted


@pytest.mark.parametrize("threads", [1, 8])
def test_what_is_known_of_a_file_comes_with_its_frames(tmp_path: Path, threads: int) -> None:
    """Damage is told with the first frame behind it, and not earlier."""
    video = encode(tmp_path / "v.mp4", [coded(k, 64, 96) for k in range(200)], codec="mjpeg")
    data = bytearray(video.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 3000):
        data[at] = 0
    video.write_bytes(data)
    with Frames(video, CONFIG.fps, CONFIG.short_side, threads=threads) as direct:
        ours = [(k, direct.damage.errors) for k, _ in direct.frames()]
    with Decoder(threads=threads).open(video, CONFIG) as (clip, frames):
        theirs = [(k, clip.damage.errors) for k, _ in frames]
    assert ours == theirs
    assert ours[0][1] == 0 < ours[-1][1]


@pytest.mark.parametrize("threads", [1, 8])
def test_a_bug_in_a_thread_is_told_as_one(tmp_path: Path, threads: int) -> None:
    class Broken(Decoder):
        def _command(self) -> list[str]:
            code = "import extractors.decode.child as d; d.Frames.picture = lambda *_: 1 / 0; d.serve()"
            return [sys.executable, "-P", "-c", code]

    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(30)])
    with (
        pytest.raises(DecoderBug, match="ZeroDivisionError") as caught,
        Broken(threads=threads).open(video, CONFIG) as (_, frames),
    ):
        list(frames)
    assert "1 / 0" in caught.value.__notes__[0] or "<lambda>" in caught.value.__notes__[0]

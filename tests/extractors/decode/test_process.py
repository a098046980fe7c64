"""Decoding in another process gives the same frames, and a crash costs one video."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode, number_of

from extractors.config import FeatureConfig, Limits, Stretch
from extractors.decode import child as decoding
from extractors.decode import process as decoder
from extractors.decode.grid import Frames
from extractors.decode.process import Decoder
from extractors.decode.video import VideoError

CONFIG = FeatureConfig(short_side=32, crop=32)


@pytest.fixture
def child() -> Decoder:
    return Decoder()


def pid(child: Decoder) -> int:
    assert child._child is not None
    return child._child.pid


def test_frames_are_those_of_this_process(child: Decoder, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(300)])
    with child.open(video, CONFIG) as (clip, frames):
        theirs = list(frames)
    with Frames(video, CONFIG.fps, CONFIG.short_side) as direct:
        ours = list(direct.grid())
    assert len(theirs) == 300  # more than the ring holds
    assert all(k == j and np.array_equal(a, b) for (k, a), (j, b) in zip(ours, theirs, strict=True))
    assert (clip.end, clip.partial, clip.warnings) == (pytest.approx(12.0), False, ())
    assert clip.info.path == video


def test_frames_can_be_taken_from_where_they_lie(child: Decoder, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(200)])  # more than the ring holds
    seen: list[np.ndarray] = []

    def take(image: np.ndarray) -> int:
        seen.append(image)
        return number_of(image)

    with child.open(video, CONFIG, take=take) as (_, frames):
        assert list(frames) == [(k, k) for k in range(200)]
    assert any(np.shares_memory(seen[0], later) for later in seen[1:])


def test_a_stretch_has_the_frames_of_its_snippets(child: Decoder, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(100)])
    with child.open(video, CONFIG, Stretch(1.0, 2.0)) as (clip, frames):
        numbers = [(k, number_of(image)) for k, image in frames]
    assert (clip.first, clip.last) == (1, 4)
    assert numbers == [(k, k) for k in range(16, 65)]  # 3 snippets and the frame that flow needs


def test_one_child_serves_many_videos_and_survives_bad_ones(child: Decoder, tmp_path: Path) -> None:
    good = encode(tmp_path / "good.mp4", [coded(k) for k in range(20)])
    (tmp_path / "bad.mp4").write_text("text")
    seen = set()
    for _ in range(2):
        with child.open(good, CONFIG) as (_, frames):
            assert len(list(frames)) == 20
        seen.add(pid(child))
        with pytest.raises(VideoError, match=r"bad.mp4: not a video"), child.open(tmp_path / "bad.mp4", CONFIG):
            pass
        seen.add(pid(child))
    assert len(seen) == 1


def test_a_crash_costs_one_video(child: Decoder, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(400)])
    with (
        pytest.raises(VideoError, match=r"v.mp4: crashed the decoder \(SIGSEGV\)"),
        child.open(video, CONFIG) as (_, frames),
    ):
        next(frames)
        os.kill(pid(child), signal.SIGSEGV)
        list(frames)
    with child.open(video, CONFIG) as (_, frames):
        assert len(list(frames)) == 400


def test_frames_that_nobody_wants_end_the_child(child: Decoder, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(400)])
    with pytest.raises(ZeroDivisionError), child.open(video, CONFIG) as (_, frames):
        next(frames)
        first = pid(child)
        _ = 1 / 0
    with child.open(video, CONFIG) as (_, frames):
        next(frames)
        assert pid(child) != first


def test_the_child_ends_with_its_parent_and_leaves_no_ring(tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(400)])
    code = (
        "import os, sys; from pathlib import Path\n"
        "from extractors.decode.process import Decoder; from extractors.config import FeatureConfig\n"
        "d = Decoder(); opened = d.open(Path(sys.argv[1]), FeatureConfig()); _, frames = opened.__enter__()\n"
        "next(frames); print(d._child.pid, flush=True); os._exit(0)"
    )
    root = Path(__file__).parents[3]
    before = set(Path("/dev/shm").glob("jcdnet-*"))  # other runs on this machine
    done = subprocess.run([sys.executable, "-c", code, video], cwd=root, capture_output=True, text=True, check=True)
    orphan = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{orphan}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{orphan}").exists()
    assert set(Path("/dev/shm").glob("jcdnet-*")) <= before


def test_a_full_shared_memory_folder_is_worked_around(
    child: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(20)])
    reserve = os.posix_fallocate
    tried = []

    def full_once(handle: int, start: int, size: int) -> None:
        tried.append(size)
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        reserve(handle, start, size)

    monkeypatch.setattr(decoder.os, "posix_fallocate", full_once)
    with child.open(video, CONFIG) as (_, frames):
        assert len(list(frames)) == 20
    assert len(tried) == 2


# --- limits -----------------------------------------------------------------------------------------------------------


class Stub(Decoder):
    """A child whose work on a video is other code, with `d` the decoder's module."""

    def __init__(self, work: str, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.work = work

    def _command(self) -> list[str]:
        memory = super()._command()[-1]
        code = (
            "import os, signal, sys, time; import extractors.decode.child as d\n"
            f"def work(request, questions, answers):\n    {self.work}\n"
            f"d._serve_video = work; d.serve({memory})"
        )
        return [sys.executable, "-P", "-c", code]


HANG = "time.sleep(600)"
BUSY = "while request['start']: d._answer(answers, {'alive': True}); time.sleep(.05)"
EAT = "kept = [bytearray(1 << 24) for _ in iter(int, 1)]"
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.mark.parametrize(
    ("work", "limits", "cause"),
    [
        (HANG, Limits(stall=3), "gave no sign of life for 3 s"),
        (EAT, Limits(memory=1), "decoding it takes more than 1 GiB of memory"),
        (CRASH, Limits(), r"crashed the decoder \(SIGSEGV\)"),
    ],
    ids=["hangs", "eats", "crashes"],
)
def test_a_decoder_that_misbehaves_costs_one_video(tmp_path: Path, work: str, limits: Limits, cause: str) -> None:
    stub = Stub(work, limits)
    video = tmp_path / "v.mp4"
    with pytest.raises(VideoError, match=cause) as caught, stub.open(video, CONFIG):
        pass
    assert str(caught.value).startswith(f"{video}: ")
    stub.work = "d._answer(answers, {'error': 'the next video'})"
    stub.close()
    stub.limits = Limits()  # a busy machine takes its time to start another one
    with pytest.raises(VideoError, match="the next video"), stub.open(video, CONFIG):
        pass


def test_signs_of_life_hold_off_the_watchdog_but_not_the_deadline(tmp_path: Path) -> None:
    stub = Stub(f"{BUSY}\n    d._answer(answers, {{'error': 'started'}})", Limits())
    with pytest.raises(VideoError, match="started"), stub.open(tmp_path / "v.mp4", CONFIG):
        pass
    stub.limits = Limits(stall=3)
    late = time.monotonic() + 5
    with (
        pytest.raises(VideoError, match="took longer than --timeout allows"),
        stub.open(tmp_path / "v.mp4", CONFIG, Stretch(1.0), deadline=late),
    ):
        pass
    assert time.monotonic() >= late


def test_reading_up_to_a_late_frame_gives_signs_of_life(
    child: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = encode(tmp_path / "v.avi", [coded(k) for k in range(400)], codec="mpeg4")
    monkeypatch.setattr(decoding, "SIGN_OF_LIFE", 0.0)
    heard: list[str] = []

    class Ear:
        def write(self, line: str) -> None:
            heard.append(line)

        def flush(self) -> None:
            pass

    request = {
        "path": str(video),
        "home": None,
        "fps": 25,
        "short_side": 32,
        "length": 16,
        "stride": 16,
        "start": 14.0,
        "end": None,
    }
    more = {"span": (0, None), "seek": True, "gpu": None, "threads": 1}
    with pytest.raises(EOFError):  # it asks for the ring, and we have none
        decoding._serve_video(request | more, io.StringIO(""), Ear())  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        decoding._serve_video(request | more, io.StringIO('{"ring": "none", "slots": 1}\n'), Ear())  # type: ignore[arg-type]
    assert sum("alive" in line for line in heard) >= 2


@pytest.mark.parametrize("side", [30_000, 65_535])
def test_memory_is_bounded_for_pictures_that_claim_to_be_huge(tmp_path: Path, side: int) -> None:
    """A JPEG header of 30,000 x 30,000 pixels would take 1.35 GB a frame, were it believed."""
    video = encode(tmp_path / "v.avi", [coded(k, 48, 64) for k in range(30)], codec="mjpeg")
    data = video.read_bytes()
    claimed = data.replace(bytes([0, 48, 0, 64]), side.to_bytes(2, "big") * 2)
    assert claimed != data
    video.write_bytes(claimed)
    small = Decoder(limits=Limits(memory=1), threads=1)
    cause = r"v\.avi: (no frame of it can be decoded|decoding it takes more than 1 GiB)"
    with pytest.raises(VideoError, match=cause), small.open(video, FeatureConfig()) as (_, frames):
        list(frames)
    assert peak(small) < 2**30
    video.write_bytes(data)
    with small.open(video, FeatureConfig()) as (_, frames):
        assert len(list(frames)) == 30


def peak(child: Decoder) -> int:
    """Most bytes that the child has had in memory."""
    (line,) = [x for x in Path(f"/proc/{pid(child)}/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

"""Several decoders give the frames of one, and fall back to one wherever that is not sure."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import coded, digest, encode

from extractors import config as configuration
from extractors.config import FeatureConfig, Limits, Stretch, decoders_for
from extractors.decode.process import Decoder
from extractors.decode.several import Decoders
from extractors.decode.video import VideoError
from extractors.features import Extractor
from extractors.inputs.prefetch import prefetch

CONFIG = FeatureConfig(short_side=32, crop=32)
GOP = {"preset": "veryfast", "g": "25", "sc_threshold": "0"}
NO_KEYFRAMES = "it has too few keyframes"
X265 = "keyint=25:bframes=3:log-level=none:pools=1:open-gop="
OPEN = GOP | {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}
VARIABLE = [k / 25 + 0.013 * (k % 3) + (k // 50) * 0.4 for k in range(200)]


VIDEOS: dict[str, tuple[str, int, dict[str, Any], str]] = {
    # name: (suffix, frames, arguments of `encode`, why one decoder reads it)
    "closed": ("mp4", 200, {"options": GOP}, ""),
    "B-frames": ("mp4", 200, {"options": GOP | {"bf": "3"}}, ""),
    "matroska": ("mkv", 200, {"options": GOP | {"bf": "3"}}, ""),
    "60 fps": ("mp4", 500, {"options": GOP | {"bf": "3"}, "rate": 60}, ""),
    "12 fps": ("mp4", 100, {"options": GOP | {"g": "12"}, "rate": 12}, ""),
    "variable rate": ("mp4", 200, {"options": GOP | {"bf": "3"}, "times": VARIABLE}, ""),
    "late start": ("mp4", 200, {"options": GOP, "times": [2 + k / 25 for k in range(200)]}, ""),
    "open GOPs": ("mp4", 200, {"options": OPEN}, "decoders cannot begin at its keyframes"),
    "HEVC, open": ("mp4", 200, {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": X265 + "1"}}, ""),
    "HEVC": ("mp4", 200, {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": X265 + "0"}}, ""),
    "VP9": ("webm", 200, {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "25"}}, ""),
    "one keyframe": ("mp4", 200, {"options": GOP | {"g": "1000"}}, NO_KEYFRAMES),
    "short": ("mp4", 10, {"options": GOP}, NO_KEYFRAMES),
    "MPEG-TS": ("ts", 200, {"options": GOP}, "its format has no index of keyframes"),
    "AVI": ("avi", 200, {"codec": "mpeg4"}, "its format has no index of keyframes"),
}


@pytest.fixture(scope="module")
def one() -> Iterator[Decoder]:
    decoder = Decoder(threads=1)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def three() -> Iterator[Decoders]:
    decoders = Decoders(3, threads=1, each=1, least=0, span=20)
    yield decoders
    decoders.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("v") / "v.mp4", [coded(k) for k in range(300)], options=GOP)


def read(decoder: Decoder | Decoders, path: Path, *arguments: Any, **more: Any) -> tuple[Any, ...]:
    """All that a reading says: grid points and pictures, and what is known about the video at its end."""
    with decoder.open(path, CONFIG, *arguments, **more) as (clip, frames):
        shown = [(k, image.tobytes()) for k, image in frames]
    return shown, vars(clip), clip.warnings, clip.partial


def copy_with(video: Path, change: Callable[[bytearray], bytes | bytearray]) -> Path:
    made = video.with_name(f"{len(list(video.parent.iterdir()))}.mp4")
    made.write_bytes(change(bytearray(video.read_bytes())))
    return made


@pytest.mark.parametrize("name", VIDEOS)
def test_the_frames_are_those_of_one_decoder(name: str, one: Decoder, three: Decoders, tmp_path: Path) -> None:
    suffix, count, arguments, why = VIDEOS[name]
    path = encode(tmp_path / f"v.{suffix}", [coded(k) for k in range(count)], **arguments)
    assert read(three, path) == read(one, path)
    assert three.why == why


def test_a_turned_video(one: Decoder, three: Decoders, video: Path) -> None:
    def turn(data: bytearray) -> bytearray:
        matrix = b"".join(n.to_bytes(4, "big", signed=True) for n in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
        quarter = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
        place = data.index(matrix, data.index(b"tkhd"))
        data[place : place + len(matrix)] = quarter
        return data

    path = copy_with(video, turn)
    found = read(three, path)
    assert found[1]["size"] == (48, 32) and three.why == ""
    assert found == read(one, path)


@pytest.mark.parametrize(
    ("wanted", "divided"),
    [
        ({"span": (3, float("inf"))}, True),
        ({"span": (2, 17)}, True),
        ({"stretch": Stretch(1.0, 11.5)}, True),
        ({"stretch": Stretch(0.5)}, True),
        ({"stretch": Stretch(1.0, 3.0)}, False),
        ({"seek": False}, False),
        ({"seek": False, "span": (4, 9)}, False),
    ],
    ids=str,
)
def test_parts_of_a_video(wanted: dict[str, Any], divided: bool, one: Decoder, three: Decoders, video: Path) -> None:
    assert read(three, video, **wanted) == read(one, video, **wanted)
    assert (three.why == "") == divided


def test_all_decoders_work_and_serve_the_next_video(three: Decoders, video: Path) -> None:
    read(three, video)
    before = [pid(decoder) for decoder in three._all]
    assert len(set(before)) == 3
    read(three, video)
    assert [pid(decoder) for decoder in three._all] == before


def pid(decoder: Decoder) -> int:
    assert decoder._child is not None
    return decoder._child.pid


def lose_a_packet(data: bytearray) -> bytearray:
    """The middle of the file is overwritten."""
    place = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[place : place + 400] = bytes(400)
    return data


def test_a_damaged_video_is_read_by_one_decoder(one: Decoder, three: Decoders, video: Path) -> None:
    path = copy_with(video, lose_a_packet)
    found = read(three, path)
    assert found == read(one, path)
    assert found[1]["damage"].errors and found[2]
    assert three.why == "it is damaged"


def test_a_video_that_is_cut_off(one: Decoder, three: Decoders, tmp_path: Path) -> None:
    path = encode(
        tmp_path / "v.mp4",
        [coded(k) for k in range(300)],
        options=GOP,
        container_options={"movflags": "faststart"},
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert read(three, path) == read(one, path)


def test_errors_are_those_of_one_decoder(one: Decoder, three: Decoders, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("text")
    for name in ("text.mp4", "missing.mp4"):
        said = []
        for decoder in (one, three):
            with pytest.raises(VideoError) as caught, decoder.open(tmp_path / name, CONFIG):
                pass
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_a_crash_of_one_of_several_changes_nothing(one: Decoder, video: Path) -> None:
    decoders = Decoders(3, threads=1, each=1, least=0, span=20)
    shown = []
    again = "one decoder reads it from its beginning: (crashed the decoder|the decoder did not start)"
    with pytest.warns(RuntimeWarning, match=again), decoders.open(video, CONFIG) as (_, frames):
        for k, image in frames:
            if k == 0:
                os.kill(pid(decoders._all[1]), signal.SIGSEGV)
            shown.append((k, image.tobytes()))
    assert shown == read(one, video)[0]
    assert read(decoders, video)[0] == shown and decoders.why == ""
    decoders.close()


class Hanging(Decoder):
    """Its child begins a video, and is never heard of again."""

    def _command(self) -> list[str]:
        code = (
            "import time, extractors.decode.child as d\n"
            "d._serve_video = lambda *_: time.sleep(600)\n"
            f"d.serve({super()._command()[-1]})"
        )
        return [sys.executable, "-P", "-c", code]


def test_a_decoder_that_hangs_changes_nothing(one: Decoder, video: Path) -> None:
    decoders = Decoders(2, threads=1, each=1, least=0, span=20)  # a busy machine takes its time to start the first one
    decoders._all[1] = Hanging(None, Limits(stall=4), threads=1)
    with pytest.warns(RuntimeWarning, match="the decoder gave no sign of life for 4 s"):
        shown = read(decoders, video)
    assert shown == read(one, video)
    decoders.close()


def test_the_deadline_holds_for_all(video: Path) -> None:
    decoders = Decoders(2, threads=1, each=1, least=0, span=20)
    decoders._all[1] = Hanging(threads=1)
    late = time.monotonic() + 4
    with pytest.raises(VideoError, match="took longer than --timeout allows"):
        read(decoders, video, deadline=late)
    assert time.monotonic() >= late
    decoders.close()


def test_a_thread_that_reads_ahead_ends_with_its_reader(video: Path) -> None:
    """It waits for a child that is ended on purpose, which is no reason to read the video again."""
    decoders = Decoders(2, threads=1, each=1, least=0, span=20)
    decoders._all[1] = Hanging(threads=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with decoders.open(video, CONFIG) as (_, frames):
            ahead = prefetch(frames, 1000)
            next(ahead)
            (reader,) = (thread for thread in threading.enumerate() if thread.name == "frames")
        reader.join(60)
        assert not reader.is_alive()
    assert not said
    assert [decoder._child for decoder in decoders._all] == [None, None]


def test_frames_that_nobody_wants_end_the_children(three: Decoders, one: Decoder, video: Path) -> None:
    with three.open(video, CONFIG) as (_, frames):
        next(frames)
        before = [pid(decoder) for decoder in three._all]
    for number in before:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
    assert read(three, video) == read(one, video)


def test_no_room_for_so_many_rings(one: Decoder, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve, rooms = os.posix_fallocate, iter([True, False, False, False])

    def full(handle: int, start: int, size: int) -> None:
        if not next(rooms, True):
            raise OSError(28, "No space left on device")
        reserve(handle, start, size)

    decoders = Decoders(2, threads=1, each=1, least=0, span=20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.warns(RuntimeWarning, match="from its beginning: .*No space left on device"):
            shown = read(decoders, video)
    assert shown == read(one, video)
    decoders.close()


def test_a_ring_that_is_shorter_than_a_span(one: Decoder, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extractors.decode import several

    monkeypatch.setattr(several, "MOST_RING_BYTES", 5 * 32 * 48 * 3)
    monkeypatch.setattr(several, "ring_slots", lambda size: 5)
    decoders = Decoders(3, threads=1, each=1, least=0, span=20)
    assert read(decoders, video) == read(one, video) and decoders.why == ""
    decoders.close()


def test_small_pictures_have_one_decoder(video: Path) -> None:
    decoders = Decoders(2, threads=1, each=1)
    read(decoders, video)
    assert decoders.why == "its pictures are small"
    assert decoders._all[1]._child is None
    decoders.close()


@pytest.mark.usefixtures("stubs")
def test_features_do_not_depend_on_the_number_of_decoders(video: Path) -> None:
    config = FeatureConfig(short_side=32, crop=32, backbone="stub", flow="stub", precision="float32")
    made = []
    for path in (video, copy_with(video, lose_a_packet)):
        for count in (1, 3):
            extractor = Extractor(config, ("rgb", "flow"), decoders=count, threads=1)
            if count > 1:
                extractor.decoder.least, extractor.decoder.span, extractor.decoder.each = 0, 20, 1
            parts = list(extractor.parts(path, size=5))
            made.append(digest(extractor.join(parts, whole=True)))
            extractor.decoder.close()
    assert made[0] == made[1] != made[2] == made[3]


def test_a_gpu_has_several_decoders_and_a_worker_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "cores", lambda: 16)
    assert [decoders_for(*given) for given in (("cuda", None), ("cpu", None), ("cuda", 2))] == [8, 1, 1]
    monkeypatch.setattr(configuration, "cores", lambda: 3)
    assert decoders_for("cuda", None) == 1


def real(folder: Path, each: int) -> list[Path]:
    """Every so many of the videos of a folder, and of its folders."""
    kinds = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ogv", ".gif"}
    return [path for path in sorted(folder.rglob("*")) if path.suffix in kinds][::each]


@pytest.mark.parametrize(("name", "each"), [("corpus/originals", 1), ("cases", 1), ("corpus", 15), ("corpus-wide", 9)])
def test_real_clips(name: str, each: int, one: Decoder, three: Decoders, corpus: Path) -> None:
    folder = corpus.parent / name
    if not folder.is_dir():
        pytest.skip(f"no clips at {folder}")
    for path in real(folder, each):
        assert read(three, path) == read(one, path), path

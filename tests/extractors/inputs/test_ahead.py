"""A video that has begun before its turn has the same frames; whatever goes wrong with that changes nothing."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import coded, encode, until

from extractors.config import FeatureConfig, Limits, Stretch
from extractors.decode.process import Decoder
from extractors.decode.several import Decoders
from extractors.decode.video import VideoError
from extractors.inputs.ahead import Ahead, decoder_for

CONFIG = FeatureConfig(short_side=32, crop=32)
GOP = {"preset": "veryfast", "g": "25", "sc_threshold": "0"}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [encode(folder / f"{n}.mp4", [coded((k + 40 * n) % 256) for k in range(300)], options=GOP) for n in range(3)]


def one() -> Decoder:
    return Decoder(threads=1)


def three() -> Decoders:
    return Decoders(3, threads=1, each=1, least=0, span=20)


@pytest.fixture(params=[one, three])
def ahead(request: pytest.FixtureRequest) -> Iterator[Ahead]:
    decoder = Ahead(request.param)
    yield decoder
    decoder.close()


def read(decoder: Any, path: Path, *arguments: Any) -> tuple[Any, ...]:
    with decoder.open(path, CONFIG, *arguments) as (clip, frames):
        shown = [(k, image.tobytes()) for k, image in frames]
    return shown, vars(clip), clip.warnings, clip.partial


def begun(ahead: Ahead) -> Any:
    """The video that has begun, when its first frames are there."""
    assert ahead._begun is not None
    until(lambda: ahead._begun is not None and ahead._begun._ready)
    return ahead._begun


def test_the_frames_are_the_same_and_each_video_has_begun_before_its_turn(ahead: Ahead, films: list[Path]) -> None:
    for film, following in zip(films, [*films[1:], None], strict=True):
        ahead.expect(film, following and (following, CONFIG))
        assert read(ahead, film) == read(one(), film)
    assert ahead.adopted == 2
    assert len(ahead._idle) == 2  # two decoders took turns


def test_the_first_frames_are_in_the_ring_before_they_are_asked_for(films: list[Path]) -> None:
    ahead = Ahead(one)
    ahead.expect(films[0], (films[1], CONFIG))
    read(ahead, films[0])
    child = begun(ahead).decoder._child
    until(lambda: len(child.stdout.buffer.peek()) > 1)  # the child has said that frames are there
    ahead.close()
    assert child.wait(10) is not None


@pytest.mark.parametrize("other", [(Stretch(2.0),), (Stretch(), bytes), (Stretch(), bytes, (3, math.inf))])
def test_what_was_begun_is_of_no_use_for_another_request(
    ahead: Ahead, films: list[Path], other: tuple[Any, ...]
) -> None:
    ahead.expect(films[0], (films[1], CONFIG))
    read(ahead, films[0])
    left = begun(ahead)
    with ahead.open(films[1], CONFIG, *other) as (clip, frames), one().open(films[1], CONFIG, *other) as (same, real):
        for (k, a), (j, b) in zip(frames, real, strict=True):
            assert (k, bytes(a)) == (j, bytes(b))
    assert clip.end == same.end
    assert (ahead.adopted, ahead._begun) == (0, None)
    until(lambda: (left.decoder._all[0] if isinstance(left.decoder, Decoders) else left.decoder)._child is None)


def test_a_time_limit_counts_from_the_videos_own_turn(films: list[Path]) -> None:
    ahead = Ahead(one)
    ahead.expect(films[0], (films[1], CONFIG))
    read(ahead, films[0])
    begun(ahead)
    with ahead.open(films[1], CONFIG, deadline=time.monotonic() + 100) as (_, frames):
        assert len(list(frames)) == 300
    assert ahead.adopted == 0
    ahead.close()


def test_a_video_is_left_when_its_turn_passes(ahead: Ahead, films: list[Path]) -> None:
    ahead.expect(films[0], (films[1], CONFIG))
    read(ahead, films[0])
    first = begun(ahead)
    ahead.expect(films[1], (films[2], CONFIG))  # its features are in the cache by now: nobody opens it
    assert ahead._begun is first
    ahead.expect(films[2], None)
    assert ahead._begun is None
    assert read(ahead, films[2]) == read(one(), films[2])


def test_reading_a_video_twice_leaves_the_next_one_as_it_is(ahead: Ahead, films: list[Path]) -> None:
    ahead.expect(films[0], (films[1], CONFIG))
    assert read(ahead, films[0]) == read(ahead, films[0])  # as a damaged one is
    assert read(ahead, films[1]) == read(one(), films[1])
    assert ahead.adopted == 1


def test_a_bad_video_is_reported_in_its_turn(ahead: Ahead, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("text")
    ahead.expect(films[0], (tmp_path / "bad.mp4", CONFIG))
    assert read(ahead, films[0]) == read(one(), films[0])
    ahead.expect(tmp_path / "bad.mp4", (films[1], CONFIG))
    with pytest.raises(VideoError, match=r"bad.mp4: not a video"):
        read(ahead, tmp_path / "bad.mp4")
    ahead.expect(films[1], None)
    assert read(ahead, films[1]) == read(one(), films[1])


def test_an_error_in_one_video_does_not_hurt_the_next(ahead: Ahead, films: list[Path]) -> None:
    ahead.expect(films[0], (films[1], CONFIG))
    with pytest.raises(ZeroDivisionError), ahead.open(films[0], CONFIG) as (_, frames):
        next(frames)
        _ = 1 / 0
    assert read(ahead, films[1]) == read(one(), films[1])
    assert ahead.adopted == 1


class Slow:
    """A decoder whose `open` takes until it is let go."""

    def __init__(self) -> None:
        self.go, self.said = threading.Event(), list[str]()

    @contextlib.contextmanager
    def open(self, *arguments: Any) -> Iterator[tuple[Any, Any]]:
        self.go.wait(10)
        self.said.append("open")
        try:
            yield object(), iter(())
        finally:
            self.said.append("end")

    def close(self) -> None:
        self.said.append("close")


def test_what_is_left_while_it_begins_ends_by_itself() -> None:
    made: list[Slow] = []

    def make() -> Slow:
        made.append(Slow())
        return made[-1]

    ahead = Ahead(make)
    made[0].go.set()
    ahead.expect(Path("a"), (Path("b"), CONFIG))
    with ahead.open(Path("a"), CONFIG):
        pass
    ahead.close()  # nobody waits for b
    assert made[1].said == []
    made[1].go.set()
    until(lambda: made[1].said == ["open", "end", "close"])
    assert made[0].said == ["open", "end", "close"]


def test_only_an_accelerator_has_videos_begun_ahead() -> None:
    for device, kind in (("cpu", Decoder), ("cuda", Ahead), ("mps", Ahead)):
        assert type(decoder_for(torch.device(device), "cpu", Limits(), 2, None)) is kind
    assert isinstance(decoder_for(torch.device("cpu"), "cpu", Limits(), None, 3), Decoders)

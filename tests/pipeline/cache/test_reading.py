"""Files that cannot be read, or are written to, while they are read: nothing of them may be kept under their hash."""

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from conftest import coded, digest, encode

from extractors import features
from extractors.backbones import weights
from extractors.config import WHOLE, FeatureConfig
from extractors.decode.clock import UNREADABLE, decode
from extractors.decode.container import open_video
from extractors.decode.video import Damage, ReadError, VideoError
from extractors.features import FORMAT, Extractor
from extractors.parts import Part
from pipeline.cache import content as contents
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import Chunk
from pipeline.run.batch import extract, extract_batch
from pipeline.run.outcome import FeatureOutput
from pipeline.run.videos import find_videos
from pipeline.workers import worker
from pipeline.workers.engine import Done, Engine, Item, Request
from pipeline.workers.worker import Setup, Task, work
from support.errors import Stopped

pytestmark = pytest.mark.usefixtures("stubs")
CONFIG = FeatureConfig(backbone="stub", flow="stub", short_side=48, crop=32)
H264 = {"preset": "ultrafast", "bf": "2", "g": "25"}


def noisy(count: int) -> list[np.ndarray]:
    """Frames that do not compress, so that a file has many blocks."""
    rng = np.random.default_rng(0)
    return [coded(k, 96, 144) // 2 + rng.integers(0, 90, (96, 144, 3), np.uint8) for k in range(count)]


KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {"options": H264, "container_options": {"movflags": "faststart"}},
    "a.mkv": {"options": H264},
    "a.ts": {"options": H264, "sound": 3},
    "a.avi": {"codec": "mpeg4", "options": {"b": "4M"}},
    "a.flv": {"options": H264},
    "a.wmv": {"codec": "wmv2", "options": {"b": "4M"}},
    "a.mpg": {"codec": "mpeg2video", "options": {"b": "4M"}},
    "a.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime", "g": "25"}},
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


def film(originals: Path, folder: Path, name: str) -> Path:
    """A copy of a video of 80 frames, for a test to spoil."""
    if not (originals / name).exists():
        encode(originals / name, noisy(80), **KINDS[name])
    return Path(shutil.copy(originals / name, folder / name))


def files(cache: FeatureCache) -> list[Path]:
    return sorted(p for p in cache.folder.rglob("*") if p.is_file()) if cache.folder.exists() else []


# --- what the system says, and what FFmpeg says -----------------------------------------------------------------------


def failing(packets: Iterator[Any], error: Exception, after: int) -> Iterator[Any]:
    for _ in range(after):
        yield next(packets)
    raise error


@pytest.mark.parametrize("number", ["EIO", "ENOENT", "ESTALE", "ETIMEDOUT", "ENOTCONN"])
def test_an_input_error_is_no_damage(originals: Path, tmp_path: Path, number: str) -> None:
    path = film(originals, tmp_path, "a.mp4")
    error = av.error.FFmpegError(getattr(errno, number), os.strerror(getattr(errno, number)))
    with open_video(path) as (container, stream):
        stub = SimpleNamespace(
            demux=lambda s: failing(container.demux(s), error, 30),
            start_time=container.start_time,
            format=container.format,
            name=container.name,
        )
        damage = Damage()
        with pytest.raises(
            ReadError,
            match=r"a\.mp4: cannot be read to its end \(.+\); check the disk or the network.*run again\.",
        ) as said:
            list(decode(stub, stream, damage))  # type: ignore[arg-type]
        assert str(said.value).startswith(f"{path}: ")
        assert damage == Damage()


@pytest.mark.parametrize("kind", [av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError])
def test_what_ffmpeg_says_of_the_content_is_damage(originals: Path, tmp_path: Path, kind: Any) -> None:
    codes = {av.error.ArgumentError: errno.EINVAL}
    path, error = film(originals, tmp_path, "a.mp4"), kind(codes.get(kind, 1094995529), "of the content")
    with open_video(path) as (container, stream):
        stub = SimpleNamespace(
            demux=lambda s: failing(container.demux(s), error, 30),
            start_time=container.start_time,
            format=container.format,
            name=container.name,
        )
        damage = Damage()
        assert 10 < len(list(decode(stub, stream, damage))) <= 30  # type: ignore[arg-type]
        assert damage.errors == 1


def test_memory_and_arguments_are_not_the_disks() -> None:
    assert not UNREADABLE & {errno.ENOMEM, errno.EINVAL, errno.EAGAIN, errno.EINTR, 0}


# A C library that lets `read` fail behind an offset of a file: always or once.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static ssize_t (*real)(int, void *, size_t);
static long left = -2;
ssize_t read(int fd, void *to, size_t size) {
    if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    const char *wanted = getenv("FAIL_FILE");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = wanted ? readlink(link, path, sizeof path - 1) : -1;
    if (length < 0) return real(fd, to, size);
    path[length] = 0;
    if (left == -2) left = atol(getenv("FAIL_TIMES"));
    off_t at = lseek(fd, 0, SEEK_CUR), limit = atol(getenv("FAIL_AT"));
    if (strcmp(path, wanted) || at + (off_t)size <= limit || left == 0) return real(fd, to, size);
    if (at < limit) return real(fd, to, limit - at);
    if (left > 0) left--;
    errno = EIO;
    return -1;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built here."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a disk that fails is made of Linux and a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        [compiler, "-shared", "-fPIC", folder / "shim.c", "-o", folder / "shim.so", "-ldl"], check=True, timeout=60
    )
    return folder / "shim.so"


@pytest.mark.parametrize(
    ("name", "times"), [*((name, 1) for name in KINDS), ("a.mp4", -1), ("a.mkv", -1), ("a.ts", -1)], ids=str
)
def test_a_disk_that_fails_poisons_nothing(
    shim: Path, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    """FFmpeg reads on behind an error that was there once, and leaves out seconds of the picture in silence."""
    path = film(originals, tmp_path, name)
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache", 1)
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(shim))
        patch.setenv("FAIL_FILE", str(path.resolve()))
        patch.setenv("FAIL_TIMES", str(times))
        patch.setenv("FAIL_AT", str(path.stat().st_size // 2))
        with pytest.raises(VideoError) as said:
            cache.features(path, content, Extractor(CONFIG))
    assert str(said.value).startswith(f"{path}: ")
    assert files(cache) == []
    found = cache.features(path, content, Extractor(CONFIG))
    assert not found.partial
    assert digest(found) == digest(Extractor(CONFIG).chunk(path))
    assert len(found.times) == 5


# --- files that are written to ----------------------------------------------------------------------------------------


class Unlucky(Extractor):
    """Somebody does something to the file when reading begins, and something when `after` parts are there."""

    def __init__(self, begin: Callable[[], Any], after: int | None, then: Callable[[], Any]) -> None:
        super().__init__(CONFIG)
        self.begin, self.after, self.then = begin, after, then

    def parts(self, *arguments: Any, **more: Any) -> Iterator[Part]:
        self.begin()
        parts = list(super().parts(*arguments, **more))
        for number, part in enumerate(parts):
            if number == (len(parts) - 1 if self.after is None else self.after):
                self.then()
            yield part


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("part", [64, 1], ids=["one part", "many parts"])
@pytest.mark.parametrize("time_too", [False, True], ids=["restored", "restored with its time"])
@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_a_file_that_is_cut_while_it_is_read_and_restored(
    originals: Path, tmp_path: Path, name: str, time_too: bool, part: int
) -> None:
    path = film(originals, tmp_path, name)
    before, content, whole = path.stat(), content_hash(path), path.read_bytes()
    cache = FeatureCache(tmp_path / "cache", part)

    def restore() -> None:
        path.write_bytes(whole)
        if time_too:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(ReadError, match="changed while it was read; run again when it is complete"):
        cache.features(path, content, Unlucky(lambda: cut(path), 0, restore))
    assert files(cache) == []
    assert content_hash(path) == content
    found = cache.features(path, content_hash(path), Extractor(CONFIG))
    assert not found.partial
    assert digest(found) == digest(Extractor(CONFIG).chunk(path))


def test_a_file_that_is_overwritten_by_another_video(originals: Path, tmp_path: Path) -> None:
    """No damage is seen then: both are sound."""
    path = film(originals, tmp_path, "a.mkv")
    other = encode(tmp_path / "other.mkv", noisy(90)[::-1], options=H264).read_bytes()
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache", 2)
    with pytest.raises(ReadError, match="changed while it was read"):
        cache.features(path, content, Unlucky(lambda: path.write_bytes(other), None, lambda: None))
    assert files(cache) == []
    # After the hash, and before the first picture is read.
    with pytest.raises(ReadError, match="changed while it was read"):
        cache.features(path, content, Extractor(CONFIG))
    assert files(cache) == []


def test_parts_of_a_file_that_was_changed_are_not_gone_on_with(originals: Path, tmp_path: Path) -> None:
    """A run that is stopped keeps its parts: those that it read from other bytes must not be among them."""
    path = film(originals, tmp_path, "a.mkv")
    whole, content, cache = path.read_bytes(), content_hash(path), FeatureCache(tmp_path / "cache", 1)
    expected = digest(Extractor(CONFIG).chunk(path))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(0)
        return len(asked) > 2

    with pytest.raises(Stopped):
        cache.features(path, content, Extractor(CONFIG), stop=stop)
    assert files(cache)
    with pytest.raises(ReadError):
        cache.features(path, content, Unlucky(lambda: cut(path), 2, lambda: None))
    assert files(cache) == []
    path.write_bytes(whole)
    assert digest(cache.features(path, content_hash(path), Extractor(CONFIG))) == expected


def test_a_file_that_was_only_touched_is_the_same_content(originals: Path, tmp_path: Path) -> None:
    path = film(originals, tmp_path, "a.mp4")
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache")
    os.utime(path, ns=(1, 1))
    path.chmod(0o600)
    assert len(cache.features(path, content, Extractor(CONFIG)).times) == 5
    assert len(files(cache)) == 1


def test_a_file_that_is_gone_when_its_features_are_to_be_kept(originals: Path, tmp_path: Path) -> None:
    path = film(originals, tmp_path, "a.mp4")
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache")
    with pytest.raises(ReadError, match=r"a\.mp4: cannot be reached any more \(No such file"):
        cache.features(path, content, Unlucky(lambda: None, None, path.unlink))
    assert files(cache) == []


def grow(path: Path, by: int = 1000) -> None:
    with path.open("ab") as file:
        file.write(bytes(by))


def test_a_video_that_grows_is_said(originals: Path, tmp_path: Path) -> None:
    path = film(originals, tmp_path, "a.ts")
    told = r"a\.ts: changed while it was read; run again when it is complete\."
    with pytest.raises(ReadError, match=told):  # while it is hashed
        content_hash(path, lambda stage, done, total: grow(path) if done == total else None)
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache")
    with pytest.raises(ReadError, match=told):  # while it is decoded
        cache.features(path, content, Unlucky(lambda: None, 0, lambda: grow(path)))
    grow(path)
    with pytest.raises(ReadError, match=told):  # in between
        cache.features(path, content, Extractor(CONFIG))
    assert files(cache) == []


def test_a_video_that_cannot_be_opened_since_it_is_still_written_is_said_to_be(originals: Path, tmp_path: Path) -> None:
    """The index of an MP4 comes last: that it is not there yet is the reason, and not that it is no video."""
    path, content, cache = tmp_path / "a.mp4", "0" * 64, FeatureCache(tmp_path / "cache")
    path.write_bytes((originals / "a.mp4").read_bytes()[:5000] if (originals / "a.mp4").exists() else bytes(5000))

    class Late(Extractor):
        def parts(self, *arguments: Any, **more: Any) -> Iterator[Part]:
            try:
                yield from super().parts(*arguments, **more)
            finally:
                grow(path)

    with pytest.raises(ReadError, match="changed while it was read; run again when it is complete"):
        cache.features(path, content, Late(CONFIG))


def test_a_growing_video_fails_alone_in_a_batch(originals: Path, tmp_path: Path) -> None:
    good, bad = film(originals, tmp_path, "a.mp4"), film(originals, tmp_path, "a.mkv")
    told: dict[str, Any] = {}

    def on_progress(job: Any) -> Any:
        return lambda stage, done, total: grow(bad) if job.video == bad and stage == "hash" else None

    jobs = find_videos([str(good), str(bad)])
    cache = FeatureCache(tmp_path / "cache")
    for done in extract_batch(Extractor(CONFIG), cache, jobs, FeatureOutput(tmp_path / "out"), on_progress=on_progress):
        told[done.job.video.name] = done.error
    assert told["a.mp4"] is None
    assert isinstance(told["a.mkv"], ReadError)
    assert len(files(cache)) == 1


# --- damage that is the file's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [64, 2])
def test_a_cut_download_still_gives_what_it_has_and_is_cached(originals: Path, tmp_path: Path, part: int) -> None:
    path = film(originals, tmp_path, "a.mkv")
    cut(path)
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache", part)
    found = cache.features(path, content, Extractor(CONFIG))
    assert found.partial
    assert "before the file says" in " ".join(found.warnings)
    assert len(files(cache)) == 1

    class Idle(Extractor):
        def parts(self, *_: Any, **__: Any) -> Iterator[Part]:
            raise AssertionError("it is in the cache")

    assert digest(cache.features(path, content_hash(path), Idle(CONFIG))) == digest(found)


def test_after_damage_the_whole_file_is_read_again(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the file system says nothing: its clock may be coarse, and a failing disk keeps its times."""
    whole, broken = film(originals, tmp_path, "a.mkv"), tmp_path / "b.mkv"
    shutil.copy(whole, broken)
    cut(broken)
    read: list[Path] = []
    real = contents.content_hash

    def counted(path: Path, *rest: Any) -> Any:
        read.append(path)
        return real(path, *rest)

    hashes = {path: content_hash(path) for path in (whole, broken)}
    monkeypatch.setattr(contents, "content_hash", counted)
    cache = FeatureCache(tmp_path / "cache")
    cache.features(whole, hashes[whole], Extractor(CONFIG))
    assert read == []
    cache.features(broken, hashes[broken], Extractor(CONFIG))
    assert read == [broken]
    other = FeatureCache(tmp_path / "other")
    with pytest.raises(ReadError, match="changed while it was read"):
        other.features(broken, "0" * 64, Extractor(CONFIG))
    assert files(other) == []

    def failing_disk(path: Path, *_: Any) -> Any:
        raise VideoError(f"{path}: cannot be read (Input/output error); check its permissions and its disk.")

    monkeypatch.setattr(contents, "content_hash", failing_disk)
    with pytest.raises(ReadError, match="Input/output error"):
        other.features(broken, hashes[broken], Extractor(CONFIG))
    assert files(other) == []


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What a worker does with a whole video, in this process: (path, content, extractor) -> Report."""

    def run(path: Path, content: str, extractor: Extractor) -> Any:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(worker, "_extractor", lambda setup, run: extractor)
        monkeypatch.setattr(worker._Marker, "stop", lambda self: False)
        setup = Setup.of(extractor, FeatureCache(tmp_path / "cache", 2), 1)
        return work(setup, Task(path, content, WHOLE, Chunk(0, float("inf"), ("rgb",))), folder)

    return run


@pytest.mark.parametrize("what", ["cut and restored", "overwritten before", "touched"])
def test_a_worker_keeps_no_part_of_a_changed_file(
    originals: Path, tmp_path: Path, at_work: Callable[..., Any], what: str
) -> None:
    path = film(originals, tmp_path, "a.mkv")
    content, whole, cache = content_hash(path), path.read_bytes(), FeatureCache(tmp_path / "cache", 2)
    extractor = Extractor(CONFIG)
    if what == "overwritten before":  # after the run hashed it, and before this worker had its turn
        path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    elif what == "touched":  # or the clock of another machine's copy
        os.utime(path, ns=(5, 5))
    else:
        extractor = Unlucky(lambda: cut(path), 0, lambda: path.write_bytes(whole))
    report = at_work(path, content, extractor)
    if what == "touched":
        assert report.error is None
        assert len(files(cache)) == 3
        return
    assert isinstance(report.error, ReadError)
    assert "changed while it was read" in str(report.error)
    assert files(cache) == []


def test_the_state_of_the_file_goes_to_the_workers(originals: Path, tmp_path: Path) -> None:
    """A hash is a string to everybody; the state that goes with it must come through pickles."""
    import pickle

    content = content_hash(film(originals, tmp_path, "a.mp4"))
    again = pickle.loads(pickle.dumps(dataclasses.replace(Item(Path("a"), content), key=1)))
    assert again.content == content
    assert again.content.stamp == content.stamp


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_a_video_that_is_overwritten_before_the_workers_come_to_it(originals: Path, tmp_path: Path) -> None:
    paths = [film(originals, tmp_path, name) for name in ("a.mp4", "a.mkv")]
    cache = FeatureCache(tmp_path / "cache", 2)
    real = Extractor(dataclasses.replace(CONFIG, backbone="i3d", flow="auto"))

    def items() -> Iterator[Item]:
        for path in paths:
            item = Item(path, content_hash(path))
            if path.name == "a.mkv":
                cut(path)
            yield item

    found: dict[str, Done] = {
        done.item.video.name: done for done in extract(Engine(jobs=2), Request(real, cache), items())
    }
    assert found["a.mp4"].error is None
    assert isinstance(found["a.mkv"].error, ReadError)
    assert "run again when it is complete" in str(found["a.mkv"].error)
    assert len(files(cache)) == 1


# --- entries of before ------------------------------------------------------------------------------------------------


def test_what_an_older_format_left_is_not_read_again(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of an older format may be poisoned: the entry and its parts stay where they are, and are not used."""
    path = film(originals, tmp_path, "a.mkv")
    content, cache = content_hash(path), FeatureCache(tmp_path / "cache", 2)
    monkeypatch.setattr(features, "FORMAT", FORMAT - 1)
    old = Extractor(CONFIG)
    cut_ = FeatureCache(tmp_path / "elsewhere")
    poisoned = dataclasses.replace(cut_.features(path, content, old), partial=True)
    entry = cache.entry(content, old.settings()["rgb"], WHOLE)
    features.save(poisoned, entry)
    assert cache.features(path, content, old).partial
    monkeypatch.setattr(features, "FORMAT", FORMAT)
    new = Extractor(CONFIG)
    found = cache.features(path, content, new)
    assert not found.partial
    assert found.settings["rgb"]["format"] == FORMAT
    assert digest(found) == digest(new.chunk(path))
    assert len(files(cache)) == 2

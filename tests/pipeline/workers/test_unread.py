"""Workers of a cluster read the videos, and the machine that runs does not; a long video in a store is divided."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from conftest import coded, encode, small_checkpoint
from stores import Flaky, memory

from extractors.backbones import registry
from extractors.backbones.registry import Backbone
from extractors.config import WHOLE, FeatureConfig
from model import checkpoint
from pipeline.api import Pipeline
from pipeline.cache import content as contents
from pipeline.cache import spool
from pipeline.config import Config
from pipeline.run import batch
from pipeline.run.batch import run_batch
from pipeline.run.outcome import Outcome, ResultOutput
from pipeline.run.videos import find_videos
from pipeline.workers import backends, planning, worker
from pipeline.workers.engine import Engine
from pipeline.workers.tasks import Report, Setup, Task
from support.errors import EnvironmentMissing

CLUSTER = Engine("dask", 2, "tcp://nobody:1", small=0)
Work = Callable[[Setup, Task, Path], Report]


class Means(torch.nn.Module):
    """A network that takes no time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4)).repeat(1, 342)[:, :1024]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, "i3d", lambda stream, path: Backbone(Means, 1024, "means"))
        yield


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, one of them twice, a broken one and a model."""
    folder = tmp_path_factory.mktemp("night")
    (folder / "videos" / "day").mkdir(parents=True)
    for k, name in enumerate(("a.mp4", "day/b.mp4")):
        encode(folder / "videos" / name, [coded(j + 100 * k) for j in range(100)], options={"g": "20"})
    shutil.copy(folder / "videos" / "a.mp4", folder / "videos" / "again.mp4")
    (folder / "videos" / "broken.mp4").write_text("text")
    checkpoint.save(small_checkpoint(), folder / "model.safetensors")
    return folder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Task]]:
    """A cluster whose workers are this process, and the tasks that it gets. The driver itself reads no video."""
    tasks: list[Task] = []

    @contextlib.contextmanager
    def started(engine: Engine) -> Iterator[Any]:
        def reports(setup: Setup, todo: Iterator[Task], folder: Path) -> Iterator[Report]:
            for task in todo:
                tasks.append(task)
                yield backends.work(setup, task, folder)

        yield reports

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("the machine that runs reads a video")

    monkeypatch.setattr(backends, "started", started)
    monkeypatch.setattr(contents, "LITTLE", -1)
    monkeypatch.setattr(batch, "content_hash", refuse)
    monkeypatch.setattr(planning, "RUN_PARTS", 1)
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spool, "_SPOOL", spool._Spool())
    yield tasks


def run(
    night: Path, videos: str, out: Path | None, engine: Engine = CLUSTER, model: str = "model.safetensors"
) -> dict[str, Outcome]:
    small = FeatureConfig(short_side=48, crop=32)
    model = model if "://" in model else str(night / model)
    pipeline = Pipeline.load(config=Config(features=small, model=model))
    pipeline.cache.part = 2
    found = run_batch(pipeline, find_videos([videos]), ResultOutput(out), engine=engine)
    return {outcome.job.name.as_posix(): outcome for outcome in found}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def alone(night: Path, quick: None) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JCDNET_CACHE", str(night / "cache"))
        run(night, str(night / "videos"), night / "alone", Engine())
    return files(night / "alone")


def test_workers_read_the_videos(night: Path, alone: dict[str, bytes], told: list[Task], tmp_path: Path) -> None:
    found = run(night, str(night / "videos"), tmp_path / "out")
    assert files(tmp_path / "out") == alone
    assert sum(task.unread for task in told) == 4
    assert "not a video that FFmpeg can open" in str(found["broken"].error)
    twins = [name for name, outcome in found.items() if outcome.duplicate_of is not None]
    assert len(twins) == 1 and twins[0] in ("a", "again")
    told.clear()
    found = run(night, str(night / "videos"), tmp_path / "out")  # results that are there stay, and only these are read
    assert sum(outcome.skipped for outcome in found.values()) == 3 and files(tmp_path / "out") == alone
    assert [task.unread for task in told] == [True] * 4  # the header of broken.mp4 says enough


def test_small_files_are_read_at_once(
    night: Path, alone: dict[str, bytes], told: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "LITTLE", 1 << 20)
    run(night, str(night / "videos"), tmp_path / "out")
    assert files(tmp_path / "out") == alone and not any(task.unread for task in told)


def test_a_video_that_workers_do_not_see_fails_alone(
    night: Path, told: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = backends.work

    def elsewhere(setup: Setup, task: Task, folder: Path) -> Report:
        if task.unread and task.video.name == "b.mp4":
            task = dataclasses.replace(task, video=tmp_path / "not mounted" / "b.mp4")
        return honest(setup, task, folder)

    monkeypatch.setattr(backends, "work", elsewhere)
    found = run(night, str(night / "videos"), tmp_path / "out")
    assert "no such file" in str(found["day/b"].error) and found["a"].error is None


def test_workers_that_die_over_reading(
    night: Path, alone: dict[str, bytes], told: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that dies once is read by the next; one over which two die fails alone."""
    honest, deaths = backends.work, {"a.mp4": 1, "b.mp4": 9}

    def deadly(setup: Setup, task: Task, folder: Path) -> Report:
        if task.unread and deaths.get(task.video.name, 0) > 0:
            deaths[task.video.name] -= 1
            marker = worker._Marker(folder, task)
            if not marker.crashed_before():
                marker.begin(task.first)
            return Report(task)  # as Ray's actors report it
        return honest(setup, task, folder)

    monkeypatch.setattr(backends, "work", deadly)
    found = run(night, str(night / "videos"), tmp_path / "out")
    assert "b.mp4: 2 workers died while reading it" in str(found["day/b"].error)
    assert found["a"].error is None and found["again"].error is None
    assert files(tmp_path / "out") == {name: data for name, data in alone.items() if not name.startswith("day")}


def test_a_worker_that_answers_with_nothing_is_asked_three_times(
    night: Path, told: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = backends.work
    monkeypatch.setattr(
        backends, "work", lambda setup, task, run: Report(task) if task.unread else honest(setup, task, run)
    )
    found = run(night, str(night / "videos" / "day"), None)
    assert "b.mp4: not read after 3 tries; check that the workers can read it." in str(found["b"].error)
    assert len(told) == 3


def test_what_every_worker_lacks_ends_the_run(night: Path, told: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    missing = EnvironmentMissing("s3:// needs s3fs: pip install '.[cloud]'.")
    monkeypatch.setattr(backends, "work", lambda setup, task, run: Report(task, missing))
    with pytest.raises(EnvironmentMissing, match="needs s3fs"):
        run(night, str(night / "videos"), None)


# --- in a store -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(night: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Flaky]]:
    with memory(monkeypatch) as found:
        for path in (night / "videos").rglob("*.mp4"):
            name = path.relative_to(night / "videos").as_posix()
            fsspec.filesystem("memory").pipe_file(f"/bucket/{name}", path.read_bytes())
        yield found


def test_a_long_video_in_a_store_is_divided(
    night: Path, alone: dict[str, bytes], told: list[Task], stored: type[Flaky], tmp_path: Path
) -> None:
    found = run(night, "memory://bucket", tmp_path / "out")
    here, there = str(night / "videos"), "memory://bucket"
    documents = {name: data.replace(here.encode(), there.encode()) for name, data in alone.items() if ".json" in name}
    assert documents == {name: data for name, data in files(tmp_path / "out").items() if ".json" in name}
    pieces = [task for task in told if task.chunk is not None and task.video.name == "b.mp4"]
    assert len(pieces) == 4 and [task.unread for task in told].count(True) == 4  # of 7 snippets, two in a part
    assert not [task for task in told if task.unread and not task.long]
    assert "memory://bucket/broken.mp4: not a video" in str(found["broken"].error)
    # What a worker has read is known here from then on: it is neither fetched nor asked for again.
    told.clear()
    stored.calls.clear()
    found = run(night, "memory://bucket", tmp_path / "out")
    assert sum(outcome.skipped for outcome in found.values()) == 3
    assert not any(what == "open" for what, _ in stored.calls)
    assert not any(task.unread for task in told)


def test_a_small_one_is_not(
    night: Path, told: list[Task], stored: type[Flaky], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(night, "memory://bucket/day", None, dataclasses.replace(CLUSTER, small=1 << 20))
    assert found["b"].error is None and [task.unread for task in told] == [True, False]


def test_an_object_that_the_store_does_not_give(
    night: Path, told: list[Task], stored: type[Flaky], tmp_path: Path
) -> None:
    stored.orders["open"] = [TimeoutError("read timeout")] * 4
    found = run(night, "memory://bucket", tmp_path / "out")
    errors = [str(outcome.error) for outcome in found.values() if outcome.error is not None]
    assert len(errors) == 2 and any("could not be read in 4 tries (TimeoutError: read timeout)" in e for e in errors)


def test_workers_get_a_model_of_the_store_from_the_run(
    night: Path, told: list[Task], stored: type[Flaky], tmp_path: Path
) -> None:
    fsspec.filesystem("memory").pipe_file("/runs/x/model.safetensors", (night / "model.safetensors").read_bytes())
    found = run(night, "memory://bucket/day", tmp_path / "out", model="memory://runs/x")
    assert found["b"].error is None and found["b"].result is not None
    assert found["b"].result.provenance["model"]["name"] == "memory://runs/x"
    assert [path for what, path in stored.calls if what == "open"].count("/runs/x/model.safetensors") == 1


def test_reading_ends_when_the_run_stops(
    night: Path, told: list[Task], stored: type[Flaky], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker._Marker, "stop", lambda self: True)
    (tmp_path / "run").mkdir()
    for video in (night / "videos" / "a.mp4", contents.video_at("memory://bucket/a.mp4")):
        task = Task(video, "unread1", WHOLE, None, unread=True)
        report = worker.work(None, task, tmp_path / "run")  # type: ignore[arg-type]
        assert report == Report(task) and not list((tmp_path / "run").iterdir())
    assert [what for what, _ in stored.calls].count("open") == 1  # not tried again

"""Workers: the same bytes as this process alone, for every engine and cut; a worker that dies costs nothing."""

import contextlib
import dataclasses
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import coded, digest, encode

from extractors.backbones import runtime, weights
from extractors.config import WHOLE, FeatureConfig, Limits
from extractors.decode.process import Decoder
from extractors.decode.video import VideoError
from extractors.features import Extractor
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import Chunk
from pipeline.run.batch import extract
from pipeline.workers import backends, worker
from pipeline.workers import engine as engines
from pipeline.workers.engine import Done, Engine, Item, Request, choose_jobs
from support.errors import EnvironmentMissing, Stopped, UsageError

pytestmark = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
ROOT = Path(__file__).parents[3]
SMALL = FeatureConfig(short_side=48, crop=32)  # the real network, on a fiftieth of the pixels
OTHER_PRECISIONS = ("bfloat16", "float32")  # beside auto, which is int8 on a CPU with VNNI


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos of 8 s, one of which cannot be jumped in, and one that is broken."""
    folder = tmp_path_factory.mktemp("videos")
    h264 = {"preset": "medium", "bf": "3", "g": "60"}
    found = [
        encode(folder / "a.mp4", [coded(k) for k in range(201)], options=h264),
        encode(folder / "b.avi", [coded(k + 300) for k in range(201)], codec="mpeg4", options={"bf": "2"}),
        encode(folder / "c.mkv", [coded(k + 600) for k in range(201)], options=h264),
        folder / "broken.mp4",
    ]
    found[-1].write_text("not a video")
    return found


@pytest.fixture(scope="module", params=["auto", *(pytest.param(p, marks=pytest.mark.slow) for p in OTHER_PRECISIONS)])
def extractor(request: pytest.FixtureRequest) -> Extractor:
    return Extractor(dataclasses.replace(SMALL, precision=request.param))


@pytest.fixture(scope="module")
def expected(extractor: Extractor, videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = run(Engine(), extractor, videos, FeatureCache(tmp_path_factory.mktemp("alone")))
    return {name: digest(d.features) for name, d in done.items() if d.features is not None}


def run(engine: Engine, extractor: Extractor, videos: list[Path], cache: FeatureCache, **more: Any) -> dict[str, Done]:
    items = (Item(video, content_hash(video), video) for video in videos)
    return {d.item.video.name: d for d in extract(engine, Request(extractor, cache, **more), items)}


def check(done: dict[str, Done], expected: dict[str, Any], cache: FeatureCache) -> None:
    assert {name: digest(d.features) for name, d in done.items() if d.features is not None} == expected
    assert {name for name, d in done.items() if d.error is not None} == {"broken.mp4"}
    assert "not a video" in str(done["broken.mp4"].error)
    assert {p.suffix for p in cache.folder.rglob("*") if p.is_file()} == {".npz"}  # nothing but entries


@pytest.mark.parametrize("part", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 64, 1000))])
def test_two_workers_give_the_same_bytes(
    extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path, part: int
) -> None:
    cache = FeatureCache(tmp_path / "cache", part)
    told: list[tuple[str, str]] = []
    done = run(
        Engine(jobs=2, small=0),
        extractor,
        videos,
        cache,
        on_progress=lambda item: lambda stage, *_: told.append((item.video.name, stage)),
    )
    check(done, expected, cache)
    assert not any(d.cached for d in done.values())
    again = run(Engine(jobs=2, small=0), extractor, videos, cache)
    check(again, expected, cache)
    assert all(d.cached for d in again.values() if d.features is not None)


def test_relative_names_after_the_folder_changed(
    extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """loky's workers outlive a run: they must not look for names where they were started."""
    monkeypatch.chdir(tmp_path)
    run(Engine(jobs=2, small=0), extractor, videos[-1:], FeatureCache(tmp_path / "first"))
    monkeypatch.chdir(videos[0].parent)
    names = [Path(video.name) for video in videos]
    cache = FeatureCache(tmp_path / "second", 3)
    check(run(Engine(jobs=2, small=0), extractor, names, cache), expected, cache)


class Killer(threading.Thread):
    """Kills a worker while parts are in the making."""

    def __init__(self, folder: Path, workers: Callable[[], list[int]]) -> None:
        super().__init__(daemon=True)
        self.folder, self.workers = folder, workers
        self.killed = 0
        self.start()

    def run(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, psutil.Error):  # gone while we look
                if list(self.folder.rglob("part-*")) and (found := self.workers()):
                    worker = random.choice(found)
                    os.kill(worker, signal.SIGKILL)
                    self.killed = worker
                    return
            time.sleep(0.02)


def children(word: str) -> list[int]:
    """Processes below this one, at any depth, whose command line has the word."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(word in part for part in process.cmdline()) and "resource_tracker" not in str(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_worker_that_is_killed_costs_nothing(
    extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache", 2)
    killer = Killer(cache.folder, lambda: children("loky"))
    check(run(Engine(jobs=2, small=0), extractor, videos, cache), expected, cache)
    killer.join()
    assert killer.killed


@pytest.mark.slow
def test_a_video_over_which_workers_die_fails_alone(
    extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache", 8)
    deadly = tmp_path / "deadly.mp4"
    shutil.copy(videos[0], deadly)
    with deadly.open("ab") as file:
        file.write(b"\0" * 8)
    monkeypatch.setattr(backends, "work", _deadly)
    done = run(Engine(jobs=2), extractor, [deadly, *videos], cache)
    error = done.pop("deadly.mp4").error
    assert isinstance(error, VideoError)
    assert "deadly.mp4: 2 workers died while working on it" in str(error)
    check(done, expected, cache)


def _deadly(setup: Any, task: Any, run: Path) -> Any:
    """A worker's work, that ends the worker over one video."""
    from pipeline.workers import worker

    if task.video.name == "deadly.mp4":
        worker.Extraction = _Ending  # type: ignore[misc,assignment]
    return worker.work(setup, task, run)


class _Ending:
    def __init__(self, *_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_stopping_keeps_what_is_there(
    extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache", 1000)
    begun = threading.Event()

    def stop() -> bool:
        if list(cache.folder.rglob("part-*")):
            begun.set()
        return begun.is_set()

    with pytest.raises(Stopped):
        run(Engine(jobs=2, small=0), extractor, videos, cache, stop=stop)
    assert not list(cache.folder.rglob("*.lock")) and not list(cache.folder.rglob(".run.*"))
    check(run(Engine(), extractor, videos, cache), expected, cache)


def test_workers_of_other_versions_are_refused(extractor: Extractor, videos: list[Path], tmp_path: Path) -> None:
    class Other(Extractor):
        def settings(self) -> dict[str, dict[str, Any]]:
            return {name: s | {"decoder": "pyav-0"} for name, s in super().settings().items()}

    with pytest.raises(EnvironmentMissing, match=r"decoder of rgb: .* there, pyav-0 here"):
        run(Engine(jobs=2), Other(SMALL), videos, FeatureCache(tmp_path))
    assert not list(tmp_path.rglob("*.lock"))


def test_a_worker_whose_cpu_lacks_the_precision_of_the_run_is_refused(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has resolved `auto`; the worker neither chooses for itself nor computes anything."""
    monkeypatch.setattr(runtime, "available", lambda: True)
    monkeypatch.setattr(runtime, "abilities", lambda: frozenset({"VNNI", "BF16"}))
    setup = worker.Setup.of(Extractor(SMALL), FeatureCache(tmp_path / "cache"), 1)
    assert dict(setup.ways)["rgb"].dtype == "int8+bfloat16"
    monkeypatch.setattr(runtime, "abilities", lambda: frozenset({"VNNI"}))
    (tmp_path / "run").mkdir()
    chunk = Chunk(0, math.inf, ("rgb",))
    report = worker.work(setup, worker.Task(videos[0], "c" * 64, WHOLE, chunk), tmp_path / "run")
    assert isinstance(report.error, EnvironmentMissing)
    assert str(report.error).endswith("a CPU with BF16, and this one has none; use --precision float32.")
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_a_limit_of_the_run_holds_in_a_worker(videos: list[Path], tmp_path: Path) -> None:
    hasty = Extractor(SMALL, limits=Limits(timeout=1e-3))
    done = run(Engine(jobs=2), hasty, videos[:1], FeatureCache(tmp_path))
    assert "took longer than --timeout allows" in str(done["a.mp4"].error)


def test_two_runs_at_once_share_the_work(
    extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    """Each video is extracted by one of them, and both have all."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:4]; from pathlib import Path; import test_engine as t; import pickle\n"
        "e = t.Extractor(t.SMALL); print('go', flush=True); sys.stdin.readline()\n"
        "done = t.run(t.Engine(), e, [Path(p) for p in sys.argv[5:]], t.FeatureCache(Path(sys.argv[4]), 2))\n"
        "print(sum(not d.cached for d in done.values() if d.features is not None))\n"
        "print(all(d.features is not None for d in done.values()))"
    )
    places = [ROOT, ROOT / "tests", Path(__file__).parent]
    command = [sys.executable, "-c", script, *places, tmp_path / "cache", *videos[:3]]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for child in both:
        assert child.stdout is not None and child.stdout.readline() == "go\n"
    answers = []
    for child in both:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in both:
        answers.append(child.communicate()[0].split())
    assert [a[1] for a in answers] == ["True", "True"]
    assert sum(int(a[0]) for a in answers) == 3
    done = run(Engine(), extractor, videos, FeatureCache(tmp_path / "cache", 2))
    check(done, expected, FeatureCache(tmp_path / "cache"))


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def dask() -> Iterator[str]:
    """A scheduler and two worker processes on this machine."""
    pytest.importorskip("distributed")
    from distributed import LocalCluster

    paths = filter(None, (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
            yield cluster.scheduler_address


@pytest.mark.slow
@pytest.mark.parametrize("part", [8, 64, 1000])
def test_dask(
    dask: str, extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path, part: int
) -> None:
    cache = FeatureCache(tmp_path / "cache", part)
    check(run(Engine("dask", -1, dask, small=0), extractor, videos, cache), expected, cache)


@pytest.mark.slow
def test_a_dask_worker_is_killed(
    dask: str, extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache", 2)
    killer = Killer(cache.folder, lambda: children("spawn_main"))
    check(run(Engine("dask", -1, dask, small=0), extractor, videos, cache), expected, cache)
    killer.join()
    assert killer.killed


@pytest.fixture
def ray() -> Iterator[str]:
    """A head and a second node on this machine."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("part", [8, 64, 1000])
def test_ray(
    ray: str, extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path, part: int
) -> None:
    cache = FeatureCache(tmp_path / "cache", part)
    check(run(Engine("ray", -1, ray, small=0), extractor, videos, cache), expected, cache)


@pytest.mark.slow
def test_a_ray_worker_is_killed(
    ray: str, extractor: Extractor, videos: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache", 2)
    killer = Killer(cache.folder, lambda: children("ray::Worker"))
    check(run(Engine("ray", -1, ray, small=0), extractor, videos, cache), expected, cache)
    killer.join()
    assert killer.killed


# --- segments ---------------------------------------------------------------------------------------------------------

FULL_SIZE = ("GolfSwing/GolfSwing_001.mp4", "TennisRally/TennisRally_002.mp4", "Street/Street_001.mp4")


def documents(folder: Path, videos: list[Path], *flags: object) -> dict[str, bytes]:
    """What `run` writes with these workers and a cache of its own, but for its report, which holds times."""
    environment = os.environ | {"JCDNET_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "cli.py", "run", *videos, "-o", folder / "out", "-f", "json,csv,srt", *flags]
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    files = (path for path in (folder / "out").iterdir() if path.name != "_run.json")
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loky", "dask", "ray"])
def test_segments_are_the_same_bytes_on_every_engine(
    name: str, request: pytest.FixtureRequest, corpus: Path, tmp_path: Path
) -> None:
    """Clips at full size, by this process and by two workers of an engine. One cluster at a time is on this machine."""
    videos = [corpus / clip for clip in FULL_SIZE]
    alone = documents(tmp_path / "alone", videos)
    assert json.loads(alone["GolfSwing_001.json"])["segments"]
    flags = ("--jobs", 2) if name == "loky" else ("--engine", name, "--address", request.getfixturevalue(name))
    assert documents(tmp_path / name, videos, *flags) == alone


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_choosing_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{k}.mp4" for k in range(20)]
    for file in files:
        file.write_bytes(b"x" * 1000)
    monkeypatch.setattr(engines, "cores", lambda: 6)
    monkeypatch.setattr(engines, "_free_memory", lambda: 64 * 2**30)
    assert choose_jobs(None, "local", "cpu", files) == 1
    assert choose_jobs("3", "local", "cpu", files) == 3
    assert choose_jobs("auto", "local", "cpu", files) == 6
    assert choose_jobs("auto", "local", "cpu", files[:2]) == 1  # over before workers have started
    assert choose_jobs(None, "dask", "cpu", files) == choose_jobs("auto", "ray", "cpu", files) == -1
    monkeypatch.setattr(engines, "_free_memory", lambda: 5 * 2**30)
    assert choose_jobs("auto", "local", "cpu", files) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_jobs("auto", "local", "cuda", files) == 4
    assert choose_jobs("auto", "local", "cuda:1", files) == 1
    for asked in ("0", "-1", "many", "1.5"):
        with pytest.raises(UsageError, match="--jobs must be a number from 1 on, or auto"):
            choose_jobs(asked, "local", "cpu", files)


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"kind": "spark"}, "--engine must be one of local, dask, ray"),
        ({"address": "tcp://x:1"}, "are for a cluster; add --engine"),
        ({"gpus_per_worker": 1.0}, "are for a cluster; add --engine"),
        ({"kind": "dask"}, "needs its scheduler"),
        ({"jobs": 0}, "--jobs must be 1 or more"),
    ],
)
def test_engines_that_make_no_sense(more: dict[str, Any], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        Engine(**more)


def test_each_worker_takes_a_gpu_of_its_own(tmp_path: Path) -> None:
    assert worker._gpu(tmp_path, 1) == "cuda"  # all workers of a machine with one share it
    taken = [worker._gpu(tmp_path, 2) for _ in range(3)]
    assert taken == ["cuda:0", "cuda:1", "cuda"]
    worker._slots.pop().release()
    assert worker._gpu(tmp_path, 2) == "cuda:1"  # that of a worker that died
    while worker._slots:
        worker._slots.pop().release()


def test_threads_never_exceed_what_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "cores", lambda: 16)
    assert Engine().threads is None
    assert [Engine(jobs=n).threads for n in (2, 8, 16, 40)] == [2, 2, 1, 1]
    assert dataclasses.replace(Engine("ray"), jobs=-1).threads == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_in_the_decoder_or_a_worker_is_no_fault_of_the_video(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """Nor is its traceback lost on the way from the process in which it happened."""
    from support.errors import BUG, as_bug, exit_code

    monkeypatch.setattr(Decoder, "_command", _broken_decoder)
    monkeypatch.setattr(backends, "work", _with_a_broken_decoder)
    done = run(Engine(jobs=jobs, small=0), Extractor(SMALL), videos[:1], FeatureCache(tmp_path / "cache"))
    error = done["a.mp4"].error
    assert error is not None and exit_code(error) == BUG and not isinstance(error, VideoError)
    assert "the decoder failed on" in str(error) and "ZeroDivisionError" in str(error)
    found = as_bug(error, videos[0])
    assert f"{videos[0]}: a bug in jcdnet: DecoderBug" in str(found)
    assert "in _serve_video\n" in found.traceback and "ZeroDivisionError: division by zero" in found.traceback
    assert pickle.loads(pickle.dumps(found)).traceback == found.traceback


# A decoder's process in which a mistake of ours shows when a video is opened.
BROKEN_DECODER = """
from extractors.decode import child
def broken(request, questions, answers):
    def _serve_video():
        1 / 0
    _serve_video()
child._serve_video = broken
child.serve(0)
"""


def _broken_decoder(decoder: Decoder) -> list[str]:
    return [sys.executable, "-P", "-c", BROKEN_DECODER]


def _with_a_broken_decoder(setup: Any, task: Any, run: Path) -> Any:
    """A worker's work, with such a decoder."""
    from pipeline.workers import worker

    Decoder._command = _broken_decoder  # type: ignore[method-assign]
    return worker.work(setup, task, run)

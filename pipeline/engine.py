"""Extraction over workers: loky's on this machine, or Dask's and Ray's through joblib's own backends.

Workers leave parts of features in the cache, which is all that counts: whoever dies is missed by what is not there.
joblib, loky and Ray's pool end with an error when a worker dies, so what is unfinished is handed out again, in rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import os
import shutil
import threading
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.features import Extractor, Features, Progress
from extractors.flow.tvl1 import cores
from extractors.snippets import snippet_range
from extractors.video import VideoError
from extractors.writing import identity, sweep
from pipeline.cache import FeatureCache
from pipeline.errors import BUG, ENVIRONMENT, Busy, EnvironmentMissing, Stopped, UsageError, exit_code
from pipeline.extraction import Chunk, Extraction
from pipeline.worker import Report, Setup, Task, crashes, done_name, name_of, read_marker, work

ENGINES = ("local", "dask", "ray")
TRIES = 3  # of a chunk
CRASHES = 2  # of workers over one part, after which its video fails
RUN_PARTS = 16  # most parts in one task: 11 minutes of video
SMALL = 8 << 20  # bytes of a file that is not worth to be cut over workers
WORKER_BYTES = 2 << 30  # of memory that a worker takes: networks, a batch, and its decoder
WATCH = 0.5  # seconds between two looks at how far the workers are
WORTH_IT = 8  # videos from which on starting workers (some seconds) pays


@dataclass(frozen=True)
class Engine:
    """Where the work is done. One local job is this process itself."""

    kind: str = "local"
    """local, dask or ray"""
    jobs: int = 1
    """workers; -1: all that a cluster has"""
    address: str | None = None
    """of Dask's scheduler or Ray's head"""
    gpus_per_worker: float = 0.0
    """what the cluster is asked for"""
    small: int = SMALL
    """bytes of a file that is one task"""

    def __post_init__(self) -> None:
        if self.kind not in ENGINES:
            raise UsageError(f"--engine must be one of {', '.join(ENGINES)}, not {self.kind!r}.")
        if self.kind == "local" and (self.address or self.gpus_per_worker):
            raise UsageError("--address and --gpus-per-worker are for a cluster; add --engine dask or ray.")
        if self.kind == "dask" and not self.address:
            raise UsageError("--engine dask needs its scheduler: --address tcp://HOST:8786 (`dask scheduler`).")
        if self.jobs == 0 or self.jobs < -1:
            raise UsageError(f"--jobs must be 1 or more, or auto, not {self.jobs}.")

    @property
    def here(self) -> bool:
        """Whether this process does the work."""
        return self.kind == "local" and self.jobs == 1

    @property
    def threads(self) -> int | None:
        """Threads of a worker; None: as many as there are cores.

        Up to two, PyTorch gives the same bytes for any number; from three on one shape of MKL's does not (7e-7).
        """
        if self.here:
            return None
        return max(1, min(2, cores() // self.jobs)) if self.kind == "local" else 1


def choose_jobs(asked: str | None, kind: str, device: str, videos: Iterable[Path]) -> int:
    """Workers for what `--jobs` says: a number, or auto.

    auto: a worker for each GPU, else for each core that has the memory, where there is enough to do for them to be
    worth their start.

    Raises:
        UsageError: neither.
    """
    if asked is None:
        return 1 if kind == "local" else -1
    if asked != "auto":
        if not asked.isdigit() or int(asked) < 1:
            raise UsageError(f"--jobs must be a number from 1 on, or auto, not {asked!r}.")
        return int(asked)
    if kind != "local":
        return -1
    if device.startswith("cuda"):
        import torch

        return 1 if ":" in device else max(torch.cuda.device_count(), 1)
    sizes = [path.stat().st_size for path in videos if path.is_file()]
    if len(sizes) < WORTH_IT and sum(sizes) < 2 * SMALL:
        return 1
    most = min(cores(), max(int(_free_memory() // WORKER_BYTES), 1))
    return min(most, max(len(sizes), sum(sizes) // SMALL))


def _free_memory() -> float:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return math.inf


@dataclass(frozen=True)
class Item:
    """A video that is to have features."""

    video: Path
    content: str
    key: Any = None
    """whatever the caller knows it by"""


@dataclass(frozen=True)
class Done:
    """What became of it."""

    item: Item
    features: Features | None = None
    error: Exception | None = None
    cached: bool = False
    """whether nothing had to be extracted"""


@dataclass(frozen=True)
class Request:
    """What all videos of a run have in common."""

    extractor: Extractor
    cache: FeatureCache
    start: float = 0.0
    end: float = math.inf
    on_progress: Callable[[Item], Progress] = lambda item: lambda stage, done, total: None
    stop: Callable[[], bool] = lambda: False


def extract(engine: Engine, request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """Features of videos, as they are done.

    Raises:
        Stopped: `request.stop` said so; what is complete is in the cache.
        EnvironmentMissing: no worker can work.
    """
    yield from _here(request, items) if engine.here else _Fleet(engine, request).run(items)


def _here(request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """One after the other; those that another process is at work on come last."""
    later: list[Item] = []
    for item, wait in itertools.chain(((i, False) for i in items), ((i, True) for i in later)):
        said: list[str] = []
        worked: list[str] = []
        progress = request.on_progress(item)

        def on_progress(stage: str, done: int, total: int, tell: Progress = progress, w: list[str] = worked) -> None:
            w.append(stage) if stage != "wait" and not w else None
            tell(stage, done, total)

        try:
            features = request.cache.features(
                item.video,
                item.content,
                request.extractor,
                request.start,
                request.end,
                on_progress,
                said.append,
                request.stop,
                wait,
            )
        except Busy:
            later.append(item)
        except Stopped:
            raise
        except Exception as error:
            yield Done(item, error=error)
        else:
            yield Done(item, _told(features, said), cached=not worked)
        if request.stop():
            raise Stopped


def _told(features: Features, said: list[str]) -> Features:
    return dataclasses.replace(features, warnings=(*features.warnings, *dict.fromkeys(said)))


class _Shared:
    """An iterator that joblib's threads and ours take from, one at a time."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)


@dataclass
class _Video:
    """A video that workers are at."""

    item: Item
    state: Extraction
    lock: Any
    said: list[str]
    tasks: int = 0
    """handed out in this round, and not back"""
    planned: bool = False
    """whether all of this round's are handed out"""
    error: Exception | None = None


class _Fleet:
    """The rounds."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.setup = Setup.of(request.extractor, request.cache, engine.threads)
        self.videos: dict[str, _Video] = {}
        self.ready: deque[Done] = deque()
        self.later: list[Item] = []
        self.tries: Counter[str] = Counter()
        self.all_seen = self.broken = False
        self.barren = 0
        runs = request.cache.folder / "runs"
        self.folder = runs / f".run.{identity()}.{uuid.uuid4().hex[:8]}.part"

    def run(self, items: Iterable[Item]) -> Iterator[Done]:
        self.folder.mkdir(parents=True)
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), name="progress", daemon=True)
        watch.start()
        try:
            with self._backend():
                yield from self._rounds(_Shared(items))
        finally:
            ended.set()
            watch.join()
            for video in self.videos.values():
                video.lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                sweep(self.folder.parent)
                self.folder.parent.rmdir()

    def _rounds(self, items: Iterator[Item]) -> Iterator[Done]:
        while True:
            calm = [v for v in self.videos.values() if not self._suspect(v)]
            suspects = [v for v in self.videos.values() if self._suspect(v)]
            yield from self._round(itertools.chain(self._again(calm), self._new(items)))
            for video in suspects:  # alone, so that it is certain who ends a worker
                yield from self._round(self._alone(video))
            if self.request.stop():
                raise Stopped
            yield from self._settle()
            if self.all_seen and not self.videos:
                if not self.later:
                    return
                self.all_seen, items = False, _Shared(self._wait())  # others are at work on them

    def _round(self, tasks: Iterator[Task]) -> Iterator[Done]:
        """Hand tasks out and take in what comes back, until there are no more or a worker dies."""
        back, self.broken = 0, False
        try:
            for report in self._reports(tasks):
                back += 1
                self._take(report)
                while self.ready:
                    yield self.ready.popleft()
        except Exception as error:
            if exit_code(error) != BUG:
                raise
            self.broken = True
            self.barren = 0 if back or any(self.folder.glob("part-*")) else self.barren + 1
            if self.barren == TRIES:  # nobody ever begins
                raise EnvironmentMissing(f"no worker of --engine {self.engine.kind} can work: {error}") from error
        while self.ready:
            yield self.ready.popleft()

    def _reports(self, tasks: Iterator[Task]) -> Iterator[Report]:
        from joblib import Parallel, delayed

        warnings.filterwarnings("ignore", module="joblib")  # that tasks were cancelled when we stop: we know
        handed: dict[str, Task] = {}

        def calls() -> Iterator[Any]:
            for task in tasks:
                handed[done_name(task)] = task
                yield delayed(work)(self.setup, task, self.folder)

        jobs = self.engine.jobs
        if self.engine.kind != "ray":
            yield from Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(calls())
            return
        # Ray's backend gives everything at the end: until then, what is done is seen in the run's folder.
        ended: list[Report] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                with self._joblib():
                    ended.extend(Parallel(n_jobs=jobs, batch_size=1)(calls()))
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="ray", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(WATCH)
            for file in self.folder.glob("done-*"):
                file.unlink(missing_ok=True)
                if (task := handed.pop(file.name, None)) is not None:
                    yield Report(task)
        yield from (report for report in ended if handed.pop(done_name(report.task), None) is not None)
        if errors:
            raise errors[0]

    # --- planning: called from joblib's threads, one at a time

    def _new(self, items: Iterator[Item]) -> Iterator[Task]:
        for item in items:
            said: list[str] = []
            request = self.request
            try:
                state = Extraction(
                    request.cache, item.video, item.content, request.extractor, request.start, request.end, said.append
                )
                if (found := state.found()) is not None:
                    self.ready.append(Done(item, _told(found, said), cached=True))
                    continue
                lock = request.cache.lock(item.content)
                if not lock.take():
                    self.later.append(item)
                    continue
                video = self.videos[item.content] = _Video(item, state, lock, said)
            except Exception as error:
                self.ready.append(Done(item, error=error))
                continue
            yield from self._again([video])
            if request.stop():
                return
        self.all_seen = True

    def _again(self, videos: list[_Video]) -> Iterator[Task]:
        for video in videos:
            video.planned = False
            try:
                tasks = list(self._cut(video))
            except Exception as error:
                video.error, tasks = error, []
            video.tasks += len(tasks)
            video.planned = True
            if not tasks:
                self._finish(video)
            yield from tasks

    def _alone(self, video: _Video) -> Iterator[Task]:
        """The first part that is missing, and nothing else."""
        if (chunk := video.state.next_chunk()) is not None and not self.request.stop():
            video.tasks, video.planned = 1, True
            last = min(chunk.last, (chunk.first // self.setup.part + 1) * self.setup.part)
            yield self._task(video, dataclasses.replace(chunk, last=last))

    def _cut(self, video: _Video) -> Iterator[Task]:
        """Tasks for what is missing: stretches where a file can be jumped in, so that many workers share a long one."""
        video.state.look()
        for chunk in video.state.chunks():
            if chunk.from_start or video.item.video.stat().st_size <= self.engine.small:
                yield self._task(video, chunk)
                continue
            total, seekable = probe(self.request, video.item.video)
            last = int(min(chunk.last, total))
            if not seekable or last <= chunk.first:
                yield self._task(video, chunk)
                continue
            part, jobs = self.setup.part, max(self.engine.jobs, 1) if self.engine.jobs > 0 else cores()
            parts = math.ceil((last - chunk.first) / part)
            step = part * max(1, min(RUN_PARTS, math.ceil(parts / (4 * jobs))))
            edges = [chunk.first, *range((chunk.first // step + 1) * step, last, step), chunk.last]
            for a, b in itertools.pairwise(edges):
                yield self._task(video, dataclasses.replace(chunk, first=int(a), last=b))

    def _task(self, video: _Video, chunk: Chunk) -> Task:
        return Task(video.item.video, video.item.content, self.request.start, self.request.end, chunk)

    # --- taking in

    def _take(self, report: Report) -> None:
        video = self.videos.get(report.task.content)
        if video is None:
            return
        video.tasks -= 1
        video.said += report.said
        if report.error is not None:
            if exit_code(report.error) == ENVIRONMENT:
                raise report.error
            self.tries[name := name_of(report.task.content, report.task.chunk.first)] += 1
            if exit_code(report.error) != BUG or self.tries[name] >= TRIES:
                video.error = video.error or report.error
        if video.error is not None or (video.tasks == 0 and video.planned):
            self._finish(video)

    def _finish(self, video: _Video) -> None:
        """Give the features, if they are whole; else the next round goes on with them."""
        features = None
        try:
            if video.error is None:
                video.state.look()
                if video.state.chunks():
                    return
                features = video.state.finish()
        except Exception as error:
            video.error = error
        if video.error is not None:
            (self.folder / f"skip-{video.item.content}").touch()  # what is still out need not be done
        video.lock.release()
        del self.videos[video.item.content]
        done = None if features is None else _told(features, video.said)
        self.ready.append(Done(video.item, done, video.error))

    def _suspect(self, video: _Video) -> bool:
        chunk = video.state.next_chunk() if video.state.parts else None
        first = 0 if chunk is None else chunk.first
        return bool(crashes(self.folder, video.item.content, first))

    def _settle(self) -> Iterator[Done]:
        """After a round: videos over which workers died too often, or that do not get on, fail."""
        for video in list(self.videos.values()):
            video.tasks = 0
            video.state.look()
            chunk = video.state.next_chunk()
            if chunk is not None:
                died = crashes(self.folder, video.item.content, chunk.first)
                name = name_of(video.item.content, chunk.first)
                self.tries[name] += not self.broken
                tried = self.tries[name]
                if died >= CRASHES:
                    video.error = VideoError(
                        f"{video.item.video}: {died} workers died over it; give them more memory, or leave it out."
                    )
                elif tried >= TRIES:
                    video.error = VideoError(
                        f"{video.item.video}: not done after {tried} tries; see whether the workers reach it."
                    )
            if chunk is None or video.error is not None:
                self._finish(video)
        while self.ready:
            yield self.ready.popleft()

    def _wait(self) -> Iterator[Item]:
        """Videos that other processes had, as they are let go."""
        waiting, self.later = self.later, []
        for item in waiting:
            self.request.on_progress(item)("wait", 0, 1)
            lock = self.request.cache.lock(item.content)
            if not lock.wait(self.request.stop):
                return
            lock.release()
            yield item

    # --- beside it

    def _watch(self, ended: threading.Event) -> None:
        """Hand on how far the workers are, and that they are to stop."""
        told: dict[str, Progress] = {}
        while not ended.wait(WATCH):
            with contextlib.suppress(OSError):
                if self.request.stop():
                    (self.folder / "stop").touch()
                for marker in self.folder.glob("part-*"):
                    if (said := read_marker(marker)) and (video := self.videos.get(said["content"])) is not None:
                        if said["content"] not in told:
                            told[said["content"]] = self.request.on_progress(video.item)
                        told[said["content"]](said["stage"], said["done"], said["total"])

    @contextlib.contextmanager
    def _backend(self) -> Iterator[None]:
        """joblib's settings for the engine."""
        import joblib

        kind, threads = self.engine.kind, self.engine.threads
        gpus = self.engine.gpus_per_worker
        if kind == "local":
            with joblib.parallel_config("loky", inner_max_num_threads=threads):
                yield
        elif kind == "dask":
            from distributed import Client

            try:
                client = Client(self.engine.address, timeout=20)
            except (OSError, ValueError) as error:
                raise EnvironmentMissing(
                    f"no Dask scheduler answers at {self.engine.address} ({error}); start one with `dask scheduler`."
                ) from error
            resources = {"resources": {"GPU": gpus}} if gpus else {}
            with client, joblib.parallel_config("dask", client=client, **resources):
                yield
        else:
            import ray
            from ray.util.joblib import register_ray

            root = str(Path(__file__).resolve().parents[1])
            paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            try:
                ray.init(
                    address=self.engine.address,
                    runtime_env={"env_vars": {"PYTHONPATH": paths}},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise EnvironmentMissing(
                    f"no Ray answers at {self.engine.address} ({error}); start it with `ray start --head`."
                ) from error
            register_ray()
            try:
                yield
            finally:
                ray.shutdown()

    def _joblib(self) -> Any:
        """joblib's settings for Ray: they are a thread's own."""
        import joblib

        gpus = self.engine.gpus_per_worker
        return joblib.parallel_config("ray", ray_remote_args={"num_gpus": gpus} if gpus else {})


def probe(request: Request, video: Path) -> tuple[float, bool]:
    """Snippets that a video seems to have, and whether it can be jumped in; from the decoder's process.

    Raises:
        VideoError: it cannot be opened.
    """
    extractor = request.extractor
    with extractor.decoder.open(video, extractor.config, 0.0, 0.0) as (clip, frames):
        for _ in frames:
            pass
    _, total = snippet_range(0.0, clip.info.duration, clip.origin, extractor.config)
    return total, clip.seekable


def check_engine(engine: Engine) -> None:
    """Before any work: whether the packages of the engine are here.

    Raises:
        EnvironmentMissing: they are not.
    """
    from importlib.util import find_spec

    package = {"dask": "distributed", "ray": "ray"}.get(engine.kind)
    if package is not None and find_spec(package) is None:
        raise EnvironmentMissing(f"--engine {engine.kind} needs {package}: pip install '.[{engine.kind}]'.")

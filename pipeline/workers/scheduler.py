"""Rounds of work over workers: what is unfinished after one is handed out again in the next.

Workers leave parts of features in the cache, which is all that counts: whoever dies is missed by what is not there.
joblib, loky and Ray's pool end with an error when a worker dies; a chunk that was at work then is tried alone, so that
it is certain over whom workers die.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import shutil
import threading
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.config import NOTHING, Stretch
from extractors.decode.container import ReadError, VideoError
from extractors.snippets import snippet_range
from pipeline.cache.extraction import Chunk, Extraction
from pipeline.workers import backends
from pipeline.workers.engine import RUNS, Done, Engine, Item, Request, clear_runs, told
from pipeline.workers.worker import Report, Setup, Task, crashes, done_name, name_of, read_marker, work
from support.errors import BUG, ENVIRONMENT, EnvironmentMissing, Stopped, cannot_write, exit_code
from support.files import identity
from support.progress import Progress

TRIES = 3  # of a chunk
CRASHES = 2  # of workers over one part, after which its video fails
RUN_PARTS = 16  # most parts in one task: 11 minutes of video
WATCH = 0.5  # seconds between two looks at how far the workers are


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


class Fleet:
    """The rounds."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.setup = Setup.of(request.extractor, request.cache, engine.threads)
        self.videos: dict[str, _Video] = {}
        self.ready: deque[Done] = deque()
        self.later: list[Item] = []
        self.tries: Counter[str] = Counter()
        self.workers = 1
        self.all_seen = self.broken = False
        self.barren = 0
        self.folder = request.cache.folder / RUNS / f".run.{identity()}.{uuid.uuid4().hex[:8]}.part"

    def run(self, items: Iterable[Item]) -> Iterator[Done]:
        """Features of videos, as they are done; raises as `engine.extract`."""
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise EnvironmentMissing(
                f"{self.request.cache.folder}: workers leave their work there, and it cannot be written "
                f"({error.strerror}); name another folder with --cache-dir."
            ) from error
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), name="progress", daemon=True)
        watch.start()
        try:
            with backends.started(self.engine):
                self.workers = backends.workers(self.engine)
                yield from self._rounds(_Shared(items))
        finally:
            ended.set()
            watch.join()
            for video in self.videos.values():
                video.lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)
            clear_runs(self.request.cache.folder)

    def _rounds(self, items: Iterator[Item]) -> Iterator[Done]:
        while True:
            self.broken = False
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
        back = 0
        reports = self._reports(tasks)
        while True:
            try:  # nothing but the waiting: a mistake of ours in what follows is not a worker's death
                report = next(reports, None)
            except Exception as error:
                if exit_code(error) != BUG:
                    raise
                self.broken = True
                self.barren = 0 if back or any(self.folder.glob("part-*")) else self.barren + 1
                if self.barren == TRIES:  # nobody ever begins
                    raise EnvironmentMissing(f"no worker of --engine {self.engine.kind} can work: {error}") from error
                break
            if report is None:
                break
            back += 1
            self._take(report)
            while self.ready:
                yield self.ready.popleft()
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
                with backends.ray_settings(self.engine):
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
                    request.cache, item.video, item.content, request.extractor, request.stretch, said.append
                )
                if (found := state.found()) is not None:
                    self.ready.append(Done(item, told(found, said), cached=True))
                    continue
                lock = request.cache.lock(item.content)
                if not lock.take():
                    self.later.append(item)
                    continue
                video = self.videos[item.content] = _Video(item, state, lock, said)
            except OSError as error:
                said_by = cannot_write(request.cache.folder, error, "name another folder with --cache-dir")
                self.ready.append(Done(item, error=said_by))
                continue
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
            part = self.setup.part
            parts = math.ceil((last - chunk.first) / part)
            step = part * max(1, min(RUN_PARTS, math.ceil(parts / (4 * self.workers))))
            edges = [chunk.first, *range((chunk.first // step + 1) * step, last, step), chunk.last]
            for a, b in itertools.pairwise(edges):
                yield self._task(video, dataclasses.replace(chunk, first=int(a), last=b))

    def _task(self, video: _Video, chunk: Chunk) -> Task:
        # Workers here go where this run is, so that messages name the file as the user did; other nodes cannot.
        path, home = video.item.video, None
        if not path.is_absolute():
            path, home = (path, Path.cwd()) if self.engine.kind == "local" else (path.absolute(), None)
        return Task(path, video.item.content, self.request.stretch, chunk, home)

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
        if isinstance(video.error, ReadError):
            video.state.forget()
        video.lock.release()
        del self.videos[video.item.content]
        done = None if features is None else told(features, video.said)
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
        heard: dict[str, Progress] = {}
        while not ended.wait(WATCH):
            with contextlib.suppress(OSError):
                if self.request.stop():
                    (self.folder / "stop").touch()
                for marker in self.folder.glob("part-*"):
                    if (said := read_marker(marker)) and (video := self.videos.get(said["content"])) is not None:
                        if said["content"] not in heard:
                            heard[said["content"]] = self.request.on_progress(video.item)
                        heard[said["content"]](said["stage"], said["done"], said["total"])


def probe(request: Request, video: Path) -> tuple[float, bool]:
    """Snippets that a video seems to have, and whether it can be jumped in; from the decoder's process.

    Raises:
        VideoError: it cannot be opened.
    """
    extractor = request.extractor
    with extractor.decoder.open(video, extractor.config, NOTHING) as (clip, frames):
        for _ in frames:
            pass
    _, total = snippet_range(Stretch(0.0, clip.info.duration), clip.origin, extractor.config)
    return total, clip.seekable

"""Rounds of work for the workers: what is unfinished after one round is handed out again in the next.

Workers leave parts of features in the cache, and only what is in the cache counts: a worker that dies is noticed by its
missing results. joblib, loky and Ray's pool end with an error when a worker dies. A chunk that was being worked on at
that moment is then tried exclusively, so that it is certain which video kills workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import shutil
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from extractors.config import NOTHING, Stretch
from extractors.decode.video import ReadError, VideoError
from extractors.snippets import snippet_range
from pipeline.cache.content import Video, at_hand, size_of
from pipeline.cache.extraction import Chunk, Extraction
from pipeline.workers import backends
from pipeline.workers.engine import RUNS, Done, Engine, Item, Request, clear_runs, with_warnings
from pipeline.workers.worker import Report, Setup, Task, crashes, name_of, read_marker
from support.errors import BUG, ENVIRONMENT, EnvironmentMissing, Stopped, cannot_write, exit_code
from support.files import identity
from support.locks import Lock
from support.progress import Progress

TRIES = 3  # how often a chunk is tried
CRASHES = 2  # a video fails when this many workers have died while working on one part of it
RUN_PARTS = 16  # most parts in one task: 11 minutes of video
WATCH = 0.5  # seconds between two looks at the workers' progress


class _Shared:
    """An iterator that joblib's threads and ours share; one thread at a time takes an item."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)


@dataclass
class _Video:
    """A video that workers are working on."""

    item: Item
    state: Extraction
    lock: Lock
    messages: list[str] = field(default_factory=list)
    tasks: int = 0
    """tasks of this round that were handed out and have not come back"""
    planned: bool = False
    """whether all tasks of this round are handed out"""
    error: Exception | None = None


class Scheduler:
    """Hands the work of a run out to workers, round by round."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.setup = Setup.of(request.extractor, request.cache, engine.threads)
        self.videos: dict[str, _Video] = {}
        self.ready: deque[Done] = deque()
        self.later: list[Item] = []
        self.tries: Counter[str] = Counter()
        self.workers = 1
        self.all_seen = self.broken = False
        self.idle_rounds = 0
        self.folder = request.cache.folder / RUNS / f".run.{identity()}.{uuid.uuid4().hex[:8]}.part"

    def run(self, items: Iterable[Item]) -> Iterator[Done]:
        """The features of the videos, each as soon as it is done; raises as `extract`."""
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
            healthy = [v for v in self.videos.values() if not self._suspect(v)]
            suspects = [v for v in self.videos.values() if self._suspect(v)]
            yield from self._round(itertools.chain(self._again(healthy), self._new(items)))
            for video in suspects:  # no other video is worked on, so that it is certain which one kills a worker
                yield from self._round(self._exclusive(video))
            if self.request.stop():
                raise Stopped
            yield from self._settle()
            if self.all_seen and not self.videos:
                if not self.later:
                    return
                self.all_seen, items = False, _Shared(self._wait())  # other processes are working on them

    def _round(self, tasks: Iterator[Task]) -> Iterator[Done]:
        """Hand tasks out and collect the reports, until there are no more tasks or a worker dies."""
        back = 0
        reports = backends.reports(self.engine, self.setup, tasks, self.folder)
        while True:
            try:  # around the waiting alone: a bug in our own code below is not the death of a worker
                report = next(reports, None)
            except Exception as error:
                if exit_code(error) != BUG:
                    raise
                self.broken = True
                started = back or any(self.folder.glob("part-*"))
                self.idle_rounds = 0 if started else self.idle_rounds + 1
                if self.idle_rounds == TRIES:  # no worker ever starts
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

    # --- planning: called from joblib's threads, one at a time

    def _new(self, items: Iterator[Item]) -> Iterator[Task]:
        """Tasks of videos that come into the run; those that are in the cache become ready at once."""
        for item in items:
            messages: list[str] = []
            request = self.request
            try:
                state = Extraction(
                    request.cache, item.video, item.content, request.extractor, request.stretch, messages.append
                )
                if (found := state.found()) is not None:
                    self.ready.append(Done(item, with_warnings(found, messages), cached=True))
                    continue
                lock = request.cache.lock(item.content)
                if not lock.take():
                    self.later.append(item)
                    continue
                video = self.videos[item.content] = _Video(item, state, lock, messages)
            except OSError as error:
                unwritable = cannot_write(request.cache.folder, error, "name another folder with --cache-dir")
                self.ready.append(Done(item, error=unwritable))
                continue
            except Exception as error:
                self.ready.append(Done(item, error=error))
                continue
            yield from self._again([video])
            if request.stop():
                return
        self.all_seen = True

    def _again(self, videos: list[_Video]) -> Iterator[Task]:
        """Tasks for all that is missing of videos."""
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

    def _exclusive(self, video: _Video) -> Iterator[Task]:
        """One task: the first part that is missing."""
        if (chunk := video.state.next_chunk()) is not None and not self.request.stop():
            video.tasks, video.planned = 1, True
            last = min(chunk.last, (chunk.first // self.setup.part + 1) * self.setup.part)
            yield self._task(video, dataclasses.replace(chunk, last=last))

    def _cut(self, video: _Video) -> Iterator[Task]:
        """Tasks for what is missing of a video; a long file that allows seeking is divided between workers."""
        video.state.look()
        for chunk in video.state.chunks():
            # Workers on other machines fetch a video from a store themselves, and whole: it is one task.
            fetched = self.engine.kind != "local" and not isinstance(video.item.video, Path)
            if chunk.from_start or fetched or size_of(video.item.video) <= self.engine.small:
                yield self._task(video, chunk)
                continue
            with at_hand(video.item.video, video.item.content) as path:
                total, seekable = probe(self.request, path)
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
        # Local workers change to the folder of this run, so that messages name the file as the user did. Workers on
        # other machines cannot.
        path: Video = video.item.video
        home = None
        if isinstance(path, Path) and not path.is_absolute():
            path, home = (path, Path.cwd()) if self.engine.kind == "local" else (path.absolute(), None)
        return Task(path, video.item.content, self.request.stretch, chunk, home)

    # --- collecting

    def _take(self, report: Report) -> None:
        """Note what a worker reports; a video that is complete or has failed becomes ready."""
        video = self.videos.get(report.task.content)
        if video is None:
            return
        video.tasks -= 1
        video.messages += report.messages
        if report.error is not None:
            if exit_code(report.error) == ENVIRONMENT:
                raise report.error
            self.tries[name := name_of(report.task.content, report.task.chunk.first)] += 1
            if exit_code(report.error) != BUG or self.tries[name] >= TRIES:
                video.error = video.error or report.error
        if video.error is not None or (video.tasks == 0 and video.planned):
            self._finish(video)

    def _finish(self, video: _Video) -> None:
        """Make the video ready if it is complete or has failed; otherwise the next round continues with it."""
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
            (self.folder / f"skip-{video.item.content}").touch()  # its remaining tasks need not be done
        if isinstance(video.error, ReadError):
            video.state.forget()
        video.lock.release()
        del self.videos[video.item.content]
        done = None if features is None else with_warnings(features, video.messages)
        self.ready.append(Done(video.item, done, video.error))

    def _suspect(self, video: _Video) -> bool:
        """Whether a worker died while working on the first part that is missing."""
        chunk = video.state.next_chunk() if video.state.parts else None
        first = 0 if chunk is None else chunk.first
        return bool(crashes(self.folder, video.item.content, first))

    def _settle(self) -> Iterator[Done]:
        """After a round: let videos fail that killed too many workers, or that make no progress."""
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
                        f"{video.item.video}: {died} workers died while working on it; give them more memory, or "
                        "leave it out."
                    )
                elif tried >= TRIES:
                    video.error = VideoError(
                        f"{video.item.video}: not done after {tried} tries; check that the workers can read it."
                    )
            if chunk is None or video.error is not None:
                self._finish(video)
        while self.ready:
            yield self.ready.popleft()

    def _wait(self) -> Iterator[Item]:
        """Videos that other processes were working on, each as soon as its lock is free."""
        waiting, self.later = self.later, []
        for item in waiting:
            self.request.on_progress(item)("wait", 0, 1)
            lock = self.request.cache.lock(item.content)
            if not lock.wait(self.request.stop):
                return
            lock.release()
            yield item

    # --- in a thread of its own

    def _watch(self, ended: threading.Event) -> None:
        """Pass on the progress of the workers, and tell them to stop when the run stops."""
        shown: dict[str, Progress] = {}  # by content
        while not ended.wait(WATCH):
            with contextlib.suppress(OSError):
                if self.request.stop():
                    (self.folder / "stop").touch()
                for file in self.folder.glob("part-*"):
                    if (marker := read_marker(file)) and (video := self.videos.get(marker["content"])) is not None:
                        if video.item.content not in shown:
                            shown[video.item.content] = self.request.on_progress(video.item)
                        shown[video.item.content](marker["stage"], marker["done"], marker["total"])


def probe(request: Request, video: Path) -> tuple[float, bool]:
    """The number of snippets by a video's header, and whether the file allows seeking; asked in the decoder's process.

    Raises:
        VideoError: it cannot be opened.
    """
    extractor = request.extractor
    with extractor.decoder.open(video, extractor.config, NOTHING) as (clip, frames):
        for _ in frames:
            pass
    _, total = snippet_range(Stretch(0.0, clip.info.duration), clip.origin, extractor.config)
    return total, clip.seekable

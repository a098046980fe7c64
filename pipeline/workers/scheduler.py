"""Rounds of work for the workers: what is unfinished after one round is handed out again in the next.

Workers leave parts of features in the cache, and only what is in the cache counts: a worker that dies is noticed by its
missing results. joblib, loky and Ray's pool end with an error when a worker dies. A chunk that was being worked on at
that moment is then tried exclusively, so that it is certain which video kills workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from extractors.decode.video import ReadError, VideoError
from model import checkpoint
from pipeline.api import EMBEDDED
from pipeline.cache.extraction import Extraction
from pipeline.localizer import Localizer
from pipeline.workers import backends
from pipeline.workers.engine import RUNS, Done, Engine, Item, Request, clear_runs, with_warnings
from pipeline.workers.planning import Planner, Shared, Video
from pipeline.workers.tasks import END, MODEL, Report, Setup, Task, name_of
from pipeline.workers.unread import Unread
from pipeline.workers.worker import crashes, read_marker
from support.errors import BUG, ENVIRONMENT, EnvironmentMissing, Stopped, cannot_write, exit_code
from support.files import identity, write_temporary, writing
from support.progress import Progress

TRIES = 3  # how often a chunk is tried
CRASHES = 2  # a video fails when this many workers have died while working on one part of it
WATCH = 0.5  # seconds between two looks at the workers' progress


class Scheduler:
    """Hands the work of a run out to workers, round by round."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        pipeline, threads = request.pipeline, engine.threads
        localizer = None if pipeline is None else Localizer.of(pipeline, request.stretch, threads or 1)
        self.setup = Setup.of(request.extractor, request.cache, threads, localizer)
        self.videos: dict[str, Video] = {}
        self.ready: deque[Done] = deque()
        self.ending: deque[Video] = deque()
        """videos that need one more task: all parts are there, and no worker has finished them"""
        self.later: list[Item] = []
        self.tries: Counter[str] = Counter()
        self.folder = request.cache.folder / RUNS / f".run.{identity()}.{uuid.uuid4().hex[:8]}.part"
        self.plan = Planner(engine, request, self.setup, self.folder)
        self.unread = Unread(engine, request, TRIES)
        self.all_seen = self.broken = False
        self.idle_rounds = 0

    def run(self, items: Iterable[Item]) -> Iterator[Done]:
        """The features of the videos, each as soon as it is done; raises as `extract`."""
        try:
            self.folder.mkdir(parents=True)
            self._send_model()
        except OSError as error:
            raise EnvironmentMissing(
                f"{self.request.cache.folder}: workers leave their work there, and it cannot be written "
                f"({error.strerror}); name another folder with --cache-dir."
            ) from error
        self.setup, proof = self._prove(self.setup)
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), name="progress", daemon=True)
        watch.start()
        try:
            with backends.started(self.engine) as self.reports:
                self.plan.workers = backends.workers(self.engine)
                yield from self._rounds(Shared(items))
        finally:
            ended.set()
            watch.join()
            for video in self.videos.values():
                video.lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)
            if proof is not None:
                proof.unlink(missing_ok=True)
            clear_runs(self.request.cache.folder)

    def _send_model(self) -> None:
        """Put a model that is not an embedded one where workers read it; they need not see the user's own files."""
        if (pipeline := self.request.pipeline) is not None and pipeline.config.model != EMBEDDED:
            checkpoint.save(pipeline.model, self.folder / MODEL)

    def _prove(self, setup: Setup) -> tuple[Setup, Path | None]:
        """Leave a file in the output folder. Workers that see it write there themselves; others send us the bytes."""
        if (out := self.request.out) is None:
            return setup, None
        secret = uuid.uuid4().hex
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            proof = write_temporary(out.absolute(), "run", secret.encode())
        return dataclasses.replace(setup, proof=proof, secret=secret), proof

    def _rounds(self, items: Iterator[Item]) -> Iterator[Done]:
        while True:
            self.broken = False
            self.ending.clear()
            healthy = [v for v in self.videos.values() if not self._suspect(v)]
            suspects = [v for v in self.videos.values() if self._suspect(v)]
            yield from self._round(itertools.chain(self.unread.again(), self._again(healthy), self._new(items)))
            for video in suspects:  # no other video is worked on, so that it is certain which one kills a worker
                yield from self._round(self._exclusive(video))
            if self.request.stop():
                raise Stopped
            yield from self._settle()
            if self.all_seen and not self.videos and not self.unread:
                if not self.later:
                    return
                self.all_seen, items = False, Shared(self._wait())  # other processes are working on them

    def _round(self, tasks: Iterator[Task]) -> Iterator[Done]:
        """Hand tasks out and collect the reports, until there are no more tasks or a worker dies."""
        back = 0
        reports = self.reports(self.setup, tasks, self.folder)
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
        while True:
            while self.ending:
                yield from self._again([self.ending.popleft()])
            item = self.unread.next_item() or next(items, None)
            self.ready.extend(self.unread.failures())
            if item is None:
                break
            if not item.content:
                yield self.unread.ask(item)
                if self.request.stop():
                    return
                continue
            messages: list[str] = []
            request = self.request
            try:
                state = Extraction(
                    request.cache, item.video, item.content, request.extractor, request.stretch, messages.append
                )
                cached = item.order is not None and state.assume()
                if item.order is None and (found := state.found()) is not None:
                    self.ready.append(Done(item, with_warnings(found, messages), cached=True))
                    continue
                lock = request.cache.lock(item.content)
                if not cached and not lock.take():
                    self.later.append(item)
                    continue
                video = self.videos[item.content] = Video(item, state, lock, messages, cached=cached)
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

    def _again(self, videos: list[Video]) -> Iterator[Task]:
        """Tasks for all that is missing of videos."""
        for video in videos:
            video.planned = False
            try:
                tasks = list(self.plan.cut(video))
                if not tasks and video.item.order is not None and video.error is None:
                    tasks = [self.plan.task(video, None)]
            except Exception as error:
                video.error, tasks = error, []
            video.tasks += len(tasks)
            video.planned = True
            if not tasks:
                self._finish(video)
            yield from tasks

    def _exclusive(self, video: Video) -> Iterator[Task]:
        """One task: the first part that is missing."""
        chunk = video.state.next_chunk()
        if self.request.stop() or (chunk is None and video.item.order is None):
            return
        video.tasks, video.planned = 1, True
        if chunk is not None:
            last = min(chunk.last, (chunk.first // self.setup.part + 1) * self.setup.part)
            chunk = dataclasses.replace(chunk, last=last)
        yield self.plan.task(video, chunk)

    # --- collecting

    def _take(self, report: Report) -> None:
        """Note what a worker reports; a video that is complete or has failed becomes ready."""
        if report.task.unread:
            self.unread.take(report)
            self.ready.extend(self.unread.failures())
            return
        video = self.videos.get(report.task.content)
        if video is None:
            return
        video.tasks -= 1
        video.messages += report.messages
        video.finished = video.finished or report.finished
        video.cached = video.cached and not report.worked
        if report.error is not None:
            if exit_code(report.error) == ENVIRONMENT:
                raise report.error
            self.tries[name := name_of(report.task.content, report.task.first)] += 1
            if exit_code(report.error) != BUG or self.tries[name] >= TRIES:
                video.error = video.error or report.error
        if video.finished is not None or video.error is not None or (video.tasks == 0 and video.planned):
            self._finish(video)

    def _finish(self, video: Video) -> None:
        """Make the video ready if it is complete or has failed; otherwise the next round continues with it."""
        features = None
        try:
            if video.item.order is not None and video.error is None:
                if video.finished is None:
                    self.ending.append(video)
                    return
            elif video.error is None:
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
        finished = None if video.error is not None else video.finished
        self.ready.append(Done(video.item, done, finished, video.error, video.cached))

    def _suspect(self, video: Video) -> bool:
        """Whether a worker died while working on the first part that is missing."""
        return bool(crashes(self.folder, video.item.content, self.plan.first(video)))

    def _settle(self) -> Iterator[Done]:
        """After a round: let videos fail that killed too many workers, or that make no progress."""
        for video in list(self.videos.values()):
            video.tasks = 0
            self.plan.look(video)
            complete = video.state.next_chunk() is None and video.item.order is None
            if not complete:
                first = self.plan.first(video)
                died = crashes(self.folder, video.item.content, first)
                name = name_of(video.item.content, first)
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
            if complete or video.error is not None:
                self._finish(video)
        deaths = Counter({name: crashes(self.folder, name, END) for name in self.unread.asked})
        self.unread.settle(self.broken, deaths, CRASHES)
        self.ready.extend(self.unread.failures())
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
                    if (marker := read_marker(file)) and (item := self._item(name := marker["content"])) is not None:
                        if name not in shown:
                            shown[name] = self.request.on_progress(item)
                        shown[name](marker["stage"], marker["done"], marker["total"])

    def _item(self, name: str) -> Item | None:
        """The item that a marker is about."""
        return self.unread.asked.get(name) or (video.item if (video := self.videos.get(name)) is not None else None)

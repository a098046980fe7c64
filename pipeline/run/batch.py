"""Several videos, on one worker or many: a video that fails is reported, and the others go on."""

from __future__ import annotations

import dataclasses
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from extractors.backbones import weights
from extractors.config import WHOLE, Stretch
from extractors.decode.video import VideoError
from extractors.features import Extractor, Features, load, save
from pipeline.api import Pipeline
from pipeline.cache.content import Content, Video, content_at_once, content_hash, size_of
from pipeline.cache.entries import FeatureCache
from pipeline.config import Config
from pipeline.run.outcome import (
    Existing,
    FeatureOutput,
    Order,
    Outcome,
    ResultOutput,
    covers,
    described,
    existing_features,
    existing_results,
    failed,
    finish,
    same_numbers,
    write,
)
from pipeline.run.remaking import Redo
from pipeline.run.store import said_of_backup
from pipeline.run.videos import Job
from pipeline.workers.engine import Done, Engine, Item, Request, clear_runs, extract_here
from support.errors import DiskFull, OutputError, Stopped
from support.files import back_up, writing
from support.paths import program, with_suffix
from support.progress import Progress, silent

LEAST_ROOM = 4 << 20  # bytes that must be free in the cache, beside half the size of the video

End = Callable[[Job, Done, Redo | None], Outcome]
"""(video, its features or its result, why an earlier output is replaced) -> outcome, with the output written"""


def run_batch(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    output: ResultOutput | None = None,
    stretch: Stretch = WHOLE,
    on_progress: Callable[[Job], Progress] = lambda job: silent,
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Run the videos and write their results; yields an outcome as each is done.

    A result that is there already stays when it has the same provenance. It is made again when the video's file has
    changed, or another version or device made it. When the user asked for something else before, that video fails.
    A video with the content of an earlier one is not computed again.

    Raises:
        Stopped: `stop` returned true.
        EnvironmentMissing, WeightsError, ...: this machine lacks something, and the next video would fail too.
    """
    files = output or ResultOutput()
    find = existing_results(pipeline, files, stretch)

    def find_or_warm(job: Job, content: str) -> Outcome | Redo | None:
        found = find(job, content)
        if engine is None or engine.here:  # this process will need the localisation network
            pipeline.warm() if not isinstance(found, Outcome) else None
        return found

    def order(job: Job, redo: Redo | None) -> Order:
        target = None if files.folder is None else files.folder / job.name
        return Order(job.video, target, tuple(files.formats), files.overwrite, files.only, redo)

    def end(job: Job, done: Done, redo: Redo | None) -> Outcome:
        finished, wanted = done.finished, order(job, redo)
        if finished is None:
            assert done.features is not None
            finished = finish(pipeline, wanted, done.item.content, done.features, stretch)
        if wanted.target is not None:
            files.before_writing(job)
        finished = write(finished, wanted, on_progress(job))
        if wanted.target is not None:
            files.stored(job)
        saved = [path if wanted.target is None else wanted.target.with_name(path.name) for path in finished.saved]
        return Outcome(job, result=finished.result, messages=_messages(redo, saved))

    # Workers do not write into a folder that stands for one in a store: this process knows what is there already.
    seen = files.folder if files.mirror is None else None
    request = Request(
        pipeline.extractor, pipeline.cache, stretch, lambda item: on_progress(item.key), stop, pipeline, seen
    )
    return _Batch(request, find_or_warm, end, order).run(engine or Engine(), jobs)


def default_streams(config: Config) -> tuple[str, ...]:
    """Streams that `extract` computes by default: flow only if it has weights, or if the user gave settings for it."""
    wanted = config.flow_weights or config.given & {"features.flow"} or weights.find("i3d-flow")
    return ("rgb", "flow") if wanted else ("rgb",)


def extract_batch(
    extractor: Extractor,
    cache: FeatureCache,
    jobs: Sequence[Job],
    output: FeatureOutput,
    stretch: Stretch = WHOLE,
    on_progress: Callable[[Job], Progress] = lambda job: silent,
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Write the features of the videos as `<name>.npz`; yields an outcome as each is done.

    Raises:
        As `run_batch`.
    """

    def end(job: Job, done: Done, redo: Redo | None) -> Outcome:
        assert output.folder is not None and done.features is not None
        content, features = done.item.content, done.features
        path = with_suffix(output.folder / job.name, ".npz")
        saved = []
        with writing(path):
            if redo is None and not output.overwrite and path.exists():  # by an older version, which named no video
                there = load(path)
                if there.settings != features.settings or not covers(there, stretch):
                    raise OutputError(f"{path}: holds other features; use --overwrite or another -o.")
                if same_numbers(there, features):
                    return Outcome(job, features=features, skipped=True)
                redo = Redo(f"{path}: is made anew: it was made from other content", unsure=True)
            if redo is not None and redo.unsure:
                saved.append(back_up(path))
            save(features, path, described(job.video, content, stretch, output.asked))
        output.stored(job)
        return Outcome(job, features=features, messages=_messages(redo, saved))

    request = Request(extractor, cache, stretch, lambda item: on_progress(item.key), stop)
    return _Batch(request, existing_features(extractor, output, stretch), end).run(engine or Engine(), jobs)


def features_batch(
    request: Request, jobs: Sequence[Job], finish: Callable[[Job, str, Features], Outcome], engine: Engine | None = None
) -> Iterator[Outcome]:
    """The features of the videos, for `finish` (which gets the hash of the content, too); nothing is written.

    Raises:
        As `run_batch`.
    """

    def kept(job: Job, done: Done, redo: Redo | None) -> Outcome:
        assert done.features is not None
        return finish(job, done.item.content, done.features)

    return _Batch(request, lambda job, content: None, kept).run(engine or Engine(), jobs)


def extract(engine: Engine, request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """The features of the videos, each as soon as it is done: extracted in this process, or by workers.

    Raises:
        Stopped: `request.stop` returned true; whatever is complete is in the cache.
        EnvironmentMissing: no worker can work.
    """
    clear_runs(request.cache.folder)
    if engine.here:
        yield from extract_here(request, items)
        return
    from pipeline.workers.scheduler import Scheduler  # here, since it loads joblib

    yield from Scheduler(engine, request).run(items)


def _messages(redo: Redo | None, saved: Sequence[Path]) -> tuple[str, ...]:
    """What the user reads about a result that replaced another one."""
    why = () if redo is None else (f"{redo.why}.",)
    return (*why, *map(said_of_backup, saved))


class _Batch:
    """What `run` and `extract` share: each content is extracted once, and a failure costs one video alone."""

    def __init__(
        self,
        request: Request,
        existing: Existing,
        end: End,
        order: Callable[[Job, Redo | None], Order] | None = None,
    ) -> None:
        """`order`: what workers make of a video's features; None: they come back as they are."""
        self.request = dataclasses.replace(request, identified=self._identified)
        self.existing, self.end, self.order = existing, end, order
        self.early: deque[Outcome] = deque()
        """outcomes that needed no extraction"""
        self.first: dict[str, Job] = {}
        """by content, the first video that has it"""
        self.twins: list[Item] = []
        """videos with the content of an earlier one"""
        self.broken: set[str] = set()
        """contents that failed"""
        self.redone: dict[Job, Redo] = {}
        self.stopped = False

    def run(self, engine: Engine, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """The outcomes as they come: first of each content once, then of the twins, from the cache."""
        yield from self._extracted(engine, self._new(jobs, engine.kind != "local"))
        if self.twins:  # workers finish them, too: a cluster's machine runs no network
            yield from self._extracted(engine if self.order is not None else Engine(), self._again())

    def _extracted(self, engine: Engine, items: Iterable[Item]) -> Iterator[Outcome]:
        found = extract(engine, self.request, items)
        while True:
            try:
                done = next(found, None)
            except Exception:  # the run ends here, but outcomes that needed no extraction stand
                yield from self._ready()
                raise
            yield from self._ready()
            if done is None:
                break
            yield self._outcome(done)
        if self.stopped:
            raise Stopped

    def _ready(self) -> Iterator[Outcome]:
        while self.early:
            outcome = self.early.popleft()
            yield outcome if outcome.error is None else failed(outcome.job, outcome.error)

    def _outcome(self, done: Done) -> Outcome:
        job, content = done.item.key, done.item.content
        try:
            if done.error is not None:
                raise done.error
            outcome = self.end(job, done, self.redone.pop(job, None))
        except Exception as error:
            self.broken.add(content)
            return failed(job, error)
        first = self.first[content]
        return dataclasses.replace(outcome, cached=done.cached, duplicate_of=None if first == job else first)

    def _existing(self, job: Job, content: str) -> Outcome | None:
        found = self.existing(job, content)
        if isinstance(found, Redo):
            self.redone[job] = found
            return None
        return found

    def _item(self, job: Job, content: str) -> Item:
        return Item(job.video, content, job, None if self.order is None else self.order(job, self.redone.get(job)))

    def _new(self, jobs: Sequence[Job], cluster: bool = False) -> Iterator[Item]:
        """The videos that must be extracted, the first of each content; a cluster's workers read unknown ones."""
        for job in jobs:
            if self.request.stop():
                self.stopped = True
                return
            try:
                unread = Item(job.video, "", job)
                content = content_at_once(job.video) if cluster else None
                if content is None and cluster:
                    yield unread
                    continue
                item = self._identified(unread, content or content_hash(job.video, self.request.on_progress(unread)))
            except Exception as error:
                self.early.append(Outcome(job, error=error))
                continue
            if item is not None:
                yield item

    def _identified(self, item: Item, content: Content) -> Item | None:
        """What must be extracted of a video whose content is known; None: nothing, or its twin's features will do.

        Raises:
            UserError: an output of another video is in the way, or there is no room.
        """
        job = item.key
        if self.first.setdefault(content, job) != job:
            self.twins.append(Item(job.video, content, job))
        elif (outcome := self._existing(job, content)) is None:
            make_sure_of_room(self.request.cache.folder, job.video)
            return self._item(job, content)
        else:
            self.early.append(outcome)
        return None

    def _again(self) -> Iterator[Item]:
        """The twins whose features must be read from the cache."""
        for item in self.twins:
            first = self.first[item.content]
            if item.content in self.broken:
                error = VideoError(f"{item.video}: is the same as {first.video}, which failed.")
                self.early.append(Outcome(item.key, error=error))
                continue
            try:
                if (outcome := self._existing(item.key, item.content)) is None:
                    yield self._item(item.key, item.content)
                else:
                    self.early.append(dataclasses.replace(outcome, duplicate_of=first))
            except Exception as error:
                self.early.append(Outcome(item.key, error=error))


def make_sure_of_room(folder: Path, video: Video) -> None:
    """Check, before a video is extracted, that its features will fit on the disk of the cache.

    Raises:
        DiskFull: they will not.
    """
    # A minute takes 384 kB a stream, and twice that while parts are joined: far less than the video itself.
    need = LEAST_ROOM + size_of(video) // 2
    place = folder
    while not place.exists():
        place = place.parent
    if (free := shutil.disk_usage(place).free) < need:
        raise DiskFull(
            f"{folder}: {free / 1e6:.0f} MB are free, and {video} may take {need / 1e6:.0f} MB; make room "
            f"(`{program()} cache prune`), or name another folder with --cache-dir."
        )

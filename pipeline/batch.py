"""Several videos, on one worker or many: a bad one is reported, the others go on."""

import dataclasses
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.config import program
from extractors.features import Extractor, Features, Progress, load, save
from extractors.video import VideoError
from pipeline.api import Pipeline
from pipeline.cache import FeatureCache, content_hash
from pipeline.engine import Engine, Item, Request, extract
from pipeline.errors import (
    BUG,
    ENVIRONMENT,
    FULL,
    MEMORY,
    DiskFull,
    OutputError,
    Stopped,
    cannot_write,
    exit_code,
)
from pipeline.results import CURVES
from pipeline.storing import check_names, existing, with_suffix, write_result
from pipeline.videos import Job
from postprocess.curves import Curves
from postprocess.segment import Result
from postprocess.writers import SUFFIXES

LEAST_ROOM = 4 << 20  # bytes that must be free in the cache, and half of the video's own


@dataclass(frozen=True)
class Outcome:
    """What became of a video: `result` (or `features`) is there unless it failed."""

    job: Job
    result: Result | None = None
    features: Features | None = None
    skipped: bool = False
    """whether the result was there already"""
    cached: bool = False
    """whether its features were"""
    duplicate_of: Job | None = None
    """an earlier video of the run with the same content"""
    error: Exception | None = None

    @property
    def seconds(self) -> float:
        """Of video; 0 when it failed."""
        found = self.result or self.features
        return 0.0 if found is None else found.duration


Kept = Callable[[Job, str], Outcome | None]  # (video, hash of its content) -> what is there already


def run_batch(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    out: Path | None = None,
    formats: Sequence[str] = ("json",),
    overwrite: bool = False,
    start: float = 0.0,
    end: float = math.inf,
    on_progress: Callable[[Job], Progress] = lambda job: lambda stage, done, total: None,
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Run the videos, writing results below `out`; yields an outcome as each is done.

    A result that is already there is kept when it has the same provenance, else that video fails. A video with the
    content of an earlier one is not computed again.

    Raises:
        Stopped: `stop` said so.
        EnvironmentMissing, WeightsError, ...: what this machine lacks would fail the next video too.
    """

    def finish(job: Job, content: str, features: Features) -> Outcome:
        result, scores = pipeline.result(job.video, content, features, start, end)
        if out is not None:
            # Under `paper` unsure segments take part in NMS: without them others would be found.
            paged = "html" in formats and pipeline.config.localize.rule == "runs"
            everything = pipeline.segments(scores, features, start, end, least=0.0) if paged else None
            target, progress = out / job.name, on_progress(job)
            arrays = (features.times, scores.actionness, scores.cas, scores.coarse_cas)
            curves = Curves(*arrays, tuple(pipeline.model.classes))
            write_result(result, curves, target, formats, everything, progress, overwrite)
        return Outcome(job, result=result)

    request = Request(pipeline.extractor, pipeline.cache, start, end, lambda item: on_progress(item.key), stop)
    kept = kept_results(pipeline, out, formats, overwrite, start, end)
    return _batch(engine or Engine(), request, jobs, kept, finish)


def kept_results(
    pipeline: Pipeline, out: Path | None, formats: Sequence[str], overwrite: bool, start: float, end: float
) -> Kept:
    """What says, of a video and the hash of its content, whether its result is there already.

    It raises OutputError where another result stands.
    """

    def kept(job: Job, content: str) -> Outcome | None:
        if out is not None:
            check_names(out / job.name, job.video, [".json", CURVES, *(SUFFIXES[name] for name in formats)])
        if out is None or overwrite:
            return None
        found = existing(out / job.name, pipeline.provenance(content, start, end), formats)
        return None if found is None else Outcome(job, result=found, skipped=True)

    return kept


def extract_batch(
    extractor: Extractor,
    cache: FeatureCache,
    jobs: Sequence[Job],
    out: Path,
    overwrite: bool = False,
    start: float = 0.0,
    end: float = math.inf,
    on_progress: Callable[[Job], Progress] = lambda job: lambda stage, done, total: None,
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Write the features of videos below `out` as `<name>.npz`; yields an outcome as each is done.

    Raises:
        As `run_batch`.
    """

    def finish(job: Job, content: str, features: Features) -> Outcome:
        path = with_suffix(out / job.name, ".npz")
        if path.exists() and not overwrite:
            if not _same(load(path), features):
                raise OutputError(f"{path}: holds other features; use --overwrite or another -o.")
            return Outcome(job, features=features, skipped=True)
        try:
            save(features, path)
        except OSError as error:
            raise cannot_write(path, error) from error
        return Outcome(job, features=features)

    request = Request(extractor, cache, start, end, lambda item: on_progress(item.key), stop)
    return _batch(engine or Engine(), request, jobs, kept_features(extractor, out, overwrite), finish)


def kept_features(extractor: Extractor, out: Path, overwrite: bool) -> Kept:
    """As `kept_results`, but never sure: whether features are of this video is seen when its own are there."""

    def kept(job: Job, content: str) -> Outcome | None:
        path = with_suffix(out / job.name, ".npz")
        check_names(out / job.name, job.video, [".npz"])
        if not overwrite and path.exists() and load(path).settings != extractor.settings():
            raise OutputError(f"{path}: holds features made otherwise; use --overwrite or another -o.")
        return None

    return kept


def _batch(
    engine: Engine,
    request: Request,
    jobs: Sequence[Job],
    kept: Kept,
    finish: Callable[[Job, str, Features], Outcome],
) -> Iterator[Outcome]:
    """What `run` and `extract` have in common: each content once, and a video's fault is that video's alone."""
    early: deque[Outcome] = deque()  # outcomes that need no extraction
    stopped = False
    firsts: dict[str, Job] = {}  # by content
    broken: set[str] = set()
    twins: list[Item] = []

    def items() -> Iterator[Item]:
        nonlocal stopped
        for job in jobs:
            if request.stop():
                stopped = True
                return
            try:
                content = content_hash(job.video, request.on_progress(Item(job.video, "", job)))
                if firsts.setdefault(content, job) != job:
                    twins.append(Item(job.video, content, job))
                elif (outcome := kept(job, content)) is None:
                    make_sure_of_room(request.cache.folder, job.video)
                    yield Item(job.video, content, job)
                else:
                    early.append(outcome)
            except Exception as error:
                early.append(Outcome(job, error=error))

    def again() -> Iterator[Item]:
        """Those that another one is like, from the cache."""
        for item in twins:
            if item.content in broken:
                like = firsts[item.content].video
                early.append(Outcome(item.key, error=VideoError(f"{item.video}: is the same as {like}, which failed.")))
                continue
            try:
                if (outcome := kept(item.key, item.content)) is None:
                    yield item
                else:
                    early.append(dataclasses.replace(outcome, duplicate_of=firsts[item.content]))
            except Exception as error:
                early.append(Outcome(item.key, error=error))

    def settled(outcome: Outcome) -> Outcome:
        if outcome.error is not None:
            return _failed(outcome.job, outcome.error)
        return outcome

    for where, source in ((engine, items), (Engine(), again)):
        found = extract(where, request, source())
        while True:
            try:
                done = next(found, None)
            except Exception:  # nothing can go on, but what needs no extraction stands
                yield from map(settled, early)
                raise
            while early:
                yield settled(early.popleft())
            if done is None:
                break
            job, content = done.item.key, done.item.content
            try:
                if done.error is not None:
                    raise done.error
                assert done.features is not None
                outcome = dataclasses.replace(finish(job, content, done.features), cached=done.cached)
                first = firsts[content]
                yield outcome if first == job else dataclasses.replace(outcome, duplicate_of=first)
            except Exception as error:
                broken.add(content)
                yield _failed(job, error)
        if stopped:
            raise Stopped


def make_sure_of_room(folder: Path, video: Path) -> None:
    """Before a video is extracted: whether its features will find room.

    Raises:
        DiskFull: they will not.
    """
    # A minute takes 384 kB a stream, and the double of it while parts are joined: far less than the video itself.
    need = LEAST_ROOM + video.stat().st_size // 2
    place = folder
    while not place.exists():
        place = place.parent
    if (free := shutil.disk_usage(place).free) < need:
        raise DiskFull(
            f"{folder}: {free / 1e6:.0f} MB are free, and {video} may take {need / 1e6:.0f} MB; make room "
            f"(`{program()} cache prune`), or name another folder with --cache-dir."
        )


def _failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a video that could not be done; what this machine lacks would fail the next one too."""
    if isinstance(error, MemoryError):  # another video may take less
        failed = VideoError(f"{job.video}: {MEMORY}.")
        failed.__cause__ = error
        return Outcome(job, error=failed)
    if isinstance(error, Stopped) or exit_code(error) == ENVIRONMENT:
        raise error
    if isinstance(error, OSError) and error.errno in FULL:
        raise DiskFull(f"{job.video}: the disk became full over it; make room and run again.") from error
    if exit_code(error) == BUG:  # costs this video alone
        told = f"{job.video}: a bug in jcdnet: {type(error).__name__}: {error}; please report it, with the file."
        failed = VideoError(told)
        failed.__cause__ = error
        return Outcome(job, error=failed)
    return Outcome(job, error=error)


def _same(kept: Features, features: Features) -> bool:
    """Whether two features of the same settings hold the same numbers."""
    names = ("times", *features.settings)
    return all(np.array_equal(getattr(kept, name), getattr(features, name)) for name in names)

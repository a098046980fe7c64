"""Several videos, on one worker or many: a bad one is reported, the others go on."""

import dataclasses
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.decode.container import VideoError
from extractors.featurefile import made_of
from extractors.features import Extractor, Features, load, save
from pipeline.api import Pipeline
from pipeline.cache.entries import FeatureCache, content_hash
from pipeline.run.remaking import Redo, another_video, compare
from pipeline.run.results import CURVES
from pipeline.run.store import (
    check_names,
    existing,
    standing_formats,
    with_suffix,
    write_alone,
    write_result,
)
from pipeline.run.videos import Job
from pipeline.workers.engine import Engine, Item, Request, extract
from postprocess.curves import Curves
from postprocess.formats.writers import SUFFIXES
from postprocess.segment import Result
from support.errors import (
    BUG,
    ENVIRONMENT,
    FULL,
    MEMORY,
    DiskFull,
    OutputError,
    Stopped,
    as_bug,
    cannot_write,
    exit_code,
)
from support.files import back_up
from support.paths import program
from support.progress import Progress, silent

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
    said: tuple[str, ...] = ()
    """what was replaced, why, and what was kept of it"""

    @property
    def seconds(self) -> float:
        """Of video; 0 when it failed."""
        found = self.result or self.features
        return 0.0 if found is None else found.duration


Kept = Callable[[Job, str], Outcome | Redo | None]
"""(video, hash of its content) -> what is there already, or that it is made anew, or that there is nothing"""


def run_batch(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    out: Path | None = None,
    formats: Sequence[str] = ("json",),
    overwrite: bool = False,
    start: float = 0.0,
    end: float = math.inf,
    on_progress: Callable[[Job], Progress] = lambda job: silent,
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
    only: str | None = None,
) -> Iterator[Outcome]:
    """Run the videos, writing results below `out`; yields an outcome as each is done.

    only: the one format that is written, with no result beside it (but the curves beside a JSON).

    A result that is already there is kept when it has the same provenance. It is made anew when the video's file has
    changed, or another version or device made it; else, asked for otherwise, that video fails. A video with the content
    of an earlier one is not computed again.

    Raises:
        Stopped: `stop` said so.
        EnvironmentMissing, WeightsError, ...: what this machine lacks would fail the next video too.
    """

    def finish(job: Job, content: str, features: Features, redo: Redo | None) -> Outcome:
        result, scores = pipeline.result(job.video, content, features, start, end)
        if out is not None:
            # What is made anew has the formats that stand there, too: nobody asked for them to go.
            wanted = [*formats, *(standing_formats(out / job.name) if redo is not None else ())]
            # Under `paper` unsure segments take part in NMS: without them others would be found.
            paged = "html" in wanted and pipeline.config.localize.rule == "runs"
            everything = pipeline.segments(scores, features, start, end, least=0.0) if paged else None
            target, progress = out / job.name, on_progress(job)
            arrays = (features.times, scores.actionness, scores.cas, scores.coarse_cas)
            curves = Curves(*arrays, tuple(pipeline.model.classes))
            if only not in (None, "json"):
                write_alone(result, curves, target, str(only), everything, progress)
                return Outcome(job, result=result)
            unsure = redo is not None and redo.unsure
            kept = write_result(result, curves, target, wanted, everything, progress, overwrite, unsure)
            return Outcome(job, result=result, said=_told(redo, kept))
        return Outcome(job, result=result)

    there = kept_results(pipeline, out, formats, overwrite or only not in (None, "json"), start, end)

    def kept(job: Job, content: str) -> Outcome | Redo | None:
        outcome = there(job, content)
        if not isinstance(outcome, Outcome):  # there is something to localise
            pipeline.warm()
        return outcome

    request = Request(pipeline.extractor, pipeline.cache, start, end, lambda item: on_progress(item.key), stop)
    return _batch(engine or Engine(), request, jobs, kept, finish)


def kept_results(
    pipeline: Pipeline, out: Path | None, formats: Sequence[str], overwrite: bool, start: float, end: float
) -> Kept:
    """What says, of a video and the hash of its content, whether its result is there already.

    It raises OutputError where another result stands.
    """

    def kept(job: Job, content: str) -> Outcome | Redo | None:
        if out is not None:
            check_names(out / job.name, job.video, [".json", CURVES, *(SUFFIXES[name] for name in formats)])
        if out is None or overwrite:
            return None
        found = existing(out / job.name, pipeline.provenance(content, start, end), formats, job.video)
        return Outcome(job, result=found, skipped=True) if isinstance(found, Result) else found

    return kept


def extract_batch(
    extractor: Extractor,
    cache: FeatureCache,
    jobs: Sequence[Job],
    out: Path,
    overwrite: bool = False,
    start: float = 0.0,
    end: float = math.inf,
    on_progress: Callable[[Job], Progress] = lambda job: silent,
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
    asked: Sequence[str] = (),
) -> Iterator[Outcome]:
    """Write the features of videos below `out` as `<name>.npz`; yields an outcome as each is done.

    asked: names of the settings that somebody asked for (`pipeline.config.asked`).

    Raises:
        As `run_batch`.
    """

    def finish(job: Job, content: str, features: Features, redo: Redo | None) -> Outcome:
        path = with_suffix(out / job.name, ".npz")
        replaced = []
        try:
            if redo is None and not overwrite and path.exists():  # of an older version, which did not say of what
                there = load(path)
                if there.settings != features.settings or not covers(there, start, end):
                    raise OutputError(f"{path}: holds other features; use --overwrite or another -o.")
                if _same(there, features):
                    return Outcome(job, features=features, skipped=True)
                redo = Redo(f"{path}: is made anew: it was made from another content", unsure=True)
            if redo is not None and redo.unsure:
                replaced.append(back_up(path))
            save(features, path, _made(job.video, content, start, end, asked))
        except OSError as error:
            raise cannot_write(path, error) from error
        return Outcome(job, features=features, said=_told(redo, replaced))

    request = Request(extractor, cache, start, end, lambda item: on_progress(item.key), stop)
    kept = kept_features(extractor, out, overwrite, start, end, asked)
    return _batch(engine or Engine(), request, jobs, kept, finish)


def kept_features(
    extractor: Extractor,
    out: Path,
    overwrite: bool,
    start: float = 0.0,
    end: float = math.inf,
    asked: Sequence[str] = (),
) -> Kept:
    """As `kept_results`. Older files do not say which video they are of: that is seen when its own features are there.

    It raises OutputError where other features stand.
    """

    def kept(job: Job, content: str) -> Outcome | Redo | None:
        path = with_suffix(out / job.name, ".npz")
        check_names(out / job.name, job.video, [".npz"])
        try:
            if overwrite or not path.exists():
                return None
        except OSError as error:  # a name that is too long
            raise cannot_write(path, error) from error
        there, made = load(path), made_of(path)
        wanted = _made(job.video, content, start, end, asked)
        change = compare(
            made | {"features": there.settings},
            (wanted if made else {"asked": wanted["asked"]}) | {"features": extractor.settings()},
        )
        another = another_video(str(made.get("video")), job.video) if made else None
        if change.content and another:
            raise OutputError(
                f"{path}: holds features of another video, {made['video']}; name another folder with -o, or use "
                "--overwrite."
            )
        if change.asked or not (made or covers(there, start, end)):
            why = change.conflict() or "other seconds of the video"
            raise OutputError(f"{path}: holds features made otherwise ({why}); use --overwrite or another -o.")
        if change.none:
            return Outcome(job, features=there, skipped=True) if made else None
        unsure = not made or (change.content and another is None)
        return Redo(f"{path}: is made anew: {change.why()}", unsure)

    return kept


def _made(video: Path, content: str, start: float, end: float, asked: Sequence[str]) -> dict[str, Any]:
    """What a features file says of itself beside its settings."""
    last = None if math.isinf(end) else end
    return {"video": str(video), "content": f"sha256:{content}", "range": [start, last], "asked": list(asked)}


def covers(features: Features, start: float, end: float) -> bool:
    """Whether features of which it is not known may be those of start..end, as far as their times tell."""
    times = features.times
    length = float(times[0, 1] - times[0, 0])
    first, last, until = float(times[0, 0]), float(times[-1, 1]), min(end, features.duration)
    begins = first < length if start < length else first <= start < first + length
    return begins and until - length < last < until + length


def _told(redo: Redo | None, kept: Sequence[Path]) -> tuple[str, ...]:
    """What a user is told of a result that took the place of another one."""
    beside = [f"{path}: kept, since it was edited or may still be wanted" for path in kept]
    return tuple(f"{said}." for said in ([] if redo is None else [redo.why]) + beside)


def _batch(
    engine: Engine,
    request: Request,
    jobs: Sequence[Job],
    kept: Kept,
    finish: Callable[[Job, str, Features, Redo | None], Outcome],
) -> Iterator[Outcome]:
    """What `run` and `extract` have in common: each content once, and a video's fault is that video's alone."""
    early: deque[Outcome] = deque()  # outcomes that need no extraction
    stopped = False
    firsts: dict[str, Job] = {}  # by content
    broken: set[str] = set()
    twins: list[Item] = []
    redone: dict[Job, Redo] = {}

    def there(job: Job, content: str) -> Outcome | None:
        found = kept(job, content)
        if isinstance(found, Redo):
            redone[job] = found
            return None
        return found

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
                elif (outcome := there(job, content)) is None:
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
                if (outcome := there(item.key, item.content)) is None:
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
                outcome = finish(job, content, done.features, redone.get(job))
                outcome = dataclasses.replace(outcome, cached=done.cached)
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
    return Outcome(job, error=as_bug(error, job.video) if exit_code(error) == BUG else error)  # costs this video alone


def _same(kept: Features, features: Features) -> bool:
    """Whether two features of the same settings hold the same numbers."""
    names = ("times", *features.settings)
    return all(np.array_equal(getattr(kept, name), getattr(features, name)) for name in names)

"""Several videos, on one worker or many: a bad one is reported, the others go on."""

import dataclasses
import glob
import io
import json
import math
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.config import program
from extractors.features import Extractor, Features, Progress, load, save, write_atomically
from extractors.video import VideoError
from extractors.writing import sweep, write_temporary
from pipeline import views
from pipeline.api import Pipeline
from pipeline.cache import FeatureCache, content_hash
from pipeline.engine import Engine, Item, Request, extract
from pipeline.errors import (
    BUG,
    ENVIRONMENT,
    FULL,
    DiskFull,
    OutputError,
    Stopped,
    UsageError,
    cannot_write,
    exit_code,
)
from pipeline.results import CURVES, pack
from postprocess.curves import Curves
from postprocess.segment import Result, ResultError, Segment
from postprocess.writers import SUFFIXES, VIEWS, WRITERS, is_made

RESERVED = frozenset({"_run", "segments", "index"})  # what a run writes beside the results
LEAST_ROOM = 4 << 20  # bytes that must be free in the cache, and half of the video's own
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


@dataclass(frozen=True)
class Job:
    """A video, and the name of its results below the output folder, without suffix."""

    video: Path
    name: Path


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


def find_videos(paths: Sequence[str]) -> list[Job]:
    """The videos in files, folders (recursive) and glob patterns, each once, in the order given.

    A file that is named is taken whatever its suffix; in folders and patterns the suffix decides.

    Raises:
        UsageError: a folder or a pattern without a video in it, or two results would get one name.
    """
    found: dict[Path, tuple[Path, Path]] = {}  # resolved -> (video, name with suffix)
    for given in paths:
        path = Path(given)
        if path.is_dir():
            pairs = [(p, p.relative_to(path)) for p in sorted(_below(path))]
        elif not path.exists() and glob.has_magic(given):
            matches = sorted(Path(p) for p in glob.glob(given, recursive=True))  # noqa: PTH207
            pairs = [(p, Path(p.name)) for p in matches if p.suffix.lower() in VIDEO_SUFFIXES and not is_made(p)]
        else:
            pairs = [(path, Path(path.name))]
        if not pairs:
            raise UsageError(f"{given}: no video in it; known suffixes: {' '.join(sorted(VIDEO_SUFFIXES))}.")
        for video, name in pairs:
            found.setdefault(video.resolve(), (video, name))
    return _named(list(found.values()))


def _below(folder: Path) -> Iterator[Path]:
    """The videos in a folder, through links to other folders too, each folder once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root).stat()
        if (here.st_dev, here.st_ino) in seen:  # a link back to where we were
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders.sort()
        for name in files:
            path = Path(root, name)
            video = path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and not is_made(path)
            if video and path.is_file():
                yield path


def _named(pairs: list[tuple[Path, Path]]) -> list[Job]:
    """Names for results: the stem; with the suffix where two share it or a run writes it; else below the parent's."""
    names = [name if name.stem in RESERVED else name.with_suffix("") for _, name in pairs]
    for wider in (lambda video, name: name, lambda video, name: Path(video.absolute().parent.name) / name):
        taken = Counter(names)
        names = [
            wider(video, name) if taken[short] > 1 else short for (video, name), short in zip(pairs, names, strict=True)
        ]
    taken = Counter(names)
    clash = next((name for name in names if taken[name] > 1), None)
    if clash is not None:
        raise UsageError(f"two videos would both be written as {clash}; run their folders one at a time.")
    return [Job(video, name) for (video, _), name in zip(pairs, names, strict=True)]


def prepare_output(folder: Path, jobs: Sequence[Job] = ()) -> None:
    """Make the output folder, prove that it can be written before hours are spent, and clear what killed runs left.

    Raises:
        OutputError: it cannot.
        DiskFull: there is no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_temporary(folder, "write-test", b"jcdnet").unlink()
        for place in {folder, *((folder / job.name).parent for job in jobs)}:
            sweep(place)
    except OSError as error:
        raise cannot_write(folder, error, "choose another folder with -o") from error


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

    def kept(job: Job, content: str) -> Outcome | None:
        if out is None or overwrite:
            return None
        found = _existing(out / job.name, pipeline.provenance(content, start, end), formats)
        return None if found is None else Outcome(job, result=found, skipped=True)

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
    return _batch(engine or Engine(), request, jobs, kept, finish)


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

    def kept(job: Job, content: str) -> Outcome | None:
        path = with_suffix(out / job.name, ".npz")
        if overwrite or not path.exists():
            return None
        if load(path).settings != extractor.settings():
            raise OutputError(f"{path}: holds features made otherwise; use --overwrite or another -o.")
        return None  # whether they are of this video is seen when its features are there

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
    return _batch(engine or Engine(), request, jobs, kept, finish)


def _batch(
    engine: Engine,
    request: Request,
    jobs: Sequence[Job],
    kept: Callable[[Job, str], Outcome | None],
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


def with_suffix(target: Path, suffix: str) -> Path:
    """`target` plus a suffix; Path.with_suffix would take "clip.v2" for a name with one."""
    return target.with_name(target.name + suffix)


def _existing(target: Path, wanted: dict[str, object], formats: Sequence[str]) -> Result | None:
    """The result that stands at `target`, when it is the one asked for; None when there is none.

    Raises:
        OutputError: another result stands there.
    """
    path = with_suffix(target, ".json")
    if not path.exists():
        return None
    try:
        kept = Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ResultError) as error:
        raise OutputError(f"{path}: not a result of jcdnet ({error}); move it away or use --overwrite.") from error
    # As JSON, in which a tuple is a list.
    if kept.provenance != json.loads(json.dumps(wanted)):
        raise OutputError(f"{path}: was made from another file, model or settings; use --overwrite or another -o.")
    whole = all(with_suffix(target, suffix).exists() for suffix in (CURVES, *(SUFFIXES[name] for name in formats)))
    return kept if whole else None


def write_result(
    result: Result,
    curves: Curves,
    target: Path,
    formats: Sequence[str],
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = lambda stage, done, total: None,
    overwrite: bool = False,
) -> None:
    """Write a video's result as `<target>.json` and the other formats, and its curves as `.scores.npz`.

    Where this very result stands, only the formats that are missing are made: somebody may have corrected the others.
    Of another result of ours all that it left goes first. The curves are written first and go last, so they tell whose
    files the others are; the JSON comes last: where it stands, all stand, and are of one run.

    Args:
        everything: segments of any confidence, for the page.
        overwrite: also files that are not ours.

    Raises:
        OutputError: the disk or the folder does not take it, or a file of somebody else stands there.
        VideoError: a format that shows the video cannot read it any more.
    """
    stored = with_suffix(target, CURVES)
    files = {name: with_suffix(target, SUFFIXES[name]) for name in sorted({*formats, "json"}, key=_json_last)}
    try:
        if stored.exists() and _stands(files["json"], result):
            files = {name: path for name, path in files.items() if not path.exists()}
        elif stored.exists():
            for suffix in (".json", *SUFFIXES.values(), CURVES):
                with_suffix(target, suffix).unlink(missing_ok=True)
        elif not overwrite and (foreign := next(filter(Path.exists, files.values()), None)) is not None:
            raise OutputError(f"{foreign}: is there already, and not ours; use --overwrite or another -o.")
        if not stored.exists():
            write_atomically(stored, pack(curves))
        for name, path in files.items():
            if name in VIEWS:
                views.write(name, result, curves, path, everything, on_progress)
                continue
            text = io.StringIO()
            WRITERS[name](result, text)
            write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise cannot_write(target, error) from error


def _json_last(name: str) -> bool:
    return name == "json"


def _stands(path: Path, result: Result) -> bool:
    """Whether a file holds the same segments, made from the same content in the same way."""
    try:
        there = Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ResultError):
        return False
    ours = Result.from_dict(json.loads(json.dumps(result.to_dict())))
    return there.provenance == ours.provenance and there.segments == ours.segments


def write_index(results: Iterable[tuple[str, Result]], out: Path) -> None:
    """The page over the pages of a folder's results, by name, as `index.html`.

    Raises:
        VideoError: a video cannot be read any more.
        OutputError: it cannot be written.
    """
    shown = []
    for name, result in results:
        page, video = with_suffix(out / name, SUFFIXES["html"]), Path(result.video)
        shown.append((result, page if page.exists() else None, video if video.is_file() else None))
    views.write_index(shown, out)


def _same(kept: Features, features: Features) -> bool:
    """Whether two features of the same settings hold the same numbers."""
    names = ("times", *features.settings)
    return all(np.array_equal(getattr(kept, name), getattr(features, name)) for name in names)

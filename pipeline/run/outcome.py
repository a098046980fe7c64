"""What becomes of a video: its result and files, its outcome, and whether output that is there stays or is replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.config import WHOLE, Stretch
from extractors.decode.video import VideoError
from extractors.featurefile import Features, load, made_of
from extractors.features import Extractor
from model.predict import read
from pipeline.api import Pipeline
from pipeline.cache.content import Video
from pipeline.run.remaking import Redo, another_video, compare
from pipeline.run.results import CURVES, Packed, pack
from pipeline.run.store import check_names, existing, standing_formats, text_of, write_alone, write_result
from pipeline.run.videos import Job
from postprocess.curves import Curves
from postprocess.formats.writers import SUFFIXES, VIEWS
from postprocess.segment import Result, Segment, left_out
from support.errors import BUG, ENVIRONMENT, FULL, MEMORY, DiskFull, OutputError, Stopped, as_bug, exit_code
from support.files import sha256_of, writing
from support.paths import with_suffix
from support.progress import Progress, silent

if TYPE_CHECKING:
    from pipeline.run.mirror import Mirror


@dataclass(frozen=True)
class Outcome:
    """What became of a video: `result` (or `features`) is there unless it failed."""

    job: Job
    result: Result | None = None
    features: Features | None = None
    skipped: bool = False
    """whether the result was there already"""
    cached: bool = False
    """whether the features were there already"""
    duplicate_of: Job | None = None
    """an earlier video of the run with the same content"""
    error: Exception | None = None
    messages: tuple[str, ...] = ()
    """which earlier files were replaced, why, and which of them were saved under another name"""

    @property
    def seconds(self) -> float:
        """Seconds of video in this result; 0 if it failed."""
        found = self.result or self.features
        return 0.0 if found is None else found.duration


Existing = Callable[[Job, str], Outcome | Redo | None]
"""(video, hash of its content) -> the outcome that is there already, or why it is made again, or None"""


def failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a video that failed.

    Raises:
        Exception: the error itself, where this machine lacks something and the next video would fail too.
    """
    if isinstance(error, MemoryError):  # another video may take less
        full = VideoError(f"{job.video}: {MEMORY}.")
        full.__cause__ = error
        return Outcome(job, error=full)
    if isinstance(error, Stopped) or exit_code(error) == ENVIRONMENT:
        raise error
    if isinstance(error, OSError) and error.errno in FULL:
        raise DiskFull(f"{job.video}: the disk became full while it was processed; make room and run again.") from error
    return Outcome(job, error=as_bug(error, job.video) if exit_code(error) == BUG else error)


@dataclass(frozen=True)
class Output:
    """An output folder, which may stand for one in a store."""

    folder: Path | None = None
    """None: no files"""
    mirror: Mirror | None = None
    """what puts the folder's files into a store"""

    def there(self, job: Job) -> None:
        """Fetch what says whether the output of a video is in the store already. Raises StoreError."""
        if self.mirror is not None:
            self.mirror.pull(job.name, (".json", CURVES, ".npz"))

    def before_writing(self, job: Job) -> None:
        """Fetch all files of a video that the store has already. Raises StoreError."""
        if self.mirror is not None:
            self.mirror.pull(job.name)

    def stored(self, job: Job) -> None:
        """Put the files of a video into the store. Raises StoreError."""
        if self.mirror is not None:
            self.mirror.push(job.name)


@dataclass(frozen=True)
class ResultOutput(Output):
    """Which files `run` writes."""

    formats: Sequence[str] = ("json",)
    overwrite: bool = False
    only: str | None = None
    """the one format that is written, without a result beside it (a JSON still has its curves)"""

    @property
    def replaces(self) -> bool:
        """Whether results that are there already do not count."""
        return self.overwrite or self.only not in (None, "json")


@dataclass(frozen=True)
class FeatureOutput(Output):
    """Which files `extract` writes."""

    folder: Path = Path("features")
    overwrite: bool = False
    asked: Sequence[str] = ()
    """names of the settings that the user chose (`pipeline.config.asked`)"""


def existing_results(pipeline: Pipeline, output: ResultOutput, stretch: Stretch) -> Existing:
    """A function that finds the result of a video that is there already.

    That function raises OutputError where another result is in the way.
    """
    folder = output.folder

    def find(job: Job, content: str) -> Outcome | Redo | None:
        output.there(job)
        if folder is not None:
            suffixes = [".json", CURVES, *(SUFFIXES[name] for name in output.formats)]
            check_names(folder / job.name, job.video, suffixes)
        if folder is None or output.replaces:
            return None
        wanted = pipeline.provenance(content, stretch.start, stretch.end)
        found = existing(folder / job.name, wanted, output.formats, job.video)
        return Outcome(job, result=found, skipped=True) if isinstance(found, Result) else found

    return find


def existing_features(extractor: Extractor, output: FeatureOutput, stretch: Stretch) -> Existing:
    """A function that finds the features file of a video that is there already.

    Files of older versions do not name their video; `same_numbers` compares them once the new features are there.
    The function raises OutputError where other features are in the way.
    """

    def find(job: Job, content: str) -> Outcome | Redo | None:
        assert output.folder is not None
        path = with_suffix(output.folder / job.name, ".npz")
        output.there(job)
        check_names(output.folder / job.name, job.video, [".npz"])
        with writing(path):  # its name may be too long
            if output.overwrite or not path.exists():
                return None
        there, made = load(path), made_of(path)
        wanted = described(job.video, content, stretch, output.asked)
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
        if change.asked or not (made or covers(there, stretch)):
            why = change.conflict() or "other seconds of the video"
            raise OutputError(
                f"{path}: holds features made with other settings ({why}); use --overwrite or another -o."
            )
        if change.none:
            return Outcome(job, features=there, skipped=True) if made else None
        unsure = not made or (change.content and another is None)
        return Redo(f"{path}: is made anew: {change.why()}", unsure)

    return find


def described(video: Video, content: str, stretch: Stretch, asked: Sequence[str]) -> dict[str, Any]:
    """What a features file records beside its settings."""
    return {"video": str(video), "content": f"sha256:{content}", "range": stretch.as_json(), "asked": list(asked)}


def covers(features: Features, stretch: Stretch) -> bool:
    """Whether features that do not name their stretch may be those of this one, by their times."""
    times = features.times
    length = float(times[0, 1] - times[0, 0])
    first, last, until = float(times[0, 0]), float(times[-1, 1]), min(stretch.end, features.duration)
    begins = first < length if stretch.start < length else first <= stretch.start < first + length
    return begins and until - length < last < until + length


def same_numbers(one: Features, other: Features) -> bool:
    """Whether two features of the same settings hold the same numbers."""
    names = ("times", *other.settings)
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@dataclass(frozen=True)
class Order:
    """What is to become of a video's features."""

    video: Video
    """as the user named it; the result says so"""
    target: Path | None = None
    """where the result's files belong, without suffix; None: none are written"""
    formats: tuple[str, ...] = ("json",)
    overwrite: bool = False
    only: str | None = None
    """the one format that is written, without a result beside it (a JSON still has its curves)"""
    redo: Redo | None = None
    """why a result that is there is replaced"""

    @property
    def drawn(self) -> bool:
        """Whether a page or an overlay is wanted, which only the machine that runs makes."""
        return any(name in VIEWS for name in (self.only, *self.formats))


@dataclass(frozen=True)
class Finished:
    """The result of a video, and what its files are made of."""

    result: Result
    curves: Curves | Packed | None = None
    """None: there are no files, or they are written"""
    everything: tuple[Segment, ...] | None = None
    """segments of any confidence, for the page"""
    saved: tuple[Path, ...] = ()
    """earlier files that were kept under another name"""


def finish(pipeline: Pipeline, order: Order, content: str, features: Features, stretch: Stretch = WHOLE) -> Finished:
    """Localize a video whose features are given; nothing is written."""
    result, scores = pipeline.result(order.video, content, features, stretch.start, stretch.end)
    if "localize.min_seconds" in pipeline.asked:
        localize = pipeline.config.localize
        any_length = dataclasses.replace(localize, min_seconds=0.0)
        anything = pipeline.segments(scores, features, stretch.start, stretch.end, rule=any_length)
        said = left_out(result.segments, anything, localize.min_seconds)
        result = dataclasses.replace(result, warnings=(*result.warnings, *said))
    if order.target is None:
        return Finished(result)
    # Under `paper` unsure segments take part in NMS: without them others would be found.
    paged = "html" in (order.only, *order.formats) and pipeline.config.localize.rule == "runs"
    everything = pipeline.segments(scores, features, stretch.start, stretch.end, least=0.0) if paged else None
    shown = read(pipeline.named, scores)
    arrays = (features.times, shown.actionness, shown.cas, shown.coarse_cas)
    curves = Curves(*arrays, tuple(pipeline.model.classes))
    return Finished(result, curves, None if everything is None else tuple(everything))


def packed(finished: Finished, order: Order) -> Finished:
    """Turn what is to be written into bytes, so that the machine that writes it need not compute them."""
    if order.drawn or order.only not in (None, "json") or not isinstance(finished.curves, Curves):
        return finished
    texts = {name: text_of(name, finished.result) for name in sorted({*order.formats, "json"})}
    hashes = {SUFFIXES[name]: sha256_of(data) for name, data in texts.items()}
    return dataclasses.replace(finished, curves=Packed(texts, pack(finished.curves, hashes), hashes))


def write(finished: Finished, order: Order, on_progress: Progress = silent) -> Finished:
    """Write the files of a result, if any are wanted.

    Raises:
        OutputError, DiskFull: as `write_result`.
        VideoError: a format that shows the video can no longer read it.
    """
    if order.target is None or finished.curves is None:
        return finished
    if order.only not in (None, "json"):
        curves = finished.curves.curves() if isinstance(finished.curves, Packed) else finished.curves
        everything = finished.everything
        write_alone(finished.result, curves, order.target, str(order.only), everything, on_progress)
        return dataclasses.replace(finished, curves=None, everything=None)
    # A result that is made again gets the formats that are there, too: nobody asked to remove them.
    wanted = [*order.formats, *(standing_formats(order.target) if order.redo is not None else ())]
    saved = write_result(
        finished.result,
        finished.curves,
        order.target,
        wanted,
        finished.everything,
        on_progress,
        order.overwrite,
        order.redo is not None and order.redo.unsure,
    )
    return dataclasses.replace(finished, curves=None, everything=None, saved=tuple(saved))

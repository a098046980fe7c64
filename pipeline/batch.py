"""Several videos one after the other: a bad one is reported, the others go on."""

import dataclasses
import glob
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.features import Extractor, Features, Progress, load, save, write_atomically
from model.predict import Scores
from pipeline import views
from pipeline.api import Pipeline
from pipeline.cache import FeatureCache, content_hash
from pipeline.errors import ENVIRONMENT, OutputError, UsageError, exit_code, user_errors
from pipeline.results import CURVES
from postprocess.curves import Curves
from postprocess.segment import Result, ResultError, Segment
from postprocess.writers import SUFFIXES, VIEWS, WRITERS, is_made, write_csv

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
    error: Exception | None = None


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
            below = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
            pairs = [(p, p.relative_to(path)) for p in below if not p.name.startswith(".") and not is_made(p)]
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


def _named(pairs: list[tuple[Path, Path]]) -> list[Job]:
    """Names for results: the stem; with the suffix where two share it; below the parent's name where they still do."""
    names = [name.with_suffix("") for _, name in pairs]
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


def prepare_output(folder: Path) -> None:
    """Make the output folder and prove that it can be written, before hours are spent.

    Raises:
        OutputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".jcdnet-write-test", b"")
        (folder / ".jcdnet-write-test").unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: results cannot be written there ({error.strerror}); choose another folder with -o."
        ) from error


def run_batch(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    out: Path | None = None,
    formats: Sequence[str] = ("json",),
    overwrite: bool = False,
    start: float = 0.0,
    end: float = math.inf,
    on_progress: Callable[[Job], Progress] = lambda job: lambda stage, done, total: None,
) -> Iterator[Outcome]:
    """Run the videos, writing results below `out`; yields an outcome as each is done.

    A result that is already there is kept when it has the same provenance, else that video fails.
    """
    for job in jobs:
        try:
            progress = on_progress(job)
            content = content_hash(job.video, progress)
            if out is not None and not overwrite:
                wanted = pipeline.provenance(content, start, end)
                if (kept := _existing(out / job.name, wanted, formats)) is not None:
                    yield Outcome(job, result=kept, skipped=True)
                    continue
            result, features, scores = pipeline.run(job.video, start, end, progress, content)
            if out is not None:
                everything = pipeline.segments(scores, features, start, end, least=0.0) if "html" in formats else None
                classes = pipeline.model.classes
                write_result(result, features, scores, classes, out / job.name, formats, everything, progress)
            yield Outcome(job, result=result)
        except user_errors() as error:
            yield _failed(job, error)


def _failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a video that could not be done; what this machine lacks would fail the next one too."""
    if exit_code(error) == ENVIRONMENT:
        raise error
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
    features: Features,
    scores: Scores,
    classes: Sequence[str],
    target: Path,
    formats: Sequence[str],
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = lambda stage, done, total: None,
) -> None:
    """Write a video's result as `<target>.json` and the other formats, and its curves as `.scores.npz`.

    `everything`: segments of any confidence, for the page. What an earlier run left under this name goes first, and
    the JSON comes last: where it stands, all stand, and are of one run.

    Raises:
        OutputError: the disk or the folder does not take it.
        VideoError: a format that shows the video cannot read it any more.
    """
    try:
        curves = Curves(features.times, scores.actionness, scores.cas, scores.coarse_cas, tuple(classes))
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            times=curves.times,
            actionness=curves.actionness,
            cas=curves.cas,
            coarse_cas=curves.coarse_cas,
            classes=np.array(curves.classes),
        )
        for suffix in (".json", CURVES, *SUFFIXES.values()):
            with_suffix(target, suffix).unlink(missing_ok=True)
        write_atomically(with_suffix(target, CURVES), buffer.getvalue())
        for name in sorted({*formats, "json"}, key=lambda name: name == "json"):
            path = with_suffix(target, SUFFIXES[name])
            if name in VIEWS:
                views.write(name, result, curves, path, everything, on_progress)
                continue
            text = io.StringIO()
            WRITERS[name](result, text)
            write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise OutputError(f"{target}: the result cannot be written ({error.strerror}).") from error


def write_summary(results: Sequence[Result], out: Path) -> None:
    """All segments of a run as `segments.csv`.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO()
    write_csv(results, text)
    try:
        write_atomically(out / "segments.csv", text.getvalue().encode())
    except OSError as error:
        raise OutputError(f"{out / 'segments.csv'}: cannot be written ({error.strerror}).") from error


def write_index(pages: Sequence[tuple[Result, Job]], out: Path) -> None:
    """The page over the pages of a run, as `index.html`.

    Raises:
        VideoError: a video cannot be read any more.
        OutputError: it cannot be written.
    """
    suffix = SUFFIXES["html"]
    views.write_index([(result, with_suffix(out / job.name, suffix), job.video) for result, job in pages], out)


def extract_batch(
    extractor: Extractor,
    cache: FeatureCache,
    jobs: Sequence[Job],
    out: Path,
    overwrite: bool = False,
    start: float = 0.0,
    end: float = math.inf,
    on_progress: Callable[[Job], Progress] = lambda job: lambda stage, done, total: None,
) -> Iterator[Outcome]:
    """Write the features of videos below `out` as `<name>.npz`; yields an outcome as each is done."""
    for job in jobs:
        path = with_suffix(out / job.name, ".npz")
        said: list[str] = []
        try:
            kept = load(path) if path.exists() and not overwrite else None
            if kept is not None and kept.settings != extractor.settings():
                raise OutputError(f"{path}: holds features made otherwise; use --overwrite or another -o.")
            progress = on_progress(job)
            content = content_hash(job.video, progress)
            features = cache.features(job.video, content, extractor, start, end, progress, said.append)
            features = dataclasses.replace(features, warnings=(*features.warnings, *said))
            if kept is not None:
                if not _same(kept, features):
                    raise OutputError(f"{path}: holds other features; use --overwrite or another -o.")
                yield Outcome(job, features=features, skipped=True)
                continue
            try:
                save(features, path)
            except OSError as error:
                raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error
            yield Outcome(job, features=features)
        except user_errors() as error:
            yield _failed(job, error)


def _same(kept: Features, features: Features) -> bool:
    """Whether two features of the same settings hold the same numbers."""
    names = ("times", *features.settings)
    return all(np.array_equal(getattr(kept, name), getattr(features, name)) for name in names)

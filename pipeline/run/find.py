"""A query by example over many videos: their features, then the query, then a result for each video."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extractors.featurefile import Features, load, made_of
from pipeline.cache.content import content_hash, place_of
from pipeline.query import DEFAULTS, Example, Query, Seen, check_settings, snippets_of
from pipeline.run.batch import features_batch
from pipeline.run.outcome import Outcome, ResultOutput, failed
from pipeline.run.results import CURVES
from pipeline.run.store import check_names, existing, said_of_backup, write_result
from pipeline.run.videos import Job
from pipeline.workers.engine import Engine, Request
from postprocess.config import LocalizeConfig
from postprocess.formats.writers import SUFFIXES
from postprocess.segment import Result
from support.errors import UsageError
from support.progress import Progress


@dataclass(frozen=True)
class Wanted:
    """What is looked for, and how it is drawn."""

    examples: Sequence[Example]
    counter: Sequence[Example] = ()
    label: str | None = None
    """None: after the first example"""
    localize: LocalizeConfig = DEFAULTS
    asked: Sequence[str] = ()
    """names of the settings that the user chose"""


@dataclass(frozen=True)
class Stored:
    """A features file of `extract` that takes part instead of its video."""

    job: Job
    path: Path
    content: str
    features: Features


@dataclass(eq=False)
class _Gathered:
    """The features of all videos, by content: of those that are searched, and of those that hold examples."""

    seen: dict[str, Seen] = field(default_factory=dict)
    searched: list[Outcome] = field(default_factory=list)
    of: dict[str, str] = field(default_factory=dict)
    """content of each video, by its place"""

    def keep(self, job: Job, content: str, features: Features) -> Outcome:
        """Keep the features of a video."""
        self.seen.setdefault(content, Seen(content, features))
        self.of[place_of(job.video)] = content
        return Outcome(job, features=features)

    def name(self, outcome: Outcome) -> None:
        """Note that a video has the content of an earlier one."""
        if outcome.duplicate_of is not None:
            self.of[place_of(outcome.job.video)] = self.of[place_of(outcome.duplicate_of.video)]

    def look(self, example: Example) -> Seen:
        """The features of an example's video."""
        return self.seen[self.of[place_of(example.video)]]


def stored_features(paths: Sequence[Path]) -> list[Stored]:
    """Read features files.

    Raises:
        FeaturesError: one is damaged, or `extract` did not write it.
    """
    found = []
    for path in paths:
        made = made_of(path)
        video = Path(str(made.get("video") or path.with_suffix("").name))
        content = str(made.get("content") or content_hash(path)).removeprefix("sha256:")
        found.append(Stored(Job(video, Path(path.with_suffix("").name)), path, content, load(path)))
    return found


def find_batch(
    wanted: Wanted,
    jobs: Sequence[Job],
    stored: Sequence[Stored],
    request: Request,
    output: ResultOutput,
    on_progress: Callable[[Job], Progress],
    engine: Engine | None = None,
) -> Iterator[Outcome]:
    """Search the videos, and write a result for each; yields an outcome for each, failed ones first.

    Features that are not in the cache are extracted, also those of the examples.

    Raises:
        UsageError: an example cannot be used, features were made with other settings, or nothing is left to search.
        As `run_batch`.
    """
    gathered = _Gathered()
    settings = request.extractor.settings()
    for one in stored:
        check_settings(one.path, one.features.settings, settings)
        gathered.seen[one.content] = Seen(one.content, one.features)
        gathered.of[place_of(one.job.video)] = one.content
        gathered.searched.append(Outcome(one.job, features=one.features, cached=True))

    _gather_examples(wanted, gathered, jobs, request, engine)
    for outcome in features_batch(request, jobs, gathered.keep, engine):
        if outcome.error is not None:
            yield outcome
        else:
            gathered.name(outcome)
            gathered.searched.append(outcome)
    if not gathered.searched:
        raise UsageError("none of the videos could be read, so there is nothing to search.")
    contents = dict.fromkeys(gathered.of[place_of(outcome.job.video)] for outcome in gathered.searched)
    folder = [gathered.seen[content] for content in contents]
    label = wanted.label or wanted.examples[0].label
    examples, counter = (
        [(one, gathered.look(one)) for one in several] for several in (wanted.examples, wanted.counter)
    )
    query = Query(label, examples, counter, folder, wanted.localize, wanted.asked)
    for outcome in gathered.searched:
        yield _written(outcome, query, gathered, output, on_progress(outcome.job))


def _gather_examples(
    wanted: Wanted, gathered: _Gathered, jobs: Sequence[Job], request: Request, engine: Engine | None
) -> None:
    """Get the features of the examples' videos first: a mistake in an example is said before hours of extraction.

    Raises:
        Exception: the error of an example's video.
        UsageError: an example lies behind its video's end.
    """
    everything = (*wanted.examples, *wanted.counter)
    own = {place_of(job.video): job for job in jobs}
    missing = dict.fromkeys(one.video for one in everything if place_of(one.video) not in gathered.of)
    needed = [own.get(place_of(video), Job(video, Path(f"example {i}"))) for i, video in enumerate(missing)]
    for outcome in features_batch(request, needed, gathered.keep, engine):
        if outcome.error is not None:
            raise outcome.error
        gathered.name(outcome)
    for one in everything:
        snippets_of(one, gathered.look(one).features)


def _written(outcome: Outcome, query: Query, gathered: _Gathered, output: ResultOutput, progress: Progress) -> Outcome:
    """The outcome of a video, with its result on the disk if a folder was given."""
    job = outcome.job
    try:
        result, curves = query.result(job.video, gathered.seen[gathered.of[place_of(job.video)]])
        outcome = dataclasses.replace(outcome, result=result, features=None, messages=query.doubts)
        if output.folder is None:
            return outcome
        target = output.folder / job.name
        output.there(job)
        check_names(target, job.video, [".json", CURVES, *(SUFFIXES[name] for name in output.formats)])
        there = None if output.replaces else existing(target, result.provenance, output.formats, job.video)
        if isinstance(there, Result):
            return dataclasses.replace(outcome, result=there, skipped=True, messages=query.doubts)
        output.before_writing(job)
        saved = write_result(
            result, curves, target, output.formats, None, progress, output.overwrite, there is not None and there.unsure
        )
        output.stored(job)
        why = () if there is None else (f"{there.why}.",)
        return dataclasses.replace(outcome, messages=(*query.doubts, *why, *map(said_of_backup, saved)))
    except Exception as error:
        return failed(job, error)

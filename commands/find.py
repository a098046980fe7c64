"""`find`: more of what an example shows."""

import dataclasses
import difflib
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from commands.groups import Setting, grouped, place, settings_of
from commands.options import FeatureOptions, WorkOptions, a_time
from commands.places import folder_only, mirror_at, opened
from commands.progress import Running
from commands.terminal import err, escape, need_stdout, note, out, say_choices
from extractors.config import WHOLE
from pipeline.config import asked, load_config
from postprocess.formats.writers import SUFFIXES, WRITERS, clock
from support.errors import UsageError
from support.paths import is_missing, missing, program
from support.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import Config
    from pipeline.query import Example
    from pipeline.run.videos import Job
    from postprocess.config import LocalizeConfig
    from postprocess.segment import Result

LISTED = 30  # matches that the terminal shows


@dataclass(frozen=True)
class ExampleOptions:
    """What is meant"""

    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="VIDEO@START-END",
            help="An example: a stretch of a video, in seconds or as a clock; without @ the whole video. Several "
            "examples, each with --like of its own, find more surely.",
            show_default="needed",
        ),
    ] = None
    counter: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="VIDEO@START-END", help="What is not meant; may be given several times."),
    ] = None
    name: Annotated[
        str | None, typer.Option(help="What matches are called.", show_default="like VIDEO@START of the first example")
    ] = None


@dataclass(frozen=True)
class LookOptions:
    """What counts as a match"""

    threshold: Annotated[
        float | None,
        typer.Option(help="Lower finds more and longer matches.", show_default="0.5"),
        Setting("localize.threshold"),
    ] = None
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Leave out matches that are less sure than this.", show_default="0"),
        Setting("localize.min_confidence"),
    ] = None
    top: Annotated[
        int | None, typer.Option(min=1, help="Keep only the N surest matches of each video."), Setting("localize.top")
    ] = None
    min_length: Annotated[
        float | None,
        a_time("Leave out what is shorter: seconds or a clock.", show_default="1.28"),
        Setting("localize.min_seconds"),
    ] = None
    merge_gap: Annotated[
        float | None,
        a_time("Join matches with at most so much time between them; 0 joins none.", show_default="0.64"),
        Setting("localize.merge_seconds"),
    ] = None


@grouped
def find(
    paths: Annotated[
        list[str],
        typer.Argument(help="Where to look: videos, folders, glob patterns (also URLs), or features of `extract`."),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="Folder (or its URL) for results, or - for JSON on stdout. Without it: a table."
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", "-f", help=f"Joined by commas: {', '.join(SUFFIXES)}.", show_default="json"),
    ] = None,
    *,
    meant: ExampleOptions,
    look: LookOptions,
    features: FeatureOptions,
    work: WorkOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that were made otherwise.")] = False,
) -> None:
    """Find more like this: stretches of video that look like an example, without training."""
    if not meant.like:
        raise UsageError("say what is meant by an example: --like VIDEO@START-END, such as match.mp4@12.3-14.8.")
    settings = load_config(work.config, settings_of(look, features, work))
    wanted = _formats(formats, output)

    from pipeline.api import choose_device, make_extractor
    from pipeline.cache.entries import FeatureCache
    from pipeline.query import read_example
    from pipeline.run.find import Wanted, find_batch, stored_features
    from pipeline.run.outcome import ResultOutput
    from pipeline.run.videos import find_videos, left_out
    from pipeline.workers.engine import Request

    examples = [read_example("--like", text) for text in meant.like]
    counter = [read_example("--not", text) for text in meant.counter or []]
    files, others = _features_among(paths)
    stored = stored_features(files)
    videos = find_videos(others) if others else []
    for remark in left_out(others):
        note(remark)
    folder = None if output in (None, "-") else opened(str(output))
    jobs: Sequence[Job] = [*videos, *(one.job for one in stored)]
    examples, counter = _located(examples, jobs), _located(counter, jobs)
    running = Running("find", jobs, folder, work)
    named = dict(zip((job.video for job in jobs), running.jobs, strict=True))  # the names of an earlier run's results
    stored = [dataclasses.replace(one, job=named[one.job.video]) for one in stored]
    extractor = make_extractor(settings, ("rgb",), choose_device(settings.device))
    say_choices(extractor)
    running.choose_engine(extractor)
    query = Wanted(examples, counter, meant.name, _localize(settings), asked(settings))
    results: list[Result] = []
    with running.started(WHOLE) as (bars, stop):
        progress = functools.partial(_progress, running.jobs, bars)
        request = Request(extractor, FeatureCache(), on_progress=lambda item: progress(item.key), stop=stop)
        searched, files_out = (
            [named[job.video] for job in videos],
            ResultOutput(folder, mirror_at(folder), wanted, overwrite),
        )
        outcomes = find_batch(query, searched, stored, request, files_out, progress, running.engine)
        for outcome in running.each(outcomes):
            assert outcome.result is not None
            results.append(outcome.result)
            for warning in outcome.result.warnings:
                if warning not in outcome.messages:  # else it is of the query, and said once
                    note(f"{outcome.job.video}: {warning}")
    if output == "-":
        for result in results:
            WRITERS["json" if len(results) == 1 else "jsonl"](result, sys.stdout)
    elif results:  # else every video failed, and that is said
        _show(results, examples)
    if folder is not None and "html" in wanted:
        running.write_index(folder, output)
    if results and output is None:
        err.print(f"[dim]next: the same with -o found -f html, then {program()} clips found[/]", soft_wrap=True)
    running.finish()


def _located(examples: "Sequence[Example]", jobs: "Sequence[Job]") -> "list[Example]":
    """The examples, where a name that is no path from here means the one video of this name that is searched.

    Raises:
        UsageError: several have that name, or there is no such video.
    """
    from pipeline.cache.content import place_of

    found, places = [], {place_of(job.video) for job in jobs}
    names = {job.video.name: job.video for job in jobs}
    for one in examples:
        known = not isinstance(one.video, Path) or one.video.exists()
        alike = [] if known else [job.video for job in jobs if job.video.name == one.video.name]
        if len(alike) > 1:
            raise UsageError(f"{one.video}: may be {alike[0]} or {alike[1]}; give its path.")
        video = alike[0] if alike else one.video
        # A video that is gone may be known by its features.
        if isinstance(video, Path) and place_of(video) not in places and is_missing(video):
            close = difflib.get_close_matches(video.name, names, n=1, cutoff=0.7) if video.name == str(video) else []
            raise UsageError(f"{video}: no such file; is {names[close[0]]} meant?" if close else missing(video))
        found.append(dataclasses.replace(one, video=video))
    return found


def _progress(known: "Sequence[Job]", bars: Any, job: "Job") -> Progress:
    """The progress of a video: its bar, or one line for a video that holds an example and is not searched."""
    if job in known:
        shown: Progress = bars.video(job)
        return shown
    err.print(f"[dim]{escape(str(job.video))}: features for the example in it[/]", soft_wrap=True)
    return silent


def _show(results: "Sequence[Result]", examples: "Sequence[Example]") -> None:
    """Print all matches in one table, the surest first, and count those that are not the example itself."""
    from pipeline.query import is_example

    matches = [(s, result, is_example(result, s, examples)) for result in results for s in result.segments]
    matches.sort(key=lambda match: -match[0].confidence)
    others = [(s, result) for s, result, own in matches if not own]
    if matches:
        shown = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("conf", "start", "end", "length"):
            shown.add_column(column, justify="right")
        shown.add_column("video", overflow="fold")
        for s, result, own in matches[:LISTED]:
            video = escape(result.video) + " [dim](the example itself)[/]" * own
            shown.add_row(f"{s.confidence:.2f}", clock(s.start), clock(s.end), clock(s.end - s.start), video)
        out.print(shown)
    if not others:
        out.print(f"nothing {'else ' * bool(matches)}like it was found; a lower --threshold finds more")
        return
    total = sum(s.end - s.start for s, _ in others)
    where = len({result.video for _, result in others})
    beside = " beside the example" * (len(others) < len(matches))
    count = f"{len(others)} match{'es' * (len(others) != 1)}{beside}"
    more = f"; the {LISTED} surest are shown" if len(matches) > LISTED else ""
    err.print(f"{count} in {where} of {len(results)} videos, {clock(total)} in all{more}", soft_wrap=True)


def _localize(settings: "Config") -> "LocalizeConfig":
    """How matches are drawn: the defaults of queries, with what the user set."""
    from pipeline.query import DEFAULTS

    given = {name.removeprefix("localize.") for name in settings.given if name.startswith("localize.")}
    chosen = dataclasses.replace(DEFAULTS, **{name: getattr(settings.localize, name) for name in given})
    if chosen.rule != "runs":
        raise UsageError(f"--config sets the rule {chosen.rule}, and matches are drawn by the rule runs; leave it out.")
    return chosen


def _features_among(paths: list[str]) -> tuple[list[Path], list[str]]:
    """(features files of `extract`, all other paths). A folder with features and no video holds features."""
    from pipeline.run.videos import VIDEO_SUFFIXES

    files: list[Path] = []
    others: list[str] = []
    for given in paths:
        path = Path(given)
        below = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        features = [p for p in below if p.suffix == ".npz" and not p.name.endswith(".scores.npz")]
        if features and not any(p.suffix.lower() in VIDEO_SUFFIXES for p in below):
            files += features
        else:
            others.append(given)
    return files, others


def _formats(text: str | None, output: str | None) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in (text or "json").split(",") if name.strip())) or ["json"]
    for name in names:
        if name not in SUFFIXES:
            raise UsageError(f"unknown format {name!r}; there are: {', '.join(SUFFIXES)}.")
    if output is None and text is not None:
        raise UsageError("--format is about files; name a folder with -o.")
    if output == "-":
        need_stdout()
        if names != ["json"]:
            raise UsageError("stdout takes JSON; for other formats name a folder with -o.")
    elif output is not None:
        folder_only(Path(place(output)), "each video gets a result of its own", "found")
    return names

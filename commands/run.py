"""`run`: videos in, timestamped actions out."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import grouped, settings_of
from commands.options import FeatureOptions, FindOptions, Paths, RangeOptions, RerunOptions, WorkOptions, a_place
from commands.places import mirror_at, one_result, opened
from commands.progress import Running
from commands.terminal import err, escape, need_stdout, note, result_table, say_choices
from pipeline.config import load_config
from postprocess.formats.writers import OF_THE_VIDEO, SEVERAL, SUFFIXES, VIEWS, WRITERS, write_csv
from support.errors import UsageError
from support.paths import is_url

if TYPE_CHECKING:
    from extractors.config import Stretch
    from pipeline.api import Pipeline
    from pipeline.cache.content import Video
    from pipeline.run.outcome import Outcome
    from pipeline.run.videos import Job
    from pipeline.tables import Tables
    from postprocess.segment import Result

TABLES = "parquet"  # the one format that is not a file for each video


@dataclass(frozen=True)
class ShareOptions:
    """A share of very many videos"""

    shard: Annotated[
        str | None, typer.Option(help="One share of the videos, such as 3/10, by a hash of their names below PATHS.")
    ] = None
    resume_from: Annotated[
        Path | None,
        a_place("Leave out, unread, what is done by the tables (-f parquet) in this folder (or its URL)."),
    ] = None


@grouped
def run(
    paths: Paths,
    output: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder (or its URL) for results, one file such as match.json, or - for JSON on stdout. Without it: "
            "a table.",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", "-f", help=f"Joined by commas: {', '.join(SUFFIXES)}, {TABLES}.", show_default="json"),
    ] = None,
    *,
    find: FindOptions,
    part: RangeOptions,
    features: FeatureOptions,
    work: WorkOptions,
    again: RerunOptions,
    share: ShareOptions,
) -> None:
    """Videos in, timestamped actions out."""
    settings = load_config(work.config, settings_of(find, features, work))
    wanted = _formats(formats)

    from pipeline.api import Pipeline
    from pipeline.run.batch import run_batch
    from pipeline.run.outcome import ResultOutput, existing_results
    from pipeline.run.store import check_alone, prepare_output
    from pipeline.run.videos import Job, find_videos, left_out

    videos = find_videos(paths)
    ids = _ids(videos, share, TABLES in wanted)
    for remark in left_out(paths):
        note(remark)
    if share.shard is not None and not (videos := _share(videos, share.shard)):
        return
    _check_output(output, wanted, formats is not None or again.overwrite, single=len(videos) == 1)
    output, folder = _opened(output)
    only = None
    if (one := one_result(output, None if formats is None else wanted, len(videos))) is not None:
        folder, name, only = one
        videos, wanted = [Job(videos[0].video, name)], [only]
        check_alone(folder / name, only, again.overwrite)
    # One file has no list beside it, and tables are one themselves.
    listed = folder if only is None and wanted != [TABLES] else None
    running = Running("run", videos, listed, work, again.retry_failed)
    pipeline = Pipeline.load(config=settings)
    _introduce(pipeline)
    if share.resume_from is not None:
        running.leave_out(_done(share.resume_from, pipeline, part.stretch, ids))
    running.choose_engine(pipeline.extractor)
    each = [name for name in wanted if name != TABLES]
    files = ResultOutput(into := folder if only else listed, mirror_at(into), each, again.overwrite, only)
    if again.dry_run:
        existing = existing_results(pipeline, files, part.stretch)
        running.dry_run(pipeline.extractor, pipeline.cache, existing, part.stretch)
        return
    results, tables = [], _open(folder, wanted, pipeline, ids)
    if folder is not None and listed is None:
        prepare_output(folder)
    with running.started(part.stretch) as (bars, stop):
        outcomes = run_batch(pipeline, running.jobs, files, part.stretch, bars.video, running.engine, stop)
        for outcome in running.each(_tabled(outcomes, tables, ids)):
            assert outcome.result is not None
            if output == "-" and wanted[0] == "csv":
                results.append(outcome.result)
            _say_what_is_lost(each, outcome)
            _show(outcome, None if output != "-" else wanted[0] if len(videos) == 1 or wanted[0] == "csv" else "jsonl")
    if output == "-" and wanted[0] == "csv":
        write_csv(results, sys.stdout)
    if listed is None and folder is not None and running.report.seconds:
        err.print(f"[dim]the result is in {escape(str(output))}[/]", soft_wrap=True)
    if listed is not None and "html" in wanted:
        running.write_index(listed, output)
    _say_what_next(running, find, only is None and output != "-" and not {"html", TABLES} & set(wanted))
    running.finish()


def _opened(output: str | None) -> tuple[str | None, Path | None]:
    """What -o names, and the folder or the file that it is; for a URL, what stands for it here."""
    if output is None or output == "-":
        return output, None
    place = opened(output)
    return (str(place) if is_url(output) else output), place


def _introduce(pipeline: "Pipeline") -> None:
    """Say which model runs where, and what was chosen for it."""
    err.print(f"[dim]{escape(pipeline.config.model)} on {pipeline.device}[/]")
    say_choices(pipeline.extractor)
    for remark in pipeline.notes:
        note(remark)


def _ids(videos: "list[Job]", share: ShareOptions, tabled: bool) -> "dict[Video, str]":
    """The id of each video, where ids are wanted."""
    if share.resume_from is None and not tabled:
        return {}
    from pipeline.shards import id_of
    from pipeline.tables import arrow

    arrow()  # before any work
    return {job.video: id_of(job) for job in videos}


def _share(videos: "list[Job]", text: str) -> "list[Job]":
    from pipeline.shards import share

    found = share(videos, text)
    note(f"shard {text}: {len(found)} of {len(videos)} videos.")
    return found


def _done(folder: Path, pipeline: "Pipeline", stretch: "Stretch", ids: "dict[Video, str]") -> "set[Video]":
    """The videos that are done by the tables in a folder; a note says how many."""
    from pipeline.tables import finished, made_by

    wanted = made_by(pipeline.provenance("", stretch.start, stretch.end))
    same, otherwise = finished(folder, wanted, set(ids.values()), mirror_at(folder))
    note(f"{len(same)} videos are done by the tables in {folder}, and are left out.")
    if otherwise:
        note(f"{otherwise} more are there by another model, setting or version, and are run again.")
    return {video for video, name in ids.items() if name in same}


def _open(folder: Path | None, formats: list[str], pipeline: "Pipeline", ids: "dict[Video, str]") -> "Tables | None":
    if folder is None or TABLES not in formats:
        return None
    from pipeline.tables import Tables

    return Tables(folder, set(ids.values()), mirror_at(folder))


def _tabled(outcomes: "Iterable[Outcome]", tables: "Tables | None", ids: "dict[Video, str]") -> "Iterator[Outcome]":
    """The outcomes, each of which gets its rows in the tables."""
    try:
        for outcome in outcomes:
            if tables is not None:
                tables.add(ids[outcome.job.video], outcome.result, outcome.error)
            yield outcome
    finally:
        if tables is not None:
            tables.flush()


def _show(outcome: "Outcome", stream: str | None) -> None:
    """Print the table of one video, or its result in the format of standard output; a CSV is printed at the end."""
    assert outcome.result is not None
    if stream is not None:
        if stream != "csv":
            WRITERS[stream](_with_its_sound(stream, outcome.result), sys.stdout)
            sys.stdout.flush()
        return
    remark = " (kept from before)" if outcome.skipped else ""
    if outcome.duplicate_of is not None:
        remark = f" (the same as {escape(str(outcome.duplicate_of.video))})"
    result_table(outcome.result, remark)


def _say_what_next(running: Running, find: FindOptions, page: bool) -> None:
    """Say how to look at the results; or if nothing was found, what may find more, unless the user has tried it."""
    if not running.report.finished:
        return
    if any(row.get("segments") for row in running.report.rows.values()):
        if page:
            running.say_next()
        return
    ways = ["name the sport (--classes soccer)"] if find.classes is None and find.model is None else []
    ways += [] if find.everything else ["show what is unsure (--all)"]
    ways.append("lower the --threshold")
    said = f"{', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}"
    err.print(f"[dim]nothing was found: {said}; docs/wrong.md has the reasons[/]", soft_wrap=True)


def _with_its_sound(form: str, result: "Result") -> "Result":
    """The result as the writers of others' formats need it."""
    if form not in OF_THE_VIDEO:
        return result
    from pipeline.run.exports import for_format

    return for_format(form, result)


def _say_what_is_lost(forms: list[str], outcome: "Outcome") -> None:
    """Print the warnings of a result, and a note about what these formats cannot hold of it."""
    assert outcome.result is not None
    for warning in outcome.result.warnings:
        note(f"{outcome.job.video}: {warning}")
    if set(forms) & {"chapters", "edl"}:
        from pipeline.run.exports import remarks

        for remark in remarks(forms, outcome.result):
            note(remark)


def _formats(text: str | None) -> list[str]:
    names = [name.strip() for name in (text or "json").split(",") if name.strip()]
    for name in names:
        if name not in (*SUFFIXES, TABLES):
            raise UsageError(f"unknown format {name!r}; there are: {', '.join(SUFFIXES)}, {TABLES}.")
    return names or ["json"]


def _check_output(output: str | None, formats: list[str], asked: bool, single: bool) -> None:
    """Before any work: a table takes no format, stdout one document, JSON Lines or one CSV."""
    if TABLES in formats and output in (None, "-"):
        raise UsageError(f"{TABLES} is a folder of tables; use -o FOLDER.")
    if output is not None and output.lower().endswith(".parquet"):
        raise UsageError(f"-o {output}: the tables are two, in a folder; use -o FOLDER -f {TABLES}.")
    if output is None and asked:
        raise UsageError("--format and --overwrite are about files; name a folder with -o, or - for stdout.")
    if output == "-":
        need_stdout()
    if output == "-" and (shown := [name for name in formats if name in VIEWS]):
        raise UsageError(f"{shown[0]} is a file beside the result; use -o FOLDER.")
    if output == "-" and (len(formats) > 1 or (formats[0] not in SEVERAL and not single)):
        raise UsageError(f"stdout takes one format, and of several videos {', '.join(SEVERAL)} only; use -o FOLDER.")

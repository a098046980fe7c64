"""`run`: videos in, timestamped actions out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import grouped, settings_of
from commands.options import (
    FeatureOptions,
    FindOptions,
    Paths,
    RangeOptions,
    RerunOptions,
    WorkOptions,
    mirror_at,
    one_result,
    opened,
)
from commands.progress import Running
from commands.terminal import err, escape, need_stdout, note, result_table, say_choices
from pipeline.config import load_config
from postprocess.formats.writers import OF_THE_VIDEO, SEVERAL, SUFFIXES, VIEWS, WRITERS, write_csv
from support.errors import UsageError

if TYPE_CHECKING:
    from pipeline.run.outcome import Outcome
    from postprocess.segment import Result


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
        typer.Option("--format", "-f", help=f"Joined by commas: {', '.join(SUFFIXES)}.", show_default="json"),
    ] = None,
    *,
    find: FindOptions,
    part: RangeOptions,
    features: FeatureOptions,
    work: WorkOptions,
    again: RerunOptions,
) -> None:
    """Videos in, timestamped actions out."""
    settings = load_config(work.config, settings_of(find, features, work))
    wanted = _formats(formats)

    from pipeline.api import Pipeline
    from pipeline.run.batch import run_batch
    from pipeline.run.outcome import ResultOutput, existing_results
    from pipeline.run.store import check_alone, prepare_output, write_index
    from pipeline.run.videos import Job, find_videos, left_out

    videos = find_videos(paths)
    for remark in left_out(paths):
        note(remark)
    _check_output(output, wanted, formats is not None or again.overwrite, single=len(videos) == 1)
    if output is not None and output != "-":
        output = str(opened(output))
    folder = Path(output) if output not in (None, "-") else None
    only = None
    if (one := one_result(output, None if formats is None else wanted, len(videos))) is not None:
        folder, name, only = one
        videos, wanted = [Job(videos[0].video, name)], [only]
        check_alone(folder / name, only, again.overwrite)
    listed = folder if only is None else None  # one file has no tables beside it
    running = Running("run", videos, listed, work, again.retry_failed)
    pipeline = Pipeline.load(config=settings)
    err.print(f"[dim]{escape(settings.model)} on {pipeline.device}[/]")
    say_choices(pipeline.extractor)
    for remark in pipeline.notes:
        note(remark)
    running.choose_engine(pipeline.extractor)
    files = ResultOutput(folder, mirror_at(folder), wanted, again.overwrite, only)
    if again.dry_run:
        existing = existing_results(pipeline, files, part.stretch)
        running.dry_run(pipeline.extractor, pipeline.cache, existing, part.stretch)
        return
    single = len(videos) == 1
    results = []
    if folder is not None and only is not None:
        prepare_output(folder)
    with running.started(part.stretch) as (bars, stop):
        outcomes = run_batch(pipeline, running.jobs, files, part.stretch, bars.video, running.engine, stop)
        for outcome in running.each(outcomes):
            assert outcome.result is not None
            results.append(outcome.result)
            _say_what_is_lost(wanted, outcome)
            if output != "-":
                _show(outcome)
            elif wanted[0] != "csv":
                form = wanted[0] if single else "jsonl"
                WRITERS[form](_with_its_sound(form, outcome.result), sys.stdout)
                sys.stdout.flush()
    if output == "-" and wanted[0] == "csv":
        write_csv(results, sys.stdout)
    if only is not None and results:
        err.print(f"[dim]the result is in {escape(str(output))}[/]", soft_wrap=True)
    if listed is not None and "html" in wanted and len(standing := running.report.results()) > 1:
        write_index(standing, listed)
    if results and only is None and output != "-" and "html" not in wanted:
        running.say_next()
    running.finish()


def _show(outcome: "Outcome") -> None:
    """Print the table of one video."""
    assert outcome.result is not None
    remark = " (kept from before)" if outcome.skipped else ""
    if outcome.duplicate_of is not None:
        remark = f" (the same as {escape(str(outcome.duplicate_of.video))})"
    result_table(outcome.result, remark)


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
        if name not in SUFFIXES:
            raise UsageError(f"unknown format {name!r}; there are: {', '.join(SUFFIXES)}.")
    return names or ["json"]


def _check_output(output: str | None, formats: list[str], asked: bool, single: bool) -> None:
    """Before any work: a table takes no format, stdout one document, JSON Lines or one CSV."""
    if output is None and asked:
        raise UsageError("--format and --overwrite are about files; name a folder with -o, or - for stdout.")
    if output == "-":
        need_stdout()
    if output == "-" and (shown := [name for name in formats if name in VIEWS]):
        raise UsageError(f"{shown[0]} is a file beside the result; use -o FOLDER.")
    if output == "-" and (len(formats) > 1 or (formats[0] not in SEVERAL and not single)):
        raise UsageError(f"stdout takes one format, and of several videos {', '.join(SEVERAL)} only; use -o FOLDER.")

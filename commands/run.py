"""`run` and `extract`: videos in, timestamped actions or features out."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from commands.options import (
    Address,
    Backbone,
    CacheDir,
    Classes,
    ConfigFile,
    DecoderName,
    Device,
    DryRun,
    End,
    EngineName,
    Flow,
    FlowWeights,
    GpusPerWorker,
    Jobs,
    Memory,
    Model,
    Out,
    Overwrite,
    Paths,
    Precision,
    RetryFailed,
    RgbWeights,
    Start,
    Streams,
    Stride,
    Timeout,
)  # fmt: skip
from commands.output import folder_only, is_file_name, one_result
from commands.progress import Running, choose_cache
from commands.terminal import err, escape, need_stdout, note, result_table, say_flow
from extractors.config import Stretch
from pipeline.config import asked, load_config
from postprocess.config import RULES, LocalizeConfig
from postprocess.formats.writers import SEVERAL, SUFFIXES, VIEWS, WRITERS, write_csv
from support.errors import UsageError
from support.paths import program

L = LocalizeConfig()


def run(
    paths: Paths,
    output: Out = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", "-f", help=f"Joined by commas: {', '.join(SUFFIXES)}.", show_default="json"),
    ] = None,
    model: Model = None,
    classes: Classes = None,
    streams: Streams = None,
    rule: Annotated[
        str | None, typer.Option(help=f"Localisation rule: {', '.join(RULES)}.", show_default=L.rule)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability that a snippet must exceed; below the model's, add --all.", show_default="the model's"
        ),
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Leave out less sure segments.", show_default="the model's")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Segments of any confidence, as --min-confidence 0.")
    ] = False,
    top: Annotated[int | None, typer.Option(min=1, help="Of each video the N surest segments.")] = None,
    start: Start = 0.0,
    end: End = None,
    device: Device = None,
    backbone: Backbone = None,
    stride: Stride = None,
    flow: Flow = None,
    precision: Precision = None,
    decoder: DecoderName = None,
    rgb_weights: RgbWeights = None,
    flow_weights: FlowWeights = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    jobs: Jobs = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    timeout: Timeout = None,
    memory: Memory = None,
    cache_dir: CacheDir = None,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
) -> None:
    """Videos in, timestamped actions out."""
    if everything and min_confidence is not None:
        raise UsageError("--all shows segments of any confidence, --min-confidence does not; give one of them.")
    flags = {
        "model": model,
        "classes": classes,
        "streams": streams,
        "device": device,
        "rgb_weights": rgb_weights,
        "flow_weights": flow_weights,
        "features.backbone": backbone,
        "features.stride": stride,
        "features.flow": flow,
        "features.precision": precision,
        "features.decoder": decoder,
        "localize.rule": rule,
        "localize.threshold": threshold,
        "localize.min_confidence": 0.0 if everything else min_confidence,
        "localize.top": top,
        "limits.timeout": timeout,
        "limits.memory": memory,
    }
    settings = load_config(config, flags)
    wanted = _formats(formats)
    last = _range(start, end)
    choose_cache(cache_dir)

    from pipeline.api import Pipeline
    from pipeline.run import batch
    from pipeline.run.store import check_alone, prepare_output, write_index
    from pipeline.run.videos import Job, find_videos, left_out

    videos = find_videos(paths)
    for remark in left_out(paths):
        note(remark)
    _check_output(output, wanted, formats is not None or overwrite, single=len(videos) == 1)
    folder = Path(output) if output not in (None, "-") else None
    only = None
    if (one := one_result(output, None if formats is None else wanted, len(videos))) is not None:
        folder, name, only = one
        videos, wanted = [Job(videos[0].video, name)], [only]
        check_alone(folder / name, only, overwrite)
    listed = folder if only is None else None  # one file has no tables beside it
    running = Running("run", videos, listed, retry_failed, engine, jobs, address, gpus_per_worker)
    pipeline = Pipeline.load(config=settings)
    err.print(f"[dim]{escape(settings.model)} on {pipeline.device}[/]")
    say_flow(pipeline.extractor)
    running.choose_engine(pipeline.extractor)
    files, stretch = batch.ResultOutput(folder, wanted, overwrite, only), Stretch(start, last)
    if dry_run:
        existing = batch.existing_results(pipeline, files, stretch)
        running.dry_run(pipeline.extractor, pipeline.cache, existing, start, last)
        return
    single = len(videos) == 1
    results = []
    if folder is not None and only is not None:
        prepare_output(folder)
    with running.started(start, last) as (bars, stop):
        outcomes = batch.run_batch(pipeline, running.jobs, files, stretch, bars.video, running.engine, stop)
        for outcome in running.each(outcomes):
            assert outcome.result is not None
            results.append(outcome.result)
            for warning in outcome.result.warnings:
                note(f"{outcome.job.video}: {warning}")
            if output != "-":
                remark = " (kept from before)" if outcome.skipped else ""
                if outcome.duplicate_of is not None:
                    remark = f" (the same as {escape(str(outcome.duplicate_of.video))})"
                result_table(outcome.result, remark)
            elif wanted[0] != "csv":
                WRITERS[wanted[0] if single else "jsonl"](outcome.result, sys.stdout)
                sys.stdout.flush()
    if output == "-" and wanted[0] == "csv":
        write_csv(results, sys.stdout)
    if only is not None and results:
        err.print(f"[dim]the result is in {escape(str(output))}[/]", soft_wrap=True)
    if listed is not None and "html" in wanted and len(standing := running.report.results()) > 1:
        write_index(standing, listed)
    running.finish()


def extract(
    paths: Paths,
    output: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the .npz files; of one video also such a file.")
    ] = Path("features"),
    streams: Annotated[
        str | None, typer.Option(help="both or rgb; auto: both where flow has weights of its own.", show_default="auto")
    ] = None,
    start: Start = 0.0,
    end: End = None,
    device: Device = None,
    backbone: Backbone = None,
    stride: Stride = None,
    flow: Flow = None,
    precision: Precision = None,
    decoder: DecoderName = None,
    rgb_weights: RgbWeights = None,
    flow_weights: FlowWeights = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    jobs: Jobs = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    timeout: Timeout = None,
    memory: Memory = None,
    cache_dir: CacheDir = None,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
) -> None:
    """Videos in, I3D features out: rgb (T,1024), flow (T,1024), times (T,2)."""
    flags = {
        "streams": streams,
        "device": device,
        "rgb_weights": rgb_weights,
        "flow_weights": flow_weights,
        "features.backbone": backbone,
        "features.stride": stride,
        "features.flow": flow,
        "features.precision": precision,
        "features.decoder": decoder,
        "limits.timeout": timeout,
        "limits.memory": memory,
    }
    settings = load_config(config, flags)
    last = _range(start, end)
    choose_cache(cache_dir)

    from pipeline.api import choose_device, default_streams, make_extractor
    from pipeline.cache.entries import FeatureCache
    from pipeline.run import batch
    from pipeline.run.store import prepare_output, with_suffix
    from pipeline.run.videos import Job, find_videos, left_out

    videos = find_videos(paths)
    for remark in left_out(paths):
        note(remark)
    listed: Path | None = output
    if output.suffix == ".npz" and is_file_name(output):
        if len(videos) != 1:
            raise UsageError(f"-o {output}: is one file, and there are {len(videos)} videos; name a folder.")
        listed, videos, output = None, [Job(videos[0].video, Path(output.stem))], output.parent
    folder_only(listed, "features are written as .npz files", "features")
    running = Running("extract", videos, listed, retry_failed, engine, jobs, address, gpus_per_worker)
    declared, given = default_streams(settings), asked(settings)
    if settings.streams == "auto" and "flow" not in declared:
        note(
            f"RGB alone: no published flow weights are here (`{program()} models fetch i3d-flow`). Without them flow "
            "takes four times as long and adds nothing that was measured; --streams both computes it all the same."
        )
    extractor = make_extractor(settings, declared, choose_device(settings.device))
    say_flow(extractor)
    running.choose_engine(extractor)
    files, stretch = batch.FeatureOutput(output, overwrite, given), Stretch(start, last)
    if dry_run:
        existing = batch.existing_features(extractor, files, stretch)
        running.dry_run(extractor, FeatureCache(), existing, start, last)
        return
    if listed is None:
        prepare_output(output)
    with running.started(start, last) as (bars, stop):
        outcomes = batch.extract_batch(
            extractor, FeatureCache(), running.jobs, files, stretch, bars.video, running.engine, stop
        )
        for outcome in running.each(outcomes):
            assert outcome.features is not None
            for warning in outcome.features.warnings:
                note(f"{outcome.job.video}: {warning}")
            path = with_suffix(output / outcome.job.name, ".npz")
            print(f"{path}\t{len(outcome.features.times)} snippets", flush=True)
    running.finish()


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


def _range(start: float, end: float | None) -> float:
    if end is not None and end <= start:
        raise UsageError(f"--end ({end:g}) must be later than --start ({start:g}).")
    return math.inf if end is None else end

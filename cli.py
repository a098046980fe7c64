"""The command line: validates, calls pipeline, renders, sets exit codes; nothing else prints."""

import contextlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

# torch and the siblings are imported inside the commands: `--help` answers in under a second.
from extractors.config import FeatureConfig
from pipeline.config import STREAM_CHOICES, Config, load_config
from pipeline.errors import BUG, ENVIRONMENT, INPUT_FAILED, UsageError, exit_code
from postprocess.config import RULES, LocalizeConfig
from postprocess.writers import WRITERS, clock, write_csv

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
models_app = typer.Typer(help="Embedded models and published weights.", invoke_without_command=True)
app.add_typer(models_app, name="models")

F, L, C = FeatureConfig(), LocalizeConfig(), Config()
STAGES = {
    "hash": "reading",
    "compile": "compiling TV-L1 for this CPU, once",
    "decode": "decode",
    "flow": "flow",
    "i3d": "I3D",
    "download": "download",
}


def _version(asked: bool) -> None:
    if asked:
        from pipeline.version import package_version

        print(package_version("jcdnet"))
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes; only errors.")] = False,
) -> None:
    """Find what happens when in a video: timestamped actions from raw footage."""
    err.quiet = quiet


Paths = Annotated[list[str], typer.Argument(help="Videos, folders (recursive) or glob patterns.")]
Out = Annotated[
    str | None,
    typer.Option("--out", "-o", help="Folder for results, or - for JSON on stdout. Without: a table."),
]
Model = Annotated[str | None, typer.Option(help="Name of an embedded model, or a checkpoint.", show_default=C.model)]
Classes = Annotated[
    str | None,
    typer.Option(help="What to look for: sports, all, or names joined by commas.", show_default=C.classes),
]
Streams = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(STREAM_CHOICES)}; auto: what the model needs.", show_default=C.streams),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", show_default=C.device)]
Start = Annotated[float, typer.Option(min=0, help="Begin at this second of the video.")]
End = Annotated[float | None, typer.Option(min=0, help="Stop at this second.", show_default="the end")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results made otherwise.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with any of the settings.")]
Backbone = Annotated[str | None, typer.Option(help="i3d or i3d_r50.", show_default=F.backbone)]
Stride = Annotated[int | None, typer.Option(help="Frames between snippets.", show_default=str(F.stride))]
Flow = Annotated[str | None, typer.Option(help="Optical flow backend.", show_default=F.flow)]
RgbWeights = Annotated[str | None, typer.Option(help="File with the RGB backbone's weights.", show_default="published")]
FlowWeights = Annotated[
    str | None, typer.Option(help="File with the flow backbone's weights.", show_default="published")
]


@app.command()
def run(
    paths: Paths,
    output: Out = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", "-f", help=f"Joined by commas: {', '.join(WRITERS)}.", show_default="json"),
    ] = None,
    model: Model = None,
    classes: Classes = None,
    streams: Streams = None,
    rule: Annotated[
        str | None, typer.Option(help=f"Localisation rule: {', '.join(RULES)}.", show_default=L.rule)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability that a snippet must exceed.", show_default=str(L.threshold)),
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Leave out less sure segments.", show_default=str(L.min_confidence))
    ] = None,
    start: Start = 0.0,
    end: End = None,
    device: Device = None,
    backbone: Backbone = None,
    stride: Stride = None,
    flow: Flow = None,
    rgb_weights: RgbWeights = None,
    flow_weights: FlowWeights = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Videos in, timestamped actions out."""
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
        "localize.rule": rule,
        "localize.threshold": threshold,
        "localize.min_confidence": min_confidence,
    }
    settings = load_config(config, flags)
    wanted = _formats(formats)
    last = _range(start, end)

    from pipeline import batch
    from pipeline.api import Pipeline

    jobs = batch.find_videos(paths)
    _check_output(output, wanted, formats is not None or overwrite, single=len(jobs) == 1)
    folder = Path(output) if output not in (None, "-") else None
    if folder is not None:
        batch.prepare_output(folder)
    pipeline = Pipeline.load(config=settings)
    err.print(f"[dim]{escape(settings.model)} on {pipeline.device}[/]")
    _say_flow(pipeline.extractor)
    results, failed = [], 0
    single = len(jobs) == 1
    with _progress() as bars:
        outcomes = batch.run_batch(
            pipeline, jobs, folder, wanted, overwrite, start, last, lambda job: bars.video(job.video)
        )
        for outcome in outcomes:
            bars.clear()
            if outcome.error is not None:
                failed += 1
                _complain(outcome.error)
                continue
            assert outcome.result is not None
            results.append(outcome.result)
            for warning in outcome.result.warnings:
                _note(f"{outcome.job.video}: {warning}")
            if output != "-":
                _table(outcome.result, " (kept from before)" if outcome.skipped else "")
            elif wanted[0] != "csv":
                WRITERS[wanted[0] if single else "jsonl"](outcome.result, sys.stdout)
                sys.stdout.flush()
    if output == "-" and wanted[0] == "csv":
        write_csv(results, sys.stdout)
    if folder is not None:
        batch.write_summary(results, folder)
        err.print(f"[dim]results are in {escape(str(folder))}[/]")
    _finish(len(results), failed, jobs)


@app.command()
def extract(
    paths: Paths,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for the .npz files.")] = Path("features"),
    streams: Annotated[str | None, typer.Option(help="both or rgb.", show_default="both")] = None,
    start: Start = 0.0,
    end: End = None,
    device: Device = None,
    backbone: Backbone = None,
    stride: Stride = None,
    flow: Flow = None,
    rgb_weights: RgbWeights = None,
    flow_weights: FlowWeights = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
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
    }
    settings = load_config(config, flags)
    last = _range(start, end)

    from pipeline import batch
    from pipeline.api import choose_device, make_extractor
    from pipeline.cache import FeatureCache

    jobs = batch.find_videos(paths)
    batch.prepare_output(output)
    extractor = make_extractor(settings, ("rgb", "flow"), choose_device(settings.device))
    _say_flow(extractor)
    done = failed = 0
    with _progress() as bars:
        outcomes = batch.extract_batch(
            extractor,
            FeatureCache(),
            jobs,
            output,
            overwrite,
            start,
            last,
            lambda job: bars.video(job.video),
        )
        for outcome in outcomes:
            bars.clear()
            if outcome.error is not None:
                failed += 1
                _complain(outcome.error)
                continue
            assert outcome.features is not None
            done += 1
            for warning in outcome.features.warnings:
                _note(f"{outcome.job.video}: {warning}")
            path = batch.with_suffix(output / outcome.job.name, ".npz")
            print(f"{path}\t{len(outcome.features.times)} snippets", flush=True)
    _finish(done, failed, jobs)


@app.command()
def evaluate(
    predictions: Annotated[
        list[Path],
        typer.Option(help="ActivityNet JSON, or results of `run`: files or the folder; may be given several times."),
    ],
    ground_truth: Annotated[Path, typer.Option(help="ActivityNet JSON.")],
    protocol: Annotated[
        str, typer.Option(help="default, thumos14, thumos14-co2, thumos14-tad or activitynet.")
    ] = "default",
    ambiguous: Annotated[
        Path | None, typer.Option(help="Text file, `video start end` a line: what touches one is dropped.")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="Subset to score.", show_default="the one that holds the predicted videos")
    ] = None,
    tiou: Annotated[
        str | None, typer.Option(help="Thresholds, as in 0.1:0.9:0.1.", show_default="the protocol's")
    ] = None,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Say what kind the false positives are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Score predictions against ground truth: mAP, per class and averaged."""
    from pipeline.evaluate import evaluate_files, tables

    result = evaluate_files(
        predictions,
        ground_truth,
        protocol=protocol,
        ambiguous=ambiguous,
        subset=subset,
        tiou=tiou,
        diagnosis=diagnose,
    )
    for note in result.notes:
        _note(note)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for data in tables(result):
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for i, column in enumerate(data.columns):
            table.add_column(escape(column), justify="left" if i == 0 else "right", overflow="fold")
        for row in data.rows:
            table.add_row(*map(escape, row))
        out.print(f"[bold]{escape(data.title)}[/]", soft_wrap=True)
        out.print(table)
        out.print()


@app.command()
def bench(
    video: Annotated[Path | None, typer.Argument(help="Clip to measure on; without one, one is encoded.")] = None,
    streams: Annotated[str, typer.Option(help="both or rgb.")] = "both",
    against: Annotated[
        str | None, typer.Option(help="opencv: also run the reference pipeline, interleaved, and print ratios.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measure this often.")] = 3,
    device: Device = None,
    flow: Flow = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure decode, flow, I3D, localisation and the whole on this machine."""
    settings = load_config(None, {"streams": streams, "device": device, "features.flow": flow})
    if against not in (None, "opencv"):
        raise UsageError(f"--against {against}: the reference is opencv.")

    from pipeline import bench as benchmark
    from pipeline.api import Pipeline

    pipeline = Pipeline.load(config=settings)
    err.print(f"[dim]{pipeline.device}, flow {pipeline.extractor.flow_backend or 'off'}, repeats {repeats}[/]")
    with tempfile.TemporaryDirectory() as folder:
        clip = video or benchmark.make_clip(Path(folder) / "clip.mp4")
        measured = benchmark.stages(pipeline, clip, repeats)
        ratios = list(benchmark.against(pipeline, clip, repeats)) if against else []
    rows = [stage.to_dict(settings.features.fps) for stage in measured]
    if as_json:
        print(
            json.dumps({"device": pipeline.device, "stages": rows, "ratios": [r.to_dict() for r in ratios]}, indent=2)
        )
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage")
    for column in ("frames/s", "x real time", "min per hour", "spread"):
        table.add_column(column, justify="right")
    for row in rows:
        spread = f"{min(row['seconds']):.2f} to {max(row['seconds']):.2f} s"
        numbers = f"{row['frames_per_s']:.1f}", f"{row['x_real_time']:.2f}", f"{row['min_per_hour']:.1f}"
        table.add_row(row["stage"], *numbers, spread)
    out.print(table)
    for ratio in (r.to_dict() for r in ratios):
        span = f"{ratio['min']:.1f} to {ratio['max']:.1f}"
        out.print(f"{ratio['stage']}: {ratio['median']:.1f} x the reference pipeline ({span})")


@models_app.callback()
def models(context: typer.Context) -> None:
    """Embedded models, and the published weights on this machine."""
    if context.invoked_subcommand is not None:
        return
    from extractors.weights import WEIGHTS, WeightsError, find

    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "where", "licence"):
        table.add_column(column, overflow="fold")
    table.add_row("kinetics400", "embedded model: 400 actions, 100 of them sports", "built in", "that of i3d-rgb")
    for name, about in WEIGHTS.items():
        try:
            path = find(name)
            where = str(path) if path else f"not here: python cli.py models fetch {name}"
        except WeightsError as error:
            where = str(error)
        table.add_row(name, escape(about.about), escape(where), about.licence)
    out.print(table)


@models_app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(help="i3d-rgb or i3d-flow.")] = "i3d-rgb") -> None:
    """Download published weights and verify their hash."""
    from pipeline.fetch import fetch

    with _progress() as bars:
        path = fetch(name, bars.video(Path(name)))
    print(path)


@models_app.command("classes")
def models_classes(
    model: Annotated[str, typer.Argument(help="Model whose classes to list.")] = C.model,
) -> None:
    """List the classes that a model knows, with their sport where they have one."""
    from pipeline.api import load_model

    checkpoint = load_model(model)
    for name in checkpoint.classes:
        print(f"{name}\t{checkpoint.groups[name]}" if name in checkpoint.groups else name)


@app.command()
def doctor() -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from pipeline.doctor import examine

    checks = examine()
    for check in checks:
        mark = "[green]ok [/]" if check.ok else ("[red]no [/]" if check.needed else "[yellow]-  [/]")
        out.print(f"{mark} [bold]{check.name}[/] {escape(check.detail)}", soft_wrap=True)
        if not check.ok and check.fix:
            out.print(f"      {escape(check.fix)}", soft_wrap=True)
    if any(not check.ok and check.needed for check in checks):
        raise typer.Exit(ENVIRONMENT)


class _Bars:
    """Progress of one video at a time, a bar a stage, on stderr."""

    def __init__(self) -> None:
        self.live: Progress | None = None

    def video(self, path: Path) -> Any:
        """Progress callable for a video; the bars of the one before go."""
        self.clear()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # stdout carries data: rich must not lead it to stderr.
        live = Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False)
        self.live = live
        tasks: dict[str, Any] = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage == "compile" and done < total:  # said also where bars are not drawn
                err.print(f"[dim]{STAGES[stage]}[/]")
            if stage not in tasks:
                label = f"{escape(path.name)} {STAGES.get(stage, stage)}"
                tasks[stage] = live.add_task(label, total=total)
            live.update(tasks[stage], completed=done, total=max(total, done))

        live.start()
        return on_progress

    def clear(self) -> None:
        """Take the bars away. Nothing else is printed while they are drawn: they would be drawn over it."""
        if self.live is not None:
            self.live.stop()
            self.live = None


@contextlib.contextmanager
def _progress() -> Iterator[_Bars]:
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.clear()


def _formats(text: str | None) -> list[str]:
    names = [name.strip() for name in (text or "json").split(",") if name.strip()]
    for name in names:
        if name not in WRITERS:
            raise UsageError(f"unknown format {name!r}; there are: {', '.join(WRITERS)}.")
    return names or ["json"]


def _check_output(output: str | None, formats: list[str], asked: bool, single: bool) -> None:
    """Before any work: a table takes no format, stdout one document, JSON Lines or one CSV."""
    if output is None and asked:
        raise UsageError("--format and --overwrite are about files; name a folder with -o, or - for stdout.")
    if output == "-" and (len(formats) > 1 or (formats[0] == "srt" and not single)):
        raise UsageError("stdout takes one format, and srt only of one video; use -o FOLDER.")


def _range(start: float, end: float | None) -> float:
    if end is not None and end <= start:
        raise UsageError(f"--end ({end:g}) must be later than --start ({start:g}).")
    return math.inf if end is None else end


def _table(result: Any, note: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("start", "end", "conf"):
        table.add_column(column, justify="right")
    table.add_column("action")
    for segment in result.segments:
        table.add_row(clock(segment.start), clock(segment.end), f"{segment.confidence:.2f}", escape(segment.label))
    found = "" if result.segments else "  no action found"
    partial = "  [yellow]partial[/]" if result.partial else ""
    out.print(f"[bold]{escape(result.video)}[/]  {clock(result.duration)}{partial}{note}{found}", soft_wrap=True)
    if result.segments:
        out.print(table)


def _note(text: str) -> None:
    err.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def _say_flow(extractor: Any) -> None:
    """What `auto` chose, and which network reads it."""
    if extractor.flow_backend is None:
        return
    err.print(f"[dim]flow {extractor.flow_backend}[/]")
    if extractor.backbones["flow"].weights.startswith("inflated"):
        _note(
            "no published flow weights here; the flow network starts from the RGB one "
            "(`python cli.py models fetch i3d-flow`, or --flow-weights)."
        )


def _complain(error: Exception) -> None:
    Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)


def _finish(done: int, failed: int, jobs: Sequence[Any]) -> None:
    if len(jobs) > 1:
        err.print(f"{done} done, {failed} failed")
    if failed:
        raise typer.Exit(INPUT_FAILED)


def main() -> None:
    """Run the command line; every user error is one sentence on stderr and an exit code."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:
        if debug:
            raise
        code = exit_code(error)
        if code == BUG:
            _complain(
                RuntimeError(
                    f"a bug in jcdnet: {type(error).__name__}: {error}; please report it with the output of --debug."
                )
            )
        else:
            _complain(error)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()

"""The command line: validates, calls pipeline, renders, sets exit codes; nothing else prints."""

import io
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

# torch and the siblings are imported inside the commands: `--help` answers in under a second.
from extractors.config import PRECISIONS, FeatureConfig
from model.config import PRESETS
from pipeline.config import STREAM_CHOICES, Config, load_config
from pipeline.errors import BUG, ENVIRONMENT, INPUT_FAILED, OutputError, UsageError, exit_code
from postprocess.config import RULES, LocalizeConfig
from postprocess.writers import WRITERS, write_csv
from terminal import complain, err, note, out, progress, result_table, say_flow, table

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
models_app = typer.Typer(help="Embedded models and published weights.", invoke_without_command=True)
app.add_typer(models_app, name="models")
labels_app = typer.Typer(help="Labels per video, for `train`.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")

F, L, C = FeatureConfig(), LocalizeConfig(), Config()


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
Precision = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(PRECISIONS)} in I3D; bfloat16 is quick on CPUs that have it.", show_default="auto"),
]
DecoderName = Annotated[
    str | None, typer.Option("--decoder", help="cpu, or nvdec: NVIDIA's, cached apart.", show_default=F.decoder)
]
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
    precision: Precision = None,
    decoder: DecoderName = None,
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
        "features.precision": precision,
        "features.decoder": decoder,
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
    say_flow(pipeline.extractor)
    results, failed = [], 0
    single = len(jobs) == 1
    with progress() as bars:
        outcomes = batch.run_batch(
            pipeline, jobs, folder, wanted, overwrite, start, last, lambda job: bars.video(job.video)
        )
        for outcome in outcomes:
            bars.clear()
            if outcome.error is not None:
                failed += 1
                complain(outcome.error)
                continue
            assert outcome.result is not None
            results.append(outcome.result)
            for warning in outcome.result.warnings:
                note(f"{outcome.job.video}: {warning}")
            if output != "-":
                result_table(outcome.result, " (kept from before)" if outcome.skipped else "")
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
    precision: Precision = None,
    decoder: DecoderName = None,
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
        "features.precision": precision,
        "features.decoder": decoder,
    }
    settings = load_config(config, flags)
    last = _range(start, end)

    from pipeline import batch
    from pipeline.api import choose_device, make_extractor
    from pipeline.cache import FeatureCache

    jobs = batch.find_videos(paths)
    batch.prepare_output(output)
    extractor = make_extractor(settings, ("rgb", "flow"), choose_device(settings.device))
    say_flow(extractor)
    done = failed = 0
    with progress() as bars:
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
                complain(outcome.error)
                continue
            assert outcome.features is not None
            done += 1
            for warning in outcome.features.warnings:
                note(f"{outcome.job.video}: {warning}")
            path = batch.with_suffix(output / outcome.job.name, ".npz")
            print(f"{path}\t{len(outcome.features.times)} snippets", flush=True)
    _finish(done, failed, jobs)


@app.command()
def train(
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, as runs/NAME.")],
    labels: Annotated[
        Path | None,
        typer.Argument(
            help="CSV: video,labels (joined by |; none: no action), and split where there is one. Or ActivityNet JSON. "
            "Published feature sets bring their own."
        ),
    ] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder with the videos that the CSV names.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder with their features instead: of `extract`, or a published layout.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Rows to train on, by the column split.", show_default="train, where it is")
    ] = None,
    preset: Annotated[str, typer.Option(help=f"{', '.join(PRESETS)}. own: sizes itself by the data.")] = "own",
    init: Annotated[
        str | None, typer.Option(help="kinetics400: start from the embedded model where classes match.")
    ] = None,
    streams: Annotated[
        str | None, typer.Option(help="rgb, or both: slower by far on a CPU.", show_default="rgb; of features: all")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Iterations.", show_default="the preset's")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", show_default="the preset's")] = None,
    dim: Annotated[int | None, typer.Option(help="Width D of the embeddings.", show_default="the preset's")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and dropout.", show_default="0")] = None,
    folds: Annotated[int, typer.Option(help="Folds of the check on held-out videos; 0: no check.")] = 4,
    stride: Stride = None,
    flow: Flow = None,
    precision: Precision = None,
    decoder: DecoderName = None,
    device: Device = None,
    config: Annotated[Path | None, typer.Option(help="TOML with [model], [training] and [training.loss].")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over, whatever stands in --out.")] = False,
) -> None:
    """Learn your own actions from labels per video, without timestamps."""
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: there are {', '.join(PRESETS)}.")
    if streams not in (None, "rgb", "both"):
        raise UsageError(f"--streams {streams}: a model reads rgb or both.")
    flags = {
        "device": device,
        "streams": streams or "rgb",
        "features.stride": stride,
        "features.flow": flow,
        "features.precision": precision,
        "features.decoder": decoder,
    }
    settings = load_config(None, flags)
    asked: dict[str, Any] = {
        "preset": preset,
        "steps": steps,
        "lr": lr,
        "dim": dim,
        "seed": seed,
        "folds": folds,
        "init": init,
        "config": config,
    }

    from pipeline import batch, training
    from pipeline.api import choose_device, make_extractor

    wanted = {None: None, "rgb": ("rgb",), "both": ("rgb", "flow")}[streams]
    training_settings = training.Settings(**asked)
    plan = training.plan(
        labels, videos=videos, features=features, split=split, streams=wanted, settings=training_settings
    )
    batch.prepare_output(output)
    where = choose_device(settings.device)
    extractor = None if features else make_extractor(settings, ("rgb",), where)
    if extractor is not None:
        say_flow(extractor)
    with progress() as bars:
        data = training.gather(plan, extractor, on_video=bars.video)
        bars.clear()
        for warning in data.warnings:
            note(warning)
        shape, steps_of = training.configure(training_settings, data)
        err.print(
            f"[dim]{len(data.data.names)} videos, {len(data.data.classes)} classes, {'+'.join(data.streams)}; "
            f"{steps_of.steps} steps, D {shape.dim}, lr {steps_of.lr:g}, on {where}[/]"
        )
        trained = training.fit(
            data,
            training_settings,
            output,
            device=where,
            overwrite=overwrite,
            on_progress=bars.video(output),
        )
    print(trained.path)
    if trained.quality is not None:
        _show_quality(trained.quality)
    err.print(f"now: python cli.py run VIDEO --model {escape(str(output))}", soft_wrap=True)


def _show_quality(quality: Any) -> None:
    rows = [
        (c.label, str(c.videos), str(c.found), str(c.wrongly), f"{100 * c.ap:.0f}")
        + ((f"{c.mistaken_for[0]} ({c.mistaken_for[1]})",) if c.mistaken_for else ("",))
        for c in quality.classes
    ]
    columns = ("class", "videos", "found", "wrongly", "AP %", "drawn instead")
    title = f"on held-out videos ({quality.folds} folds): exactly right in {quality.right} of {quality.videos}"
    table(columns, rows, title)
    for sentence in quality.advice():
        note(sentence)


@labels_app.command("propose")
def labels_propose(
    folder: Annotated[Path, typer.Argument(help="Folder with videos, searched recursively.")],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV to write.", show_default="standard output")
    ] = None,
    classes: Classes = None,
    device: Device = None,
    precision: Precision = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a CSV that is there.")] = False,
) -> None:
    """Propose labels with the embedded model: a CSV to correct, then to `train` on."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the videos.")
    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"{output}: is there already, perhaps with your corrections; use --overwrite or another -o.")
    settings = load_config(None, {"classes": classes, "device": device, "features.precision": precision})

    from extractors.features import write_atomically
    from pipeline import batch
    from pipeline.api import Pipeline
    from pipeline.propose import propose, write

    jobs = batch.find_videos([str(folder)])
    found = []
    with progress() as bars:
        for proposal in propose(Pipeline.load(config=settings), jobs, folder, lambda job: bars.video(job.video)):
            bars.clear()
            found.append(proposal)
            if proposal.error is not None:
                complain(proposal.error)
    if output is None:
        print(write(found), end="")
    else:
        try:
            write_atomically(output, write(found).encode())
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror}); choose another file.") from error
        err.print(f"correct {escape(str(output))}, then: python cli.py train {escape(str(output))} "
                  f"--videos {escape(str(folder))} -o runs/NAME", soft_wrap=True)  # fmt: skip
    failed = sum(proposal.error is not None for proposal in found)
    _finish(len(found) - failed, failed, jobs)


@app.command()
def evaluate(
    ground_truth: Annotated[
        Path | None, typer.Option(help="ActivityNet JSON.", show_default="of published features: what they bring")
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="ActivityNet JSON, or results of `run`: files or the folder; may be given several times."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Instead: run this model over --features.")] = None,
    features: Annotated[Path | None, typer.Option(help="Of `extract`, or in a published layout.")] = None,
    rule: Annotated[str, typer.Option(help=f"With --model: {', '.join(RULES)}.")] = "paper",
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
    plot: Annotated[Path | None, typer.Option(help="Draw the diagnosis into this .png file, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Score predictions against ground truth: mAP, per class and averaged."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: the picture is a PNG; name a .png file.")

    if (model is None) == (not predictions) or (model is None) != (features is None):
        raise UsageError("give --predictions, or --model with --features.")
    if rule not in RULES:
        raise UsageError(f"--rule {rule}: there are {', '.join(RULES)}.")

    from pipeline.evaluate import evaluate_files, tables

    asked: dict[str, Any] = {
        "protocol": protocol,
        "ambiguous": ambiguous,
        "subset": subset,
        "tiou": tiou,
        "diagnosis": diagnose or plot is not None,
    }
    if model is not None and features is not None:
        from pipeline.api import choose_device, load_model
        from pipeline.scoring import evaluate_model

        with progress() as bars:
            told = bars.video(features)
            where = choose_device(C.device)
            result = evaluate_model(
                load_model(model), features, ground_truth, rule=rule, device=where, on_progress=told, **asked
            )
    elif ground_truth is None:
        raise UsageError("give the ground truth with --ground-truth.")
    else:
        result = evaluate_files(predictions or [], ground_truth, **asked)
    if plot is not None and result.diagnosis is not None:
        from extractors.features import write_atomically
        from postprocess import plots

        try:
            write_atomically(plot, plots.diagnosis(result.diagnosis))
        except OSError as error:
            raise OutputError(f"{plot}: cannot be written ({error.strerror}); choose another file.") from error
    for remark in result.notes:
        note(remark)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for data in tables(result):
        table(data.columns, data.rows, data.title)
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
    precision: Precision = None,
    decoder: DecoderName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure decode, flow, I3D, localisation and the whole on this machine."""
    flags = {
        "streams": streams,
        "device": device,
        "features.flow": flow,
        "features.precision": precision,
        "features.decoder": decoder,
    }
    settings = load_config(None, flags)
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
    shown = [
        (
            row["stage"],
            *(
                f"{row[name]:.{digits}f}"
                for name, digits in (("frames_per_s", 1), ("x_real_time", 2), ("min_per_hour", 1))
            ),
            f"{min(row['seconds']):.2f} to {max(row['seconds']):.2f} s",
        )
        for row in rows
    ]
    table(("stage", "frames/s", "x real time", "min per hour", "spread"), shown)
    for ratio in (r.to_dict() for r in ratios):
        span = f"{ratio['min']:.1f} to {ratio['max']:.1f}"
        out.print(
            f"{ratio['stage']}: {ratio['median']:.1f} x the reference pipeline ({span}); "
            f"segments agree to tIoU {ratio['least_tiou_of_segments']:.2f}"
        )


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

    with progress() as bars:
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
            complain(
                RuntimeError(
                    f"a bug in jcdnet: {type(error).__name__}: {error}; please report it with the output of --debug."
                )
            )
        else:
            complain(error)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()

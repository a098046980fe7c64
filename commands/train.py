"""`train`, `labels` and `evaluate`: one's own actions, and how good a model is."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.options import C, Classes, DecoderName, Device, Flow, Precision, Stride
from commands.output import csv_only, folder_only
from commands.terminal import complain, err, escape, finish, note, out, progress, say_flow, table
from model.presets import PRESETS
from pipeline.config import load_config
from postprocess.config import RULES
from support.errors import UsageError, cannot_write
from support.paths import program

labels_app = typer.Typer(help="Labels per video, for `train`.", no_args_is_help=True)


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
    conjoint: Annotated[
        str | None, typer.Option(help="all, or 'without diving': the conjoint subset of published THUMOS14 features.")
    ] = None,
    preset: Annotated[str, typer.Option(help=f"{', '.join(PRESETS)}. own: sizes itself by the data.")] = "own",
    init: Annotated[
        str | None, typer.Option(help="kinetics400: start from the embedded model where classes match.")
    ] = None,
    streams: Annotated[
        str | None, typer.Option(help="rgb, or both: slower by far on a CPU.", show_default="rgb; of features: all")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second that published features were made at.", show_default="25")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Iterations.", show_default="the preset's")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", show_default="the preset's")] = None,
    dim: Annotated[int | None, typer.Option(help="Width D of the embeddings.", show_default="the preset's")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and dropout.", show_default="0")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Folds of the check on held-out videos; 0: no check.", show_default="up to 4")
    ] = None,
    stride: Stride = None,
    flow: Flow = None,
    precision: Precision = None,
    decoder: DecoderName = None,
    device: Device = None,
    config: Annotated[Path | None, typer.Option(help="TOML with the tables model, training and training.loss.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over, whatever stands in --out.")] = False,
) -> None:
    """Learn your own actions from labels per video, without timestamps."""
    folder_only(output, "a model is a folder with its training beside it", "runs/NAME")
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: there are {', '.join(PRESETS)}.")
    if streams not in (None, "rgb", "both") and (streams != "flow" or features is None):
        raise UsageError(f"--streams {streams}: a model reads rgb or both; flow alone of features.")
    of_extraction = {
        "features.stride": stride,
        "features.flow": flow,
        "features.precision": precision,
        "features.decoder": decoder,
    }
    if features is not None and (given := [name for name, value in of_extraction.items() if value is not None]):
        flag = given[0].removeprefix("features.")
        raise UsageError(f"--{flag} is about extraction, and --features are extracted already; leave it out.")
    if fps is not None and features is None:
        raise UsageError("--fps is about published features; videos say so themselves.")
    read = streams if features is None else None
    settings = load_config(None, {"device": device, "streams": read or "rgb", **of_extraction})
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

    from pipeline.api import choose_device, make_extractor
    from pipeline.run.store import prepare_output
    from pipeline.training import fit as training
    from pipeline.training.plan import plan
    from pipeline.training.settings import Settings

    chosen = {None: None, "rgb": ("rgb",), "flow": ("flow",), "both": ("rgb", "flow")}[streams]
    wanted = plan(
        labels,
        videos=videos,
        features=features,
        split=split,
        streams=chosen,
        fps=fps,
        conjoint=conjoint,
        settings=Settings(**asked),
    )
    training.check_folder(output, overwrite)
    prepare_output(output)
    where = choose_device(settings.device)
    extractor = None if features else make_extractor(settings, ("rgb",), where)
    if extractor is not None:
        say_flow(extractor)
    wait = "waiting up to a minute to see whether a training elsewhere is still at work in this folder"
    with training.exclusive(output, on_wait=lambda: note(wait)), progress() as bars:
        data = training.gather(wanted, extractor, on_video=bars.video)
        bars.clear()
        for warning in data.warnings:
            note(warning)
        course = training.course(wanted.recipe, data, wanted.embedded)
        err.print(
            f"[dim]{len(data.data.names)} videos, {len(data.data.classes)} classes, {'+'.join(data.streams)}; "
            f"{course.training.steps} steps, D {course.model.dim}, lr {course.training.lr:g}, on {where}[/]"
        )
        trained = training.fit(
            data,
            course,
            output,
            device=where,
            overwrite=overwrite,
            on_progress=bars.video(output),
        )
    print(trained.path)
    if trained.quality is not None:
        _show_quality(trained.quality)
    err.print(f"now: {program()} run VIDEO --model {escape(str(output))}", soft_wrap=True)


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
    if output is not None and output.is_dir():
        raise UsageError(f"{output}: is a folder; name a CSV file.")
    csv_only(output)
    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"{output}: is there already, perhaps with your corrections; use --overwrite or another -o.")
    settings = load_config(None, {"classes": classes, "device": device, "features.precision": precision})

    from pipeline.api import Pipeline
    from pipeline.run.store import prepare_output
    from pipeline.run.videos import find_videos, left_out
    from pipeline.training.propose import propose, write
    from support.files import write_atomically

    jobs = find_videos([str(folder)])
    for remark in left_out([str(folder)]):
        note(remark)
    if output is not None:
        prepare_output(output.parent)
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
            write_atomically(output, write(found).encode(errors="surrogateescape"))
        except OSError as error:
            raise cannot_write(output, error, "choose another file") from error
        err.print(f"correct {escape(str(output))}, then: {program()} train {escape(str(output))} "
                  f"--videos {escape(str(folder))} -o runs/NAME", soft_wrap=True)  # fmt: skip
    errors = [proposal.error for proposal in found if proposal.error is not None]
    finish(len(found) - len(errors), errors, jobs)


@labels_app.command("import")
def labels_import(
    files: Annotated[list[Path], typer.Argument(help="What the tool exported; several files for several videos.")],
    source: Annotated[str, typer.Option("--from", help="labelstudio, elan or sportscode.")],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV for `train` to write.", show_default="standard output")
    ] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="Also write what `evaluate` takes: a .json file.")] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos, to name them as `train --videos` will.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Bring corrections back: labels per video for `train`, ground truth for `evaluate`."""
    csv_only(output)
    for path in (output, ground_truth):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(f"{path}: is there already; use --overwrite or another name.")

    from pipeline.training.corrections import ground_truth_json, labels_csv, read_corrections
    from support.files import write_atomically

    found = read_corrections(files, source, videos)
    for video in found:
        for remark in video.notes:
            note(remark)
    spans = sum(len(video.spans) for video in found)
    for path, text in ((output, labels_csv(found)), (ground_truth, ground_truth_json(found))):
        if path is not None:
            try:
                write_atomically(path, text.encode(errors="surrogateescape"))
            except OSError as error:
                raise cannot_write(path, error, "choose another file") from error
    if output is None:
        print(labels_csv(found), end="")
    err.print(f"{len(found)} video{'s' if len(found) != 1 else ''}, {spans} segment{'s' if spans != 1 else ''}")


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
    rule: Annotated[str | None, typer.Option(help=f"With --model: {', '.join(RULES)}.", show_default="paper")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second that published features were made at.", show_default="25")
    ] = None,
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
    ignore_unknown: Annotated[
        bool,
        typer.Option("--ignore-unknown", help="Leave out predictions of labels that the ground truth does not have."),
    ] = False,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Say what kind the false positives are.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the diagnosis into this .png file, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Score predictions against ground truth: mAP, per class and averaged."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: the picture is a PNG; name a .png file.")

    if (model is None) == (not predictions) or (model is None) != (features is None):
        raise UsageError("give --predictions, or --model with --features.")
    if model is None and (rule is not None or fps is not None):
        raise UsageError("--rule and --fps are for --model; predictions are segments already.")
    if rule not in (None, *RULES):
        raise UsageError(f"--rule {rule}: there are {', '.join(RULES)}.")

    from postprocess.evaluation.annotations import read_ambiguous
    from postprocess.evaluation.evaluate import evaluate_files
    from postprocess.evaluation.protocols import Scoring, parse_tious
    from postprocess.evaluation.tables import tables

    scoring = Scoring(
        protocol=protocol,
        ambiguous=None if ambiguous is None else read_ambiguous(ambiguous),
        subset=subset,
        tious=None if tiou is None else parse_tious(tiou),
        diagnosis=diagnose or plot is not None,
        ignore_unknown=ignore_unknown,
    )
    if model is not None and features is not None:
        from pipeline.api import choose_device, load_model
        from pipeline.score import evaluate_model

        with progress() as bars:
            told = bars.video(features)
            where = choose_device(C.device)
            result = evaluate_model(
                load_model(model),
                features,
                ground_truth,
                scoring,
                rule=rule or "paper",
                fps=fps,
                device=where,
                on_progress=told,
            )
    elif ground_truth is None:
        raise UsageError("give the ground truth with --ground-truth.")
    else:
        result = evaluate_files(predictions or [], ground_truth, scoring)
    unwritten = None
    if plot is not None and result.diagnosis is not None:
        from postprocess.pages import plots
        from support.files import write_atomically

        try:
            write_atomically(plot, plots.diagnosis(result.diagnosis))
        except OSError as error:  # said below: the numbers are worth more than their picture
            unwritten = cannot_write(plot, error, "choose another file")
    for remark in result.notes:
        note(remark)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        for data in tables(result):
            table(data.columns, data.rows, data.title)
            out.print()
    if unwritten is not None:
        raise unwritten

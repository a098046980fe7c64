"""`train`: a model of your own actions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.groups import grouped, place, settings_of
from commands.options import DecoderName, Device, Flow, Precision, Stride, Together, View, a_place
from commands.places import folder_only, mirror_at, worked_in
from commands.terminal import TrainingTold, err, escape, note, progress, say_choices, table
from model.presets import PRESETS
from pipeline.config import load_config
from support.errors import UsageError
from support.paths import program


@dataclass(frozen=True)
class DataOptions:
    """What to learn from"""

    videos: Annotated[
        str | None,
        a_place("Folder (or its URL) with the videos that the CSV names.", parser=place),
    ] = None
    features: Annotated[
        Path | None, typer.Option(help="Folder with their features instead: of `extract`, or in a published layout.")
    ] = None
    times: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns video,start,end,label and, if you like, complete; or ActivityNet JSON. Marked "
            "times of all actions, of some, or points (no end). Labels may then be left out."
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(help="Take the rows whose column split says this.", show_default="train, if there is the column"),
    ] = None
    conjoint: Annotated[
        str | None,
        typer.Option(help="The conjoint subset of published THUMOS14 features: all, or 'without diving'."),
    ] = None
    fps: Annotated[
        float | None, typer.Option(help="Frames per second that published features were made at.", show_default="25")
    ] = None


@dataclass(frozen=True)
class TrainingOptions:
    """How to train"""

    preset: Annotated[
        str, typer.Option(help=f"A set of settings: {', '.join(PRESETS)}. own: chosen by the amount of data.")
    ] = "own"
    init: Annotated[
        str | None, typer.Option(help="kinetics400: start from the embedded model where names of classes match.")
    ] = None
    more: Annotated[
        Path | None,
        typer.Option(help="Folder of an earlier training: start from its weights, with its settings."),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Number of training steps.", show_default="the preset's")] = None
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", show_default="the preset's")] = None
    dim: Annotated[int | None, typer.Option(help="Width D of the network.", show_default="the preset's")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of weights, batches and dropout.", show_default="0")] = None
    folds: Annotated[
        int | None,
        typer.Option(help="Folds of the check on held-out videos; 0: no check.", show_default="up to 4"),
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with the tables model, training and training.loss.")
    ] = None


@dataclass(frozen=True)
class ExtractionOptions:
    """How features are made"""

    streams: Annotated[
        str | None,
        typer.Option(help="rgb, or both, which is much slower on a CPU.", show_default="rgb; of --features: all"),
    ] = None
    stride: Stride = None
    view: View = None
    together: Together = None
    flow: Flow = None
    precision: Precision = None
    decoder: DecoderName = None
    device: Device = None


@grouped
def train(
    labels: Annotated[
        Path | None,
        typer.Argument(
            help="CSV with the columns video,labels (several labels joined by |, none for no action) and, if you like, "
            "split. Or ActivityNet JSON. Published feature sets bring their own labels."
        ),
    ] = None,
    *,
    output: Annotated[
        Path,
        a_place("Folder (or its URL) for the model, such as runs/NAME.", "--out", "-o", parser=worked_in),
    ],
    data: DataOptions,
    training: TrainingOptions,
    extraction: ExtractionOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over, whatever stands in --out.")] = False,
) -> None:
    """Learn your own actions from labels per video, from marked times, or from both."""
    folder_only(output, "a model is a folder with its training beside it", "runs/NAME")
    _check(data, training, extraction, output)
    flags = settings_of(extraction)
    load_config(None, flags)  # a mistake in a flag is said before anything is read

    from pipeline.api import choose_device, make_extractor
    from pipeline.run.store import prepare_output
    from pipeline.training import fit as fitting
    from pipeline.training import trimmed
    from pipeline.training.plan import plan
    from pipeline.training.settings import Settings

    chosen = {None: None, "rgb": ("rgb",), "flow": ("flow",), "both": ("rgb", "flow")}[extraction.streams]
    given = dict(vars(data))
    wanted = plan(labels, streams=chosen, settings=Settings(times=given.pop("times"), **vars(training)), **given)
    stride, reason = wanted.stride(extraction.stride)
    if reason:
        note(reason)
    streams = "rgb" if data.features is not None else extraction.streams or wanted.streams or "rgb"
    settings = load_config(None, flags | {"streams": streams, "features.stride": stride})
    if (mirror := mirror_at(output)) is not None:
        mirror.prove()
        mirror.pull_all()
    fitting.check_folder(output, overwrite)
    prepare_output(output)
    where = choose_device(settings.device)
    extractor = None if data.features else make_extractor(settings, ("rgb",), where)
    if extractor is not None:
        say_choices(extractor)
    wait = "waiting up to a minute to see whether a training elsewhere is still at work in this folder"
    with fitting.exclusive(output, on_wait=lambda: note(wait)), progress() as bars:
        gathered = fitting.gather(wanted, extractor, on_video=bars.video)
        bars.clear()
        for warning in gathered.warnings:
            note(warning)
        if (remark := trimmed.advice(gathered.data, gathered.features)) is not None:
            note(remark)
        course = fitting.course(wanted.recipe, gathered, wanted.embedded)
        shown = gathered.data
        err.print(
            f"[dim]{len(shown.names)} videos, {len(shown.classes)} classes, {'+'.join(gathered.streams)}; "
            f"{course.training.steps} steps, D {course.model.dim}, lr {course.training.lr:g}, on {where}[/]"
        )
        told = TrainingTold(bars, output, output / fitting.checkpoint.FILE_NAME, course.training.steps)
        show = told if mirror is None else mirror.while_working(told)
        trained = fitting.fit(gathered, course, output, device=where, overwrite=overwrite, on_progress=show)
        told.say_where()
    if trained.quality is not None:
        _show_quality(trained.quality)
    err.print(f"now: {program()} run VIDEO --model {escape(str(output))}", soft_wrap=True)


def _check(data: DataOptions, training: TrainingOptions, extraction: ExtractionOptions, output: Path) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: two of them contradict each other.
    """
    if training.preset not in PRESETS:
        raise UsageError(f"--preset {training.preset}: there are {', '.join(PRESETS)}.")
    if training.more is not None and training.more.resolve() == output.resolve():
        raise UsageError(f"--more {training.more}: is --out, too; name another folder for the new model.")
    if extraction.streams not in (None, "rgb", "both") and (extraction.streams != "flow" or data.features is None):
        raise UsageError(f"--streams {extraction.streams}: a model reads rgb or both; flow alone of features.")
    if data.features is not None:
        for flag in ("stride", "view", "together", "flow", "precision", "decoder"):
            if getattr(extraction, flag) is not None:
                raise UsageError(f"--{flag} is about extraction, and --features are extracted already; leave it out.")
    if data.fps is not None and data.features is None:
        raise UsageError("--fps is about published features; videos say so themselves.")


def _show_quality(quality: Any) -> None:
    if quality.times is not None:
        _show_times(quality.times)
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


def _show_times(times: Any) -> None:
    for c in times.classes:
        print(c.sentence())
    if times.mean_ap:
        shown = ", ".join(f"{value:.0f} at {tiou}" for tiou, value in times.mean_ap.items())
        print(f"mAP in {times.complete} complete videos, by tIoU: {shown}")

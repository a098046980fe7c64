"""`evaluate`: scores of predictions against ground truth."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import grouped
from commands.options import C, a_place
from commands.places import read_from
from commands.terminal import escape, note, out, progress, table
from postprocess.config import RULES
from support.errors import UsageError, cannot_write

if TYPE_CHECKING:
    from postprocess.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class ScoredOptions:
    """What is scored"""

    ground_truth: Annotated[
        Path | None,
        a_place(
            "ActivityNet JSON, or its URL.", parser=read_from, show_default="of published features: what they bring"
        ),
    ] = None
    predictions: Annotated[
        list[Path] | None,
        a_place(
            "ActivityNet JSON, or results of `run`: files or folders, also URLs; several may follow one another.",
            parser=read_from,
        ),
    ] = None
    model: Annotated[str | None, typer.Option(help="Instead: run this model over --features.")] = None
    features: Annotated[Path | None, typer.Option(help="Features of `extract`, or in a published layout.")] = None
    rule: Annotated[
        str | None,
        typer.Option(help=f"How --model draws segments: {', '.join(RULES)}.", show_default="paper"),
    ] = None
    fps: Annotated[
        float | None, typer.Option(help="Frames per second that published features were made at.", show_default="25")
    ] = None


@dataclass(frozen=True)
class ProtocolOptions:
    """How it is scored"""

    protocol: Annotated[str, typer.Option(help="default, thumos14, thumos14-co2, thumos14-tad or activitynet.")] = (
        "default"
    )
    ambiguous: Annotated[
        Path | None,
        typer.Option(help="A text file, `video start end` a line. Predictions that touch such a span are dropped."),
    ] = None
    subset: Annotated[
        str | None, typer.Option(help="Subset to score.", show_default="the one that holds the predicted videos")
    ] = None
    tiou: Annotated[
        str | None, typer.Option(help="tIoU thresholds, as in 0.1:0.9:0.1.", show_default="the protocol's")
    ] = None
    ignore_unknown: Annotated[
        bool,
        typer.Option("--ignore-unknown", help="Leave out predictions of labels that the ground truth does not have."),
    ] = False


@grouped
def evaluate(
    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PREDICTIONS]...", help="The same as --predictions.", show_default=False, parser=read_from
        ),
    ] = None,
    *,
    scored: ScoredOptions,
    rules: ProtocolOptions,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Say of which kinds the false positives are.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the diagnosis into this .png file, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Score predictions against ground truth: mAP, per class and averaged."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: the picture is a PNG; name a .png file.")

    from postprocess.evaluation.tables import tables

    scored = dataclasses.replace(scored, predictions=[*(scored.predictions or []), *(more or [])])
    result = _scores(scored, rules, diagnose or plot is not None)
    unwritten = None
    if plot is not None and result.diagnosis is not None:
        from postprocess.pages import plots
        from support.files import write_atomically

        try:
            write_atomically(plot, plots.diagnosis(result.diagnosis))
        except OSError as error:  # raised below, because the numbers are worth more than their picture
            unwritten = cannot_write(plot, error, "choose another file")
    for remark in result.notes:
        note(remark)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        if result.drawn is not None:
            out.print(f"[bold]{escape(result.drawn.sentence())}[/]\n", soft_wrap=True)
        for data in tables(result):
            table(data.columns, data.rows, data.title)
            out.print()
    if unwritten is not None:
        raise unwritten


def _scores(scored: ScoredOptions, rules: ProtocolOptions, diagnosis: bool) -> "Evaluation":
    """Score predictions, or a model over features.

    Raises:
        UsageError: options that do not go together.
    """
    if (scored.model is None) == (not scored.predictions) or (scored.model is None) != (scored.features is None):
        raise UsageError("give --predictions, or --model with --features.")
    if scored.model is None and (scored.rule is not None or scored.fps is not None):
        raise UsageError("--rule and --fps are for --model; predictions are segments already.")
    if scored.rule not in (None, *RULES):
        raise UsageError(f"--rule {scored.rule}: there are {', '.join(RULES)}.")

    from postprocess.evaluation.annotations import read_ambiguous
    from postprocess.evaluation.evaluate import evaluate_files
    from postprocess.evaluation.protocols import Scoring, parse_tious

    scoring = Scoring(
        protocol=rules.protocol,
        ambiguous=None if rules.ambiguous is None else read_ambiguous(rules.ambiguous),
        subset=rules.subset,
        tious=None if rules.tiou is None else parse_tious(rules.tiou),
        diagnosis=diagnosis,
        ignore_unknown=rules.ignore_unknown,
    )
    if scored.model is None or scored.features is None:
        if scored.ground_truth is None:
            raise UsageError("give the ground truth with --ground-truth.")
        return evaluate_files(scored.predictions or [], scored.ground_truth, scoring)

    from pipeline.api import choose_device, load_model
    from pipeline.score import evaluate_model

    with progress() as bars:
        return evaluate_model(
            load_model(scored.model),
            scored.features,
            scored.ground_truth,
            scoring,
            rule=scored.rule or "paper",
            fps=scored.fps,
            device=choose_device(C.device),
            on_progress=bars.video(scored.features),
        )

"""`bench`, `models` and `doctor`: what this machine has, and how fast it is."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from commands.options import C, DecoderName, Device, Flow, Precision
from commands.terminal import err, escape, out, printable, progress, table
from pipeline.config import load_config
from support.errors import ENVIRONMENT, UsageError
from support.paths import program

models_app = typer.Typer(help="Embedded models and published weights.", invoke_without_command=True)


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

    from pipeline.api import Pipeline
    from pipeline.machine import bench as benchmark

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
    from extractors.backbones.weights import WEIGHTS, WeightsError, find

    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "where", "licence"):
        table.add_column(column, overflow="fold")
    embedded = "embedded model: 400 actions, 100 of them sports; `models card` says how it was made, and how good it is"
    table.add_row("kinetics400", embedded, "built in", "that of i3d-rgb")
    for name, about in WEIGHTS.items():
        try:
            path = find(name)
            where = str(path) if path else f"not here: {program()} models fetch {name}"
        except WeightsError as error:
            where = str(error)
        table.add_row(name, escape(about.about), escape(where), about.licence)
    out.print(table)


@models_app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(help="i3d-rgb or i3d-flow.")] = "i3d-rgb") -> None:
    """Download published weights and verify their hash."""
    from pipeline.machine.weights import fetch

    with progress() as bars:
        path = fetch(name, bars.video(Path(name)))
    print(path)


@models_app.command("card")
def models_card() -> None:
    """The card of the embedded model: what it is made of, how it was measured, what it cannot do."""
    from model.kinetics import CARD

    print(CARD.read_text(encoding="utf-8"), end="")


@models_app.command("classes")
def models_classes(
    model: Annotated[str, typer.Argument(help="Model whose classes to list.")] = C.model,
    sports: Annotated[bool, typer.Option("--sports", help="List each sport with the names that belong to it.")] = False,
) -> None:
    """List the classes that a model knows, with their sport where they have one."""
    if sports:
        for sport, names in _sports(model).items():
            print(printable(f"{sport}\t{', '.join(names)}"))
        return
    from pipeline.api import load_model

    checkpoint = load_model(model)
    for name in checkpoint.classes:
        print(printable(f"{name}\t{checkpoint.groups[name]}" if name in checkpoint.groups else name))


def _sports(model: str) -> dict[str, list[str]]:
    """Sport -> the names that belong to it, both sorted. The embedded model's list needs no weights."""
    from model.kinetics import NAME, sports_groups
    from pipeline.api import load_model

    groups = sports_groups() if model == NAME else load_model(model).groups
    if not groups:
        raise UsageError(f"{model}: this model has no list of sports; leave --sports out to see its classes.")
    return {sport: sorted(name for name in groups if groups[name] == sport) for sport in sorted(set(groups.values()))}


def doctor() -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from pipeline.machine.doctor import examine

    checks = examine()
    for check in checks:
        mark = "[green]ok [/]" if check.ok else ("[red]no [/]" if check.needed else "[yellow]-  [/]")
        out.print(f"{mark} [bold]{check.name}[/] {escape(check.detail)}", soft_wrap=True)
        if not check.ok and check.fix:
            out.print(f"      {escape(check.fix)}", soft_wrap=True)
    if any(not check.ok and check.needed for check in checks):
        raise typer.Exit(ENVIRONMENT)

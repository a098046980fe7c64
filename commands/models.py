"""`models`: embedded models, their classes, and published weights."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from commands.groups import Command, Group, grouped
from commands.options import C
from commands.terminal import escape, out, printable, progress
from support.errors import UsageError
from support.paths import program

models_app = typer.Typer(cls=Group, help="Embedded models and published weights.", invoke_without_command=True)


@models_app.callback()
def models(context: typer.Context) -> None:
    """Embedded models, and the published weights on this machine."""
    if context.invoked_subcommand is not None:
        return
    from extractors.backbones.weights import WEIGHTS, WeightsError, find

    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "where", "licence"):
        table.add_column(column, overflow="fold")
    embedded = "embedded model: 400 actions, 110 of them sports; `models card` says how it was made, and how good it is"
    table.add_row("kinetics400", embedded, "built in", "that of i3d-rgb")
    for name, about in WEIGHTS.items():
        try:
            path = find(name)
            where = str(path) if path else f"not here: {program()} models fetch {name}"
        except WeightsError as error:
            where = str(error)
        table.add_row(name, escape(about.about), escape(where), about.licence)
    out.print(table)


@models_app.command("fetch", cls=Command)
@grouped
def models_fetch(name: Annotated[str, typer.Argument(help="i3d-rgb or i3d-flow.")] = "i3d-rgb") -> None:
    """Download published weights and verify their hash."""
    from pipeline.machine.weights import fetch

    with progress() as bars:
        path = fetch(name, bars.video(Path(name)))
    print(path)


@models_app.command("card", cls=Command)
@grouped
def models_card() -> None:
    """The card of the embedded model: what it is made of, how it was measured, what it cannot do."""
    from model.kinetics import CARD

    print(CARD.read_text(encoding="utf-8"), end="")


@models_app.command("classes", cls=Command)
@grouped
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

"""`labels`: labels per video, proposed by the embedded model or imported from another tool."""

from pathlib import Path
from typing import Annotated

import typer

from commands.groups import Command, Group, grouped, place
from commands.options import Classes, Device, Precision
from commands.places import csv_only
from commands.terminal import complain, err, escape, finish, note, progress
from pipeline.config import load_config
from support.errors import UsageError
from support.paths import program

labels_app = typer.Typer(cls=Group, help="Labels per video, for `train`.", no_args_is_help=True)


@labels_app.command("propose", cls=Command)
@grouped
def labels_propose(
    folder: Annotated[
        str,
        typer.Argument(help="Folder (or its URL) with videos, searched recursively.", parser=place, metavar="<path>"),
    ],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV to write.", show_default="standard output")
    ] = None,
    classes: Classes = None,
    device: Device = None,
    precision: Precision = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a CSV that is there.")] = False,
) -> None:
    """Propose labels with the embedded model: a CSV to correct, then to `train` on."""
    if isinstance(folder, Path) and not folder.is_dir():
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
    from support.files import write_atomically, writing

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
        with writing(output, "choose another file"):
            write_atomically(output, write(found).encode(errors="surrogateescape"))
        err.print(f"correct {escape(str(output))}, then: {program()} train {escape(str(output))} "
                  f"--videos {escape(str(folder))} -o runs/NAME", soft_wrap=True)  # fmt: skip
    errors = [proposal.error for proposal in found if proposal.error is not None]
    finish(len(found) - len(errors), errors, jobs)


@labels_app.command("import", cls=Command)
@grouped
def labels_import(
    files: Annotated[
        list[Path],
        typer.Argument(help="What the tool exported; several files for several videos. Of our page also a folder."),
    ],
    source: Annotated[
        str, typer.Option("--from", help="jcdnet (the page of `report`), labelstudio, elan, sportscode.")
    ],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV for `train` to write.", show_default="standard output")
    ] = None,
    times: Annotated[
        Path | None, typer.Option(help="Also write what `train --times` takes: a CSV with starts and ends.")
    ] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="Also write what `evaluate` takes: a .json file.")] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos, to name them as `train --videos` will.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Bring corrections back: labels per video and times for `train`, ground truth for `evaluate`."""
    csv_only(output)
    csv_only(times)
    for path in (output, times, ground_truth):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(f"{path}: is there already; use --overwrite or another name.")

    from pipeline.training.corrections import ground_truth_json, labels_csv, read_corrections, times_csv
    from support.files import write_atomically, writing

    found = read_corrections(files, source, videos)
    for video in found:
        for remark in video.notes:
            note(remark)
    spans = sum(len(video.spans) for video in found)
    texts = (output, labels_csv(found)), (times, times_csv(found)), (ground_truth, ground_truth_json(found))
    for path, text in texts:
        if path is not None:
            with writing(path, "choose another file"):
                write_atomically(path, text.encode(errors="surrogateescape"))
    if output is None:
        print(labels_csv(found), end="")
    err.print(f"{len(found)} video{'s' if len(found) != 1 else ''}, {spans} segment{'s' if spans != 1 else ''}")

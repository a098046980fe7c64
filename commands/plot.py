"""`plot`: one result as a picture over time."""

from pathlib import Path
from typing import Annotated

import typer

from commands.groups import grouped
from commands.options import Videos, opened, read_from
from commands.terminal import note
from support.errors import UsageError
from support.paths import called


@grouped
def plot(
    result: Annotated[
        Path,
        typer.Argument(help="A result of `run -o`: a .json file; also a URL.", parser=read_from, metavar="<path>"),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A .png or .svg file, or its URL.",
            show_default="beside the result, .png",
            parser=opened,
            metavar="<path>",
        ),
    ] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="ActivityNet JSON: drawn above what was found.")] = None,
    frames: Annotated[int, typer.Option(min=0, max=20, help="Frames to show above; 0: none.")] = 8,
    videos: Videos = None,
) -> None:
    """Draw one result over time: frames, truth, segments, scores, and S^coarse beside S."""
    forms = {".png": "png", ".svg": "svg"}
    if output is not None and output.suffix.lower() not in forms:
        raise UsageError(f"--out {output}: the picture is a PNG or an SVG; name a .png or .svg file.")
    if not result.is_file():
        raise UsageError(f"{result}: no such file; give one result that `run -o` wrote.")

    from pipeline.run.results import curves_of, read_results, truth_of, video_of
    from pipeline.run.views import stills
    from postprocess.pages.timeplot import timeline
    from support.files import write_atomically, writing

    (stored,) = read_results([result])
    path = output or stored.path.with_name(f"{stored.stem}.png")
    curves = curves_of(stored)
    if curves is None:
        note(f"{stored.stem}.scores.npz is not beside the result; the picture has no curves.")
    truth = None if ground_truth is None else truth_of(stored, ground_truth)
    shown = stills(video_of(stored, videos), stored.result.duration, frames) if frames else []
    picture = timeline(stored.result, curves, shown, truth, forms[path.suffix.lower()])
    with writing(path, "choose another file"):
        write_atomically(path, picture)
    print(called(str(path)))

"""`plot`: results as pictures over time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import grouped
from commands.options import Results, Videos, a_place
from commands.places import folder_only, read_from
from commands.terminal import complain, finish, note
from support.errors import UsageError, UserError
from support.paths import called

if TYPE_CHECKING:
    from pipeline.run.results import Stored


@grouped
def plot(
    results: Results,
    output: Annotated[
        Path | None,
        a_place(
            "A .png or .svg file; of several results a folder; also URLs.",
            "--out",
            "-o",
            show_default="beside the results",
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        a_place("What is true, as ActivityNet's JSON, or its URL: drawn above what was found.", parser=read_from),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=0, max=20, help="How many frames of the video to show on top; 0: none.")
    ] = 8,
    videos: Videos = None,
) -> None:
    """Draw each result as a picture over time: frames of the video, what was found, and the scores behind it."""
    from pipeline.run.results import read_results, stems

    errors: list[Exception] = []
    stored = read_results(results, on_error=errors.append)
    for error in errors:
        complain(error)
    everything = [*stored, *errors]
    alone = len(everything) == 1 and not results[0].is_dir()
    form = "png"
    if output is not None and not output.is_dir() and output.suffix:
        forms = {".png": "png", ".svg": "svg"}
        if output.suffix.lower() not in forms:
            raise UsageError(f"--out {output}: the picture is a PNG or an SVG; name a .png or .svg file.")
        if not alone:
            raise UsageError(f"--out {output}: is one picture, and there are several results; name a folder.")
        form = forms[output.suffix.lower()]
    else:
        folder_only(output, "pictures of several results are files of their own", "plots")
    for one, stem in stems(stored):
        path = one.path.with_name(f"{one.stem}.png")
        if output is not None:
            path = output if alone and output.suffix and not output.is_dir() else output / f"{stem}.png"
        try:
            _draw(one, path, form, ground_truth, frames, videos)
        except UserError as error:
            if alone:
                raise
            errors.append(error)
            complain(error)
        else:
            print(called(str(path)))
    finish(len(everything) - len(errors), errors, everything)


def _draw(stored: "Stored", path: Path, form: str, ground_truth: Path | None, frames: int, videos: str | None) -> None:
    """Draw one result.

    Raises:
        UserError: its video or its truth is not there, or the picture cannot be written.
    """
    from pipeline.run.results import curves_of, truth_of, video_of
    from pipeline.run.views import stills
    from postprocess.pages.timeplot import timeline
    from support.files import write_atomically, writing

    curves = curves_of(stored)
    if curves is None:
        note(f"{stored.stem}.scores.npz is not beside the result; the picture has no curves.")
    truth = None if ground_truth is None else truth_of(stored, ground_truth)
    shown = stills(video_of(stored, videos), stored.result.duration, frames) if frames else []
    picture = timeline(stored.result, curves, shown, truth, form)
    with writing(path, "choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, picture)

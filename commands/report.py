"""`report`: pages that show results."""

from pathlib import Path
from typing import Annotated

import typer

from commands.groups import grouped
from commands.options import Results, Videos, folder_only, is_file_name, opened
from commands.terminal import complain, finish, note, progress
from support.errors import UsageError
from support.paths import called


@grouped
def report(
    results: Results,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder (or its URL) for the pages; of one result also an .html file.",
            show_default="beside the results",
            parser=opened,
            metavar="<path>",
        ),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the video inside the page.")] = False,
    videos: Videos = None,
) -> None:
    """Make pages to look at: the video, its time line, a table; of a folder an index, too."""
    from pipeline.run.results import common_folder, curves_of, read_results, video_of
    from pipeline.run.views import write_page, write_pages

    named = output if output is not None and output.suffix == ".html" and is_file_name(output) else None
    if named is None:
        folder_only(output, "pages are .html files", "pages")
    errors: list[Exception] = []
    stored = read_results(results, on_error=errors.append)
    for error in errors:
        complain(error)
    all_of_them = [*stored, *errors]
    alone = len(all_of_them) == 1 and not results[0].is_dir()
    if named is not None and not alone:
        raise UsageError(f"-o {named}: is one page, and several are made of a folder; name a folder, or one result.")
    with progress() as bars:
        if alone:
            path = named or (output or stored[0].path.parent) / f"{stored[0].stem}.html"
            video = video_of(stored[0], videos)
            curves = curves_of(stored[0])
            if curves is None:
                note(f"{stored[0].stem}.scores.npz is not beside the result; the page has no curves.")
            write_page(stored[0].result, curves, video, path, embed, on_progress=bars.video(video))
            bars.clear()
            print(called(str(path)))
            return
        root = results[0] if len(results) == 1 else common_folder(stored)
        for path, wrong in write_pages(stored, root, output or root, videos, embed, bars.video):
            bars.clear()
            if wrong is None:
                print(called(str(path)))
            else:
                errors.append(wrong)
                complain(wrong)
    finish(len(all_of_them) - len(errors), errors, all_of_them)

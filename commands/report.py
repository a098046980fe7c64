"""`report`: pages that show results, and on which segments are marked and corrected."""

from pathlib import Path
from typing import Annotated

import typer

from commands.groups import grouped
from commands.options import Videos, a_place
from commands.places import folder_only, is_file_name, read_from
from commands.terminal import complain, finish, note, progress
from support.errors import UsageError
from support.paths import called


@grouped
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Results of `run -o`: .json files, or their folder; also URLs. Videos, or their folder, to mark in.",
            parser=read_from,
            metavar="<path>...",
        ),
    ],
    output: Annotated[
        Path | None,
        a_place(
            "Folder (or its URL) for the pages; of one result also an .html file.",
            "--out",
            "-o",
            show_default="beside the results or the videos",
        ),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the video inside the page.")] = False,
    classes: Annotated[
        str | None, typer.Option(help="Names of actions to choose from on the page, joined by commas.")
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="Folder of .corrections.json files: what is marked already is on the pages.")
    ] = None,
    videos: Videos = None,
) -> None:
    """Make pages to look at and to mark actions on: the video, its time line, a table; of a folder an index, too."""
    from pipeline.run.blank import blank_results, has_results
    from pipeline.run.results import Stored, common_folder, curves_of, read_results, video_of
    from pipeline.run.views import Extras, write_page, write_pages
    from pipeline.training.corrections import marked_before

    named = output if output is not None and output.suffix == ".html" and is_file_name(output) else None
    if named is None:
        folder_only(output, "pages are .html files", "pages")
    extras = Extras(embed, _names(classes), marked_before(corrections))
    errors: list[Exception] = []
    found = [path for path in results if has_results(path)]
    blank = [path for path in results if not has_results(path)]
    if found and blank:
        raise UsageError(f"{blank[0]}: is a video, and {found[0]} holds results; give one kind at a time.")
    stored = read_results(found, on_error=errors.append) if found else []
    for one in blank_results(blank, None if output is None or named else output) if blank else ():
        if isinstance(one, Stored):
            stored.append(one)
        else:
            errors.append(one)
    for error in errors:
        complain(error)
    all_of_them = [*stored, *errors]
    alone = len(all_of_them) == 1 and not results[0].is_dir()
    if named is not None and not alone:
        raise UsageError(f"-o {named}: is one page, and several are made of a folder; name a folder, or one result.")
    if not stored:
        finish(0, errors, all_of_them)
    with progress() as bars:
        if alone:
            path = named or (output or stored[0].path.parent) / f"{stored[0].stem}.html"
            video = video_of(stored[0], videos)
            curves = curves_of(stored[0])
            if curves is None and not blank:
                note(f"{stored[0].stem}.scores.npz is not beside the result; the page has no curves.")
            write_page(stored[0].result, curves, video, path, extras, on_progress=bars.video(video))
            bars.clear()
            print(called(str(path)))
            return
        root = results[0] if len(results) == 1 and found else (output if blank else None) or common_folder(stored)
        for path, wrong in write_pages(stored, root, output or root, videos, extras, bars.video):
            bars.clear()
            if wrong is None:
                print(called(str(path)))
            else:
                errors.append(wrong)
                complain(wrong)
    finish(len(all_of_them) - len(errors), errors, all_of_them)


def _names(classes: str | None) -> tuple[str, ...]:
    """The names that --classes offers on the page.

    Raises:
        UsageError: one of them cannot be a label.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (classes or "").split(",") if name.strip()))
    if bad := next((name for name in names if "|" in name), None):
        raise UsageError(f"--classes {bad}: holds a |, which joins names in labels; rename it.")
    return names

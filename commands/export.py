"""`export`: results as files for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import grouped
from commands.options import Results, Videos, a_place, a_time
from commands.places import folder_only
from commands.refused import listed
from commands.terminal import complain, finish, note
from postprocess.formats.writers import SUFFIXES, VIEWS, WRITERS
from support.errors import OutputError, UsageError, UserError
from support.paths import called, with_suffix

if TYPE_CHECKING:
    from postprocess.segment import Result

# What programs read, for those who name the program.
READ = {
    "avid": "edl",
    "davinci": "edl or fcpxml",
    "fcp": "fcpxml",
    "finalcut": "fcpxml",
    "label-studio": "labelstudio",
    "premiere": "edl",
    "resolve": "edl or fcpxml",
    "youtube": "chapters",
}
FORMATS = tuple(name for name in SUFFIXES if name not in (*VIEWS, "json", "jsonl"))


@grouped
def export(
    results: Results,
    formats: Annotated[str, typer.Option("--format", "-f", help=f"Joined by commas: {', '.join(FORMATS)}.")],
    output: Annotated[
        Path | None,
        a_place("Folder (or its URL) for the files.", "--out", "-o", show_default="beside the results"),
    ] = None,
    before: Annotated[float, a_time("Of edl and fcpxml: seconds to begin earlier.")] = 0.0,
    after: Annotated[float, a_time("Of edl and fcpxml: seconds to end later.")] = 0.0,
    pad: Annotated[float, a_time("Seconds on both sides: --before and --after in one.")] = 0.0,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out less sure segments.")] = 0.0,
    classes: Annotated[
        str | None, typer.Option(help="Names or sports, joined by commas.", show_default="all that was found")
    ] = None,
    document_root: Annotated[
        Path | None,
        typer.Option(
            help="Of labelstudio: the folder that Label Studio serves (LOCAL_FILES_DOCUMENT_ROOT). The videos must be "
            "below it.",
            show_default="paths as in the results",
        ),
    ] = None,
    videos: Videos = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write results for editors and annotation tools: with margins, of some actions, with corrections that you made."""
    import dataclasses

    from pipeline.clips.choose import labels_meant
    from pipeline.run.exports import CUTS, Margins, for_format, remarks
    from pipeline.run.results import read_results, stems, video_of

    names = _names(formats)
    folder_only(output, "each result gets a file of its own", "exports")
    margins = Margins(before + pad, after + pad)
    if margins != Margins() and not set(names) & set(CUTS):
        raise UsageError(f"--pad, --before and --after are for {' and '.join(CUTS)}; leave them out.")
    if document_root is not None and "labelstudio" not in names:
        raise UsageError("--document-root is for labelstudio; leave it out, or add -f labelstudio.")
    errors: list[Exception] = []
    stored = read_results(results, on_error=errors.append)
    for error in errors:
        complain(error)
    everything = [*stored, *errors]
    there: list[str] = []
    wanted = None if classes is None else labels_meant(classes, [one.result for one in stored])
    for one, stem in stems(stored):
        chosen = [
            s for s in one.result.segments if s.confidence >= min_confidence and (wanted is None or s.label in wanted)
        ]
        result = dataclasses.replace(one.result, segments=tuple(chosen))
        place = one.path.with_name(one.stem) if output is None else output / stem
        try:
            video = None if videos is None else video_of(one, videos)
            paths = [with_suffix(place, SUFFIXES[name]) for name in names]
            if kept := [str(path) for path in paths if path.exists() and not overwrite]:
                there += kept
                errors.append(OutputError(f"{kept[0]}: is there already."))
            for name, path in zip(names, paths, strict=True):
                if str(path) not in kept:
                    _write(for_format(name, result, margins, document_root, video), name, path)
            for remark in remarks(names, result):
                note(remark)
        except UserError as error:
            errors.append(error)
            complain(error)
    if there:
        what = there[0] if len(there) == 1 else f"each of {len(there)} files, {listed(there, few=True)}"
        complain(OutputError(f"{what}: is there already; use --overwrite or another -o."))
    finish(len(everything) - len(errors), errors, everything)


def _write(result: "Result", name: str, path: Path) -> None:
    """Write one file, and print its path.

    Raises:
        OutputError: it cannot be written.
        ResultError: the format cannot hold the result.
    """
    import io

    from support.files import write_atomically, writing

    text = io.StringIO()
    WRITERS[name](result, text)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.getvalue().encode())
    print(called(str(path)))


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"-f names no format; there are {', '.join(FORMATS)}.")
    for name in names:
        if name in VIEWS:
            raise UsageError(f"{name} shows the video; `report` makes pages, and `run -f {name}` both.")
        if name.lower() in READ:
            raise UsageError(f"-f {name}: this is a program; choose the format that it reads: {READ[name.lower()]}.")
        if name not in FORMATS:
            raise UsageError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}.")
    return names

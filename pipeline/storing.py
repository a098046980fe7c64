"""Results onto disk, below an output folder: the document, its curves, other formats, and the page over all."""

import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from extractors.features import Progress, write_atomically
from extractors.writing import sweep, write_temporary
from pipeline import views
from pipeline.errors import OutputError, cannot_write
from pipeline.results import CURVES, pack
from pipeline.videos import Job
from postprocess.curves import Curves
from postprocess.segment import Result, ResultError, Segment
from postprocess.writers import SUFFIXES, VIEWS, WRITERS


def prepare_output(folder: Path, jobs: Sequence[Job] = ()) -> None:
    """Make the output folder, prove that it can be written before hours are spent, and clear what killed runs left.

    Raises:
        OutputError: it cannot.
        DiskFull: there is no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_temporary(folder, "write-test", b"jcdnet").unlink()
        for place in {folder, *((folder / job.name).parent for job in jobs)}:
            sweep(place)
    except OSError as error:
        raise cannot_write(folder, error, "choose another folder with -o") from error


def with_suffix(target: Path, suffix: str) -> Path:
    """`target` plus a suffix; Path.with_suffix would take "clip.v2" for a name with one."""
    return target.with_name(target.name + suffix)


def check_names(target: Path, video: Path, suffixes: Iterable[str]) -> None:
    """Before a video is extracted: whether the file system takes the names of its results.

    Raises:
        OutputError: one is too long.
    """
    place = target.parent
    while not place.exists():
        place = place.parent
    try:
        most = os.pathconf(place, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return
    suffix = max(suffixes, key=len)
    if (length := len(os.fsencode(target.name + suffix))) > most:
        raise OutputError(
            f"{video}: its result would be called {target.name[:20]}…{suffix}, {length} bytes, and the folder "
            f"takes {most}; rename the video."
        )


def existing(target: Path, wanted: dict[str, object], formats: Sequence[str]) -> Result | None:
    """The result that stands at `target`, when it is the one asked for; None when there is none.

    Raises:
        OutputError: another result stands there.
    """
    path = with_suffix(target, ".json")
    if not path.exists():
        return None
    try:
        kept = Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ResultError) as error:
        raise OutputError(f"{path}: not a result of jcdnet ({error}); move it away or use --overwrite.") from error
    # As JSON, in which a tuple is a list.
    if kept.provenance != json.loads(json.dumps(wanted)):
        raise OutputError(f"{path}: was made from another file, model or settings; use --overwrite or another -o.")
    whole = all(with_suffix(target, suffix).exists() for suffix in (CURVES, *(SUFFIXES[name] for name in formats)))
    return kept if whole else None


def write_result(
    result: Result,
    curves: Curves,
    target: Path,
    formats: Sequence[str],
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = lambda stage, done, total: None,
    overwrite: bool = False,
) -> None:
    """Write a video's result as `<target>.json` and the other formats, and its curves as `.scores.npz`.

    Where this very result stands, only the formats that are missing are made: somebody may have corrected the others.
    Of another result of ours all that it left goes first. The curves are written first and go last, so they tell whose
    files the others are; the JSON comes last: where it stands, all stand, and are of one run.

    Args:
        everything: segments of any confidence, for the page.
        overwrite: also files that are not ours.

    Raises:
        OutputError: the disk or the folder does not take it, or a file of somebody else stands there.
        VideoError: a format that shows the video cannot read it any more.
    """
    stored = with_suffix(target, CURVES)
    files = {name: with_suffix(target, SUFFIXES[name]) for name in sorted({*formats, "json"}, key=_json_last)}
    try:
        if stored.exists() and _stands(files["json"], result):
            files = {name: path for name, path in files.items() if not path.exists()}
        elif stored.exists():
            for suffix in (".json", *SUFFIXES.values(), CURVES):
                with_suffix(target, suffix).unlink(missing_ok=True)
        elif not overwrite and (foreign := next(filter(Path.exists, files.values()), None)) is not None:
            raise OutputError(f"{foreign}: is there already, and not ours; use --overwrite or another -o.")
        if not stored.exists():
            write_atomically(stored, pack(curves))
        for name, path in files.items():
            if name in VIEWS:
                views.write(name, result, curves, path, everything, on_progress)
                continue
            text = io.StringIO()
            WRITERS[name](result, text)
            write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise cannot_write(target, error) from error


def _json_last(name: str) -> bool:
    return name == "json"


def _stands(path: Path, result: Result) -> bool:
    """Whether a file holds the same segments, made from the same content in the same way."""
    try:
        there = Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ResultError):
        return False
    ours = Result.from_dict(json.loads(json.dumps(result.to_dict())))
    return there.provenance == ours.provenance and there.segments == ours.segments


def write_index(results: Iterable[tuple[str, Result]], out: Path) -> None:
    """The page over the pages of a folder's results, by name, as `index.html`.

    Raises:
        VideoError: a video cannot be read any more.
        OutputError: it cannot be written.
    """
    shown = []
    for name, result in results:
        page, video = with_suffix(out / name, SUFFIXES["html"]), Path(result.video)
        shown.append((result, page if page.exists() else None, video if video.is_file() else None))
    views.write_index(shown, out)

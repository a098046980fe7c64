"""Results are written here: the JSON, its curves and the other formats of a video, and the page over a folder."""

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.cache.content import Video
from pipeline.run.remaking import Redo, another_video, compare
from pipeline.run.results import CURVES, Packed, Stored, pack, result_in, written_beside
from pipeline.run.videos import Job
from postprocess.curves import Curves
from postprocess.formats.writers import OF_THE_VIDEO, SUFFIXES, VIEWS, WRITERS
from postprocess.segment import Result, ResultError, Segment
from support.errors import OutputError, UserError, cannot_write
from support.files import back_up, move, sha256, sweep, write_atomically, write_temporary, writing
from support.paths import with_suffix
from support.progress import Progress, silent


def prepare_output(folder: Path, jobs: Sequence[Job] = ()) -> None:
    """Make the output folder, check that it can be written, and remove what killed runs left in it.

    Raises:
        OutputError: the folder cannot be written.
        DiskFull: the disk is full.
    """
    with writing(folder, "choose another folder with -o"):
        folder.mkdir(parents=True, exist_ok=True)
        write_temporary(folder, "write-test", b"jcdnet").unlink()
        for place in {folder, *((folder / job.name).parent for job in jobs)}:
            sweep(place)


def in_their_places(
    jobs: Sequence[Job], out: Path, suffix: str, video_in: Callable[[Path], str | None]
) -> tuple[list[Job], list[str]]:
    """Let results keep the names that they have in the folder from an earlier run.

    Args:
        suffix: the suffix of the results.
        video_in: returns the video that such a file names, or None.

    Returns:
        The videos with the names of their results, and messages for the user.
    """
    names = {job.name for job in jobs}
    found, messages, moved = [], [], []
    for job in jobs:
        own = with_suffix(out / job.name, suffix)
        if not os.path.exists(own) or another_video(video_in(own) or "", job.video):  # noqa: PTH110
            for name in (name for name in job.older if name not in names):
                path = with_suffix(out / name, suffix)
                named = video_in(path) if os.path.exists(path) else None  # noqa: PTH110
                if named is None or Path(named).name != job.video.name:
                    continue
                another = another_video(named, job.video)
                if another is False:
                    job = Job(job.video, name)
                    names.add(name)
                    moved.append(f"{path} for {job.video}")
                    break
                if another is None:  # the file that it names is gone, so it may be this video
                    messages.append(
                        f"{path}: may be of {job.video}, under the name of an earlier run; it stays as it is."
                    )
        found.append(job)
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        messages.append(f"results keep the names that they have from an earlier run: {moved[0]}{more}.")
    return found, messages


def check_names(target: Path, video: Video, suffixes: Iterable[str]) -> None:
    """Check, before a video is extracted, that the file system takes the names of its results.

    Raises:
        OutputError: a name is too long.
    """
    folder = next(folder for folder in target.parents if folder.exists())
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return
    suffix = max(suffixes, key=len)
    if (length := len(os.fsencode(target.name + suffix))) > most:
        raise OutputError(
            f"{video}: its result would be called {target.name[:20]}…{suffix}, {length} bytes, and the folder "
            f"takes {most}; rename the video."
        )


def standing_formats(target: Path) -> list[str]:
    """Return the formats of which `target` has a file already."""
    return [name for name, suffix in SUFFIXES.items() if os.path.exists(with_suffix(target, suffix))]  # noqa: PTH110


def existing(target: Path, wanted: dict[str, object], formats: Sequence[str], video: Video) -> Result | Redo | None:
    """Look for a result at `target`.

    Returns:
        The result, if it is the one that `wanted` describes. None if there is none, or one of its files is missing.
        A `Redo` if it has to be made again, because the video has changed, another version or device made it, or this
        run asks for other segments of the same features.

    Raises:
        OutputError: there is a result of another video or of other settings, or a file that is no result.
    """
    path = with_suffix(target, ".json")
    try:
        found = Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_write(path, error) from error
    except (ValueError, ResultError, RecursionError) as error:
        raise OutputError(f"{path}: not a result of jcdnet ({error}); move it away or use --overwrite.") from error
    change = compare(found.provenance, json.loads(json.dumps(wanted)))  # JSON turns tuples into lists
    if change.none:
        ends = (CURVES, *(SUFFIXES[name] for name in formats))
        return found if all(with_suffix(target, suffix).exists() for suffix in ends) else None
    another = another_video(found.video, video)
    if change.content and another:
        raise OutputError(
            f"{path}: is the result of another video, {found.video}; choose another folder with -o, or use --overwrite."
        )
    if change.asked and not change.retuned:
        raise OutputError(
            f"{path}: was made from another file, model or settings ({change.conflict()}); ask for the same again, use "
            "--overwrite, or choose another -o."
        )
    if change.retuned and not (change.content or change.versions):
        return Redo(f"made anew, as {change.why()}")  # of all videos alike, so that it is said once
    return Redo(f"{path}: is made anew: {change.why()}", unsure=change.content and another is None)


def write_result(
    result: Result,
    curves: Curves | Packed,
    target: Path,
    formats: Sequence[str],
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = silent,
    overwrite: bool = False,
    unsure: bool = False,
) -> list[Path]:
    """Write a video's result as `<target>.json` and in other formats, and its curves as `<target>.scores.npz`.

    If this result is there already, only missing formats are made, from the file that is there: the user may have
    corrected it. Another result of jcdnet is replaced once every new file is on the disk. The curves go first, because
    they say which other files are ours. The JSON goes last: where it is, all files are there and are of one run.

    Args:
        curves: the curves; or, from a worker, also the texts of the formats, which are then not made again.
        everything: segments of any confidence, for the page.
        overwrite: replace files that are not ours, and corrections of this same result, too.
        unsure: whether the files that are there may be of another video.

    Returns:
        The `.bak` files that were made of files that the user has edited, may have edited, or may still want: a whole
        result that a partial one replaces.

    Raises:
        OutputError: the disk or the folder does not take the files, or there is a file that is not ours.
        VideoError: a format that shows the video can no longer read it.
    """
    names = sorted({*formats, "json"}, key=lambda name: name == "json")
    with writing(target), _Place(target) as place:
        ours = Result.from_dict(json.loads(json.dumps(result.to_dict())))
        there = place.result
        alike = there is not None and compare(there.provenance, ours.provenance).none
        if there is not None and alike and (there.segments == ours.segments or not overwrite):
            shown = result if there.segments == ours.segments else there
            missing = [name for name in names if not place.file(name).exists()]
            made = curves.curves() if isinstance(curves, Packed) and shown is not result else curves
            place.make(missing, shown, made, everything, on_progress)
            place.complete(curves)
            return []
        foreign = next(filter(Path.exists, map(place.file, names)), None)
        if not overwrite and not place.ours and foreign is not None:
            raise OutputError(f"{foreign}: is there already, and not ours; use --overwrite or another -o.")
        place.make(names, result, curves, everything, on_progress)
        worse = there is not None and ours.partial and not there.partial  # the video may be damaged now
        return place.replace(curves, unsure or worse)


def said_of_backup(path: Path) -> str:
    """The note about a `.bak` file that `write_result` made."""
    before = path.name.rpartition(".bak")[0]
    return (
        f"{path}: the {before} from before, kept since somebody changed it or the new one may be worse; delete it if "
        "you do not need it."
    )


def check_alone(target: Path, name: str, overwrite: bool) -> None:
    """Check, before any work, that one file of a format may be written. A JSON is checked by `existing` instead.

    Raises:
        OutputError: the file is there already.
    """
    path = with_suffix(target, SUFFIXES[name])
    if name != "json" and path.exists() and not overwrite:
        raise OutputError(f"{path}: is there already; use --overwrite or another -o.")


def write_alone(
    result: Result,
    curves: Curves,
    target: Path,
    name: str,
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = silent,
) -> None:
    """Write one format of a result and no other file; a file of that name is replaced.

    Raises:
        OutputError: the disk or the folder does not take the file.
        VideoError: a format that shows the video can no longer read it.
    """
    with writing(target), _Place(target) as place:
        place.make([name], result, curves, everything, on_progress)
        place.put(name)


class _Place:
    """The files of one result on the disk, and the new ones that will replace them."""

    def __init__(self, target: Path) -> None:
        self.target, self.stored = target, with_suffix(target, CURVES)
        self.result = result_in(self.file("json"))
        self.ours = self.stored.exists() or self.result is not None
        self.written = written_beside(self.stored) if self.ours else {}
        self.new: dict[str, Path] = {}

    def __enter__(self) -> "_Place":
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.new.values():
            path.unlink(missing_ok=True)

    def file(self, name: str) -> Path:
        """Return where a format belongs."""
        return with_suffix(self.target, SUFFIXES[name])

    def make(
        self,
        names: Sequence[str],
        result: Result,
        curves: Curves | Packed,
        everything: Sequence[Segment] | None,
        on_progress: Progress,
    ) -> None:
        """Make formats under temporary names in the folder where they belong."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        texts = curves.texts if isinstance(curves, Packed) else {}
        for name in names:
            data = b"" if name in VIEWS else texts.get(name) or text_of(name, result)
            self.new[name] = write_temporary(self.target.parent, self.file(name).name, data)
            if name in VIEWS:
                from pipeline.run import views  # only here: drawing and encoding take long to import

                drawn = curves.curves() if isinstance(curves, Packed) else curves
                views.write(name, result, drawn, self.file(name), everything, on_progress, self.new[name])

    def put(self, name: str) -> None:
        """Move a format that was made to where it belongs."""
        move(self.new.pop(name), self.file(name))

    def complete(self, curves: Curves | Packed) -> None:
        """Add the new files to those that are there."""
        hashes = self.written | {SUFFIXES[name]: sha256(path) for name, path in self.new.items()}
        for name in list(self.new):
            self.put(name)
        if hashes != self.written or not self.stored.exists():
            write_atomically(self.stored, pack(curves, hashes))

    def replace(self, curves: Curves | Packed, unsure: bool) -> list[Path]:
        """Replace the files that are there by the new ones; returns the backups of those that the user has edited."""
        hashes = {SUFFIXES[name]: sha256(path) for name, path in self.new.items()}
        ours = SUFFIXES if self.ours else self.new  # if the result is not ours, its other files are not ours either
        old = [name for name in ours if os.path.exists(self.file(name))]  # noqa: PTH110  Path.exists raises where a name is too long
        backups = [back_up(self.file(name)) for name in old if self._edited(name, hashes, unsure)]
        write_atomically(self.stored, pack(curves, hashes))
        for name in old:
            if name not in self.new:
                self.file(name).unlink(missing_ok=True)
        for name in list(self.new):  # the JSON is the last of them
            self.put(name)
        return backups

    def _edited(self, name: str, hashes: Mapping[str, str], unsure: bool) -> bool:
        """Whether the user has changed a file since it was written, or may have.

        Old versions kept no hashes. Files of theirs are compared with what the writer makes of the old result. For an
        old result itself there is no such check, so it counts as edited unless the new one has the same segments.
        """
        path, suffix = self.file(name), SUFFIXES[name]
        digest = sha256(path)
        if digest == hashes.get(suffix):
            return False  # the new file is the same
        if suffix in self.written and not (unsure and name == "json"):
            return digest != self.written[suffix]
        if name in VIEWS:  # nobody edits a page or a video
            return False
        if name == "json":
            new = result_in(self.new[name])
            return unsure or self.result is None or new is None or self.result.segments != new.segments
        try:
            return self.result is None or path.read_bytes() != text_of(name, self.result)
        except UserError:  # the format cannot hold that result, so the file was not made from it
            return True


def text_of(name: str, result: Result) -> bytes:
    """Return the file of a format, other than a page or an overlay, as bytes."""
    if name in OF_THE_VIDEO:
        from pipeline.run import exports  # only here: most runs write none of these

        result = exports.for_format(name, result)
    text = io.StringIO()
    WRITERS[name](result, text)
    return text.getvalue().encode()


def write_index(results: Iterable[Stored], out: Path) -> None:
    """Write `index.html`, the page over the pages of a folder's results.

    Raises:
        OutputError: the page cannot be written.
    """
    from pipeline.run import views

    shown = []
    for stored in results:
        page, video = stored.path.with_name(stored.stem + SUFFIXES["html"]), Path(stored.result.video)
        shown.append((stored.result, page if page.exists() else None, video if video.is_file() else None))
    views.write_index(shown, out)

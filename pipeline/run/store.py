"""Results onto disk, below an output folder: the document, its curves, other formats, and the page over all."""

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.run import views
from pipeline.run.remaking import Redo, another_video, compare
from pipeline.run.results import CURVES, Stored, pack, written_beside
from pipeline.run.videos import Job
from postprocess.curves import Curves
from postprocess.formats.writers import SUFFIXES, VIEWS, WRITERS
from postprocess.segment import Result, ResultError, Segment
from support.errors import OutputError, UserError, cannot_write
from support.files import back_up, move, sha256, sweep, write_atomically, write_temporary
from support.progress import Progress, silent


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


def standing_formats(target: Path) -> list[str]:
    """The formats of which a file stands at `target`."""
    return [name for name, suffix in SUFFIXES.items() if os.path.exists(with_suffix(target, suffix))]  # noqa: PTH110


def existing(target: Path, wanted: dict[str, object], formats: Sequence[str], video: Path) -> Result | Redo | None:
    """The result that stands at `target`, when it is the one asked for; None when there is none, or a part is missing.

    Where it is older than the video, or another version or device made it, that is said, and it is made anew.

    Raises:
        OutputError: another result stands there, of another video or asked for otherwise.
    """
    path = with_suffix(target, ".json")
    try:
        kept = Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_write(path, error) from error
    except (ValueError, ResultError, RecursionError) as error:
        raise OutputError(f"{path}: not a result of jcdnet ({error}); move it away or use --overwrite.") from error
    change = compare(kept.provenance, json.loads(json.dumps(wanted)))  # as JSON, in which a tuple is a list
    if change.none:
        ends = (CURVES, *(SUFFIXES[name] for name in formats))
        return kept if all(with_suffix(target, suffix).exists() for suffix in ends) else None
    another = another_video(kept.video, video)
    if change.content and another:
        raise OutputError(
            f"{path}: is the result of another video, {kept.video}; name another folder with -o, or use --overwrite."
        )
    if change.asked:
        raise OutputError(
            f"{path}: was made from another file, model or settings ({change.conflict()}); use --overwrite or another "
            "-o."
        )
    return Redo(f"{path}: is made anew: {change.why()}", unsure=change.content and another is None)


def write_result(
    result: Result,
    curves: Curves,
    target: Path,
    formats: Sequence[str],
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = silent,
    overwrite: bool = False,
    unsure: bool = False,
) -> list[Path]:
    """Write a video's result as `<target>.json` and the other formats, and its curves as `.scores.npz`.

    Where this very result stands, only the formats that are missing are made, of what stands there: somebody may have
    corrected it. Another result of ours is replaced once all of the new one is on the disk: the curves go first, since
    they tell whose files the others are, and the JSON last: where it stands, all stand, and are of one run.

    Args:
        everything: segments of any confidence, for the page.
        overwrite: also files that are not ours, and what somebody made of this very result.
        unsure: whether what stands there may be of another video.

    Returns:
        The `.bak` files beside, under which is kept what somebody has edited, or may have, or may still want: a whole
        result whose place a partial one takes.

    Raises:
        OutputError: the disk or the folder does not take it, or a file of somebody else stands there.
        VideoError: a format that shows the video cannot read it any more.
    """
    names = sorted({*formats, "json"}, key=lambda name: name == "json")
    try:
        with _Place(target) as place:
            ours = Result.from_dict(json.loads(json.dumps(result.to_dict())))
            there = place.result
            alike = there is not None and compare(there.provenance, ours.provenance).none
            if there is not None and alike and (there.segments == ours.segments or not overwrite):
                shown = result if there.segments == ours.segments else there
                missing = [name for name in names if not place.file(name).exists()]
                place.make(missing, shown, curves, everything, on_progress)
                place.complete(curves)
                return []
            foreign = next(filter(Path.exists, map(place.file, names)), None)
            if not overwrite and not place.ours and foreign is not None:
                raise OutputError(f"{foreign}: is there already, and not ours; use --overwrite or another -o.")
            place.make(names, result, curves, everything, on_progress)
            worse = there is not None and ours.partial and not there.partial  # the video may have been damaged since
            return place.replace(curves, unsure or worse)
    except OSError as error:
        raise cannot_write(target, error) from error


def check_alone(target: Path, name: str, overwrite: bool) -> None:
    """Before any work on one file of a format: a JSON says itself whether it may be replaced, other formats do not.

    Raises:
        OutputError: it is there.
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
    """Write one format of a result and nothing beside it; what is there is replaced.

    Raises:
        OutputError: the disk or the folder does not take it.
        VideoError: a format that shows the video cannot read it any more.
    """
    try:
        with _Place(target) as place:
            place.make([name], result, curves, everything, on_progress)
            place.put(name)
    except OSError as error:
        raise cannot_write(target, error) from error


class _Place:
    """The files of one result, and those that are to take their places."""

    def __init__(self, target: Path) -> None:
        self.target, self.stored = target, with_suffix(target, CURVES)
        self.result = _read(self.file("json"))
        self.ours = self.stored.exists() or self.result is not None
        self.written = written_beside(self.stored)
        self.new: dict[str, Path] = {}

    def __enter__(self) -> "_Place":
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.new.values():
            path.unlink(missing_ok=True)

    def file(self, name: str) -> Path:
        """Where a format belongs."""
        return with_suffix(self.target, SUFFIXES[name])

    def make(
        self,
        names: Sequence[str],
        result: Result,
        curves: Curves,
        everything: Sequence[Segment] | None,
        on_progress: Progress,
    ) -> None:
        """Make formats under temporary names beside their own."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            data = b"" if name in VIEWS else _text(name, result)
            self.new[name] = write_temporary(self.target.parent, self.file(name).name, data)
            if name in VIEWS:
                views.write(name, result, curves, self.file(name), everything, on_progress, self.new[name])

    def put(self, name: str) -> None:
        """Move a format that was made to where it belongs."""
        move(self.new.pop(name), self.file(name))

    def complete(self, curves: Curves) -> None:
        """Put what is new beside what stands, which stays."""
        hashes = self.written | {SUFFIXES[name]: sha256(path) for name, path in self.new.items()}
        for name in list(self.new):
            self.put(name)
        if hashes != self.written or not self.stored.exists():
            write_atomically(self.stored, pack(curves, hashes))

    def replace(self, curves: Curves, unsure: bool) -> list[Path]:
        """Put what is new into the place of what stands, of which every edited file is kept as `.bak`."""
        hashes = {SUFFIXES[name]: sha256(path) for name, path in self.new.items()}
        ours = SUFFIXES if self.ours else self.new  # of a result that is not ours, the other files are not either
        old = [name for name in ours if os.path.exists(self.file(name))]  # noqa: PTH110  a name may be too long
        kept = [back_up(self.file(name)) for name in old if self._edited(name, hashes, unsure)]
        write_atomically(self.stored, pack(curves, hashes))
        for name in old:
            if name not in self.new:
                self.file(name).unlink(missing_ok=True)
        for name in list(self.new):  # the JSON is the last of them
            self.put(name)
        return kept

    def _edited(self, name: str, hashes: Mapping[str, str], unsure: bool) -> bool:
        """Whether somebody has changed a file since it was written, or may have.

        Files written before hashes were kept are compared with what the writer gives for the result that stands. Of a
        result itself nothing tells, so it is kept unless the new one has the same segments.
        """
        path, suffix = self.file(name), SUFFIXES[name]
        digest = sha256(path)
        if digest == hashes.get(suffix):
            return False  # the same is written again
        if suffix in self.written and not (unsure and name == "json"):
            return digest != self.written[suffix]
        if name in VIEWS:  # made for looking; no tool edits them
            return False
        if name == "json":
            new = _read(self.new[name])
            return unsure or self.result is None or new is None or self.result.segments != new.segments
        try:
            return self.result is None or path.read_bytes() != _text(name, self.result)
        except UserError:  # the format does not take that result, so the file was not made of it
            return True


def _text(name: str, result: Result) -> bytes:
    text = io.StringIO()
    WRITERS[name](result, text)
    return text.getvalue().encode()


def _read(path: Path) -> Result | None:
    """The result in a file; None where there is none."""
    try:
        return Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ResultError, RecursionError):
        return None


def write_index(results: Iterable[Stored], out: Path) -> None:
    """The page over the pages of a folder's results, as `index.html`.

    Raises:
        OutputError: it cannot be written.
    """
    shown = []
    for stored in results:
        page, video = stored.path.with_name(stored.stem + SUFFIXES["html"]), Path(stored.result.video)
        shown.append((stored.result, page if page.exists() else None, video if video.is_file() else None))
    views.write_index(shown, out)

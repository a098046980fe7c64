"""Results are read back here: the JSON, the curves beside it, and the place where the video is now."""

import io
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.decode.video import VideoError
from extractors.featurefile import made_of
from pipeline.cache.content import Video, video_at
from postprocess.curves import Curves
from postprocess.formats.writers import RUN, SUFFIXES, is_result
from postprocess.segment import Result, ResultError
from support.errors import UsageError
from support.files import sha256, write_atomically
from support.npz import read_npz
from support.paths import is_url

CURVES = ".scores.npz"
# Bytes. A foreign .json among the footage may hold gigabytes; a result of 50,000 segments has 8 MB.
LARGEST = 32 << 20


@dataclass(frozen=True)
class Stored:
    """A result and the file that it came from."""

    path: Path
    result: Result

    @property
    def stem(self) -> str:
        """The file's name without .json. The names of its curves and its page begin with it, too."""
        return self.path.name.removesuffix(".json")


def read_results(paths: Sequence[Path], on_error: Callable[[Exception], None] | None = None) -> list[Stored]:
    """Read results from files and from folders with everything below them, in order.

    Args:
        on_error: called for each file that cannot be read, while the others are read; if none can be read, the first
            error is raised all the same. None: the first error is raised at once.

    Raises:
        UsageError: a path does not exist, or a folder holds no result.
        ResultError: a file is not a result.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*.json") if is_result(p))
            if not below:
                raise UsageError(f"{path}: no result in it; give the folder that `run -o` wrote.")
            files += below
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{path}: no such file; give a result that `run -o` wrote, or their folder.")
    found: list[Stored] = []
    wrong: list[Exception] = []
    for path in files:
        try:
            found.append(_read(path))
        except (UsageError, ResultError) as error:
            if on_error is None:
                raise
            wrong.append(error)
    if wrong and not found:
        raise wrong[0]
    if on_error is not None:
        for problem in wrong:
            on_error(problem)
    return found


def standing(folder: Path, first: Collection[str] = ()) -> tuple[list[Stored], list[str]]:
    """Find the results in an output folder.

    Of results with the same content and the same segments only one is returned: one whose name below the folder is in
    `first`, or else the first by name. A folder with a report of its own is another output folder, and is left out.

    Returns:
        The results in the order of their names, and a sentence for each damaged result.
    """
    found: list[tuple[str, Stored]] = []
    problems = []
    for root, folders, files in os.walk(folder):
        if Path(root) != folder and RUN in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in filter(is_result, (Path(root, name) for name in files)):
            ours = f"{path.name.removesuffix('.json')}{CURVES}" in files
            try:
                if not ours and path.stat().st_size > LARGEST:
                    continue
                one = _read(path)
            except (UsageError, ResultError, OSError) as error:
                problems += [str(error)] if ours else []  # without curves beside it, it never was a result
                continue
            found.append((path.relative_to(folder).as_posix().removesuffix(".json"), one))
    unique: dict[object, tuple[str, Stored]] = {}
    for name, one in sorted(found, key=lambda pair: (pair[0] not in first, Path(pair[0]))):
        content = one.result.provenance.get("content")
        unique.setdefault((str(content), one.result.segments) if content else name, (name, one))
    return [one for _, one in sorted(unique.values(), key=lambda pair: Path(pair[0]))], sorted(problems)


def common_folder(stored: Sequence[Stored]) -> Path:
    """Return the lowest folder that holds all of these results."""
    return Path(os.path.commonpath([one.path.absolute().parent for one in stored]))


def _read(path: Path) -> Stored:
    try:
        return Stored(path, Result.from_dict(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    except ResultError as error:
        raise ResultError(f"{path}: {error}; give a result that `run -o` wrote.") from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: is not JSON ({error}); give a result that `run -o` wrote.") from error


def result_in(path: Path) -> Result | None:
    """Return the result in a file; None if it holds none."""
    try:
        return _read(path).result
    except (UsageError, ResultError):
        return None


@dataclass(frozen=True)
class Packed:
    """The text files of a result and its curves as bytes, made by the worker that made the result."""

    texts: Mapping[str, bytes]
    """by format"""
    data: bytes
    """the curves, as `pack` makes them if these texts and no other files are written beside them"""
    hashes: Mapping[str, str]
    """the SHA-256 of each text, by its suffix"""

    def curves(self) -> Curves:
        """Return the curves."""
        with np.load(io.BytesIO(self.data), allow_pickle=False) as stored:
            times, actionness, cas, coarse = (stored[name] for name in ("times", "actionness", "cas", "coarse_cas"))
            return Curves(times, actionness, cas, coarse, tuple(map(str, stored["classes"])))


def pack(curves: Curves | Packed, written: Mapping[str, str] | None = None) -> bytes:
    """Pack curves into the bytes of an .npz, which `curves_of` reads.

    written: the SHA-256 of each file that was written beside it, by its suffix.
    """
    if isinstance(curves, Packed):
        if curves.hashes == dict(written or {}):
            return curves.data
        curves = curves.curves()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        times=curves.times,
        actionness=curves.actionness,
        cas=curves.cas,
        coarse_cas=curves.coarse_cas,
        classes=np.array(curves.classes),
        written=np.array(json.dumps(dict(written or {}), sort_keys=True)),
    )
    return buffer.getvalue()


def stems(stored: Sequence[Stored]) -> list[tuple[Stored, str]]:
    """Pair results with their stems. Equal stems get as many of their folders in front as make them differ."""
    from postprocess.evaluation.names import told_apart  # a run needs none of that file

    names = [one.path.absolute().with_name(one.stem).as_posix() for one in stored]
    return list(zip(stored, told_apart(names), strict=True))


def video_in(path: Path) -> str | None:
    """Return the video that a result or a features file names; None if it names none."""
    if path.suffix == ".npz":
        video = made_of(path).get("video")
        return video if isinstance(video, str) else None
    found = result_in(path)
    return None if found is None else found.video


def written_beside(path: Path) -> dict[str, str]:
    """Return the hashes that `pack` was given, by suffix; {} if there are none. A file that was edited has another."""
    try:
        found = json.loads(str(read_npz(path, ("written",))["written"][()]))
        return {str(suffix): str(digest) for suffix, digest in found.items()}
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return {}


def note_page(path: Path) -> None:
    """Note, in the curves beside a page, that the page was written anew by us: else it counts as edited by the user.

    Raises:
        ResultError: the file beside it is damaged, or holds something else.
        OSError: it cannot be written.
    """
    stem, suffix = path.name.removesuffix(SUFFIXES["html"]), SUFFIXES["html"]
    beside, json_file = path.with_name(stem + CURVES), path.with_name(f"{stem}.json")
    found = result_in(json_file) if beside.exists() else None
    written = written_beside(beside) if found is not None else {}
    if not written or written.get(suffix) == (digest := sha256(path)):  # earlier versions noted nothing
        return
    assert found is not None
    curves = curves_of(Stored(json_file, found))
    assert curves is not None
    write_atomically(beside, pack(curves, written | {suffix: digest}))


def curves_of(stored: Stored) -> Curves | None:
    """Return the curves that lie beside a result; None if there are none.

    Raises:
        ResultError: the file is damaged, or holds something else.
    """
    path = stored.path.with_name(stored.stem + CURVES)
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, ("times", "actionness", "cas", "coarse_cas", "classes"))
        return Curves(
            arrays["times"],
            arrays["actionness"],
            arrays["cas"],
            arrays["coarse_cas"],
            tuple(map(str, arrays["classes"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path}: not the curves of a result ({error}); run that video again.") from error


def video_of(stored: Stored, folder: str | Path | None = None) -> Video:
    """Find a result's video: below `folder` if that is given, or where the result says, or beside the result.

    `folder` may be an address.

    A result of a video in a store names its address. It is not asked here whether the video is still there.

    If no file has exactly this name, one that differs only in upper and lower case or in its Unicode form will do.

    Raises:
        VideoError: the video is in none of these places.
    """
    from postprocess.evaluation.names import FORMS, as_path  # a run needs none of that file

    if folder is None and is_url(stored.result.video):
        return video_at(stored.result.video)
    video = Path(stored.result.video)
    if is_url(folder or ""):
        from pipeline.run.videos import find_videos  # a run needs none of that here

        named = [job.video for job in find_videos([str(folder)]) if job.video.name == video.name]
        whole = [one for one in named if str(one).endswith(f"/{video.as_posix().lstrip('/')}")]
        if not named:
            raise VideoError(f"{stored.path}: its video {video.name} is not in {folder}; name another folder.")
        return [*whole, *named][0]
    folder = None if folder is None else Path(folder)
    places = [video, stored.path.parent / video.name]
    if folder is not None:
        places = [folder / video, folder / video.name, *sorted(folder.rglob(_literal(video.name)))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        around = [*_listed(video.parent), *_listed(stored.path.parent)]
        files = around if folder is None else sorted(folder.rglob("*"))
        name = as_path(stored.result.video).name
        alike = (place for form in FORMS for place in files if form(place.name) == form(name) and place.is_file())
        found = next(alike, None)
    if found is None:
        raise VideoError(f"{stored.path}: its video {video} is not there; name its folder with --videos.")
    return found


def truth_of(stored: Stored, path: Path) -> list[tuple[float, float, str]]:
    """Return (start, end, label) of each action that an ActivityNet ground truth lists for a result's video.

    Labels are spelled as in the result.

    Raises:
        EvaluateError: the ground truth cannot be read, or lacks the video.
    """
    from postprocess.evaluation.annotations import read_ground_truth
    from postprocess.evaluation.names import match_labels, match_names

    truth = read_ground_truth(path)
    name = match_names([stored.result.video], truth)[stored.result.video]
    meant = match_labels((a.label for a in truth[name].actions), (s.label for s in stored.result.segments))
    return [(a.start, a.end, meant.get(a.label, a.label)) for a in truth[name].actions]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _literal(name: str) -> str:
    """A glob pattern that fits this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)

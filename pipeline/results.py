"""Results on disk, read back for people: the document, its curves beside it, and where its video is now."""

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.npz import read_npz
from extractors.video import VideoError
from pipeline.annotations import read_ground_truth
from pipeline.errors import UsageError
from postprocess.curves import Curves
from postprocess.names import match_names
from postprocess.segment import Result, ResultError
from postprocess.writers import is_result

CURVES = ".scores.npz"


@dataclass(frozen=True)
class Stored:
    """A result and the file that it came from."""

    path: Path
    result: Result

    @property
    def stem(self) -> str:
        """The file's name without .json, which its curves and pictures share."""
        return self.path.name.removesuffix(".json")


def read_results(paths: Sequence[Path], on_error: Callable[[Exception], None] | None = None) -> list[Stored]:
    """Results in files and folders (recursive), in order.

    on_error: told of each file among several that cannot be read; the others go on. None: the first such error is
        raised, as it is where none can be read.

    Raises:
        UsageError: no such path, or a folder without a result.
        ResultError: a file that is none.
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
        for told in wrong:
            on_error(told)
    return found


def common_folder(stored: Sequence[Stored]) -> Path:
    """The lowest folder that holds all of them."""
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


def pack(curves: Curves) -> bytes:
    """The curves as `curves_of` reads them."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        times=curves.times,
        actionness=curves.actionness,
        cas=curves.cas,
        coarse_cas=curves.coarse_cas,
        classes=np.array(curves.classes),
    )
    return buffer.getvalue()


def curves_of(stored: Stored) -> Curves | None:
    """The curves that stand beside a result; None where they do not.

    Raises:
        ResultError: they are damaged, or of something else.
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


def video_of(stored: Stored, folder: Path | None = None) -> Path:
    """Where a result's video is: below `folder`, where the result says, or beside the result.

    Raises:
        VideoError: nowhere of these.
    """
    said = Path(stored.result.video)
    places = [said, stored.path.parent / said.name]
    if folder is not None:
        places = [folder / said, folder / said.name, *sorted(folder.rglob(_literal(said.name)))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise VideoError(f"{stored.path}: its video {said} is not there; name its folder with --videos.")
    return found


def truth_of(stored: Stored, path: Path) -> list[tuple[float, float, str]]:
    """(start, end, label) of what an ActivityNet ground truth says of a result's video.

    Raises:
        EvaluateError: it cannot be read, or does not know the video.
    """
    truth = read_ground_truth(path)
    name = match_names([stored.result.video], truth)[stored.result.video]
    return [(action.start, action.end, action.label) for action in truth[name].actions]


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)

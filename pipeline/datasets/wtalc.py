"""Reads W-TALC's feature sets: object arrays, which are pickles, without running what is in them.

`NAME-I3D-JOINTFeatures.npy` holds an array (T, 2048) for each video, RGB first, and `NAME-Annotations/` describes the
videos. CO2-Net, HAM-Net, DELU and others use the same files, for THUMOS14 and ActivityNet 1.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.datasets import DatasetError
from postprocess.evaluation.annotations import Action, AnnotatedVideo
from postprocess.evaluation.protocols import AMBIGUOUS
from support.pickles import text, unpickle_arrays

JOINT = "-I3D-JOINTFeatures.npy"
STREAM_WIDTH = 1024  # columns of one stream in published I3D features

_NEEDED = ("videoname", "classlist", "subset", "labels_all")
_OPTIONAL = ("labels", "segments", "duration")


class VideoLabels(NamedTuple):
    """The classes that a video shows, in alphabetical order, and its subset, "" for none."""

    labels: tuple[str, ...]
    subset: str


@dataclass(frozen=True, eq=False)
class WtalcVideo:
    """A video in W-TALC's arrays.

    Attributes:
        rows: (T, 2048) features; T = 0 for a video that was no longer available.
        about: its labels and its subset.
        duration: seconds; None if the arrays do not say.
        actions: annotated segments.
    """

    rows: NDArray[np.floating]
    about: VideoLabels
    duration: float | None
    actions: tuple[Action, ...]


def labels_from_ground_truth(ground_truth: Mapping[str, AnnotatedVideo]) -> dict[str, VideoLabels]:
    """Return the labels of whole videos from their annotated segments; THUMOS14's "Ambiguous" is no class."""
    return {
        name: VideoLabels(tuple(sorted({action.label for action in video.actions} - AMBIGUOUS)), video.subset)
        for name, video in ground_truth.items()
    }


# --- object arrays ---


def read_numpy_objects(path: Path) -> NDArray[Any]:
    """Read an .npy file of numbers, of text, or of Python objects: lists, text, numbers and arrays of these.

    Files of Python 2 and of any version of NumPy are read. Tuples become lists, and text of Python 2 becomes bytes.
    Arrays of numbers within an array of objects are read-only.

    Raises:
        DatasetError: the file is missing, damaged, or holds something else; nothing in it was run.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read_header = np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(file)
            if not dtype.hasobject:
                return np.asarray(np.load(path, allow_pickle=False))
            # With bytes, because Python 2 wrote the numbers of an array as text.
            values = unpickle_arrays(file, encoding="bytes")
        if not isinstance(values, np.ndarray) or values.shape != shape:
            raise ValueError(f"not an array {shape}")
        return values
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error}); check the path.") from error
    except Exception as error:  # a hostile pickle can raise anything
        raise DatasetError(
            f"{path}: not an array of plain data ({error}); nothing in it was run, get the file again."
        ) from error


# --- W-TALC ---


def read_wtalc(features: Path) -> tuple[dict[str, WtalcVideo], tuple[str, ...]]:
    """Read `NAME-I3D-JOINTFeatures.npy` and the arrays of `NAME-Annotations/` beside it.

    Two files are ignored: extracted_fps.npy, which says 10 although the features have 25 frames per second
    (sujoyp/wtalc-pytorch#9), and original_fps.npy, the frame rate of the original videos.

    Returns:
        Videos by name, and the classes, both in their published order.

    Raises:
        DatasetError: a file is missing or damaged, or the files do not fit one another.
    """
    folder = features.with_name(features.name.removesuffix(JOINT) + "-Annotations")
    if not folder.is_dir():
        raise DatasetError(f"{features}: its annotations are not beside it; put the folder {folder.name} there.")
    files = {kind: folder / f"{kind}.npy" for kind in (*_NEEDED, *_OPTIONAL)}
    arrays = {kind: read_numpy_objects(path) for kind, path in files.items() if kind in _NEEDED or path.is_file()}
    try:
        classes, names = (tuple(map(text, arrays.pop(kind).ravel())) for kind in ("classlist", "videoname"))
    except ValueError as error:
        raise DatasetError(f"{folder}: classlist.npy or videoname.npy holds {error}; get both again.") from error
    arrays["features"] = read_numpy_objects(features)
    for kind, array in arrays.items():
        if array.shape[:1] != (len(names),):
            raise DatasetError(f"{folder}: videoname.npy names {len(names)} videos, and {kind} is {array.shape}.")
    videos: dict[str, WtalcVideo] = {}
    for i, name in enumerate(names):
        try:
            if name in videos:
                raise ValueError("it comes twice")
            videos[name] = _video({kind: array[i] for kind, array in arrays.items()}, classes)
        except (TypeError, ValueError, IndexError) as error:
            raise DatasetError(
                f"{features} and {folder.name}: video {name!r}: {error}; get the files again."
            ) from error
    return videos, classes


def _video(item: Mapping[str, Any], classes: tuple[str, ...]) -> WtalcVideo:
    """Make a video of its item in each array; raises ValueError, TypeError or IndexError if one is wrong."""
    labels = tuple(sorted({text(label) for label in item["labels_all"]}))
    actions: tuple[Action, ...] = ()
    if "segments" in item and "labels" in item:
        spans, names = item["segments"], item["labels"]
        if len(spans) != len(names):
            raise ValueError(f"{len(spans)} segments with {len(names)} labels")
        actions = tuple(Action(float(s), float(e), text(name)) for (s, e), name in zip(spans, names, strict=True))
    for label in (*labels, *(action.label for action in actions)):
        if label not in classes:
            raise ValueError(f"its label {label!r} is not in classlist.npy")
    for action in actions:
        if not 0 <= action.end - action.start < np.inf:
            raise ValueError(f"a segment from {action.start:g} to {action.end:g} s")
    duration = float(np.ravel(item["duration"])[0]) if "duration" in item else 0.0
    about = VideoLabels(labels, text(item["subset"]))
    return WtalcVideo(_rows(np.asarray(item["features"])), about, duration if 0 < duration < np.inf else None, actions)


def _rows(rows: NDArray[Any]) -> NDArray[np.floating]:
    """Return (T, 2048) of a video; nothing, or all zeros, means that the video was no longer available."""
    if rows.size and (rows.ndim != 2 or rows.shape[1] != 2 * STREAM_WIDTH or rows.dtype.kind != "f"):
        raise ValueError(f"features {rows.dtype} {rows.shape}, not (T, {2 * STREAM_WIDTH})")
    return rows if rows.any() else np.zeros((0, 2 * STREAM_WIDTH), np.float32)

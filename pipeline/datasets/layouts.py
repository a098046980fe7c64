"""Reads feature sets: our own files, and the layouts in which others publish theirs.

| layout | what the folder holds |
|---|---|
| own | `<name>.npz` of `extract`, also in folders |
| W-TALC (CO2-Net, HAM-Net, DELU) | `NAME-I3D-JOINTFeatures.npy` beside `NAME-Annotations/` |
| UM (CoLA, BaS-Net) | `rgb/`, `flow/` of `<name>.npy`, also in `features/train/`, `features/test/`; lists; `gt.json` |
| plain | `<name>.npy`, (T, 1024) of one stream or (T, 2048) of both, RGB first |

Only our own files have the times of their rows. In the others row i is [16 i / fps, 16 (i + 1) / fps), where fps is 25
by convention.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors import features
from extractors.config import STREAMS, FeatureConfig
from model.datasets import DatasetError
from pipeline import precisions
from pipeline.datasets.featureset import FeatureSet, Rows, StoredVideo, checked_streams
from pipeline.datasets.wtalc import JOINT, STREAM_WIDTH, read_wtalc
from postprocess.evaluation.annotations import AnnotatedVideo, read_ground_truth

LEVELS = ("train", "test")
GRID = FeatureConfig()
OFF_GRID = 1.25  # a larger factor between the rows and the durations means another frame rate

_UNDERSTOOD = (
    f"understood are the <name>.npz of `extract`, NAME{JOINT} beside NAME-Annotations/, folders rgb/ and flow/ of "
    "<name>.npy (also in features/train/ and features/test/), and <name>.npy of (T, 1024) or (T, 2048)"
)


def read_feature_set(folder: Path, *, fps: float | None = None, streams: Iterable[str] | None = None) -> FeatureSet:
    """Read the feature set in a folder, in any layout of this module.

    Args:
        folder: the folder; its videos come in alphabetical or in the published order.
        fps: frames per second of a published layout; None is 25, or an error if 25 is impossible.
        streams: the streams to read; None: all. Arrays of width 1024 need it, since they do not say which one they are.

    Raises:
        DatasetError: the folder has no layout or several, or files are missing, damaged, or do not fit one another.
        FeaturesError: one of our own files is damaged.
        EvaluateError: gt.json is not a ground truth, or lacks a video.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the one that holds the features.")
    if fps is not None and not 0 < fps < np.inf:
        raise DatasetError(f"{fps:g} frames per second make no sense; give the rate that the features were made at.")
    wanted = None if streams is None else checked_streams(streams)
    own = [p for p in _visible(folder.rglob("*.npz")) if not p.name.endswith(".scores.npz")]
    joint = _visible(folder.glob(f"*{JOINT}"))
    levels = _levels(folder)
    plain = [] if joint else _visible(folder.glob("*.npy"))
    found = [f"{len(own)} .npz files"] * bool(own) + [path.name for path in joint]
    found += ["rgb/ or flow/ folders"] * bool(levels) + [f"{len(plain)} .npy files"] * bool(plain)
    if not found:
        raise DatasetError(f"{folder}: no features in it, only {_contents(folder)}; {_UNDERSTOOD}.")
    if len(found) > 1:
        raise DatasetError(f"{folder}: holds {' and '.join(found)}; put each feature set in a folder of its own.")
    if own:
        if fps is not None:
            raise DatasetError(f"{folder}: these features know their own times; leave fps out.")
        return _read_own(folder, own, wanted)
    if joint:
        return _read_wtalc(joint[0], fps, wanted)
    rate = GRID.fps if fps is None else fps
    return _read_levels(folder, levels, rate, wanted) if levels else _read_plain(plain, rate, wanted)


def grid(rows: int, fps: float) -> NDArray[np.float64]:
    """Return (T, 2) seconds of T rows of 16 frames each; each row ends exactly where the next one starts."""
    edges = np.arange(rows + 1) * GRID.stride / fps
    return np.stack((edges[:-1], edges[1:]), axis=1)


def _on_grid(layout: str, streams: Iterable[str], fps: float) -> dict[str, dict[str, Any]]:
    about = {"layout": layout, "fps": fps, "length": GRID.length, "stride": GRID.stride}
    return {name: dict(about) for name in streams}


def _visible(paths: Iterable[Path]) -> list[Path]:
    """The files in order, without the hidden ones that file managers leave."""
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def _contents(folder: Path) -> str:
    """Say in a few words what a folder holds."""
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    kinds = Counter(f"{path.suffix} files" if path.is_file() else f"{path.name}/" for path in entries)
    parts = [kind if kind.endswith("/") else f"{count} {kind}" for kind, count in kinds.most_common(4)]
    return ", ".join(parts) or "nothing"


def _read_own(folder: Path, files: Sequence[Path], streams: tuple[str, ...] | None) -> FeatureSet:
    videos: dict[str, StoredVideo] = {}
    settings: dict[str, dict[str, Any]] = {}
    each: list[dict[str, dict[str, Any]]] = []
    notes: list[str] = []
    for path in files:
        name = path.relative_to(folder).as_posix().removesuffix(".npz")
        stored = features.load(path)
        here = tuple(stream for stream in STREAMS if getattr(stored, stream) is not None)
        wanted = here if streams is None else streams
        if missing := [stream for stream in wanted if stream not in here]:
            raise DatasetError(
                f"{path}: has no {missing[0]} stream; extract it too, or use {' and '.join(here)} alone."
            )
        if not len(stored.times):
            raise DatasetError(f"{path}: holds no snippet; extract it again, or take it away.")
        own = {stream: stored.settings.get(stream, {}) for stream in wanted}
        if settings and precisions.without(own) != precisions.without(settings):
            first = next(iter(videos))
            raise DatasetError(
                f"{folder}: {first} and {name} were extracted with different settings "
                f"({_difference(precisions.without(settings), precisions.without(own))}); extract one of them again."
            )
        settings = own
        each.append(own)
        notes += [f"{name}: {warning}" for warning in stored.warnings]
        videos[name] = StoredVideo(name, partial(_stacked, path), wanted, stored.times, stored.duration)
    if several := precisions.mixed(each):
        notes.append(f"{folder}: the features are of several precisions ({several}); {precisions.MEASURED}.")
    return FeatureSet(videos, tuple(settings), precisions.joined(each), notes=tuple(notes))


def _stacked(path: Path, streams: tuple[str, ...]) -> Rows:
    return features.load(path).stacked(streams)


def _difference(a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]) -> str:
    if a.keys() != b.keys():
        return f"{' and '.join(a)}, not {' and '.join(b)}"
    pairs = [(stream, name) for stream in a for name in {**a[stream], **b[stream]}]
    stream, name = next((s, n) for s, n in pairs if a[s].get(n) != b[s].get(n))
    return f"{stream} {name}: {a[stream].get(name)}, {b[stream].get(name)}"


def _read_wtalc(path: Path, fps: float | None, streams: tuple[str, ...] | None) -> FeatureSet:
    stored, classes = read_wtalc(path)
    there = {name: video for name, video in stored.items() if len(video.rows)}
    if not there:
        raise DatasetError(f"{path}: no video in it has features; get the file again.")
    rates = [len(video.rows) * GRID.stride / video.duration for video in there.values() if video.duration]
    seen = float(np.median(rates)) if rates else GRID.fps
    if fps is None and not 1 / OFF_GRID < seen / GRID.fps < OFF_GRID:
        raise DatasetError(
            f"{path}: by duration.npy its rows come from {seen:.1f} frames per second, not 25; give fps."
        )
    fps = fps or GRID.fps
    lost = len(stored) - len(there)
    videos = {
        name: StoredVideo(name, partial(_columns, v.rows), STREAMS, grid(len(v.rows), fps), v.duration, *v.about)
        for name, v in there.items()
    }
    truth = {name: AnnotatedVideo(video.about.subset, video.actions) for name, video in stored.items()}
    return FeatureSet(
        videos,
        STREAMS,
        _on_grid("W-TALC", STREAMS, fps),
        classes,
        truth if any(video.actions for video in truth.values()) else {},
        (f"{lost} of {len(stored)} videos have no features and were left out.",) if lost else (),
    ).select(streams or STREAMS)


def _columns(rows: NDArray[np.floating], streams: tuple[str, ...]) -> NDArray[np.floating]:
    """Return the columns of these streams, of (T, 2048) rows with RGB first."""
    first, last = STREAMS.index(streams[0]), STREAMS.index(streams[-1]) + 1
    return rows[:, first * STREAM_WIDTH : last * STREAM_WIDTH]


def _levels(folder: Path) -> dict[str, dict[str, Path]]:
    """Map subset ("" for none) → stream → its folder."""
    base = folder / "features" if (folder / "features").is_dir() else folder
    places = {level: base / level for level in ("", *LEVELS)}
    found = {level: {s: place / s for s in STREAMS if (place / s).is_dir()} for level, place in places.items()}
    return {level: streams for level, streams in found.items() if streams}


def _read_levels(
    folder: Path, levels: Mapping[str, Mapping[str, Path]], fps: float, streams: tuple[str, ...] | None
) -> FeatureSet:
    wanted = streams or tuple(stream for stream in STREAMS if any(stream in level for level in levels.values()))
    lists = {level: _lines(path) for level in LEVELS if (path := folder / f"split_{level}.txt").is_file()}
    listed = {name: level for level, names in lists.items() for name in names}
    videos: dict[str, StoredVideo] = {}
    for level, places in levels.items():
        files: dict[str, dict[str, Path]] = {}
        for stream in wanted:
            if stream not in places:
                raise DatasetError(f"{next(iter(places.values())).parent}: has no {stream}/; add it, or leave it out.")
            files[stream] = {path.stem: path for path in _visible(places[stream].glob("*.npy"))}
        # A list says which videos count: BaS-Net's leaves out three that are mislabelled.
        names = lists.get(level) if level else list(listed) or None
        for name in sorted(set().union(*files.values())) if names is None else names:
            if name in videos:
                raise DatasetError(f"{folder}: video {name!r} comes twice; keep it in one subset.")
            if lost := next((stream for stream in wanted if name not in files[stream]), None):
                raise DatasetError(f"{places[lost]}: no {name}.npy in it; add it, or take the video out everywhere.")
            paths = {stream: files[stream][name] for stream in wanted}
            rows = {stream: len(_array(path)) for stream, path in paths.items()}
            # Flow has one frame less, so its last snippet may be missing (TadTR#8).
            if max(rows.values()) - min(rows.values()) > 1:
                counts = " and ".join(f"{count} of {stream}" for stream, count in rows.items())
                raise DatasetError(f"{folder}: video {name!r} has {counts} rows; extract it again, or take it out.")
            read = partial(_side_by_side, paths)
            times = grid(min(rows.values()), fps)
            videos[name] = StoredVideo(name, read, wanted, times, subset=level or listed.get(name, ""))
    if not videos:
        raise DatasetError(f"{folder}: its rgb/ and flow/ hold no .npy files; {_UNDERSTOOD}.")
    found = FeatureSet(videos, wanted, _on_grid("UM", wanted, fps))
    truth = folder / "gt.json"
    return found.annotated(read_ground_truth(truth)) if truth.is_file() else found


def _lines(path: Path) -> list[str]:
    try:
        return [name for line in path.read_text(encoding="utf-8").splitlines() if (name := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a list of videos ({error}); get the file again.") from error


def _side_by_side(paths: Mapping[str, Path], streams: tuple[str, ...]) -> NDArray[np.floating]:
    parts = [_array(paths[stream]) for stream in streams]
    if len(parts) == 1:
        return parts[0]
    shortest = min(map(len, parts))
    return np.concatenate([part[:shortest] for part in parts], axis=1, dtype=np.float32)


def _read_plain(files: Sequence[Path], fps: float, streams: tuple[str, ...] | None) -> FeatureSet:
    shapes = {path: _array(path).shape for path in files}
    width = shapes[files[0]][1]
    if odd := next((path for path, shape in shapes.items() if shape[1] != width), None):
        raise DatasetError(f"{files[0]} is {width} wide and {odd.name} {shapes[odd][1]}; one folder, one width.")
    if width not in (STREAM_WIDTH, 2 * STREAM_WIDTH):
        raise DatasetError(f"{files[0]}: is {width} wide; understood are 1024, one stream, and 2048, RGB then flow.")
    if width == STREAM_WIDTH and (streams is None or len(streams) > 1):
        raise DatasetError(f"{files[0]}: is 1024 wide, one stream; say which, rgb or flow.")
    there = streams if streams and width == STREAM_WIDTH else STREAMS
    videos = {
        path.stem: StoredVideo(path.stem, partial(_plain_rows, path), there, grid(rows, fps))
        for path, (rows, _) in shapes.items()
    }
    return FeatureSet(videos, there, _on_grid("plain", there, fps)).select(streams or there)


def _plain_rows(path: Path, streams: tuple[str, ...]) -> NDArray[np.floating]:
    rows = _array(path)
    return rows if rows.shape[1] == STREAM_WIDTH else _columns(rows, streams)


def _array(path: Path) -> NDArray[np.floating]:
    """Return (T, D) of a file, memory-mapped.

    Raises:
        DatasetError: the file holds something else.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except Exception as error:  # a header can be wrong in many ways; NumPy's own message advises to trust the file
        raise DatasetError(f"{path}: not a whole array of numbers; get the file again.") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        about = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "an archive"
        raise DatasetError(f"{path}: holds {about}, not floating-point (T, D); {_UNDERSTOOD}.")
    if not len(rows):
        raise DatasetError(f"{path}: holds no row; extract it again, or take it away.")
    return rows

"""A CSV of labels and a folder of footage in, a localizer of one's own out: extraction, model/train.py, a check.

`plan` (plan.py) finds everything that is wrong with the request before anything runs, `gather` brings the
features, through the cache, `fit` trains.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.decode.container import VideoError
from extractors.features import Extractor, FeaturesError
from model import checkpoint
from model.checkpoint import Checkpoint
from model.config import ModelConfig, TrainConfig
from model.datasets import DatasetError, VideoSet
from model.train import LOG_NAME, STATE_NAME, TrainError, initialise, train
from pipeline.cache.entries import FeatureCache, content_hash
from pipeline.datasets.featureset import FeatureSet
from pipeline.training.crossval import FILE_NAME as QUALITY_NAME
from pipeline.training.crossval import Quality, cross_validate, sweep
from pipeline.training.plan import Plan, listed
from pipeline.training.settings import Recipe, from_embedded
from postprocess.config import LocalizeConfig
from postprocess.pages import plots
from support.errors import UsageError, cannot_write
from support.locks import BEAT, STALE, Lock
from support.progress import Progress, silent

CURVES_NAME = "curves.png"
LOCK_NAME = ".training.lock"
FOLDS = 4

# What a model asks of the features that it is run on. The rest of their settings (versions, device, precision,
# decoder) moves them by less than JCDNet notices, and stands in the checkpoint's provenance.
DECLARED = ("layout", "backbone", "fps", "length", "stride", "short_side", "crop", "weights", "flow_clip")


@dataclass(frozen=True)
class Gathered:
    """Training data, and what a checkpoint must say of it."""

    data: VideoSet
    streams: tuple[str, ...]
    features: dict[str, Any]
    """by stream: what a video must be extracted with to be run through the model"""
    provenance: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """A checkpoint, where it stands, and how good it is on videos that it has not seen."""

    checkpoint: Checkpoint
    path: Path
    config: TrainConfig
    quality: Quality | None


def gather(
    wanted: Plan,
    extractor: Extractor | None = None,
    cache: FeatureCache | None = None,
    on_video: Callable[[Path], Progress] = lambda path: silent,
) -> Gathered:
    """The features of every row: extracted where the cache lacks them, or read.

    Args:
        wanted: what `plan` gave.
        extractor: for videos.
        cache: where features of videos are looked for and kept.
        on_video: called with each video that is begun, gives its progress callable.

    Raises:
        DatasetError: features that cannot be trained on; videos that broke while they were extracted, all of them.
    """
    if wanted.features is not None:
        return _read(wanted, wanted.features)
    assert extractor is not None
    cache = cache or FeatureCache()
    arrays: list[np.ndarray] = []
    seen: dict[str, Path] = {}
    said = list(wanted.notes)
    broken: list[str] = []
    for row in wanted.rows:
        path = wanted.videos[row.video]
        progress = on_video(path)
        try:
            content = content_hash(path, progress)
            if (twin := seen.setdefault(content, path)) != path:
                said.append(f"{path}: is the same video as {twin}, so the check on held-out videos will flatter.")
            features = cache.features(path, content, extractor, on_progress=progress, on_damage=said.append)
        except (VideoError, FeaturesError) as error:
            broken.append(str(error))
            continue
        said += [f"{path}: {warning}" for warning in features.warnings]
        arrays.append(features.stacked(extractor.streams))
    if broken:
        raise DatasetError(
            f"{len(broken)} of {len(wanted.rows)} videos could not be extracted; "
            f"mend them or take their rows out:{listed(broken)}"
        )
    settings = extractor.settings()
    return Gathered(
        data=_video_set(wanted, arrays),
        streams=extractor.streams,
        features=declared(settings),
        provenance={"features": settings},
        warnings=tuple(said),
    )


def _read(wanted: Plan, stored: FeatureSet) -> Gathered:
    arrays = [stored.videos[wanted.found[row.video]].load() for row in wanted.rows]
    return Gathered(
        data=_video_set(wanted, arrays),
        streams=stored.streams,
        features=declared(stored.settings),
        provenance={"features": stored.settings},
        warnings=(*wanted.notes, *stored.notes),
    )


def _video_set(wanted: Plan, arrays: list[np.ndarray]) -> VideoSet:
    labels = np.array([[name in row.labels for name in wanted.classes] for row in wanted.rows], dtype=bool)
    return VideoSet(arrays, labels, tuple(row.video for row in wanted.rows), wanted.classes)


def declared(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By stream, the settings that features must share with those a model was trained on."""
    return {stream: {name: values[name] for name in DECLARED if name in values} for stream, values in settings.items()}


@dataclass(frozen=True)
class Course:
    """What a training does, once its data is known."""

    model: ModelConfig
    training: TrainConfig
    folds: int
    """of the check on held-out videos; less than 2: no check"""
    embedded: Checkpoint | None = None
    """the model to start from; None draws all weights from the seed"""


def course(recipe: Recipe, gathered: Gathered, embedded: Checkpoint | None = None) -> Course:
    """The network and the training for this data; `embedded`: the model to start from.

    Raises:
        UsageError: the settings do not fit the data.
    """
    data = gathered.data
    model, training = recipe.complete(data.classes, data.lengths, data.width)
    asked = recipe.settings.folds
    return Course(model, training, min(FOLDS, len(data.names)) if asked is None else asked, embedded)


def fit(
    gathered: Gathered,
    wanted: Course,
    folder: Path,
    *,
    localize: LocalizeConfig | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> Trained:
    """Train, write `folder`/model.safetensors with its log and its curves, then check it on held-out videos.

    The folder must be this process's alone: call it inside `alone(folder)`.

    Args:
        gathered: what `gather` gave.
        wanted: what `course` gave.
        folder: of the model; what a killed training left there is gone on with.
        localize: with which the check draws segments; None is `run`'s default.
        device: where to compute.
        overwrite: start over, whatever stands in `folder`.
        on_progress: ("train", steps done, steps), then ("check", …) over all folds.

    Raises:
        TrainError, CheckpointError, UsageError: as model.train and `from_embedded`.
    """
    data, training = gathered.data, wanted.training
    start = initialise(wanted.model, data.classes, gathered.streams, gathered.features, training.seed)
    if wanted.embedded is not None:
        start = from_embedded(wanted.embedded, start)
    start = dataclasses.replace(start, provenance={**start.provenance, **gathered.provenance})
    if overwrite:  # or, killed before its own check, this training would meet what another's left
        for name in (QUALITY_NAME, STATE_NAME, LOG_NAME):
            (folder / name).unlink(missing_ok=True)
        sweep(folder)
    finished = train(start, data, training, folder, device=device, resume=not overwrite, on_progress=on_progress)
    path = folder / checkpoint.FILE_NAME
    checkpoint.save(finished, path)
    checkpoint.write_atomically(folder / CURVES_NAME, plots.training(*_log(folder / LOG_NAME)))
    quality = None
    if wanted.folds < 2:
        (folder / QUALITY_NAME).unlink(missing_ok=True)  # it may be of another model
        sweep(folder)
    else:
        quality = cross_validate(
            start,
            data,
            training,
            localize or LocalizeConfig(),
            wanted.folds,
            folder,
            device=device,
            resume=not overwrite,
            on_progress=on_progress,
        )
    return Trained(finished, path, training, quality)


@contextlib.contextmanager
def alone(folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep a model's folder to this process: of two trainings, one would leave its model and the other its check.

    A killed one is no hindrance; whether one on another machine still lives is known after a minute, before which
    `on_wait` is called.

    Raises:
        UsageError: another training is at work there.
        OutputError, DiskFull: the folder cannot be written.
    """
    lock, patience = Lock(folder / LOCK_NAME), time.monotonic() + STALE + 2 * BEAT
    try:
        if not (ours := lock.take()) and not lock.holder_lives():
            on_wait()
            ours = lock.wait(lambda: lock.holder_lives() or time.monotonic() > patience)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if not ours:
        raise UsageError(
            f"{folder}: another training is at work there; wait for its end, or choose another -o "
            f"(if there is none, remove {lock.path})."
        )
    with lock.held():
        yield


def check_folder(folder: Path, overwrite: bool) -> None:
    """Before hours are spent: a model is never replaced unasked, and a training in progress is gone on with.

    Raises:
        UsageError: a model stands there without the state that it came from.
    """
    model = folder / checkpoint.FILE_NAME
    if model.exists() and not overwrite and not (folder / STATE_NAME).exists():
        raise UsageError(f"{model}: is there, but not the state that it came from; use --overwrite or another -o.")


def _log(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Columns and (steps, columns) values of a training's log."""
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        values = np.array([[float(cell) for cell in row.split(",")] for row in rows])
        return tuple(header.split(",")), values
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: the training's log cannot be read ({error}); train with --overwrite.") from error

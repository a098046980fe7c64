"""Training of a user's own model: labels and footage in, a checkpoint out, with a check of how good it is.

`plan` (plan.py) finds every mistake in the request before anything runs. `gather` extracts the features or reads them
from the cache. `fit` trains with model/train.py, and checks the model on held-out videos.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from extractors.config import USUAL, FeatureConfig
from extractors.decode.video import VideoError
from extractors.features import Extractor, FeaturesError
from model import checkpoint
from model.checkpoint import Checkpoint
from model.config import ModelConfig, TrainConfig
from model.datasets import DatasetError, VideoSet
from model.presets import localization_for, spread_for
from model.train import LOG_NAME, STATE_NAME, TrainError, initialise, train
from pipeline.cache.content import Video, content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.datasets.featureset import FeatureSet
from pipeline.training.crossval import FILE_NAME as QUALITY_NAME
from pipeline.training.crossval import Check, Quality, cross_validate, sweep
from pipeline.training.picture import FILE_NAME as PICTURE_NAME
from pipeline.training.picture import picture
from pipeline.training.plan import Plan, listed
from pipeline.training.settings import Recipe, from_earlier, from_embedded
from pipeline.training.snippets import EDGE, NOTHING, Timed, known, lengths
from postprocess.config import LocalizeConfig
from postprocess.pages import plots
from support.errors import UsageError
from support.files import writing
from support.locks import BEAT, STALE, Lock
from support.progress import Progress, silent

CURVES_NAME = "curves.png"
LOCK_NAME = ".training.lock"
FOLDS = 4

# The settings that features must share with those that a model was trained on. The other settings (versions, device,
# precision, decoder) change features by less than JCDNet notices; they are in the checkpoint's provenance. `run` and
# `evaluate` say when the precision is another one (pipeline/precisions.py).
DECLARED = ("layout", "backbone", "fps", "length", "stride", "short_side", "crop", *USUAL, "weights", "flow_clip")


@dataclass(frozen=True)
class Gathered:
    """Training data, and what a checkpoint must record about it."""

    data: VideoSet
    streams: tuple[str, ...]
    features: dict[str, Any]
    """by stream, the settings that a video must be extracted with before the model can run on it"""
    provenance: dict[str, Any]
    warnings: tuple[str, ...] = ()
    timed: Timed | None = None
    """when the snippets are, and what was marked; None without times"""

    @property
    def stride(self) -> int:
        """Frames from one snippet to the next."""
        return int(self.features[self.streams[0]].get("stride", FeatureConfig().stride))


@dataclass(frozen=True)
class Trained:
    """A trained checkpoint, its file, and how good it is on videos that it has not seen."""

    checkpoint: Checkpoint
    path: Path
    config: TrainConfig
    quality: Quality | None


def gather(
    wanted: Plan,
    extractor: Extractor | None = None,
    cache: FeatureCache | None = None,
    on_video: Callable[[Video], Progress] = lambda video: silent,
) -> Gathered:
    """Read the features of every row; extract those that the cache lacks.

    Args:
        wanted: the result of `plan`.
        extractor: extracts features from videos; not needed for stored features.
        cache: where the features of videos are stored.
        on_video: called when a video begins; returns the progress callable of that video.

    Raises:
        DatasetError: the features cannot be trained on, or videos failed during extraction. The message names all.
    """
    if wanted.features is not None:
        return _read(wanted, wanted.features)
    assert extractor is not None
    cache = cache or FeatureCache()
    arrays: list[np.ndarray] = []
    clock: list[tuple[np.ndarray, float]] = []
    seen: dict[str, Video] = {}
    messages = list(wanted.notes)
    broken: list[str] = []
    for row in wanted.rows:
        path = wanted.videos[row.video]
        progress = on_video(path)
        try:
            content = content_hash(path, progress)
            if (twin := seen.setdefault(content, path)) != path:
                messages.append(
                    f"{path}: is the same video as {twin}; this makes the check on held-out videos look too good."
                )
            features = cache.features(path, content, extractor, on_progress=progress, on_damage=messages.append)
        except (VideoError, FeaturesError) as error:
            broken.append(str(error))
            continue
        messages += [f"{path}: {warning}" for warning in features.warnings]
        arrays.append(features.stacked(extractor.streams))
        clock.append((features.times, features.duration))
    if broken:
        raise DatasetError(
            f"{len(broken)} of {len(wanted.rows)} videos could not be extracted; "
            f"repair them or remove their rows:{listed(broken)}"
        )
    settings = extractor.settings()
    timed = _timed(wanted, clock)
    return Gathered(
        data=_video_set(wanted, arrays, timed),
        streams=extractor.streams,
        features=declared(settings),
        provenance={"features": settings},
        warnings=tuple(messages),
        timed=timed,
    )


def _read(wanted: Plan, stored: FeatureSet) -> Gathered:
    videos = [stored.videos[wanted.found[row.video]] for row in wanted.rows]
    timed = _timed(wanted, [(video.times, video.duration or float(video.times[-1, 1])) for video in videos])
    return Gathered(
        data=_video_set(wanted, [video.load() for video in videos], timed),
        streams=stored.streams,
        features=declared(stored.settings),
        provenance={"features": stored.settings},
        warnings=(*wanted.notes, *stored.notes),
        timed=timed,
    )


def _timed(wanted: Plan, clock: Sequence[tuple[np.ndarray, float]]) -> Timed | None:
    """The times of the snippets and the seconds of each row's video, with its marks; None without times."""
    if wanted.marked is None:
        return None
    marked = tuple(wanted.marked.get(row.video, NOTHING) for row in wanted.rows)
    return Timed(tuple(times for times, _ in clock), tuple(seconds for _, seconds in clock), marked)


def _video_set(wanted: Plan, arrays: list[np.ndarray], timed: Timed | None) -> VideoSet:
    labels = np.array([[name in row.labels for name in wanted.classes] for row in wanted.rows], dtype=bool)
    shares = None
    if timed is not None:
        pairs = zip(timed.times, timed.marked, strict=True)
        shares = [known(times, marked, wanted.classes, EDGE) for times, marked in pairs]
    return VideoSet(arrays, labels, tuple(row.video for row in wanted.rows), wanted.classes, shares)


def declared(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By stream, the settings that features must share with those that a model was trained on."""
    return {stream: {name: values[name] for name in DECLARED if name in values} for stream, values in settings.items()}


@dataclass(frozen=True)
class Course:
    """Everything that decides a training once its data is known."""

    model: ModelConfig
    training: TrainConfig
    folds: int
    """folds of the check on held-out videos; fewer than 2 means no check"""
    embedded: Checkpoint | None = None
    """the model to start from; None means that all weights are drawn from the seed"""
    before: Checkpoint | None = None
    """the model of an earlier training to start from. The check does not start from it: it has seen those videos."""
    localize: dict[str, Any] = field(default_factory=dict)
    """what the model changes of the rule `runs`"""


def course(recipe: Recipe, gathered: Gathered, embedded: Checkpoint | None = None) -> Course:
    """The network and the training for this data, starting from `embedded` if it is given.

    Raises:
        UsageError: the settings do not fit the data.
    """
    data = gathered.data
    asked, before = recipe.settings.folds, recipe.before
    rule: dict[str, Any] = {} if before is None else before.localize
    spread = 1
    if before is None and gathered.timed is not None and recipe.settings.preset == "own":
        seconds = lengths(gathered.timed.marked)
        rule, spread = localization_for(seconds, gathered.stride), spread_for(seconds, gathered.stride)
    model, training = recipe.complete(data.classes, data.lengths, data.width, spread)
    return Course(model, training, min(FOLDS, len(data.names)) if asked is None else asked, embedded, before, rule)


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
    """Train a model, write it with its log and its curves, then check it on held-out videos.

    Call this inside `exclusive(folder)`: no other process may use the folder meanwhile.

    Args:
        gathered: the result of `gather`.
        wanted: the result of `course`.
        folder: gets model.safetensors. A training that was killed is continued from its state in this folder.
        localize: how the check draws segments; None means as `run` does with this model.
        device: where to compute.
        overwrite: start over, whatever the folder holds.
        on_progress: ("train", steps done, steps in all), then ("check", …) over all folds.

    Raises:
        TrainError, CheckpointError, UsageError: as in model.train and `from_embedded`.
    """
    data, training = gathered.data, wanted.training
    start = initialise(wanted.model, data.classes, gathered.streams, gathered.features, training.seed)
    if wanted.embedded is not None:
        start = from_embedded(wanted.embedded, start)
    start = fresh = dataclasses.replace(
        start, localize=wanted.localize, provenance={**start.provenance, **gathered.provenance}
    )
    if wanted.before is not None:
        start = from_earlier(wanted.before, fresh)
    if overwrite:  # otherwise a training that is killed before its check would later use the check of another model
        for name in (QUALITY_NAME, PICTURE_NAME, STATE_NAME, LOG_NAME):
            (folder / name).unlink(missing_ok=True)
        sweep(folder)
    finished = train(start, data, training, folder, device=device, resume=not overwrite, on_progress=on_progress)
    path = folder / checkpoint.FILE_NAME
    checkpoint.save(finished, path)
    checkpoint.write_atomically(folder / CURVES_NAME, plots.training(*_log(folder / LOG_NAME)))
    quality = None
    if wanted.folds < 2:
        for name in (QUALITY_NAME, PICTURE_NAME):  # they may belong to another model
            (folder / name).unlink(missing_ok=True)
        sweep(folder)
    else:
        quality = cross_validate(
            fresh,
            data,
            training,
            Check(wanted.folds, localize or LocalizeConfig(**wanted.localize), gathered.timed),
            folder,
            device=device,
            resume=not overwrite,
            on_progress=on_progress,
        )
        checkpoint.write_atomically(folder / PICTURE_NAME, picture(quality))
    return Trained(finished, path, training, quality)


@contextlib.contextmanager
def exclusive(folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Reserve a model's folder for this process.

    Two trainings in one folder could leave the model of one and the check of the other. The lock of a training that was
    killed is taken over. If the holder may run on another machine, it takes a minute to find out whether it still
    lives; `on_wait` is called before this wait.

    Raises:
        UsageError: another training uses the folder.
        OutputError, DiskFull: the folder cannot be written.
    """
    lock, patience = Lock(folder / LOCK_NAME), time.monotonic() + STALE + 2 * BEAT
    with writing(folder):
        if not (ours := lock.take()) and not lock.holder_lives():
            on_wait()
            ours = lock.wait(lambda: lock.holder_lives() or time.monotonic() > patience)
    if not ours:
        raise UsageError(
            f"{folder}: another training is at work there; wait for its end, or choose another -o "
            f"(if there is none, remove {lock.path})."
        )
    with lock.held():
        yield


def check_folder(folder: Path, overwrite: bool) -> None:
    """Check a model's folder before hours are spent: no model may be replaced unless `overwrite` is set.

    A folder with a training state is fine, since that training is continued.

    Raises:
        UsageError: the folder holds a model without the training state that it came from.
    """
    model = folder / checkpoint.FILE_NAME
    if model.exists() and not overwrite and not (folder / STATE_NAME).exists():
        raise UsageError(
            f"{model}: exists, but the training state that it came from does not; use --overwrite or another -o."
        )


def _log(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Column names and (steps, columns) values of a training's log."""
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        values = np.array([[float(cell) for cell in row.split(",")] for row in rows])
        return tuple(header.split(",")), values
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: the training's log cannot be read ({error}); train with --overwrite.") from error

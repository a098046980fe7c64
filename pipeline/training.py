"""A CSV of labels and a folder of footage in, a localizer of one's own out: extraction, model/train.py, a check.

`plan` finds everything that is wrong with the request before anything runs, `gather` brings the features, through
the cache, `fit` trains.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from extractors.config import FeatureConfig
from extractors.decoder import Decoder
from extractors.features import Extractor, FeaturesError, Progress
from extractors.video import VideoError
from model import checkpoint, kinetics
from model.checkpoint import Checkpoint
from model.config import ModelConfig, Preset, TrainConfig, model_settings, preset
from model.datasets import DatasetError, VideoSet
from model.train import LOG_NAME, STATE_NAME, TrainError, initialise, train
from pipeline import labels as labels_csv
from pipeline.api import load_model
from pipeline.batch import VIDEO_SUFFIXES
from pipeline.cache import FeatureCache, content_hash
from pipeline.config import read_toml
from pipeline.crossval import FILE_NAME as QUALITY_NAME
from pipeline.crossval import Quality, cross_validate, sweep
from pipeline.errors import UsageError
from pipeline.featuresets import FeatureSet, read_feature_set
from pipeline.labels import LabelledVideo
from postprocess import plots
from postprocess.config import LocalizeConfig

CURVES_NAME = "curves.png"
FOLDS = 4

# What a model asks of the features that it is run on. The rest of their settings (versions, device, precision,
# decoder) moves them by less than JCDNet notices, and stands in the checkpoint's provenance.
DECLARED = ("layout", "backbone", "fps", "length", "stride", "short_side", "crop", "weights", "flow_clip")


@dataclass(frozen=True)
class Plan:
    """A request that holds together: rows of the CSV, the classes, and where each row's footage or features are."""

    rows: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    videos: dict[str, Path]
    features: FeatureSet | None = None
    found: dict[str, str] = field(default_factory=dict)
    """CSV name → name in `features`"""


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
class Settings:
    """What a training is asked for; None leaves it to the preset.

    folds: of the check at the end, None for up to four; 0 leaves it out. init: "kinetics400" starts from the embedded
    model where classes match; None draws all weights from the seed.
    """

    preset: Preset = "own"
    steps: int | None = None
    lr: float | None = None
    dim: int | None = None
    seed: int | None = None
    folds: int | None = None
    init: str | None = None
    config: Path | None = None
    """TOML file with tables [model], [training] and [training.loss]"""


@dataclass(frozen=True)
class Trained:
    """A checkpoint, where it stands, and how good it is on videos that it has not seen."""

    checkpoint: Checkpoint
    path: Path
    config: TrainConfig
    quality: Quality | None


def plan(
    path: Path | None,
    *,
    videos: Path | None = None,
    features: Path | None = None,
    split: str | None = None,
    streams: tuple[str, ...] | None = None,
    fps: float | None = None,
    conjoint: str | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Read the labels, and find the footage or the features of every row.

    Args:
        path: CSV of the labels.
        videos: folder of the footage; or
        features: folder of its features.
        split: rows to take, see `labels.in_split`.
        streams: of stored features, those to use; None: all that are there.
        fps: frames per second that published features were made at; None: 25.
        conjoint: of a feature set with THUMOS14's labels, only its conjoint subset, "all" or "without diving".
        settings: of the training, checked as far as they can be before hours go into features.

    Raises:
        DatasetError: all that is wrong with the rows, in one message: files that are missing or cannot be read,
            videos that come twice, labels spelt in two ways, classes with fewer than two videos.
        UsageError: not just one of `videos` and `features`, no such folder, or settings that make no sense.
        FeaturesError, EvaluateError: stored features that cannot be read.
    """
    if (videos is None) == (features is None):
        raise UsageError("give the footage with --videos FOLDER, or its features with --features FOLDER.")
    folder = videos or features
    assert folder is not None
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the {'videos' if videos else 'features'}.")
    stored = None if features is None else read_feature_set(features, fps=fps, streams=streams)
    if conjoint is not None:
        if path is not None or stored is None:
            raise UsageError("--conjoint is for published features with their own labels; leave the labels out.")
        stored = stored.conjoint(conjoint)
    source = path or folder
    rows = labels_csv.in_split(_rows(path, stored, folder), split, source)
    problems = labels_csv.label_problems(rows)
    classes = labels_csv.classes_of(rows)
    if stored is not None:
        names = {name: Path(name) for name in stored.videos}
        found, missing = labels_csv.find_videos(rows, names, suffixes=VIDEO_SUFFIXES)
        result = Plan(rows, classes, {}, stored, {row: name.as_posix() for row, name in found.items()})
    else:
        below = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        available = {p.relative_to(folder).as_posix(): p for p in below if not p.name.startswith(".")}
        files, missing = labels_csv.find_videos(rows, available)
        missing += _unreadable(files)
        result = Plan(rows, classes, files)
    if problems := missing + problems:
        raise DatasetError(f"{source}: {len(problems)} to mend before training:{_listed(problems)}")
    if settings is not None:
        model, _ = _configure(settings, result.classes, [1] * len(rows), kinetics.WIDTH)
        if settings.init is not None:
            there = ("rgb",) if result.features is None else result.features.streams
            embedded = _embedded(settings.init, result.classes, streams or there)
            if other := kinetics.difference(model, embedded.config):
                raise UsageError(f"--init {settings.init}: {other}")
    return result


def _listed(problems: Sequence[str]) -> str:
    shown, more = problems[: labels_csv.SHOWN], len(problems) - labels_csv.SHOWN
    return "".join(f"\n  {problem}" for problem in shown) + (f"\n  and {more} more" if more > 0 else "")


def _rows(path: Path | None, stored: FeatureSet | None, folder: Path) -> tuple[LabelledVideo, ...]:
    if path is not None:
        return labels_csv.read_labels(path)
    videos = {} if stored is None else stored.videos
    if any(video.labels is None for video in videos.values()) or not videos:
        raise UsageError(f"{folder}: brings no labels; give a CSV with `video,labels`, or a ground truth in JSON.")
    return tuple(
        LabelledVideo(name, video.labels or (), video.subset.lower(), line)
        for line, (name, video) in enumerate(videos.items(), start=1)
    )


def _unreadable(files: Mapping[str, Path]) -> list[str]:
    """A sentence for each video whose first frame cannot be had, from the decoder's own process."""
    problems = []
    decoder = Decoder()
    try:
        for file in dict.fromkeys(files.values()):
            try:
                with decoder.open(file, FeatureConfig(), 0.0, 0.0) as (_, frames):
                    for _frame in frames:
                        pass
            except VideoError as error:
                problems.append(str(error))
    finally:
        decoder.close()
    return problems


def gather(
    wanted: Plan,
    extractor: Extractor | None = None,
    cache: FeatureCache | None = None,
    on_video: Callable[[Path], Progress] = lambda path: lambda stage, done, total: None,
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
    said: list[str] = []
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
            f"mend them or take their rows out:{_listed(broken)}"
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
        warnings=stored.notes,
    )


def _video_set(wanted: Plan, arrays: list[np.ndarray]) -> VideoSet:
    labels = np.array([[name in row.labels for name in wanted.classes] for row in wanted.rows], dtype=bool)
    return VideoSet(arrays, labels, tuple(row.video for row in wanted.rows), wanted.classes)


def declared(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By stream, the settings that features must share with those a model was trained on."""
    return {stream: {name: values[name] for name in DECLARED if name in values} for stream, values in settings.items()}


def configure(settings: Settings, gathered: Gathered) -> tuple[ModelConfig, TrainConfig]:
    """The network and the training: preset < TOML file < flags.

    Raises:
        UsageError: a setting that is unknown or makes no sense.
    """
    data = gathered.data
    return _configure(settings, data.classes, data.lengths, data.width)


def _configure(
    settings: Settings, classes: Sequence[str], lengths: Sequence[int], width: int
) -> tuple[ModelConfig, TrainConfig]:
    tables = _tables(settings.config)
    if settings.folds and not 2 <= settings.folds <= len(lengths):
        raise UsageError(f"--folds {settings.folds}: give 2 to {len(lengths)} (the videos), or 0 for no check.")
    try:
        training = preset(settings.preset, lengths)
        loss = tables["training"].pop("loss", {})
        if not isinstance(loss, dict):
            raise ValueError("loss must be a table, [training.loss].")
        asked = {k: v for k in ("steps", "lr", "seed") if (v := getattr(settings, k)) is not None}
        training = TrainConfig.from_dict(
            {
                **training.to_dict(),
                **tables["training"],
                **asked,
                "loss": {**dataclasses.asdict(training.loss), **loss},
            }
        )
        shape = {"classes": len(classes), "in_dim": width}
        embedded = {} if settings.init is None else {"dim": kinetics.WIDTH}
        network = {**model_settings(settings.preset), **embedded, **tables["model"]}
        if settings.dim is not None:
            network["dim"] = settings.dim
        if taken := sorted(shape.keys() & tables["model"].keys()):
            raise ValueError(f"model setting {taken[0]} follows from the labels and the features; leave it out.")
        model = ModelConfig.from_dict({**network, **shape})
        training.loss.check(model)
    except ValueError as error:
        where = f"{settings.config}: " if settings.config else ""
        raise UsageError(f"{where}{error}") from error
    return model, training


def _tables(path: Path | None) -> dict[str, dict[str, Any]]:
    """[model] and [training] of a TOML file."""
    if path is None:
        return {"model": {}, "training": {}}
    found = read_toml(path)
    known = ("model", "training")
    for name, table in found.items():
        if name not in known or not isinstance(table, dict):
            raise UsageError(f"{path}: {name} is not a table of a training; there are [model] and [training].")
    return {name: dict(found.get(name, {})) for name in known}


def fit(
    gathered: Gathered,
    settings: Settings,
    folder: Path,
    *,
    localize: LocalizeConfig | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> Trained:
    """Train, write `folder`/model.safetensors with its log and its curves, then check it on held-out videos.

    Args:
        gathered: what `gather` gave.
        settings: of the training.
        folder: of the model; what a killed training left there is gone on with.
        localize: with which the check draws segments; None is `run`'s default.
        device: where to compute.
        overwrite: start over, whatever stands in `folder`.
        on_progress: ("train", steps done, steps), then ("check", …) over all folds.

    Raises:
        TrainError, CheckpointError, UsageError: as model.train and `configure`.
    """
    model, training = configure(settings, gathered)
    data = gathered.data
    start = initialise(model, data.classes, gathered.streams, gathered.features, training.seed)
    if settings.init is not None:
        start = _from_embedded(start, settings.init)
    start = dataclasses.replace(start, provenance={**start.provenance, **gathered.provenance})
    finished = train(start, data, training, folder, device=device, resume=not overwrite, on_progress=on_progress)
    path = folder / checkpoint.FILE_NAME
    checkpoint.save(finished, path)
    checkpoint.write_atomically(folder / CURVES_NAME, plots.training(*_log(folder / LOG_NAME)))
    quality = None
    folds = min(FOLDS, len(data.names)) if settings.folds is None else settings.folds
    if folds < 2:
        (folder / QUALITY_NAME).unlink(missing_ok=True)  # it may be of another model
        sweep(folder)
    else:
        quality = cross_validate(
            start,
            data,
            training,
            localize or LocalizeConfig(),
            folds,
            folder,
            device=device,
            resume=not overwrite,
            on_progress=on_progress,
        )
    return Trained(finished, path, training, quality)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Before hours are spent: a model is never replaced unasked, and a training in progress is gone on with.

    Raises:
        UsageError: a model stands there without the state that it came from.
    """
    model = folder / checkpoint.FILE_NAME
    if model.exists() and not overwrite and not (folder / STATE_NAME).exists():
        raise UsageError(f"{model}: is there, but not the state that it came from; use --overwrite or another -o.")


def _embedded(name: str, classes: Sequence[str], streams: tuple[str, ...]) -> Checkpoint:
    """The embedded model, which reads these streams and knows one of the classes."""
    if name != kinetics.NAME:
        raise UsageError(f"--init {name}: the embedded model is {kinetics.NAME}.")
    if streams != ("rgb",):
        raise UsageError(f"--init {name}: it reads RGB only; train with --streams rgb.")
    embedded = load_model(name)
    if not kinetics.matches(embedded, classes):
        raise UsageError(f"--init {name}: it knows none of the classes {', '.join(classes)}; train without it.")
    return embedded


def _from_embedded(start: Checkpoint, name: str) -> Checkpoint:
    """`start` with what the embedded model knows of its classes."""
    embedded = _embedded(name, start.classes, start.streams)
    known, given = embedded.features["rgb"], start.features.get("rgb", {})
    if other := [key for key in known if known[key] != given.get(key)]:
        raise UsageError(f"--init {name}: it was made for other features ({', '.join(other)} differ).")
    try:
        return kinetics.adapt(embedded, start)
    except ValueError as error:
        raise UsageError(f"--init {name}: {error}") from error


def _log(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Columns and (steps, columns) values of a training's log."""
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        values = np.array([[float(cell) for cell in row.split(",")] for row in rows])
        return tuple(header.split(",")), values
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: the training's log cannot be read ({error}); train with --overwrite.") from error

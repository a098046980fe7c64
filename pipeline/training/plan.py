"""The check before a training: do the labels, the footage or features, and the settings fit together?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extractors.config import NOTHING, FeatureConfig
from extractors.decode.process import Decoder
from extractors.decode.video import VideoError
from model import kinetics
from model.checkpoint import Checkpoint
from model.datasets import DatasetError
from pipeline.cache.content import Video
from pipeline.datasets.featureset import FeatureSet
from pipeline.datasets.layouts import read_feature_set
from pipeline.run.videos import VIDEO_SUFFIXES, find_videos, path_of
from pipeline.training import labels as labels_csv
from pipeline.training.labels import LabelledVideo
from pipeline.training.settings import Recipe, Settings, embedded_for, read_recipe
from support.errors import UsageError
from support.paths import is_url


@dataclass(frozen=True)
class Plan:
    """A request that was checked: the rows, the classes, and where the footage or features of each row are."""

    rows: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    videos: Mapping[str, Video]
    """CSV name → video; empty if `features` is set"""
    recipe: Recipe
    """the settings of the training, read once and checked"""
    embedded: Checkpoint | None = None
    """the model to start from, if the settings name one"""
    features: FeatureSet | None = None
    found: dict[str, str] = field(default_factory=dict)
    """CSV name → name in `features`"""
    notes: tuple[str, ...] = ()
    """sentences about what is left out or was guessed"""


def plan(
    path: Path | None,
    *,
    videos: str | Path | None = None,
    features: Path | None = None,
    split: str | None = None,
    streams: tuple[str, ...] | None = None,
    fps: float | None = None,
    conjoint: str | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Read the labels, find the footage or the features of every row, and check the settings.

    Every mistake is found here, before hours go into features.

    Args:
        path: CSV of the labels, or a ground truth in JSON; None uses the labels that the features bring.
        videos: folder of the footage, or its address in a store. Give either this or `features`.
        features: folder of stored features.
        split: which rows to use, see `labels.in_split`.
        streams: which streams of stored features to use; None means all of them.
        fps: frames per second that published features were made at; None means 25.
        conjoint: use only the conjoint subset of THUMOS14's labels, "all" or "without diving".
        settings: of the training; None means the defaults.

    Raises:
        DatasetError: rows are wrong. One message lists all faults: files that are missing or cannot be read, videos
            that come twice, labels spelt in two ways, classes with fewer than two videos.
        UsageError: both or neither of `videos` and `features` are given, the folder does not exist, or a setting is
            wrong.
        FeaturesError, EvaluateError: the stored features cannot be read.
    """
    folder = _folder(videos, features)
    recipe = read_recipe(settings or Settings())
    stored = None if features is None else read_feature_set(features, fps=fps, streams=streams)
    if conjoint is not None:
        if path is not None or stored is None:
            raise UsageError("--conjoint is for published features with their own labels; leave the labels out.")
        stored = stored.conjoint(conjoint)
    source = path or folder
    listing, of_file = _rows(path, stored, folder)
    rows, spelled = labels_csv.one_spelling(labels_csv.in_split(listing, split, source))
    notes = [*of_file, *_undecided(listing, rows, source), *(f"{source}: {note}" for note in spelled)]
    found, problems = _footage(rows, folder) if stored is None else _stored(rows, stored)
    notes += [f"{source}: {note}" for note in labels_csv.other_case({row: path_of(v) for row, v in found.items()})]
    if problems := problems + labels_csv.label_problems(rows):
        # Letters that were decoded wrongly may be the reason why a video was not found.
        about_file = "".join(f"\n  {note}" for note in of_file)
        raise DatasetError(f"{source}: {len(problems)} to fix before training:{listed(problems)}{about_file}")
    classes = labels_csv.classes_of(rows)
    embedded = _embedded(recipe, classes, len(rows), streams or (("rgb",) if stored is None else stored.streams))
    if stored is None:
        return Plan(rows, classes, found, recipe, embedded, notes=tuple(notes))
    names = {row: path_of(name).as_posix() for row, name in found.items()}
    return Plan(rows, classes, {}, recipe, embedded, stored, names, tuple(notes))


def _folder(videos: str | Path | None, features: Path | None) -> str | Path:
    folder = videos or features
    if folder is None or (videos is not None and features is not None):
        raise UsageError("give the footage with --videos FOLDER, or its features with --features FOLDER.")
    if not is_url(folder) and not Path(folder).is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the {'videos' if videos else 'features'}.")
    return folder


def _undecided(listing: Sequence[LabelledVideo], rows: Sequence[LabelledVideo], source: object) -> list[str]:
    """A note about rows without a split, if the other rows have one."""
    count = sum(not row.split for row in listing) if any(row.split for row in rows) else 0
    return [f"{source}: {labels_csv.count_rows(count)} no split: not trained on."] if count else []


def _stored(rows: Sequence[LabelledVideo], stored: FeatureSet) -> tuple[dict[str, Path], list[str]]:
    """CSV name → name among the stored features, and the problems."""
    names = {name: Path(name) for name in stored.videos}
    return labels_csv.find_videos(rows, names, suffixes=VIDEO_SUFFIXES)


def _footage(rows: Sequence[LabelledVideo], folder: str | Path) -> tuple[Mapping[str, Video], list[str]]:
    """CSV name → video, and the problems; each file is opened and its first frame decoded.

    Videos in a store are not fetched for that: what is wrong with them is found when their features are extracted.
    """
    if is_url(folder):
        top = path_of(folder)
        remote = {path_of(job.video): job.video for job in find_videos([str(folder)])}
        there = {path.relative_to(top).as_posix(): path for path in remote}
        paths, problems = labels_csv.find_videos(rows, there)
        return {row: remote[path] for row, path in paths.items()}, problems
    folder = Path(folder)
    below = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    available = {p.relative_to(folder).as_posix(): p for p in below if not p.name.startswith(".")}
    found, problems = labels_csv.find_videos(rows, available)
    return found, problems + _unreadable(found)


def _embedded(recipe: Recipe, classes: Sequence[str], videos: int, streams: tuple[str, ...]) -> Checkpoint | None:
    """Check the settings, and load the model to start from, if the settings name one."""
    # The lengths of the videos are not known yet; every other mistake in the settings is found now.
    model, _ = recipe.complete(classes, [1] * videos, kinetics.WIDTH)
    if (init := recipe.settings.init) is None:
        return None
    embedded = embedded_for(init, classes, streams)
    if other := kinetics.difference(model, embedded.config):
        raise UsageError(f"--init {init}: {other}")
    return embedded


def _rows(path: Path | None, stored: FeatureSet | None, folder: object) -> tuple[tuple[LabelledVideo, ...], list[str]]:
    """The rows, and notes about the file that they come from."""
    if path is not None:
        return labels_csv.load_labels(path)
    videos = {} if stored is None else stored.videos
    if any(video.labels is None for video in videos.values()) or not videos:
        raise UsageError(f"{folder}: brings no labels; give a CSV with `video,labels`, or a ground truth in JSON.")
    rows = (
        LabelledVideo(name, video.labels or (), video.subset.lower(), n, "video")
        for n, (name, video) in enumerate(videos.items(), start=1)
    )
    return tuple(rows), []


def _unreadable(files: Mapping[str, Path]) -> list[str]:
    """A sentence for each video whose first frame cannot be decoded; decoding runs in a process of its own."""
    problems = []
    decoder = Decoder()
    try:
        for file in dict.fromkeys(files.values()):
            try:
                with decoder.open(file, FeatureConfig(), NOTHING) as (_, frames):
                    for _frame in frames:
                        pass
            except VideoError as error:
                problems.append(str(error))
    finally:
        decoder.close()
    return problems


def listed(problems: Sequence[str]) -> str:
    """The first problems, one on each line, and how many more there are."""
    shown, more = problems[: labels_csv.SHOWN], len(problems) - labels_csv.SHOWN
    return "".join(f"\n  {problem}" for problem in shown) + (f"\n  and {more} more" if more > 0 else "")

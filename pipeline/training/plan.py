"""Before a training: whether the labels, the footage or the features, and the settings hold together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from extractors.config import NOTHING, FeatureConfig
from extractors.decode.container import VideoError
from extractors.decode.process import Decoder
from model import kinetics
from model.checkpoint import Checkpoint
from model.datasets import DatasetError
from pipeline.datasets.featureset import FeatureSet
from pipeline.datasets.layouts import read_feature_set
from pipeline.run.videos import VIDEO_SUFFIXES
from pipeline.training import labels as labels_csv
from pipeline.training.labels import LabelledVideo
from pipeline.training.settings import Recipe, Settings, embedded_for, read_recipe
from support.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """A request that holds together: rows of the CSV, the classes, and where each row's footage or features are."""

    rows: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    videos: dict[str, Path]
    recipe: Recipe
    """the settings of the training, read and checked"""
    embedded: Checkpoint | None = None
    """the model to start from, where the settings name one"""
    features: FeatureSet | None = None
    found: dict[str, str] = field(default_factory=dict)
    """CSV name → name in `features`"""
    notes: tuple[str, ...] = ()
    """what is left out, as sentences"""


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
        settings: of the training; None: the defaults. What can be wrong in them is found here, before hours go into
            features.

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
    recipe = read_recipe(settings or Settings())
    stored = None if features is None else read_feature_set(features, fps=fps, streams=streams)
    if conjoint is not None:
        if path is not None or stored is None:
            raise UsageError("--conjoint is for published features with their own labels; leave the labels out.")
        stored = stored.conjoint(conjoint)
    source = path or folder
    listing, of_file = _rows(path, stored, folder)
    notes = list(of_file)
    rows, spelled = labels_csv.one_spelling(labels_csv.in_split(listing, split, source))
    undecided = sum(not row.split for row in listing) if any(row.split for row in rows) else 0
    if undecided:
        notes.append(f"{source}: {labels_csv.have(undecided)} no split: not trained on.")
    notes += [f"{source}: {note}" for note in spelled]
    problems = labels_csv.label_problems(rows)
    classes = labels_csv.classes_of(rows)
    if stored is not None:
        names = {name: Path(name) for name in stored.videos}
        found, missing = labels_csv.find_videos(rows, names, suffixes=VIDEO_SUFFIXES)
        named = {row: name.as_posix() for row, name in found.items()}
        result = Plan(rows, classes, {}, recipe, features=stored, found=named)
    else:
        below = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        available = {p.relative_to(folder).as_posix(): p for p in below if not p.name.startswith(".")}
        found, missing = labels_csv.find_videos(rows, available)
        missing += _unreadable(found)
        result = Plan(rows, classes, found, recipe)
    notes += [f"{source}: {note}" for note in labels_csv.other_case(found)]
    result = replace(result, notes=tuple(notes))
    if problems := missing + problems:
        said = "".join(f"\n  {note}" for note in of_file)  # letters read wrongly may be why a video is not there
        raise DatasetError(f"{source}: {len(problems)} to mend before training:{listed(problems)}{said}")
    # How long the videos are is known later; every other mistake in the settings is found now.
    model, _ = recipe.complete(classes, [1] * len(rows), kinetics.WIDTH)
    if (init := recipe.settings.init) is None:
        return result
    there = ("rgb",) if stored is None else stored.streams
    embedded = embedded_for(init, classes, streams or there)
    if other := kinetics.difference(model, embedded.config):
        raise UsageError(f"--init {init}: {other}")
    return replace(result, embedded=embedded)


def _rows(path: Path | None, stored: FeatureSet | None, folder: Path) -> tuple[tuple[LabelledVideo, ...], list[str]]:
    """The rows, and what is said about the file that they come from."""
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
    """A sentence for each video whose first frame cannot be had, from the decoder's own process."""
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
    """The first of them, a line each, and how many more there are."""
    shown, more = problems[: labels_csv.SHOWN], len(problems) - labels_csv.SHOWN
    return "".join(f"\n  {problem}" for problem in shown) + (f"\n  and {more} more" if more > 0 else "")

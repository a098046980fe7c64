"""The check before a training: do the labels, the footage or features, and the settings fit together?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from extractors.config import NOTHING, FeatureConfig
from extractors.decode.process import Decoder
from extractors.decode.video import VideoError
from model import kinetics
from model.checkpoint import Checkpoint
from model.datasets import DatasetError
from model.presets import stride_for
from pipeline.datasets.featureset import FeatureSet
from pipeline.datasets.layouts import read_feature_set
from pipeline.run.videos import VIDEO_SUFFIXES
from pipeline.training import labels as labels_csv
from pipeline.training.labels import LabelledVideo
from pipeline.training.marks import join
from pipeline.training.settings import Recipe, Settings, embedded_for, read_recipe
from pipeline.training.snippets import Marked, lengths
from pipeline.training.times import read_times
from support.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """A request that was checked: the rows, the classes, and where the footage or features of each row are."""

    rows: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    videos: dict[str, Path]
    """CSV name → video file; empty if `features` is set"""
    recipe: Recipe
    """the settings of the training, read once and checked"""
    embedded: Checkpoint | None = None
    """the model to start from, if the settings name one"""
    features: FeatureSet | None = None
    found: dict[str, str] = field(default_factory=dict)
    """CSV name → name in `features`"""
    notes: tuple[str, ...] = ()
    """sentences about what is left out or was guessed"""
    marked: dict[str, Marked] | None = None
    """CSV name → what was marked in this video; None without times"""

    @property
    def streams(self) -> str | None:
        """The streams of the model to start from, as `--streams` names them; None if there is none."""
        before = self.recipe.before
        return None if before is None else "both" if len(before.streams) > 1 else before.streams[0]

    def stride(self, asked: int | None) -> tuple[int | None, str | None]:
        """The stride to extract with, None for the usual one, and a sentence that says why it is another one.

        Args:
            asked: what the user asked for, which wins.
        """
        before, settings = self.recipe.before, self.recipe.settings
        if asked is not None:
            return asked, None
        if before is not None:
            stride = before.features[before.streams[0]].get("stride")
            return stride, None
        spans = lengths((self.marked or {}).values())
        chosen = stride_for(spans) if settings.preset == "own" else None
        if chosen is None:
            return None, None
        middle = f"the {len(spans)} marked actions last {median(spans):.2g} s in the median"
        if self.features is not None:
            here = next(iter(self.features.settings.values()), {}).get("stride", 16)
            need = f"{middle}, so extract them with --stride {chosen}: at stride {here}, short actions are missed."
            return None, need if here > chosen else None
        return chosen, f"stride {chosen}: {middle}; --stride 16 would be faster and miss short ones."


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
    """Read the labels, find the footage or the features of every row, and check the settings.

    Every mistake is found here, before hours go into features.

    Args:
        path: CSV of the labels, or a ground truth in JSON; None uses the labels that the features bring, or those of
            the marked times.
        videos: folder of the footage. Give either this or `features`.
        features: folder of stored features.
        split: which rows to use, see `labels.in_split`.
        streams: which streams of stored features to use; None means all of them.
        fps: frames per second that published features were made at; None means 25.
        conjoint: use only the conjoint subset of THUMOS14's labels, "all" or "without diving".
        settings: of the training, the file of marked times included; None means the defaults.

    Raises:
        DatasetError: rows are wrong. One message lists all faults: files that are missing or cannot be read, videos
            that come twice, labels spelt in two ways, classes with fewer than two videos, and all that may be wrong
            with marked times (`times`).
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
    times = None if recipe.settings.times is None else read_times(recipe.settings.times)
    source = path or (folder if times is None else times.path)
    brought = stored is not None and any(video.labels is not None for video in stored.videos.values())
    alone = path is None and times is not None and not brought  # labels follow from the times
    listing, of_file = ((), []) if alone else _rows(path, stored, folder)
    rows = labels_csv.in_split(listing, split, source) if listing else ()
    joined = None if times is None else join(times, listing, rows, path)
    rows, spelled = labels_csv.one_spelling(rows if joined is None else joined.rows)
    notes = [*of_file, *_undecided(listing, rows, source), *(f"{source}: {note}" for note in spelled)]
    found, problems, durations = _footage(rows, folder) if stored is None else _stored(rows, stored)
    notes += [f"{source}: {note}" for note in labels_csv.other_case(found)]
    if joined is not None:
        problems += [*joined.problems, *joined.beyond(durations)]
        notes += joined.notes
    if problems := problems + labels_csv.label_problems(rows):
        # Letters that were decoded wrongly may be the reason why a video was not found.
        about_file = "".join(f"\n  {note}" for note in of_file)
        raise DatasetError(f"{source}: {len(problems)} to fix before training:{listed(problems)}{about_file}")
    classes = labels_csv.classes_of(rows)
    embedded = _embedded(recipe, classes, len(rows), streams or (("rgb",) if stored is None else stored.streams))
    marked = None if joined is None else joined.marked(classes)
    if stored is None:
        return Plan(rows, classes, found, recipe, embedded, notes=tuple(notes), marked=marked)
    names = {row: name.as_posix() for row, name in found.items()}
    return Plan(rows, classes, {}, recipe, embedded, stored, names, tuple(notes), marked)


def _folder(videos: Path | None, features: Path | None) -> Path:
    folder = videos or features
    if folder is None or (videos is not None and features is not None):
        raise UsageError("give the footage with --videos FOLDER, or its features with --features FOLDER.")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the {'videos' if videos else 'features'}.")
    return folder


def _undecided(listing: Sequence[LabelledVideo], rows: Sequence[LabelledVideo], source: Path) -> list[str]:
    """A note about rows without a split, if the other rows have one."""
    count = sum(not row.split for row in listing) if any(row.split for row in rows) else 0
    return [f"{source}: {labels_csv.count_rows(count)} no split: not trained on."] if count else []


Found = tuple[dict[str, Path], list[str], dict[str, float]]


def _stored(rows: Sequence[LabelledVideo], stored: FeatureSet) -> Found:
    """CSV name → name among the stored features, the problems, and CSV name → seconds."""
    names = {name: Path(name) for name in stored.videos}
    found, problems = labels_csv.find_videos(rows, names, suffixes=VIDEO_SUFFIXES)
    videos = {row: stored.videos[path.as_posix()] for row, path in found.items()}
    return found, problems, {row: video.duration or float(video.times[-1, 1]) for row, video in videos.items()}


def _footage(rows: Sequence[LabelledVideo], folder: Path) -> Found:
    """CSV name → video file, the problems, and CSV name → seconds; the first frame of each file is decoded."""
    below = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    available = {p.relative_to(folder).as_posix(): p for p in below if not p.name.startswith(".")}
    found, problems = labels_csv.find_videos(rows, available)
    unreadable, seconds = _unreadable(found)
    return found, problems + unreadable, {row: seconds.get(path, 0.0) for row, path in found.items()}


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


def _rows(path: Path | None, stored: FeatureSet | None, folder: Path) -> tuple[tuple[LabelledVideo, ...], list[str]]:
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


def _unreadable(files: Mapping[str, Path]) -> tuple[list[str], dict[Path, float]]:
    """A sentence for each video whose first frame cannot be decoded, and the seconds of the others (0: not declared).

    Decoding runs in a process of its own.
    """
    problems, seconds = [], {}
    decoder = Decoder()
    try:
        for file in dict.fromkeys(files.values()):
            try:
                with decoder.open(file, FeatureConfig(), NOTHING) as (clip, frames):
                    seconds[file] = clip.info.duration
                    for _frame in frames:
                        pass
            except VideoError as error:
                problems.append(str(error))
    finally:
        decoder.close()
    return problems, seconds


def listed(problems: Sequence[str]) -> str:
    """The first problems, one on each line, and how many more there are."""
    shown, more = problems[: labels_csv.SHOWN], len(problems) - labels_csv.SHOWN
    return "".join(f"\n  {problem}" for problem in shown) + (f"\n  and {more} more" if more > 0 else "")

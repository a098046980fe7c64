"""Feature sets on disk, for training and evaluation: videos whose features are read when they are asked for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.config import STREAMS
from model.datasets import DatasetError
from pipeline.datasets.wtalc import labels_from_ground_truth
from postprocess.evaluation.annotations import AnnotatedVideo
from postprocess.evaluation.names import match_names
from postprocess.evaluation.protocols import CONJOINT

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredVideo:
    """A video whose features lie on disk, or in memory where the layout cannot be read in parts.

    Attributes:
        name: below the folder without suffix, or the published name.
        read: the asked streams side by side, (T or more, D).
        streams: those that `load` reads.
        times: (T, 2) start and end of each row, seconds.
        duration: of the video, seconds; None where the layout does not say.
        labels: classes it shows; None where the layout does not say.
        subset: "" where the layout does not say.
    """

    name: str
    read: Callable[[tuple[str, ...]], NDArray[np.floating]]
    streams: tuple[str, ...]
    times: NDArray[np.float64]
    duration: float | None = None
    labels: tuple[str, ...] | None = None
    subset: str = ""

    def load(self) -> Rows:
        """(T, D) features, RGB first; memory-mapped where it is one float32 file.

        Raises:
            DatasetError, FeaturesError: the file changed since, and can no longer be read.
        """
        return self.read(self.streams)[: len(self.times)].astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Videos with features, of one extraction.

    Attributes:
        videos: by name.
        streams: in the order in which they are stacked.
        settings: by stream, what decided the numbers: of our own all settings, else the layout and its grid. It goes
            into a checkpoint's `features`.
        classes: those that the labels know, in the layout's order; None where it has no labels.
        ground_truth: annotated segments, where the layout has them.
        notes: what was left out, a sentence each.
    """

    videos: dict[str, StoredVideo]
    streams: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    classes: tuple[str, ...] | None = None
    ground_truth: dict[str, AnnotatedVideo] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def select(self, streams: Iterable[str]) -> "FeatureSet":
        """The same with some of its streams.

        Raises:
            DatasetError: one of them is not there.
        """
        wanted = checked_streams(streams)
        if missing := [name for name in wanted if name not in self.streams]:
            raise DatasetError(f"there is no {missing[0]} stream in these features, only {' and '.join(self.streams)}.")
        return replace(
            self,
            videos={name: replace(video, streams=wanted) for name, video in self.videos.items()},
            streams=wanted,
            settings={name: self.settings[name] for name in wanted},
        )

    def annotated(self, ground_truth: Mapping[str, AnnotatedVideo]) -> "FeatureSet":
        """The same with labels, subsets and segments of a ground truth, and the classes that its videos show.

        Raises:
            EvaluateError: the ground truth lacks a video.
        """
        names = match_names(self.videos, ground_truth)
        found = labels_from_ground_truth({name: ground_truth[names[name]] for name in self.videos})
        videos = {
            name: replace(video, labels=found[name].labels, subset=found[name].subset or video.subset)
            for name, video in self.videos.items()
        }
        classes = tuple(sorted({label for about in found.values() for label in about.labels}))
        return replace(self, videos=videos, classes=classes, ground_truth=dict(ground_truth))

    def conjoint(self, which: str = "all") -> "FeatureSet":
        """THUMOS14's conjoint subset, section 4.3: the videos that show one of its classes, and these classes alone.

        which: "all", or "without diving", whose two classes are one and the same in every CliffDiving video.

        Raises:
            DatasetError: no such subset, or the labels do not have its classes.
        """
        if which not in CONJOINT:
            raise DatasetError(f"unknown conjoint subset {which!r}; there are: {', '.join(CONJOINT)}.")
        wanted = CONJOINT[which]
        if missing := [label for label in wanted if label not in (self.classes or ())]:
            raise DatasetError(f"the labels lack {missing[0]}, so they have no conjoint subset; it is one of THUMOS14.")
        shown = {n: tuple(label for label in v.labels or () if label in wanted) for n, v in self.videos.items()}
        truth = {
            name: AnnotatedVideo(video.subset, tuple(action for action in video.actions if action.label in wanted))
            for name, video in self.ground_truth.items()
        }
        return replace(
            self,
            videos={name: replace(video, labels=shown[name]) for name, video in self.videos.items() if shown[name]},
            classes=tuple(label for label in self.classes or () if label in wanted),
            ground_truth={name: video for name, video in truth.items() if video.actions},
        )


def checked_streams(streams: Iterable[str]) -> tuple[str, ...]:
    """In our order.

    Raises:
        DatasetError: not names of streams.
    """
    given = tuple(streams)
    if not given or set(given) - set(STREAMS):
        raise DatasetError(f"streams are {' and '.join(STREAMS)}, not {', '.join(map(repr, given)) or 'none'}.")
    return tuple(name for name in STREAMS if name in given)

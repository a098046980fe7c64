"""Feature sets on disk, for training and evaluation: videos whose features are read only when they are needed."""

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
    """A video with features on the disk, or in memory if the layout cannot be read in parts.

    Attributes:
        name: its path below the folder without suffix, or its published name.
        read: returns the rows of these streams side by side, (T or more, D).
        streams: the streams that `load` reads.
        times: (T, 2) seconds, the start and the end of each row.
        duration: seconds of the video; None if the layout does not say.
        labels: the classes that it shows; None if the layout does not say.
        subset: the subset that it is in; "" if the layout does not say.
    """

    name: str
    read: Callable[[tuple[str, ...]], NDArray[np.floating]]
    streams: tuple[str, ...]
    times: NDArray[np.float64]
    duration: float | None = None
    labels: tuple[str, ...] | None = None
    subset: str = ""

    def load(self) -> Rows:
        """Return (T, D) features, RGB first; they are memory-mapped if they are one float32 file.

        Raises:
            DatasetError, FeaturesError: the file has changed and can no longer be read.
        """
        return self.read(self.streams)[: len(self.times)].astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Videos with features that were extracted in the same way.

    Attributes:
        videos: the videos by name.
        streams: the streams in the order in which they are stacked.
        settings: for each stream, what decided the numbers: all settings for features of our own, else the layout and
            its grid. They go into a checkpoint's `features`.
        classes: the classes of the labels, in the layout's order; None if the layout has no labels.
        ground_truth: annotated segments, if the layout has them.
        notes: a sentence about each thing that was left out.
    """

    videos: dict[str, StoredVideo]
    streams: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    classes: tuple[str, ...] | None = None
    ground_truth: dict[str, AnnotatedVideo] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def select(self, streams: Iterable[str]) -> "FeatureSet":
        """Return the same set with some of its streams.

        Raises:
            DatasetError: the set lacks one of these streams.
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
        """Return the same set with the labels, subsets and segments of a ground truth, and the classes of its videos.

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
        """Return THUMOS14's conjoint subset (section 4.3): the videos that show one of its classes, and these classes.

        which: "all", or "without diving", which leaves out two classes that are the same in CliffDiving videos.

        Raises:
            DatasetError: there is no such subset, or the labels lack its classes.
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
    """Return the names of streams in our order.

    Raises:
        DatasetError: one is not a stream's name.
    """
    given = tuple(streams)
    if not given or set(given) - set(STREAMS):
        raise DatasetError(f"streams are {' and '.join(STREAMS)}, not {', '.join(map(repr, given)) or 'none'}.")
    return tuple(name for name in STREAMS if name in given)

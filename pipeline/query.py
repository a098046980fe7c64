"""A query by example: stretches of videos that show what is meant, and the results for the videos of a folder.

It needs no training and no labels: it compares features (`postprocess/similar.py`) and draws segments by the rule
`runs`, so that a result of a query is a result like any other.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.features import Features
from pipeline.cache.content import Video, video_at
from postprocess.config import LocalizeConfig
from postprocess.curves import Curves
from postprocess.formats.text import seconds_of
from postprocess.localize import Activations, localize
from postprocess.proposals import blocks, density
from postprocess.segment import Result, Segment, left_out
from postprocess.similar import WINDOW, Floats, Space, direction, whiten
from support.errors import UsageError
from support.version import package_version

NAME = "find"  # stands where a result names its model
# How much of an example's own score a snippet needs to be as likely meant as not, and how fast it becomes sure from
# there on. Chosen on training videos of SportsMini (benchmarks/find.py) for what is found and where it begins and ends.
LEVEL, STEEPNESS = 0.15, 20.0
LEAST_SCALE = 0.05
# Seconds of searched video below which the whitening knows too little. With one clip of a class as the example, among
# 43 clips of the corpus, another clip of the class was found in 15 of 100 draws of 8 s, and in 91 of 32 s; 14 in 100 of
# the other clips matched. So nothing is called sure there.
ENOUGH = 60.0
# How often matches are right, fitted on 45,000 matches in training videos of SportsMini and clips of the corpus
# (benchmarks/find_confidence.py): the log odds are a straight line over those of the curve's mean. Its slope and shift
# grow with the logarithm of the minutes that are searched, between the fewest and the most that were measured.
SLOPE, SLOPE_BY_SIZE = 0.19, 0.09
SHIFT, SHIFT_BY_SIZE = -2.07, 0.27
BRIEF_SHIFT = -0.35  # of an example of a single snippet
MEASURED = (0.5, 30.0)  # minutes
FITTED = "1"  # which fit this is: results of another are made anew
DEFAULTS = LocalizeConfig(threshold=0.5, smooth=1)


@dataclass(frozen=True)
class Example:
    """A stretch of a video, in seconds."""

    video: Video
    start: float = 0.0
    end: float = math.inf

    @property
    def text(self) -> str:
        """As a user writes it, without the folder: match.mp4@12.3-14.8."""
        if self.start == 0 and math.isinf(self.end):
            return self.video.name
        last = "" if math.isinf(self.end) or self.end == self.start else f"-{self.end:g}"
        return f"{self.video.name}@{self.start:g}{last}"

    @property
    def label(self) -> str:
        """What matches are called by default."""
        whole = self.start == 0 and math.isinf(self.end)
        return f"like {self.video.name}" if whole else f"like {self.video.name}@{self.start:g}"


def read_example(option: str, text: str) -> Example:
    """The example that a user writes as VIDEO@START-END, VIDEO@MOMENT or VIDEO; times are seconds or clocks.

    Raises:
        UsageError: it is none of these, or ends before it starts, or is an address that holds credentials.
    """
    video_at(text)  # before any message shows it
    video, at, when = text.rpartition("@")
    if not at or (Path(text).exists() and not Path(video).exists()):  # an @ of the file's own name
        return Example(video_at(text))
    first, dash, last = when.partition("-")
    try:
        start = seconds_of(first)
        end = seconds_of(last) if dash else start
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error} Write VIDEO@START-END, such as match.mp4@12.3-14.8.") from error
    if dash and end <= start:
        raise UsageError(f"{option} {text}: ends before it starts; write VIDEO@START-END.")
    return Example(video_at(video), start, end)


def snippets_of(example: Example, features: Features) -> np.ndarray:
    """(n,) indexes of the snippets of an example: those whose middle it holds, or else the one that it is in.

    Raises:
        UsageError: the video ends before the example begins.
    """
    times = features.times
    if example.start >= max(features.duration, float(times[-1, 1])):
        raise UsageError(f"{example.text}: the video ends at {features.duration:.2f} s; choose a stretch within it.")
    middle = times.mean(axis=1)
    inside = np.flatnonzero((middle >= example.start) & (middle < example.end))
    if len(inside):
        return inside
    wanted = (example.start + min(example.end, features.duration)) / 2
    return np.array([int(np.argmin(np.abs(middle - wanted)))])


@dataclass(frozen=True, eq=False)
class Seen:
    """A video that takes part in a query: the hash of its content, and its features."""

    content: str
    features: Features


class Query:
    """A query that is ready: a direction in the space of the folder's snippets."""

    def __init__(
        self,
        label: str,
        examples: Sequence[tuple[Example, Seen]],
        counter: Sequence[tuple[Example, Seen]],
        folder: Sequence[Seen],
        config: LocalizeConfig = DEFAULTS,
        asked: Sequence[str] = (),
    ) -> None:
        """Learn what is meant.

        Args:
            label: the name of what is found.
            examples: what is meant; at least one.
            counter: what is not meant.
            folder: the videos that are searched.
            config: how segments are drawn.
            asked: the settings that the user chose.

        Raises:
            UsageError: an example lies behind the end of its video.
        """
        self.label, self.config, self.asked = label, config, list(asked)
        self._examples, self._counter = examples, counter
        self._streams = tuple(examples[0][1].features.settings)
        self._contents = sorted(seen.content for seen in folder)
        self.space: Space = whiten([seen.features.stacked(self._streams) for seen in folder])
        placed = {id(seen): self._place(seen.features) for seen in folder}
        everything = np.concatenate(list(placed.values()))

        def rows(several: Sequence[tuple[Example, Seen]]) -> list[Floats]:
            found = []
            for example, seen in several:
                here = placed[id(seen)] if id(seen) in placed else self._place(seen.features)
                found.append(here[snippets_of(example, seen.features)])
            return found

        shown = rows(examples)
        self.direction = direction(shown, rows(counter), everything)
        # An example is 1 on this scale, whatever the way by which the direction was found.
        self._scale = max(float(np.mean([(here @ self.direction).mean() for here in shown])), LEAST_SCALE)
        searched = sum(seen.features.duration for seen in folder)
        longest = max(len(here) / density(seen.features.times) for here, (_, seen) in zip(shown, examples, strict=True))
        self.doubts = _doubts(searched, longest)
        """why the matches are less sure than they may look, a sentence each"""
        size = math.log(min(max(searched / 60, MEASURED[0]), MEASURED[1]))
        slope = SLOPE + SLOPE_BY_SIZE * size
        shift = SHIFT + SHIFT_BY_SIZE * size + (BRIEF_SHIFT if longest < 2 else 0.0)
        if not {"localize.confidence_slope", "localize.confidence_shift"} & set(asked):
            config = dataclasses.replace(config, confidence_slope=slope, confidence_shift=shift)
        self._drawn = config

    def _place(self, features: Features) -> Floats:
        times = features.times
        window = (WINDOW - 1) * density(times) + 1
        return self.space.place(features.stacked(self._streams), blocks(times), window)

    def probability(self, features: Features) -> Floats:
        """(T,) how much a snippet is like what is meant, in [0, 1], by which segments are drawn; not calibrated."""
        odds = STEEPNESS * (self._place(features) @ self.direction / self._scale - LEVEL)
        return np.asarray(1 / (1 + np.exp(-odds)))

    def result(self, video: Video, seen: Seen) -> tuple[Result, Curves]:
        """The result for a video, and the curve that its segments came from."""
        features = seen.features
        p = np.clip(self.probability(features), 1e-6, 1 - 1e-6)
        logits = np.stack((np.log(p / (1 - p)), np.zeros(len(p))), axis=1)
        shown = logits.astype(np.float32)
        curves = Curves(features.times, np.ones(len(p), np.float32), shown, shown, (self.label,))
        certain = Activations(
            logits, np.ones(len(p)), np.array([p.max(initial=0.0)]), features.times, (self.label,), features.duration
        )
        found = tuple(localize(certain, self._drawn))
        result = Result(
            video=str(video),
            duration=features.duration,
            media=features.media,
            segments=found,
            warnings=(*features.warnings, *self.doubts, *self._short(found, certain)),
            provenance=self.provenance(seen),
            partial=features.partial,
        )
        return result, curves

    def _short(self, found: Sequence[Segment], scores: Activations) -> tuple[str, ...]:
        """A sentence about matches that are shorter than the user wants them."""
        if "localize.min_seconds" not in self.asked:
            return ()
        anything = localize(scores, dataclasses.replace(self._drawn, min_seconds=0.0))
        return left_out(found, anything, self.config.min_seconds)

    def provenance(self, seen: Seen) -> dict[str, Any]:
        """Where a result comes from; the folder counts, because features are compared with all of it."""
        folder = hashlib.sha256("".join(self._contents).encode()).hexdigest()
        return {
            "content": f"sha256:{seen.content}",
            "model": {
                "name": NAME,
                "label": self.label,
                "examples": [_described(*one) for one in self._examples],
                "not": [_described(*one) for one in self._counter],
            },
            "folder": f"sha256:{folder}",
            "features": seen.features.settings,
            "localize": dataclasses.asdict(self.config),
            "range": [0.0, None],
            "asked": self.asked,
            "versions": {name: package_version(name) for name in ("jcdnet", "numpy")} | {"confidence": FITTED},
        }


def _doubts(searched: float, longest: float) -> tuple[str, ...]:
    """Why a query is less sure than it may look.

    Args:
        searched: seconds of video that are searched.
        longest: snippets of the longest example, as many as lie side by side.
    """
    said = []
    if searched < ENOUGH:
        said.append(
            f"only {searched:.0f} s of video are searched; an example is compared with what is usual there, which less "
            f"than {ENOUGH:.0f} s do not show: matches may be missed, and none is sure."
        )
    if longest < 2:
        said.append(
            "the example holds a single snippet of 0.64 s: no match is sure; take the whole action, if you can."
        )
    return tuple(said)


def is_example(result: Result, segment: Segment, examples: Sequence[Example]) -> bool:
    """Whether a match in a result of a query is one of its examples: they share half of the shorter one."""
    model = result.provenance.get("model")
    described = model.get("examples") if isinstance(model, dict) else None
    for example, text in zip(examples, described or (), strict=False):
        if not str(text).endswith(f" {result.provenance.get('content')}"):
            continue
        end = min(example.end, result.duration)
        shared = min(segment.end, end) - max(segment.start, example.start)
        if shared >= 0.5 * min(segment.end - segment.start, end - example.start):
            return True
    return False


def _described(example: Example, seen: Seen) -> str:
    return f"{example.text} sha256:{seen.content}"


def check_settings(path: Path, given: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that features may be compared: all their settings agree, except for the precision.

    Raises:
        UsageError: they differ; the message names the first difference.
    """
    from pipeline import precisions

    one, other = precisions.without(given), precisions.without(wanted)
    for stream in sorted(one.keys() | other.keys()):
        if stream not in one or stream not in other:
            where = "has" if stream in one else "lacks"
            raise UsageError(f"{path}: {where} the {stream} stream, unlike the others; extract them alike.")
        for name in sorted(one[stream].keys() | other[stream].keys()):
            if (here := one[stream].get(name)) != (there := other[stream].get(name)):
                raise UsageError(
                    f"{path}: its {stream} features were made with {name} = {here}, and the others with {there}; "
                    "extract them alike, or give the videos themselves."
                )

"""Evaluation protocols: which videos count, in which unit, and at which thresholds (WTAL §4).

The same predictions get different scores under different protocols, so always name the protocol with a figure.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from postprocess.evaluation.metrics import Instances
from support.errors import UserError

SAME_SPAN = 1e-3
"""In seconds; two annotations of one label that differ by no more than this are duplicates (OpenTAD)."""

MOST_TIOUS = 1000

THUMOS_TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ACTIVITYNET_TIOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

AVERAGES = ((0.1, 0.5), (0.1, 0.7), (0.3, 0.7), (0.3, 0.9), (0.5, 0.9))
"""First and last threshold of the averages in Tables 1 and 3, in steps of .1."""

CONJOINT_SETS = (
    ("BaseballPitch", "CricketBowling"),
    ("HighJump", "LongJump"),
    ("HammerThrow", "Shotput", "ThrowDiscus"),
    ("JavelinThrow", "PoleVault"),
    ("CliffDiving", "Diving"),
)
"""The sets of §4.3: the actions of one set share phases. In THUMOS14 every CliffDiving instance is a Diving instance,
too, so the last set is a hierarchy, and results are given with and without it (WTAL §4)."""

CONJOINT = {
    "all": tuple(label for labels in CONJOINT_SETS for label in labels),
    "without diving": tuple(label for labels in CONJOINT_SETS[:-1] for label in labels),
}


class EvaluateError(UserError, ValueError):
    """Predictions or ground truth cannot be used; the message says what is wrong and what to do next."""


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is scored."""

    about: str
    tious: tuple[float, ...] = THUMOS_TIOUS
    subset: str | None = None
    """the subset that is scored; None means the one that holds the predicted videos"""
    excluded: frozenset[str] = frozenset()
    """videos that do not count"""
    ignored_labels: frozenset[str] = frozenset()
    """labels of annotations that are not a class"""
    drop_empty: bool = False
    """whether videos without annotations are left out; otherwise each prediction in them is a false positive"""
    drop_duplicates: bool = False
    """whether only the first of several equal annotations counts"""
    snippets: bool = False
    """whether spans are rounded to whole snippets of 16 frames at 25 fps; otherwise they are seconds"""
    videos: int | None = None
    """number of videos in the published figures"""

    @property
    def unit(self) -> str:
        """The unit of all spans."""
        return "snippets" if self.snippets else "seconds"


AMBIGUOUS = frozenset({"Ambiguous"})
PROTOCOLS = {
    "default": Protocol("the ground truth as given, in seconds"),
    "thumos14": Protocol(
        "UM, CoLA, BaS-Net: 210 videos, in seconds",
        subset="test",
        # 0000270 and 0001496 are labelled wrongly, 0001292 has only ambiguous labels.
        excluded=frozenset({"video_test_0000270", "video_test_0001292", "video_test_0001496"}),
        ignored_labels=AMBIGUOUS,
        drop_empty=True,
        videos=210,
    ),
    "thumos14-co2": Protocol(
        "CO2-Net, DELU: 212 videos, rounded to snippets, nothing predicted where it is ambiguous",
        subset="test",
        ignored_labels=AMBIGUOUS,
        drop_empty=True,
        snippets=True,
        videos=212,
    ),
    "thumos14-tad": Protocol(
        "OpenTAD, ActionFormer: 211 videos, in seconds, duplicate annotations removed",
        subset="test",
        excluded=frozenset({"video_test_0000270", "video_test_0001292"}),
        ignored_labels=AMBIGUOUS,
        drop_empty=True,
        drop_duplicates=True,
        videos=211,
    ),
    "activitynet": Protocol("ActivityNet: tIoU 0.5:0.95, in seconds", tious=ACTIVITYNET_TIOUS),
}


def find_protocol(name: str) -> Protocol:
    """Find a protocol by its name.

    Raises:
        EvaluateError: there is no protocol of this name.
    """
    if name not in PROTOCOLS:
        raise EvaluateError(f"unknown protocol {name!r}; there are: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Scoring:
    """How predictions are scored.

    Raises:
        EvaluateError: there is no protocol of that name.
    """

    protocol: str = "default"
    """a name in PROTOCOLS"""
    ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None = None
    """video → spans in seconds; predictions that share time with one of them are dropped. None: there is no list"""
    subset: str | None = None
    """the subset to score instead of the protocol's"""
    tious: tuple[float, ...] | None = None
    """thresholds in (0, 1], ascending, instead of the protocol's"""
    diagnosis: bool = False
    """whether to classify the false positives, too"""
    ignore_unknown: bool = False
    """whether to leave out predictions whose label the ground truth lacks; otherwise they are false positives"""

    def __post_init__(self) -> None:
        find_protocol(self.protocol)

    @property
    def rules(self) -> Protocol:
        """The protocol itself."""
        return PROTOCOLS[self.protocol]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The tIoU thresholds to score at."""
        return self.rules.tious if self.tious is None else self.tious


def choose_subset(subset_of: Mapping[str, str], predicted: Collection[str], wanted: str | None) -> str:
    """Choose the subset to score.

    Args:
        subset_of: video → subset, "" for none.
        predicted: the predicted videos, as the ground truth names them.
        wanted: name of the subset, in upper or lower case; None means the one that holds the predicted videos.

    Raises:
        EvaluateError: the subset does not exist, several subsets are possible, or the ground truth is empty.
    """
    subsets = Counter(subset_of.values())
    if not subsets:
        raise EvaluateError("the ground truth has no video in it; check that it is the right file.")
    if wanted is not None:
        alike = [wanted] if wanted in subsets else [s for s in subsets if s.casefold() == wanted.casefold()]
        if len(alike) != 1:
            raise EvaluateError(f"no subset {wanted!r} in the ground truth, only {_listed(subsets)}; use --subset.")
        return alike[0]
    holding = Counter(subset_of[video] for video in predicted) if predicted else subsets
    if len(holding) == 1:
        return next(iter(holding))
    which = "the predicted videos lie in" if predicted else "nothing is predicted, and the ground truth has"
    raise EvaluateError(f"{which} several subsets: {_listed(holding)}; choose one with --subset.")


def _listed(subsets: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({count} videos)" for name, count in subsets.items())


def parse_tious(text: str) -> tuple[float, ...]:
    """Read thresholds from `start:stop:step` (both ends included) or from numbers joined by commas.

    Raises:
        EvaluateError: the text is neither, or a value is outside (0, 1].
    """
    example = "write start:stop:step as in 0.1:0.9:0.1, or numbers joined by commas"
    try:
        numbers = [float(part) for part in text.replace(":", ",").split(",")]
    except ValueError as error:
        raise EvaluateError(f"tIoU thresholds {text!r} are not numbers; {example}.") from error
    if ":" in text:
        if len(numbers) != 3 or "," in text:
            raise EvaluateError(f"tIoU thresholds {text!r} are not a range; {example}.")
        start, stop, step = numbers
        if not all(map(math.isfinite, numbers)) or stop > 1:
            raise EvaluateError(f"tIoU thresholds {text!r} must be above 0 and at most 1; {example}.")
        if step > 0 and (stop - start) / step > MOST_TIOUS:
            raise EvaluateError(f"tIoU thresholds {text!r} are more than {MOST_TIOUS}; {example}.")
        # Some people write start:step:stop, and 0.1:0.1:0.9 would then silently be a single threshold.
        if not (0 < step <= stop - start + 1e-9):
            raise EvaluateError(f"tIoU thresholds {text!r}: the step must fit between start and stop; {example}.")
        count = round((stop - start) / step)
        if abs(start + count * step - stop) > 1e-9:
            raise EvaluateError(f"tIoU thresholds {text!r}: steps of {step:g} do not end at {stop:g}; {example}.")
        numbers = [start + i * step for i in range(count + 1)]
    tious = tuple(sorted({round(number, 9) for number in numbers}))
    if not all(0 < tiou <= 1 for tiou in tious):
        raise EvaluateError(f"tIoU thresholds {text!r} must be above 0 and at most 1; {example}.")
    return tious


def tiou_name(tiou: float) -> str:
    """The threshold as text: 0.55 → "0.55"."""
    return f"{tiou:.9g}"


def averages(values: Mapping[float, float]) -> dict[str, float]:
    """The averages of the paper's tables that these thresholds allow; if none, the mean over all thresholds.

    Args:
        values: threshold → mAP.

    Returns:
        "first:last" → mean. For ActivityNet's thresholds it is only "0.5:0.95", in steps of .05.
    """
    known = {round(tiou, 9): value for tiou, value in values.items()}
    if tuple(sorted(known)) != ACTIVITYNET_TIOUS:
        found = {}
        for first, last in AVERAGES:
            wanted = [round(first + 0.1 * i, 9) for i in range(round((last - first) / 0.1) + 1)]
            if all(tiou in known for tiou in wanted):
                found[f"{tiou_name(first)}:{tiou_name(last)}"] = math.fsum(known[t] for t in wanted) / len(wanted)
        if found:
            return found
    name = f"{tiou_name(min(known))}:{tiou_name(max(known))}"
    return {name: math.fsum(known.values()) / len(known)}


def to_snippets(spans: np.ndarray) -> np.ndarray:
    """(N, 2) seconds → whole snippets. Halves round to even as in CO2-Net, so 1.6 s (2.5 snippets) becomes 2."""
    return np.rint(np.asarray(spans, dtype=np.float64) * 25 / 16)


def without_duplicates(truth: Instances) -> np.ndarray:
    """(N,) bool: true for the first of several annotations that agree in video, label and span (within SAME_SPAN)."""
    keep = np.ones(len(truth), dtype=bool)
    firsts: dict[tuple[int, int], list[np.ndarray]] = {}
    for i, (video, label, span) in enumerate(zip(truth.video, truth.label, truth.span, strict=True)):
        others = firsts.setdefault((int(video), int(label)), [])
        if any(np.abs(span - other).max() <= SAME_SPAN + 1e-9 for other in others):
            keep[i] = False
        else:
            others.append(span)
    return keep


def touches(predictions: Instances, video: Sequence[int], spans: np.ndarray) -> np.ndarray:
    """(N,) bool: which predictions, of any class, share time with a listed segment; touching at a point is not enough.

    Args:
        predictions: N spans.
        video: (A,) video of each listed segment.
        spans: (A, 2) in the unit of the predictions.
    """
    touched = np.zeros(len(predictions), dtype=bool)
    for index, (start, end) in zip(video, spans, strict=True):
        shared = np.minimum(predictions.span[:, 1], end) - np.maximum(predictions.span[:, 0], start)
        touched |= (predictions.video == index) & (shared > 1e-9)
    return touched

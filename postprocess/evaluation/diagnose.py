"""A diagnosis of mistakes: the kinds of false positives, what each kind costs, and the influence of length.

This follows DETAD (Alwassel et al., Diagnosing Error in Temporal Action Detectors, ECCV 2018), with two differences. No
prediction is removed before the AP, so the mAP here equals the mAP everywhere else. And if a prediction overlaps an
instance of its own class as much as one of another class, its own class counts (in THUMOS14, CliffDiving instances are
also Diving instances).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from postprocess.evaluation.metrics import Detection, Instances, Predictions, average_precision, detect, ranking
from postprocess.nms import SAME, pairwise_tiou

KINDS = {
    "true positive": "a match",
    "duplicate": "found an instance that a better prediction has",
    "class": "found an instance of another class",
    "localisation": "overlaps an instance of its class too little",
    "confusion": "overlaps an instance of another class too little",
    "background": "overlaps nothing, or hardly",
}
MIN_TIOU = 0.1
"""Below this overlap a prediction is background (DETAD)."""
BANDS = 10
"""The ranking of a class is followed for this many times the number of its instances (DETAD)."""
BIN_NAMES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True)
class Band:
    """Predictions on the ranks (multiple − 1)·G to multiple·G of their class, which has G instances."""

    multiple: int
    counts: dict[str, int]
    """kind → number of predictions"""


@dataclass(frozen=True)
class LengthBin:
    """The instances in one fifth of the lengths. Equal lengths are always in the same bin."""

    name: str
    shortest: float
    longest: float
    instances: int
    recall: float
    """share of these instances that is found at all"""
    ap_n: float
    """DETAD's AP_N in [0, 1]; its precision assumes the mean number of instances for every class, so that bins of
    different sizes can be compared"""


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis at one threshold."""

    tiou: float
    mean_ap: float
    counts: dict[str, int]
    """kind → number of predictions"""
    gains: dict[str, float]
    """kind → the mAP, in [0, 1], that would be gained without predictions of this kind"""
    bands: tuple[Band, ...]
    mean_ap_n: float
    lengths: tuple[LengthBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as JSON, with AP, gains and recall in percent to 4 decimals."""
        return {
            "tIoU": self.tiou,
            "mAP": _percent(self.mean_ap),
            "mAP_N": _percent(self.mean_ap_n),
            "counts": self.counts,
            "gains": {kind: _percent(gain) for kind, gain in self.gains.items()},
            "bands": [asdict(band) for band in self.bands],
            "lengths": [asdict(b) | {"recall": _percent(b.recall), "ap_n": _percent(b.ap_n)} for b in self.lengths],
        }


def diagnose(truth: Instances, predictions: Predictions, tiou: float = 0.5) -> Diagnosis:
    """Diagnose one set of predictions at one threshold.

    Predictions of classes that the truth lacks are counted by kind. They do not affect the mAP, its gains, the bands or
    the lengths, since these are means over the classes of the truth.

    Raises:
        ValueError: there are no instances.
    """
    every = predictions
    predictions = every.take(np.isin(every.label, truth.label))
    foreign = every.take(~np.isin(every.label, truth.label))
    detection = detect(truth, predictions, np.array([tiou]))
    match = detection.match[0]
    kinds = false_positive_kinds(truth, predictions, match, tiou)
    names = list(KINDS)
    mean_ap = float(detection.mean_ap[0])
    gains = {}
    for kind, name in enumerate(names):
        if kind:
            left = predictions.take(kinds != kind)
            gains[name] = _mean_ap(truth, left, match[kinds != kind] >= 0) - mean_ap
    return Diagnosis(
        tiou=tiou,
        mean_ap=mean_ap,
        counts=_counts(np.concatenate((kinds, false_positive_kinds(truth, foreign, np.full(len(foreign), -1), tiou)))),
        gains=gains,
        bands=_bands(truth, predictions, kinds),
        mean_ap_n=_ap_n(truth, predictions, detection, np.ones(len(truth), dtype=bool)),
        lengths=_lengths(truth, predictions, detection),
    )


def false_positive_kinds(
    truth: Instances, predictions: Predictions, match: np.ndarray, tiou: float, min_tiou: float = MIN_TIOU
) -> np.ndarray:
    """(N,) position in KINDS of each prediction, decided by the instance of any class that it overlaps most.

    Args:
        match: (N,) the instance that each prediction found, −1 for none (from metrics.match_predictions).
    """
    names = list(KINDS)
    own, other = np.zeros(len(predictions)), np.zeros(len(predictions))
    for video in np.unique(predictions.video):
        here = np.flatnonzero(predictions.video == video)
        there = np.flatnonzero(truth.video == video)
        if not len(there):
            continue
        overlap = pairwise_tiou(truth.span[there], predictions.span[here])  # (G, P)
        same = truth.label[there][:, None] == predictions.label[here]
        own[here] = np.where(same, overlap, 0.0).max(axis=0)
        other[here] = np.where(same, 0.0, overlap).max(axis=0)
    its_class = own >= other - SAME
    best = np.maximum(own, other)
    kinds = np.where(its_class, names.index("localisation"), names.index("confusion"))
    high = best >= tiou - SAME
    kinds[high] = np.where(its_class, names.index("duplicate"), names.index("class"))[high]
    kinds[best < min(min_tiou, tiou) - SAME] = names.index("background")
    kinds[match >= 0] = names.index("true positive")
    return kinds


def _counts(kinds: np.ndarray) -> dict[str, int]:
    return dict(zip(KINDS, np.bincount(kinds, minlength=len(KINDS)).tolist(), strict=True))


def _mean_ap(truth: Instances, predictions: Predictions, hits: np.ndarray) -> float:
    """mAP, given which predictions are hits."""
    order = ranking(predictions)
    values = []
    for label, positives in zip(*np.unique(truth.label, return_counts=True), strict=True):
        ranked = order[predictions.label[order] == label]
        values.append(float(average_precision(hits[ranked], int(positives))))
    return float(np.mean(values))


def _bands(truth: Instances, predictions: Predictions, kinds: np.ndarray) -> tuple[Band, ...]:
    band = np.full(len(predictions), BANDS)
    order = ranking(predictions)
    for label, positives in zip(*np.unique(truth.label, return_counts=True), strict=True):
        ranked = order[predictions.label[order] == label]
        band[ranked] = np.arange(len(ranked)) // positives
    return tuple(Band(b + 1, _counts(kinds[band == b])) for b in range(BANDS) if (band == b).any())


def _lengths(truth: Instances, predictions: Predictions, detection: Detection) -> tuple[LengthBin, ...]:
    length = truth.span[:, 1] - truth.span[:, 0]
    inner = np.quantile(length, np.arange(1, len(BIN_NAMES)) / len(BIN_NAMES))
    # Equal lengths share a bin, so bins differ in size, and some may be empty if there are few lengths.
    bins = np.searchsorted(inner, length - SAME)
    found = np.isin(np.arange(len(truth)), detection.match[0])
    result = []
    for b, name in enumerate(BIN_NAMES):
        inside = bins == b
        if inside.any():
            shortest, longest = float(length[inside].min()), float(length[inside].max())
            ap_n = _ap_n(truth, predictions, detection, inside)
            result.append(LengthBin(name, shortest, longest, int(inside.sum()), float(found[inside].mean()), ap_n))
    return tuple(result)


def _ap_n(truth: Instances, predictions: Predictions, detection: Detection, inside: np.ndarray) -> float:
    """Mean AP_N over the classes of the instances that are `inside`.

    A prediction that found an instance outside counts neither as hit nor as false positive. Precision is
    R·N / (R·N + false positives), where R is the recall so far and N the mean number of instances of a class.
    """
    match = detection.match[0]
    hit = (match >= 0) & inside[match]
    counted = hit | (match < 0)
    order = ranking(predictions)
    order = order[counted[order]]
    mean_count = len(truth) / len(detection.classes)
    values = []
    for label, positives in zip(*np.unique(truth.label[inside], return_counts=True), strict=True):
        ranked = order[predictions.label[order] == label]
        values.append(float(average_precision(hit[ranked], int(positives), mean_count / positives)))
    return float(np.mean(values))


def _percent(value: float) -> float:
    return round(100 * value, 4)

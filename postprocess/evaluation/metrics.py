"""Mean average precision of temporal localisation, as ActivityNet defines it (WTAL §4), and of video classification.

Here classes and videos are numbers; join.py has already handled names and units. A prediction only ever matches an
instance in its own video, so each pair of class and video is matched separately, at all thresholds at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from postprocess.nms import SAME, pairwise_tiou


@dataclass(frozen=True)
class Instances:
    """N annotated actions."""

    video: np.ndarray
    """(N,) int"""
    label: np.ndarray
    """(N,) int"""
    span: np.ndarray
    """(N, 2) start and end, all in the same unit"""

    def __len__(self) -> int:
        return len(self.video)

    def take(self, rows: np.ndarray) -> Self:
        """Only the given rows; `rows` holds indexes, or is a mask (N,) bool."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Predictions(Instances):
    """N predicted actions, in the order of the file."""

    score: np.ndarray
    """(N,) finite"""


@dataclass(frozen=True)
class Detection:
    """AP of every class that has instances."""

    tious: np.ndarray
    """(K,) thresholds"""
    classes: np.ndarray
    """(C,) labels in ascending order"""
    ap: np.ndarray
    """(K, C) in [0, 1]"""
    match: np.ndarray
    """(K, N) the instance that prediction n found; −1 for a false positive"""

    @property
    def mean_ap(self) -> np.ndarray:
        """(K,) mAP, the mean over the classes."""
        return self.ap.mean(axis=1)


def detect(truth: Instances, predictions: Predictions, tious: np.ndarray) -> Detection:
    """Compute AP for each class and threshold.

    The AP of a class without predictions is 0. Predictions of a class without instances do not count.

    Args:
        truth: G instances; at least one.
        predictions: N predictions. Equal scores keep their order.
        tious: (K,) thresholds in (0, 1]. A tIoU equal to the threshold is a match; rounding errors do not matter.

    Raises:
        ValueError: there are no instances, so there is no class to take the mean over.
    """
    if not len(truth):
        raise ValueError("there is no annotated instance to score against")
    match = match_predictions(truth, predictions, tious)
    classes, positives = np.unique(truth.label, return_counts=True)
    ap = np.zeros((len(tious), len(classes)))
    order = ranking(predictions)
    for c, (label, count) in enumerate(zip(classes, positives, strict=True)):
        ranked = order[predictions.label[order] == label]
        ap[:, c] = average_precision(match[:, ranked] >= 0, int(count))
    return Detection(np.asarray(tious, dtype=np.float64), classes, ap, match)


def ranking(predictions: Predictions) -> np.ndarray:
    """(N,) indexes by score, best first; equal scores keep the order of the file."""
    return np.argsort(-predictions.score, kind="stable")


def match_predictions(truth: Instances, predictions: Predictions, tious: np.ndarray) -> np.ndarray:
    """Match greedily: from the best score down, each prediction takes the free instance that it overlaps most.

    If its best instance is taken, a prediction may take the next best (in PASCAL VOC it would be lost). Of instances
    that it overlaps equally, it takes the first.

    Returns:
        (K, N) index of the instance; −1 for a false positive.
    """
    floor = np.asarray(tious, dtype=np.float64)[:, None] - SAME
    match = np.full((len(floor), len(predictions)), -1, dtype=np.int64)
    for here, ranked in _shared_groups(truth, predictions):
        overlap = pairwise_tiou(truth.span[here], predictions.span[ranked]).T  # (P, G)
        free = np.ones((len(floor), len(here)), dtype=bool)
        for p in np.flatnonzero(overlap.max(axis=1) >= floor.min()):
            candidate = np.where(free & (overlap[p] >= floor), overlap[p], -1.0)  # (K, G)
            best = candidate.max(axis=1)
            found = np.flatnonzero(best >= 0)
            # Take the first one within rounding of the best: the last bit must not decide between equal overlaps.
            chosen = np.argmax(candidate[found] >= best[found, None] - SAME, axis=1)
            free[found, chosen] = False
            match[found, ranked[p]] = here[chosen]
    return match


def _shared_groups(truth: Instances, predictions: Predictions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indexes of (instances, predictions best first) for each pair of class and video that has both."""
    videos = int(max((x.video.max() for x in (truth, predictions) if len(x)), default=0)) + 1
    group_of_truth = truth.label.astype(np.int64) * videos + truth.video
    group_of_prediction = predictions.label.astype(np.int64) * videos + predictions.video
    by_group = np.argsort(group_of_truth, kind="stable")
    ranked = np.lexsort((-predictions.score, group_of_prediction))  # lexsort is stable, too
    truth_keys, predicted_keys = group_of_truth[by_group], group_of_prediction[ranked]
    for key in np.intersect1d(truth_keys, predicted_keys):
        yield (
            by_group[slice(*np.searchsorted(truth_keys, (key, key + 1)))],
            ranked[slice(*np.searchsorted(predicted_keys, (key, key + 1)))],
        )


def average_precision(hits: np.ndarray, positives: float, weight: float = 1.0) -> np.ndarray:
    """AP interpolated at all points: the best precision at or after each hit, averaged over the positives.

    Args:
        hits: (..., N) bool, ranked best first.
        positives: number of instances to find, more than 0.
        weight: how much a hit counts in the precision, where a false positive counts 1; only DETAD's AP_N uses another
            value than 1.

    Returns:
        (...) in [0, 1].
    """
    found = np.cumsum(hits, axis=-1) * weight
    false = np.cumsum(~hits, axis=-1)
    precision = np.divide(found, found + false, out=np.zeros(hits.shape), where=found + false > 0)
    best_from_here = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray((best_from_here * hits).sum(axis=-1) / positives)


def video_scores(cas: np.ndarray, divisor: int = 8) -> np.ndarray:
    """Class scores of a video as in W-TALC: softmax over the mean of the ⌈T/divisor⌉ largest logits of each class.

    Classification mAP is defined on these. The network itself pools with `model.jcdnet.top_k_mean` (equation 7), which
    rounds T/divisor down.

    Args:
        cas: (T, C+1) logits, not suppressed, the background last; T at least 1.
        divisor: r; 8 in W-TALC.

    Returns:
        (C,) probabilities, the background dropped after the softmax (WTAL §3.1).
    """
    count = -(-len(cas) // divisor)
    logits = np.sort(np.asarray(cas, dtype=np.float64), axis=0)[-count:].mean(axis=0)
    exponent = np.exp(logits - logits.max())
    return (exponent / exponent.sum())[:-1]


def classification_ap(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Non-interpolated AP of each class over the videos (W-TALC).

    Args:
        scores: (V, C); equal scores keep the order of the videos.
        labels: (V, C) bool.

    Returns:
        (C,) in [0, 1]; nan for a class that no video has.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(np.asarray(labels, dtype=bool), order, axis=0)
    precision = np.cumsum(hits, axis=0) / np.arange(1, len(hits) + 1)[:, None]
    positives = hits.sum(axis=0)
    return np.divide(
        (precision * hits).sum(axis=0), positives, out=np.full(len(positives), np.nan), where=positives > 0
    )

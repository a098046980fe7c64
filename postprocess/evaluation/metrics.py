"""Mean average precision of temporal localisation, as ActivityNet defines it (WTAL §4), and of video classification.

Classes and videos are numbers here; names, files and units are settled before. Matching never leaves a video, so
each pair of a class and a video is matched on its own, all thresholds at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from postprocess.nms import SAME, pairwise_tiou


@dataclass(frozen=True)
class Instances:
    """Annotated actions. video (N,) int; label (N,) int; span (N, 2) start and end, in any one unit."""

    video: np.ndarray
    label: np.ndarray
    span: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def take(self, rows: np.ndarray) -> Self:
        """The given rows: indexes, or a mask (N,) bool."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Predictions(Instances):
    """Predicted actions, in the order of the file. score (N,) finite."""

    score: np.ndarray


@dataclass(frozen=True)
class Detection:
    """AP of every class that has instances.

    tious (K,); classes (C,) labels, ascending; ap (K, C) in [0, 1]; match (K, N): the instance that prediction n
    found, −1 where it is a false positive.
    """

    tious: np.ndarray
    classes: np.ndarray
    ap: np.ndarray
    match: np.ndarray

    @property
    def mean_ap(self) -> np.ndarray:
        """(K,) mAP, the mean over the classes."""
        return self.ap.mean(axis=1)


def detect(truth: Instances, predictions: Predictions, tious: np.ndarray) -> Detection:
    """AP per class and threshold.

    A class without predictions counts 0; predictions of a class without instances count nowhere.

    Args:
        truth: G instances; at least one.
        predictions: N predictions. Equal scores keep their order.
        tious: (K,) thresholds in (0, 1]. A tIoU of exactly the threshold is a match, whatever the rounding.

    Raises:
        ValueError: no instances, so that there is no class to take the mean over.
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
    """(N,) indexes, best score first, equal scores in the order of the file."""
    return np.argsort(-predictions.score, kind="stable")


def match_predictions(truth: Instances, predictions: Predictions, tious: np.ndarray) -> np.ndarray:
    """Greedy matching: best score first, each takes the instance that it overlaps most of those still free.

    An instance that is taken falls through to the next best (unlike PASCAL VOC, where the prediction is lost).
    Instances that a prediction overlaps equally are taken in their order.

    Returns:
        (K, N) index of the instance, −1 for a false positive.
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
            # The first within rounding of the best: what is equal on paper must not be settled by the last bit.
            chosen = np.argmax(candidate[found] >= best[found, None] - SAME, axis=1)
            free[found, chosen] = False
            match[found, ranked[p]] = here[chosen]
    return match


def _shared_groups(truth: Instances, predictions: Predictions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(instances, predictions best first) of each class and video that has both, as indexes."""
    videos = int(max((x.video.max() for x in (truth, predictions) if len(x)), default=0)) + 1
    group_of_truth = truth.label.astype(np.int64) * videos + truth.video
    group_of_prediction = predictions.label.astype(np.int64) * videos + predictions.video
    by_group = np.argsort(group_of_truth, kind="stable")
    ranked = np.lexsort((-predictions.score, group_of_prediction))  # stable, too
    truth_keys, predicted_keys = group_of_truth[by_group], group_of_prediction[ranked]
    for key in np.intersect1d(truth_keys, predicted_keys):
        yield (
            by_group[slice(*np.searchsorted(truth_keys, (key, key + 1)))],
            ranked[slice(*np.searchsorted(predicted_keys, (key, key + 1)))],
        )


def average_precision(hits: np.ndarray, positives: float, weight: float = 1.0) -> np.ndarray:
    """All-point interpolated AP: the best precision at or after each hit, averaged over the positives.

    Args:
        hits: (..., N) bool, ranked best first.
        positives: how many instances there are to find; more than 0.
        weight: what a hit counts in the precision, a false positive counting 1; other than 1 for DETAD's AP_N.

    Returns:
        (...) in [0, 1].
    """
    found = np.cumsum(hits, axis=-1) * weight
    false = np.cumsum(~hits, axis=-1)
    precision = np.divide(found, found + false, out=np.zeros(hits.shape), where=found + false > 0)
    best_from_here = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray((best_from_here * hits).sum(axis=-1) / positives)


def video_scores(cas: np.ndarray, divisor: int = 8) -> np.ndarray:
    """Class scores of a video as W-TALC takes them: softmax of the mean of the ⌈T/divisor⌉ largest logits.

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

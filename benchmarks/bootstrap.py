"""Which clips were cut together is chance, too: mAP when they are drawn again, with replacement.

An instance, and whoever finds it, weighs as often as the clip at its middle was drawn, a false positive as often as the
clip at its own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.evaluation.metrics import Detection, Instances, Predictions, ranking

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Clips:
    """Which clip is shown when: of each video (N,) starts in seconds, ascending, and (N,) clips by number."""

    starts: list[Floats]
    numbers: list[Ints]
    count: int

    def at(self, videos: Ints, seconds: Floats) -> Ints:
        """(N,) the clip shown in each video at that time; before the first and after the last, that one."""
        found = np.zeros(len(videos), dtype=np.int64)
        for v in np.unique(videos):
            rows = videos == v
            piece = np.searchsorted(self.starts[v], seconds[rows], side="right") - 1
            found[rows] = self.numbers[v][np.maximum(piece, 0)]
        return found


def multiplicities(count: int, draws: int = DRAWS, seed: int = 0) -> Ints:
    """(draws, count): how often each of `count` clips comes up when as many are drawn with replacement."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def weighted_ap(hits: NDArray[np.bool_], units: Ints, positives: Ints, weights: NDArray[Any]) -> Floats:
    """AP of one class, all-point interpolated, for many weightings at once.

    With whole numbers as weights it is the AP of a list in which everything stands as often as it weighs.

    Args:
        hits: (N,) whether each prediction is right, best first.
        units: (N,) the unit whose weight each prediction has: of a hit that of its instance.
        positives: (G,) the unit of each instance.
        weights: (B, U) 0 or more, by draw and unit.

    Returns:
        (B,) in [0, 1]; nan where no instance has any weight.
    """
    at = np.flatnonzero(hits)
    wrong = np.flatnonzero(~hits)
    # False positives between one hit and the next, by unit: what follows the last hit changes nothing.
    between = np.zeros((len(at) + 1, weights.shape[1]))
    np.add.at(between, (np.searchsorted(at, wrong), units[wrong]), 1)
    false = weights @ np.cumsum(between[:-1], axis=0).T
    here = weights[:, units[at]].astype(np.float64)
    true = np.cumsum(here, axis=1)
    precision = np.divide(true, true + false, out=np.zeros(true.shape), where=true > 0)
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = weights[:, positives].sum(axis=1)
    return np.divide((best_from_here * here).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0)


def resample(
    truth: Instances, predictions: Predictions, detection: Detection, clips: Clips, draws: int = DRAWS
) -> Floats:
    """(K, draws) mAP in [0, 1] over the classes that a draw has instances of; nan where it has none at all.

    Who finds what is settled once, on the videos as they are.
    """
    weights = multiplicities(clips.count, draws)
    of_truth = clips.at(truth.video, truth.span.mean(axis=1))
    of_found = clips.at(predictions.video, predictions.span.mean(axis=1))
    order = ranking(predictions)
    ap = np.empty((len(detection.tious), len(detection.classes), draws))
    for c, label in enumerate(detection.classes):
        ranked = order[predictions.label[order] == label]
        positives = of_truth[truth.label == label]
        for k, match in enumerate(detection.match[:, ranked]):
            units = np.where(match >= 0, of_truth[match], of_found[ranked])
            ap[k, c] = weighted_ap(match >= 0, units, positives, weights)
    some = ~np.isnan(ap)
    count = some.sum(axis=1)
    return np.divide(np.where(some, ap, 0.0).sum(axis=1), count, out=np.full(count.shape, np.nan), where=count > 0)

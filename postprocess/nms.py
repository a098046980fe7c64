"""Temporal overlap and non-maximum suppression, in seconds.

Spans are real intervals, so no +1 is added to a length: that is for inclusive indexes, and badly wrong for an
action of one second. Ties are settled by the original index, the earlier one first, so that an answer never
depends on how a sort happens to work.
"""

import numpy as np

# Seconds of a snippet grid give 7/10 as .7000000000000001 here and as .7 there: closer than this is equal.
SAME = 1e-9


def tiou(span: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Temporal IoU of one span with many.

    Args:
        span: (2,) start, end in seconds.
        spans: (N, 2) start, end in seconds.

    Returns:
        (N,) in [0, 1]; 0 where the union is empty.
    """
    inter = np.minimum(span[1], spans[:, 1]) - np.maximum(span[0], spans[:, 0])
    inter = np.maximum(inter, 0.0)
    union = (span[1] - span[0]) + (spans[:, 1] - spans[:, 0]) - inter
    return np.divide(inter, union, out=np.zeros(len(spans)), where=union > 0)


def pairwise_tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Temporal IoU of every pair: a (M, 2), b (N, 2) in seconds → (M, N)."""
    return np.stack([tiou(span, b) for span in a]) if len(a) else np.zeros((0, len(b)))


def hard_nms(spans: np.ndarray, scores: np.ndarray, tiou_threshold: float, limit: int | None = None) -> np.ndarray:
    """Keep the best, drop what overlaps it by more than the threshold, go on with the rest.

    Args:
        spans: (N, 2) seconds.
        scores: (N,) finite.
        tiou_threshold: a tIoU of exactly this much is kept, whatever the rounding.
        limit: stop after so many; what is returned is then the beginning of the full answer.

    Returns:
        (K,) indexes of the kept spans, best first.
    """
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    alive = np.ones(len(spans), dtype=bool)
    kept: list[int] = []
    for index in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable"):
        if limit is not None and len(kept) >= limit:
            break
        if alive[index]:
            kept.append(int(index))
            alive &= tiou(spans[index], spans) <= tiou_threshold + SAME
    return np.array(kept, dtype=np.int64)


def soft_nms(
    spans: np.ndarray, scores: np.ndarray, sigma: float, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian soft-NMS (WTAL §3.4): a span taken multiplies the others' scores by exp(−tIoU²/σ), none is
    dropped.

    Only positive scores decay. ψ is a contrast of logits and may be negative, and a factor below 1 would
    *raise* it: the more a bad proposal overlapped a good one, the better it would rank.

    Args:
        spans: (N, 2) seconds.
        scores: (N,) finite.
        sigma: σ > 0.
        limit: stop after so many. Scores only ever fall, so these are the best of the full answer.

    Returns:
        order (K,): indexes in the order of taking; new_scores (K,): order's scores when taken, never
        increasing.
    """
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    left = np.array(scores, dtype=np.float64)
    count = len(spans) if limit is None else min(limit, len(spans))
    order = np.empty(count, dtype=np.int64)
    new_scores = np.empty(count)
    for i in range(count):
        best = int(np.argmax(left))
        order[i], new_scores[i] = best, left[best]
        left[best] = -np.inf
        decay = np.exp(-(tiou(spans[best], spans) ** 2) / sigma)
        np.multiply(left, decay, out=left, where=left > 0)
    return order, new_scores

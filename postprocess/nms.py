"""Temporal overlap and non-maximum suppression, in seconds.

Spans are real intervals, so a length has no +1: that belongs to inclusive indexes, and it would be badly wrong for an
action of one second. Of equal scores, the earlier index comes first, so that results never depend on the sorting
algorithm.
"""

import numpy as np

# Times on a snippet grid give 7/10 as .7 or as .7000000000000001; values that are closer than this are equal.
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
    """Keep the best span, drop all spans that overlap it by more than the threshold, and repeat with the rest.

    Args:
        spans: (N, 2) seconds.
        scores: (N,) finite.
        tiou_threshold: a span with exactly this tIoU is kept; rounding errors do not matter.
        limit: stop after this many spans; the result is then the beginning of the full one.

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
    """Gaussian soft-NMS (WTAL §3.4): each chosen span multiplies the scores of the others by exp(−tIoU²/σ).

    No span is dropped. Only positive scores decay: ψ is a contrast of logits and may be negative, and a factor below 1
    would *raise* a negative score. Then a bad proposal would rank better the more it overlaps a good one.

    Args:
        spans: (N, 2) seconds.
        scores: (N,) finite.
        sigma: σ > 0.
        limit: stop after this many spans. Scores only fall, so these are the best ones of the full result.

    Returns:
        order (K,): indexes in the order in which they were chosen. new_scores (K,): their scores at that moment, which
        never increase.
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

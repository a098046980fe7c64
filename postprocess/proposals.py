"""Interval arithmetic on snippet indexes: runs, their score, and who owns a contested stretch.

A span is [first, last], both included, as snippet indexes. Seconds come later, in localize.py, from `times`.
"""

from collections.abc import Sequence

import numpy as np

TIE = 1e-12  # sums of probabilities that are closer than this are equal, whatever the order of the summing


def blocks(times: np.ndarray) -> np.ndarray:
    """Number the stretches of uninterrupted footage.

    A new block begins where the gap to the next snippet is more than half a snippet wider than usual. Usual
    is no gap at all, except in features sampled sparsely on purpose (stride beyond the snippet's length):
    there, the median.

    Args:
        times: (T, 2) seconds, start and end of each snippet.

    Returns:
        (T,) int block numbers, from 0, never decreasing.
    """
    number = np.zeros(len(times), dtype=np.int64)
    if len(times) > 1:
        gaps = times[1:, 0] - times[:-1, 1]
        # Fewer than three gaps have no "usual": two lone snippets ten seconds apart are not a sampling rate.
        usual = max(0.0, float(np.median(gaps))) if len(gaps) > 2 else 0.0
        number[1:] = np.cumsum(gaps > usual + 0.5 * np.median(times[:, 1] - times[:, 0]))
    return number


def density(times: np.ndarray) -> int:
    """How many snippets begin in the time that one lasts: 1 side by side (stride 16), 4 at stride 4.

    times: (T, 2) seconds.
    """
    if len(times) < 2:
        return 1
    step = float(np.median(np.diff(times[:, 0])))
    return max(1, round(float(np.median(times[:, 1] - times[:, 0])) / step)) if step > 0 else 1


def cells(times: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The time that each snippet speaks for: its own, but overlapping neighbours (stride below length) meet halfway.

    Without this a run of overlapping snippets would reach half an overlap too far on either side. At the ends of a
    block nobody else speaks for the rest, so it stays.

    Args:
        times: (T, 2) seconds.
        block: (T,) block numbers.

    Returns:
        (T, 2) seconds.
    """
    found = np.array(times, dtype=np.float64)
    meet = np.flatnonzero((found[:-1, 1] > found[1:, 0]) & (block[:-1] == block[1:]))
    middle = (times[meet, 1] + times[meet + 1, 0]) / 2
    found[meet, 1] = found[meet + 1, 0] = middle
    return found


def runs(curve: np.ndarray, threshold: float, block: np.ndarray | None = None) -> np.ndarray:
    """Maximal runs of curve > threshold; a run of index 0 alone counts, as any other does (WTAL §3.5).

    Args:
        curve: (T,).
        threshold: must be exceeded, not met.
        block: (T,) block numbers, no run crosses from one to the next; None: one block.

    Returns:
        (N, 2) int spans [first, last], in order.
    """
    above = np.asarray(curve) > threshold
    if not len(above):
        return np.zeros((0, 2), dtype=np.int64)
    joined = above[1:] & above[:-1]
    if block is not None:
        joined &= block[1:] == block[:-1]
    first = above & ~np.concatenate(([False], joined))
    last = above & ~np.concatenate((joined, [False]))
    return np.stack((np.flatnonzero(first), np.flatnonzero(last)), axis=1)


def merge(
    spans: np.ndarray,
    gap: int,
    block: np.ndarray,
    curve: np.ndarray | None = None,
    bars: Sequence[float] = (),
    shortest: int = 1,
) -> np.ndarray:
    """Join neighbouring spans of one block with at most `gap` snippets between them, but dilute no sure one.

    A span is sure whose mean is at least the bar. Where the mean of all that would be joined is below the bar, only
    stretches that begin and end with a sure span, and that are sure as a whole, are joined: as long ones as possible.
    What is left between them is joined by itself, under the next bar.

    Args:
        spans: (N, 2) in order, not touching.
        block: (T,) block numbers.
        curve: (T,) the probabilities that the means are of; needed where there are bars.
        bars: in (0, 1], the highest first; none: all that is close is joined.
        shortest: snippets that a sure stretch must have.

    Returns:
        (M, 2), M ≤ N, in order.
    """
    if len(spans) < 2:
        return spans
    first, last = spans[1:, 0], spans[:-1, 1]
    apart = (first - last - 1 > gap) | (block[first] != block[last])
    close = np.split(spans, np.flatnonzero(apart) + 1)
    if curve is None:
        bars, curve = (), np.zeros(0)
    return np.array([span for chain in close for span in _joined(chain, curve, bars, shortest)], dtype=np.int64)


def _joined(chain: np.ndarray, curve: np.ndarray, bars: Sequence[float], shortest: int) -> list[tuple[int, int]]:
    """[first, last] of each segment of a chain: spans of which any two neighbours may be joined."""
    first, last = int(chain[0, 0]), int(chain[-1, 1])
    if len(chain) < 2 or not bars or curve[first : last + 1].mean() >= bars[0]:
        return [(first, last)]
    found: list[tuple[int, int]] = []
    done = 0
    for i, j in _sure_stretches(chain, curve, bars[0], shortest):
        if done < i:
            found += _joined(chain[done:i], curve, bars[1:], shortest)
        found.append((int(chain[i, 0]), int(chain[j, 1])))
        done = j + 1
    if done < len(chain):
        found += _joined(chain[done:], curve, bars[1:], shortest)
    return found


def _sure_stretches(chain: np.ndarray, curve: np.ndarray, bar: float, shortest: int) -> list[tuple[int, int]]:
    """Of a chain the first and last span of each sure stretch: those that cover most, of equals the fewest."""
    # By dynamic programming over the span that ends the last stretch.
    start = chain[0, 0]
    total = np.concatenate(([0.0], np.cumsum(curve[start : chain[-1, 1] + 1])))

    def is_sure(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        mean = (total[last + 1 - start] - total[first - start]) / (last - first + 1)
        found = mean >= bar
        for k in np.flatnonzero(np.abs(mean - bar) < 1e-9):  # as close as this the running sum may err
            found[k] = curve[first[k] : last[k] + 1].mean() >= bar
        return found

    sure = np.flatnonzero(is_sure(chain[:, 0], chain[:, 1]))
    first, last = chain[sure, 0], chain[sure, 1]
    worth = np.zeros(len(sure) + 1, dtype=np.int64)  # of the best choice among the first n sure spans
    opened = np.full(len(sure) + 1, -1)  # where its stretch that ends with span n − 1 begins; −1: none ends there
    for n in range(1, len(sure) + 1):
        ends = np.full(n, last[n - 1])
        length = ends - first[:n] + 1
        value = np.where(is_sure(first[:n], ends) & (length >= shortest), worth[:n] + length * (len(sure) + 1) - 1, -1)
        best = int(np.argmax(value))
        worth[n] = max(worth[n - 1], value[best])
        if value[best] > worth[n - 1]:
            opened[n] = best
    found: list[tuple[int, int]] = []
    n = len(sure)
    while n > 0:
        if opened[n] >= 0:
            found.append((int(sure[opened[n]]), int(sure[n - 1])))
        n = n - 1 if opened[n] < 0 else int(opened[n])
    return found[::-1]


def outer_inner_score(cas_c: np.ndarray, spans: np.ndarray, inflation: float) -> np.ndarray:
    """The contrast in ψ (WTAL §3.3): mean inside minus mean of the area around.

    With length L = e − s + 1 and inflation λ, around is [max(0, int(s − λL)), s) ∪ (e, min(T − 1, int(e +
    λL))]; where it is empty its mean counts as 0. ψ is this plus γ times the video-level score.

    Args:
        cas_c: (T,) one class's column of the suppressed T-CAS, finite.
        spans: (N, 2) int [first, last].
        inflation: λ ≥ 0.

    Returns:
        (N,) float64.
    """
    # float64 because a prefix sum over hours of video loses a float32's digits.
    total = np.concatenate(([0.0], np.cumsum(cas_c, dtype=np.float64)))
    first, last = spans[:, 0], spans[:, 1]
    length = last - first + 1
    left = np.maximum(0, np.trunc(first - inflation * length)).astype(np.int64)
    right = np.minimum(len(cas_c) - 1, np.trunc(last + inflation * length)).astype(np.int64)
    inner = total[last + 1] - total[first]
    outer = total[right + 1] - total[left] - inner
    around = (right - left + 1) - length
    return inner / length - np.divide(outer, around, out=np.zeros(len(spans)), where=around > 0)


def moving_average(curve: np.ndarray, window: int, block: np.ndarray) -> np.ndarray:
    """Mean over a centred window of odd width that shrinks at the ends of a block.

    curve: (T,); block: (T,) block numbers. Returns (T,) float64.
    """
    if window == 1 or not len(curve):
        return np.asarray(curve, dtype=np.float64)
    total = np.concatenate(([0.0], np.cumsum(curve, dtype=np.float64)))
    here = np.arange(len(curve))
    low = np.maximum(here - window // 2, np.searchsorted(block, block, side="left"))
    high = np.minimum(here + window // 2 + 1, np.searchsorted(block, block, side="right"))
    return (total[high] - total[low]) / (high - low)


def owners(mass: np.ndarray, may: np.ndarray, min_length: int, toll: float) -> np.ndarray:
    """Give each snippet one owner: of all drawings with pieces of min_length or more, the one worth most.

    A drawing's worth is the mass that its pieces cover, less one toll a piece. Exact, by dynamic programming
    over the end of the last piece, in O(n K) time and memory.

    Args:
        mass: (K, n) what owner k holds in snippet t, 0 or more.
        may: (K, n) bool, where owner k may own at all.
        min_length: snippets, at least 1.
        toll: 0 or more.

    Returns:
        (n,) int owner of each snippet, −1 for none.
    """
    count, n = mass.shape
    held_before = np.concatenate((np.zeros((count, 1)), np.cumsum(np.where(may, mass, 0.0), axis=1)), axis=1)
    allowed_before = np.concatenate((np.zeros((count, 1), dtype=np.int64), np.cumsum(may, axis=1)), axis=1)
    best = np.zeros(n + 1)  # worth of the best drawing of the first t snippets
    last_owner = np.full(n, -1)  # whose piece ends that drawing with snippet t, −1: none does
    opened = np.zeros((n, count), dtype=np.int32)  # where owner k's piece that ends with snippet t begins
    worth = np.full(count, -np.inf)  # of the best drawing that ends with a piece of owner k
    begin = np.zeros(count, dtype=np.int32)
    for t in range(n):
        worth = np.where(may[:, t], worth + mass[:, t], -np.inf)
        if (start := t + 1 - min_length) >= 0:
            whole = allowed_before[:, t + 1] - allowed_before[:, start] == min_length
            fresh = np.where(whole, best[start] - toll + held_before[:, t + 1] - held_before[:, start], -np.inf)
            better = fresh > worth + TIE  # of equals the longer piece: rounding must break none
            begin, worth = np.where(better, start, begin), np.where(better, fresh, worth)
        opened[t] = begin
        top = int(np.argmax(worth))
        best[t + 1] = max(best[t], worth[top])
        if worth[top] > best[t]:
            last_owner[t] = top
    owner = np.full(n, -1)
    t = n - 1
    while t >= 0:
        k = last_owner[t]
        start = t if k < 0 else int(opened[t, k])
        owner[start : t + 1] = k
        t = start - 1
    return owner

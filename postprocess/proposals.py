"""Arithmetic on spans of snippets: finding runs, joining them, scoring them, and deciding between rivals.

A span is [first, last] in snippet indexes, both included. localize.py later turns indexes into seconds.
"""

from collections.abc import Sequence

import numpy as np

TIE = 1e-12  # sums of probabilities that differ by less are equal; only the order of summing differs


def blocks(times: np.ndarray) -> np.ndarray:
    """Number the stretches of uninterrupted footage.

    A new block begins where the gap between two snippets is more than half a snippet wider than usual. Usually there is
    no gap. Only features that were sampled sparsely (with a stride longer than the snippet) always have gaps; then the
    median gap is the usual one.

    Args:
        times: (T, 2) seconds, start and end of each snippet.

    Returns:
        (T,) int block numbers, which begin at 0 and never decrease.
    """
    number = np.zeros(len(times), dtype=np.int64)
    if len(times) > 1:
        gaps = times[1:, 0] - times[:-1, 1]
        # With fewer than three gaps no gap is "usual": two snippets ten seconds apart do not make a sampling rate.
        usual = max(0.0, float(np.median(gaps))) if len(gaps) > 2 else 0.0
        number[1:] = np.cumsum(gaps > usual + 0.5 * np.median(times[:, 1] - times[:, 0]))
    return number


def density(times: np.ndarray) -> int:
    """How many snippets begin during one snippet: 1 if they lie side by side (stride 16), 4 at stride 4.

    Args:
        times: (T, 2) seconds, start and end of each snippet.
    """
    if len(times) < 2:
        return 1
    step = float(np.median(np.diff(times[:, 0])))
    return max(1, round(float(np.median(times[:, 1] - times[:, 0])) / step)) if step > 0 else 1


def cells(times: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The time that each snippet stands for: its own time, but neighbours that overlap meet halfway.

    Snippets overlap if the stride is shorter than the snippet. Without this, a run of such snippets would reach half an
    overlap too far on both sides. The outer ends of a block have no neighbour and stay as they are.

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
    """The longest possible runs with curve > threshold. A run may be a single snippet, index 0 included (WTAL §3.5).

    Args:
        curve: (T,).
        threshold: a value equal to the threshold does not count.
        block: (T,) block numbers; no run crosses from one block into the next. None means one block.

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


def counted(curve: np.ndarray, threshold: float, edge: float, block: np.ndarray) -> np.ndarray:
    """Which snippets count: those above the threshold and above a share of the highest value of their run.

    Args:
        curve: (T,).
        threshold: as in `runs`.
        edge: the share, in [0, 1]; 0 leaves all of a run.
        block: (T,) block numbers.

    Returns:
        (T,) bool. The highest snippet of a run always counts, unless the share is 1.
    """
    above = np.asarray(curve) > threshold
    if edge:
        for first, last in runs(curve, threshold, block):
            run = curve[first : last + 1]
            above[first : last + 1] = run > edge * run.max()
    return above


def merge(
    spans: np.ndarray,
    gap: int,
    block: np.ndarray,
    curve: np.ndarray | None = None,
    bars: Sequence[float] = (),
    shortest: int = 1,
) -> np.ndarray:
    """Join neighbouring spans of one block with at most `gap` snippets between them, but never dilute a sure span.

    A span is sure if its mean is at least the bar. If everything that could be joined has a mean below the bar, only
    stretches that begin and end with a sure span and that are sure as a whole are joined, and these are made as long as
    possible. The spans between them are joined separately, under the next bar.

    Args:
        spans: (N, 2) in order, with at least one snippet between any two.
        gap: the largest number of snippets between two spans that are joined.
        block: (T,) block numbers.
        curve: (T,) probabilities, from which the means are taken; needed if there are bars.
        bars: in (0, 1], the highest first. Without bars all spans that are close enough are joined.
        shortest: the least number of snippets in a sure stretch.

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
    """[first, last] of the joined spans of a chain, in which any two neighbours are close enough to be joined."""
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
    """First and last span of each sure stretch: the choice that covers the most snippets, in the fewest stretches."""
    # Dynamic programming over the span that ends the last stretch.
    start = chain[0, 0]
    total = np.concatenate(([0.0], np.cumsum(curve[start : chain[-1, 1] + 1])))

    def is_sure(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        mean = (total[last + 1 - start] - total[first - start]) / (last - first + 1)
        found = mean >= bar
        for k in np.flatnonzero(np.abs(mean - bar) < 1e-9):  # so close to the bar, the running sum may be wrong
            found[k] = curve[first[k] : last[k] + 1].mean() >= bar
        return found

    sure = np.flatnonzero(is_sure(chain[:, 0], chain[:, 1]))
    first, last = chain[sure, 0], chain[sure, 1]
    worth = np.zeros(len(sure) + 1, dtype=np.int64)  # value of the best choice among the first n sure spans
    opened = np.full(len(sure) + 1, -1)  # where its stretch that ends with span n − 1 begins; −1 if none ends there
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
    """The contrast in ψ (WTAL §3.3): the mean inside a span minus the mean of the area around it.

    With length L = e − s + 1 and inflation λ, the area around is [max(0, int(s − λL)), s) ∪ (e, min(T − 1, int(e +
    λL))]. If it is empty, its mean counts as 0. ψ is this contrast plus γ times the video-level score.

    Args:
        cas_c: (T,) one class's column of the suppressed T-CAS, finite.
        spans: (N, 2) int [first, last].
        inflation: λ ≥ 0.

    Returns:
        (N,) float64.
    """
    # float64, because a prefix sum over hours of video loses too many digits in float32.
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
    """Mean over a centred window, which shrinks at the ends of a block.

    Args:
        curve: (T,).
        window: odd number of snippets.
        block: (T,) block numbers.

    Returns:
        (T,) float64.
    """
    if window == 1 or not len(curve):
        return np.asarray(curve, dtype=np.float64)
    total = np.concatenate(([0.0], np.cumsum(curve, dtype=np.float64)))
    here = np.arange(len(curve))
    low = np.maximum(here - window // 2, np.searchsorted(block, block, side="left"))
    high = np.minimum(here + window // 2 + 1, np.searchsorted(block, block, side="right"))
    return (total[high] - total[low]) / (high - low)


def owners(mass: np.ndarray, may: np.ndarray, min_length: int, toll: float) -> np.ndarray:
    """Give each snippet at most one owner, such that the pieces are worth the most.

    A piece is a run of snippets with one owner, and has at least `min_length` snippets. A drawing (a choice of pieces)
    is worth the mass that its pieces cover, minus one toll for each piece. The best drawing is found exactly, by
    dynamic programming over the end of the last piece, in O(n K) time and memory.

    Args:
        mass: (K, n) what owner k holds in snippet t, 0 or more.
        may: (K, n) bool, whether owner k may own snippet t.
        min_length: the least number of snippets in a piece, at least 1.
        toll: the price of a piece, 0 or more.

    Returns:
        (n,) int owner of each snippet, −1 for none.
    """
    count, n = mass.shape
    held_before = np.concatenate((np.zeros((count, 1)), np.cumsum(np.where(may, mass, 0.0), axis=1)), axis=1)
    allowed_before = np.concatenate((np.zeros((count, 1), dtype=np.int64), np.cumsum(may, axis=1)), axis=1)
    best = np.zeros(n + 1)  # value of the best drawing of the first t snippets
    last_owner = np.full(n, -1)  # owner of the piece that ends with snippet t in that drawing; −1 if none does
    opened = np.zeros((n, count), dtype=np.int32)  # first snippet of owner k's piece that ends with snippet t
    worth = np.full(count, -np.inf)  # value of the best drawing that ends with a piece of owner k
    begin = np.zeros(count, dtype=np.int32)
    for t in range(n):
        worth = np.where(may[:, t], worth + mass[:, t], -np.inf)
        if (start := t + 1 - min_length) >= 0:
            whole = allowed_before[:, t + 1] - allowed_before[:, start] == min_length
            fresh = np.where(whole, best[start] - toll + held_before[:, t + 1] - held_before[:, start], -np.inf)
            better = fresh > worth + TIE  # of equal values the longer piece: rounding must not break a tie
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

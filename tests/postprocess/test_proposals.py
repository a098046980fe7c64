"""Runs, ψ, blocks and ownership against oracles written with loops, one snippet at a time."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.config import LocalizeConfig
from postprocess.proposals import (
    blocks,
    cells,
    counted,
    density,
    merge,
    moving_average,
    outer_inner_score,
    owners,
    runs,
)

# No deadline: a busy machine is not a wrong answer.
patient = settings(deadline=None)

levels = st.sampled_from([0.0, 0.1, 0.3, 0.30000001, 0.5, 1.0])
curves = st.lists(levels, max_size=30).map(lambda v: np.array(v, dtype=np.float64))


def naive_runs(curve, threshold, block):
    found, start = [], None
    for t in range(len(curve)):
        if start is not None and (curve[t] <= threshold or block[t] != block[t - 1]):
            found.append([start, t - 1])
            start = None
        if start is None and curve[t] > threshold:
            start = t
    if start is not None:
        found.append([start, len(curve) - 1])
    return found


def naive_contrast(cas, s, e, inflation):
    length = e - s + 1
    left, right = max(0, int(s - inflation * length)), min(len(cas) - 1, int(e + inflation * length))
    inside = [cas[t] for t in range(s, e + 1)]
    outside = [cas[t] for t in range(left, s)] + [cas[t] for t in range(e + 1, right + 1)]
    return sum(inside) / len(inside) - (sum(outside) / len(outside) if outside else 0.0)


def block_numbers(draw, n):
    return np.cumsum([0, *draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=n - 1, max_size=n - 1))])


@patient
@given(curve=curves, threshold=st.sampled_from([0.0, 0.3, 0.95]), data=st.data())
def test_runs_equal_the_oracle(curve, threshold, data):
    block = block_numbers(data.draw, len(curve)) if len(curve) else np.zeros(0, dtype=int)
    assert runs(curve, threshold, block).tolist() == naive_runs(curve, threshold, block)
    assert runs(curve, threshold).tolist() == naive_runs(curve, threshold, np.zeros(len(curve)))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([1, 0, 0], [[0, 0]]),  # WTAL §3.5: `any()` over the indexes loses this one
        ([0, 0, 1], [[2, 2]]),
        ([1], [[0, 0]]),
        ([1, 1], [[0, 1]]),
        ([1, 0, 1], [[0, 0], [2, 2]]),
        ([0.5, 0.5], []),  # the threshold must be exceeded
        ([], []),
    ],
)
def test_runs_by_hand(curve, expected):
    found = runs(np.array(curve), 0.5)
    assert found.tolist() == expected
    assert found.shape == (len(expected), 2)
    assert found.dtype == np.int64


@patient
@given(curve=curves, gap=st.integers(0, 3), data=st.data())
def test_merge_joins_what_is_close_and_in_one_block(curve, gap, data):
    block = block_numbers(data.draw, len(curve)) if len(curve) else np.zeros(0, dtype=int)
    spans = runs(curve, 0.3, block)
    expected = []
    for s, e in spans.tolist():
        if expected and s - expected[-1][1] - 1 <= gap and block[s] == block[expected[-1][1]]:
            expected[-1][1] = e
        else:
            expected.append([s, e])
    assert merge(spans, gap, block).tolist() == expected


@patient
@given(
    cas=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    inflation=st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 2.0]),
    data=st.data(),
)
def test_outer_inner_score_equals_the_oracle(cas, inflation, data):
    ends = st.tuples(st.integers(0, len(cas) - 1), st.integers(0, len(cas) - 1)).map(sorted)
    spans = data.draw(st.lists(ends, max_size=8))
    found = outer_inner_score(np.array(cas, np.float32), np.array(spans, dtype=int).reshape(-1, 2), inflation)
    assert found == pytest.approx([naive_contrast(cas, s, e, inflation) for s, e in spans], abs=1e-9)


def test_outer_inner_score_by_hand():
    cas = np.array([1.0, 2, 8, 8, 8, 8, 3, 100])
    # L = 4, λL = 1: inside 8, around is index 1 and index 6.
    assert outer_inner_score(cas, np.array([[2, 5]]), 0.25) == pytest.approx([8 - 2.5])
    # L = 3: int(2 − .75) = 1 but int(4 + .75) = 4, so the two sides are not alike.
    assert outer_inner_score(cas, np.array([[2, 4]]), 0.25) == pytest.approx([8 - 2.0])
    # The whole curve: nothing around it, which counts as 0.
    assert outer_inner_score(cas, np.array([[0, 7]]), 0.25) == pytest.approx([cas.mean()])


def test_outer_inner_score_keeps_its_digits_over_hours():
    cas = np.full(60_000, 1e3, dtype=np.float32)
    cas[-2:] = 1e3 + 0.25
    assert outer_inner_score(cas, np.array([[59_998, 59_999]]), 1.0) == pytest.approx([0.25], abs=1e-6)


@patient
@given(curve=curves, window=st.sampled_from([1, 3, 5, 99]), data=st.data())
def test_moving_average_stays_in_its_block(curve, window, data):
    block = block_numbers(data.draw, len(curve)) if len(curve) else np.zeros(0, dtype=int)
    expected = []
    for t in range(len(curve)):
        near = [curve[u] for u in range(len(curve)) if abs(u - t) <= window // 2 and block[u] == block[t]]
        expected.append(sum(near) / len(near))
    assert moving_average(curve, window, block) == pytest.approx(expected, abs=1e-12)


def grid(starts, length=0.64):
    return np.array([[s, s + length] for s in starts]).reshape(-1, 2)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (grid([]), []),
        (grid([5.0]), [0]),
        (grid([0, 0.64, 1.28, 1.92]), [0, 0, 0, 0]),
        (grid([0, 0.64, 1.58, 2.22]), [0, 0, 0, 0]),  # a gap of .30 s is less than half a snippet
        (grid([0, 0.64, 1.62, 2.26]), [0, 0, 1, 1]),  # .34 s is more
        (grid([0, 10]), [0, 1]),
        (grid([0, 0.32, 0.64, 0.96]), [0, 0, 0, 0]),  # overlapping snippets
        (grid([0, 2.0, 4.0, 6.0, 8.0]), [0, 0, 0, 0, 0]),  # sparse on purpose: the gap is the rule
        (grid([0, 2.0, 4.0, 6.5, 8.5]), [0, 0, 0, 1, 1]),
    ],
)
def test_blocks(times, expected):
    assert blocks(times).tolist() == expected


@patient
@given(
    rows=st.lists(st.tuples(st.sampled_from([0.0, 0.16, 0.4, 1.0]), st.sampled_from([0.0, 0.64, 2.0])), max_size=12),
    data=st.data(),
)
def test_cells_never_overlap_in_a_block(rows, data):
    start = np.cumsum([gap for gap, _ in rows])
    end = np.maximum.accumulate(start + [length for _, length in rows]) if rows else start
    times = np.stack((start, end), axis=1)
    before = times.copy()
    block = block_numbers(data.draw, len(times)) if rows else np.zeros(0, dtype=int)
    found = cells(times, block)
    assert np.array_equal(times, before)
    assert found.shape == times.shape
    assert (found[:, 0] <= found[:, 1]).all()
    assert (found[:, 0] >= start).all() and (found[:, 1] <= end).all()
    for t in range(len(times)):
        for side, other in ((0, t - 1), (1, t + 1)):
            neighbour = 0 <= other < len(times) and block[other] == block[t]
            first, second = sorted((t, other))
            if neighbour and end[first] > start[second]:
                assert found[first, 1] == found[second, 0] == (end[first] + start[second]) / 2
            else:
                assert found[t, side] == times[t, side]


@pytest.mark.parametrize(
    ("stride", "length", "inner"), [(4, 16, 2), (8, 16, 4), (15, 16, 7.5), (16, 16, 8), (20, 16, 8)]
)
def test_a_cell_is_half_a_stride_around_the_centre(stride, length, inner):
    first = np.arange(9) * stride
    times = np.stack((first, first + length), axis=1) / 25
    found, centre = cells(times, np.zeros(9, dtype=int)), times.mean(axis=1)
    assert found[1:-1] == pytest.approx(np.stack((centre - inner / 25, centre + inner / 25), axis=1)[1:-1])
    # At the ends nobody else speaks for the rest.
    assert (found[0, 0], found[-1, 1]) == (times[0, 0], times[-1, 1])
    assert found[0, 1] == pytest.approx(centre[0] + inner / 25)


def worth(owner, mass, may, min_length, toll):
    """Of a drawing, or None if it breaks a rule."""
    cuts = [0] + [t for t in range(1, len(owner)) if owner[t] != owner[t - 1]] + [len(owner)]
    value = 0.0
    for s, e in pairwise(cuts):
        k = owner[s]
        if k >= 0:
            if e - s < min_length or not all(may[k][t] for t in range(s, e)):
                return None
            value += sum(mass[k][t] for t in range(s, e)) - toll
    return value


@patient
@given(
    n=st.integers(1, 6),
    rivals=st.integers(1, 3),
    min_length=st.integers(1, 3),
    toll=st.sampled_from([0.0, 0.3, 0.6]),
    seed=st.integers(0, 10**6),
)
def test_owners_are_the_best_of_all_drawings(n, rivals, min_length, toll, seed):
    rng = np.random.default_rng(seed)
    mass = rng.integers(0, 9, (rivals, n)) / 8
    may = rng.random((rivals, n)) < 0.8
    values = (worth(d, mass, may, min_length, toll) for d in product(range(-1, rivals), repeat=n))
    best = max(v for v in values if v is not None)
    owner = owners(mass, may, min_length, toll).tolist()
    found = worth(owner, mass, may, min_length, toll)
    assert found is not None, f"{owner} breaks a rule"
    assert found == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "best"},
        {"nms": "none"},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"threshold": True},
        {"threshold": "0.3"},
        {"class_threshold": -0.1},
        {"min_confidence": 2},
        {"merge_gap": -1},
        {"merge_gap": 1.0},
        {"min_snippets": 0},
        {"smooth": 2},
        {"smooth": -1},
        {"sigma": 0},
        {"inflation": -0.1},
        {"video_weight": float("inf")},
        {"nms_tiou": 1.1},
        {"max_segments": 0},
        {"actionness_count": 0},
        {"actionness_start": 0.9, "actionness_stop": 0.1},
    ],
)
def test_config_names_what_is_wrong(wrong):
    with pytest.raises(ValueError, match=rf"^({'|'.join(wrong)}) must [^\n]+$"):
        LocalizeConfig(**wrong)


def test_config_defaults_give_the_papers_sixteen_thresholds():
    config = LocalizeConfig()
    steps = np.linspace(config.actionness_start, config.actionness_stop, config.actionness_count)
    assert len(steps) == 16
    assert np.diff(steps) == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (grid([0, 1.5]), [0, 1]),  # one gap says nothing of what is usual,
        (grid([0, 10, 20]), [0, 1, 2]),  # nor do two;
        (grid([0, 2, 4, 6]), [0, 0, 0, 0]),  # three do
        (grid([0, 0.75], 0.5), [0, 0]),  # exactly half a snippet is not more than that
    ],
)
def test_blocks_at_their_limits(times, expected):
    found = blocks(times)
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (grid([]), 1),
        (grid([3]), 1),
        (grid([0, 0.64]), 1),
        (grid([0, 0.16]), 4),
        (grid([0, 0.16, 0.32, 0.48]), 4),
        (grid([0, 2, 4]), 1),
        (grid([1, 1, 1]), 1),  # a clock that stands still
        (np.array([[0, 4], [1, 4.5], [2, 5.0]]), 4),  # what begins counts, not what ends
    ],
)
def test_density(times, expected):
    assert density(times) == expected


def test_cells_of_whole_seconds_meet_between_them():
    assert cells(np.array([[0, 3], [2, 5]]), np.zeros(2, dtype=int)).tolist() == [[0, 2.5], [2.5, 5]]


def test_a_window_of_one_is_the_curve_itself():
    for kind in (np.float32, np.float64):
        curve = np.random.default_rng(0).random(1000).astype(kind)
        found = moving_average(curve, 1, np.zeros(1000, dtype=int))
        assert found.dtype == np.float64
        assert (found == curve).all()


def test_a_moving_average_keeps_its_digits_over_hours():
    curve = np.full(60_000, 1e3, dtype=np.float32)
    curve[-3:] += 0.25
    assert moving_average(curve, 3, np.zeros(60_000, dtype=int))[-2] == pytest.approx(1000.25, abs=1e-6)


def test_what_nobody_holds_is_nobodys():
    owner = owners(np.zeros((2, 4)), np.ones((2, 4), dtype=bool), 1, 0.0)
    assert owner.dtype.kind == "i"
    assert owner.tolist() == [-1] * 4
    assert owners(np.array([[0, 1.0, 0]]), np.array([[False, True, False]]), 1, 0.5).tolist() == [-1, 0, -1]


def test_rounding_breaks_no_piece():
    """Where a piece costs nothing, to end it where nothing is held and to begin it again is worth the same."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        mass = rng.random((1, 12)) * (rng.random((1, 12)) < 0.5)
        held = np.flatnonzero(mass[0])
        if len(held):
            owner = owners(mass, np.ones((1, 12), dtype=bool), 1, 0.0)
            assert (owner[held[0] : held[-1] + 1] == 0).all()


@pytest.mark.parametrize("edge", [0.0, 0.36, 0.7])
def test_a_snippet_counts_by_the_highest_one_of_its_run(edge: float) -> None:
    """Against its definition, snippet by snippet: walk to both ends of the run and look for its highest value."""
    rng = np.random.default_rng(4)
    for _ in range(60):
        curve, block = rng.random(14).round(1), np.sort(rng.integers(0, 3, 14))
        expected = []
        for i, value in enumerate(curve):
            low = high = i
            while low > 0 and curve[low - 1] > 0.25 and block[low - 1] == block[i]:
                low -= 1
            while high < 13 and curve[high + 1] > 0.25 and block[high + 1] == block[i]:
                high += 1
            expected.append(value > 0.25 and value > edge * curve[low : high + 1].max())
        assert counted(curve, 0.25, edge, block).tolist() == expected

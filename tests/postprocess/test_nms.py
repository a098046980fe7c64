"""Suppression against oracles written with loops and plain floats."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from postprocess.nms import hard_nms, pairwise_tiou, soft_nms, tiou

# No deadline: a busy machine is not a wrong answer.
patient = settings(deadline=None)

spans_and_scores = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 10), st.integers(-8, 8)).map(
        lambda v: (v[0] * 0.64, (v[0] + v[1]) * 0.64, v[2] / 4)
    ),
    max_size=12,
)


def naive_tiou(a, b):
    inter = min(a[1], b[1]) - max(a[0], b[0])
    if inter <= 0:
        return 0.0
    return inter / (max(a[1], b[1]) - min(a[0], b[0]))  # they overlap, so the union is the hull


def split(items):
    return np.array([i[:2] for i in items]).reshape(-1, 2), np.array([i[2] for i in items])


@patient
@given(items=spans_and_scores)
def test_tiou_equals_the_oracle(items):
    spans, _ = split(items)
    expected = [[naive_tiou(a, b) for b in spans] for a in spans]
    assert np.allclose(pairwise_tiou(spans, spans), np.reshape(expected, (len(spans), len(spans))))
    for a, row in zip(spans, expected, strict=True):
        assert np.allclose(tiou(a, spans), row)


def test_tiou_by_hand():
    spans = np.array([[0, 1], [0.5, 1.5], [1, 2], [5, 6], [0.25, 0.75], [0.5, 0.5]])
    # A third, not 1.5/2.5: "+1" on seconds is the bug of WTAL §3.5. Touching spans share nothing.
    assert tiou(np.array([0.0, 1.0]), spans) == pytest.approx([1, 1 / 3, 0, 0, 0.5, 0])
    assert tiou(np.array([2.0, 2.0]), np.array([[2.0, 2.0]])) == pytest.approx([0])  # no union, no nan
    assert pairwise_tiou(np.zeros((0, 2)), spans).shape == (0, 6)
    assert pairwise_tiou(spans, np.zeros((0, 2))).shape == (6, 0)


@patient
@given(items=spans_and_scores, threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_hard_nms_equals_the_oracle(items, threshold):
    rest = list(range(len(items)))
    kept = []
    while rest:
        best = rest[0]
        for i in rest:
            if items[i][2] > items[best][2]:
                best = i
        kept.append(best)
        rest = [i for i in rest if i != best and naive_tiou(items[best], items[i]) <= threshold + 1e-9]
    assert hard_nms(*split(items), threshold).tolist() == kept
    assert hard_nms(*split(items), threshold, limit=3).tolist() == kept[:3]


def naive_soft(items, sigma):
    """[(index, score when taken)], or None where rounding decides who is next."""
    scores = {i: item[2] for i, item in enumerate(items)}
    taken = []
    while scores:
        best = max(scores, key=lambda i: (scores[i], -i))
        if any(0 < abs(scores[best] - s) < 1e-9 for i, s in scores.items() if i != best):
            return None
        taken.append((best, scores.pop(best)))
        for i in scores:
            if scores[i] > 0:
                scores[i] *= math.exp(-(naive_tiou(items[best], items[i]) ** 2) / sigma)
    return taken


@patient
@given(items=spans_and_scores, sigma=st.sampled_from([0.3, 0.5, 2.0]))
def test_soft_nms_equals_the_oracle(items, sigma):
    expected = naive_soft(items, sigma)
    assume(expected is not None)
    order, scores = soft_nms(*split(items), sigma)
    # Identical spans with identical scores tie exactly in both; symmetric ones may differ by one rounding.
    if order.tolist() != [i for i, _ in expected]:
        assert sorted(scores) == pytest.approx(sorted(s for _, s in expected), abs=1e-9)
    assert scores == pytest.approx([s for _, s in expected], abs=1e-9)


@patient
@given(items=spans_and_scores, limit=st.integers(0, 12))
def test_soft_nms_drops_nothing_raises_nothing_and_a_limit_is_a_prefix(items, limit):
    spans, scores = split(items)
    before = scores.copy()
    order, new = soft_nms(spans, scores, 0.3)
    assert sorted(order.tolist()) == list(range(len(items)))
    assert (new <= scores[order]).all()
    assert (np.diff(new) <= 0).all()
    assert (scores == before).all(), "the caller's scores are not touched"
    first, new_first = soft_nms(spans, scores, 0.3, limit=limit)
    assert first.tolist() == order[:limit].tolist()
    assert new_first.tolist() == new[:limit].tolist()


def test_soft_nms_by_hand():
    spans = np.array([[0, 2], [0, 4], [10, 11], [0, 2.0]])
    order, scores = soft_nms(spans, np.array([1.0, 0.9, 0.5, -0.2]), 0.3)
    # The second overlaps the first by .5: .9 · exp(−.25/.3) = .391 falls behind the lone .5.
    assert order.tolist() == [0, 2, 1, 3]
    assert scores == pytest.approx([1.0, 0.5, 0.9 * math.exp(-0.25 / 0.3), -0.2])


def test_ties_go_to_the_earlier_index():
    spans = np.array([[4, 5], [2, 3], [0, 1], [2, 3.0]])
    order, _ = soft_nms(spans, np.array([1.0, 1.0, 1.0, 1.0]), 0.3)
    assert order.tolist() == [0, 1, 2, 3]
    assert hard_nms(spans, np.array([1.0, 1.0, 1.0, 1.0]), 0.7).tolist() == [0, 1, 2]


def test_hard_nms_keeps_what_overlaps_by_exactly_the_threshold():
    grid = np.array([[s * 0.64, (s + 10) * 0.64] for s in range(40)])
    inner = np.array([[s * 0.64, (s + 7) * 0.64] for s in range(40)])
    for ten, seven in zip(grid, inner, strict=True):
        assert len(hard_nms(np.stack((ten, seven)), np.array([1.0, 0.5]), 0.7)) == 2
    spans = np.array([[0.0, 2.0], [0.0, 1.0]])
    assert hard_nms(spans, np.array([1.0, 0.5]), 0.5).tolist() == [0, 1]
    assert hard_nms(spans, np.array([1.0, 0.5]), 0.49).tolist() == [0]


def test_whole_numbers_of_any_kind_are_as_good_as_seconds():
    """Small unsigned ones would wrap around at their first difference, and whole scores could not decay."""
    spans = np.array([[0, 2], [10, 12], [0, 2]], dtype=np.uint8)
    assert hard_nms(spans, np.array([0, 5, 3], dtype=np.uint8), 0.5).tolist() == [1, 2]
    order, scores = soft_nms(spans, np.array([1, 5, 3]), 0.5)
    assert order.tolist() == [1, 2, 0]
    assert scores == pytest.approx([5, 3, math.exp(-2)])


def test_single_precision_is_reckoned_in_double():
    spans = np.array([[0, 3], [0, 1]], dtype=np.float32)  # in single precision their tIoU is more than a third
    scores = np.array([1.0, 0.5])
    assert hard_nms(spans, scores, 1 / 3).tolist() == [0, 1]
    assert (soft_nms(spans, scores, 0.3)[1] == soft_nms(spans.astype(np.float64), scores, 0.3)[1]).all()


def test_no_union_is_0_whatever_stood_in_memory():
    points = np.full((500, 2), 2.0)
    for _ in range(5):
        used = np.full(500, 7.0)
        del used  # the next array of this size stands there
        assert not tiou(points[0], points).any()

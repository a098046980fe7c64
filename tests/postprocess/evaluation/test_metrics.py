"""The metrics and the diagnosis against oracles in exact fractions and plain loops."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.evaluation.diagnose import KINDS, diagnose, false_positive_kinds
from postprocess.evaluation.metrics import (
    Instances,
    Predictions,
    average_precision,
    classification_ap,
    detect,
    match_predictions,
    ranking,
    video_scores,
)

patient = settings(deadline=None, max_examples=100)
TENTHS = [Fraction(i, 10) for i in range(1, 11)]
SNIPPET = 0.64

# (video, label, start, length): small whole numbers, so that ties and exact thresholds are common.
action = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 8), st.integers(0, 6))
annotated = st.lists(action, min_size=1, max_size=8)
predicted = st.lists(st.tuples(action, st.integers(-2, 2)), max_size=14)


def columns(rows, scale=SNIPPET):
    spans = np.array([(s * scale, (s + n) * scale) for _, _, s, n in rows], dtype=float).reshape(-1, 2)
    video, label = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    return video, label, spans


def instances(rows, scale=SNIPPET):
    return Instances(*columns(rows, scale))


def predictions(rows, scale=SNIPPET):
    return Predictions(*columns([row for row, _ in rows], scale), np.array([score / 4 for _, score in rows]))


def overlap(a, b):
    """Exact tIoU of two rows, of any label; 0 in different videos and where there is no union."""
    if a[0] != b[0]:
        return Fraction(0)
    shared = len(set(range(a[2], a[2] + a[3])) & set(range(b[2], b[2] + b[3])))
    union = a[3] + b[3] - shared
    return Fraction(shared, union) if union else Fraction(0)


def ranked(found, label):
    return sorted((i for i, (row, _) in enumerate(found) if row[1] == label), key=lambda i: (-found[i][1], i))


def oracle_match(truth, found, tiou):
    """Prediction → instance, by walking as ActivityNet does."""
    taken, match = set(), {}
    for label in {row[1] for row in truth}:
        for i in ranked(found, label):
            own = [g for g, row in enumerate(truth) if row[1] == label]
            for g in sorted(own, key=lambda g: (-overlap(truth[g], found[i][0]), g)):
                if overlap(truth[g], found[i][0]) >= tiou and g not in taken:
                    taken.add(g)
                    match[i] = g
                    break
    return match


def oracle_ap(hits, positives):
    """The definition: for each instance, the best precision of any cut that finds at least so many."""
    total = Fraction(0)
    for wanted in range(1, positives + 1):
        cuts = [k for k in range(1, len(hits) + 1) if sum(hits[:k]) >= wanted]
        total += max((Fraction(sum(hits[:k]), k) for k in cuts), default=Fraction(0))
    return total / positives


@patient
@given(truth=annotated, found=predicted)
def test_detection_equals_brute_force(truth, found):
    detection = detect(instances(truth), predictions(found), np.array([float(t) for t in TENTHS]))
    labels = sorted({row[1] for row in truth})
    assert detection.classes.tolist() == labels
    for k, tiou in enumerate(TENTHS):
        match = oracle_match(truth, found, tiou)
        assert detection.match[k].tolist() == [match.get(i, -1) for i in range(len(found))]
        expected = [
            oracle_ap([i in match for i in ranked(found, label)], sum(row[1] == label for row in truth))
            for label in labels
        ]
        assert detection.ap[k] == pytest.approx([float(ap) for ap in expected])
        assert detection.mean_ap[k] == pytest.approx(float(sum(expected) / len(expected)))


@patient
@given(truth=st.lists(action.filter(lambda row: row[3] > 0), min_size=1, max_size=8), scale=st.floats(0.01, 100))
def test_truth_as_predictions_scores_exactly_100(truth, scale):
    rows = instances(truth, scale)
    found = Predictions(rows.video, rows.label, rows.span, np.zeros(len(rows)))
    assert (detect(rows, found, np.array([0.1, 0.5, 1.0])).ap == 1).all()


def test_a_prediction_whose_best_instance_is_taken_falls_through_to_the_next():
    truth = [(0, 0, 0, 10), (0, 0, 5, 10)]
    found = [((0, 0, 1, 10), 2), ((0, 0, 2, 10), 1)]  # both overlap the first more; the second by 8/12 and 7/13
    match = match_predictions(instances(truth), predictions(found), np.array([0.5, 0.6]))
    assert match.tolist() == [[0, 1], [0, -1]]


def test_a_tiou_of_exactly_the_threshold_matches_on_the_snippet_grid():
    for start in range(60):
        truth, found = [(0, 0, start, 10)], [((0, 0, start, 7), 1)]
        assert match_predictions(instances(truth), predictions(found), np.array([0.7, 0.7001])).tolist() == [[0], [-1]]


def test_instances_overlapped_equally_on_paper_are_taken_in_their_order():
    for start in range(60):
        truth = [(0, 0, start, 10), (0, 0, start + 4, 10)]
        match = match_predictions(instances(truth), predictions([((0, 0, start + 2, 10), 1)]), np.array([0.5]))
        assert match.tolist() == [[0]]


def test_ap_by_hand():
    # Hit, miss, hit, of 3: precisions 1, 1/2, 2/3; the third instance is never found.
    assert average_precision(np.array([True, False, True]), 3) == pytest.approx((1 + 2 / 3) / 3)
    # Miss, hit, hit: interpolation lifts the first hit from 1/2 to 2/3.
    assert average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert average_precision(np.zeros((4, 0), dtype=bool), 2).tolist() == [0, 0, 0, 0]


def test_equal_scores_keep_the_order_of_the_file():
    truth = [(0, 0, 0, 4)]
    right, wrong = ((0, 0, 0, 4), 0), ((1, 0, 0, 4), 0)
    many = 40  # an unstable sort would stay stable on a handful
    first = detect(instances(truth), predictions([right] + [wrong] * many), np.array([0.5]))
    last = detect(instances(truth), predictions([wrong] * many + [right]), np.array([0.5]))
    assert first.mean_ap[0] == 1
    assert last.mean_ap[0] == pytest.approx(1 / (many + 1))


def test_classes_count_alike_and_one_without_predictions_counts_nothing():
    truth = [(0, 0, 0, 4), (0, 0, 6, 4), (1, 1, 0, 4)]
    found = [((0, 0, 0, 4), 2), ((0, 0, 6, 4), 1), ((0, 2, 0, 4), 2)]  # class 2 has no instance
    detection = detect(instances(truth), predictions(found), np.array([0.5]))
    assert detection.ap.tolist() == [[1, 0]]
    assert detection.mean_ap.tolist() == [0.5]


def test_no_predictions_score_0_and_no_instances_are_an_error():
    assert detect(instances([(0, 0, 0, 4)]), predictions([]), np.array([0.5])).mean_ap.tolist() == [0]
    with pytest.raises(ValueError, match="no annotated instance"):
        detect(instances([]), predictions([]), np.array([0.5]))


# --- classification ---


@patient
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=n, max_size=n),
            st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=n, max_size=n),
        )
    )
)
def test_classification_ap_equals_brute_force(data):
    scores, labels = data
    got = classification_ap(np.array(scores, dtype=float), np.array(labels))
    for c in range(2):
        order = sorted(range(len(scores)), key=lambda v: (-scores[v][c], v))
        right = [labels[v][c] for v in order]
        precisions = [sum(right[: k + 1]) / (k + 1) for k in range(len(right)) if right[k]]
        assert np.isnan(got[c]) if not any(right) else got[c] == pytest.approx(sum(precisions) / len(precisions))


def test_video_scores_by_hand():
    cas = np.zeros((9, 3))  # ⌈9/8⌉ = 2 of 9 snippets
    cas[4, 0], cas[7, 0], cas[1, 1], cas[:, 2] = 4.0, 2.0, 3.0, 1.0
    expected = np.exp([3.0, 1.5, 1.0])
    assert video_scores(cas) == pytest.approx((expected / expected.sum())[:2])
    assert video_scores(np.full((1, 3), 1000.0)) == pytest.approx([1 / 3, 1 / 3])


# --- diagnosis ---


def oracle_kind(truth, found, i, match, tiou):
    row = found[i][0]
    if i in match:
        return "true positive"
    own = max((overlap(g, row) for g in truth if g[1] == row[1]), default=Fraction(0))
    other = max((overlap(g, row) for g in truth if g[1] != row[1]), default=Fraction(0))
    if max(own, other) < min(tiou, Fraction(1, 10)):
        return "background"
    if own >= other:
        return "duplicate" if own >= tiou else "localisation"
    return "class" if other >= tiou else "confusion"


@patient
@given(truth=annotated, found=predicted, tiou=st.sampled_from([Fraction(1, 20), Fraction(1, 2), Fraction(7, 10)]))
def test_kinds_equal_brute_force(truth, found, tiou):
    match = oracle_match(truth, found, tiou)
    rows = np.array([match.get(i, -1) for i in range(len(found))], dtype=np.int64)
    kinds = false_positive_kinds(instances(truth), predictions(found), rows, float(tiou))
    assert [list(KINDS)[k] for k in kinds] == [oracle_kind(truth, found, i, match, tiou) for i in range(len(found))]


@patient
@given(truth=annotated, found=predicted)
def test_a_diagnosis_adds_up(truth, found):
    result = diagnose(instances(truth), predictions(found))
    labels = {row[1] for row in truth}
    counted = [(row, score) for row, score in found if row[1] in labels]
    assert sum(result.counts.values()) == len(found)  # predictions of other classes are counted by kind, too
    assert result.counts["true positive"] == len(oracle_match(truth, found, Fraction(1, 2)))
    assert result.mean_ap == detect(instances(truth), predictions(found), np.array([0.5])).mean_ap[0]
    assert all(gain >= -1e-12 for gain in result.gains.values())
    assert sum(b.instances for b in result.lengths) == len(truth)
    found_at_all = sum(b.recall * b.instances for b in result.lengths)
    assert found_at_all == pytest.approx(result.counts["true positive"])
    for band in result.bands:
        assert sum(band.counts.values()) <= band.multiple * len(counted)


def test_a_diagnosis_by_hand():
    truth = [(0, 0, 0, 10), (0, 1, 20, 10), (1, 0, 0, 10), (1, 1, 0, 10)]
    found = [
        ((0, 0, 20, 10), 8),  # class: the instance there is of class 1
        ((0, 0, 0, 10), 7),  # true positive
        ((0, 0, 0, 9), 6),  # duplicate
        ((0, 0, 7, 10), 5),  # localisation: 3 of 17
        ((0, 0, 15, 10), 4),  # confusion: 5 of 15 with class 1
        ((0, 0, 40, 10), 3),  # background
        ((1, 0, 0, 10), 2),  # true positive; an instance of class 1 lies in the very same place
        ((1, 0, 0, 10), 1),  # duplicate for the same reason, not class
        ((2, 0, 0, 10), 0),  # background: a video without annotations
    ]
    result = diagnose(instances(truth), predictions(found))
    assert result.counts == {
        "true positive": 2,
        "duplicate": 2,
        "class": 1,
        "localisation": 1,
        "confusion": 1,
        "background": 2,
    }
    # Class 0: hits at ranks 2 and 7, of two instances; class 1 has no predictions.
    assert result.mean_ap == pytest.approx((1 / 2 + 2 / 7) / 2 / 2)
    # Without the class error they rank 1 and 6.
    assert result.gains["class"] == pytest.approx((1 + 2 / 6) / 4 - result.mean_ap)
    assert result.gains["duplicate"] == pytest.approx((1 / 2 + 2 / 6) / 4 - result.mean_ap)
    assert [b.multiple for b in result.bands] == [1, 2, 3, 4, 5]
    assert result.bands[0].counts["class"] == result.bands[0].counts["true positive"] == 1
    assert result.bands[4].counts["background"] == 1


def test_lengths_by_hand():
    # Five lengths, one a bin; class 0 alone; the predictions find 2 and 10, and one is background.
    truth = [(v, 0, 0, n) for v, n in enumerate([2, 4, 6, 8, 10])]
    found = [((9, 0, 0, 4), 3), ((0, 0, 0, 2), 2), ((4, 0, 0, 10), 1)]
    result = diagnose(instances(truth, 1.0), predictions(found, 1.0))
    assert [(b.name, b.shortest, b.instances, b.recall) for b in result.lengths] == [
        ("XS", 2, 1, 1),
        ("S", 4, 1, 0),
        ("M", 6, 1, 0),
        ("L", 8, 1, 0),
        ("XL", 10, 1, 1),
    ]
    # In its bin each hit comes after one false positive, recall 1, N = 5: 5 / (5 + 1). The other hit is not counted.
    assert [b.ap_n for b in result.lengths] == pytest.approx([5 / 6, 0, 0, 0, 5 / 6])
    # Over all five: recalls 1/5 and 2/5 give 1/(1+1) and 2/(2+1), and interpolation lifts the first.
    assert result.mean_ap_n == pytest.approx((2 / 3 + 2 / 3) / 5)


def test_equal_lengths_share_a_bin_whatever_the_rounding():
    truth = Instances(
        np.arange(20), np.zeros(20, dtype=np.int64), np.array([(i * 0.1, i * 0.1 + 6.2) for i in range(20)])
    )
    assert [b.instances for b in diagnose(truth, predictions([])).lengths] == [20]


def test_a_detection_says_what_it_was_scored_at():
    found = detect(instances([(0, 0, 0, 4)]), predictions([((0, 0, 0, 4), 1)]), [1])
    assert found.tious.tolist() == [1.0]
    assert found.tious.dtype == np.float64
    with pytest.raises(ValueError, match=r"^there is no annotated instance"):
        detect(instances([]), predictions([]), np.array([0.5]))


def test_nothing_against_nothing_is_no_match():
    assert match_predictions(instances([]), predictions([]), np.array([0.5, 0.7])).shape == (2, 0)


def test_many_equal_ones_keep_their_order():
    """NumPy's default sort keeps the order of few: of a thousand it does not."""
    many = 1000
    truth = instances([(0, i % 2, 0, 4) for i in range(many)])
    both = predictions([((0, 0, 0, 4), 1), ((0, 1, 0, 4), 1)])
    assert match_predictions(truth, both, np.array([0.5])).tolist() == [[0, 1]]
    equal = predictions([((0, 0, 0, 4), i % 2) for i in range(many)])
    assert ranking(equal).tolist() == [*range(1, many, 2), *range(0, many, 2)]
    scores = (np.arange(many) % 2)[:, None] / 2
    labels = np.arange(many)[:, None] == 501  # the 251st of those that rank first
    assert classification_ap(scores, labels) == pytest.approx([1 / 251])


def test_video_scores_are_reckoned_in_double_precision():
    cas = np.random.default_rng(0).normal(size=(4000, 5)).astype(np.float32)
    assert (video_scores(cas) == video_scores(cas.astype(np.float64))).all()


def test_a_class_that_no_video_has_is_no_division_by_zero():
    with np.errstate(all="raise"):
        found = classification_ap(np.array([[0.5, 0.5]]), np.array([[True, False]]))
    assert found[0] == 1 and np.isnan(found[1])

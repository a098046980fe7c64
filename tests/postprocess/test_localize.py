"""Both rules of localisation: hand-worked cases, properties, and oracles that go snippet by snippet."""

import dataclasses
import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.config import LocalizeConfig
from postprocess.localize import NO_GROUPS, Activations, localize

SNIPPET = 0.64
CLASSES = ("golf", "tennis", "dunking", "dribbling")
BASKETBALL = {"dunking": "basketball", "dribbling": "basketball"}
PLENTY = LocalizeConfig().max_segments
patient = settings(max_examples=60, deadline=None)


def grid(steps):
    first = np.arange(steps) * SNIPPET
    return np.stack((first, np.arange(1, steps + 1) * SNIPPET), axis=1)


def find(curves, *, actionness=None, video=None, times=None, duration=None, keep=None, groups=BASKETBALL, **config):
    """Localise, unsmoothed, from class probabilities {class: [one a snippet]}; what is left is background."""
    steps = len(next(iter(curves.values())))
    probability = np.full((steps, len(CLASSES) + 1), 1e-9)
    for name, curve in curves.items():
        probability[:, CLASSES.index(name)] = np.maximum(curve, 1e-9)
    probability[:, -1] = np.maximum(1 - probability[:, :-1].sum(axis=1), 1e-9)
    times = grid(steps) if times is None else np.array(times)
    given = Activations(
        np.log(probability),
        np.ones(steps) if actionness is None else np.array(actionness),
        np.zeros(len(CLASSES)) if video is None else np.array(video),
        times,
        CLASSES,
        (times[-1, 1] if steps else 0.0) if duration is None else duration,
    )
    return localize(given, LocalizeConfig(**({"smooth": 1} | config)), groups=groups, keep=keep)


def located(*, config, groups=NO_GROUPS, keep=None, bars=(), **given):
    """The segments of a scene: the fields of `Activations`, and what `localize` takes beside them."""
    return localize(Activations(**given), config, groups=groups, keep=keep, bars=bars)


def drawn(segments):
    """Segments as (label, first snippet, last snippet) on the plain grid."""
    return [(s.label, round(s.start / SNIPPET), round(s.end / SNIPPET) - 1) for s in segments]


# --- rule "runs" by hand ---


def test_a_run_is_seconds_through_times_with_its_mean_as_confidence():
    (found,) = find({"golf": [0, 0.9, 0.8, 0.7, 0]})
    assert (found.start, found.end, found.label) == (1 * SNIPPET, 4 * SNIPPET, "golf")
    assert found.confidence == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.9, 0.9, 0, 0], [(0, 1)]),  # from the very first snippet (WTAL §3.5)
        ([0, 0, 0.9, 0.9], [(2, 3)]),  # to the very last
        ([0.9, 0, 0, 0.9], []),  # one snippet is too short, at either end too
        ([0.9, 0, 0.9, 0], [(0, 2)]),  # a gap of one is bridged, and the bridge counts
        ([0.9, 0.9, 0, 0, 0.9, 0.9], [(0, 1), (4, 5)]),  # a gap of two is not
        ([0.9], [(0, 0)]),  # a video of one snippet needs one
        ([0.2], []),
        ([0.3 - 1e-6] * 4, []),  # θ must be exceeded
        ([0.3 + 1e-6] * 4, [(0, 3)]),
        ([0, 0, 0, 0], []),  # an empty street has no forced label
        ([], []),
    ],
)
def test_runs_gaps_and_lengths(curve, expected):
    assert drawn(find({"golf": curve})) == [("golf", s, e) for s, e in expected]


def test_the_edge_of_a_sure_run_is_cut_and_a_weak_run_is_whole():
    sure, weak = [0.3, 0.9, 0.9, 0.3], [0.3, 0.31, 0.3, 0.3]
    assert drawn(find({"golf": sure}, threshold=0.2)) == [("golf", 0, 3)]
    assert drawn(find({"golf": sure}, threshold=0.2, edge=0.36)) == [("golf", 1, 2)]
    assert drawn(find({"golf": weak}, threshold=0.2, edge=0.36)) == [("golf", 0, 3)]
    assert drawn(find({"golf": [*sure, 0, 0, *weak]}, threshold=0.2, edge=0.36)) == [("golf", 1, 2), ("golf", 6, 9)]
    valley = [0.9, 0.9, 0.3, 0.9, 0.9]
    assert drawn(find({"golf": valley}, threshold=0.2, edge=0.36, merge_gap=0)) == [("golf", 0, 1), ("golf", 3, 4)]
    (whole,) = find({"golf": valley}, threshold=0.2, edge=0.36, merge_gap=1)
    assert whole.confidence == pytest.approx(sum(valley) / 5)  # what lies between them counts


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"min_seconds": 0.1}, [(0, 1), (4, 4), (7, 9)]),
        ({"min_seconds": 1.28}, [(0, 1), (7, 9)]),  # two snippets of .64 s
        ({"min_seconds": 1.3}, [(7, 9)]),  # rounded up
        ({"merge_seconds": 0}, [(0, 1), (7, 9)]),
        ({"merge_seconds": 1.28}, [(0, 9)]),
        ({"merge_seconds": 1.2, "min_seconds": 0.1}, [(0, 1), (4, 4), (7, 9)]),  # rounded down
        ({"min_seconds": 1e300}, []),
        ({"merge_seconds": 1e300}, [(0, 9)]),
    ],
)
def test_lengths_and_gaps_in_seconds(config, expected):
    curve = [0.9, 0.9, 0, 0, 0.9, 0, 0, 0.9, 0.9, 0.9, 0]
    assert drawn(find({"golf": curve}, **config)) == [("golf", s, e) for s, e in expected]


def test_seconds_are_seconds_at_every_stride():
    """At stride 4 a snippet stands for .16 s: 1.28 s are eight of them."""
    times = np.arange(17)[:, None] * 0.16 + np.array([0.24, 0.4])
    for length, found in ((7, 0), (8, 1)):
        curve = [0.9] * length + [0] * (17 - length)
        assert len(find({"golf": curve}, times=times, min_seconds=1.28)) == found


def test_a_length_that_somebody_asks_for_holds_in_short_videos_too():
    """min_snippets gives way in a video that is shorter; seconds do not, since somebody typed them."""
    curve = [0.9] * 3
    assert len(find({"golf": curve}, min_snippets=5)) == 1
    assert len(find({"golf": curve}, min_seconds=1.92)) == 1 and find({"golf": curve}, min_seconds=1.93) == []


def test_one_snippet_alone_counts_where_it_is_allowed():
    assert drawn(find({"golf": [0.9, 0, 0, 0.9]}, min_snippets=1)) == [("golf", 0, 0), ("golf", 3, 3)]


def test_actionness_weighs_the_probability():
    assert drawn(find({"golf": [0.9] * 4}, actionness=[1, 1, 0.3, 0.3])) == [("golf", 0, 1)]


def test_names_of_one_sport_pass_together_and_the_stronger_name_is_shown():
    curves = {"dunking": [0, 0.2, 0.2, 0.2, 0], "dribbling": [0, 0.25, 0.25, 0.15, 0]}
    assert find(curves, groups={}) == []
    (found,) = find(curves)
    assert drawn([found]) == [("dribbling", 1, 3)]
    assert found.confidence == pytest.approx((0.45 + 0.45 + 0.35) / 3)


def test_a_name_that_is_not_kept_lends_nothing():
    curves = {"dunking": [0.2] * 4, "dribbling": [0.25] * 4}
    assert find(curves, keep={"dunking"}) == []
    assert drawn(find({"dunking": [0.4] * 4, "dribbling": [0.5] * 4}, keep={"dunking"})) == [("dunking", 0, 3)]


def test_a_group_named_like_a_class_outside_it_stays_apart():
    curves = {"golf": [0.2] * 4, "dunking": [0.2] * 4}
    assert find(curves, groups={"dunking": "golf"}) == []
    assert find(curves, groups={"dunking": "x", "golf": "x"}) != []


def test_no_class_kept_and_no_snippets_give_nothing():
    assert find({"golf": [0.9] * 4}, keep=()) == []
    for rule in ("runs", "paper"):
        assert find({"golf": []}, rule=rule) == []
        assert find({"golf": [0.9] * 4}, keep=(), rule=rule) == []


def test_smoothing_bridges_a_flicker():
    curve = [0.9, 0, 0, 0.9, 0, 0, 0.9]
    assert find({"golf": curve}) == []
    # Three-snippet means are .45 at both ends and .3 within; θ = .25 is met by all of them.
    (found,) = find({"golf": curve}, smooth=3, threshold=0.25)
    assert drawn([found]) == [("golf", 0, 6)]
    assert found.confidence == pytest.approx((0.45 + 5 * 0.3 + 0.45) / 7)


def test_neither_runs_nor_bridges_nor_smoothing_cross_a_gap_in_time():
    times = np.concatenate((grid(3), grid(3) + 10.0))
    assert [(s.start, s.end) for s in find({"golf": [0.9] * 6}, times=times)] == [
        (0, pytest.approx(1.92)),
        (10, pytest.approx(11.92)),
    ]
    assert find({"golf": [0, 0, 0.9, 0.9, 0, 0]}, times=times) == []
    assert find({"golf": [0, 0.9, 0, 0.9, 0, 0]}, times=times) == []
    assert len(find({"golf": [0.9] * 3 + [0] * 3}, times=times, smooth=5, threshold=0.01)) == 1
    assert len(find({"golf": [0.9] * 6}, times=times, rule="paper", video=[1, 0, 0, 0])) == 2


def test_segments_end_where_the_video_ends():
    (found,) = find({"golf": [0.9] * 4}, duration=2.0)
    assert (found.start, found.end) == (0.0, 2.0)
    assert find({"golf": [0, 0, 0.9, 0.9]}, duration=1.28) == [], "a segment wholly beyond the end is none"
    (found,) = find({"golf": [0.9] * 4}, times=grid(4) - 0.1)
    assert found.start == 0.0


def test_min_confidence_filters_both_rules():
    curves = {"golf": [0.9, 0.9, 0, 0, 0, 0.5, 0.5]}
    assert drawn(find(curves, min_confidence=0.6)) == [("golf", 0, 1)]
    weak = find(curves, rule="paper", actionness=[0.9, 0.9, 0, 0, 0, 0.8, 0.8], min_confidence=0.6)
    assert {d[1:] for d in drawn(weak)} == {(0, 1)}


def test_psi_is_the_contrast_of_suppressed_logits_plus_the_videos_score():
    cas = np.array([[4.0, 0.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [2.0, 0.0]])
    actionness = np.array([0.1, 1, 1, 1, 1, 0.1])
    given = Activations(cas, actionness, np.array([0.5]), grid(6), ["golf"], 4.0)
    (found,) = localize(given, LocalizeConfig(smooth=1))
    # Inside 9; around it .4 and .2; γ p = .1.
    assert found.score == pytest.approx(9 - 0.3 + 0.1)


# --- one label at a time ---


def test_two_sports_meet_where_their_curves_cross():
    curves = {"golf": [0.9, 0.9, 0.6, 0.55, 0.32, 0.1, 0], "tennis": [0, 0.1, 0.32, 0.4, 0.6, 0.9, 0.9]}
    assert drawn(find(curves)) == [("golf", 0, 3), ("tennis", 4, 6)]


def test_a_sport_that_stands_out_inside_another_is_drawn():
    curves = {"golf": [0.9] * 5 + [0.32] * 6 + [0.9] * 5, "tennis": [0] * 5 + [0.65] * 6 + [0] * 5}
    assert drawn(find(curves)) == [("golf", 0, 4), ("tennis", 5, 10), ("golf", 11, 15)]


def test_a_flicker_between_two_near_equal_names_is_one_segment():
    golf = [0.5, 0.5, 0.4, 0.4] * 6
    curves = {"golf": golf, "tennis": [0.85 - p for p in golf]}
    assert drawn(find(curves)) == [("golf", 0, 23)]


def test_a_weaker_sport_is_trimmed_to_what_is_left_or_dropped():
    golf = [0.65] * 6 + [0] * 3
    assert drawn(find({"golf": golf, "tennis": [0] * 4 + [0.32] * 2 + [0.9] * 3})) == [
        ("golf", 0, 5),
        ("tennis", 6, 8),
    ]
    # One snippet left over is too short to be a segment.
    assert drawn(find({"golf": golf, "tennis": [0] * 4 + [0.32] * 3 + [0] * 2})) == [("golf", 0, 5)]
    assert drawn(find({"golf": golf, "tennis": [0.32] * 6 + [0] * 3})) == [("golf", 0, 5)]


def test_two_rivals_of_one_long_segment_are_settled_with_it():
    curves = {
        "golf": [0.5] * 16,
        "tennis": [0] * 3 + [0.45] * 4 + [0] * 9,
        "dunking": [0] * 10 + [0.45] * 4 + [0] * 2,
    }
    assert drawn(find(curves)) == [("golf", 0, 15)]


def test_a_rival_in_a_bridged_gap_does_not_tear_a_hole():
    # Tennis may own snippet 3 alone only if it could be a segment; it can not, so golf keeps its bridge.
    curves = {"golf": [0.9, 0.9, 0.9, 0, 0.6, 0.9, 0.9], "tennis": [0, 0, 0, 0.9, 0.35, 0, 0]}
    assert drawn(find(curves)) == [("golf", 0, 6)]


def test_a_piece_never_ends_in_a_bridged_gap():
    # Golf bridges 2..2 towards 3, but tennis takes 3 and on: golf must end at 1, not at the gap.
    curves = {"golf": [0.9, 0.9, 0.1, 0.35, 0, 0, 0], "tennis": [0, 0, 0, 0.6, 0.9, 0.9, 0.9]}
    assert drawn(find(curves)) == [("golf", 0, 1), ("tennis", 3, 6)]


def test_neighbours_meet_halfway_where_snippets_overlap_in_time():
    first = np.arange(8) * 0.32
    times = np.stack((first, first + 0.64), axis=1)
    golf, tennis = find({"golf": [0.9] * 4 + [0] * 4, "tennis": [0] * 4 + [0.9] * 4}, times=times)
    # Golf's last snippet ends at 1.60, tennis' first begins at 1.28.
    assert golf.end == tennis.start == pytest.approx(1.44)


# --- joining under the bar of min_confidence ---


def curve(*pieces):
    """A curve of (probability, snippets) one behind the other."""
    return [p for p, n in pieces for _ in range(n)]


def joined(values, **options):
    """(first, last, confidence) of golf alone, gaps of up to 2, from .75 on."""
    found = find({"golf": values}, **({"merge_gap": 2, "min_confidence": 0.75} | options))
    return [(first, last, s.confidence) for s, (_, first, last) in zip(found, drawn(found), strict=True)]


def test_two_sure_pieces_outlive_a_weak_middle():
    # As a video of basketball had it: .82 and .75, and .72 over all of it.
    values = curve((0.82, 14), (0.2, 1), (0.5, 4), (0.2, 1), (0.76, 10))
    assert joined(values) == [(0, 13, pytest.approx(0.82)), (20, 29, pytest.approx(0.76))]
    whole = np.mean(values)
    assert whole < 0.75
    assert joined(values, min_confidence=whole - 1e-6) == [(0, 29, pytest.approx(whole))]
    assert joined(values, min_confidence=0.0) == [(0, 29, pytest.approx(whole))]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # The gap alone dilutes.
        (curve((0.78, 2), (0.0, 1), (0.76, 2)), [(0, 1, 0.78), (3, 4, 0.76)]),
        # The whole stands: it is one segment, its weak end too.
        (curve((0.9, 8), (0.2, 1), (0.5, 2)), [(0, 10, (7.2 + 0.2 + 1.0) / 11)]),
        # Its weak end would carry it below: the sure piece stays.
        (curve((0.9, 4), (0.2, 1), (0.5, 2)), [(0, 3, 0.9)]),
        (curve((0.5, 2), (0.2, 1), (0.9, 4)), [(3, 6, 0.9)]),
        # Of three sure ones the first two stand together, bridge and all.
        (
            curve((0.95, 4), (0.2, 1), (0.95, 4), (0.0, 2), (0.4, 3), (0.0, 2), (0.8, 4)),
            [(0, 8, (8 * 0.95 + 0.2) / 9), (16, 19, 0.8)],
        ),
        # Each too short alone, long enough together.
        (curve((0.95, 1), (0.29, 1), (0.95, 1), (0.79, 1), (0, 1), (0.4, 3)), [(0, 3, 0.745)]),
        # None stands, in whole or in part.
        (curve((0.7, 4), (0.2, 1), (0.74, 4)), []),
        # A sure snippet that is too short does not stand.
        (curve((0.9, 1), (0.0, 1), (0.4, 4)), []),
    ],
)
def test_no_join_carries_a_sure_piece_below_the_bar(values, expected):
    bar = 0.74 if expected and expected[0][2] == 0.745 else 0.75
    assert joined(values, min_confidence=bar) == [(s, e, pytest.approx(p)) for s, e, p in expected]


def test_the_bar_is_asked_of_the_calibrated_confidence():
    fitted = {"confidence_slope": 0.5, "confidence_shift": 0.3}

    def said(p):
        return 1 / (1 + math.exp(-0.5 * math.log(p / (1 - p)) - 0.3))

    values = curve((0.82, 4), (0.1, 2), (0.8, 4))
    # .82 is said as .742, .8 as .730, the whole, .668, as .656.
    assert joined(values, min_confidence=0.7, **fitted) == [
        (0, 3, pytest.approx(said(0.82))),
        (6, 9, pytest.approx(said(0.8))),
    ]
    assert joined(values, min_confidence=0.735, **fitted) == [(0, 3, pytest.approx(said(0.82)))]
    assert joined(values, min_confidence=0.65, **fitted) == [(0, 9, pytest.approx(said(np.mean(values))))]


@pytest.mark.parametrize("values", [[0.9, 0.6], [0.9, 0.9, 0.9], [0.8, 0.7, 0.9, 0.6, 0.55]])
def test_a_piece_that_stands_exactly_at_the_bar_stands(values):
    for before in range(8):
        ((_, _, bar),) = joined([*[0.0] * before, 0.0, 0.0, *values], min_confidence=0.0)
        around = [*[0.4] * before, 0.1, 0.0, *values, 0.0, 0.1, 0.4, 0.4, 0.4]
        first = before + 2
        assert joined(around, min_confidence=bar) == [(first, first + len(values) - 1, bar)]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_sure_pieces_outlive_a_weak_middle_at_any_stride(n):
    start = np.arange(30 * n) * SNIPPET / n
    times = np.stack((start, start + SNIPPET), axis=1)
    values = curve((0.82, 14 * n), (0.2, n), (0.5, 4 * n), (0.2, n), (0.76, 10 * n))
    found = find({"golf": values}, times=times, merge_gap=2, min_confidence=0.75)
    assert [s.confidence for s in found] == [pytest.approx(0.82), pytest.approx(0.76)]


def test_smoothing_comes_before_the_bar():
    values = curve((0.9, 8), (0.0, 4), (0.5, 4), (0.0, 4), (0.9, 8))
    found = find({"golf": values}, smooth=3, merge_gap=4, threshold=0.35, min_confidence=0.75)
    # Three-snippet means: .6 and .3 at an edge between .9 and 0.
    sure = pytest.approx((7 * 0.9 + 0.6) / 8)
    assert [(s, e) for _, s, e in drawn(found)] == [(0, 7), (20, 27)]
    assert [s.confidence for s in found] == [sure, sure]


def test_names_of_one_sport_stand_together():
    dunking, dribbling = curve((0.4, 4), (0.1, 1), (0.2, 3)), curve((0.42, 4), (0.0, 1), (0.2, 3))
    (found,) = find({"dunking": dunking, "dribbling": dribbling}, merge_gap=2, min_confidence=0.75)
    assert (drawn([found]), found.confidence) == ([("dribbling", 0, 3)], pytest.approx(0.82))


def test_a_bridge_that_is_not_made_holds_no_rival_off():
    golf = curve((0.9, 3), (0, 1), (0.35, 3))
    tennis = curve((0, 3), (0.9, 1), (0.34, 1), (0, 2))
    # In one piece golf would own the bridge, and then be left out itself: .535.
    assert drawn(find({"golf": golf, "tennis": tennis}, min_confidence=0.6)) == [("golf", 0, 2), ("tennis", 3, 4)]


def test_a_piece_that_stands_is_not_lost_with_what_a_rival_leaves_of_its_join():
    # As a whole golf stands; tennis takes its surest half, and what is left of it does not.
    golf = curve((0.92, 12), (0.31, 2), (0.0, 1), (0.78, 4))
    tennis = curve((0.0, 3), (0.99, 9), (0.0, 7))
    # Probabilities of one snippet are at most 1: golf is what tennis leaves of it.
    golf = [min(g, 1 - t - 1e-6) if t else g for g, t in zip(golf, tennis, strict=True)]
    golf[3:12] = [0.009] * 9
    found = find({"golf": golf, "tennis": tennis}, merge_gap=9, min_confidence=0.75)
    assert ("tennis", 3, 11) in drawn(found)
    assert ("golf", 15, 18) in drawn(found)
    assert all(s.confidence >= 0.75 for s in found)


# --- rule "paper" by hand ---


def test_paper_proposals_are_nested_deduplicated_and_ranked():
    actionness = [0, 0.4, 0.97, 0.97, 0.4, 0, 0.2]
    found = find({"golf": [0.5] * 7}, rule="paper", actionness=actionness, video=[0.9, 0, 0, 0])
    # .97 is above every threshold, .4 above six of them, .2 above three: sixteen sweeps, three distinct runs.
    assert sorted(drawn(found)) == [("golf", 1, 4), ("golf", 2, 3), ("golf", 6, 6)]
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_paper_finds_a_run_of_the_first_snippet_alone():
    found = find({"golf": [0.9, 0, 0, 0]}, rule="paper", actionness=[0.9, 0, 0, 0], video=[1, 0, 0, 0])
    assert drawn(found) == [("golf", 0, 0)]
    found = find({"golf": [0.9]}, rule="paper", actionness=[0.9], video=[1, 0, 0, 0])
    assert drawn(found) == [("golf", 0, 0)]


def test_paper_classes_pass_the_threshold_or_the_best_kept_one_stands_in():
    def labels(video, **options):
        found = find({"golf": [0.5] * 4}, rule="paper", actionness=[0.5] * 4, video=video, **options)
        return {s.label for s in found}

    assert labels([0.2, 0.5, 0.19, 0.1]) == {"golf", "tennis"}  # 0.2 itself passes
    assert labels([0.1, 0.12, 0.11, 0.1]) == {"tennis"}
    assert labels([0.6, 0.1, 0.15, 0.1], keep={"tennis", "dunking"}) == {"dunking"}
    assert labels([0.1, 0.12, 0.3, 0.1], class_threshold=0.05) == set(CLASSES)


def test_paper_without_actionness_finds_nothing():
    assert find({"golf": [0.9] * 4}, rule="paper", actionness=[0.0] * 4, video=[1, 0, 0, 0]) == []


def test_paper_hard_nms_works_per_class_and_in_seconds():
    actionness = [0, 0.5] + [0.97] * 8 + [0.5, 0]
    video = [0.5, 0.5, 0, 0]
    nested = find({"golf": [0.4] * 12, "tennis": [0.4] * 12}, rule="paper", actionness=actionness, video=video)
    hard = find(
        {"golf": [0.4] * 12, "tennis": [0.4] * 12},
        rule="paper",
        actionness=actionness,
        video=video,
        nms="hard",
    )
    assert len(nested) == 4  # (1, 10) and (2, 9) of each class
    # tIoU is 8/10, above 0.7: one of each class stays, and the classes leave each other alone.
    assert sorted(d[0] for d in drawn(hard)) == ["golf", "tennis"]


def test_paper_soft_nms_reports_the_decayed_score():
    options = {"rule": "paper", "actionness": [0, 0.5] + [0.97] * 8 + [0.5, 0], "video": [0.9, 0, 0, 0]}
    curves = {"golf": [0.2, 0.5] + [0.999] * 8 + [0.5, 0.2]}
    raw = find(curves, nms="hard", nms_tiou=1.0, **options)
    soft = find(curves, **options)
    assert drawn(raw) == drawn(soft) == [("golf", 2, 9), ("golf", 1, 10)]
    assert raw[1].score > 0
    assert soft[0].score == raw[0].score
    assert soft[1].score == pytest.approx(raw[1].score * math.exp(-(0.8**2) / 0.3))


def test_paper_is_capped_at_the_best():
    rng = np.random.default_rng(0)
    options = {"rule": "paper", "actionness": rng.random(200), "video": [0.5, 0.4, 0, 0]}
    curves = {"golf": rng.random(200) / 2, "tennis": rng.random(200) / 2}
    everything = find(curves, max_segments=10**6, **options)
    assert len(everything) > 100
    assert find(curves, max_segments=7, **options) == everything[:7]


# --- properties ---


@st.composite
def scenes(draw):
    """Random logits with stretches in which some classes stand out, so that there is something to find."""
    steps, count = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cas = rng.normal(0, draw(st.sampled_from([0.5, 2.0])), (steps, count + 1))
    for _ in range(draw(st.integers(0, 6))):
        start, length = rng.integers(0, steps), rng.integers(1, 15)
        cas[start : start + length, rng.integers(0, count + 1)] += rng.uniform(1, 6)
    cas = np.round(cas * 1024) / 1024  # so that adding a large constant is exact
    actionness = draw(st.sampled_from([np.ones(steps), rng.random(steps), np.round(rng.random(steps))]))
    shape = draw(st.sampled_from(["plain", "gap", "overlapping", "late"]))
    times = grid(steps)
    if shape == "gap":
        times[steps // 2 :] += 5.0
    elif shape == "overlapping":
        times = np.stack((np.arange(steps) * 0.2, np.arange(steps) * 0.2 + SNIPPET), axis=1)
    elif shape == "late":
        times += 3.0
    names = [f"class {c}" for c in range(count)]
    return {
        "cas": cas,
        "actionness": actionness,
        "video": rng.dirichlet(np.ones(count + 1))[:count],
        "times": times,
        "classes": names,
        "duration": times[-1, 1] - draw(st.sampled_from([0.0, 0.1, 1.0])) if steps > 3 else times[-1, 1],
        "groups": {n: f"group {rng.integers(0, 3)}" for n in names if rng.random() < 0.5},
        "keep": draw(st.sampled_from([None, names, names[: count // 2 + 1], names[1:]])),
    }


configs = st.builds(
    LocalizeConfig,
    rule=st.just("runs"),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]),
    merge_gap=st.integers(0, 3),
    min_snippets=st.integers(1, 4),
    smooth=st.sampled_from([1, 3, 5]),
    min_confidence=st.sampled_from([0.0, 0.4]),
)
paper_configs = st.builds(
    LocalizeConfig,
    rule=st.just("paper"),
    nms=st.sampled_from(["soft", "hard"]),
    class_threshold=st.sampled_from([0.0, 0.2, 0.9]),
    max_segments=st.sampled_from([3, 1000]),
    min_confidence=st.sampled_from([0.0, 0.2]),
)


@patient
@given(scene=scenes(), config=configs | paper_configs)
def test_what_holds_of_every_segment_of_either_rule(scene, config):
    allowed = scene["classes"] if scene["keep"] is None else scene["keep"]
    for s in located(**scene, config=config):
        assert 0 <= s.start < s.end <= scene["duration"]
        assert config.min_confidence <= s.confidence <= 1
        assert math.isfinite(s.score)
        assert s.label in allowed
        assert all(type(v) is float for v in (s.start, s.end, s.score, s.confidence))


@patient
@given(scene=scenes(), config=configs)
def test_runs_are_in_order_and_never_overlap(scene, config):
    for before, after in pairwise(located(**scene, config=config)):
        assert before.end <= after.start


@patient
@given(scene=scenes(), config=configs, constant=st.sampled_from([-(2.0**20), 256.0, 2.0**20]))
def test_runs_do_not_depend_on_a_constant_in_the_logits(scene, config, constant):
    plain = located(**scene, config=config)
    lifted = located(**(scene | {"cas": scene["cas"] + constant}), config=config)
    # ψ is a contrast of A ⊙ S and does depend on it (equation 6, literal).
    assert [(s.start, s.end, s.confidence, s.label) for s in lifted] == [
        (s.start, s.end, s.confidence, s.label) for s in plain
    ]


@patient
@given(scene=scenes(), config=configs)
def test_an_empty_street_gives_nothing(scene, config):
    scene["cas"][:, -1] = 60.0
    assert located(**scene, config=LocalizeConfig(rule="runs")) == []
    scene["actionness"] = np.zeros_like(scene["actionness"])
    assert located(**scene, config=config) == []


@patient
@given(scene=scenes(), config=paper_configs)
def test_paper_is_in_order_of_score_and_within_its_cap(scene, config):
    found = located(**scene, config=config)
    assert len(found) <= config.max_segments
    assert all(a.score >= b.score for a, b in pairwise(found))
    assert len({(s.start, s.end, s.label) for s in found}) == len(found) or scene["duration"] < scene["times"][-1, 1]


@patient
@given(scene=scenes(), rule=st.sampled_from(["runs", "paper"]))
def test_float32_and_a_transposed_layout_are_taken_as_they_come(scene, rule):
    config = LocalizeConfig(rule=rule)
    other = scene | {"cas": np.asfortranarray(scene["cas"].astype(np.float32)), "keep": scene["keep"]}
    before = other["cas"].copy()
    found = located(**other, config=config)
    assert (other["cas"] == before).all()
    plain = located(**scene, config=config)
    assert [(s.start, s.end, s.label) for s in found] == [(s.start, s.end, s.label) for s in plain]


# --- oracles ---


def naive_probability(scene, t, c):
    row = [math.exp(v) for v in scene["cas"][t]]
    return scene["actionness"][t] * row[c] / sum(row)


def naive_pieces(values, threshold):
    """Maximal runs above θ, [first, last]."""
    found, start = [], None
    for t, value in enumerate([*values, 0.0]):
        if value > threshold and start is None:
            start = t
        elif value <= threshold and start is not None:
            found.append((start, t - 1))
            start = None
    return found


def exact(values, first, last):
    return sum(values[first : last + 1]) / (last - first + 1)


levels = st.sampled_from([0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0])  # whose sums are exact
small = st.lists(levels, min_size=1, max_size=22)


@settings(max_examples=300, deadline=None)
@given(
    values=small,
    gap=st.integers(0, 3),
    shortest=st.integers(1, 3),
    bar=st.sampled_from([0.5, 0.625, 0.7, 0.75]),
)
def test_every_piece_that_stands_alone_is_covered_by_a_segment_of_its_own_mean(values, gap, shortest, bar):
    options = {"threshold": 0.3, "merge_gap": gap, "min_snippets": shortest, "min_confidence": bar}
    values = [min(v, 0.999) for v in values]  # a probability of one would leave no background
    segments = joined(values, **options)
    shortest = min(shortest, len(values))
    for first, last, confidence in segments:
        assert confidence == pytest.approx(exact(values, first, last))
        assert confidence >= bar - 1e-9
        assert last - first + 1 >= shortest
    pieces = naive_pieces(values, 0.3)
    close = 1e-6  # where rounding decides, both are right
    for first, last in pieces:
        if last - first + 1 >= shortest and exact(values, first, last) >= bar + close:
            assert any(s <= first and last <= e for s, e, _ in segments), (first, last)
    # What stands as a whole is not torn.
    chains = []
    for piece in pieces:
        if chains and piece[0] - chains[-1][-1][1] - 1 <= gap:
            chains[-1].append(piece)
        else:
            chains.append([piece])
    spans = [(s, e) for s, e, _ in segments]
    for chain in chains:
        first, last = chain[0][0], chain[-1][1]
        inside = [(s, e) for s, e in spans if first <= s and e <= last]
        if exact(values, first, last) >= bar + close:
            assert inside == ([(first, last)] if last - first + 1 >= shortest else [])
        elif exact(values, first, last) < bar - close:
            # Otherwise the longest that can be had of stretches from one sure piece to another, by brute force.
            sure = [p for p in chain if exact(values, *p) >= bar]
            if any(abs(exact(values, p[0], q[1]) - bar) < close for p in sure for q in sure if p <= q):
                continue
            stretches = [
                (p[0], q[1])
                for p in sure
                for q in sure
                if p <= q and exact(values, p[0], q[1]) >= bar and q[1] - p[0] + 1 >= shortest
            ]
            most = 0
            for count in range(1, len(sure) + 1):
                for some in combinations(sorted(stretches), count):
                    if all(a[1] < b[0] for a, b in pairwise(some)):
                        most = max(most, sum(e - s + 1 for s, e in some))
            picked = [span for span in inside if span in stretches]
            assert sum(e - s + 1 for s, e in picked) == most
            # What is left between them is one piece each, and shown where it stands as a whole.
            for s, e in set(inside) - set(picked):
                before = max((b for _, b in picked if b < s), default=first - 1)
                behind = min((a for a, _ in picked if a > e), default=last + 1)
                left = [p for p in chain if before < p[0] and p[1] < behind]
                assert (s, e) == (left[0][0], left[-1][1])
    assert all(any(c[0][0] <= s and e <= c[-1][1] for c in chains) for s, e in spans)


@patient
@given(scene=scenes(), config=configs, bar=st.sampled_from([0.3, 0.4, 0.6, 0.8]))
def test_what_is_found_from_a_bar_on_is_found_without_it_too(scene, config, bar):
    """`run --all` and the page's slider: nothing else, and nothing less, than `run` from the bar on."""
    config = dataclasses.replace(config, min_confidence=bar)
    shown = located(**scene, config=config)
    everything = located(**scene, config=dataclasses.replace(config, min_confidence=0.0), bars=(bar,))
    assert [s for s in everything if s.confidence >= bar] == shown
    assert located(**scene, config=config, bars=(bar,)) == shown
    for before, after in pairwise(everything):
        assert before.end <= after.start


@patient
@given(scene=scenes(), config=configs, bar=st.sampled_from([0.3, 0.4, 0.6, 0.8]))
def test_a_piece_that_nobody_contests_is_never_lost(scene, config, bar):
    """Of several groups: a run that stands alone, and that the joined runs of no other group touch."""
    config = dataclasses.replace(config, min_confidence=bar, smooth=1)
    scene |= {"times": grid(len(scene["times"])), "duration": 100.0}
    allowed = scene["classes"] if scene["keep"] is None else scene["keep"]
    sports, steps = {}, len(scene["cas"])
    for c, name in enumerate(scene["classes"]):
        if name in allowed:
            sports.setdefault(scene["groups"].get(name, "alone " + name), []).append(c)
    curves = {k: [sum(naive_probability(scene, t, c) for c in m) for t in range(steps)] for k, m in sports.items()}
    touched = {}
    for k, values in curves.items():
        spread = set()
        pieces = naive_pieces(values, config.threshold)
        for n, (s, e) in enumerate(pieces):
            spread |= set(range(s, e + 1))
            if n and s - pieces[n - 1][1] - 1 <= config.merge_gap:
                spread |= set(range(pieces[n - 1][1], s))
        touched[k] = spread
    found = drawn(located(**scene, config=config))
    for k, values in curves.items():
        others = set().union(*(touched[o] for o in curves if o != k))
        for s, e in naive_pieces(values, config.threshold):
            long = e - s + 1 >= min(config.min_snippets, steps)
            chain = {t for t in touched[k] if not set(range(min(t, s), max(t, e) + 1)) - touched[k]}
            if long and exact(values, s, e) >= bar + 1e-9 and not chain & others:
                members = {scene["classes"][c] for c in sports[k]}
                assert any(label in members and a <= s and e <= b for label, a, b in found), (k, s, e)


@patient
@given(scene=scenes(), threshold=st.sampled_from([0.5, 0.7]), shortest=st.integers(1, 3))
def test_runs_equal_the_oracle_where_groups_cannot_collide(scene, threshold, shortest):
    """Above one half at most one group can be, so without bridges there is nothing to settle."""
    scene |= {"times": grid(len(scene["times"])), "duration": 100.0}
    allowed = scene["classes"] if scene["keep"] is None else scene["keep"]
    steps, expected = len(scene["cas"]), []
    sports = {}
    for c, name in enumerate(scene["classes"]):
        if name in allowed:
            sports.setdefault(scene["groups"].get(name, "alone " + name), []).append(c)
    for members in sports.values():
        curve = [sum(naive_probability(scene, t, c) for c in members) for t in range(steps)] + [0.0]
        start = None
        for t in range(steps + 1):
            if curve[t] > threshold:
                start = t if start is None else start
            elif start is not None:
                if t - start >= min(shortest, steps):
                    best = max(members, key=lambda c: sum(naive_probability(scene, u, c) for u in range(start, t)))
                    expected.append((start, t - 1, scene["classes"][best], sum(curve[start:t]) / (t - start)))
                start = None
    expected.sort()
    config = LocalizeConfig(smooth=1, threshold=threshold, merge_gap=0, min_snippets=shortest)
    found = located(**scene, config=config)
    assert [(s, e, label) for label, s, e in drawn(found)] == [x[:3] for x in expected]
    assert [s.confidence for s in found] == pytest.approx([x[3] for x in expected])


@patient
@given(scene=scenes())
def test_paper_with_hard_nms_equals_the_oracle(scene):
    scene |= {"times": grid(len(scene["times"])), "duration": 100.0}
    names, steps = scene["classes"], len(scene["cas"])
    allowed = [c for c, n in enumerate(names) if scene["keep"] is None or n in scene["keep"]]
    chosen = [c for c in allowed if scene["video"][c] >= 0.2]
    if not chosen and allowed:
        chosen = [sorted(allowed, key=lambda c: -scene["video"][c])[0]]
    proposals = set()
    for i in range(16):
        threshold = 0.05 + 0.06 * i
        if any(abs(a - threshold) < 1e-12 for a in scene["actionness"]):
            return  # rounding decides
        t = 0
        while t < steps:
            s = t
            while t < steps and scene["actionness"][t] > threshold:
                t += 1
            if t > s:
                proposals.add((s, t - 1))
            t += 1
    expected = []
    for c in chosen:
        suppressed = [scene["actionness"][t] * scene["cas"][t, c] for t in range(steps)]
        scored = []
        for s, e in proposals:
            reach = 0.25 * (e - s + 1)
            around = [suppressed[t] for t in range(max(0, int(s - reach)), s)]
            around += [suppressed[t] for t in range(e + 1, min(steps - 1, int(e + reach)) + 1)]
            contrast = sum(suppressed[s : e + 1]) / (e - s + 1) - (sum(around) / len(around) if around else 0)
            scored.append((contrast + 0.2 * scene["video"][c], s, e))
        kept = []
        for psi, s, e in sorted(scored, reverse=True):
            overlaps = (max(0, min(e, v) - max(s, u) + 1) / (max(e, v) - min(s, u) + 1) for _, u, v in kept)
            if all(o <= 0.7 + 1e-9 for o in overlaps):
                kept.append((psi, s, e))
        expected += [(psi, s, e, names[c]) for psi, s, e in kept]
    expected.sort(key=lambda x: -x[0])
    found = located(**scene, config=LocalizeConfig(rule="paper", nms="hard"))
    assert [s.score for s in found] == pytest.approx([x[0] for x in expected[:PLENTY]], abs=1e-9)
    assert {(s, e, label) for label, s, e in drawn(found)} == {x[1:] for x in expected[:PLENTY]}


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cas": np.zeros((3, 2))}, r"cas must have the shape \(3, 3\)"),
        ({"actionness": np.zeros((3, 1))}, r"actionness must have the shape \(3,\)"),
        ({"video": np.zeros(3)}, r"video must have the shape \(2,\)"),
        ({"times": np.zeros((3, 3))}, r"times must have the shape \(3, 2\)"),
        ({"cas": np.full((3, 3), np.nan)}, "cas holds values that are not finite"),
        ({"times": np.full((3, 2), np.inf)}, "times holds values that are not finite"),
        ({"actionness": np.full(3, 1.5)}, "actionness must lie"),
        ({"actionness": np.full(3, -0.5)}, "actionness must lie"),
        ({"times": grid(3)[::-1]}, "times must be"),
        ({"times": grid(3)[:, ::-1]}, "times must be"),
        ({"duration": math.nan}, "duration must be"),
        ({"duration": -1.0}, "duration must be"),
        ({"classes": ["a", "a"]}, "one name twice"),
        ({"keep": {"a", "croquet"}}, "does not have: croquet"),
    ],
)
@pytest.mark.parametrize("rule", ["runs", "paper"])
def test_wrong_input_is_one_clear_sentence(changes, says, rule):
    scene = {
        "cas": np.zeros((3, 3)),
        "actionness": np.full(3, 0.5),
        "video": np.full(2, 0.5),
        "times": grid(3),
        "classes": ["a", "b"],
        "duration": 2.0,
    }
    located(**scene, config=LocalizeConfig(rule=rule))
    with pytest.raises(ValueError, match=says) as caught:
        located(**(scene | changes), config=LocalizeConfig(rule=rule))
    assert "\n" not in str(caught.value)


# --- confidence, the surest, density ---


def test_calibration_maps_the_mean_probability_and_the_least_confidence_is_asked_of_the_result():
    curves = {"golf": [0, 0.9, 0.9, 0, 0, 0, 0], "tennis": [0, 0, 0, 0, 0, 0.6, 0.6]}
    fitted = {"confidence_slope": 0.5, "confidence_shift": 0.3}
    first, second = find(curves, **fitted)
    for segment, p in ((first, 0.9), (second, 0.6)):
        assert segment.confidence == pytest.approx(1 / (1 + math.exp(-0.5 * math.log(p / (1 - p)) - 0.3)))
    assert find(curves, min_confidence=second.confidence + 1e-6, **fitted) == [first]


@patient
@given(scene=scenes(), config=configs, slope=st.floats(0.1, 5), shift=st.floats(-3, 3))
def test_calibration_changes_no_segment_but_its_confidence_and_no_order(scene, config, slope, shift):
    config = dataclasses.replace(config, min_confidence=0.0)
    plain = located(**scene, config=config)
    mapped = located(**scene, config=dataclasses.replace(config, confidence_slope=slope, confidence_shift=shift))
    assert [dataclasses.replace(s, confidence=0.0) for s in plain] == [
        dataclasses.replace(s, confidence=0.0) for s in mapped
    ]
    pairs = sorted((a.confidence, b.confidence) for a, b in zip(plain, mapped, strict=True))
    assert all(before[1] <= after[1] + 1e-9 for before, after in pairwise(pairs))


@patient
@given(scene=scenes(), config=configs | paper_configs, top=st.integers(1, 5))
def test_top_keeps_the_best_in_the_rule_s_own_order(scene, config, top):
    everything = located(**scene, config=config)
    kept = located(**scene, config=dataclasses.replace(config, top=top))
    worth = (lambda s: s.score) if config.rule == "paper" else (lambda s: s.confidence)
    assert len(kept) == min(top, len(everything))
    assert sorted(map(worth, kept)) == sorted(map(worth, everything))[-top:]
    assert [s for s in everything if s in kept] == kept


@patient
@given(scene=scenes(), config=configs)
def test_classes_that_are_not_asked_for_are_background(scene, config):
    """Folding their logits into the background's by log-sum-exp, before the softmax, finds the same."""
    names = scene["classes"]
    kept = names if scene["keep"] is None else [n for n in names if n in scene["keep"]]
    cas = scene["cas"]
    folded = [names.index(n) for n in names if n not in kept] + [len(names)]
    rest = np.logaddexp.reduce(cas[:, folded], axis=1, keepdims=True)
    columns = [names.index(n) for n in kept]
    smaller = scene | {
        "cas": np.concatenate((cas[:, columns], rest), axis=1),
        "video": scene["video"][columns],
        "classes": kept,
        "keep": None,
    }
    wanted, found = located(**scene, config=config), located(**smaller, config=config)
    assert [(s.label, s.start, s.end) for s in wanted] == [(s.label, s.start, s.end) for s in found]
    assert np.allclose([s.confidence for s in wanted], [s.confidence for s in found])


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_what_is_counted_in_snippets_is_time(stride):
    """At any stride: a dip of one snippet's length is bridged, a run shorter than two snippets is dropped."""
    n = 16 // stride
    start = np.arange(30 * n) * SNIPPET / n
    times = np.stack((start, start + SNIPPET), axis=1)
    curve = np.zeros(30 * n)
    curve[4 * n : 8 * n] = curve[9 * n : 12 * n] = 0.9  # a dip of .64 s
    curve[20 * n : 20 * n + 1] = 0.9  # one snippet alone
    (found,) = find({"golf": curve}, times=times)
    assert found.label == "golf"
    assert abs(found.start - 4 * SNIPPET) <= SNIPPET / 2 + 1e-9
    assert abs(found.end - 12 * SNIPPET) <= SNIPPET / 2 + 1e-9

"""What the embedded model's segments say about sports, and what it means to name one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from extractors.backbones import weights
from extractors.features import Features
from model.checkpoint import added_logits
from model.predict import Scores
from pipeline.api import Pipeline, load_model
from pipeline.config import load_config
from pipeline.run.outcome import Order, finish
from postprocess.curves import Curves
from postprocess.segment import UNSURE, Result, Segment

needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


@pytest.fixture(scope="module")
def embedded():
    return load_model("kinetics400")


def scene(model, **logits: float) -> tuple[Scores, Features]:
    """Ten snippets, of which the middle four show these names; the other logits are those of nothing."""
    cas = np.full((10, len(model.classes) + 1), -20.0, np.float32)
    cas[:, -1] = 0.0
    for name, value in logits.items():
        cas[3:7, model.classes.index(name.replace("_", " "))] = value
    times = 0.64 * np.arange(10)[:, None] + np.array([0.0, 0.64])
    video = np.zeros(len(model.classes), np.float32)
    return Scores(cas, cas, np.ones(10, np.float32), video), Features(None, None, times, 6.4, {}, {})


def pipeline(model, **flags: object) -> Pipeline:
    return Pipeline(model, load_config(None, {"device": "cpu"} | flags))


@needs_weights
def test_a_segment_names_its_sport(embedded) -> None:
    scores, features = scene(embedded, squat=8.0)
    (found,) = pipeline(embedded).segments(scores, features)
    assert (found.label, found.sport, found.name) == ("squat", "weightlifting", "weightlifting: squat")
    scores, features = scene(embedded, archery=8.0)
    (found,) = pipeline(embedded).segments(scores, features)
    assert (found.sport, found.name) == ("archery", "archery")


@needs_weights
def test_all_shows_an_unsure_sport_as_unsure(embedded) -> None:
    sure = dataclasses.replace(embedded, localize=embedded.localize | {"min_confidence": 0.9})
    scores, features = scene(sure, squat=-0.5)
    assert pipeline(sure).segments(scores, features) == []
    (found,) = pipeline(sure, **{"localize.min_confidence": 0.0}).segments(scores, features)
    assert (found.label, found.sport, found.name) == ("squat", "unsure", "squat? (sport not sure)")
    (plain,) = pipeline(sure, classes="all").segments(scores, features)  # not calibrated, so nothing is unsure
    assert plain.sport == "weightlifting"


@needs_weights
def test_a_sport_that_the_user_names_is_found_sooner(embedded) -> None:
    """In models that say nothing else of names: segments are those of scores that were higher by what a name adds."""
    model = dataclasses.replace(embedded, closed={"weightlifting": 3.0, "golf": 2.0}, named={})
    scores, features = scene(model, squat=-3.0)
    assert pipeline(model).segments(scores, features) == []
    (found,) = pipeline(model, classes="weightlifting").segments(scores, features)
    higher, _ = scene(model, squat=0.0)
    (expected,) = pipeline(model).segments(higher, features)
    assert found.confidence == pytest.approx(expected.confidence)
    assert (found.start, found.end) == (expected.start, expected.end)
    assert pipeline(model, classes="golf").segments(scores, features) == []


def flat(model, **logits: float) -> tuple[Scores, Features]:
    """Ten snippets; S and A^ness say nothing at all, and S^coarse, in the head's logits, shows names in the middle."""
    scores, features = scene(model)
    coarse = np.zeros((10, len(model.classes) + 1), np.float32)
    for name, value in logits.items():
        coarse[3:7, model.classes.index(name.replace("_", " "))] = value / SCALE
    return dataclasses.replace(scores, coarse_cas=coarse, actionness=np.zeros(10, np.float32)), features


SCALE = 4.0


def measured(embedded, **added: float):
    """The embedded model with what naming these sports adds."""
    settings = {"added": added, "scale": SCALE, "localize": {"min_confidence": 0.0}}
    return dataclasses.replace(embedded, named=settings, localize={"threshold": 0.15})


@needs_weights
@pytest.mark.parametrize("short", [0.01, -0.01])
def test_a_named_sport_is_found_where_the_head_exceeds_its_own_threshold(embedded, short: float) -> None:
    """P = (e^h + 4) / (e^h + 399), as the sport has five of 400 names; found if logit(P) + added > logit(.15)."""
    added = np.log(0.15 / 0.85) - np.log((np.exp(4.0) + 4) / 395) + short
    model = measured(embedded, weightlifting=float(added), golf=0.0)
    scores, features = flat(model, squat=4.0)
    if short < 0:
        assert pipeline(model, classes="weightlifting", **{"localize.smooth": 1}).segments(scores, features) == []
        return
    (found,) = pipeline(model, classes="weightlifting", **{"localize.smooth": 1}).segments(scores, features)
    assert (found.label, found.sport) == ("squat", "weightlifting")
    assert (found.start, found.end) == pytest.approx((3 * 0.64, 7 * 0.64))
    assert pipeline(model, classes="golf").segments(scores, features) == []
    assert pipeline(model, classes="golf, weightlifting", **{"localize.smooth": 1}).segments(scores, features) != []


@needs_weights
def test_names_that_are_no_sports_are_found_as_before(embedded) -> None:
    model = measured(embedded, weightlifting=2.0)
    scores, features = flat(model, squat=9.0)
    assert pipeline(model, classes="weightlifting").segments(scores, features) != []
    both = "weightlifting,playing guitar"
    before = dataclasses.replace(model, named={})
    found = [pipeline(one, classes=both).segments(scores, features) for one in (model, before)]
    assert found == [[], []]  # A^ness is 0
    scores, features = scene(model, squat=8.0)
    found = [pipeline(one, classes=both).segments(scores, features) for one in (model, before)]
    assert found[0] == found[1] != []


@needs_weights
def test_without_names_nothing_changes_and_with_them_a_result_says_what_was_added(embedded) -> None:
    model = measured(embedded, golf=1.5, tennis=0.5)
    before = dataclasses.replace(model, named={})
    scores, features = scene(model, squat=8.0, golf_putting=2.0)
    for flags in ({}, {"classes": "sports"}, {"classes": "all"}, {"classes": "golf", "localize.rule": "paper"}):
        ours, theirs = (pipeline(one, **flags) for one in (model, before))
        assert ours.segments(scores, features) == theirs.segments(scores, features)
        assert ours.provenance("") == theirs.provenance("")
    by_name = pipeline(model, classes="golf")
    assert by_name.provenance("")["model"]["named"] == {"golf": 1.5}


def test_what_a_name_adds() -> None:
    from model.config import ModelConfig
    from model.train import initialise

    names = ("squat", "lunge", "putt", "sew")
    plain = initialise(ModelConfig(classes=4, in_dim=8, dim=4), names, ("rgb",), {}, seed=0)
    assert added_logits(plain, frozenset(names)) is None
    model = dataclasses.replace(plain, groups={"squat": "gym", "lunge": "gym", "putt": "golf"}, closed={"gym": 2.0})
    assert added_logits(model, frozenset({"squat", "lunge"})).tolist() == [2.0, 2.0, 0.0, 0.0, 0.0]
    assert added_logits(model, frozenset({"squat"})).tolist() == [2.0, 0.0, 0.0, 0.0, 0.0]
    assert added_logits(model, frozenset({"putt", "sew"})).tolist() == [0.0] * 5
    many = dataclasses.replace(model, groups={name: name for name in names})
    assert added_logits(many, frozenset(names)) is None  # four sports say little about any of them


@pytest.mark.parametrize(
    ("sport", "label", "name"),
    [
        ("golf", "golf driving", "golf driving"),
        ("soccer", "shooting goal (soccer)", "shooting goal (soccer)"),
        ("disc golf", "Disc Golfing", "Disc Golfing"),
        ("surfing", "kitesurfing", "kitesurfing"),
        ("weightlifting", "snatch weight lifting", "snatch weight lifting"),
        ("archery", "archery", "archery"),
        ("", "serve", "serve"),
        ("weightlifting", "squat", "weightlifting: squat"),
        ("ice hockey", "hockey stop", "ice hockey: hockey stop"),  # which hockey it is, is in the sport alone
        ("net", "cabinets", "net: cabinets"),  # the letters are not a word's beginning or end
        ("c++", "c++ kata", "c++ kata"),
        (UNSURE, "golf driving", "golf driving? (sport not sure)"),
    ],
)
def test_a_sport_is_said_once(sport: str, label: str, name: str) -> None:
    assert Segment(0, 1, 1.0, 0.9, label, sport).name == name


def test_a_result_of_an_earlier_version_is_told_in_the_words_of_this_one() -> None:
    """A result holds the label and the sport, and no text that was made of them."""
    document = Result("v.mp4", 3.0, {}, (), (), {}).to_dict()
    bare = {"score": 1.0, "confidence": 0.4}
    document["segments"] = [
        bare | {"start": 0, "end": 1, "label": "golf driving", "sport": "golf"},
        bare | {"start": 1, "end": 2, "label": "squat", "sport": "unsure"},
        bare | {"start": 2, "end": 3, "label": "squat"},  # of 0.1.0
    ]
    assert [s.name for s in Result.from_dict(document).segments] == ["golf driving", "squat? (sport not sure)", "squat"]


def test_a_result_keeps_the_sport_and_reads_results_without_one() -> None:
    segments = (Segment(0, 1, 1.0, 0.9, "squat", "weightlifting"), Segment(1, 2, 1.0, 0.4, "own"))
    document = Result("v.mp4", 2.0, {}, segments, (), {}).to_dict()
    assert [s.get("sport") for s in document["segments"]] == ["weightlifting", None]
    assert Result.from_dict(document).segments == segments
    document["segments"][0]["sport"] = 3
    with pytest.raises(ValueError, match="sport of segment 1 must be text"):
        Result.from_dict(document)


@needs_weights
def test_the_curves_beside_a_result_are_those_that_decided(embedded) -> None:
    """The page draws them under the segments of a named sport, whose A^ness in S is 0 here."""
    model = measured(embedded, weightlifting=2.0)
    scores, features = flat(model, squat=9.0)
    named = pipeline(model, classes="weightlifting", **{"localize.smooth": 1})
    vars(named)["scores"] = lambda _: scores
    made = finish(named, Order(Path("a.mp4"), Path("a")), "", features)
    (found,) = made.result.segments
    assert isinstance(made.curves, Curves)
    sport = [n for n, label in enumerate(made.curves.classes) if model.groups.get(label) == "weightlifting"]
    above = made.curves.probability()[:, sport].sum(axis=1) > named.config.localize.threshold
    middle = made.curves.times.mean(axis=1)
    assert above.tolist() == ((found.start < middle) & (middle < found.end)).tolist()

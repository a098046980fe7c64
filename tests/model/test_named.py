"""What naming sports does to the scores, against an oracle in NumPy that knows the head alone."""

import dataclasses

import numpy as np
import pytest
import torch

from extractors.backbones import weights
from model import kinetics
from model.checkpoint import Checkpoint, CheckpointError, added_logits, load, localize_settings_for, save
from model.kinetics import Tuning
from model.predict import Scores, named, predict

NAMES = weights.kinetics400_names()
GROUPS = kinetics.sports_groups()
ADDED = {"golf": 2.5, "tennis": -1.0, "soccer": 4.0, "surfing": 0.5}
SETTINGS = {"added": ADDED, "scale": 2.0, "localize": {"confidence_slope": 0.7, "min_confidence": 0.0}}


@pytest.fixture(scope="module")
def head() -> tuple[torch.Tensor, torch.Tensor]:
    """A head with the published one's shape and scale."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(400, 1024, generator=generator) * 0.2, torch.randn(400, generator=generator)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """(T, 1024), never negative, like means of ReLUs."""
    return np.random.default_rng(5).gamma(0.5, 0.3, (9, 1024)).astype(np.float32)


@pytest.fixture(scope="module")
def model(head) -> Checkpoint:
    """The embedded model with a tilt, a bias, a temperature and A^ness, none of which a named sport may feel."""
    tuning = Tuning(
        {"tennis": torch.linspace(-1, 1, 1024)},
        {"golf putting": -3.0},
        temperature=2.0,
        localize={"threshold": 0.15, "confidence_slope": 1.5, "min_confidence": 0.55},
        closed={"golf": 1.0, "tennis": 2.0},
        named=SETTINGS,
        backbone="sha256:0",
    )
    return kinetics.build(*head, NAMES, "sha256:0", tuning)


def names_of(*sports: str) -> frozenset[str]:
    return frozenset(name for name, sport in GROUPS.items() if sport in sports)


def probability(scores: Scores, sport: str) -> np.ndarray:
    """(T,) A * softmax(S), summed over the names of a sport, as localize defines it."""
    e = np.exp(scores.cas.astype(np.float64) - scores.cas.max(axis=1, keepdims=True))
    each = scores.actionness[:, None].astype(np.float64) * e / e.sum(axis=1, keepdims=True)
    return each[:, [NAMES.index(name) for name in names_of(sport)]].sum(axis=1)


def plain(head, features: np.ndarray, sport: str) -> np.ndarray:
    """(T,) the oracle: softmax of x W + b over the 400 names, summed over the names of a sport."""
    weight, bias = (part.numpy().astype(np.float64) for part in head)
    h = features.astype(np.float64) @ weight.T + bias
    e = np.exp(h - h.max(axis=1, keepdims=True))
    return e[:, [NAMES.index(name) for name in names_of(sport)]].sum(axis=1) / e.sum(axis=1)


def raised(p: np.ndarray, added: float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.log(p / (1 - p)) - added))


@pytest.mark.parametrize("sport", sorted(ADDED))
def test_a_named_sport_is_read_off_the_head_alone(head, features, model, sport: str) -> None:
    """Its log-odds under the head's own softmax, raised by what it adds: no background, tilt, bias or A^ness."""
    by_name = named(model, names_of(sport))
    found = probability(by_name.read(predict(model.build(), features)), sport)
    expected = raised(plain(head, features, sport), ADDED[sport])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(np.log(expected)) > 1  # the snippets differ


def test_one_threshold_is_each_sports_own(head, features, model) -> None:
    scores = predict(model.build(), features)
    for sport, added in ADDED.items():
        p = plain(head, features, sport)
        for level in np.sort(p)[1:] * 0.999:  # just below each snippet
            threshold = raised(level, added)
            above = probability(named(model, names_of(sport)).read(scores), sport) > threshold
            assert np.array_equal(above, p > level)


def test_several_named_sports_share_as_a_prior_says(head, features, model) -> None:
    sports = ("golf", "soccer", "tennis")
    found = named(model, names_of(*sports)).read(predict(model.build(), features))
    odds = {sport: plain(head, features, sport) * np.exp(ADDED[sport]) for sport in sports}
    rest = 1 - sum(plain(head, features, sport) for sport in sports)
    for sport in sports:
        joint = odds[sport] / (rest + sum(odds.values()))
        np.testing.assert_allclose(probability(found, sport), joint, rtol=1e-4)
        # Another one takes no more of it than that one's own probability.
        alone = raised(plain(head, features, sport), ADDED[sport])
        others = sum(probability(found, other) for other in sports if other != sport)
        assert (joint >= alone * (1 - others) - 1e-9).all()


def test_one_name_of_a_sport_is_read_by_that_name(head, features, model) -> None:
    found = named(model, frozenset({"golf putting"})).read(predict(model.build(), features))
    h = features.astype(np.float64) @ head[0].numpy().T.astype(np.float64) + head[1].numpy()
    e = np.exp(h - h.max(axis=1, keepdims=True))
    column = NAMES.index("golf putting")
    shown = np.exp(found.cas.astype(np.float64) - found.cas.max(axis=1, keepdims=True))
    shown = shown[:, column] / shown.sum(axis=1)
    np.testing.assert_allclose(shown, raised(e[:, column] / e.sum(axis=1), ADDED["golf"]), rtol=1e-4)


def test_its_settings_replace_the_models(model) -> None:
    found = named(model, names_of("golf", "soccer"))
    assert found.added == {"golf": 2.5, "soccer": 4.0}
    assert found.localize == {"threshold": 0.15, "confidence_slope": 0.7, "min_confidence": 0.0}


@pytest.mark.parametrize(
    ("classes", "rule"),
    [
        (names_of("golf") | {"playing guitar"}, "runs"),  # no sport: nothing that could be compared
        (names_of("golf", "yoga"), "runs"),  # a sport that was not measured
        (names_of("golf"), "paper"),  # which needs A^ness
    ],
)
def test_other_names_raise_s_as_before(features, model, classes: frozenset[str], rule: str) -> None:
    scores = predict(model.build(), features)
    found = named(model, classes, rule)
    assert np.array_equal(found.read(scores).cas, scores.cas + added_logits(model, classes))
    assert np.array_equal(found.read(scores).actionness, scores.actionness)
    assert found.localize == localize_settings_for(model, classes) and found.added == {}


def test_many_names_say_nothing(model) -> None:
    assert named(model, names_of(*ADDED)) is None
    assert named(dataclasses.replace(model, named={}, closed={}), names_of("golf")) is None


def test_a_checkpoint_keeps_it_and_one_without_it_has_the_same_bytes(model, tmp_path) -> None:
    save(model, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").named == SETTINGS
    save(dataclasses.replace(model, named={}), tmp_path / "b.safetensors")
    assert b'"named' not in (tmp_path / "b.safetensors").read_bytes().replace(b'\\"', b'"')
    old = load(tmp_path / "b.safetensors")
    assert old.named == {}
    scores = predict(old.build(), np.zeros((3, 1024), np.float32))
    found = named(old, names_of("golf"))  # as it was before there were such settings
    assert np.array_equal(found.read(scores).cas, scores.cas + added_logits(old, names_of("golf")))


@pytest.mark.parametrize(
    "settings", [{"scale": 2.0}, {**SETTINGS, "added": {"golf": "much"}}, {**SETTINGS, "localize": []}]
)
def test_settings_that_cannot_be_used_are_one_sentence(model, settings: dict, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="declares for named groups other settings than"):
        save(dataclasses.replace(model, named=settings), tmp_path / "a.safetensors")

"""Pictures: whole PNG files of a sane size for short, plain and full trainings, and for any diagnosis."""

import struct

import numpy as np
import pytest

from model.config import TERMS
from postprocess.evaluation.diagnose import KINDS, diagnose
from postprocess.evaluation.metrics import Instances, Predictions
from postprocess.pages import plots


def size(png: bytes) -> tuple[int, int]:
    """(width, height) of a whole PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def log(steps: int, *names: str) -> tuple[tuple[str, ...], np.ndarray]:
    values = np.random.default_rng(0).random((steps, len(names)))
    return ("step", *names), np.column_stack((np.arange(1, steps + 1), values))


@pytest.mark.parametrize("steps", [1, 30, 2000])
@pytest.mark.parametrize(
    "names",
    [("loss", "mil", "gradient"), ("loss", *TERMS, "gradient", "alpha", "beta"), ("loss", "mil", "coarse", "alpha")],
    ids=["plain", "all", "CAD alone"],
)
def test_curves(steps: int, names: tuple[str, ...]) -> None:
    width, height = size(plots.training(*log(steps, *names)))
    assert 600 <= width <= 2000 and 400 <= height <= 1500


def test_a_curve_of_negative_and_of_equal_numbers() -> None:
    columns, rows = log(30, "loss", "mil", "gradient", "alpha", "beta")
    size(plots.training(columns, -rows))
    size(plots.training(columns, np.ones_like(rows)))


def test_every_term_and_every_kind_has_a_colour_of_its_own() -> None:
    assert len(set(plots.COLOURS)) >= len(TERMS)
    assert list(plots.KIND_COLOURS) == list(KINDS)
    assert len(set(plots.KIND_COLOURS.values())) == len(KINDS)


@pytest.mark.parametrize(("n", "window"), [(1, 1), (5, 1), (7, 3), (9, 4), (3, 10)])
def test_the_running_mean_is_around_each_step(n: int, window: int) -> None:
    values = np.random.default_rng(1).random(n)
    before, after = (window - 1) // 2, window // 2
    expected = [values[max(t - before, 0) : t + after + 1].mean() for t in range(n)]
    assert plots._running_mean(values, window) == pytest.approx(expected)


def scene(predictions: int, instances: int = 40) -> tuple[Instances, Predictions]:
    rng = np.random.default_rng(2)
    start = 100 * rng.random(instances)
    truth = Instances(
        rng.integers(0, 9, instances),
        rng.integers(0, 3, instances),
        np.stack((start, start + rng.gamma(2, 4, instances)), axis=1),
    )
    of = rng.integers(0, instances, predictions)
    span = np.sort(truth.span[of] + 2 * rng.normal(size=(predictions, 2)), axis=1)
    label = np.where(rng.random(predictions) < 0.7, truth.label[of], rng.integers(0, 3, predictions))
    return truth, Predictions(truth.video[of], label, span, rng.random(predictions))


@pytest.mark.parametrize(("predictions", "instances"), [(300, 40), (1, 1), (0, 1), (0, 40)])
def test_diagnosis(predictions: int, instances: int) -> None:
    width, height = size(plots.diagnosis(diagnose(*scene(predictions, instances))))
    assert 1000 <= width <= 2000 and 300 <= height <= 1000


def test_the_same_numbers_are_the_same_picture() -> None:
    found = diagnose(*scene(50))
    assert plots.diagnosis(found) == plots.diagnosis(found)
    assert plots.training(*log(9, "loss", "mil")) == plots.training(*log(9, "loss", "mil"))

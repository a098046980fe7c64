"""Queries by example in numbers: whitening against its definition, and directions on data that are known."""

import numpy as np
import pytest

from postprocess import similar
from postprocess.similar import direction, whiten

RNG = np.random.default_rng(0)
ONE = np.zeros(400, np.int64)


def mixed(n: int, d: int = 12) -> np.ndarray:
    """Rows whose columns are correlated, and of very different sizes."""
    return (RNG.normal(size=(n, d)) @ RNG.normal(size=(d, d)) * np.logspace(0, 3, d)).astype(np.float32) + 7


@pytest.mark.parametrize("n", [400, 10])  # more rows than columns, and fewer
def test_whitened_features_have_no_mean_and_no_correlation(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "SHRINK", 0.0)
    monkeypatch.setattr(similar, "ROWS_PER_AXIS", 1)
    rows = mixed(n)
    space = whiten([rows[:3], rows[3:]])
    white = (rows - space.mean) @ space.axes
    assert np.abs(white.mean(axis=0)).max() < 1e-3
    covariance = white.T @ white / n
    assert np.allclose(covariance, np.eye(min(n - 1, 12)), atol=1e-3)


def test_a_window_is_the_mean_around_a_snippet_and_stays_in_its_block() -> None:
    rows = mixed(8)
    space = whiten([rows])
    white = (rows.astype(np.float64) - space.mean) @ space.axes
    block = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    placed = space.place(rows, block, window=3)
    for t, around in ((0, [0, 1]), (2, [1, 2, 3]), (4, [3, 4]), (5, [5, 6]), (7, [6, 7])):
        expected = white[around].mean(axis=0)
        assert np.allclose(placed[t], expected / np.linalg.norm(expected))


def test_a_small_folder_has_few_axes() -> None:
    """Whitened in all 400 directions that 400 snippets have, each would be as far from its like as from any other."""
    axes = [whiten([RNG.normal(size=(n, 100)).astype(np.float32)]).axes.shape[1] for n in (5, 50, 400, 2000)]
    assert axes == [4, 8, 33, 64]


def test_alike_rows_and_no_rows() -> None:
    same = np.ones((5, 6), np.float32)
    assert np.isfinite(whiten([same]).place(same, ONE[:5])).all()
    assert whiten([mixed(9)]).place(np.zeros((0, 12), np.float32), ONE[:0], 3).shape[0] == 0


def scene() -> tuple[np.ndarray, np.ndarray]:
    """400 placed rows of which 20 show what is meant, 20 something like it; which is which (1, 2, or 0)."""
    kind = np.zeros(400, int)
    kind[:20], kind[20:40] = 1, 2
    rows = RNG.normal(size=(400, 12))
    rows[kind == 1, 0] += 6
    rows[kind == 2, 0] += 6
    rows[kind == 1, 1] += 4
    rows[kind == 2, 1] -= 4
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), kind


def test_one_example_is_a_cosine_and_a_counter_example_tells_what_is_meant() -> None:
    rows, kind = scene()
    alone = direction([rows[:3]], [], rows)
    assert np.allclose(alone, rows[:3].mean(axis=0) / np.linalg.norm(rows[:3].mean(axis=0)))
    told = direction([rows[:3]], [rows[20:23]], rows)
    for way, least in ((alone, 0.0), (told, 0.3)):
        score = rows @ way
        assert score[kind == 1].mean() > score[kind == 2].mean() + least
        assert score[kind == 1].min() > np.median(score[kind == 0])
    assert np.array_equal(told, direction([rows[:3]], [rows[20:23]], rows))


def test_the_regression_is_where_its_slope_is_zero() -> None:
    """Against a plain descent on the same loss."""
    rows, kind = scene()
    wanted, weight = (kind == 1).astype(float), np.full(400, 1 / 400)
    found = similar._regression(rows, wanted, weight)
    b, bias = np.zeros(12), 0.0
    for _ in range(20_000):
        p = 1 / (1 + np.exp(-(rows @ b + bias)))
        b -= 2 * (rows.T @ (weight * (p - wanted)) + similar.PENALTY * b)
        bias -= 2 * float((weight * (p - wanted)).sum())
    assert np.allclose(found, b, atol=1e-6)

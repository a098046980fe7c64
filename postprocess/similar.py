"""Which snippets look like examples: features whitened on a folder, and a score for each snippet by a linear query.

Whitened, the direction from the mean of a folder to an example is the one of linear discriminant analysis, which tells
the example from everything else in the folder (Hariharan, Malik and Ramanan, 2012: "Discriminative decorrelation for
clustering and classification"). With one example, a window of snippets is scored by its cosine with the example. With
several, or with counter-examples, a logistic regression finds the direction. Nothing here is random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Floats = NDArray[np.float64]

# A folder of few snippets says little about small variances, and whitened fully its snippets would all be alike far
# apart: so few axes are kept, and the mean variance is added to each (benchmarks/README.md).
AXES, LEAST_AXES = 64, 8
ROWS_PER_AXIS = 12
SHRINK = 1.0  # of the mean variance
MOST = 20_000  # snippets that the whitening looks at, and twice what the regression is shown of the folder
WINDOW = 3  # snippets that lie side by side: 1.92 s
PENALTY = 0.1  # on the squared weights of the regression
COUNTER = 0.3  # weight of all counter-examples, where all examples and the folder weigh 1 each
NOTHING = 1e-9


@dataclass(frozen=True, eq=False)
class Space:
    """Where snippets are compared: features without the folder's mean, whitened, and of length 1."""

    mean: Floats
    """(D,)"""
    axes: Floats
    """(D, K)"""

    def place(self, rows: Rows, block: NDArray[np.int64], window: int = 1) -> Floats:
        """(T, D) features → (T, K) of length 1, each the mean over a window of snippets around it.

        Args:
            rows: features of one video, in order.
            block: (T,) block numbers, which no window crosses.
            window: an odd number of snippets.
        """
        white = (np.asarray(rows, np.float64) - self.mean) @ self.axes
        total = np.concatenate((np.zeros((1, white.shape[1])), np.cumsum(white, axis=0)))
        here = np.arange(len(white))
        low = np.maximum(here - window // 2, np.searchsorted(block, block, side="left"))
        high = np.minimum(here + window // 2 + 1, np.searchsorted(block, block, side="right"))
        return _unit((total[high] - total[low]) / (high - low)[:, None])


def whiten(videos: Sequence[Rows]) -> Space:
    """The space of a folder, by the covariance of its snippets (of at most MOST, taken evenly).

    Args:
        videos: (T, D) features of each video; together at least one row.
    """
    step = max(1, -(-sum(map(len, videos)) // MOST))
    rows = np.concatenate(list(videos))[::step].astype(np.float64)
    mean = rows.mean(axis=0)
    rows -= mean
    n, d = rows.shape
    if n <= d:  # the same axes, by the smaller matrix
        spread, left = np.linalg.eigh(rows @ rows.T / n)
        axes = rows.T @ left / np.sqrt(np.maximum(spread * n, NOTHING))
    else:
        spread, axes = np.linalg.eigh(rows.T @ rows / n)
    kept = np.argsort(-spread, kind="stable")[: min(AXES, max(LEAST_AXES, n // ROWS_PER_AXIS), max(n - 1, 1))]
    kept = kept[spread[kept] > NOTHING * max(float(spread.max()), NOTHING)]
    if not len(kept):  # all snippets are alike
        return Space(mean, np.zeros((d, 1)))
    ridge = SHRINK * float(spread[kept].mean())
    return Space(mean, axes[:, kept] / np.sqrt(spread[kept] + ridge))


def direction(examples: Sequence[Floats], counter: Sequence[Floats], folder: Floats) -> Floats:
    """(K,) the direction along which snippets look like the examples, of length 1.

    Args:
        examples: (n, K) placed snippets of each example; each has at least one.
        counter: the same of counter-examples; there may be none.
        folder: (N, K) placed snippets of the folder, which stand for what is not meant: most of them are not.
    """
    if len(examples) == 1 and not counter:
        return np.asarray(_unit(examples[0].mean(axis=0, keepdims=True))[0])
    background = folder[:: max(1, -(-2 * len(folder) // MOST))]
    groups = [(rows, 1.0, 1.0 / len(examples)) for rows in examples]
    groups += [(rows, 0.0, COUNTER / len(counter)) for rows in counter]
    groups.append((background, 0.0, 1.0))
    rows = np.concatenate([rows for rows, _, _ in groups])
    wanted = np.concatenate([np.full(len(rows), y) for rows, y, _ in groups])
    weight = np.concatenate([np.full(len(rows), w / len(rows)) for rows, _, w in groups if len(rows)])
    return np.asarray(_unit(_regression(rows, wanted, weight)[None])[0])


def _regression(rows: Floats, wanted: Floats, weight: Floats) -> Floats:
    """(K,) weights of the logistic regression Σ w·loss + PENALTY/2·|b|², by Newton's method; the bias costs nothing."""
    x = np.concatenate((rows, np.ones((len(rows), 1))), axis=1)
    penalty = np.full(x.shape[1], PENALTY)
    penalty[-1] = NOTHING
    b = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ b))
        slope = x.T @ (weight * (p - wanted)) + penalty * b
        curvature = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        b -= step
        if np.abs(step).max() < 1e-10:
            break
    return b[:-1]


def _unit(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)

"""The curves of one video, as `.scores.npz` holds them: what JCDNet said, snippet by snippet."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Curves:
    """What a report and a plot draw.

    times: (T, 2) seconds; actionness: (T,) in [0, 1]; cas, coarse_cas: (T, C+1) logits S and S^coarse, the background
    last; classes: the C names.

    Raises:
        ValueError: shapes that do not agree, or values that are not finite.
    """

    times: np.ndarray
    actionness: np.ndarray
    cas: np.ndarray
    coarse_cas: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        steps, wide = len(self.actionness), len(self.classes) + 1
        shapes = {"times": (steps, 2), "actionness": (steps,), "cas": (steps, wide), "coarse_cas": (steps, wide)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
            if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite numbers")

    def probability(self) -> np.ndarray:
        """(T, C) A · softmax(S), without the background: what the rule `runs` compares with its threshold."""
        shifted = np.exp(self.cas - self.cas.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(self.actionness[:, None] * shifted[:, :-1] / shifted.sum(axis=1, keepdims=True))

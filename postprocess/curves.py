"""The curves of one video: the scores of JCDNet for each snippet, as stored in `.scores.npz`."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves that reports and plots draw, for T snippets and C classes.

    Raises:
        ValueError: the shapes do not agree, or a value is not finite.
    """

    times: np.ndarray
    """(T, 2) start and end of each snippet in seconds"""
    actionness: np.ndarray
    """(T,) in [0, 1]"""
    cas: np.ndarray
    """(T, C+1) logits S, the background last"""
    coarse_cas: np.ndarray
    """(T, C+1) logits S^coarse, the background last"""
    classes: tuple[str, ...]
    """C names"""

    def __post_init__(self) -> None:
        steps, wide = len(self.actionness), len(self.classes) + 1
        shapes = {"times": (steps, 2), "actionness": (steps,), "cas": (steps, wide), "coarse_cas": (steps, wide)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
            if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite numbers")

    @property
    def has_actionness(self) -> bool:
        """Whether A^ness took part. It is 1 everywhere if a sport that the user named was read without it."""
        return bool((self.actionness < 1).any())

    def probability(self) -> np.ndarray:
        """(T, C) A · softmax(S) without the background; the rule `runs` compares this with its threshold."""
        shifted = np.exp(self.cas - self.cas.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(self.actionness[:, None] * shifted[:, :-1] / shifted.sum(axis=1, keepdims=True))

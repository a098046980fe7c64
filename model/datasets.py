"""Training data: features and labels of whole videos. Seed and step alone decide each batch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainConfig
from support.errors import UserError

IntArray = NDArray[np.int64]


class DatasetError(UserError, ValueError):
    """Features or labels cannot be used for training; the message names the videos."""


class Batch(NamedTuple):
    """The input of one training step.

    Attributes:
        features: (B, T, D) float32, 0 at padding.
        mask: (B, T) bool, true for snippets and false for padding; None if there is no padding.
        labels: (B, C) float32, 0 or 1; a row of zeros is a video without any action.
        pairs: (P, 2) int64, pairs of rows that share a class: (0, 1), (2, 3), ...
        videos: (B,) int64, index of the video in each row.
    """

    features: Tensor
    mask: Tensor | None
    labels: Tensor
    pairs: Tensor
    videos: IntArray

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._replace(
            features=self.features.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            labels=self.labels.to(device),
            pairs=self.pairs.to(device),
        )


@dataclass(frozen=True, eq=False)
class VideoSet:
    """Videos to train on, in memory or memory-mapped.

    Attributes:
        features: a (T, D) array for each video, float16 or float32; D is the same for all.
        labels: (N, C) bool, whether video n shows class c; a row of False is a video without any action.
        names: N names, for messages.
        classes: C names in the order of the columns.

    Raises:
        DatasetError: the parts do not fit together, or nothing can be learned from them.
    """

    features: Sequence[NDArray[np.floating]]
    labels: NDArray[np.bool_]
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.names) == len(self.labels):
            raise DatasetError(
                f"There are {len(self.features)} features, {len(self.names)} names and {len(self.labels)} rows of "
                "labels; give one of each for every video."
            )
        if not self.names:
            raise DatasetError("There are no videos to train on.")
        if self.labels.dtype != np.bool_ or self.labels.shape != (len(self.names), len(self.classes)):
            raise DatasetError(
                f"Labels must be bool {(len(self.names), len(self.classes))}, a row for each video and a column for "
                f"each class, not {self.labels.dtype} {self.labels.shape}."
            )
        if not self.labels.any():
            raise DatasetError("No video is labelled with any class, so there is nothing to learn.")
        found = ((name, self._fault(rows)) for name, rows in zip(self.names, self.features, strict=True))
        faults = [f"{name} {fault}" for name, fault in found if fault]
        if faults:
            more = f" (and {len(faults) - 5} more videos)" if len(faults) > 5 else ""
            raise DatasetError(f"{'; '.join(faults[:5])}{more}; extract them again, or leave them out.")

    @property
    def width(self) -> int:
        """D, the width of a feature."""
        return int(self.features[0].shape[-1])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of snippets in each video."""
        return tuple(len(rows) for rows in self.features)

    def fingerprint(self) -> str:
        """SHA-256 in hex over everything that a training uses: names, classes, labels and features."""
        described = [self.names, self.classes, [(str(rows.dtype), rows.shape) for rows in self.features]]
        digest = hashlib.sha256(repr(described).encode())
        for array in (self.labels, *self.features):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _fault(self, rows: NDArray[np.floating]) -> str | None:
        if rows.ndim != 2 or rows.dtype not in (np.float16, np.float32):
            return f"has features {rows.dtype} {rows.shape}, not float32 (T, D)"
        if rows.shape[1] != self.width:
            return f"has features {rows.shape[1]} wide, where {self.names[0]} has {self.width}"
        if len(rows) == 0:
            return "has no snippet"
        if not np.isfinite(rows).all():
            return "has features that are not finite"
        return None


def draw(data: VideoSet, config: TrainConfig, step: int) -> Batch:
    """Draw the batch of a step. It depends on the arguments only, so a resumed training needs no state of a sampler.

    First come pairs: `config.pairs` classes are drawn with replacement from those with two or more videos, and two
    videos of each. The other rows are drawn with replacement from all videos (section 4.1; CO2-Net). If there are fewer
    videos than rows, videos repeat. If no class has two videos, there are no pairs.
    """
    rng = np.random.default_rng((config.seed, step))
    videos, pairs = _choose(data.labels, config.batch, config.pairs, rng)
    picked = [sample(len(data.features[v]), config.snippets, config.sampling == "perturb", rng) for v in videos]
    t = max(len(rows) for rows in picked)
    # Allocated by torch, which aligns memory: with other alignment, sums may differ in the last digit.
    features = torch.zeros(len(videos), t, data.width)
    mask = torch.zeros(len(videos), t, dtype=torch.bool)
    for row, (video, rows) in enumerate(zip(videos, picked, strict=True)):
        features.numpy()[row, : len(rows)] = data.features[video][rows]
        mask[row, : len(rows)] = True
    labels = torch.from_numpy(data.labels[videos].astype(np.float32))
    # Without a mask the attention can use faster kernels.
    some_padding = None if mask.all() else mask
    return Batch(features, some_padding, labels, torch.arange(2 * pairs).reshape(pairs, 2), videos)


def sample(length: int, snippets: int, stretch: bool, rng: np.random.Generator) -> IntArray:
    """Choose `snippets` (T) of the `length` (n) snippets of a video, in order; all of them if n is at most T.

    The i-th index is drawn at random between i n // T and (i + 1) n // T, both included and at most n - 1. This is
    random_perturb in the successors of W-TALC. With `stretch` a shorter video also gets T snippets, by repeating some.
    """
    if length <= snippets and not stretch:
        return np.arange(length)
    starts = np.arange(snippets + 1) * length // snippets
    return rng.integers(starts[:-1], np.minimum(starts[1:], length - 1), endpoint=True)


def _choose(labels: NDArray[np.bool_], batch: int, pairs: int, rng: np.random.Generator) -> tuple[IntArray, int]:
    """(B,) indexes of videos, and how many pairs they begin with."""
    shared = np.flatnonzero(labels.sum(axis=0) >= 2)
    pairs = min(pairs, batch // 2) if len(shared) else 0
    chosen = []
    for _ in range(pairs):
        members = np.flatnonzero(labels[:, rng.choice(shared)])
        chosen.append(rng.choice(members, size=2, replace=False))
    others = rng.integers(len(labels), size=batch - 2 * pairs)
    return np.concatenate([*chosen, others]).astype(np.int64), pairs

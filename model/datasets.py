"""Training data: features and labels of whole videos. Seed and step alone decide each batch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        known: (B, T, C+1) float32, what is known about each snippet (see `VideoSet`), 0 at padding; None without times.
    """

    features: Tensor
    mask: Tensor | None
    labels: Tensor
    pairs: Tensor
    videos: IntArray
    known: Tensor | None = None

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._replace(
            features=self.features.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            labels=self.labels.to(device),
            pairs=self.pairs.to(device),
            known=None if self.known is None else self.known.to(device),
        )


@dataclass(frozen=True, eq=False)
class VideoSet:
    """Videos to train on, in memory or memory-mapped.

    Attributes:
        features: a (T, D) array for each video, float16 or float32; D is the same for all.
        labels: (N, C) bool, whether video n shows class c; a row of False is a video without any action.
        names: N names, for messages.
        classes: C names in the order of the columns.
        known: for each video (T, C+1) float32, what marked times say about each snippet: the share of it that shows
            each class, and last the share that is background. A row sums to 1 if all of the snippet is known, and to 0
            if nothing is. None without times.

    Raises:
        DatasetError: the parts do not fit together, or nothing can be learned from them.
    """

    features: Sequence[NDArray[np.floating]]
    labels: NDArray[np.bool_]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    known: Sequence[NDArray[np.float32]] | None = None

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
        if self.known is not None:
            _check_known(self.known, self.lengths, len(self.classes))

    @property
    def width(self) -> int:
        """D, the width of a feature."""
        return int(self.features[0].shape[-1])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of snippets in each video."""
        return tuple(len(rows) for rows in self.features)

    def fingerprint(self) -> str:
        """SHA-256 in hex over everything that a training uses: names, classes, labels, features and known snippets."""
        described = [self.names, self.classes, [(str(rows.dtype), rows.shape) for rows in self.features]]
        digest = hashlib.sha256(repr(described).encode())
        for array in (self.labels, *self.features, *(self.known or ())):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def take(self, videos: Sequence[int]) -> "VideoSet":
        """Only the videos with these indexes."""
        return replace(
            self,
            features=[self.features[v] for v in videos],
            labels=self.labels[list(videos)],
            names=tuple(self.names[v] for v in videos),
            known=None if self.known is None else [self.known[v] for v in videos],
        )

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


def _check_known(known: Sequence[NDArray[np.float32]], lengths: Sequence[int], classes: int) -> None:
    """Raise a DatasetError unless there is a share in [0, 1] for each snippet and column, at most 1 in all."""
    shapes = [rows.shape for rows in known]
    if shapes != [(length, classes + 1) for length in lengths]:
        raise DatasetError(f"What is known must be (T, {classes + 1}) for each video, not {shapes[:5]}.")
    if any(rows.dtype != np.float32 or (rows < 0).any() or (rows.sum(axis=1) > 1 + 1e-5).any() for rows in known):
        raise DatasetError("What is known about a snippet must be float32 shares of 0 or more, together at most 1.")


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
    known = None
    if data.known is not None:
        known = torch.zeros(len(videos), t, len(data.classes) + 1)
        for row, (video, rows) in enumerate(zip(videos, picked, strict=True)):
            known.numpy()[row, : len(rows)] = data.known[video][rows]
    # Without a mask the attention can use faster kernels.
    some_padding = None if mask.all() else mask
    return Batch(features, some_padding, labels, torch.arange(2 * pairs).reshape(pairs, 2), videos, known)


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

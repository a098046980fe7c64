"""The loss when some snippets' classes are known: cross-entropy there, and equations 8-12 for what is not known.

A person knows three kinds of things about a video: which actions it shows, when some of them happen, or when all of
them happen. `known` (B, T, C+1) holds the last two: the share of each snippet that shows each class, and in its last
column the share that is background. A snippet at the edge of an action counts by how much of it lies inside. What is
not known has the share 0, so the three kinds can be mixed within one batch.
"""

import torch
from torch import Tensor

from model import losses
from model.config import TERMS, TrainConfig
from model.datasets import Batch
from model.jcdnet import Output

NAMES = ("snippet", "action")

# A sigmoid can be exactly 0 or 1 in float32. Its logarithm is bounded there.
_EPS = 1e-6
# Shares are sums in float32.
_ALL = 1 - 1e-4


def terms(config: TrainConfig) -> tuple[str, ...]:
    """The names of the terms that a training computes, in the order of its log."""
    weighed = tuple(name for name in TERMS if getattr(config.loss, name))
    return weighed if config.times is None else weighed + tuple(n for n in NAMES if getattr(config.times, n))


def total(output: Output, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch: `losses.total`, and with times the terms of known snippets.

    Without times this is `losses.total`, to the last digit.

    Returns:
        The weighted sum, and name → value of each term before weighting.
    """
    times = config.times
    if times is None or batch.known is None:
        return losses.total(output, batch.labels, batch.pairs, batch.mask, config.loss)
    mask, labels = batch.mask, batch.labels
    if not times.mil:
        # Equations 8-12 ignore rows of padding only, and L_cas ignores pairs that share no label.
        complete = all_known(batch.known, mask)
        mask = (torch.ones_like(complete)[:, None].expand(batch.features.shape[:2]) if mask is None else mask) & (
            ~complete[:, None]
        )
        labels = labels.masked_fill(complete[:, None], 0)
    loss, found = losses.total(output, labels, batch.pairs, mask, config.loss)
    if times.snippet:
        found["snippet"] = snippet(output.cas, batch.known)
        loss = loss + times.snippet * found["snippet"]
    if times.action:
        found["action"] = action(output.actionness, batch.known)
        loss = loss + times.action * found["action"]
    return loss, found


def all_known(known: Tensor, mask: Tensor | None) -> Tensor:
    """(B,) bool: the videos in which every snippet is known. A row of padding only is not."""
    sure = known.sum(dim=-1) >= _ALL
    if mask is None:
        return sure.all(dim=1)
    return (sure | ~mask).all(dim=1) & mask.any(dim=1)


def snippet(cas: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of softmax(S) with the known shares: -sum known log p / sum known, 0 if nothing is known.

    Args:
        cas: (B, T, C+1) logits S.
        known: (B, T, C+1) shares, 0 at padding.
    """
    return -(known * cas.log_softmax(dim=-1)).sum() / known.sum().clamp(min=_EPS)


def action(actionness: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of A^ness with the known shares of action and of background, 0 if nothing is known.

    A video counts only if some of its background is known. Points alone would raise A^ness everywhere, since nothing
    speaks against it: on SportsMini they cost 15 points of mAP, and without this term 1
    (benchmarks/README.md, "Times").

    Args:
        actionness: (B, T) in [0, 1].
        known: (B, T, C+1) shares, 0 at padding.
    """
    known = known * (known[..., -1:].sum(dim=1, keepdim=True) > 0)
    inside, outside = known[..., :-1].sum(dim=-1), known[..., -1]
    a = actionness.clamp(_EPS, 1 - _EPS)
    return -(inside * a.log() + outside * (1 - a).log()).sum() / known.sum().clamp(min=_EPS)

"""The losses of JCDNet, equations 8-12, with one function for each term. They need only labels per video.

`mask` (B, T) bool is true for snippets and false for padding; None means that there is no padding. Padding never
counts, and a row of padding only is ignored. Every loss is a finite scalar with finite gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import LossConfig
from model.jcdnet import Output, top_k_mean

# Avoids division by a norm of 0: in a video of one snippet, the low-activation side of L_cas is empty.
_EPS = 1e-8


def total(
    output: Output, labels: Tensor, pairs: Tensor, mask: Tensor | None, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss: equation 12, with equations 10 and 11 written out.

    Args:
        output: output of the network in training mode, for a batch of B videos.
        labels: (B, C) 1 if the video shows the action, else 0; a row of zeros is a video without any action.
        pairs: (P, 2) int64, pairs of rows that share a class, for `co_activity`.
        mask: (B, T) bool or None.
        config: the weights; a term of weight 0 is neither computed nor returned.

    Returns:
        The weighted sum, and name → value of each term before weighting.
    """
    r = config.topk_divisor
    # Every untrimmed video contains background, so that is a target of S and S^coarse. Their suppressed versions must
    # not show background, and S^temp has no column for it.
    present, absent = labels.new_ones(len(labels), 1), labels.new_zeros(len(labels), 1)
    unsuppressed, suppressed = torch.cat([labels, present], dim=1), torch.cat([labels, absent], dim=1)
    terms = {
        "mil": lambda: mil(output.cas, unsuppressed, mask, r),
        "temp": lambda: mil(output.temp_cas, labels, mask, r),
        "supp": lambda: mil(output.suppressed_cas, suppressed, mask, r),
        "coarse": lambda: mil(output.coarse_cas, unsuppressed, mask, r),
        "coarse_supp": lambda: mil(output.suppressed_coarse_cas, suppressed, mask, r),
        "cas": lambda: co_activity(
            output.embedding, output.suppressed_coarse_cas[..., :-1], labels, pairs, mask, config.margin
        ),
        "norm": lambda: norm(output.actionness, mask),
        "guide": lambda: guide(output.actionness, output.cas, mask),
    }
    found = {name: term() for name, term in terms.items() if getattr(config, name)}
    weighted = [getattr(config, name) * value for name, value in found.items()]
    return torch.stack(weighted).sum(), found


def mil(cas: Tensor, targets: Tensor, mask: Tensor | None, divisor: int) -> Tensor:
    """Top-k multiple-instance loss, equations 7-9: -sum_j y_j log p_j, averaged over the videos.

    L_mil, L_temp, L_coarse and their suppressed versions differ only in the T-CAS and in the target of the background.
    Targets are divided by their sum, so that this is the cross-entropy with a distribution. Targets of zeros give 0.

    Args:
        cas: (B, T, J) logits.
        targets: (B, J) 0 or 1.
        mask: (B, T) bool or None.
        divisor: r of equation 7.
    """
    share = targets / (targets.sum(dim=1, keepdim=True) + 1e-4)
    log_p = top_k_mean(cas, mask, divisor).log_softmax(dim=1)
    return _mean_of_videos(-(share * log_p).sum(dim=1), mask)


def co_activity(
    embedding: Tensor, cas: Tensor, labels: Tensor, pairs: Tensor, mask: Tensor | None, margin: float
) -> Tensor:
    """L_cas, the co-activity similarity loss of W-TALC (reference 23 of the paper), on E^a and suppressed S^coarse.

    If two videos show the same action, their features where it is active must be similar, and must differ by a margin
    from the features where it is not active. The loss is the average over all (pair, shared class), or 0 without any.

    Args:
        embedding: (B, T, D).
        cas: (B, T, C) logits without the background.
        labels: (B, C) 0 or 1.
        pairs: (P, 2) int64 rows of the batch.
        mask: (B, T) bool or None.
        margin: the least difference of the cosine distances.
    """
    shared = (labels[pairs[:, 0]] * labels[pairs[:, 1]]) > 0
    (high_m, low_m), (high_n, low_n) = (
        _sides(embedding[rows], cas[rows], None if mask is None else mask[rows]) for rows in pairs.unbind(dim=1)
    )
    alike = _distance(high_m, high_n)
    to_n = F.relu(alike - _distance(high_m, low_n) + margin)
    to_m = F.relu(alike - _distance(low_m, high_n) + margin)
    each = (0.5 * (to_n + to_m)).masked_fill(~shared, 0)
    return each.sum() / shared.sum().clamp(min=1)


def norm(actionness: Tensor, mask: Tensor | None) -> Tensor:
    """L_norm, section 3.5: the mean of |A_t| over the snippets, averaged over the videos.

    The paper prints a sum. With its weight of 0.8 and T = 500, a sum would start near 200, beside cross-entropies near
    3. The networks that JCDNet is based on use the mean.

    Args:
        actionness: (B, T), in [0, 1].
        mask: (B, T) bool or None.
    """
    return _mean_of_videos(_mean_of_snippets(actionness.abs(), mask), mask)


def guide(actionness: Tensor, cas: Tensor, mask: Tensor | None) -> Tensor:
    """L_guide, section 3.5: the mean of |1 - A_t - s_t| over the snippets (see `norm`), averaged over the videos.

    s_t is the background's probability in S, that is, after the softmax.

    Args:
        actionness: (B, T), in [0, 1].
        cas: (B, T, C+1) logits S.
        mask: (B, T) bool or None.
    """
    background = cas.softmax(dim=-1)[..., -1]
    return _mean_of_videos(_mean_of_snippets((1 - actionness - background).abs(), mask), mask)


def _sides(embedding: Tensor, cas: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """For each video and class, the feature where the class is active and where it is not, each (P, C, D).

    W-TALC divides the second one by T - 1 to make it a mean; this does not change a cosine.
    """
    if mask is None:
        mask = torch.ones(cas.shape[:2], dtype=torch.bool, device=cas.device)
    padding = ~mask.unsqueeze(-1)
    # A row without snippets keeps its logits, since a softmax over nothing is NaN.
    nowhere = padding & mask.any(dim=1)[:, None, None]
    active = cas.masked_fill(nowhere, -torch.inf).softmax(dim=1).masked_fill(padding, 0)
    inactive = (1 - active).masked_fill(padding, 0)
    high = torch.bmm(active.transpose(1, 2), embedding)
    low = torch.bmm(inactive.transpose(1, 2), embedding)
    return high, low


def _distance(u: Tensor, v: Tensor) -> Tensor:
    """Cosine distance 1 - cos along the last axis; the distance to a vector of zeros is 1."""
    lengths = torch.linalg.vector_norm(u, dim=-1) * torch.linalg.vector_norm(v, dim=-1)
    return 1 - (u * v).sum(dim=-1) / lengths.clamp(min=_EPS)


def _mean_of_snippets(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the snippets, (B, T) to (B,)."""
    if mask is None:
        return values.mean(dim=1)
    return values.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _mean_of_videos(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the videos that have a snippet, (B,) to a scalar."""
    if mask is None:
        return values.mean()
    some = mask.any(dim=1)
    return values.masked_fill(~some, 0).sum() / some.sum().clamp(min=1)

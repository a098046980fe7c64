"""JCDNet: the network of Liu et al., "Joint of Common and Definite phases Network", equations 1-7.

This file is the architecture, and the pooling of its logits over a video. Where the paper is silent, a comment beside
the line explains the choice.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig

# A convolution gets this many snippets at a time. Its channels-first copies then stay near 50 MB. For a ten-hour video
# (T = 56,000, width 2048) at once they would be 459 MB each.
_CHUNK = 4096


class Output(NamedTuple):
    """The output of one forward pass. The background is the last column, index C. All values are 0 at padding.

    Without CAD, `coarse_cas` is 0; without TEA, `temp_cas` is 0.

    Attributes:
        cas: (B, T, C+1) logits S of the final T-CAS.
        coarse_cas: (B, T, C+1) logits S^coarse.
        temp_cas: (B, T, C) logits S^temp, which have no background.
        actionness: (B, T) A^ness in [0, 1].
        suppressed_cas: (B, T, C+1) S with the background suppressed by A^ness, equation 6.
        suppressed_coarse_cas: (B, T, C+1) the same for S^coarse.
        embedding: (B, T, D) E^a, which the co-activity similarity loss compares.
    """

    cas: Tensor
    coarse_cas: Tensor
    temp_cas: Tensor
    actionness: Tensor
    suppressed_cas: Tensor
    suppressed_coarse_cas: Tensor
    embedding: Tensor


class JCDNet(nn.Module):
    """The network: snippet features of any length in, class activations and actionness out.

    All weights belong to Conv1d layers and have the shape (out, in, taps). `alpha` and `beta` are the scalars of
    equations 2 and 4. A module that is turned off has no weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c, d, x = config.classes, config.dim, config.in_dim
        if config.cad:
            self.coarse = nn.Conv1d(x, c + 1, config.coarse_kernel, padding=config.coarse_kernel // 2)
            self.alpha = nn.Parameter(torch.zeros(()))
        self.embed_a = nn.Conv1d(x, d, config.kernel, padding=config.kernel // 2)
        if config.tea:
            self.embed_e = nn.Conv1d(x, d, config.kernel, padding=config.kernel // 2)
            self.query = nn.Conv1d(d, d, 1)
            self.key = nn.Conv1d(d, d, 1)
            self.value = nn.Conv1d(d, d, 1)
            self.temp = nn.Conv1d(d, c, 1)
            self.beta = nn.Parameter(torch.zeros(()))
        self.classifier = nn.Conv1d(2 * d if config.tea else d, c + 1, 1)
        for module in self.children():
            if isinstance(module, nn.Conv1d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, a=config.slope, nonlinearity="leaky_relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
        """Compute equations 1-6.

        Args:
            x: (B, T, in_dim) snippet features. They are used as they are, without normalisation.
            mask: (B, T) bool, true for snippets and false for padding; None if there is no padding. The values of `x`
                at padding, NaN included, have no effect. A row may consist of padding only.

        Raises:
            ValueError: a shape or the type of the mask is wrong, or there are no snippets.
        """
        self._check(x, mask)
        x = _zero_padding(x, mask)
        # The attention needs the most memory, so it runs first, while no other result is in memory.
        if self.config.tea:
            enhanced, temp_cas, actionness = self._temporal_enhanced_attention(x, mask)
        embedding, coarse_cas = self._class_aware_discriminative(x, mask)
        # The classifier takes E = [E^a; E^e]. It is applied to each half, so E (459 MB at T = 56,000) is never built.
        weight = self.classifier.weight.squeeze(-1)
        cas = F.linear(self._dropout(embedding), weight[:, : self.config.dim], self.classifier.bias)
        if self.config.tea:
            cas = cas + F.linear(self._dropout(enhanced), weight[:, self.config.dim :])
        cas = self._smooth(cas, mask)
        if not self.config.tea:
            # The guidance loss pulls A^ness towards this. The paper does not say what its Exp 1-3 apply thresholds to.
            temp_cas = torch.zeros_like(cas[..., :-1])
            actionness = _zero_padding(1 - cas.softmax(dim=-1)[..., -1:], mask).squeeze(-1)
        return Output(
            cas=cas,
            coarse_cas=coarse_cas,
            temp_cas=temp_cas,
            actionness=actionness,
            suppressed_cas=self._suppress(cas, actionness),
            suppressed_coarse_cas=self._suppress(coarse_cas, actionness),
            embedding=embedding,
        )

    def _class_aware_discriminative(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """E^a (B, T, D) and S^coarse (B, T, C+1): section 3.3, equations 1 and 2."""
        if not self.config.cad:
            embedding = _zero_padding(self._embed(self.embed_a, x), mask)
            return embedding, embedding.new_zeros(*embedding.shape[:2], self.config.classes + 1)
        coarse_cas = self._smooth(_convolve(self.coarse, self._dropout(x)), mask)
        # "The probability of the snippet t belonging to the c-th class": with logits instead, the denominator could be
        # zero or negative.
        probability = _zero_padding(coarse_cas.softmax(dim=-1), mask)
        embedding = _zero_padding(self._embed(self.embed_a, x), mask)
        share = probability.sum(dim=1).clamp(min=1e-6)
        definite = torch.bmm(probability.transpose(1, 2), embedding) / share.unsqueeze(-1)
        # alpha is multiplied into the small factor (C+1, D), which saves a second tensor of (T, D).
        return torch.baddbmm(embedding, probability, self.alpha * definite), coarse_cas

    def _temporal_enhanced_attention(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """E^e (B, T, D), S^temp (B, T, C) and A^ness (B, T): section 3.4, equations 3 to 5."""
        enhanced = self._embed(self.embed_e, x)
        # With beta = 0, equation 4 is X^e + 0, so the attention is skipped: it costs O(T^2 D), by far the most in this
        # network, and the embedded model has beta = 0. Training needs it for the gradient of beta.
        if self.training or bool(self.beta != 0):
            enhanced = torch.addcmul(enhanced, self.beta, self._attend(enhanced, mask))
        logits = _convolve(self.temp, self._dropout(enhanced))
        # f_ave of equation 5 averages over the classes and gives one score for each snippet.
        actionness = logits.mean(dim=-1, keepdim=True).sigmoid()
        # The actionness comes from the unsmoothed logits, so it is smoothed only once, after the sigmoid.
        return enhanced, self._smooth(logits, mask), self._smooth(actionness, mask).squeeze(-1)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """sum_i M_ij v_i of equations 3 and 4, (B, T, D) to (B, T, D).

        M_ij = exp(q_i k_j) / sum_i' exp(q_i' k_j) is normalised over the source i, which is the index of `q`.
        scaled_dot_product_attention normalises over the index of its `key`, so q and k swap places.
        """
        q, k, v = (_convolve(conv, x).unsqueeze(1) for conv in (self.query, self.key, self.value))
        sources = None
        if mask is not None:
            # A row without snippets attends to its padding, since some kernels give NaN for a softmax over nothing.
            sources = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None, :]
        scale = 1 / math.sqrt(self.config.dim) if self.config.qk_scale else 1.0
        # 4-D input (B, one head, T, D) reaches kernels with memory linear in T; 3-D input builds all T x T weights.
        return F.scaled_dot_product_attention(k, q, v, attn_mask=sources, scale=scale).squeeze(1)

    def _suppress(self, cas: Tensor, actionness: Tensor) -> Tensor:
        """Equation 6, (B, T, C+1). Inference is always literal, as in the networks that train with `min_shift`."""
        weight = actionness.unsqueeze(-1)
        if self.training and self.config.suppress == "min_shift":
            least = cas.amin(dim=-1, keepdim=True)
            return weight * (cas - least) + least
        return weight * cas

    def _embed(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        return F.leaky_relu(_convolve(conv, x), self.config.slope)

    def _dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)

    def _smooth(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """Average (B, T, C) over time if `smooth` is set. Padding and values beyond the ends count as 0."""
        sequence = _zero_padding(sequence, mask)
        taps = self.config.smooth
        if not taps:
            return sequence
        pooled = F.avg_pool1d(sequence.transpose(1, 2), taps, stride=1, padding=taps // 2)
        return _zero_padding(pooled.transpose(1, 2), mask)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() != 3 or x.shape[-1] != self.config.in_dim or x.shape[1] == 0:
            shape = tuple(x.shape)
            raise ValueError(f"Features must be (B, T, {self.config.in_dim}) with T >= 1, not {shape}.")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
            shape = tuple(mask.shape)
            raise ValueError(f"The mask must be bool {tuple(x.shape[:2])}, not {mask.dtype} {shape}.")


def top_k_mean(cas: Tensor, mask: Tensor | None, divisor: int) -> Tensor:
    """Equation 7: for each video and class, the mean of the k = max(1, T // divisor) largest logits.

    Args:
        cas: (B, T, J) logits.
        mask: (B, T) bool or None. T in the equation counts the snippets of a video without its padding.
        divisor: r.

    Returns:
        (B, J) logits; 0 for a row without snippets.
    """
    if mask is None:
        return cas.topk(max(1, cas.shape[1] // divisor), dim=1).values.mean(dim=1)
    lengths = mask.sum(dim=1)
    k = (lengths // divisor).clamp(min=1)
    # The shape bounds the largest k, so .item(), which would wait for the GPU, is not needed.
    most = max(1, cas.shape[1] // divisor)
    largest = cas.masked_fill(~mask.unsqueeze(-1), -torch.inf).topk(most, dim=1).values
    counted = torch.arange(most, device=cas.device) < torch.minimum(k, lengths).unsqueeze(1)
    # Filled before the sum, because -inf times 0 would be NaN.
    return largest.masked_fill(~counted.unsqueeze(-1), 0).sum(dim=1) / k.unsqueeze(1)


def _zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply `conv` over time to (B, T, in), giving (B, T, out), without a channels-first copy of the whole input."""
    reach = conv.kernel_size[0] // 2
    if reach == 0:
        return F.linear(x, conv.weight.squeeze(-1), conv.bias)
    # Filled in place, because concatenating pieces would need the memory twice.
    out = x.new_empty(x.shape[0], x.shape[1], conv.out_channels)
    for start in range(0, x.shape[1], _CHUNK):
        stop = min(start + _CHUNK, x.shape[1])
        # A chunk includes its neighbours; the ends that zero padding makes wrong are cut off.
        first = max(start - reach, 0)
        part = conv(x[:, first : stop + reach].transpose(1, 2)).transpose(1, 2)
        out[:, start:stop] = part[:, start - first : stop - first]
    return out

"""Peers of JCDNet and supervised ceilings, trained by its own loop on its own batches and read by its own inference.

They are "-style" baselines: the idea of a published network in about forty lines, not a reproduction. What all have in
common, whatever their authors did, so that a difference is the idea's: JCDNet's width D, LeakyReLU, dropout 0.7 and
initial weights; `model.datasets.draw`, Adam and the dropout's seeds of `model.train`; cross-entropy over the columns
(`model.losses.mil`), where BaS-Net and UM take a binary one averaged over them; r of `LossConfig`; `model.predict` and
`postprocess.localize` at inference, which threshold the actionness and score A * S, where each author has a recipe of
their own. Judged are the last step's weights or, with `averaging`, the average over the steps, as for
JCDNet.

The other terms' weights of BaS-Net and UM cannot be carried over from one kind of cross-entropy to the other. The best
of two and of three was taken, in the peer's favour, by world 1000 of ConjointSynth B, rule `paper`: mAP 0.3:0.9 of
BaS-Net 34.5 with 0.825 and 72.7 with 0.083, of UM (its actionness then the magnitude by the margin) 8.4 with 50, 35.9
with 5 and 62.9 with 1.

mil: Exp 1 of Table 4, top-k MIL with a background class that every video has; actionness is 1 - p(background).
basnet: BaS-Net (Lee et al., AAAI 2020): a filter weighs the snippets, and one classifier sees them as they are
    (background present) and weighed (background absent). Its norm is a sum over 750 snippets at 1e-4, here the mean at
    0.075. BaS-Net localises on the weighed branch; here on A * S of the other, as for all.
um: UM (Lee et al., AAAI 2021): actions have features of great magnitude, background of small, which classify as
    nothing. Its margin of 100 for 2,048 channels becomes 100 sqrt(D / 2048), and the loss is in units of it. Actionness
    is the magnitude in a video's own range, as in its code. It has no background column; the one here stands 10 below
    the least class, so that no softmax sees it.
co2net: CO2-Net (Hong et al., ACM MM 2021): each stream is gated by its own global context and the other's local one,
    and the attentions of both teach each other. The streams are the halves of a feature, RGB and flow where it has
    both; of RGB alone they are two sets of channels that see the same frames, so consensus means little there. The
    fusion goes to D channels, where CO2-Net keeps 2,048. Norm, guidance and margin weigh what they do for JCDNet.
linear: multinomial regression on every snippet's true class, solved: what one snippet's features hold by themselves.
supervised: JCDNet as it is, with the true classes for S and the true foreground for A^ness.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model import losses
from model.averaging import Average
from model.config import ModelConfig, TrainConfig
from model.datasets import Batch, VideoSet, draw
from model.jcdnet import JCDNet, Output
from model.predict import Scores, predict
from model.presets import experiment
from model.train import TrainError, _adam, _dropout_seed

NO_SETTINGS: Mapping[str, Any] = {}
Loss = Callable[[Output, Batch, TrainConfig], Tensor]

DROPOUT = 0.7
BACKGROUND_DIVISOR = 4  # r of UM's background


class BasNet(nn.Module):
    """See the module's docstring; `coarse_cas` of the output is the T-CAS of the weighed features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        x, d = config.in_dim, config.dim
        leaky = nn.LeakyReLU(config.slope)
        self.filter = nn.Sequential(nn.Conv1d(x, d, 1), leaky, nn.Conv1d(d, 1, 1), nn.Sigmoid())
        self.branch = nn.Sequential(
            nn.Conv1d(x, d, 3, padding=1), leaky, nn.Conv1d(d, d, 3, padding=1), leaky, nn.Dropout(DROPOUT)
        )
        self.classifier = nn.Conv1d(d, config.classes + 1, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
        """(B, T, in_dim) to Output."""
        x = x.transpose(1, 2)
        weight = self.filter(x)
        embedding = self.branch(x)
        cas, weighed = self.classifier(embedding), self.classifier(self.branch(weight * x))
        return _output(mask, cas, weight, embedding, coarse_cas=weighed)


def bas_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """MIL of both branches and the filter's norm."""
    r = config.loss.topk_divisor
    base = losses.mil(output.cas, _with_background(batch.labels, 1), batch.mask, r)
    weighed = losses.mil(output.coarse_cas, _with_background(batch.labels, 0), batch.mask, r)
    return base + weighed + 0.075 * losses.norm(output.actionness, batch.mask)


class Um(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Conv1d(config.in_dim, config.dim, 3, padding=1)
        self.classifier = nn.Conv1d(config.dim, config.classes, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
        """(B, T, in_dim) to Output."""
        embedding = self.embed(x.transpose(1, 2)).relu()
        cas = self.classifier(F.dropout(embedding, DROPOUT, self.training))
        magnitude = torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
        nothing = cas.amin(dim=1, keepdim=True) - 10
        padding = torch.zeros_like(magnitude, dtype=torch.bool) if mask is None else ~mask.unsqueeze(1)
        least = magnitude.masked_fill(padding, torch.inf).amin(dim=2, keepdim=True)
        most = magnitude.masked_fill(padding, 0).amax(dim=2, keepdim=True)
        share = ((magnitude - least) / (most - least).clamp(min=1e-6)).clamp(0, 1)
        return _output(mask, torch.cat([cas, nothing], dim=1), share, embedding)


def um_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """MIL, the magnitudes' margin, and the background's entropy."""
    r, margin = config.loss.topk_divisor, _um_margin(output.embedding.shape[-1])
    cas = output.cas[..., :-1]
    magnitude = torch.linalg.vector_norm(output.embedding, dim=-1)
    # UM hides seven snippets of ten from the choice, or it would be of the same few at every step.
    shown = F.dropout(torch.ones_like(magnitude), DROPOUT)
    small = magnitude.amax(dim=1, keepdim=True) - magnitude
    actions = _largest(magnitude * shown, batch.mask, r)
    background = _largest(small * shown, batch.mask, BACKGROUND_DIVISOR)
    great, little = (
        torch.linalg.vector_norm(torch.einsum("bt,btd->bd", rows, output.embedding), dim=-1) / margin
        for rows in (actions, background)
    )
    uncertainty = ((F.relu(1 - great) + little) ** 2).mean()
    entropy = -torch.einsum("bt,btc->bc", background, cas).log_softmax(dim=-1).mean()
    return losses.mil(cas, batch.labels, batch.mask, r) + uncertainty + entropy


class Consensus(nn.Module):
    """One stream of CO2-Net: what of `main` counts, told by its mean over time and by the other stream's snippets."""

    def __init__(self, main: int, other: int, dim: int, slope: float) -> None:
        super().__init__()
        leaky, dropout = nn.LeakyReLU(slope), nn.Dropout(0.5)
        self.local = nn.Sequential(nn.Conv1d(other, main, 3, padding=1), leaky, dropout)
        self.context = nn.Sequential(nn.Conv1d(main, main, 1), leaky, dropout)
        first, second = nn.Conv1d(main, dim, 3, padding=1), nn.Conv1d(dim, dim, 3, padding=1)
        self.attention = nn.Sequential(first, leaky, dropout, second, leaky, nn.Conv1d(dim, 1, 1), nn.Sigmoid())

    def forward(self, main: Tensor, other: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, main, T) and (B, other, T) to the attention (B, 1, T) and `main` gated."""
        share = torch.ones_like(main[:, :1]) if mask is None else mask.unsqueeze(1).to(main.dtype)
        mean = (main * share).sum(dim=2, keepdim=True) / share.sum(dim=2, keepdim=True).clamp(min=1)
        gated = (self.local(other) * self.context(mean)).sigmoid() * main
        return self.attention(gated), gated


class Co2Net(nn.Module):
    """See the module's docstring; `temp_cas` of the output, (B, T, 2), holds the attentions of the two streams."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d, slope = config.dim, config.slope
        self.middle = config.in_dim // 2
        rest = config.in_dim - self.middle
        self.first, self.second = Consensus(self.middle, rest, d, slope), Consensus(rest, self.middle, d, slope)
        leaky, dropout = nn.LeakyReLU(slope), nn.Dropout(DROPOUT)
        self.fusion = nn.Sequential(nn.Conv1d(config.in_dim, d, 1), leaky, dropout)
        self.classifier = nn.Sequential(
            nn.Conv1d(d, d, 3, padding=1), leaky, dropout, nn.Conv1d(d, config.classes + 1, 1)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
        """(B, T, in_dim) to Output."""
        left, right = x.transpose(1, 2).split([self.middle, self.config.in_dim - self.middle], dim=1)
        attention, gated = zip(self.first(left, right, mask), self.second(right, left, mask), strict=True)
        embedding = self.fusion(torch.cat(gated, dim=1))
        both = torch.cat(attention, dim=1)
        output = _output(mask, self.classifier(embedding), both.mean(dim=1, keepdim=True), embedding, temp_cas=both)
        if not self.training:
            return output
        least = output.cas.amin(dim=-1, keepdim=True)
        weight = output.actionness.unsqueeze(-1)
        return output._replace(suppressed_cas=weight * (output.cas - least) + least)


def co2net_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """MIL of S and of suppressed S, co-activity, mutual learning, norm and guidance, the last two of all attentions."""
    mask, weights = batch.mask, config.loss
    one, two = output.temp_cas.unbind(dim=-1)
    mutual = sum(losses.norm((a - b.detach()) ** 2, mask) for a, b in ((one, two), (two, one)))
    three = (output.actionness, one, two)
    return (
        losses.mil(output.cas, _with_background(batch.labels, 1), mask, weights.topk_divisor)
        + losses.mil(output.suppressed_cas, _with_background(batch.labels, 0), mask, weights.topk_divisor)
        + losses.co_activity(
            output.embedding, output.suppressed_cas[..., :-1], batch.labels, batch.pairs, mask, weights.margin
        )
        + 0.5 * mutual
        + weights.norm * sum(losses.norm(a, mask) for a in three) / 3
        + weights.guide * sum(losses.guide(a, output.cas, mask) for a in three) / 3
    )


def mil_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """That of Exp 1."""
    terms = experiment(1, ModelConfig(1), config)[1].loss
    return losses.total(output, batch.labels, batch.pairs, batch.mask, terms)[0]


class Linear(nn.Module):
    """A linear map of each snippet, its channels standardised; actionness is 1 - p(background)."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.classifier = nn.Conv1d(config.in_dim, config.classes + 1, 1)
        self.register_buffer("mean", torch.zeros(config.in_dim))
        self.register_buffer("std", torch.ones(config.in_dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
        """(B, T, in_dim) to Output."""
        x = ((x - self.mean) / self.std).transpose(1, 2)
        cas = self.classifier(x)
        return _output(mask, cas, 1 - cas.softmax(dim=1)[:, -1:], x)

    def fit(self, data: VideoSet, targets: Sequence[NDArray[np.int64]], weight_decay: float) -> None:
        """Solve it: a ceiling must not depend on the patience of a few hundred steps, and the problem is convex."""
        rows = torch.from_numpy(np.concatenate([np.asarray(x, dtype=np.float32) for x in data.features]))
        classes = torch.from_numpy(np.concatenate(targets))
        self.mean.copy_(rows.mean(dim=0))
        self.std.copy_(rows.std(dim=0, correction=0).clamp(min=1e-6))
        optimiser = torch.optim.LBFGS(self.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = F.cross_entropy(self(rows[None]).cas[0], classes)
            loss = loss + 0.5 * weight_decay * (self.classifier.weight**2).sum()
            loss.backward()
            return loss

        optimiser.step(closure)


def linear_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """Cross-entropy of the snippets; `batch.labels` (B, T) are their classes here, C for background."""
    del config
    keep = torch.ones_like(batch.labels, dtype=torch.bool) if batch.mask is None else batch.mask
    return F.cross_entropy(output.cas[keep], batch.labels[keep])


def supervised_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """As `linear_loss`, and the binary one of A^ness."""
    keep = torch.ones_like(batch.labels, dtype=torch.bool) if batch.mask is None else batch.mask
    action = (batch.labels[keep] < output.cas.shape[-1] - 1).to(output.actionness.dtype)
    return linear_loss(output, batch, config) + F.binary_cross_entropy(output.actionness[keep], action)


@dataclass(frozen=True)
class Peer:
    """A network and what it learns from; supervised: the class of every snippet.

    revision: raise it when the same settings would give other numbers: results on disk are then computed again.
    """

    build: Callable[[ModelConfig], nn.Module]
    loss: Loss
    supervised: bool = False
    revision: int = 0


PEERS = {
    "mil": Peer(lambda config: JCDNet(replace(config, cad=False, tea=False)), mil_loss),
    "basnet": Peer(BasNet, bas_loss, revision=1),
    "um": Peer(Um, um_loss, revision=1),
    "co2net": Peer(Co2Net, co2net_loss),
    "linear": Peer(Linear, linear_loss, supervised=True, revision=1),
    "supervised": Peer(JCDNet, supervised_loss, supervised=True, revision=1),
}


def build(name: str, config: ModelConfig, seed: int) -> nn.Module:
    """An untrained peer; the weights are drawn as JCDNet's are, and for `mil` are those of `model.train.initialise`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = PEERS[name].build(config)
        if not isinstance(net, JCDNet):  # which does so itself
            for module in net.modules():
                if isinstance(module, nn.Conv1d):
                    nn.init.kaiming_uniform_(module.weight, a=config.slope, nonlinearity="leaky_relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
    return net


def train_peer(
    name: str,
    data: VideoSet,
    config: TrainConfig,
    dim: int,
    seed: int,
    targets: Sequence[NDArray[np.int64]] | None = None,
    settings: Mapping[str, Any] = NO_SETTINGS,
) -> nn.Module:
    """Train a peer as `model.train.train` trains JCDNet: the same batches, dropout seeds, Adam and average.

    Args:
        name: of PEERS.
        data: the videos.
        config: steps, batch, lr and so on; its seed is replaced.
        dim: D.
        seed: of the weights, the batches and the dropout.
        targets: of each video (T,) the class of each snippet, C for background; for the supervised ones alone.
        settings: others of ModelConfig.

    Returns:
        The network after the last step, or the average that `config` asks for, in evaluation mode.

    Raises:
        TrainError: the loss is not finite.
    """
    peer, config = PEERS[name], replace(config, seed=seed)
    if peer.supervised != (targets is not None):
        raise ValueError(f"{name} {'needs' if peer.supervised else 'takes no'} classes of snippets")
    net = build(name, ModelConfig(len(data.classes), data.width, dim, **settings), seed).train()
    if isinstance(net, Linear) and targets is not None:
        net.fit(data, targets, config.weight_decay)
        return net.eval()
    # As one more channel the classes go through the sampling together with their snippets.
    seen = data if targets is None else _widened(data, targets)
    optimiser = _adam(net, config)  # type: ignore[arg-type]
    average = Average(net, config.averaging) if config.averaging else None
    with torch.random.fork_rng(devices=[]):
        for step in range(config.steps):
            batch = draw(seen, config, step)
            if peer.supervised:
                classes = batch.features[..., -1].long()
                batch = batch._replace(features=batch.features[..., :-1].contiguous(), labels=classes)
            torch.manual_seed(_dropout_seed(config.seed, step))
            loss = peer.loss(net(batch.features, batch.mask), batch, config)
            if not torch.isfinite(loss):
                raise TrainError(f"{name} diverged at step {step + 1} (loss {loss.item()}); use a lower lr.")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if average is not None:
                average.update(net, step + 1)
    if average is not None:
        average.apply(net)
    return net.eval()


def scores(net: nn.Module, features: NDArray[np.floating]) -> Scores:
    """What the network says of one video, (T, in_dim): `model.predict`, which asks for no more than peers have."""
    return predict(net, features)  # type: ignore[arg-type]


def _output(mask: Tensor | None, cas: Tensor, weight: Tensor, embedding: Tensor, **others: Tensor) -> Output:
    """Output of channels-first tensors, 0 at padding; what a peer does not have is 0."""

    def whole(tensor: Tensor) -> Tensor:
        rows = tensor.transpose(1, 2)
        return rows if mask is None else rows.masked_fill(~mask.unsqueeze(-1), 0)

    given = {name: whole(tensor) for name, tensor in others.items()}
    cas, weight = whole(cas), whole(weight)
    coarse = given.get("coarse_cas", torch.zeros_like(cas))
    return Output(
        cas=cas,
        coarse_cas=coarse,
        temp_cas=given.get("temp_cas", torch.zeros_like(cas[..., :-1])),
        actionness=weight.squeeze(-1),
        suppressed_cas=weight * cas,
        suppressed_coarse_cas=weight * coarse,
        embedding=whole(embedding),
    )


def _with_background(labels: Tensor, present: float) -> Tensor:
    return torch.cat([labels, labels.new_full((len(labels), 1), present)], dim=1)


def _um_margin(dim: int) -> float:
    return 100 * (dim / 2048) ** 0.5


def _largest(values: Tensor, mask: Tensor | None, divisor: int) -> Tensor:
    """(B, T) that averages over the k = max(1, T // divisor) largest of each row, the padding apart."""
    if mask is not None:
        values = values.masked_fill(~mask, -torch.inf)
    length = torch.full_like(values[:, :1], values.shape[1]) if mask is None else mask.sum(dim=1, keepdim=True)
    k = (length // divisor).clamp(min=1)
    rank = values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < k) / k


def _widened(data: VideoSet, targets: Sequence[NDArray[np.int64]]) -> VideoSet:
    pairs = zip(data.features, targets, strict=True)
    rows = [np.concatenate([x, y[:, None]], axis=1, dtype=np.float32) for x, y in pairs]
    return replace(data, features=rows)

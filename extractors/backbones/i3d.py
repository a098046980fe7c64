"""Inception-I3D (Carreira and Zisserman, CVPR 2017) with TensorFlow's SAME padding.

Module names follow the published PyTorch checkpoints (pytorch-i3d), so that those load as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_EPS = 1e-3  # Sonnet's batch norm, with which the weights were trained

# Output channels of the four branches: 1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 | pool -> 1x1.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
FEATURES = 1024
# Where snippets that are seen together part. The layers before it know some ten frames around; those behind it take a
# fifth of the time, so computing them twice costs that much (benchmarks/README.md).
DIVIDED = "MaxPool3d_4a_3x3"


def same_padding(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pad (B, C, L, H, W) with zeros as TensorFlow's SAME does: an odd zero goes to the end.

    Zeros also suit the max pools, whose inputs come from a ReLU and are never below 0.
    """
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


def per_snippet(rows: Tensor, together: int) -> Tensor:
    """The mean of a map (B, D, l) over the time of each of `together` snippets: (B together, D)."""
    return rows.unflatten(2, (together, -1)).mean(3).transpose(1, 2).flatten(0, 1)


class Unit3d(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, self.kernel, self.stride, bias=False)
        self.bn: nn.Module = nn.BatchNorm3d(outputs, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L, H, W) -> (B, C', L/s, H/s, W/s)."""
        if self.kernel == (1, 1, 1) and x.is_cpu and x.is_contiguous(memory_format=torch.channels_last_3d):
            # oneDNN adds up the channels of such a convolution in an order that depends on the number of threads
            # (2e-6 in the features). MKL's matrix products do not, as MKL_CBWR asks of it (extractors/__init__.py).
            rows = F.linear(x.permute(0, 2, 3, 4, 1), self.conv3d.weight.flatten(1), self.conv3d.bias)
            return F.relu_(self.bn(rows.permute(0, 4, 1, 2, 3)))
        return F.relu_(self.bn(self.conv3d(same_padding(x, self.kernel, self.stride))))

    def fold(self) -> None:
        """Fold the batch norm into the convolution, for inference only; a second call does nothing."""
        if isinstance(bn := self.bn, nn.BatchNorm3d):
            assert bn.running_mean is not None and bn.running_var is not None
            # In float64, so that the folded product is rounded only once.
            gain = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
            shift = bn.bias.double() - bn.running_mean.double() * gain
            weight = self.conv3d.weight.double() * gain.view(-1, 1, 1, 1, 1)
            self.conv3d.weight = nn.Parameter(weight.float(), requires_grad=False)
            self.conv3d.bias = nn.Parameter(shift.float(), requires_grad=False)
            self.bn = nn.Identity()


class SamePool3d(nn.Module):
    """Max pooling with SAME padding."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L, H, W) -> (B, C, L/s, H/s, W/s)."""
        return F.max_pool3d(same_padding(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Inception module: four branches side by side, concatenated over channels."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce3b, three_b, pooled = widths
        self.b0 = Unit3d(inputs, one)
        self.b1a, self.b1b = Unit3d(inputs, reduce3), Unit3d(reduce3, three, 3)
        self.b2a, self.b2b = Unit3d(inputs, reduce3b), Unit3d(reduce3b, three_b, 3)
        self.b3a, self.b3b = SamePool3d((3, 3, 3), (1, 1, 1)), Unit3d(inputs, pooled)
        self.outputs = one + three + three_b + pooled

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L, H, W) -> (B, C', L, H, W)."""
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class Logits(nn.Module):
    """The classification head: one 1x1x1 convolution, kept in the published layout."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(FEATURES, classes, 1)


class InceptionI3d(nn.Module):
    """The trunk, from pixels to the 1024-d average pool, and its 400-way Kinetics head."""

    def __init__(self, channels: int = 3, classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3d(channels, 64, 7, stride=2)
        self.MaxPool3d_2a_3x3 = SamePool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3d(64, 64)
        self.Conv3d_2c_3x3 = Unit3d(64, 192, 3)
        self.MaxPool3d_3a_3x3 = SamePool3d((1, 3, 3), (1, 2, 2))
        width = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = SamePool3d((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = SamePool3d((2, 2, 2), (2, 2, 2))
            module = Mixed(width, widths)
            setattr(self, name, module)
            width = module.outputs
        self.logits = Logits(classes)

    def forward(self, x: Tensor, together: int = 1) -> Tensor:
        """Features of snippets.

        x: (B, 3 or 2, L, H, W) in [-1, 1] -> (B, 1024), the mean over time and space of the last inception
        module. With L = 16 and 224 x 224 this equals the published (2, 7, 7) average pool.

        `together`: of how many snippets in a row the L frames are. Their features, (B together, 1024), are half the
        last module's mean over the time of each, and half what the layers from DIVIDED on make of each by itself.
        """
        layers = [(name, module) for name, module in self.named_children() if name != "logits"]
        first = [name for name, _ in layers].index(DIVIDED)
        for _, module in layers[:first]:
            x = module(x)
        rest = nn.Sequential(*(module for _, module in layers[first:]))
        if together == 1:
            return rest(x).mean(dim=(2, 3, 4))
        each = x.unflatten(2, (together, -1)).transpose(1, 2).flatten(0, 1)
        return (per_snippet(rest(x).mean(dim=(3, 4)), together) + rest(each).mean(dim=(2, 3, 4))) / 2

    def classify(self, features: Tensor) -> Tensor:
        """(B, 1024) features -> (B, 400) Kinetics logits."""
        head = self.logits.conv3d
        return F.linear(features, head.weight.flatten(1), head.bias)

    def fold(self) -> InceptionI3d:
        """Fold every batch norm for inference; returns self in eval mode."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Unit3d):
                module.fold()
        return self

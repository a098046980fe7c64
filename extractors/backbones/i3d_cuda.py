"""I3D for a GPU: the same network and weights, as products and 2-D convolutions.

cuDNN is much better at 2-D convolutions in half precision than at 3-D ones. A convolution over time and space is a 2-D
convolution over frames whose channels are those of all the frames in the window: the frames of a window are joined along
their channels first. A 1×1×1 convolution is a matrix product, and those that read the same input are one product.

Frames are (B, L, H, W, C) in memory, which PyTorch calls (B·L, C, H, W) in channels-last order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extractors.backbones.i3d import MIXED, InceptionI3d, Unit3d

ALIGNED = 8  # tensor cores want channels in multiples of 8


def padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: how much before and after."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def windows(x: Tensor, frames: int, kernel: int, stride: int, multiple: int = 1) -> Tensor:
    """Join the frames of each window in time along their channels: (B·L, C, H, W) -> (B·L/s, k·C, H, W).

    Frames before the first and after the last are zeros; zero channels are added up to a multiple of `multiple`.
    """
    _, channels, height, width = x.shape
    before, after = padding(frames, kernel, stride)
    split = x.permute(0, 2, 3, 1).reshape(-1, frames, height, width, channels)
    steps = -(-frames // stride)
    total = -(-kernel * channels // multiple) * multiple
    joined = x.new_zeros(len(split), steps, height, width, total)
    for k in range(kernel):
        # Window t reads frame t·s + k − before, where there is one.
        first = max(-(-(before - k) // stride), 0)
        last = min((frames - 1 + before - k) // stride, steps - 1)
        source = split[:, first * stride + k - before : last * stride + k - before + 1 : stride]
        joined[:, first : last + 1, ..., k * channels : (k + 1) * channels] = source
    return joined.flatten(0, 1).permute(0, 3, 1, 2)


def pool(x: Tensor, frames: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Max pooling with SAME padding, first over space, then over time. Inputs are ≥ 0, so padding never wins."""
    pads = [padding(length, kernel[1], stride[1]) for length in x.shape[2:]]
    if all(before == 0 for before, _ in pads):
        x = F.max_pool2d(x, kernel[1], stride[1], ceil_mode=True)
    else:
        (top, bottom), (left, right) = pads
        x = F.max_pool2d(F.pad(x, (left, right, top, bottom)), kernel[1], stride[1])
    if kernel[0] == 1:
        return x
    before, _ = padding(frames, kernel[0], stride[0])
    steps = -(-frames // stride[0])
    split = x.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
    found = split[:, :: stride[0]].clone(memory_format=torch.contiguous_format)
    for k in range(kernel[0]):
        first = max(-(-(before - k) // stride[0]), 0)
        last = min((frames - 1 + before - k) // stride[0], steps - 1)
        source = split[:, first * stride[0] + k - before : last * stride[0] + k - before + 1 : stride[0]]
        part = found[:, first : last + 1]
        torch.maximum(part, source, out=part)
    return found.flatten(0, 1).permute(0, 3, 1, 2)


class Convolution(nn.Module):
    """A folded Unit3d as a 2-D convolution over joined frames, with ReLU."""

    def __init__(self, unit: Unit3d) -> None:
        super().__init__()
        weight = unit.conv3d.weight.detach()  # (O, C, k, kh, kw)
        outputs, inputs, self.kernel, *_ = weight.shape
        self.stride = int(unit.conv3d.stride[0])
        flat = weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        flat = F.pad(flat, (0, 0, 0, 0, 0, -self.kernel * inputs % ALIGNED))
        self.weight = nn.Parameter(flat.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(_bias(unit), requires_grad=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B·L, C, H, W) -> (B·L/s, O, H/s, W/s)."""
        joined = windows(x, frames, self.kernel, self.stride, ALIGNED)
        (top, bottom), (left, right) = (padding(length, self.kernel, self.stride) for length in x.shape[2:])
        if (top, left) != (bottom, right):
            joined, top, left = F.pad(joined, (left, right, top, bottom)), 0, 0
        return F.conv2d(joined, self.weight, self.bias, self.stride, (top, left)).relu_()


class Product(nn.Module):
    """Folded 1×1×1 Unit3ds that read the same input, as one matrix product, with ReLU."""

    def __init__(self, *units: Unit3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([unit.conv3d.weight.detach().flatten(1) for unit in units]), False)
        self.bias = nn.Parameter(torch.cat([_bias(unit) for unit in units]), False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, H, W)."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).relu_().permute(0, 3, 1, 2)


class Inception(nn.Module):
    """A Mixed module."""

    def __init__(self, mixed: nn.Module) -> None:
        super().__init__()
        parts = dict(mixed.named_children())
        self.read = Product(parts["b0"], parts["b1a"], parts["b2a"])
        self.widths = [parts[name].conv3d.out_channels for name in ("b0", "b1a", "b2a")]
        self.three, self.three_b = Convolution(parts["b1b"]), Convolution(parts["b2b"])
        self.pooled = Product(parts["b3b"])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B·L, C, H, W) -> (B·L, C', H, W)."""
        one, reduced, reduced_b = self.read(x).split(self.widths, 1)
        branches = (self.three(reduced, frames), self.three_b(reduced_b, frames))
        return torch.cat([one, *branches, self.pooled(pool(x, frames, (3, 3, 3), (1, 1, 1)))], 1)


class PlanarI3d(nn.Module):
    """InceptionI3d's trunk, made from a folded one, whose weights it copies."""

    def __init__(self, net: InceptionI3d) -> None:
        super().__init__()
        self.stem, self.second = Convolution(net.Conv3d_1a_7x7), Product(net.Conv3d_2b_1x1)
        self.third = Convolution(net.Conv3d_2c_3x3)
        self.mixed = nn.ModuleDict({name: Inception(getattr(net, name)) for name in MIXED})
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3 or 2, L, H, W) in [-1, 1] -> (B, 1024)."""
        batch, frames = x.shape[0], x.shape[2]
        x = x.permute(0, 2, 1, 3, 4).flatten(0, 1)
        x = self.stem(x, frames)
        frames = -(-frames // 2)
        x = self.second(pool(x, frames, (1, 3, 3), (1, 2, 2)))
        x = pool(self.third(x, frames), frames, (1, 3, 3), (1, 2, 2))
        for name, mixed in self.mixed.items():
            if name in ("Mixed_4b", "Mixed_5b"):
                size = 3 if name == "Mixed_4b" else 2
                x = pool(x, frames, (size, size, size), (2, 2, 2))
                frames = -(-frames // 2)
            x = mixed(x, frames)
        return x.float().mean((2, 3)).unflatten(0, (batch, -1)).mean(1)


def _bias(unit: Unit3d) -> Tensor:
    bias = unit.conv3d.bias
    assert bias is not None, "the batch norm is folded first"
    return bias.detach()

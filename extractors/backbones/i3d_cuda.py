"""I3D for a GPU: the same network and weights, as products and 2-D convolutions.

cuDNN is much better at 2-D convolutions in half precision than at 3-D ones. A convolution over time and space is a 2-D
convolution over frames whose channels are those of all the frames in the window: the frames of a window are joined along
their channels first. A 1×1×1 convolution is a matrix product, and those that read the same input are one product.

Everything between the layers is (B, L, H, W, C).
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


def taps(frames: int, kernel: int, stride: int) -> list[tuple[slice, slice]]:
    """For each place k in a window: the windows that have a frame there, and those frames."""
    before, _ = padding(frames, kernel, stride)
    steps, found = -(-frames // stride), []
    for k in range(kernel):
        # Window t reads frame t·s + k − before, where there is one.
        first = max(-(-(before - k) // stride), 0)
        last = min((frames - 1 + before - k) // stride, steps - 1)
        begin = first * stride + k - before
        found.append((slice(first, last + 1), slice(begin, begin + (last - first) * stride + 1, stride)))
    return found


def joined(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Join the frames of each window in time along their channels: (B, L, H, W, C) -> (B, L/s, H, W, k·C).

    Frames before the first and after the last are zeros; zero channels are added up to a multiple of ALIGNED.
    """
    batch, frames, height, width, channels = x.shape
    steps = -(-frames // stride)
    found = x.new_empty(batch, steps, height, width, -(-kernel * channels // ALIGNED) * ALIGNED)
    found[..., kernel * channels :] = 0
    if channels < ALIGNED:  # the stem: time next to the channels first, so that a copy moves more than a few bytes at a time
        padded = F.pad(x.permute(0, 2, 3, 1, 4), (0, 0, *padding(frames, kernel, stride)))  # (B, H, W, L + p, C)
        windows = padded.unfold(3, kernel, stride).permute(0, 3, 1, 2, 5, 4)  # (B, L/s, H, W, k, C)
        found[..., : kernel * channels].unflatten(-1, (kernel, channels)).copy_(windows)
        return found
    for k, (into, source) in enumerate(taps(frames, kernel, stride)):
        part = found[..., k * channels : (k + 1) * channels]
        part[:, : into.start] = 0
        part[:, into] = x[:, source]
        part[:, into.stop :] = 0
    return found


def pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Max pooling with SAME padding of (B, L, H, W, C), one axis after the other.

    Inputs are ≥ 0, so the zeros of the padding never win. (PyTorch's own pooling of channels-last tensors took a quarter
    of the network's time on an H200.)
    """
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=1):
        if k == 1:
            continue
        parts = [(into, x[(slice(None),) * axis + (source,)]) for into, source in taps(x.shape[axis], k, s)]
        steps = -(-x.shape[axis] // s)
        full = [part for into, part in parts if (into.start, into.stop) == (0, steps)]
        rest = [(into, part) for into, part in parts if (into.start, into.stop) != (0, steps)]
        found = torch.maximum(full[0], full[1]) if len(full) > 1 else full[0].clone(memory_format=torch.contiguous_format)
        for part in full[2:]:
            torch.maximum(found, part, out=found)
        for into, part in rest:
            target = found[(slice(None),) * axis + (into,)]
            torch.maximum(target, part, out=target)
        x = found
    return x


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

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H, W, C) -> (B, L/s, H/s, W/s, O)."""
        frames = joined(x, self.kernel, self.stride)
        images = frames.flatten(0, 1).permute(0, 3, 1, 2)  # (B·L/s, k·C, H, W), channels last
        (top, bottom), (left, right) = (padding(length, self.kernel, self.stride) for length in images.shape[2:])
        if (top, left) != (bottom, right):
            images, top, left = F.pad(images, (left, right, top, bottom)), 0, 0
        found = F.conv2d(images, self.weight, self.bias, self.stride, (top, left)).relu_()
        return found.permute(0, 2, 3, 1).unflatten(0, frames.shape[:2])


class Product(nn.Module):
    """Folded 1×1×1 Unit3ds that read the same input, as one matrix product, with ReLU."""

    def __init__(self, *units: Unit3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([unit.conv3d.weight.detach().flatten(1) for unit in units]), False)
        self.bias = nn.Parameter(torch.cat([_bias(unit) for unit in units]), False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., O)."""
        return F.linear(x, self.weight, self.bias).relu_()


class Inception(nn.Module):
    """A Mixed module."""

    def __init__(self, mixed: nn.Module) -> None:
        super().__init__()
        parts = dict(mixed.named_children())
        self.read = Product(parts["b0"], parts["b1a"], parts["b2a"])
        self.widths = [parts[name].conv3d.out_channels for name in ("b0", "b1a", "b2a")]
        self.three, self.three_b = Convolution(parts["b1b"]), Convolution(parts["b2b"])
        self.pooled = Product(parts["b3b"])

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H, W, C) -> (B, L, H, W, C')."""
        one, reduced, reduced_b = self.read(x).split(self.widths, -1)
        pooled = self.pooled(pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([one, self.three(reduced), self.three_b(reduced_b), pooled], -1)


class PlanarI3d(nn.Module):
    """InceptionI3d's trunk, made from a folded one, whose weights it copies."""

    def __init__(self, net: InceptionI3d) -> None:
        super().__init__()
        self.stem, self.second = Convolution(net.Conv3d_1a_7x7), Product(net.Conv3d_2b_1x1)
        self.third = Convolution(net.Conv3d_2c_3x3)
        self.mixed = nn.ModuleDict({name: Inception(getattr(net, name)) for name in MIXED})
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3 or 2, L, H, W) in [-1, 1] -> (B, 1024) float32."""
        x = self.stem(x.permute(0, 2, 3, 4, 1))
        x = self.second(pool(x, (1, 3, 3), (1, 2, 2)))
        x = pool(self.third(x), (1, 3, 3), (1, 2, 2))
        for name, mixed in self.mixed.items():
            if name in ("Mixed_4b", "Mixed_5b"):
                size = 3 if name == "Mixed_4b" else 2
                x = pool(x, (size, size, size), (2, 2, 2))
            x = mixed(x)
        return x.float().mean((1, 2, 3))


def _bias(unit: Unit3d) -> Tensor:
    bias = unit.conv3d.bias
    assert bias is not None, "the batch norm is folded first"
    return bias.detach()

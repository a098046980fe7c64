"""I3D for a GPU: the same network and weights, as products and 2-D convolutions.

cuDNN is much better at 2-D convolutions in half precision than at 3-D ones. A convolution over time and space is a 2-D
convolution over frames whose channels are those of all the frames in its window, which are joined first. A 1×1×1
convolution is a matrix product, and those that read the same input are one product.

Between the layers everything is (B, L, H, W, C), and the ReLU of a layer is taken by whatever reads it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extractors import nvrtc
from extractors.backbones.i3d import MIXED, InceptionI3d, Unit3d, per_snippet

SOURCE = Path(__file__).with_suffix(".cu")
ALIGNED = 8  # channels: tensor cores want multiples of 8, and the kernels move 16 bytes
THREADS = 256  # in a block
Three = tuple[int, int, int]


def padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: how much before and after."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class Torch:
    """What moves pictures, in plain PyTorch: for a CPU, and for tests of the kernels."""

    def pool(self, x: Tensor, kernel: Three, stride: Three) -> Tensor:
        """Max pooling of ReLU(x) with SAME padding: (B, L, H, W, C) -> (B, L/s, H/s, W/s, C)."""
        pads = [
            pad for n, k, s in zip(x.shape[3:0:-1], kernel[::-1], stride[::-1], strict=True) for pad in padding(n, k, s)
        ]
        channels_first = F.pad(x.relu().permute(0, 4, 1, 2, 3), pads)
        return F.max_pool3d(channels_first, kernel, stride).permute(0, 2, 3, 4, 1).contiguous()

    def join(self, x: Tensor, kernel: int, stride: int) -> Tensor:
        """Join the frames of each window of ReLU(x) along their channels: (B, L, H, W, C) -> (B, L/s, H, W, k·C).

        Frames before the first and after the last are zeros (SAME padding).
        """
        padded = F.pad(x.relu(), (0, 0, 0, 0, 0, 0, *padding(x.shape[1], kernel, stride)))
        return padded.unfold(1, kernel, stride).transpose(-1, -2).flatten(-2).contiguous()

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """ReLU of several (B, L, H, W, C), one behind the other along their channels."""
        return torch.cat([part.relu() for part in parts], -1)


class Pool(ctypes.Structure):
    """The last argument of the kernel `pool`."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("frames", "height", "width", "vectors", "steps", "rows", "columns")),
        *((name, ctypes.c_int * 3) for name in ("kernel", "stride", "before")),
        ("total", ctypes.c_longlong),
    )


class Join(ctypes.Structure):
    """The last argument of the kernel `join`."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("frames", "pixels", "vectors", "pitch", "first", "steps", "kernel")),
        *((name, ctypes.c_int) for name in ("stride", "before", "target_pitch", "target_first")),
        ("total", ctypes.c_longlong),
    )


class Kernels:
    """The same by the kernels of i3d_cuda.cu. Channels must be in multiples of ALIGNED."""

    def pool(self, x: Tensor, kernel: Three, stride: Three) -> Tensor:
        """As Torch.pool; x must be contiguous."""
        batch, *sizes, channels = x.shape
        steps = [-(-n // s) for n, s in zip(sizes, stride, strict=True)]
        found = x.new_empty(batch, *steps, channels)
        before = [padding(n, k, s)[0] for n, k, s in zip(sizes, kernel, stride, strict=True)]
        vectors = channels * x.element_size() // 16
        triples = ((ctypes.c_int * 3)(*values) for values in (kernel, stride, before))
        total = found.numel() * x.element_size() // 16
        self._launch("pool", x, found, Pool(*sizes, vectors, *steps, *triples, total))
        return found

    def join(self, x: Tensor, kernel: int, stride: int) -> Tensor:
        """As Torch.join; x may be some of the channels of a contiguous tensor."""
        batch, frames, height, width, channels = x.shape
        steps = -(-frames // stride)
        found = x.new_empty(batch, steps, height, width, kernel * channels)
        self._join(x, found, 0, kernel, stride)
        return found

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """As Torch.gather; each part may be some of the channels of a contiguous tensor."""
        found = parts[0].new_empty(*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        first = 0
        for part in parts:
            self._join(part, found, first, 1, 1)
            first += part.shape[-1]
        return found

    def _join(self, x: Tensor, found: Tensor, first: int, kernel: int, stride: int) -> None:
        batch, frames, height, width, channels = x.shape
        each = 16 // x.element_size()  # numbers in a vector
        steps, vectors, pixels = -(-frames // stride), channels // each, height * width
        self._launch(
            "join",
            x,
            found,
            Join(
                *(frames, pixels, vectors, x.stride(3) // each, 0, steps, kernel, stride),
                *(padding(frames, kernel, stride)[0], found.shape[-1] // each, first // each),
                batch * steps * pixels * kernel * vectors,
            ),
        )

    def _launch(self, name: str, x: Tensor, found: Tensor, plan: Any) -> None:
        wide = x.element_size() == 4
        arguments = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(found.data_ptr()), plan)
        macros = (("THREADS", str(THREADS)), *((("WIDE", "1"),) if wide else ()))
        nvrtc.launch(SOURCE, name, x.device, -(-plan.total // THREADS), arguments, macros)


class Convolution(nn.Module):
    """A folded Unit3d as a 2-D convolution over joined frames; its ReLU is left to the next layer."""

    def __init__(self, unit: Unit3d) -> None:
        super().__init__()
        weight = unit.conv3d.weight.detach()  # (O, C, k, kh, kw)
        inputs, self.kernel = weight.shape[1:3]
        self.stride = int(unit.conv3d.stride[0])
        flat = weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        flat = F.pad(flat, (0, 0, 0, 0, 0, -self.kernel * inputs % ALIGNED))
        self.weight = nn.Parameter(flat.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(_bias(unit), requires_grad=False)

    def forward(self, joined: Tensor, padded: bool = False) -> Tensor:
        """(B, L/s, H, W, k·C) -> (B, L/s, H/s, W/s, O). `padded`: the pictures have their padding already."""
        images = joined.flatten(0, 1).permute(0, 3, 1, 2)  # (B·L/s, k·C, H, W), channels last
        edge = 0 if padded else self.kernel // 2
        found = F.conv2d(images, self.weight, self.bias, self.stride, edge)
        return found.permute(0, 2, 3, 1).unflatten(0, joined.shape[:2])

    def windows(self, x: Tensor) -> Tensor:
        """What the stem reads, from (B, 3 or 2, L, H, W): joined frames with their padding, and zeros up to ALIGNED.

        Three channels are too few for `join`: time comes next to the channels first, so that a copy moves more than a
        few bytes at a time.
        """
        pads = [pad for n in x.shape[2:] for pad in padding(n, self.kernel, self.stride)]
        time, across = pads[:2], (*pads[4:], *pads[2:4])
        near = F.pad(x.permute(0, 3, 4, 2, 1), (0, 0, *time, *across))  # (B, H + p, W + p, L + p, C)
        windows = near.unfold(3, self.kernel, self.stride).permute(0, 3, 1, 2, 5, 4)  # (B, L/s, H + p, W + p, k, C)
        used = self.kernel * x.shape[1]
        found = x.new_zeros(*windows.shape[:4], self.weight.shape[1])
        found[..., :used].unflatten(-1, (self.kernel, x.shape[1])).copy_(windows)
        return found


class Product(nn.Module):
    """Folded 1×1×1 Unit3ds that read the same input, as one matrix product; their ReLU is left to the next layer."""

    def __init__(self, *units: Unit3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([unit.conv3d.weight.detach().flatten(1) for unit in units]), False)
        self.bias = nn.Parameter(torch.cat([_bias(unit) for unit in units]), False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., O)."""
        return F.linear(x, self.weight, self.bias)


class Inception(nn.Module):
    """A Mixed module."""

    def __init__(self, mixed: nn.Module) -> None:
        super().__init__()
        parts: dict[str, Any] = dict(mixed.named_children())
        self.read = Product(parts["b0"], parts["b1a"], parts["b2a"])
        self.widths = [parts[name].conv3d.out_channels for name in ("b0", "b1a", "b2a")]
        self.three, self.three_b = Convolution(parts["b1b"]), Convolution(parts["b2b"])
        self.pooled = Product(parts["b3b"])

    def forward(self, x: Tensor, by: Torch | Kernels) -> Tensor:
        """(B, L, H, W, C) after a ReLU -> (B, L, H, W, C') after a ReLU."""
        one, reduced, reduced_b = self.read(x).split(self.widths, -1)
        three, three_b = self.three(by.join(reduced, 3, 1)), self.three_b(by.join(reduced_b, 3, 1))
        return by.gather([one, three, three_b, self.pooled(by.pool(x, (3, 3, 3), (1, 1, 1)))])


class PlanarI3d(nn.Module):
    """InceptionI3d's trunk, made from a folded one, whose weights it copies."""

    def __init__(self, net: InceptionI3d) -> None:
        super().__init__()
        self.stem, self.second = Convolution(net.Conv3d_1a_7x7), Product(net.Conv3d_2b_1x1)
        self.third = Convolution(net.Conv3d_2c_3x3)
        self.mixed = nn.ModuleDict({name: Inception(getattr(net, name)) for name in MIXED})
        self.eval()

    def forward(self, x: Tensor, together: int = 1) -> Tensor:
        """(B, 3 or 2, L, H, W) in [-1, 1] -> (B together, 1024) float32, as InceptionI3d."""
        x = x.to(self.stem.weight.dtype)
        by = Kernels() if x.is_cuda else Torch()
        x = by.pool(self.stem(self.stem.windows(x), padded=True), (1, 3, 3), (1, 2, 2))
        x = self.third(by.join(self.second(x), 3, 1))
        x = by.pool(x, (1, 3, 3), (1, 2, 2))
        for name in ("Mixed_3b", "Mixed_3c"):
            x = self.mixed[name](x, by)
        if together == 1:
            return self._rest(x, by).mean((1, 2, 3))
        each = x.unflatten(1, (together, -1)).flatten(0, 1)
        whole = per_snippet(self._rest(x, by).mean((2, 3)).transpose(1, 2), together)
        return (whole + self._rest(each, by).mean((1, 2, 3))) / 2

    def _rest(self, x: Tensor, by: Torch | Kernels) -> Tensor:
        """The layers from i3d.DIVIDED on: (B, L, H, W, C) -> (B, L/4, H/4, W/4, 1024) float32."""
        for name, mixed in list(self.mixed.items())[2:]:
            if name in ("Mixed_4b", "Mixed_5b"):
                size = 3 if name == "Mixed_4b" else 2
                x = by.pool(x, (size, size, size), (2, 2, 2))
            x = mixed(x, by)
        return x.float()


def _bias(unit: Unit3d) -> Tensor:
    bias = unit.conv3d.bias
    assert bias is not None, "the batch norm is folded first"
    return bias.detach()

"""InceptionI3d as an OpenVINO graph, built operation by operation from the folded weights.

OpenVINO's own converter (`openvino.tools.ovc`) is not used: it reports each use to its makers, and it is slow to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from extractors.backbones.i3d import DIVIDED, FEATURES, InceptionI3d, SamePool3d, Unit3d
from extractors.backbones.runtime import openvino

Ranges = Mapping[str, Sequence[float]]
LEVELS = 256  # of an int8 unit's input
WEIGHT_MOST = 127


def build(net: InceptionI3d, shape: tuple[int, ...], ranges: Ranges | None = None, together: int = 1) -> Any:
    """The graph of a folded network.

    Args:
        shape: that of its input, (B, C, L, H, W). A dimension of -1 may have any size.
        ranges: by the name of a layer that shall run in int8, the least and the largest value of its input. Such an
            input is rounded to 256 levels, and the weights behind it to 255 levels from minus to plus the largest of
            each output channel. This is NNCF's scheme (Kozlov et al., 2020), and OpenVINO computes it in int8.
        together: of how many snippets the L frames are, see InceptionI3d; with several, B must be 1.

    Returns:
        An openvino.Model: (B, C, L, H, W) in [-1, 1] -> (B together, 1024).
    """
    return _Builder(ranges or {}).model(net, shape, together)


class _Builder:
    def __init__(self, ranges: Ranges) -> None:
        self.ops, self.ranges = openvino().opset13, ranges

    def model(self, net: InceptionI3d, shape: tuple[int, ...], together: int) -> Any:
        ops = self.ops
        pixels = ops.parameter(openvino().PartialShape(list(shape)), np.float32, name="pixels")
        layers = [(name, module) for name, module in net.named_children() if name != "logits"]
        first = [name for name, _ in layers].index(DIVIDED)
        x = self.trunk(layers, range(first), self.rounded(layers[0][0], pixels))
        rest = range(first, len(layers))
        if together == 1:
            found = self.mean(self.trunk(layers, rest, x), 2, 3, 4)
        else:
            parts = ops.split(x, np.int64(2), together)
            each = ops.concat([parts.output(k) for k in range(together)], 0)
            over_time = ops.reshape(self.mean(self.trunk(layers, rest, x), 3, 4), [FEATURES, together, -1], False)
            whole = ops.transpose(self.mean(over_time, 2), [1, 0])
            found = ops.multiply(ops.add(whole, self.mean(self.trunk(layers, rest, each), 2, 3, 4)), np.float32(0.5))
        return openvino().Model([found], [pixels], "i3d")

    def trunk(self, layers: Sequence[tuple[str, Any]], span: range, x: Any) -> Any:
        """Some of the layers, one after the other."""
        for i in span:
            name, module = layers[i]
            if isinstance(module, SamePool3d):
                x = self.pool(module, x)
                continue
            x = self.unit(name, module, x) if isinstance(module, Unit3d) else self.mixed(name, module, x)
            # Rounded before a pool, not behind it: the values are the same, and the pool then runs in int8.
            later = (name for name, module in layers[i + 1 :] if not isinstance(module, SamePool3d))
            x = self.rounded(next(later, ""), x)
        return x

    def mean(self, x: Any, *axes: int) -> Any:
        return self.ops.reduce_mean(x, np.array(axes, np.int64), keep_dims=False)

    def mixed(self, name: str, module: Any, x: Any) -> Any:
        def unit(branch: str, y: Any) -> Any:
            return self.unit(f"{name}.{branch}", getattr(module, branch), y)

        branches = (
            unit("b0", x),
            unit("b1b", self.rounded(f"{name}.b1b", unit("b1a", x))),
            unit("b2b", self.rounded(f"{name}.b2b", unit("b2a", x))),
            unit("b3b", self.pool(module.b3a, x)),
        )
        return self.ops.concat(list(branches), 1)

    def unit(self, name: str, unit: Unit3d, x: Any) -> Any:
        """Convolution, bias, ReLU."""
        weight, bias = np.ascontiguousarray(unit.conv3d.weight.detach().numpy()), unit.conv3d.bias
        assert bias is not None, "the network must be folded"
        kernel = self.int8(weight) if self.entry(name) in self.ranges else self.ops.constant(weight)
        stride, none, one = list(unit.stride), [0, 0, 0], [1, 1, 1]
        y = self.ops.convolution(x, kernel, stride, none, none, one, "SAME_UPPER", name=f"{name}.conv")
        return self.ops.relu(self.ops.add(y, self.ops.constant(bias.detach().numpy().reshape(1, -1, 1, 1, 1))))

    def rounded(self, name: str, x: Any) -> Any:
        """The input of a layer, rounded to the levels of its range; as it is for a layer without one."""
        if name not in self.ranges:
            return x
        low, high = map(np.float32, self.ranges[name])
        return self.ops.fake_quantize(x, low, high, low, high, LEVELS)

    def entry(self, name: str) -> str:
        """The layer at whose input a unit's input is rounded: the four branches of a module share theirs."""
        module, _, branch = name.partition(".")
        return name if branch in ("", "b1b", "b2b") else module

    def int8(self, weight: np.ndarray) -> Any:
        """Weights as int8, times the scale of each output channel."""
        most = np.abs(weight).max(axis=(1, 2, 3, 4), keepdims=True)
        # Step by step as NNCF computes it, so that both round the same weights up.
        whole = np.rint((weight + most) / (most * 2) * np.float32(2 * WEIGHT_MOST)) - WEIGHT_MOST
        scale = self.ops.constant(most / np.float32(WEIGHT_MOST))
        return self.ops.multiply(self.ops.convert(self.ops.constant(whole.astype(np.int8)), np.float32), scale)

    def pool(self, pool: SamePool3d, x: Any) -> Any:
        kernel, stride, none, one = list(pool.kernel), list(pool.stride), [0, 0, 0], [1, 1, 1]
        return self.ops.max_pool(x, stride, one, none, none, kernel, "floor", "SAME_UPPER", "i64").output(0)

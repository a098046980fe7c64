"""Inception-I3D against plain NumPy, and the real weights against a real clip."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from extractors.backbones import registry, weights
from extractors.backbones.i3d import BN_EPS, FEATURES, InceptionI3d, Mixed, SamePool3d, Unit3d, same_padding
from extractors.config import FeatureConfig
from extractors.decode.grid import Frames
from extractors.inputs.host import rgb_input
from extractors.snippets import snippets

Array = np.ndarray
sizes = st.tuples(*[st.integers(1, 9)] * 3)
kernels = st.tuples(*[st.integers(1, 7)] * 3)
steps = st.tuples(*[st.integers(1, 3)] * 3)


def pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's documentation of SAME, by remainder."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def same(x: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    widths = [pads(n, k, s) for n, k, s in zip(x.shape[1:], kernel, stride, strict=True)]
    return np.pad(x, [(0, 0), *widths])


def windows(x: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[tuple[int, ...], Array]]:
    """(place in the output, input patch (C, kernel)) of a padded (C, L, H, W)."""
    places = [range((n - k) // s + 1) for n, k, s in zip(x.shape[1:], kernel, stride, strict=True)]
    cut = []
    for place in itertools.product(*places):
        slices = tuple(slice(i * s, i * s + k) for i, s, k in zip(place, stride, kernel, strict=True))
        cut.append((place, x[(slice(None), *slices)]))
    return cut


def convolution(x: Array, weight: Array, stride: tuple[int, ...]) -> Array:
    """(C, L, H, W) float64, weight (C', C, kernel) -> (C', L', H', W')."""
    kernel = weight.shape[2:]
    out = np.zeros((len(weight), *[-(-n // s) for n, s in zip(x.shape[1:], stride, strict=True)]))
    for place, patch in windows(same(x, kernel, stride), kernel, stride):
        out[(slice(None), *place)] = (weight * patch).sum(axis=(1, 2, 3, 4))
    return out


def pooled(x: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    out = np.zeros((len(x), *[-(-n // s) for n, s in zip(x.shape[1:], stride, strict=True)]))
    for place, patch in windows(same(x, kernel, stride), kernel, stride):
        out[(slice(None), *place)] = patch.max(axis=(1, 2, 3))
    return out


def unit(x: Array, module: Unit3d) -> Array:
    """Convolution, normalisation by the running statistics, ReLU, in float64."""
    norm = module.bn
    assert isinstance(norm, nn.BatchNorm3d)
    y = convolution(x, module.conv3d.weight.detach().double().numpy(), module.stride)
    mean, variance, gain, shift = (
        t.detach().double().numpy()[:, None, None, None]
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return np.maximum((y - mean) / np.sqrt(variance + 1e-3) * gain + shift, 0)


def shake(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep the signal alive, and random batch-norm statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan) ** 0.5, generator=generator)
        if isinstance(module, nn.BatchNorm3d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return net.eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(sizes, kernels, steps)
def test_same_padding_is_tensorflows(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
    x = noise(1, 2, *size)
    np.testing.assert_array_equal(same_padding(x, kernel, stride)[0].numpy(), same(x[0].numpy(), kernel, stride))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 7, 2, (2, 3)), (112, 3, 2, (0, 1)), (16, 7, 2, (2, 3)), (15, 3, 2, (1, 1)), (7, 2, 2, (0, 1))],
)
def test_the_odd_row_of_padding_goes_behind(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    padded = same_padding(torch.ones(1, 1, size, 1, 1), (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    inside = torch.nonzero(padded)[:, 0]
    assert (int(inside[0]), len(padded) - 1 - int(inside[-1])) == expected


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 6)] * 3),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_unit3d_is_a_convolution(size: tuple[int, ...], kernel: int, stride: int, seed: int) -> None:
    module = shake(Unit3d(2, 3, kernel, stride), seed)
    x = noise(1, 2, *size, seed=seed)
    with torch.no_grad():
        out = module(x)[0].numpy()
    np.testing.assert_allclose(out, unit(x[0].double().numpy(), module), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(sizes, st.sampled_from([(1, 3, 3), (3, 3, 3), (2, 2, 2)]), st.sampled_from([(1, 2, 2), (2, 2, 2), (1, 1, 1)]))
def test_pooling(size: tuple[int, ...], kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    x = noise(1, 2, *size).relu()
    np.testing.assert_array_equal(SamePool3d(kernel, stride)(x)[0].numpy(), pooled(x[0].numpy(), kernel, stride))


def test_inception_module() -> None:
    module = shake(Mixed(4, (3, 2, 5, 3, 2, 4)))
    x = noise(1, 4, 3, 4, 5).relu()
    with torch.no_grad():
        out = module(x)[0].numpy()
    given_ = x[0].double().numpy()
    branches = [
        unit(given_, module.b0),
        unit(unit(given_, module.b1a), module.b1b),
        unit(unit(given_, module.b2a), module.b2b),
        unit(pooled(given_, (3, 3, 3), (1, 1, 1)), module.b3b),
    ]
    np.testing.assert_allclose(out, np.concatenate(branches), atol=1e-5)
    assert len(out) == module.outputs == 14


@pytest.mark.parametrize("channels", [3, 2])
def test_fold_changes_nothing(channels: int) -> None:
    net = shake(InceptionI3d(channels))
    x = noise(2, channels, 8, 64, 64).clamp(-1, 1)
    with torch.no_grad():
        before = net(x)
        folded = net.fold()
        after = folded(x)
        assert folded is net
        assert not any(isinstance(m, nn.BatchNorm3d) for m in net.modules())
        again = net.fold()(x)
    assert before.shape == (2, FEATURES)
    assert before.std() > 0.01  # the comparison is of something
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-5 * float(before.abs().max()))
    np.testing.assert_array_equal(again.numpy(), after.numpy())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_snippets_place_in_the_batch_changes_no_bit(threads: int) -> None:
    """Chunks begin at any snippet, so the same one is now the first, now the second of a batch, or its own copy."""
    net = shake(InceptionI3d()).fold().to(memory_format=torch.channels_last_3d)
    one, other = noise(1, 3, 16, 64, 64), noise(1, 3, 16, 64, 64, seed=2)
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            first, second, copies = (
                net(torch.cat(pair).contiguous(memory_format=torch.channels_last_3d))
                for pair in ((one, other), (other, one), (one, one))
            )
    finally:
        torch.set_num_threads(1)
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])
    assert torch.equal(copies[0], first[0])
    assert torch.equal(copies[1], first[0])


@pytest.mark.parametrize("shape", [(16, 32, 32), (1, 33, 65), (17, 64, 32)])
def test_any_size_gives_1024_numbers(shape: tuple[int, int, int]) -> None:
    net = shake(InceptionI3d(2)).fold()
    with torch.no_grad():
        out = net(noise(1, 2, *shape))
        assert out.shape == (1, FEATURES)
        assert net.classify(out).shape == (1, 400)
    assert torch.isfinite(out).all()


def test_the_network_shrinks_as_the_paper_says() -> None:
    """16 x 224 x 224 ends as 2 x 7 x 7 (Carreira and Zisserman, figure 3); told from shapes alone."""
    with torch.device("meta"):
        net, x = InceptionI3d(), torch.empty(1, 3, 16, 224, 224)
    shapes = {}
    for name, module in net.named_children():
        if name != "logits":
            x = module(x)
            shapes[name] = tuple(x.shape[1:])
    assert shapes["Conv3d_1a_7x7"] == (64, 8, 112, 112)
    assert shapes["MaxPool3d_3a_3x3"] == (192, 8, 28, 28)
    assert shapes["Mixed_4f"] == (832, 4, 14, 14)
    assert shapes["Mixed_5c"] == (1024, 2, 7, 7)
    assert BN_EPS == 1e-3
    pools = {n: (m.kernel, m.stride) for n, m in net.named_children() if isinstance(m, SamePool3d)}
    assert pools == {
        "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
        "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
        "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
        "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    }


def test_classify_is_the_head() -> None:
    net = InceptionI3d(classes=7)
    features = noise(3, FEATURES)
    head = net.logits.conv3d
    with torch.no_grad():
        found = net.classify(features).numpy()
    expected = features.numpy() @ head.weight.detach().numpy()[:, :, 0, 0, 0].T + head.bias.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_the_real_head_names_a_real_clip(corpus: Path) -> None:
    """One snippet from the middle of a golf swing, pixels to name; and the mean is the published average pool."""
    net = registry.find("i3d", "rgb").load()
    assert isinstance(net, InceptionI3d)
    config = FeatureConfig()
    with Frames(corpus / "GolfSwing" / "GolfSwing_001.mp4", config.fps, config.short_side) as frames:
        snippet = next(snippets(frames.grid(32, 48), length=16, stride=16))
    x = rgb_input(snippet.frames, config).unsqueeze(0)
    assert x.shape == (1, 3, 16, 224, 224)
    assert x.min() >= -1
    assert x.max() <= 1
    with torch.inference_mode():
        deepest = x
        for name, module in net.named_children():
            if name != "logits":
                deepest = module(deepest)
        features = nn.AvgPool3d((2, 7, 7))(deepest).flatten(1)
        assert deepest.shape[2:] == (2, 7, 7)
        np.testing.assert_allclose(net.classify(features), net.classify(deepest.mean(dim=(2, 3, 4))), atol=1e-4)
        best = net.classify(features).softmax(1)[0].topk(1)
    name = weights.kinetics400_names()[int(best.indices[0])]
    assert "golf" in name
    assert best.values[0] > 0.5


@pytest.mark.parametrize(("inputs", "outputs", "size"), [(256, 128, 28), (480, 192, 14), (832, 48, 7)])
def test_pointwise_convolutions_give_the_same_bytes_for_any_number_of_threads(
    inputs: int, outputs: int, size: int
) -> None:
    torch.manual_seed(0)
    unit = Unit3d(inputs, outputs).eval()
    unit.fold()
    unit.to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, inputs, 2, size, size).relu().contiguous(memory_format=torch.channels_last_3d)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append(unit(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        plain = unit(x.contiguous())  # by the convolution
    torch.testing.assert_close(found[0], plain, atol=1e-5, rtol=1e-5)

"""The embedded model: exactly the head, and an actionness that is what its docstring says."""

import numpy as np
import pytest
import torch

from extractors import backbones, weights
from model import kinetics
from model.checkpoint import fingerprint
from model.predict import predict


@pytest.fixture(scope="module")
def head() -> tuple[torch.Tensor, torch.Tensor]:
    """A head with the published one's shape and scale."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(400, 1024, generator=generator) * 0.3, torch.randn(400, generator=generator)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """(T, 1024), never negative, like means of ReLUs."""
    return np.random.default_rng(5).gamma(0.5, 0.6, (9, 1024)).astype(np.float32)


def test_the_cas_is_the_head_and_actionness_its_summed_evidence(head, features) -> None:
    weight, bias = head
    checkpoint = kinetics.build(weight, bias, weights.kinetics400_names(), "sha256:0")
    scores = predict(checkpoint.build(), features)
    logits = features.astype(np.float64) @ weight.numpy().T.astype(np.float64) + bias.numpy()
    assert np.allclose(scores.cas[:, :400], logits, atol=1e-3)
    assert (scores.cas[:, 400] == kinetics.BACKGROUND).all()
    assert np.array_equal(scores.coarse_cas, scores.cas)
    evidence = np.maximum(logits - kinetics.EVIDENCE, 0).sum(axis=1)
    expected = 1 / (1 + np.exp(kinetics.OFFSET - evidence))
    assert np.allclose(scores.actionness, expected, atol=2e-3)


def test_silence_is_background(head) -> None:
    weight, bias = head
    checkpoint = kinetics.build(weight, bias * 0, weights.kinetics400_names(), "sha256:0")
    scores = predict(checkpoint.build(), np.zeros((4, 1024), np.float32))
    assert (scores.cas.argmax(axis=1) == 400).all()
    assert (scores.actionness < 0.2).all()


def test_sports_are_classes_each_in_one_group() -> None:
    names, groups = set(weights.kinetics400_names()), kinetics.sports_groups()
    assert len(names) == 400
    assert set(groups) <= names
    assert groups["dunking basketball"] == groups["playing basketball"] == "basketball"


def test_another_head_is_another_model(head) -> None:
    weight, bias = head
    names = weights.kinetics400_names()
    first = kinetics.build(weight, bias, names, "sha256:0")
    assert fingerprint(first) == fingerprint(kinetics.build(weight.clone(), bias.clone(), names, "sha256:0"))
    assert fingerprint(first) != fingerprint(kinetics.build(weight, bias + 1e-3, names, "sha256:0"))


def test_the_real_head_gives_the_shipped_model() -> None:
    if weights.find("i3d-rgb") is None:
        pytest.skip("the I3D weights are not installed (python cli.py models fetch i3d-rgb)")
    weight, bias, identity = backbones.i3d_head()
    layer = backbones.find("i3d", "rgb").load().get_submodule("logits.conv3d")
    assert torch.equal(weight, layer.get_parameter("weight").flatten(1))
    assert torch.equal(bias, layer.get_parameter("bias"))
    checkpoint = kinetics.build(weight, bias, weights.kinetics400_names(), identity)
    assert checkpoint.features["rgb"]["weights"] == f"sha256:{weights.WEIGHTS['i3d-rgb'].sha256}"
    assert checkpoint.streams == ("rgb",)

"""Scores of a video, and ten hours of it in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.jcdnet import JCDNet
from model.predict import PredictError, Scores, predict

torch.set_num_threads(1)


@pytest.fixture
def net() -> JCDNet:
    torch.manual_seed(0)
    net = JCDNet(ModelConfig(classes=3, in_dim=6, dim=5))
    with torch.no_grad():
        net.alpha.fill_(0.5)
        net.beta.fill_(0.5)
        net.classifier.bias.copy_(torch.tensor([0.5, -1.0, 0.3, 0.9]))
    return net.eval()


def rows(t: int) -> np.ndarray:
    return np.random.default_rng(t).normal(size=(t, 6)).astype(np.float32)


@pytest.mark.parametrize("divisor", [10, 3, 100])
@pytest.mark.parametrize("t", [1, 9, 10, 57])
def test_scores(net: JCDNet, t: int, divisor: int) -> None:
    scores = predict(net, rows(t), topk_divisor=divisor)
    with torch.no_grad():
        output = net(torch.from_numpy(rows(t)).unsqueeze(0))
    np.testing.assert_array_equal(scores.cas, output.cas[0].numpy())
    np.testing.assert_array_equal(scores.coarse_cas, output.coarse_cas[0].numpy())
    np.testing.assert_array_equal(scores.actionness, output.actionness[0].numpy())
    assert (scores.cas.shape, scores.actionness.shape, scores.video.shape) == ((t, 4), (t,), (3,))
    assert {a.dtype for a in (scores.cas, scores.coarse_cas, scores.actionness, scores.video)} == {np.dtype("float32")}
    # Equations 7 and 8, class by class, on a sorted copy.
    k = max(1, int(t / divisor))
    mean = [sorted(scores.actionness * scores.cas[:, c], reverse=True)[:k] for c in range(4)]
    v = np.array([np.mean(best, dtype=np.float64) for best in mean])
    np.testing.assert_allclose(scores.video, (np.exp(v) / np.exp(v).sum())[:3], rtol=1e-5)
    assert scores.video.sum() < 1  # the background's share went with it


def test_suppressed_is_equation_6_without_the_background() -> None:
    cas = np.array([[1.0, -2.0, 9.0], [3.0, 4.0, 9.0]], np.float32)
    scores = Scores(cas, cas, np.array([0.5, 0.25], np.float32), np.zeros(2, np.float32))
    np.testing.assert_array_equal(scores.suppressed, [[0.5, -1.0], [0.75, 1.0]])


@pytest.mark.filterwarnings("error")
def test_any_layout_gives_the_same_scores_and_the_features_stay(net: JCDNet) -> None:
    original = rows(12)
    expected = predict(net, original)
    frozen = original.copy()
    frozen.flags.writeable = False
    for features in (
        original.astype(np.float64),
        np.asfortranarray(original),
        frozen,
        np.repeat(original, 2, 0)[::2],
    ):
        kept = features.copy()
        np.testing.assert_array_equal(predict(net, features).cas, expected.cas)
        np.testing.assert_array_equal(features, kept)


def test_the_mode_of_the_network_stays_and_does_not_matter(net: JCDNet) -> None:
    expected = predict(net, rows(12))
    net.train()
    np.testing.assert_array_equal(predict(net, rows(12)).cas, expected.cas)  # no dropout
    assert net.training
    with pytest.raises(RuntimeError):
        predict(net, rows(12), device="no such device")
    assert net.training


def with_value(value: float) -> np.ndarray:
    features = rows(5)
    features[3, 2] = value
    return features


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (rows(0), "no snippet"),
        (rows(5)[:, :4], "4 wide and the model takes 6"),
        (rows(5)[0], r"\(T, 6\)"),
        (with_value(np.nan), "Snippet 3 .* not finite"),
        (with_value(-np.inf), "Snippet 3 .* not finite"),
        (np.full((5, 6), 1e300), "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_features_that_do_not_fit(net: JCDNet, features: np.ndarray, words: str) -> None:
    with pytest.raises(PredictError, match=words):
        predict(net, features)


def test_topk_divisor_below_one(net: JCDNet) -> None:
    with pytest.raises(PredictError, match="at least 1"):
        predict(net, rows(5), topk_divisor=0)


TEN_HOURS = """
import resource, sys
import numpy as np, torch
from model.config import ModelConfig
from model.jcdnet import JCDNet
from model.predict import predict

net = JCDNet(ModelConfig(classes=400))
with torch.no_grad():
    net.alpha.fill_(0.1)
    net.beta.fill_(0.1)
features = np.random.default_rng(0).random((56_000, 2048), dtype=np.float32)
features *= 0.1
scores = predict(net, features)
assert scores.cas.shape == (56_000, 401) and np.isfinite(scores.cas).all()
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


@pytest.mark.slow
def test_ten_hours_stay_under_three_gigabytes() -> None:
    # T = 56,000 at full width with the attention on: its T x T map alone would be 12.5 GB.
    done = subprocess.run(
        [sys.executable, "-c", TEN_HOURS],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    peak = int(done.stdout)
    print(f"peak {peak / 1e9:.2f} GB")
    assert peak < 3e9

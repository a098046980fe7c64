"""JCDNet against equations 1-6 written out in NumPy from the paper, and what a batch must not change."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.jcdnet
from model.config import ModelConfig
from model.jcdnet import JCDNet, Output

torch.set_num_threads(1)

SMALL = ModelConfig(classes=3, in_dim=6, dim=5)


def network(config: ModelConfig, seed: int = 0, *, gates: bool = True) -> JCDNet:
    """A network in evaluation mode whose biases are random too, and the gates unless told otherwise."""
    torch.manual_seed(seed)
    net = JCDNet(config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
        if gates:
            net.alpha.fill_(0.8)
            net.beta.fill_(-0.6)
    return net


def features(b: int, t: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(b, t, width, generator=torch.Generator().manual_seed(seed))


def reference(net: JCDNet, x: np.ndarray, suppress: str = "literal") -> dict[str, np.ndarray]:
    """One video x (T, in_dim) through equations 1-6 in float64, sum by sum."""
    config = net.config
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in net.state_dict().items()}
    n = len(x)

    def conv(name: str, rows: np.ndarray) -> np.ndarray:
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        out = np.tile(b, (n, 1))
        for t in range(n):
            for tap in range(w.shape[2]):
                source = t + tap - w.shape[2] // 2
                if 0 <= source < n:
                    out[t] += w[:, :, tap] @ rows[source]
        return out

    def leaky(rows: np.ndarray) -> np.ndarray:
        return np.where(rows > 0, rows, config.slope * rows)

    def smooth(rows: np.ndarray) -> np.ndarray:
        if config.smooth == 0:
            return rows
        reach = config.smooth // 2
        return np.stack([rows[max(t - reach, 0) : t + reach + 1].sum(0) / config.smooth for t in range(n)])

    coarse = smooth(conv("coarse", x))
    x_a = leaky(conv("embed_a", x))
    p = np.exp(coarse) / np.exp(coarse).sum(1, keepdims=True)
    definite = np.zeros((config.classes + 1, config.dim))
    for c in range(config.classes + 1):  # equation 1
        definite[c] = sum(p[t, c] * x_a[t] for t in range(n)) / max(sum(p[t, c] for t in range(n)), 1e-6)
    e_a = x_a.copy()
    for t in range(n):  # equation 2
        e_a[t] += weights["alpha"] * sum(p[t, c] * definite[c] for c in range(config.classes + 1))

    x_e = leaky(conv("embed_e", x))
    q, k, v = conv("query", x_e), conv("key", x_e), conv("value", x_e)
    scale = 1 / math.sqrt(config.dim) if config.qk_scale else 1.0
    m = np.zeros((n, n))
    for j in range(n):  # equation 3: i is the source and is what is summed over
        column = np.array([scale * (q[i] @ k[j]) for i in range(n)])
        m[:, j] = np.exp(column - column.max())
        m[:, j] /= m[:, j].sum()
    e_e = x_e.copy()
    for j in range(n):  # equation 4
        e_e[j] += weights["beta"] * sum(m[i, j] * v[i] for i in range(n))
    temp = conv("temp", e_e)
    a = smooth(1 / (1 + np.exp(-temp.mean(1, keepdims=True))))  # equation 5
    cas = smooth(conv("classifier", np.concatenate([e_a, e_e], axis=1)))

    def suppressed(s: np.ndarray) -> np.ndarray:  # equation 6
        low = s.min(1, keepdims=True) if suppress == "min_shift" else 0
        return a * (s - low) + low

    return {
        "cas": cas,
        "coarse_cas": coarse,
        "temp_cas": smooth(temp),
        "actionness": a[:, 0],
        "suppressed_cas": suppressed(cas),
        "suppressed_coarse_cas": suppressed(coarse),
        "embedding": e_a,
    }


def assert_agrees(output: Output, row: int, expected: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    for name, value in expected.items():
        actual = getattr(output, name)[row, : len(value)].detach().numpy()
        np.testing.assert_allclose(actual, value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("t", [1, 2, 17])
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ModelConfig(classes=1, in_dim=4, dim=3),
        ModelConfig(classes=1, in_dim=1, dim=1, kernel=1),
        ModelConfig(classes=20, in_dim=8, dim=16, kernel=5, coarse_kernel=3, slope=0.01),
        ModelConfig(classes=4, in_dim=7, dim=9, qk_scale=True),
        ModelConfig(classes=4, in_dim=7, dim=9, smooth=3, coarse_kernel=3),
        ModelConfig(classes=2, in_dim=5, dim=4, smooth=13),
    ],
    ids=str,
)
def test_forward_is_equations_1_to_6(config: ModelConfig, t: int) -> None:
    net, x = network(config), features(2, t, config.in_dim)
    output = net(x)
    for row in range(2):
        assert_agrees(output, row, reference(net, x[row].double().numpy()))
    assert output.cas.shape == output.suppressed_coarse_cas.shape == (2, t, config.classes + 1)
    assert output.temp_cas.shape == (2, t, config.classes)
    assert output.actionness.shape == (2, t)
    assert output.embedding.shape == (2, t, config.dim)


def test_forward_is_equations_1_to_6_at_full_width() -> None:
    config = ModelConfig(classes=20, in_dim=64, dim=1024)
    net, x = network(config), 0.1 * features(1, 12, 64)
    assert_agrees(net(x), 0, reference(net, x[0].double().numpy()))


def test_attention_normalises_over_the_source() -> None:
    # One-hot snippets and identities make E^e - X^e the attention map itself, M transposed. Every target asks
    # for the same (the keys are constant), and only snippet 2 has a query: it must reach every target alone.
    # Normalised over the target it would reach each with 1/T, and with q and k exchanged all would be 1/T.
    t = 5
    config = ModelConfig(classes=t, in_dim=t, dim=t, kernel=1)
    net = JCDNet(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for conv in (net.embed_e, net.value, net.temp):
            conv.weight[:, :, 0] = torch.eye(t)
        net.query.weight[0, 2, 0] = 9
        net.key.bias[0] = 1
        net.beta.fill_(1)
    m = (net(torch.eye(t).unsqueeze(0)).temp_cas[0] - torch.eye(t)).T
    assert torch.allclose(m.sum(dim=0), torch.ones(t), atol=1e-6)
    expected = torch.full((t, t), 1 / (math.exp(9) + t - 1))
    expected[2] = math.exp(9) / (math.exp(9) + t - 1)
    assert torch.allclose(m, expected, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_attention_takes_a_kernel_that_is_linear_in_memory(masked: bool, training: bool) -> None:
    net = network(SMALL).train(training)
    mask = torch.arange(9).expand(2, 9) < 7 if masked else None
    with torch.profiler.profile() as profile, torch.set_grad_enabled(training):
        net(features(2, 9, 6), mask)
    names = {event.name for event in profile.events()}
    assert any("scaled_dot_product" in name for name in names)
    assert not any("attention_math" in name for name in names)


GARBAGE = (0.0, 1e30, float("nan"), float("inf"))


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    garbage=st.sampled_from(GARBAGE),
    smooth=st.sampled_from([0, 3, 5]),
    coarse_kernel=st.sampled_from([1, 3]),
    training=st.booleans(),
)
def test_padding_changes_nothing(
    lengths: list[int], garbage: float, smooth: int, coarse_kernel: int, training: bool
) -> None:
    config = ModelConfig(3, 6, 5, coarse_kernel=coarse_kernel, smooth=smooth, dropout=0.0)
    net = network(config).train(training)
    t = max(*lengths, 1) + 2
    mask = torch.arange(t) < torch.tensor(lengths).unsqueeze(1)
    x = features(len(lengths), t, 6).masked_fill(~mask.unsqueeze(-1), garbage)
    together = net(x, mask)
    for row, length in enumerate(lengths):
        alone = net(x[row : row + 1, :length])._asdict() if length else {}
        for name, value in together._asdict().items():
            assert torch.isfinite(value).all(), name
            assert (value[row, length:] == 0).all(), name
            if length:
                assert torch.allclose(value[row, :length], alone[name][0], rtol=1e-5, atol=1e-5), name


def test_a_row_of_padding_leaves_the_softmax_something(monkeypatch: pytest.MonkeyPatch) -> None:
    # This CPU kernel forgives a softmax over nothing; not every kernel does.
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watching(*args: torch.Tensor, attn_mask: torch.Tensor, **kwargs: float) -> torch.Tensor:
        seen.append(attn_mask)
        return attention(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watching)
    network(SMALL)(features(2, 4, 6), torch.tensor([[True, False, True, False], [False] * 4]))
    assert seen[0].shape == (2, 1, 1, 4)
    assert seen[0][0].flatten().tolist() == [True, False, True, False]
    assert seen[0][1].all()


def test_padding_gets_no_gradient_and_gives_none() -> None:
    net = network(ModelConfig(3, 6, 5, smooth=3, dropout=0.0)).train()
    lengths = [4, 7, 0]
    mask = torch.arange(8) < torch.tensor(lengths).unsqueeze(1)
    x = features(3, 8, 6).masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
    sum(value.square().sum() for value in net(x, mask)).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad[~mask] == 0).all()
    together = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    for row in (0, 1):
        sum(v.square().sum() for v in net(x.detach()[row : row + 1, : lengths[row]])).backward()
    for one, other in zip(together, net.parameters(), strict=True):
        # The query's bias has none: it shifts all sources of a target alike. What it shows is rounding.
        assert torch.allclose(one, other.grad, rtol=1e-3, atol=1e-4)


def test_a_mask_of_all_snippets_is_no_mask() -> None:
    net, x = network(SMALL), features(2, 7, 6)
    for one, other in zip(net(x), net(x, torch.ones(2, 7, dtype=torch.bool)), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_gates_start_at_zero_and_get_gradients() -> None:
    net = JCDNet(ModelConfig(3, 6, 5, dropout=0.0)).train()
    assert net.alpha.shape == net.beta.shape == ()
    assert net.alpha.item() == net.beta.item() == 0
    output = net(features(2, 7, 6))
    (output.suppressed_cas.sum() + output.suppressed_coarse_cas.sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.alpha.grad.abs() > 1e-4
    assert net.beta.grad.abs() > 1e-4


def test_attention_is_skipped_only_at_inference_and_beta_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(ModelConfig(3, 6, 5, dropout=0.0), gates=False), features(2, 7, 6)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    calls = []
    attend = net._attend

    def counting(*args: torch.Tensor) -> torch.Tensor:
        calls.append(args)
        return attend(*args)

    monkeypatch.setattr(net, "_attend", counting)
    full, skipped = net.train()(x, mask), net.eval()(x, mask)
    assert len(calls) == 1
    for one, other in zip(full, skipped, strict=True):
        assert torch.equal(one, other)  # to the bit
    with torch.no_grad():
        net.beta.fill_(1e-6)
    net(x, mask)
    assert len(calls) == 2


@pytest.mark.parametrize("taps", [1, 3, 5])
def test_chunks_join_without_a_seam(taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(ModelConfig(3, 6, 5, kernel=taps, coarse_kernel=taps)), features(1, 13, 6)
    expected = reference(net, x[0].double().numpy())
    for chunk in (1, 2, 4, 13):
        monkeypatch.setattr(model.jcdnet, "_CHUNK", chunk)
        assert_agrees(net(x), 0, expected)


def test_min_shift_is_for_training_only() -> None:
    net, x = network(ModelConfig(3, 6, 5, dropout=0.0, suppress="min_shift")), features(1, 7, 6)
    rows = x[0].double().numpy()
    assert_agrees(net(x), 0, reference(net, rows, "literal"))
    output = net.train()(x)
    assert_agrees(output, 0, reference(net, rows, "min_shift"))
    assert (output.suppressed_cas <= output.cas + 1e-6).all()  # literal A * S raises negative logits


def test_dropout_is_for_training_only() -> None:
    net, x = network(SMALL), features(1, 7, 6)
    assert torch.equal(net(x).cas, net(x).cas)
    net.train()
    first, second = net(x), net(x)
    for name in ("cas", "coarse_cas", "temp_cas"):
        assert not torch.equal(getattr(first, name), getattr(second, name)), name
    with torch.no_grad():
        net.alpha.zero_()
    assert torch.equal(net(x).embedding, net(x).embedding)  # before the classifiers only


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = JCDNet(ModelConfig(classes=20, in_dim=256, dim=128))
    for name, conv in net.named_children():
        bound = math.sqrt(6 / (1 + 0.2**2) / conv.weight[0].numel())  # Kaiming, uniform, slope 0.2
        assert 0.95 * bound < conv.weight.abs().max() <= bound, name
        assert (conv.bias == 0).all(), name


def test_names_and_size_of_the_state_are_stable() -> None:
    # Checkpoints hold these names. 15.8 M, 7.2 M and 37.9 M parameters are counted by hand for THUMOS.
    convs = {"coarse", "embed_a", "embed_e", "query", "key", "value", "temp", "classifier"}
    names = {f"{conv}.{part}" for conv in convs for part in ("weight", "bias")} | {"alpha", "beta"}
    for dim, millions in ((512, 7.2), (1024, 15.8), (2048, 37.9)):
        with torch.device("meta"):
            state = JCDNet(ModelConfig(classes=20, dim=dim)).state_dict()
        assert set(state) == names
        assert round(sum(tensor.numel() for tensor in state.values()) / 1e6, 1) == millions
    assert state["embed_a.weight"].shape == (2048, 2048, 3)
    assert state["classifier.weight"].shape == (21, 4096, 1)


@pytest.mark.parametrize(
    ("x", "mask", "words"),
    [
        (torch.zeros(7, 6), None, r"\(B, T, 6\)"),
        (torch.zeros(1, 7, 5), None, r"not \(1, 7, 5\)"),
        (torch.zeros(1, 0, 6), None, "T >= 1"),
        (torch.zeros(1, 7, 6), torch.ones(1, 7), "bool"),
        (torch.zeros(1, 7, 6), torch.ones(1, 6, dtype=torch.bool), r"\(1, 7\)"),
    ],
)
def test_wrong_shapes_are_named(x: torch.Tensor, mask: torch.Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        network(SMALL)(x, mask)


def test_config_round_trip() -> None:
    config = ModelConfig(3, 6, 5, dropout=0, suppress="min_shift", smooth=13)
    assert isinstance(config.dropout, float)
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict({"classes": 20}) == ModelConfig(20)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"clases": 3}, "did you mean classes"),
        ({"zzz": 3}, "there are classes, in_dim"),
        ({"classes": 0}, "classes must lie in 1"),
        ({"classes": 3.0}, "classes must be a whole number"),
        ({"classes": True}, "classes must be a whole number"),
        ({"classes": "20"}, "classes must be a whole number"),
        ({"dim": 10**9}, "dim must lie in"),
        ({"in_dim": None}, "in_dim must be a whole number"),
        ({"kernel": 2}, "kernel must be odd"),
        ({"coarse_kernel": 4}, "coarse_kernel must be odd"),
        ({"smooth": 12}, "smooth must be odd"),
        ({"smooth": -1}, "smooth must lie in 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": "0.7"}, "dropout must be a number"),
        ({"slope": float("nan")}, "slope must be a number"),
        ({"slope": -0.1}, "slope must be at least 0"),
        ({"qk_scale": 1}, "qk_scale must be true or false"),
        ({"suppress": "shift"}, "suppress must be literal or min_shift"),
    ],
)
def test_config_errors_name_the_setting(setting: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig.from_dict({"classes": 3, **setting})


@pytest.mark.parametrize("settings", [{}, {"dim": 8}, [("classes", 3)], None])
def test_config_without_classes(settings: object) -> None:
    with pytest.raises(ValueError, match=r"classes is missing|must be a table"):
        ModelConfig.from_dict(settings)  # type: ignore[arg-type]


def test_config_needs_no_torch() -> None:
    code = "import sys, model.presets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

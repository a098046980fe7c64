"""The losses against equations 7-12 written out video by video, class by class, in NumPy, from the paper."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import losses
from model.config import TERMS, LossConfig, ModelConfig, TrainConfig
from model.jcdnet import JCDNet, Output, top_k_mean
from model.presets import experiment

torch.set_num_threads(1)

SMALL = ModelConfig(classes=3, in_dim=6, dim=5, dropout=0.0)
LABELS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.float32)
PAIRS = torch.tensor([[0, 1], [2, 3], [1, 5]])  # share one class, none, two


def network(config: ModelConfig = SMALL, seed: int = 0) -> JCDNet:
    torch.manual_seed(seed)
    net = JCDNet(config).train()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
            if name in ("alpha", "beta"):
                parameter.fill_(0.4)
    return net


def features(b: int, t: int, width: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(b, t, width, generator=torch.Generator().manual_seed(seed))


def mask_of(lengths: list[int], t: int) -> torch.Tensor:
    return torch.arange(t) < torch.tensor(lengths).unsqueeze(1)


# The oracle: one video at a time, its own T, plain sums, float64.


def oracle_mil(cas: np.ndarray, labels: np.ndarray, background: float | None, r: int) -> float:
    t, columns = cas.shape
    y = [float(label) for label in labels] + ([] if background is None else [background])
    k = t // r if t >= r else 1
    v = [sum(sorted(cas[:, j], reverse=True)[:k]) / k for j in range(columns)]  # equation 7
    denominator = sum(math.exp(value) for value in v)
    p = [math.exp(value) / denominator for value in v]  # equation 8
    return -sum(y[j] / (sum(y) + 1e-4) * math.log(p[j]) for j in range(columns))  # equation 9


def oracle_cas(x: list[np.ndarray], cas: list[np.ndarray], shared: list[list[int]], margin: float) -> float:
    def high_and_low(rows: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        t = len(rows)
        a = [math.exp(value) / sum(math.exp(other) for other in logits) for value in logits]
        high = sum((a[i] * rows[i] for i in range(t)), start=np.zeros(rows.shape[1]))
        low = sum((1 - a[i]) * rows[i] for i in range(t)) / (t - 1) if t > 1 else np.zeros(rows.shape[1])
        return high, low

    def d(u: np.ndarray, v: np.ndarray) -> float:
        size = math.sqrt(float(u @ u)) * math.sqrt(float(v @ v))
        return 1 - float(u @ v) / size if size > 0 else 1.0

    found = []
    for pair, classes in enumerate(shared):
        for c in classes:
            m, n = 2 * pair, 2 * pair + 1
            high_m, low_m = high_and_low(x[m], cas[m][:, c])
            high_n, low_n = high_and_low(x[n], cas[n][:, c])
            near = d(high_m, high_n)
            found.append(
                0.5 * max(0, near - d(high_m, low_n) + margin) + 0.5 * max(0, near - d(low_m, high_n) + margin)
            )
    return sum(found) / len(found) if found else 0.0


def oracle(output: Output, lengths: list[int], config: LossConfig) -> dict[str, float]:
    rows = [b for b, n in enumerate(lengths) if n]
    parts = {name: value.detach().double().numpy() for name, value in output._asdict().items()}
    y = LABELS[: len(lengths)].numpy()

    def video(name: str, b: int) -> np.ndarray:
        return parts[name][b, : lengths[b]]

    def mean_mil(name: str, background: float | None) -> float:
        return sum(oracle_mil(video(name, b), y[b], background, config.topk_divisor) for b in rows) / len(rows)

    both = [b for pair in PAIRS.tolist() for b in pair]
    shared = [[c for c in range(3) if y[m, c] and y[n, c]] for m, n in PAIRS.tolist()]
    guide = []
    for b in rows:
        s = np.exp(video("cas", b))
        background = s[:, -1] / s.sum(1)
        guide.append(sum(abs(1 - video("actionness", b) - background)) / lengths[b])
    return {
        "mil": mean_mil("cas", 1.0),
        "temp": mean_mil("temp_cas", None),
        "supp": mean_mil("suppressed_cas", 0.0),
        "coarse": mean_mil("coarse_cas", 1.0),
        "coarse_supp": mean_mil("suppressed_coarse_cas", 0.0),
        "cas": oracle_cas(
            [video("embedding", b) for b in both],
            [video("suppressed_coarse_cas", b) for b in both],
            shared,
            config.margin,
        ),
        "norm": sum(sum(abs(video("actionness", b))) / lengths[b] for b in rows) / len(rows),
        "guide": sum(guide) / len(guide),
    }


@pytest.mark.parametrize("suppress", ["literal", "min_shift"])
@pytest.mark.parametrize("lengths", [[9] * 6, [1] * 6, [23, 1, 7, 6, 15, 2], [40] * 6], ids=str)
@pytest.mark.parametrize("config", [LossConfig(), LossConfig(topk_divisor=3, margin=1.5)], ids=["default", "other"])
def test_terms_are_the_papers(lengths: list[int], config: LossConfig, suppress: str) -> None:
    t = max(lengths)
    mask = None if min(lengths) == t else mask_of(lengths, t)
    output = network(replace(SMALL, suppress=suppress))(features(6, t), mask)
    loss, terms = losses.total(output, LABELS, PAIRS, mask, config)
    expected = oracle(output, lengths, config)
    assert terms.keys() == expected.keys() == set(TERMS)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name
    # Equations 10 to 12 with section 4.1's weights, and lambda_0's for the coarse term that they lack.
    e = expected
    supp = e["supp"] + 0.8 * e["coarse_supp"]
    both = e["mil"] + 0.7 * e["temp"]
    whole = both + supp + 0.9 * e["cas"] + 0.8 * e["norm"] + 0.8 * e["guide"] + 0.8 * e["coarse"]
    assert loss.item() == pytest.approx(whole, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), min_size=6, max_size=6).filter(any), more=st.integers(0, 20))
def test_padding_and_empty_rows_count_nowhere(lengths: list[int], more: int) -> None:
    t = max(lengths)
    net, x = network(), features(6, t + more)
    mask = mask_of(lengths, t + more)
    output = net(x, mask)
    terms = losses.total(output, LABELS, PAIRS, mask, LossConfig())[1]
    for name, value in oracle(output, lengths, LossConfig()).items():
        assert terms[name].item() == pytest.approx(value, rel=1e-3, abs=1e-5), name
    # What stands at padding must not matter, even where a network would not have left zeros.
    garbage = Output(*(v.masked_fill(~mask.view(6, -1, *[1] * (v.dim() - 2)), 3e4) for v in output))
    for name, value in losses.total(garbage, LABELS, PAIRS, mask, LossConfig())[1].items():
        assert value.item() == pytest.approx(terms[name].item(), rel=1e-6), name


def test_k_counts_what_a_video_has_not_what_it_is_padded_to() -> None:
    cas = torch.arange(20.0).reshape(1, 20, 1)
    assert top_k_mean(cas, None, 5).item() == (19 + 18 + 17 + 16) / 4
    assert top_k_mean(cas, mask_of([10], 20), 5).item() == (9 + 8) / 2
    assert top_k_mean(cas, mask_of([4], 20), 5).item() == 3
    assert top_k_mean(cas, mask_of([0], 20), 5).item() == 0


def test_no_background_in_a_suppressed_target() -> None:
    # Only the background column is high: good for S, bad for suppressed S.
    cas = torch.zeros(1, 8, 3)
    cas[..., -1] = 5
    one = torch.tensor([[1.0, 0, 1]])
    assert losses.mil(cas, one, None, 7) < losses.mil(cas, torch.tensor([[1.0, 0, 0]]), None, 7)
    assert losses.mil(cas, torch.zeros(1, 3), None, 7) == 0


@pytest.mark.parametrize(
    "pairs", [torch.zeros(0, 2, dtype=torch.int64), torch.tensor([[0, 2], [3, 4]])], ids=["no pair", "none shared"]
)
def test_nothing_shared_is_zero_and_trains(pairs: torch.Tensor) -> None:
    net = network()
    loss, terms = losses.total(net(features(6, 9)), LABELS, pairs, None, LossConfig())
    assert terms["cas"] == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_alike_is_better_than_unlike() -> None:
    # Two videos, one class, active at snippet 0. The same feature there and another elsewhere is as good as it gets.
    def loss(second: torch.Tensor) -> float:
        first = torch.tensor([[1.0, 0], [0, 1], [0, 1]])
        cas = torch.tensor([[20.0], [0], [0]]).expand(2, 3, 1)
        x = torch.stack([first, second])
        return losses.co_activity(x, cas, torch.ones(2, 1), torch.tensor([[0, 1]]), None, 0.5).item()

    assert loss(torch.tensor([[1.0, 0], [0, 1], [0, 1]])) == pytest.approx(0, abs=1e-6)
    assert loss(torch.tensor([[0, 1.0], [1, 0], [1, 0]])) == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("t", [1, 2, 40])
def test_gradients_reach_every_parameter(t: int, masked: bool) -> None:
    net = network()
    mask = mask_of([t, 1, t, t, t, max(t // 2, 1)], t) if masked else None
    losses.total(net(features(6, t), mask), LABELS, PAIRS, mask, LossConfig())[0].backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # Equation 3 normalises over the source: one snippet attends to itself whatever q and k are, and q's bias
        # shifts all sources alike.
        if name == "query.bias" or (t == 1 and name.startswith(("query", "key"))):
            continue
        assert parameter.grad.abs().max() > 1e-7, name


def test_each_term_has_a_gradient_of_its_own() -> None:
    reached = {
        "mil": {"embed_a", "embed_e", "classifier", "alpha", "beta", "coarse"},
        "temp": {"embed_e", "temp", "beta"},
        "supp": {"classifier", "temp"},
        "coarse": {"coarse"},
        "coarse_supp": {"coarse", "temp"},
        "cas": {"coarse", "embed_a", "alpha", "temp"},
        "norm": {"temp", "beta"},
        "guide": {"temp", "classifier"},
    }
    for term, expected in reached.items():
        net = network()
        config = LossConfig(**{name: float(name == term) for name in TERMS})
        loss, terms = losses.total(net(features(6, 9)), LABELS, PAIRS, None, config)
        assert list(terms) == [term]
        loss.backward()
        touched = {n.split(".")[0] for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert expected <= touched, term
        assert term != "coarse" or touched == {"coarse"}
        assert term != "temp" or "classifier" not in touched


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e3])
@pytest.mark.parametrize("t", [1, 2, 3000])
def test_extremes_have_finite_losses_and_gradients(t: int, scale: float) -> None:
    net = network(replace(SMALL, qk_scale=True))
    loss, terms = losses.total(net(scale * features(6, t)), LABELS, PAIRS, None, LossConfig())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("number", range(1, 11))
def test_table_4_is_a_matter_of_settings(number: int) -> None:
    model, train = experiment(number, SMALL, TrainConfig())
    train.loss.check(model)
    net = network(model)
    loss, terms = losses.total(net(features(6, 9)), LABELS, PAIRS, None, train.loss)
    loss.backward()
    # The check marks of Table 4. L_temp belongs to TEA; CAD without its own supervision is n-CAD.
    marks = {
        1: "mil", 2: "mil CAD", 3: "mil n-CAD", 4: "mil TEA supp", 5: "mil CAD TEA supp", 6: "mil CAD TEA coarse_supp",
        7: "mil CAD TEA supp coarse_supp", 8: "mil CAD TEA supp coarse_supp norm",
        9: "mil CAD TEA supp coarse_supp norm guide", 10: "mil CAD TEA supp coarse_supp norm guide cas",
    }[number].split()  # fmt: skip
    expected = {mark for mark in marks if mark in TERMS}
    expected |= {"coarse"} & ({"coarse"} if "CAD" in marks else set())
    expected |= {"temp"} if "TEA" in marks else set()
    assert set(terms) == expected
    names = {name.split(".")[0] for name, _ in net.named_parameters()}
    cad, tea = {"coarse", "alpha"}, {"embed_e", "query", "key", "value", "temp", "beta"}
    assert names == {"embed_a", "classifier"} | (cad if marks[1:2] and "CAD" in marks[1] else set()) | (
        tea if "TEA" in marks else set()
    )
    for name, parameter in net.named_parameters():
        if name != "query.bias":
            assert parameter.grad.abs().max() > 0, name


def test_modules_that_are_off() -> None:
    x = features(2, 9)
    mask = mask_of([9, 4], 9)
    plain = network(replace(SMALL, cad=False, tea=False))(x, mask)
    s = plain.cas.softmax(dim=-1)
    assert torch.allclose(plain.actionness, (1 - s[..., -1]).masked_fill(~mask, 0))
    assert torch.allclose(plain.suppressed_cas, plain.actionness.unsqueeze(-1) * plain.cas)
    assert (plain.coarse_cas == 0).all() and plain.coarse_cas.shape == plain.cas.shape
    assert (plain.temp_cas == 0).all() and plain.temp_cas.shape == (2, 9, 3)
    # CAD at alpha = 0 is E^a = X^a: the same network without it gives the same S.
    full = network()
    with torch.no_grad():
        full.alpha.zero_()
    without = JCDNet(replace(SMALL, cad=False)).train()
    without.load_state_dict({k: v for k, v in full.state_dict().items() if k in without.state_dict()})
    assert torch.allclose(full(x, mask).cas, without(x, mask).cas, atol=1e-6)
    assert torch.allclose(full(x, mask).actionness, without(x, mask).actionness)


@pytest.mark.parametrize("name", [f.name for f in fields(LossConfig)])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    for value in (-1, float("nan"), float("inf"), "1", True, None):
        with pytest.raises(ValueError, match=f"Loss setting {name} must be"):
            LossConfig(**{name: value})
    with pytest.raises(ValueError, match=f"did you mean {name}"):
        LossConfig.from_dict({name + "x": 1})


def test_terms_without_their_module_are_named() -> None:
    with pytest.raises(ValueError, match="Loss setting temp needs the TEA module"):
        LossConfig().check(ModelConfig(3, tea=False))
    with pytest.raises(ValueError, match="Loss setting coarse needs the CAD module"):
        LossConfig().check(ModelConfig(3, cad=False))
    LossConfig().check(ModelConfig(3))
    with pytest.raises(ValueError, match="nothing is learned"):
        LossConfig(**dict.fromkeys(TERMS, 0.0))

"""The embedded model: exactly the head, an actionness that is what its docstring says, and a start for one's own."""

import numpy as np
import pytest
import torch

from extractors.backbones import registry, weights
from model import kinetics, losses
from model.checkpoint import Checkpoint, CheckpointError, fingerprint
from model.config import LossConfig, ModelConfig
from model.kinetics import Tuning
from model.predict import predict
from model.train import initialise
from postprocess.config import LocalizeConfig


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
    weight, bias, identity = registry.i3d_head()
    layer = registry.find("i3d", "rgb").load().get_submodule("logits.conv3d")
    assert torch.equal(weight, layer.get_parameter("weight").flatten(1))
    assert torch.equal(bias, layer.get_parameter("bias"))
    checkpoint = kinetics.build(weight, bias, weights.kinetics400_names(), identity)
    assert checkpoint.features["rgb"]["weights"] == f"sha256:{weights.WEIGHTS['i3d-rgb'].sha256}"
    assert checkpoint.streams == ("rgb",)


# --- classes of one's own, from the embedded model ---

NAMES = ("playing tennis", "returning serve", "golf driving", "juggling balls")


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """The embedded model of four actions, over features 16 wide."""
    monkeypatch.setattr(kinetics, "WIDTH", 16)
    monkeypatch.setattr(kinetics, "sports_groups", lambda: dict.fromkeys(NAMES[:2], "tennis") | {NAMES[2]: "golf"})
    generator = torch.Generator().manual_seed(3)
    return kinetics.build(
        torch.randn(4, 16, generator=generator) * 2, torch.randn(4, generator=generator), NAMES, "sha256:0"
    )


def own(*classes: str, **settings: object) -> Checkpoint:
    config = ModelConfig(**{"classes": len(classes), "in_dim": 16, "dim": 16, **settings})  # type: ignore[arg-type]
    return initialise(config, classes, ("rgb",), {"rgb": {"fps": 25.0}}, seed=0)


def test_a_class_is_found_by_its_name_or_its_sport(embedded: Checkpoint) -> None:
    def found(*classes: str) -> dict[str, list[int]]:
        return kinetics.matches(embedded, classes)

    assert found("tennis", "Golf_Driving", "chess") == {"tennis": [0, 1], "Golf_Driving": [2]}
    assert found("GOLF", "juggling  balls", "playing tennis") == {
        "playing tennis": [0],
        "GOLF": [2],
        "juggling  balls": [3],
    }
    assert found("Golf: golf driving", "golf: playing tennis") == {"Golf: golf driving": [2]}  # as tables show it
    assert found("chess", "ten") == {}


def test_what_matches_is_taken_over_and_the_rest_stays_random(embedded: Checkpoint) -> None:
    start = own("Golf Driving", "my move", "tennis")
    before = fingerprint(start)
    adapted = kinetics.adapt(embedded, start)
    adapted.build()
    assert fingerprint(start) == before
    theirs, ours, drawn = embedded.state, adapted.state, start.state
    assert ours.keys() == drawn.keys()
    for name in ("coarse", "classifier"):
        for part in ("weight", "bias"):
            key = f"{name}.{part}"
            assert torch.equal(ours[key][0], theirs[key][2])
            assert torch.equal(ours[key][1], drawn[key][1])
            assert torch.allclose(ours[key][2], (theirs[key][0] + theirs[key][1]) / 2)
        assert not ours[f"{name}.weight"][-1].any()
        assert ours[f"{name}.bias"][-1] == kinetics.BACKGROUND
    assert torch.equal(ours["embed_a.weight"], theirs["embed_a.weight"])
    assert torch.equal(ours["embed_e.weight"][:8], theirs["embed_e.weight"][:8])
    assert torch.equal(ours["embed_e.weight"][8:], drawn["embed_e.weight"][8:])
    assert torch.equal(ours["temp.weight"][1], drawn["temp.weight"][1])
    for name in ("query", "key", "value"):
        assert torch.equal(ours[f"{name}.weight"], drawn[f"{name}.weight"])
    assert adapted.provenance["initialised_from"] == "kinetics400"
    assert adapted.provenance["matches"] == {
        "Golf Driving": ["golf driving"],
        "tennis": ["playing tennis", "returning serve"],
    }
    assert (adapted.classes, adapted.features) == (start.classes, start.features)


def test_it_starts_out_knowing_what_the_embedded_model_knows(embedded: Checkpoint) -> None:
    x = np.random.default_rng(5).gamma(0.5, 1.0, (9, 16)).astype(np.float32)
    theirs = predict(embedded.build(), x).cas.astype(np.float64)
    ours = predict(kinetics.adapt(embedded, own("tennis", "golf")).build(), x)
    assert np.allclose(ours.cas[:, 0], theirs[:, :2].mean(axis=1), atol=1e-4)
    assert np.allclose(ours.cas[:, 1], theirs[:, 2], atol=1e-4)
    assert np.allclose(ours.cas[:, 2], kinetics.BACKGROUND)
    evidence = np.maximum(theirs[:, :3] - kinetics.EVIDENCE, 0).sum(axis=1)
    assert np.ptp(evidence) > 1
    assert np.allclose(ours.actionness, 1 / (1 + np.exp(kinetics.OFFSET - evidence)), atol=1e-3)


@pytest.mark.parametrize("modules", [{}, {"cad": False}, {"tea": False}, {"cad": False, "tea": False}])
def test_modules_that_are_off_are_left_off(embedded: Checkpoint, modules: dict[str, bool]) -> None:
    start = own("tennis", "my move", **modules)
    adapted = kinetics.adapt(embedded, start)
    adapted.build()
    assert adapted.state.keys() == start.state.keys()


def test_gradients_reach_every_parameter_from_there(embedded: Checkpoint) -> None:
    """Of units that are all 0 nothing would ever be learned."""
    net = kinetics.adapt(embedded, own("tennis", "my move")).build().train()
    x = torch.rand(4, 12, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 0]])
    torch.manual_seed(0)

    def reached() -> set[str]:
        net.zero_grad()
        losses.total(net(x), labels, torch.tensor([[0, 1]]), None, LossConfig())[0].backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters())
        return {name for name, p in net.named_parameters() if p.grad.abs().max() > 0}

    names = {name for name, _ in net.named_parameters()}
    behind_beta = {name for name in names if name.startswith(("query", "key", "value"))}
    assert names - reached() <= behind_beta  # beta is 0 before the first step
    with torch.no_grad():
        net.beta.fill_(0.05)
    assert names - reached() <= {"query.bias"}  # equation 3 normalises over the source
    # The free units of X^e learn, too.
    assert (net.embed_e.weight.grad[8:].abs().amax(dim=(1, 2)) > 0).any()


def test_what_cannot_start_from_it_is_said(embedded: Checkpoint) -> None:
    for wrong in ({"dim": 8}, {"kernel": 5}, {"slope": 0.1}, {"in_dim": 8}):
        (name,) = wrong
        with pytest.raises(ValueError, match=rf"kinetics400 has {name} "):
            kinetics.adapt(embedded, own("tennis", **wrong))
    with pytest.raises(ValueError, match="knows none of the classes chess, go"):
        kinetics.adapt(embedded, own("chess", "go"))


def test_the_real_model_starts_one_of_ones_own() -> None:
    if weights.find("i3d-rgb") is None:
        pytest.skip("the I3D weights are not installed (python cli.py models fetch i3d-rgb)")
    head_weight, head_bias, identity = registry.i3d_head()
    real = kinetics.build(head_weight, head_bias, weights.kinetics400_names(), identity)
    start = initialise(ModelConfig(classes=2, in_dim=1024, dim=1024), ("my move", "tennis"), ("rgb",), {}, 0)
    adapted = kinetics.adapt(real, start)
    adapted.build()
    rows = [row for row, name in enumerate(real.classes) if real.groups.get(name) == "tennis"]
    assert rows
    assert torch.allclose(adapted.state["classifier.weight"][1, :1024, 0], head_weight[rows].mean(dim=0))
    assert torch.equal(adapted.state["classifier.weight"][0], start.state["classifier.weight"][0])


# --- what was fitted ---


def tuning_of(backbone: str = "sha256:0", **fields: object) -> Tuning:
    tilt = torch.linspace(-1, 1, 1024)
    return Tuning({"tennis": tilt}, temperature=2.0, localize={"min_confidence": 0.25}, backbone=backbone, **fields)  # type: ignore[arg-type]


def test_a_tilt_moves_the_names_of_its_sport_in_s_alone(head, features) -> None:
    weight, bias = head
    names = list(weights.kinetics400_names())
    plain = predict(kinetics.build(weight, bias, names, "sha256:0").build(), features)
    tuned = kinetics.build(weight, bias, names, "sha256:0", tuning_of())
    scores = predict(tuned.build(), features)
    moved = features @ np.linspace(-1, 1, 1024)
    tennis = [names.index(n) for n, sport in kinetics.sports_groups().items() if sport == "tennis"]
    others = [c for c in range(401) if c not in tennis]
    assert np.allclose(scores.cas[:, others], plain.cas[:, others] / 2, atol=1e-3)
    assert np.allclose(scores.cas[:, tennis], (plain.cas[:, tennis] + moved[:, None]) / 2, atol=1e-3)
    assert np.allclose(scores.coarse_cas, plain.cas / 2, atol=1e-3)
    assert np.array_equal(scores.actionness, plain.actionness)
    assert tuned.localize == {"min_confidence": 0.25}


def test_a_bias_moves_its_names_in_s_alone(head, features) -> None:
    weight, bias = head
    names = list(weights.kinetics400_names())
    added = {"hurling (sport)": -5.0, "squat": -0.8}
    plain = predict(kinetics.build(weight, bias, names, "sha256:0").build(), features)
    scores = predict(
        kinetics.build(weight, bias, names, "sha256:0", tuning_of(bias=added, closed={})).build(), features
    )
    for name, value in added.items():
        column = names.index(name)
        assert np.allclose(scores.cas[:, column], (plain.cas[:, column] + value) / 2, atol=1e-3)
    assert np.allclose(scores.coarse_cas, plain.cas / 2, atol=1e-3)
    assert np.array_equal(scores.actionness, plain.actionness)


def test_a_sport_of_many_names_loses_half_of_their_logarithm() -> None:
    found, groups = kinetics.biases(), kinetics.sports_groups()
    assert set(found) == set(groups)
    for name, sport in groups.items():
        count = sum(other == sport for other in groups.values())
        expected = -0.5 * np.log(count) - (10 if sport == "hurling" else 0)
        assert found[name] == pytest.approx(expected)


def test_a_tuning_of_other_features_is_left_out(head) -> None:
    weight, bias = head
    names = weights.kinetics400_names()
    model = kinetics.build(weight, bias, names, "sha256:1", tuning_of("sha256:0"))
    assert fingerprint(model) == fingerprint(kinetics.build(weight, bias, names, "sha256:1"))
    assert model.localize == {}


def test_a_tuning_survives_its_file_and_vouches_for_the_whole_model(head, tmp_path) -> None:
    weight, bias = head
    names = weights.kinetics400_names()
    whole = fingerprint(kinetics.build(weight, bias, names, "sha256:0", tuning_of()))
    tuning_of(assembled=whole).save(tmp_path / "t.safetensors")
    found = Tuning.load(tmp_path / "t.safetensors")
    assert fingerprint(kinetics.build(weight, bias, names, "sha256:0", found)) == whole
    found.tilt["tennis"][7] += 1e-3
    with pytest.raises(CheckpointError, match="the model that was measured"):
        kinetics.build(weight, bias, names, "sha256:0", found)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"\x80\x04pickle"])
def test_a_damaged_tuning_is_one_sentence(content: bytes, tmp_path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not the tuning of kinetics400"):
        Tuning.load(path)


def test_the_shipped_tuning_is_small_and_favours_no_sport() -> None:
    assert kinetics.TUNING.stat().st_size < 25 << 20
    shipped = Tuning.load()
    assert not shipped.tilt and shipped.bias == kinetics.biases()
    sports = set(kinetics.sports_groups().values())
    assert set(shipped.closed) == set(shipped.named["added"]) == sports
    assert shipped.assembled and shipped.backbone
    assert LocalizeConfig(**shipped.localize).min_confidence > 0
    assert shipped.assembled in kinetics.CARD.read_text(encoding="utf-8")

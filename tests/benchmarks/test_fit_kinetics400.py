"""fit_kinetics400 as one command on features made here: the same file twice, and a model that the product assembles."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import fit_kinetics400 as script
from benchmarks import fit_named, fit_wide
from extractors.backbones import weights
from extractors.featurefile import save
from extractors.features import Features
from model import kinetics
from model.checkpoint import fingerprint
from model.kinetics import Tuning
from model.predict import predict

pytestmark = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")

SNIPPET = 0.64
TOWARDS = {"tennis": "playing tennis", "golf": "golf driving", "Street": None}  # what the clips look like

WIDE = (
    ("Tennis", "sport", "playing tennis", "ann"),
    ("Golf", "sport", "golf driving", "bob"),
    ("Golf", "sport", "golf putting", "bob"),
    ("Cooking", "negative", "cooking egg", "ann"),
    ("Cooking", "negative", None, "eve"),
    ("Netball", "unknown", "playing tennis", "eve"),
)


def rows(rng: np.random.Generator, head: script.Head, name: str | None, count: int, least: float = 0.2) -> np.ndarray:
    """(count, 1024) snippets, never negative; of a class, what its row of the head likes, more or less."""
    x = rng.gamma(0.5, 0.3, (count, 1024))
    if name is not None:
        x = x + rng.uniform(least, 2.5 * least) * head.weight[script.NAMES.index(name)].numpy()
    return np.maximum(x, 0).astype(np.float32)


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = SNIPPET * np.arange(len(rgb))
    save(
        Features(
            rgb, None, np.stack((starts, starts + SNIPPET), axis=1), SNIPPET * len(rgb), {}, {"rgb": {"together": 4}}
        ),
        path,
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Clips of the fit half, others (the cricketers look a little like golf), one video of tennis and golf."""
    rng, head = np.random.default_rng(7), script.Head.published()
    clips: dict[str, list[str]] = {}
    shown = {}
    for label, name in TOWARDS.items():
        clips[label] = [f"{label}/{label}_{n}.mp4" for n in range(4)]
        for clip in clips[label]:
            shown[clip] = rows(rng, head, name, 5)
            write(tmp_path / "clips" / f"{Path(clip).stem}.npz", shown[clip])
    for n in range(2):
        write(tmp_path / "clips" / f"Kickflip_{n}.npz", rows(rng, head, "skateboarding", 4))
        write(tmp_path / "clips" / f"CricketBowling_{n}.npz", rows(rng, head, "golf driving", 4, least=0.08))
    order = [clips["Street"][0], clips["tennis"][0], clips["Street"][1], clips["golf"][0], clips["Street"][2]]
    write(tmp_path / "videos" / "fit_00.npz", np.concatenate([shown[clip] for clip in order]))
    spans = [(5 * SNIPPET * n, 5 * SNIPPET * (n + 1), clip) for n, clip in enumerate(order)]
    actions = [{"label": c.split("/")[0], "segment": [a, b]} for a, b, c in spans if not c.startswith("Street")]
    database = {"fit_00": {"subset": "fit", "duration": spans[-1][1], "annotations": actions}}
    named = {
        "clips.json": {"fit": clips, "score": {}},
        "pieces.json": {"fit_00": spans},
        "ground_truth.json": {"database": database},
    }
    for file, content in named.items():
        (tmp_path / file).write_text(json.dumps(content))
    wide = ["path,label,kind,accept,seconds,width,height,source"]
    for n, (label, kind, name, owner) in enumerate(WIDE):
        accept = label.lower() if kind == "sport" else ""
        write(tmp_path / "wide" / f"{label}_{n}.npz", rows(rng, head, name, 5, least=0.12))
        wide.append(f"{label}/{label}_{n}.mp4,{label},{kind},{accept},3.2,640,360,{owner}/repository: a.mp4")
    (tmp_path / "manifest.csv").write_text("\n".join(wide))
    return tmp_path


def fitted(files: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Run the command, on fewer folds and coarser steps than it takes in earnest."""
    quick = {"LAMBDA": 0.01, "PUSHED": 1, "WIDE_TIMES": 1, "FOLDS": 2}
    for module, values in ((script, quick), (fit_wide, {"FOLDS": 2, "STEPS": 1}), (fit_named, {"STEPS": 1})):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    data = ("--videos", files / "videos", "--truth", files, "--wide", files / "wide")
    line = [files / "clips", *data, "--manifest", files / "manifest.csv", *more]
    monkeypatch.setattr("sys.argv", ["fit_kinetics400.py", *map(str, line)])
    script.main()


def test_the_command_writes_the_same_model_twice(files: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name in ("a", "b"):
        fitted(files, monkeypatch, "--out", str(files / name))
    assert (files / "a").read_bytes() == (files / "b").read_bytes()

    found = Tuning.load(files / "a")
    assert sorted(found.tilt) == ["golf", "tennis"] and found.temperature == script.TEMPERATURE
    confidence = {"confidence_slope", "confidence_shift", "min_confidence"}
    assert set(found.localize) == {"threshold", "edge", "merge_gap"} | confidence
    assert found.bias == kinetics.biases() and set(found.closed) == set(script.SPORTS)
    assert all(0 <= added <= fit_wide.MOST_ADDED for added in found.closed.values())
    assert set(found.named["added"]) == set(script.SPORTS) - set(found.tilt)  # S is better for those
    assert found.named["scale"] == script.TEMPERATURE
    assert found.features == {"together": 4}  # the model will read features like those that it was fitted on
    head = script.Head.published()
    weight, bias = head.weight.float(), head.bias.float()
    model = kinetics.build(weight, bias, script.NAMES, head.backbone, found)  # raises if it is not what was written
    assert fingerprint(model) == found.assembled
    assert model.features["rgb"]["together"] == 4
    assert f"chosen: gaps of up to {found.localize['merge_gap']}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_of_what_was_held_out(files: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    fitted(files, monkeypatch, "--held-out", "--out", str(files / "c"))
    printed = capsys.readouterr().out
    assert "| sports | 3 |" in printed and "with the sport named: " in printed and not (files / "c").exists()


def test_what_is_fitted_is_what_the_product_reads() -> None:
    """The likelihood's P(sport) is A^ness * softmax(S) of the assembled network, summed over the sport's names."""
    rng, head = np.random.default_rng(1), script.Head.published()
    x = np.concatenate([rows(rng, head, name, 6) for name in (None, "playing tennis", "golf driving")])
    tilt = torch.zeros(len(script.SPORTS), kinetics.WIDTH, dtype=torch.float64)
    tilt[script.SPORTS.index("tennis")] = torch.from_numpy(0.05 * rng.standard_normal(kinetics.WIDTH))
    scores = predict(script.assemble(head, script.tuning(head, tilt, 1.5)).build(), x)
    e = np.exp(scores.cas.astype(np.float64) - scores.cas.max(axis=1, keepdims=True))
    named = scores.actionness[:, None] * (e / e.sum(axis=1, keepdims=True))[:, :-1]
    expected = np.zeros((len(x), len(script.SPORTS)))
    for c, name in enumerate(script.NAMES):
        if name in script.GROUPS:
            expected[:, script.SPORTS.index(script.GROUPS[name])] += named[:, c]
    found = head.probabilities(torch.from_numpy(x).double(), tilt, 1.5).numpy()
    np.testing.assert_allclose(found[:, :-1], expected, atol=2e-3)
    assert expected.max() > 0.5 > expected.max(axis=1).min()  # sure of some, not of others
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)

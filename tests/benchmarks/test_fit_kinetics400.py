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
        write(tmp_path / "clips" / f"CricketBowling_{n}.npz", rows(rng, head, "golf driving", 4, least=0.12))
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
        write(tmp_path / "wide" / f"{label}_{n}.npz", rows(rng, head, name, 5, least=0.2 if kind == "sport" else 0.12))
        wide.append(f"{label}/{label}_{n}.mp4,{label},{kind},{accept},3.2,640,360,{owner}/repository: a.mp4")
    (tmp_path / "manifest.csv").write_text("\n".join(wide))
    return tmp_path


def fitted(files: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Run the command, on fewer folds and coarser steps than it takes in earnest."""
    for module, values in ((fit_wide, {"FOLDS": 3, "STEPS": 1}), (fit_named, {"STEPS": 1})):
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
    assert not found.tilt and found.temperature == script.TEMPERATURE
    confidence = {"confidence_slope", "confidence_shift", "min_confidence"}
    assert set(found.localize) == {"threshold", "edge", "merge_gap"} | confidence
    assert found.bias == kinetics.biases() and set(found.closed) == set(script.SPORTS)
    assert all(0 <= added <= fit_wide.MOST_ADDED for added in found.closed.values())
    assert set(found.named["added"]) == set(script.SPORTS)
    assert found.named["scale"] == script.TEMPERATURE
    assert found.features == {"together": 4}  # the model will read features like those that it was chosen on
    head = script.Head.published()
    model = script.assemble(head, found)  # raises if it is not what was written
    assert fingerprint(model) == found.assembled
    assert model.features["rgb"]["together"] == 4
    assert f"chosen: gaps of up to {found.localize['merge_gap']}" in capsys.readouterr().out


def test_the_table_of_what_was_held_out(files: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    fitted(files, monkeypatch, "--held-out", "--out", str(files / "c"))
    printed = capsys.readouterr().out
    assert "| sports | 3 |" in printed and "with the sport named: " in printed and not (files / "c").exists()


def test_the_probability_of_a_sport() -> None:
    """A^ness * softmax(S / temperature) of the assembled network is what the formulas say of the head's own logits."""
    rng, head = np.random.default_rng(1), script.Head.published()
    x = np.concatenate([rows(rng, head, name, 6) for name in (None, "playing tennis", "golf driving")])
    scores = predict(script.assemble(head, script.settings(head)).build(), x)
    e = np.exp(scores.cas.astype(np.float64) - scores.cas.max(axis=1, keepdims=True))
    found = scores.actionness[:, None] * (e / e.sum(axis=1, keepdims=True))[:, :-1]

    logits = x.astype(np.float64) @ head.weight.double().numpy().T + head.bias.double().numpy()
    evidence = np.maximum(logits - script.EVIDENCE, 0).sum(axis=1)
    shifted = logits + np.array([kinetics.biases().get(name, 0.0) for name in script.NAMES])
    e = np.exp(np.concatenate([shifted, np.full((len(x), 1), kinetics.BACKGROUND)], axis=1) / script.TEMPERATURE)
    expected = (e / e.sum(axis=1, keepdims=True))[:, :-1] / (1 + np.exp(kinetics.OFFSET - evidence))[:, None]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert expected.max() > 0.5 > expected.max(axis=1).min()  # sure of some, not of others

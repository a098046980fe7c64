"""Features of several precisions: one note, said once; every other setting stays strict."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode, small_checkpoint

from extractors.backbones import weights
from extractors.features import Features, save
from model import checkpoint
from model.config import ModelConfig
from model.datasets import DatasetError
from model.train import initialise
from pipeline.datasets.layouts import grid, read_feature_set
from pipeline.precisions import other_than_trained
from pipeline.run.remaking import compare
from pipeline.score import evaluate_model

FLOAT32 = {"crop": 224, "dtype": "float32", "engine": "torch"}
INT8 = {"crop": 224, "dtype": "int8+bfloat16", "engine": "openvino-1", "int8": "12ab"}


def features(about: dict[str, object]) -> Features:
    rows = np.random.default_rng(0).random((40, 1024), dtype=np.float32)
    return Features(rgb=rows, flow=None, times=grid(40, 25), duration=25.6, media={}, settings={"rgb": about})


def test_a_folder_may_mix_precisions_and_says_so_once(tmp_path: Path) -> None:
    for name, about in {"a": FLOAT32, "b": INT8, "c": FLOAT32}.items():
        save(features(about), tmp_path / f"{name}.npz")
    found = read_feature_set(tmp_path)
    (note,) = found.notes
    assert "(rgb: 2 in float32, 1 in int8+bfloat16)" in note and "was measured" in note
    mixed = {"dtype": "float32, int8+bfloat16", "engine": "openvino-1, torch", "int8": "12ab"}
    assert found.settings == {"rgb": {"crop": 224} | mixed}
    save(features(INT8 | {"crop": 192}), tmp_path / "d.npz")
    with pytest.raises(DatasetError, match=r"a and d were extracted with different settings \(rgb crop: 224, 192\)"):
        read_feature_set(tmp_path)


@pytest.mark.parametrize("old", [{"crop": 224, "dtype": "float32"}, FLOAT32 | {"engine": "openvino-1"}])
def test_float32_of_another_engine_or_of_an_older_version_is_not_worth_a_note(
    tmp_path: Path, old: dict[str, object]
) -> None:
    save(features(FLOAT32), tmp_path / "a.npz")
    save(features(old), tmp_path / "b.npz")
    assert read_feature_set(tmp_path).notes == ()


def test_a_folder_of_one_precision_keeps_its_settings(tmp_path: Path) -> None:
    save(features(INT8), tmp_path / "a.npz")
    save(features(INT8), tmp_path / "b.npz")
    found = read_feature_set(tmp_path)
    assert found.settings == {"rgb": INT8} and found.notes == ()


@pytest.mark.parametrize(
    ("provenance", "notes"),
    [
        ({}, 0),
        ({"features": {"rgb": INT8}}, 0),
        ({"features": {"rgb": FLOAT32}}, 1),
        ({"features": {"rgb": {}, "flow": FLOAT32}}, 0),
        ({"features": "free-form"}, 0),
        ({"features": {"rgb": "free-form"}}, 0),
    ],
)
def test_a_checkpoint_of_another_precision(provenance: dict[str, object], notes: int) -> None:
    found = other_than_trained(provenance, {"rgb": INT8})
    assert len(found) == notes
    assert all("trained on rgb features in float32, and these are in int8+bfloat16" in note for note in found)


def test_evaluate_notes_it(tmp_path: Path) -> None:
    save(features(INT8), tmp_path / "a.npz")
    start = initialise(ModelConfig(classes=2, in_dim=1024, dim=8), ("jump", "run"), ("rgb",), {}, seed=0)
    model = replace(start, provenance={"features": {"rgb": FLOAT32}})
    actions = [{"segment": [1.0, 4.0], "label": label} for label in ("jump", "run")]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"database": {"a": {"subset": "test", "annotations": actions}}}))
    notes = evaluate_model(model, tmp_path, truth).notes
    assert sum("trained on rgb features in float32" in note for note in notes) == 1
    same = replace(start, provenance={"features": {"rgb": INT8}})
    assert not any("trained on" in note for note in evaluate_model(same, tmp_path, truth).notes)


@pytest.mark.parametrize(
    ("before", "now", "chosen", "conflict"),
    [
        (INT8, INT8 | {"engine": "openvino-2"}, ["features.precision"], False),  # only a version
        (INT8, INT8 | {"int8": "34cd"}, ["features.precision"], False),
        (INT8, FLOAT32, [], False),  # `auto` on another machine
        (INT8, FLOAT32, ["features.precision"], True),
        (FLOAT32 | {"engine": "openvino-1"}, FLOAT32, ["features.precision"], True),
    ],
)
def test_a_result_of_another_precision_is_a_conflict_only_if_the_user_chose_it(
    before: dict[str, object], now: dict[str, object], chosen: list[str], conflict: bool
) -> None:
    change = compare({"features": {"rgb": before}, "asked": chosen}, {"features": {"rgb": now}, "asked": chosen})
    assert bool(change.asked) == conflict and not change.none


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_run_says_it_once_for_all_videos(jcdnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "small.toml"
    config.write_text("[features]\ncrop = 32\nshort_side = 48\n")
    for name, first in (("a", 0), ("b", 300)):
        encode(tmp_path / f"{name}.mp4", [coded(first + k) for k in range(40)])
    for dtype, times in (("float16", 1), ("float32", 0)):
        trained = {"features": {"rgb": {"dtype": dtype}}}
        model = dataclasses.replace(small_checkpoint(), provenance=trained)
        checkpoint.save(model, tmp_path / f"{dtype}.safetensors")
        asked = ("--model", tmp_path / f"{dtype}.safetensors", "--precision", "float32", "--config", config)
        code, _, said = jcdnet("run", tmp_path / "a.mp4", tmp_path / "b.mp4", "-o", tmp_path / dtype, *asked)
        assert code == 0, said
        assert " ".join(said.split()).count("trained on rgb features in float16") == times
        assert "rgb in float32 (PyTorch)" in said

"""named_rule: each snippet read by what was fitted without its clip, and the gap that is best on known scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import fit_kinetics400, named_rule
from extractors.backbones import weights
from extractors.featurefile import save
from extractors.features import Features
from model.predict import predict
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action

needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")

SNIPPET = 0.64


def features(count: int) -> Features:
    """Snippets of .64 s side by side, of random content."""
    rgb = np.random.default_rng(count).gamma(0.5, 0.6, (count, 1024)).astype(np.float32)
    starts = SNIPPET * np.arange(count)
    return Features(rgb, None, np.stack((starts, starts + SNIPPET), axis=1), SNIPPET * count, {}, {})


@pytest.fixture(scope="module")
def models():
    head = fit_kinetics400.Head.published()
    tilt = torch.zeros(len(fit_kinetics400.SPORTS), 1024, dtype=torch.float64)
    return [
        fit_kinetics400.assemble(head, fit_kinetics400.tuning(head, tilt, temperature)) for temperature in (1.0, 2.0)
    ]


def test_a_snippet_is_of_the_clip_at_its_middle_and_only_the_half_is_read(tmp_path: Path):
    # The second clip begins at 1 s, after the middle (.96) of the second snippet.
    pieces = {"fit_00": [[0.0, 1.0, "a"], [1.0, 2.5, "b"]], "score_00": [[0.0, 2.5, "c"]]}
    (tmp_path / "pieces.json").write_text(json.dumps(pieces))
    videos = {
        "fit_00": {"subset": "fit", "duration": 2.56, "annotations": [{"label": "tennis", "segment": [1.0, 2.5]}]},
        "score_00": {"subset": "score", "duration": 2.56, "annotations": []},
    }
    (tmp_path / "ground_truth.json").write_text(json.dumps({"database": videos}))
    save(features(4), tmp_path / "fit_00.npz")
    found = named_rule.read(tmp_path, tmp_path, "fit", {"a": 0, "b": 1})
    assert list(found) == ["fit_00"]
    assert found["fit_00"].clips == ["a", "a", "b", "b"]
    assert [(a.label, a.start, a.end) for a in found["fit_00"].actions] == [("tennis", 1.0, 2.5)]
    with pytest.raises(ValueError, match=r"fit_00 shows b, which clips\.json does not list"):
        named_rule.read(tmp_path, tmp_path, "fit", {"a": 0})


def test_the_model_of_a_fold_has_not_seen_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.zeros((1, 1024), dtype=np.float32), np.zeros((1, 2))
    clips = [fit_kinetics400.Clip(str(n), 0, *nothing, n % fit_kinetics400.FOLDS) for n in range(12)]
    monkeypatch.setattr(fit_kinetics400, "fit", lambda head, given, *settings: [clip.fold for clip in given])
    for fold, seen in enumerate(fit_kinetics400.left_out(None, clips, None, 1e-3, 1.0)):
        assert set(seen) == set(range(fit_kinetics400.FOLDS)) - {fold}


@needs_weights
def test_each_snippet_is_read_by_the_model_of_its_fold(models):
    of = features(5)
    fold = {"a": 0, "b": 1}
    nets = [model.build() for model in models]
    scores = named_rule.unseen(named_rule.Video(of, [], ["a", "b", "b", "a", "b"]), nets, fold)
    both = [predict(net, of.rgb) for net in nets]
    for t, f in enumerate((0, 1, 1, 0, 1)):
        np.testing.assert_array_equal(scores.cas[t], both[f].cas[t])
    assert not np.allclose(both[0].cas, both[1].cas)


@needs_weights
def test_the_edge_keeps_the_spill_of_smoothing_out(models):
    """Three sure snippets: without an edge the third that smoothing leaves beside them is drawn, too."""
    count, tennis = 20, models[0].classes.index("playing tennis")
    video = named_rule.Video(features(count), [Action(6 * SNIPPET, 9 * SNIPPET, "tennis")], ["a"] * count)
    plain = predict(models[0].build(), video.features.rgb)
    cas = np.full_like(plain.cas, -30.0)
    cas[:, -1] = 0.0
    cas[6:9, tennis] = 30.0
    scores = {"v": replace(plain, cas=cas, actionness=np.ones(count, dtype=np.float32))}

    def found(edge: float) -> dict[int, float]:
        config = LocalizeConfig(threshold=0.15, edge=edge)
        return dict(named_rule.grid({"v": video}, scores, models[0], config))

    assert found(0.0)[1] == found(0.32)[1] == pytest.approx(200 / 3)  # 3 of 5 snippets: tIoU .6
    assert found(0.36)[1] == pytest.approx(100)
    assert named_rule.best(list(found(0.36).items())) == 4


def test_of_equals_the_largest_gap():
    assert named_rule.best([(1, 90.0), (2, 95.0), (3, 95.0 + 1e-12), (4, 94.0)]) == 3

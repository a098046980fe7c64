"""named_rule: the videos of one half, and the gap that is best on known scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
def model():
    head = fit_kinetics400.Head.published()
    return fit_kinetics400.assemble(head, fit_kinetics400.settings(head))


def test_only_the_half_is_read(tmp_path: Path):
    videos = {
        "fit_00": {"subset": "fit", "duration": 2.56, "annotations": [{"label": "tennis", "segment": [1.0, 2.5]}]},
        "score_00": {"subset": "score", "duration": 2.56, "annotations": []},
    }
    (tmp_path / "ground_truth.json").write_text(json.dumps({"database": videos}))
    save(features(4), tmp_path / "fit_00.npz")  # there are none of score_00
    found = named_rule.read(tmp_path, tmp_path, "fit")
    assert list(found) == ["fit_00"]
    assert [(a.label, a.start, a.end) for a in found["fit_00"].actions] == [("tennis", 1.0, 2.5)]
    np.testing.assert_array_equal(found["fit_00"].features.rgb, features(4).rgb)


@needs_weights
def test_the_gap_is_chosen_on_what_the_model_says(model, monkeypatch: pytest.MonkeyPatch):
    """Two bursts of one rally, four snippets apart: a gap of 1 leaves two segments."""
    count, tennis = 24, model.classes.index("playing tennis")
    video = named_rule.Video(features(count), [Action(6 * SNIPPET, 16 * SNIPPET, "tennis")])
    plain = predict(model.build(), video.features.rgb)
    cas = np.full_like(plain.cas, -30.0)
    cas[:, -1] = 0.0
    cas[[*range(6, 9), *range(13, 16)], tennis] = 30.0
    told = replace(plain, cas=cas, actionness=np.ones(count, dtype=np.float32))
    monkeypatch.setattr(named_rule, "predict", lambda net, rgb: told)
    config = LocalizeConfig(threshold=0.15, edge=0.36)
    rows = dict(named_rule.grid({"v": video}, {"v": told}, model, config))
    assert rows[1] < rows[4] == pytest.approx(100)
    assert named_rule.choose({"v": video}, model, config) == 4


@needs_weights
def test_the_edge_keeps_the_spill_of_smoothing_out(model):
    """Three sure snippets: without an edge the third that smoothing leaves beside them is drawn, too."""
    count, tennis = 20, model.classes.index("playing tennis")
    video = named_rule.Video(features(count), [Action(6 * SNIPPET, 9 * SNIPPET, "tennis")])
    plain = predict(model.build(), video.features.rgb)
    cas = np.full_like(plain.cas, -30.0)
    cas[:, -1] = 0.0
    cas[6:9, tennis] = 30.0
    scores = {"v": replace(plain, cas=cas, actionness=np.ones(count, dtype=np.float32))}

    def found(edge: float) -> dict[int, float]:
        config = LocalizeConfig(threshold=0.15, edge=edge)
        return dict(named_rule.grid({"v": video}, scores, model, config))

    assert found(0.0)[1] == found(0.32)[1] == pytest.approx(200 / 3)  # 3 of 5 snippets: tIoU .6
    assert found(0.36)[1] == pytest.approx(100)
    assert named_rule.best(list(found(0.36).items())) == 4


def test_of_equals_the_largest_gap():
    assert named_rule.best([(1, 90.0), (2, 95.0), (3, 95.0 + 1e-12), (4, 94.0)]) == 3

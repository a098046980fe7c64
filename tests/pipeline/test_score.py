"""A checkpoint over stored features: every video scored, in the videos' own seconds, and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.config import ModelConfig
from model.datasets import DatasetError
from model.predict import predict
from model.train import initialise
from pipeline.datasets.layouts import read_feature_set
from pipeline.score import check_settings, evaluate_model, predictions_of
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action, AnnotatedVideo
from postprocess.evaluation.evaluate import evaluate
from postprocess.evaluation.metrics import video_scores
from postprocess.evaluation.protocols import EvaluateError, Scoring
from postprocess.localize import Activations, localize
from support.errors import UsageError

CLASSES = ("jump", "run")


@pytest.fixture
def stored(tmp_path: Path):
    rng = np.random.default_rng(0)
    for name, rows in (("a", 12), ("b", 20)):
        np.save(tmp_path / f"{name}.npy", rng.random((rows, 1024), dtype=np.float32))
    return read_feature_set(tmp_path, streams=("rgb",))


def model(**features: object):
    settings = {"rgb": {"fps": 25.0, "length": 16, "stride": 16} | features}
    return initialise(ModelConfig(classes=2, in_dim=1024, dim=8), CLASSES, ("rgb",), settings, seed=0)


@pytest.mark.parametrize("rule", ["paper", "runs"])
def test_segments_and_scores_are_those_of_each_video_alone(stored, rule):
    checkpoint, config = model(), LocalizeConfig(rule=rule, threshold=0.1)
    predicted = predictions_of(checkpoint, stored, config)
    assert set(predicted.actions) == {"a", "b"}
    for name, video in stored.videos.items():
        found = predict(checkpoint.build(), video.load())
        ends = float(video.times[-1, 1])
        given = Activations(found.cas, found.actionness, found.video, video.times, CLASSES, ends)
        segments = localize(given, config)
        ranked = [s.score if rule == "paper" else s.confidence for s in segments]
        expected = [Action(s.start, s.end, s.label, r) for s, r in zip(segments, ranked, strict=True)]
        assert predicted.actions[name] == expected
        assert list(predicted.video_scores[name].values()) == pytest.approx(video_scores(found.cas))
    assert any(predicted.actions.values())


def test_it_can_be_scored(stored):
    truth = {
        name: AnnotatedVideo("test", (Action(1.0, 4.0, "run"), Action(5.0, 6.0, "jump"))) for name in stored.videos
    }
    result = evaluate(truth, predictions_of(model(), stored, LocalizeConfig(rule="paper")))
    assert result.overall.videos == 2 and result.classification is not None


def test_another_stride_is_refused(stored):
    with pytest.raises(UsageError, match="stride = 4, and these have 16"):
        predictions_of(model(stride=4), stored, LocalizeConfig())


@pytest.mark.parametrize("declared", [{}, {"view": "centre"}])
def test_features_of_another_view_are_refused(declared):
    settings = {"fps": 25.0, "length": 16, "stride": 16}
    check_settings(model(**declared), {"rgb": settings})
    with pytest.raises(UsageError, match="view = centre, and these have whole"):
        check_settings(model(**declared), {"rgb": settings | {"view": "whole"}})
    check_settings(model(view="whole"), {"rgb": settings | {"view": "whole"}})
    with pytest.raises(UsageError, match="view = whole, and these have centre"):
        check_settings(model(view="whole"), {"rgb": settings})


def test_a_stream_that_is_missing_is_refused(stored):
    both = initialise(ModelConfig(classes=2, in_dim=2048, dim=8), CLASSES, ("rgb", "flow"), {}, seed=0)
    with pytest.raises(UsageError, match="flow stream"):
        predictions_of(both, stored, LocalizeConfig())


def test_features_of_another_width_name_the_video(stored):
    narrow = initialise(ModelConfig(classes=2, in_dim=16, dim=8), CLASSES, ("rgb",), {}, seed=0)
    with pytest.raises(DatasetError, match="a: "):
        predictions_of(narrow, stored, LocalizeConfig())


def test_whole_numbers_and_floats_compare():
    check_settings(model(fps=25.0), {"rgb": {"fps": 25, "length": 16, "stride": 16}})


def test_a_class_that_nobody_annotated_is_found_falsely_and_said(stored, tmp_path):
    truth = {"database": {n: {"annotations": [{"label": "run", "segment": [1, 4]}]} for n in stored.videos}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    result = evaluate_model(model(), tmp_path, tmp_path / "truth.json")
    assert result.overall.videos == 2
    assert any("no jump" in note and "false positives" in note for note in result.notes)
    assert result.unannotated["jump"] > 0
    without = evaluate_model(model(), tmp_path, tmp_path / "truth.json", Scoring(ignore_unknown=True))
    assert without.predictions == result.predictions - result.unannotated["jump"] and without.unannotated == {}
    assert any("no jump" in note and "left out" in note for note in without.notes)
    assert without.overall == result.overall
    truth = {"database": {n: {"annotations": [{"label": "swim", "segment": [1, 4]}]} for n in stored.videos}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(UsageError, match="knows jump, run"):
        evaluate_model(model(), tmp_path, tmp_path / "truth.json")


def test_videos_that_are_not_annotated_are_left_out_and_told_of(stored, tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"database": {"b.mp4": {"annotations": [{"label": "run", "segment": [1, 4]}]}}}))
    result = evaluate_model(model(), tmp_path, truth)
    assert result.overall.videos == 1
    assert "1 of 2 videos, 'a' first, are not in the ground truth and were left out." in result.notes
    truth.write_text(json.dumps({"database": {"c.mp4": {"annotations": [{"label": "run", "segment": [1, 4]}]}}}))
    with pytest.raises(EvaluateError, match=r"2 videos, 'a' first, .* which has 'c\.mp4'"):
        evaluate_model(model(), tmp_path, truth)


def test_a_class_that_the_truth_spells_in_another_way_is_the_same_class(stored, tmp_path):
    checkpoint = replace(model(), classes=("salto\u0302", "Run"))  # ô as a Mac's disk stores it
    actions = [{"label": "salt\u00f4", "segment": [1, 4]}, {"label": "run", "segment": [5, 6]}]
    (tmp_path / "truth.json").write_text(json.dumps({"database": {n: {"annotations": actions} for n in stored.videos}}))
    result = evaluate_model(checkpoint, tmp_path, tmp_path / "truth.json")
    assert {c.label for c in result.per_class} == {"salt\u00f4", "run"}
    assert result.predictions > 0 and result.classification is not None
    assert "labels were taken for those of the ground truth: 'Run' for 'run'." in result.notes
    assert not any("left out" in note for note in result.notes)

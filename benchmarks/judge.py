"""Every number of one trained network on the test videos of a task, as JSON, and the difference of two networks'."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from benchmarks import conjointsynth, peers
from benchmarks.bootstrap import resample
from benchmarks.conjointsynth import Interval, t_interval
from benchmarks.tasks import Task
from model.predict import Scores
from postprocess.config import RULES, LocalizeConfig
from postprocess.evaluation.metrics import Detection, Predictions, classification_ap, detect, video_scores
from postprocess.evaluation.protocols import tiou_name
from postprocess.localize import Activations, localize
from postprocess.segment import Segment

TIOUS = np.round(np.arange(0.3, 0.95, 0.1), 9)
RANKED_BY = {"paper": {"paper": "score"}, "runs": {"runs": "confidence", "runs by score": "score"}}


def judge(task: Task, net: nn.Module, drawn: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every number of one trained network, as JSON. drawn: what its preset changes of the rule `runs`."""
    scores = [peers.scores(net, rows) for rows in task.test.features]
    present = np.zeros(task.test.labels.shape, dtype=bool)
    present[task.truth.video, task.truth.label] = True
    ap = classification_ap(np.stack([video_scores(s.cas) for s in scores]), present)
    found: dict[str, Any] = {"classification_mAP": round(float(100 * np.nanmean(ap)), 4), "rules": {}}
    if task.half is not None:
        means = conjointsynth.actionness_by_phase(task.half, [s.actionness for s in scores])
        found["actionness"] = {name: round(value, 4) for name, value in means.items()}
        oracle = conjointsynth.definite_oracle(task.half)
        found["definite_oracle"] = _of_classes(detect(task.truth, oracle, TIOUS), conjointsynth.CONJOINT)
        found["phi"] = round(task.phi or 0.0, 4)
    for rule in RULES:
        config = LocalizeConfig(rule=rule, **(drawn or {} if rule == "runs" else {}))
        segments = _segments(task, scores, config)
        for name, by in RANKED_BY[rule].items():
            found["rules"][name] = _quality(task, _predictions(segments, task.test.classes, by), draw=name == rule)
    return found


def _segments(task: Task, scores: Sequence[Scores], config: LocalizeConfig) -> list[list[Segment]]:
    return [
        localize(Activations(s.cas, s.actionness, s.video, times, task.test.classes, duration), config)
        for s, times, duration in zip(scores, task.times, task.durations, strict=True)
    ]


def _predictions(segments: Sequence[Sequence[Segment]], classes: Sequence[str], by: str) -> Predictions:
    number = {label: c for c, label in enumerate(classes)}
    rows = [(v, number[s.label], s.start, s.end, getattr(s, by)) for v, found in enumerate(segments) for s in found]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5)
    video, label = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return Predictions(video, label, columns[:, 2:4], columns[:, 4])


def _quality(task: Task, predictions: Predictions, draw: bool) -> dict[str, Any]:
    detection = detect(task.truth, predictions, TIOUS)
    mean_ap = 100 * detection.mean_ap
    quality: dict[str, Any] = {
        "predictions": len(predictions),
        "mAP": {tiou_name(t): round(value, 4) for t, value in zip(TIOUS, mean_ap.tolist(), strict=True)},
        "average": round(float(mean_ap.mean()), 4),
    }
    if task.clips is not None and draw:
        drawn = 100 * resample(task.truth, predictions, detection, task.clips)
        quality["draws"] = np.round(drawn.mean(axis=0), 3).tolist()
    if task.half is not None:
        quality["conjoint"] = _of_classes(detection, conjointsynth.CONJOINT)
        quality["control"] = _of_classes(detection, conjointsynth.CONTROL)
        coverage = conjointsynth.completeness(task.half, predictions)
        quality["coverage"] = {n: None if math.isnan(x) else round(x, 4) for n, x in coverage.items()}
    return quality


def _of_classes(detection: Detection, classes: Sequence[int]) -> float:
    """mAP 0.3:0.9 in percent over some of the classes."""
    return round(float(100 * detection.ap[:, np.isin(detection.classes, classes)].mean()), 4)


def difference(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> Interval:
    """mAP 0.3:0.9 of some runs minus that of others, one by one; what `judge` gave for a rule."""
    pairs = list(zip(ours, theirs, strict=True))
    values = [a["average"] - b["average"] for a, b in pairs]
    if not all("draws" in run for pair in pairs for run in pair):
        return t_interval(values)
    drawn = np.mean([np.subtract(a["draws"], b["draws"]) for a, b in pairs], axis=0)
    low, high = np.nanpercentile(drawn, [2.5, 97.5]).tolist()
    return Interval(float(np.mean(values)), low, high)

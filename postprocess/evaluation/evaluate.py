"""Predictions against ground truth: files in, an Evaluation out, which can be shown as JSON."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from postprocess.evaluation.annotations import AnnotatedVideo, Predicted, read_ground_truth, read_predictions, respell
from postprocess.evaluation.diagnose import Diagnosis, diagnose
from postprocess.evaluation.join import Scene, check_labels, join
from postprocess.evaluation.metrics import classification_ap, detect
from postprocess.evaluation.people import Drawn, drawn
from postprocess.evaluation.protocols import CONJOINT, EvaluateError, Scoring, averages, tiou_name
from postprocess.segment import SCHEMA

DEFAULT = Scoring()


@dataclass(frozen=True)
class MeanAP:
    """mAP over a number of videos and instances."""

    videos: int
    instances: int
    mean_ap: dict[str, float]
    """threshold → percent"""
    average: dict[str, float]
    """range of thresholds → mean over it, in percent"""

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON, in percent to 4 decimals."""
        counts = {"videos": self.videos, "instances": self.instances}
        return {**counts, "mAP": _rounded(self.mean_ap), "average": _rounded(self.average)}


@dataclass(frozen=True)
class ClassAP:
    """AP of one class."""

    label: str
    instances: int
    predictions: int
    ap: dict[str, float]
    """threshold → percent"""
    average: float
    """mean over all thresholds, in percent"""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    protocol: str
    subset: str
    unit: str
    predictions: int
    overall: MeanAP
    per_class: tuple[ClassAP, ...]
    unannotated: dict[str, int]
    """label → number of predictions, for labels without an instance in the scored subset. These are false positives:
    `predictions` and the diagnosis count them, but mAP does not, since it is the mean over the classes of the truth"""
    classification: float | None
    """classification mAP in percent; None if the video-level scores are not known"""
    conjoint: dict[str, MeanAP]
    diagnosis: Diagnosis | None
    notes: tuple[str, ...]
    drawn: Drawn | None = None
    """what a person wants to know first; None if the predictions are candidates, or are not counted in seconds"""

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, schema 1, with percent to 4 decimals."""
        per_class = {
            c.label: {
                "instances": c.instances,
                "predictions": c.predictions,
                "AP": _rounded(c.ap),
                "average": round(c.average, 4),
            }
            for c in self.per_class
        }
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "subset": self.subset,
            "unit": self.unit,
            "predictions": self.predictions,
            **self.overall.to_dict(),
            "per_class": per_class,
            "unannotated": self.unannotated,
            "classification_mAP": None if self.classification is None else round(self.classification, 4),
            "conjoint": {name: value.to_dict() for name, value in self.conjoint.items()},
            "diagnosis": None if self.diagnosis is None else self.diagnosis.to_dict(),
            "drawn": None if self.drawn is None else self.drawn.to_dict(),
            "notes": list(self.notes),
        }


def evaluate_files(predictions: Sequence[Path], ground_truth: Path, scoring: Scoring = DEFAULT) -> Evaluation:
    """Read predictions and ground truth from files, and score them.

    Args:
        predictions: ActivityNet's JSON, result documents of jcdnet, or folders of them.
        ground_truth: ActivityNet's JSON.
        scoring: how to score.

    Raises:
        EvaluateError: a file cannot be read, or the two do not fit together. The message is one sentence.
    """
    truth, predicted = read_ground_truth(ground_truth), read_predictions(predictions)
    try:
        scored = evaluate(truth, predicted, scoring)
        if not scoring.ignore_unknown:
            check_labels(predicted, truth)
    except EvaluateError as error:
        given = ", ".join(map(str, predictions)) or "no predictions"
        raise EvaluateError(f"{given} against {ground_truth}: {error}") from error
    return scored


def evaluate(
    ground_truth: Mapping[str, AnnotatedVideo], predicted: Predicted, scoring: Scoring = DEFAULT
) -> Evaluation:
    """Score predictions against ground truth.

    Raises:
        EvaluateError: the ground truth lacks a predicted video or the wanted subset, or has nothing to score against.
    """
    predicted, messages = respell(predicted, (a.label for video in ground_truth.values() for a in video.actions))
    scene = join(ground_truth, predicted, scoring)
    truth, found = scene.truth, scene.found
    thresholds = np.array(scoring.thresholds)
    detection = detect(truth, found, thresholds)
    names = [tiou_name(t) for t in thresholds]
    per_class = tuple(
        ClassAP(
            label=scene.classes[label],
            instances=int((truth.label == label).sum()),
            predictions=int((found.label == label).sum()),
            ap=dict(zip(names, (100 * detection.ap[:, c]).tolist(), strict=True)),
            average=float(100 * detection.ap[:, c].mean()),
        )
        for c, label in enumerate(detection.classes)
    )
    classification, missing = _classification(scene, predicted)
    return Evaluation(
        protocol=scoring.protocol,
        subset=scene.subset,
        unit=scoring.rules.unit,
        predictions=len(found),
        overall=_mean(len(scene.videos), len(truth), thresholds, detection.mean_ap),
        per_class=per_class,
        unannotated=_unannotated(scene),
        classification=classification,
        conjoint=_conjoint(scene, thresholds),
        diagnosis=diagnose(truth, found) if scoring.diagnosis else None,
        notes=(*messages, *scene.notes, *missing),
        drawn=None if scoring.rules.snippets else drawn(truth, found),
    )


def _unannotated(scene: Scene) -> dict[str, int]:
    counts = Counter(scene.found.label[~np.isin(scene.found.label, scene.truth.label)].tolist())
    return {scene.classes[label]: count for label, count in sorted(counts.items())}


def _mean(videos: int, instances: int, tious: np.ndarray, mean_ap: np.ndarray) -> MeanAP:
    percent = dict(zip(tious.tolist(), (100 * mean_ap).tolist(), strict=True))
    return MeanAP(videos, instances, {tiou_name(t): value for t, value in percent.items()}, averages(percent))


def _conjoint(scene: Scene, tious: np.ndarray) -> dict[str, MeanAP]:
    """mAP on the conjoint subset of §4.3: only its eleven classes and their videos; empty if a class is missing."""
    if not {scene.classes[label] for label in scene.truth.label.tolist()}.issuperset(CONJOINT["all"]):
        return {}
    result = {}
    for name, labels in CONJOINT.items():
        wanted = [scene.classes.index(label) for label in labels]
        truth = scene.truth.take(np.isin(scene.truth.label, wanted))
        found = scene.found.take(np.isin(scene.found.label, wanted) & np.isin(scene.found.video, truth.video))
        result[name] = _mean(len(np.unique(truth.video)), len(truth), tious, detect(truth, found, tious).mean_ap)
    return result


def _classification(scene: Scene, predicted: Predicted) -> tuple[float | None, list[str]]:
    """Classification mAP in percent, over the classes of the truth; and a note where some videos have no scores.

    A class that the model does not know counts 0.
    """
    known = {scene.names[name]: scores for name, scores in predicted.video_scores.items() if name in scene.names}
    known = {name: scores for name, scores in known.items() if name in scene.videos}
    if missing := len(scene.videos) - len(known):
        note = f"no classification mAP: {missing} videos have no curves beside their result."
        return None, [note] if known else []
    labels = np.zeros((len(scene.videos), len(scene.classes)), dtype=bool)
    labels[scene.truth.video, scene.truth.label] = True
    scores = np.array([[known[name].get(label, -math.inf) for label in scene.classes] for name in scene.videos])
    ap = np.where(np.isinf(scores).all(axis=0), 0.0, classification_ap(scores, labels))
    return float(100 * ap[labels.any(axis=0)].mean()), []


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}

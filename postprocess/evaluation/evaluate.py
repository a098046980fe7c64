"""Score predictions against ground truth: files in, an Evaluation out, as data, as JSON and as tables."""

import difflib
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from postprocess.evaluation.annotations import (
    Action,
    AnnotatedVideo,
    Predicted,
    read_ambiguous,
    read_ground_truth,
    read_predictions,
    respell,
)
from postprocess.evaluation.diagnose import Diagnosis, diagnose
from postprocess.evaluation.metrics import Instances, Predictions, classification_ap, detect
from postprocess.evaluation.names import as_path, elsewhere, find_names, match_names, respelled
from postprocess.evaluation.protocols import (
    CONJOINT,
    EvaluateError,
    averages,
    choose_subset,
    find_protocol,
    parse_tious,
    tiou_name,
    to_snippets,
    touches,
    without_duplicates,
)
from postprocess.segment import SCHEMA

MOST_LISTED = 12  # labels in a note


@dataclass(frozen=True)
class MeanAP:
    """Percent by threshold, and the averages, over so many videos and instances."""

    videos: int
    instances: int
    mean_ap: dict[str, float]
    average: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Percent to 4 decimals."""
        counts = {"videos": self.videos, "instances": self.instances}
        return {**counts, "mAP": _rounded(self.mean_ap), "average": _rounded(self.average)}


@dataclass(frozen=True)
class ClassAP:
    """One class: percent by threshold, and the mean over all thresholds."""

    label: str
    instances: int
    predictions: int
    ap: dict[str, float]
    average: float


@dataclass(frozen=True)
class Evaluation:
    """All that `evaluate` says. classification: mAP in percent, None where video-level scores are not known.

    unannotated: label → how many predictions, of labels that the scored subset has no instance of. Each is a false
    positive: `predictions` and the diagnosis count it; mAP, the mean over the classes of the ground truth, cannot.
    """

    protocol: str
    subset: str
    unit: str
    predictions: int
    overall: MeanAP
    per_class: tuple[ClassAP, ...]
    unannotated: dict[str, int]
    classification: float | None
    conjoint: dict[str, MeanAP]
    diagnosis: Diagnosis | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, schema 1; percent to 4 decimals."""
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
            "notes": list(self.notes),
        }


def evaluate_files(
    predictions: Sequence[Path],
    ground_truth: Path,
    *,
    protocol: str = "default",
    ambiguous: Path | None = None,
    subset: str | None = None,
    tiou: str | None = None,
    diagnosis: bool = False,
    ignore_unknown: bool = False,
) -> Evaluation:
    """Read, and score.

    Args:
        predictions: ActivityNet's JSON, or result documents of this product, or folders of them.
        ground_truth: ActivityNet's JSON.
        protocol: a name of PROTOCOLS.
        ambiguous: text file, `video start end` in seconds a line; predictions that share time with one are dropped.
        subset: instead of the protocol's.
        tiou: thresholds as `0.1:0.9:0.1`, instead of the protocol's.
        diagnosis: say what the false positives are, too.
        ignore_unknown: leave out predictions whose label the ground truth lacks; else they are false positives.

    Raises:
        EvaluateError: anything wrong with these, in one sentence.
    """
    find_protocol(protocol)
    tious = None if tiou is None else parse_tious(tiou)
    truth, predicted = read_ground_truth(ground_truth), read_predictions(predictions)
    listed = None if ambiguous is None else read_ambiguous(ambiguous)
    try:
        scored = evaluate(
            truth,
            predicted,
            protocol=protocol,
            ambiguous=listed,
            subset=subset,
            tious=tious,
            diagnosis=diagnosis,
            ignore_unknown=ignore_unknown,
        )
        if not ignore_unknown:
            _check_labels(predicted, truth)
    except EvaluateError as error:
        given = ", ".join(map(str, predictions)) or "no predictions"
        raise EvaluateError(f"{given} against {ground_truth}: {error}") from error
    return scored


def evaluate(
    ground_truth: Mapping[str, AnnotatedVideo],
    predicted: Predicted,
    *,
    protocol: str = "default",
    ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    subset: str | None = None,
    tious: Sequence[float] | None = None,
    diagnosis: bool = False,
    ignore_unknown: bool = False,
) -> Evaluation:
    """Score predictions.

    Args:
        ambiguous: video → spans of seconds; None: there is no such list.
        tious: thresholds in (0, 1], ascending, instead of the protocol's.
        ignore_unknown: as in `evaluate_files`.

    Raises:
        EvaluateError: a video that the ground truth does not know, a subset that is not there, nothing to score
            against.
    """
    predicted, said = respell(predicted, (a.label for video in ground_truth.values() for a in video.actions))
    scene = _join(ground_truth, predicted, protocol, ambiguous, subset, ignore_unknown)
    truth, found = scene.truth, scene.found
    thresholds = np.array(find_protocol(protocol).tious if tious is None else tuple(tious))
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
    return Evaluation(
        protocol=protocol,
        subset=scene.subset,
        unit=find_protocol(protocol).unit,
        predictions=len(found),
        overall=_mean(len(scene.videos), len(truth), thresholds, detection.mean_ap),
        per_class=per_class,
        unannotated=_unannotated(scene),
        classification=_classification(scene, predicted),
        conjoint=_conjoint(scene, thresholds),
        diagnosis=diagnose(truth, found) if diagnosis else None,
        notes=(*said, *scene.notes),
    )


# --- joining ---


@dataclass(frozen=True)
class _Scene:
    """What is scored, in numbers."""

    subset: str
    names: dict[str, str]  # predicted video → video of the ground truth
    videos: dict[str, int]  # the videos that count, in the order of the ground truth
    classes: list[str]
    truth: Instances
    found: Predictions
    notes: list[str]


def _join(
    ground_truth: Mapping[str, AnnotatedVideo],
    predicted: Predicted,
    protocol: str,
    ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None,
    subset: str | None,
    ignore_unknown: bool,
) -> _Scene:
    rules = find_protocol(protocol)
    names = match_names(predicted.actions, ground_truth)
    subset_of = {name: video.subset for name, video in ground_truth.items()}
    chosen = choose_subset(subset_of, list(names.values()), subset or rules.subset)
    annotated = {
        name: [action for action in video.actions if action.label not in rules.ignored_labels]
        for name, video in ground_truth.items()
    }
    # Classes of the other subsets too: to predict one of those here is no mistake of the user's.
    classes = sorted({action.label for actions in annotated.values() for action in actions})
    foreign = _unknown_labels(predicted, classes)
    notes = []
    if foreign and ignore_unknown:
        notes.append(f"the ground truth has no {_listed(foreign)}: left out.")
        predicted = _without(predicted, foreign)
    elif foreign:
        notes.append(
            f"the ground truth has no {_listed(foreign)}: false positives, which the mAP over its own classes cannot "
            "show (--diagnose does); --ignore-unknown leaves them out."
        )
        notes += [
            f"{label!r} is not in the ground truth; did you mean {near!r}?" for label, near in _near(foreign, classes)
        ]
        classes += sorted(foreign)
    counted = [
        name
        for name, actions in annotated.items()
        if subset_of[name] == chosen and as_path(name).stem not in rules.excluded and (actions or not rules.drop_empty)
    ]
    videos = {name: index for index, name in enumerate(counted)}
    if moved := elsewhere(names):
        notes.append(
            f"{len(moved)} videos were taken for those of the same name in another folder, "
            f"{moved[0]!r} for {names[moved[0]]!r}."
        )
    if alike := respelled(names):
        notes.append(
            f"{len(alike)} videos were taken for those whose names differ in case or blanks alone, "
            f"{alike[0]!r} for {names[alike[0]]!r}."
        )
    if rules.videos not in (None, len(videos)):
        notes.append(f"{protocol} is published on {rules.videos} videos; this ground truth has {len(videos)} of them.")
    if silent := len(videos.keys() - set(names.values())):
        notes.append(f"{silent} of {len(videos)} videos are not predicted at all; what they hold counts as missed.")

    truth = Instances(*_columns([(videos[name], action) for name in videos for action in annotated[name]], classes))
    if not len(truth):
        raise EvaluateError(f"no annotated instance in subset {chosen!r}; choose another with --subset.")
    if rules.drop_duplicates:
        keep = without_duplicates(truth)
        notes.append(f"{int((~keep).sum())} duplicate annotations were removed.")
        truth = truth.take(keep)
    inside = [name for name in predicted.actions if names[name] in videos]
    if outside := len(predicted.actions) - len(inside):
        notes.append(f"{outside} of {len(predicted.actions)} predicted videos do not count here and were left out.")
    rows = [(videos[names[name]], action) for name in inside for action in predicted.actions[name]]
    found = Predictions(*_columns(rows, classes), np.array([action.score for _, action in rows], dtype=np.float64))
    to_unit = to_snippets if rules.snippets else np.asarray
    truth = Instances(truth.video, truth.label, to_unit(truth.span))
    found = Predictions(found.video, found.label, to_unit(found.span), found.score)
    if empty := int((truth.span[:, 0] == truth.span[:, 1]).sum()):
        notes.append(f"{empty} instances have no length in {rules.unit} and cannot be found.")
    if ambiguous is not None:
        of, unknown = find_names(ambiguous, ground_truth, several=True)
        unknown += (others := elsewhere(of))
        of = {name: video for name, video in of.items() if name not in others}
        listed = [(videos[of[n]], s) for n, spans in ambiguous.items() if of.get(n) in videos for s in spans]
        spans = to_unit(np.array([span for _, span in listed], dtype=np.float64).reshape(-1, 2))
        drop = touches(found, [video for video, _ in listed], spans)
        notes.append(f"{int(drop.sum())} predictions that touch one of {len(listed)} ambiguous segments were dropped.")
        if unknown:
            notes.append(f"{len(unknown)} of {len(ambiguous)} videos of --ambiguous are not in the ground truth.")
        found = found.take(~drop)
    elif rules.snippets:
        notes.append("without --ambiguous nothing is dropped; CO2-Net and DELU drop what touches ambiguous segments.")
    absent = {classes[label] for label in set(found.label.tolist()) - set(truth.label.tolist())}
    if elsewhere_only := sorted(absent - foreign.keys()):
        labels = ", ".join(elsewhere_only)
        notes.append(f"this subset has no instance of {labels}: such predictions are false positives outside the mAP.")
    return _Scene(chosen, names, videos, classes, truth, found, notes)


def _columns(rows: Sequence[tuple[int, Action]], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    number = {label: i for i, label in enumerate(classes)}
    return (
        np.array([video for video, _ in rows], dtype=np.int64),
        np.array([number[action.label] for _, action in rows], dtype=np.int64),
        np.array([(action.start, action.end) for _, action in rows], dtype=np.float64).reshape(-1, 2),
    )


def _unknown_labels(predicted: Predicted, classes: Sequence[str]) -> dict[str, int]:
    """Label → predictions, of labels that the ground truth lacks."""
    counts = Counter(action.label for actions in predicted.actions.values() for action in actions)
    return {label: count for label, count in sorted(counts.items()) if label not in set(classes)}


def _check_labels(predicted: Predicted, truth: Mapping[str, AnnotatedVideo]) -> None:
    """An error where the ground truth knows no predicted label: then the two name things differently."""
    classes = sorted({action.label for video in truth.values() for action in video.actions})
    first = None
    for name, actions in predicted.actions.items():
        for action in actions:
            if action.label in classes:
                return
            first = first or (name, action.label)
    if first is not None:
        near = _near([first[1]], classes)
        hint = f"did you mean {near[0][1]!r}?" if near else "rename it: no predicted label is."
        raise EvaluateError(f"video {first[0]!r}: label {first[1]!r} is not in the ground truth; {hint}")


def _near(labels: Iterable[str], classes: Sequence[str]) -> list[tuple[str, str]]:
    """(label, the class that it may be a misspelling of), where there is one."""
    close = ((label, difflib.get_close_matches(label, classes, n=1)) for label in labels)
    return [(label, found[0]) for label, found in close if found]


def _listed(counts: Mapping[str, int]) -> str:
    """Labels with how many predictions there are of each, the most first; of many the rest as a number."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(
        f"{label} ({count} prediction{'s' if count > 1 else ''})" for label, count in ranked[:MOST_LISTED]
    )
    if (rest := len(ranked) - MOST_LISTED) > 0:
        shown += f" and {rest} more ({sum(count for _, count in ranked[MOST_LISTED:])} predictions)"
    return shown


def _without(predicted: Predicted, labels: Container[str]) -> Predicted:
    kept = {name: [a for a in actions if a.label not in labels] for name, actions in predicted.actions.items()}
    return replace(predicted, actions=kept)


def _unannotated(scene: _Scene) -> dict[str, int]:
    counts = Counter(scene.found.label[~np.isin(scene.found.label, scene.truth.label)].tolist())
    return {scene.classes[label]: count for label, count in sorted(counts.items())}


def _mean(videos: int, instances: int, tious: np.ndarray, mean_ap: np.ndarray) -> MeanAP:
    percent = dict(zip(tious.tolist(), (100 * mean_ap).tolist(), strict=True))
    return MeanAP(videos, instances, {tiou_name(t): value for t, value in percent.items()}, averages(percent))


def _conjoint(scene: _Scene, tious: np.ndarray) -> dict[str, MeanAP]:
    """§4.3, where its eleven classes are there: the videos that have one of them, and these classes alone."""
    if not {scene.classes[label] for label in scene.truth.label.tolist()}.issuperset(CONJOINT["all"]):
        return {}
    result = {}
    for name, labels in CONJOINT.items():
        wanted = [scene.classes.index(label) for label in labels]
        truth = scene.truth.take(np.isin(scene.truth.label, wanted))
        found = scene.found.take(np.isin(scene.found.label, wanted) & np.isin(scene.found.video, truth.video))
        result[name] = _mean(len(np.unique(truth.video)), len(truth), tious, detect(truth, found, tious).mean_ap)
    return result


def _classification(scene: _Scene, predicted: Predicted) -> float | None:
    """Percent, over the classes that the truth has; a class that the model does not know counts 0."""
    known = {scene.names[name]: scores for name, scores in predicted.video_scores.items() if name in scene.names}
    known = {name: scores for name, scores in known.items() if name in scene.videos}
    if missing := len(scene.videos) - len(known):
        if known:
            scene.notes.append(f"no classification mAP: {missing} videos have no curves beside their result.")
        return None
    labels = np.zeros((len(scene.videos), len(scene.classes)), dtype=bool)
    labels[scene.truth.video, scene.truth.label] = True
    scores = np.array([[known[name].get(label, -math.inf) for label in scene.classes] for name in scene.videos])
    ap = np.where(np.isinf(scores).all(axis=0), 0.0, classification_ap(scores, labels))
    return float(100 * ap[labels.any(axis=0)].mean())


# --- showing ---


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}

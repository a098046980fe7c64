"""Predictions and ground truth joined into numbers: which videos, classes and instances are scored."""

import difflib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from postprocess.evaluation.annotations import Action, AnnotatedVideo, Predicted, respell
from postprocess.evaluation.metrics import Instances, Predictions
from postprocess.evaluation.names import as_path, elsewhere, find_names, match_names, respelled
from postprocess.evaluation.protocols import (
    EvaluateError,
    Protocol,
    Scoring,
    choose_subset,
    to_snippets,
    touches,
    without_duplicates,
)

MOST_LISTED = 12  # labels in a note


@dataclass(frozen=True)
class Scene:
    """Everything that is scored, in numbers."""

    subset: str
    names: dict[str, str]
    """predicted video → video of the ground truth"""
    videos: dict[str, int]
    """the videos that count → their numbers, in the order of the ground truth"""
    classes: list[str]
    truth: Instances
    found: Predictions
    notes: tuple[str, ...]


def join(ground_truth: Mapping[str, AnnotatedVideo], predicted: Predicted, scoring: Scoring) -> Scene:
    """Choose what is scored under a protocol, and number its videos and classes.

    Raises:
        EvaluateError: the ground truth lacks a predicted video or the wanted subset, or has nothing to score against.
    """
    rules = scoring.rules
    names = match_names(predicted.actions, ground_truth)
    subset_of = {name: video.subset for name, video in ground_truth.items()}
    subset = choose_subset(subset_of, list(names.values()), scoring.subset or rules.subset)
    annotated = {
        name: [action for action in video.actions if action.label not in rules.ignored_labels]
        for name, video in ground_truth.items()
    }
    # The classes of the other subsets count as known, too: predicting one of them is not a misspelling.
    classes = sorted({action.label for actions in annotated.values() for action in actions})
    unknown = _unknown_labels(predicted, classes)
    notes = _about_labels(unknown, classes, scoring.ignore_unknown)
    if scoring.ignore_unknown:
        predicted = _without(predicted, unknown)
    else:
        classes += unknown

    counted = (
        name
        for name, actions in annotated.items()
        if subset_of[name] == subset and as_path(name).stem not in rules.excluded and (actions or not rules.drop_empty)
    )
    videos = {name: number for number, name in enumerate(counted)}
    notes += _about_names(names) + _about_videos(videos, names, scoring)

    truth = Instances(*_columns([(videos[name], action) for name in videos for action in annotated[name]], classes))
    if not len(truth):
        raise EvaluateError(f"no annotated instance in subset {subset!r}; choose another with --subset.")
    if rules.drop_duplicates:
        keep = without_duplicates(truth)
        notes.append(f"{int((~keep).sum())} duplicate annotations were removed.")
        truth = truth.take(keep)
    inside = [name for name in predicted.actions if names[name] in videos]
    if outside := len(predicted.actions) - len(inside):
        notes.append(f"{outside} of {len(predicted.actions)} predicted videos do not count here and were left out.")
    rows = [(videos[names[name]], action) for name in inside for action in predicted.actions[name]]
    found = Predictions(*_columns(rows, classes), np.array([action.score for _, action in rows], dtype=np.float64))
    truth = replace(truth, span=_in_unit(truth.span, rules))
    found = replace(found, span=_in_unit(found.span, rules))
    if empty := int((truth.span[:, 0] == truth.span[:, 1]).sum()):
        notes.append(f"{empty} instances have no length in {rules.unit} and cannot be found.")

    if scoring.ambiguous is not None:
        found, more = _drop_ambiguous(found, scoring.ambiguous, ground_truth, videos, rules)
        notes += more
    elif rules.snippets:
        notes.append("without --ambiguous nothing is dropped; CO2-Net and DELU drop what touches ambiguous segments.")
    absent = {classes[label] for label in set(found.label.tolist()) - set(truth.label.tolist())}
    if of_other_subsets := sorted(absent - unknown.keys()):
        labels = ", ".join(of_other_subsets)
        notes.append(f"this subset has no instance of {labels}: such predictions are false positives outside the mAP.")
    return Scene(subset, names, videos, classes, truth, found, tuple(notes))


def check_labels(predicted: Predicted, truth: Mapping[str, AnnotatedVideo]) -> None:
    """Raise an EvaluateError where the ground truth knows none of the predicted labels: names must be mapped first."""
    classes = sorted({action.label for video in truth.values() for action in video.actions})
    predicted, _ = respell(predicted, classes)
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


# --- numbers ---


def _columns(rows: Sequence[tuple[int, Action]], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Video, label and span of each row, as `Instances` takes them."""
    number = {label: i for i, label in enumerate(classes)}
    return (
        np.array([video for video, _ in rows], dtype=np.int64),
        np.array([number[action.label] for _, action in rows], dtype=np.int64),
        np.array([(action.start, action.end) for _, action in rows], dtype=np.float64).reshape(-1, 2),
    )


def _in_unit(spans: np.ndarray, rules: Protocol) -> np.ndarray:
    """(N, 2) seconds in the unit of the protocol."""
    return to_snippets(spans) if rules.snippets else spans


def _drop_ambiguous(
    found: Predictions,
    ambiguous: Mapping[str, Sequence[tuple[float, float]]],
    ground_truth: Iterable[str],
    videos: Mapping[str, int],
    rules: Protocol,
) -> tuple[Predictions, list[str]]:
    """The predictions that touch no ambiguous segment, and notes on how many were dropped."""
    of, unknown = find_names(ambiguous, ground_truth, several=True)
    unknown += (others := elsewhere(of))
    of = {name: video for name, video in of.items() if name not in others}
    listed = [(videos[of[n]], s) for n, spans in ambiguous.items() if of.get(n) in videos for s in spans]
    spans = _in_unit(np.array([span for _, span in listed], dtype=np.float64).reshape(-1, 2), rules)
    drop = touches(found, [video for video, _ in listed], spans)
    notes = [f"{int(drop.sum())} predictions that touch one of {len(listed)} ambiguous segments were dropped."]
    if unknown:
        notes.append(f"{len(unknown)} of {len(ambiguous)} videos of --ambiguous are not in the ground truth.")
    return found.take(~drop), notes


# --- labels that the ground truth lacks ---


def _unknown_labels(predicted: Predicted, classes: Sequence[str]) -> dict[str, int]:
    """Label → number of predictions, for the labels that the ground truth lacks, sorted by label."""
    counts = Counter(action.label for actions in predicted.actions.values() for action in actions)
    return {label: count for label, count in sorted(counts.items()) if label not in set(classes)}


def _without(predicted: Predicted, labels: Container[str]) -> Predicted:
    left = {name: [a for a in actions if a.label not in labels] for name, actions in predicted.actions.items()}
    return replace(predicted, actions=left)


def _near(labels: Iterable[str], classes: Sequence[str]) -> list[tuple[str, str]]:
    """(label, the class that it may be a misspelling of), where there is one."""
    close = ((label, difflib.get_close_matches(label, classes, n=1)) for label in labels)
    return [(label, found[0]) for label, found in close if found]


# --- notes ---


def _about_labels(unknown: Mapping[str, int], classes: Sequence[str], ignored: bool) -> list[str]:
    if not unknown:
        return []
    if ignored:
        return [f"the ground truth has no {_listed(unknown)}: left out."]
    return [
        f"the ground truth has no {_listed(unknown)}: false positives, which the mAP over its own classes cannot "
        "show (--diagnose does); --ignore-unknown leaves them out.",
        *(f"{label!r} is not in the ground truth; did you mean {near!r}?" for label, near in _near(unknown, classes)),
    ]


def _about_names(names: Mapping[str, str]) -> list[str]:
    notes = []
    if moved := elsewhere(names):
        notes.append(
            f"{len(moved)} videos were taken for those of the same name in another folder, "
            f"{moved[0]!r} for {names[moved[0]]!r}."
        )
    if alike := respelled(names):
        notes.append(
            f"{len(alike)} videos were taken for those whose names differ in case or blanks only, "
            f"{alike[0]!r} for {names[alike[0]]!r}."
        )
    return notes


def _about_videos(videos: Mapping[str, int], names: Mapping[str, str], scoring: Scoring) -> list[str]:
    notes = []
    published = scoring.rules.videos
    if published not in (None, len(videos)):
        notes.append(
            f"{scoring.protocol} is published on {published} videos; this ground truth has {len(videos)} of them."
        )
    if silent := len(videos.keys() - set(names.values())):
        notes.append(f"{silent} of {len(videos)} videos are not predicted at all; all their actions count as missed.")
    return notes


def _listed(counts: Mapping[str, int]) -> str:
    """Labels with their numbers of predictions, the most frequent first; beyond MOST_LISTED, only how many more."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(
        f"{label} ({count} prediction{'s' if count > 1 else ''})" for label, count in ranked[:MOST_LISTED]
    )
    if (rest := len(ranked) - MOST_LISTED) > 0:
        shown += f" and {rest} more ({sum(count for _, count in ranked[MOST_LISTED:])} predictions)"
    return shown

"""Reads ground truth and predictions, from ActivityNet's JSON and from our own results."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from postprocess.evaluation.metrics import video_scores
from postprocess.evaluation.names import match_labels, nfc
from postprocess.evaluation.protocols import EvaluateError
from postprocess.formats.activitynet import ranking_score
from postprocess.formats.writers import is_result
from postprocess.segment import Result, ResultError
from support.npz import read_npz


@dataclass(frozen=True)
class Action:
    """A span of seconds with a label; annotations have the score 0."""

    start: float
    end: float
    label: str
    score: float = 0.0


@dataclass(frozen=True)
class AnnotatedVideo:
    """The annotations of one video."""

    subset: str
    """"" if the ground truth names none"""
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Predicted:
    """What was found in the videos."""

    actions: dict[str, list[Action]]
    """video → actions"""
    video_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """video → class → video-level score, for videos where it is known"""


def read_ground_truth(path: Path) -> dict[str, AnnotatedVideo]:
    """Read ActivityNet's `database`. Numbers may be strings.

    Raises:
        EvaluateError: the file cannot be read, is not JSON or has another form, a number is wrong, or a segment ends
            before it starts.
    """
    videos = {}
    for name, entry in _member(_parsed(_text(path), str(path)), "database", dict, f"{path}: this").items():
        where = f"{path}: video {name!r}"
        annotations = _member(entry, "annotations", list, where)
        subset = _member(entry, "subset", str, where) if "subset" in entry else ""
        actions = [_action(a, f"{where}, annotation {i}", scored=False) for i, a in enumerate(annotations, start=1)]
        videos[name] = AnnotatedVideo(subset, tuple(actions))
    return videos


def read_predictions(paths: Sequence[Path]) -> Predicted:
    """Read ActivityNet's `results`, result documents (.json, .jsonl), or folders of them, and put all together.

    If `<name>.scores.npz` stands beside `<name>.json`, video-level scores are read from it.

    Raises:
        EvaluateError: as in `read_ground_truth`, or a video comes twice.
    """
    actions: dict[str, list[Action]] = {}
    scores: dict[str, dict[str, float]] = {}
    for path in _files(paths):
        for name, found in _documents(path):
            if name in actions:
                raise EvaluateError(f"{path}: video {name!r} was predicted before; give each video once.")
            actions[name] = found
            curves = path.with_name(path.name.removesuffix(".json") + ".scores.npz")
            if path.suffix == ".json" and curves.is_file():
                scores[name] = _curve_scores(curves)
    return Predicted(actions, scores)


def from_results(results: Iterable[Result]) -> Predicted:
    """Our own results as predictions. If a video has two results, the last one counts.

    The score of an action is the one that ranks it, see `ranking_score`.
    """
    return Predicted(
        {r.video: [Action(s.start, s.end, nfc(s.label), ranking_score(r, s)) for s in r.segments] for r in results}
    )


def respell(predicted: Predicted, known: Iterable[str]) -> tuple[Predicted, list[str]]:
    """Predictions with labels spelled as in `known`, if only form, case or blanks differ; and notes about it."""
    used = [action.label for actions in predicted.actions.values() for action in actions]
    meant = match_labels(used + [label for scores in predicted.video_scores.values() for label in scores], known)
    if not meant:
        return predicted, []
    actions = {
        name: [replace(action, label=meant.get(action.label, action.label)) for action in found]
        for name, found in predicted.actions.items()
    }
    scores = {
        name: {meant.get(label, label): score for label, score in of.items()}
        for name, of in predicted.video_scores.items()
    }
    renamed = ", ".join(f"{label!r} for {known!r}" for label, known in meant.items() if nfc(label) != nfc(known))
    notes = [f"labels were taken for those of the ground truth: {renamed}."] if renamed else []
    return Predicted(actions, scores), notes


def read_ambiguous(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read THUMOS14's list of ambiguous segments: each line has `video start end`, in seconds.

    Raises:
        EvaluateError: the file cannot be read, or a line has another form.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for i, line in enumerate(_text(path).splitlines(), start=1):
        if words := line.split():
            found.setdefault(words[0], []).append(_span(words[1:], f"{path}, line {i}"))
    return found


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        below = [path]
        if path.is_dir():
            below = sorted(p for p in path.rglob("*.json") if is_result(p))
            if not below:
                raise EvaluateError(f"{path}: no result JSON in it; give the folder that `run -o` wrote.")
        files += below
    return files


def _documents(path: Path) -> list[tuple[str, list[Action]]]:
    """(video, actions) for each video in a file."""
    if path.suffix == ".jsonl":
        lines = enumerate(_text(path).splitlines(), start=1)
        documents = [_parsed(line, f"{path}, line {i}") for i, line in lines if line.strip()]
    else:
        documents = [_parsed(_text(path), str(path))]
        if isinstance(documents[0], dict) and "results" in documents[0]:
            return _activitynet_results(documents[0], path)
    try:
        return [pair for document in documents for pair in from_results([Result.from_dict(document)]).actions.items()]
    except ResultError as error:
        raise EvaluateError(f"{path}: neither ActivityNet's `results` nor a result of jcdnet ({error}).") from error


def _activitynet_results(document: dict[str, Any], path: Path) -> list[tuple[str, list[Action]]]:
    results = _member(document, "results", dict, f"{path}: this")
    pairs = []
    for name in results:
        where = f"{path}: video {name!r}"
        entries = enumerate(_member(results, name, list, f"{path}: `results`"), start=1)
        pairs.append((name, [_action(entry, f"{where}, prediction {i}", scored=True) for i, entry in entries]))
    return pairs


def _action(entry: Any, where: str, scored: bool) -> Action:
    label = nfc(_member(entry, "label", str, where))
    start, end = _span(_member(entry, "segment", list, where), where)
    score = _number(_member(entry, "score", object, where), f"{where}: its score") if scored else 0.0
    return Action(start, end, label, score)


def _span(segment: Sequence[Any], where: str) -> tuple[float, float]:
    if len(segment) != 2:
        raise EvaluateError(f"{where}: a segment is a start and an end, not {len(segment)} values.")
    start, end = _number(segment[0], f"{where}: its start"), _number(segment[1], f"{where}: its end")
    if end < start:
        raise EvaluateError(f"{where}: it ends at {end:g}, before it starts at {start:g}.")
    return start, end


def _number(value: Any, where: str) -> float:
    """A finite number. A string that holds one is accepted, because many published files have such strings."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise EvaluateError(f"{where} must be a finite number, not {str(value)[:40]!r}.")
    return number


def _member(entry: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(entry, dict):
        raise EvaluateError(f"{where} must be a JSON object, in ActivityNet's form.")
    if key not in entry:
        raise EvaluateError(f"{where} has no {key!r}, which ActivityNet's form has.")
    if not isinstance(entry[key], kind):
        names: dict[type, str] = {dict: "an object", list: "a list", str: "text"}
        raise EvaluateError(f"{where}: {key!r} must be {names[kind]}.")
    return entry[key]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EvaluateError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise EvaluateError(f"{path}: is not text in UTF-8; check that it is the right file.") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluateError(f"{where}: not JSON ({error}).") from error


def _curve_scores(path: Path) -> dict[str, float]:
    """Class → video-level score, from the curves beside a result."""
    try:
        arrays = read_npz(path, ("cas", "classes"))
        cas, classes = arrays["cas"].astype(np.float64), arrays["classes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluateError(f"{path}: not the curves of a result ({error}); run that video again.") from error
    if (
        classes.ndim != 1
        or cas.ndim != 2
        or not len(cas)
        or cas.shape[1] != len(classes) + 1
        or not np.isfinite(cas).all()
    ):
        raise EvaluateError(f"{path}: its curves do not fit its {classes.size} classes; run that video again.")
    return dict(zip((nfc(str(label)) for label in classes), video_scores(cas).tolist(), strict=True))

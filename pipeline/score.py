"""A model applied to stored features and scored, for `evaluate --model`; no videos are needed."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from extractors.config import USUAL, setting_of
from extractors.exact import exact
from model.checkpoint import Checkpoint
from model.datasets import DatasetError
from model.predict import PredictError, predict
from pipeline import precisions
from pipeline.api import localize_settings_for
from pipeline.config import Config, adopt
from pipeline.datasets.featureset import FeatureSet
from pipeline.datasets.layouts import read_feature_set
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action, Predicted, read_ground_truth
from postprocess.evaluation.evaluate import DEFAULT, Evaluation, evaluate
from postprocess.evaluation.metrics import video_scores
from postprocess.evaluation.names import find_names, match_labels, not_there
from postprocess.evaluation.protocols import EvaluateError, Scoring, choose_subset
from postprocess.localize import Activations, localize
from support.errors import UsageError
from support.progress import Progress, silent


def predictions_of(
    model: Checkpoint,
    stored: FeatureSet,
    config: LocalizeConfig,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Predicted:
    """Segments and video-level scores of every video of a feature set.

    Segments are ranked by ψ under the rule `paper`, and by confidence under `runs`, as `run` shows them.

    Args:
        model: any checkpoint.
        stored: features of the streams that the model declares, made with the settings that it declares.
        config: settings of the localisation.
        device: where to compute.
        on_progress: ("predict", videos done, videos in all).

    Raises:
        UsageError: the features differ from those that the model was trained on.
        DatasetError: the features of a video cannot be used.
    """
    if missing := [stream for stream in model.streams if stream not in stored.streams]:
        raise UsageError(f"the model reads the {missing[0]} stream, which these features do not have.")
    chosen = stored.select(model.streams)
    check_settings(model, chosen.settings)
    net = model.build()
    actions: dict[str, list[Action]] = {}
    scores: dict[str, dict[str, float]] = {}
    for done, (name, video) in enumerate(chosen.videos.items(), start=1):
        try:
            with exact():
                found = predict(net, video.load(), device=device)
        except PredictError as error:
            raise DatasetError(f"{name}: {error}") from error
        ends = float(video.times[-1, 1])
        duration = ends if video.duration is None else max(video.duration, 0.0)
        given = Activations(found.cas, found.actionness, found.video, video.times, model.classes, duration)
        segments = localize(given, config, groups=model.groups)
        ranked = "score" if config.rule == "paper" else "confidence"
        actions[name] = [Action(s.start, s.end, s.label, getattr(s, ranked)) for s in segments]
        scores[name] = dict(zip(model.classes, video_scores(found.cas).tolist(), strict=True))
        on_progress("predict", done, len(chosen.videos))
    return Predicted(actions, scores)


def evaluate_model(
    model: Checkpoint,
    features: Path,
    ground_truth: Path | None,
    scoring: Scoring = DEFAULT,
    *,
    rule: str = "paper",
    fps: float | None = None,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Evaluation:
    """Run a model over a feature set and score what it finds.

    The model runs only on the videos of the subset that is scored. Videos that the ground truth lacks are left out,
    and a note says so.

    Args:
        model: any checkpoint.
        features: folder of a feature set.
        ground_truth: ActivityNet's JSON; None uses the annotations that the feature set brings.
        scoring: how to score.
        rule: of the localisation, "paper" or "runs".
        fps: frames per second that published features were made at; None means 25.
        device: where to compute.
        on_progress: ("predict", videos done, videos in all).

    Raises:
        UsageError, DatasetError, EvaluateError: one of these does not fit the others. The message is one sentence.
    """
    stored = read_feature_set(features, fps=fps, streams=model.streams)
    truth = read_ground_truth(ground_truth) if ground_truth is not None else stored.ground_truth
    if not truth:
        raise UsageError(f"{features}: brings no annotated segments; give a ground truth with --ground-truth.")
    names, unknown = find_names(stored.videos, truth)
    if not names:
        raise EvaluateError(f"{features}: {not_there(unknown, list(truth))}")
    subset_of = {name: video.subset for name, video in truth.items()}
    subset = choose_subset(subset_of, list(names.values()), scoring.subset or scoring.rules.subset)
    videos = {name: stored.videos[name] for name, known in names.items() if subset_of[known] == subset}
    # Classes of any kind and any confidence: a ranking needs the unsure ones, too.
    config = adopt(Config(localize=LocalizeConfig(rule=rule)), {}, localize_settings_for(model, None)).localize
    predicted = predictions_of(model, replace(stored, videos=videos), config, device=device, on_progress=on_progress)
    known = {action.label for video in truth.values() for action in video.actions}
    meant = match_labels(model.classes, known)
    if known.isdisjoint(meant.get(label, label) for label in model.classes):
        some = ", ".join(model.classes[:5]) + (f" and {len(model.classes) - 5} more" if len(model.classes) > 5 else "")
        raise UsageError(f"the model knows {some}, and the ground truth has none of these.")
    result = evaluate(truth, predicted, replace(scoring, subset=subset or None))
    if unknown:
        count = f"{len(unknown)} of {len(stored.videos)} videos"
        note = f"{count}, {unknown[0]!r} first, are not in the ground truth and were left out."
        result = replace(result, notes=(*result.notes, note))
    mixed = precisions.other_than_trained(model.provenance, stored.settings)
    return replace(result, notes=(*result.notes, *mixed)) if mixed else result


def check_settings(model: Checkpoint, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a UsageError that names the first setting in which the features differ from what the model declares."""
    for stream, declared in model.features.items():
        for name, wanted in {**USUAL, **declared}.items():
            own = settings.get(stream, {})
            given = setting_of(own, name)
            same = math.isclose(given, wanted) if isinstance(given, float | int) and isinstance(wanted, float) else None
            if not (given == wanted if same is None else same):
                raise UsageError(
                    f"the model was made for {stream} features with {name} = {wanted}, and these have {given}; "
                    "extract them with its settings, or train a model on these."
                )

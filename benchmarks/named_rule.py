"""The gap of the embedded model, chosen on the fit half's untrimmed videos, each snippet read out of fold.

A snippet shows a clip, and the clip is in one fold: its scores are those of the model that was fitted without the
labels of that fold. Without its footage it was not: dimmed snippets of all clips are among those that the fit
protects, and clips of one match may lie in several folds. Of all gaps the one with the highest mAP is taken, in the
mean over tIoU .3, .5 and .7; of equals the largest, so that a lull inside a rally or a lift stays inside. Gaps end at 4
snippets, 2.6 s, since the videos show a street of 3 s and more between any two actions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.named_quality import Arm, judge
from benchmarks.named_sports import stored
from extractors.features import Features, load
from model import kinetics
from model.jcdnet import JCDNet
from model.predict import Scores, predict
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action, read_ground_truth

GAPS = (1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class Video:
    """An untrimmed video: features, actions, and of each of its T snippets the clip that is shown at its middle."""

    features: Features
    actions: Sequence[Action]
    clips: Sequence[str]


def read(videos: Path, named: Path, half: str, fold: Mapping[str, int]) -> dict[str, Video]:
    """Those of a half. videos: their features; named: what named_sports.py wrote; fold: of each clip.

    Raises:
        FeaturesError, EvaluateError, OSError: a file is missing or damaged.
        ValueError: a video shows a clip that is in no fold.
    """
    pieces = json.loads((named / "pieces.json").read_text())
    found, files = {}, stored(videos)
    for name, listed in read_ground_truth(named / "ground_truth.json").items():
        if listed.subset == half:
            features = load(files[name])
            ends = np.array([end for _, end, _ in pieces[name]])
            shown = np.searchsorted(ends, features.times.mean(axis=1), side="right").clip(max=len(ends) - 1)
            if unknown := {clip for _, _, clip in pieces[name]} - set(fold):
                raise ValueError(f"{named}: {name} shows {min(unknown)}, which clips.json does not list.")
            found[name] = Video(features, listed.actions, [pieces[name][i][2] for i in shown])
    return found


def unseen(video: Video, nets: Sequence[JCDNet], fold: Mapping[str, int]) -> Scores:
    """Scores whose every snippet is read by the network of its clip's fold: the one fitted without its label.

    `video` is of the first network: the rule `runs` ranks by confidence and does not look at it.
    """
    assert video.features.rgb is not None
    each = [predict(net, video.features.rgb) for net in nets]
    by = [fold[clip] for clip in video.clips]
    cas = np.stack([each[f].cas[t] for t, f in enumerate(by)])
    coarse = np.stack([each[f].coarse_cas[t] for t, f in enumerate(by)])
    actionness = np.array([each[f].actionness[t] for t, f in enumerate(by)])
    return replace(each[0], cas=cas, coarse_cas=coarse, actionness=actionness)


def grid(
    videos: Mapping[str, Video], scores: Mapping[str, Scores], model: kinetics.Checkpoint, config: LocalizeConfig
) -> Iterator[tuple[int, float]]:
    """(gap, mAP in percent) of every gap. model: its classes and groups are read."""
    features = {name: video.features for name, video in videos.items()}
    truth = {name: video.actions for name, video in videos.items()}
    for gap in GAPS:
        drawn = replace(config, merge_gap=gap)
        arms = {name: Arm(lambda _, name=name: scores[name], model, drawn) for name in videos}
        yield gap, float(judge(arms, features, truth).mean_ap.mean())


def choose(
    videos: Mapping[str, Video], models: Sequence[kinetics.Checkpoint], fold: Mapping[str, int], config: LocalizeConfig
) -> int:
    """The gap. models: of each fold the one fitted without it; fold: of each clip; config: the other settings."""
    nets = [model.build() for model in models]
    scores = {name: unseen(video, nets, fold) for name, video in videos.items()}
    return best(list(grid(videos, scores, models[0], config)))


def best(rows: Sequence[tuple[int, float]]) -> int:
    """The gap of the highest mAP; of equals the largest."""
    gap, _ = max(rows, key=lambda row: (round(row[1], 9), row[0]))
    return gap

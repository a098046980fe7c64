"""The gap of the embedded model, chosen on the untrimmed videos of named_sports' fit half.

Of all gaps the one with the highest mAP is taken, in the mean over tIoU .3, .5 and .7; of equals the largest, so that a
lull inside a rally or a lift stays inside. Gaps end at 4 snippets, 2.6 s, since the videos show a street of 3 s and
more between any two actions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    """An untrimmed video: features and actions."""

    features: Features
    actions: Sequence[Action]


def read(videos: Path, named: Path, half: str) -> dict[str, Video]:
    """Those of a half. videos: their features; named: what named_sports.py wrote.

    Raises:
        FeaturesError, EvaluateError, OSError: a file is missing or damaged.
    """
    files, listed = stored(videos), read_ground_truth(named / "ground_truth.json")
    return {name: Video(load(files[name]), v.actions) for name, v in listed.items() if v.subset == half}


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


def choose(videos: Mapping[str, Video], model: kinetics.Checkpoint, config: LocalizeConfig) -> int:
    """The gap. config: the other settings."""
    net = model.build()
    scores = {name: _scores(net, video) for name, video in videos.items()}
    return best(list(grid(videos, scores, model, config)))


def _scores(net: JCDNet, video: Video) -> Scores:
    assert video.features.rgb is not None
    return predict(net, video.features.rgb)


def best(rows: Sequence[tuple[int, float]]) -> int:
    """The gap of the highest mAP; of equals the largest."""
    gap, _ = max(rows, key=lambda row: (round(row[1], 9), row[0]))
    return gap

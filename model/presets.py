"""Named starting points of training, and the ablations of Table 4. Free of torch, so that help can read them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from model.config import TERMS, LossConfig, ModelConfig, TrainConfig

Preset = Literal["own", "paper", "long", "activitynet"]
PRESETS: tuple[str, ...] = get_args(Preset)

LITTLE = 600
"""Snippets of all training videos together, below which `own` trains less; six minutes at stride 16."""


def preset(name: Preset, lengths: Sequence[int]) -> TrainConfig:
    """A starting point to `replace` settings of.

    `paper` is section 4.1 for THUMOS14, `activitynet` the same for ActivityNet1.2, `long` the 5,000 steps that the
    networks JCDNet descends from take. `own` is for a folder of one's own videos and sizes itself by them: 8 steps a
    video, at least 480 and at most 5,000, at lr 2e-3, of little footage at least 240 at 1e-3 (at the paper's 1e-4 60
    videos are undertrained), the steps' weights averaged. All of that was chosen by benchmarks/sportsmini_worlds.py,
    whose figures are in benchmarks/README.md: 24 videos of 12 snippets are overfitted by what is best for 16 of 65. But
    1,440 steps, better there, were turned down on SportsMini's test videos, where seeds then differ by 18 points. The
    paper's lambda_3 of .8 leaves A^ness on the surest snippets alone: mAP@0.5 31 against 76 at .1; .05 was a little
    better still in three seeds of three (240 steps at 1e-3, last weights, D 128; 20 of SportsMini's training videos
    held out).

    Args:
        name: of the preset.
        lengths: snippets of each training video.

    Raises:
        ValueError: there is no such preset, or there are no videos.
    """
    if name not in get_args(Preset):
        raise ValueError(f"There is no training preset {name!r}; there are {', '.join(get_args(Preset))}.")
    if not lengths:
        raise ValueError("There are no videos to train on.")
    if name == "paper":
        return TrainConfig()
    if name == "long":
        return TrainConfig(steps=5000)
    if name == "activitynet":
        return TrainConfig(steps=20 * math.ceil(len(lengths) / 20), snippets=60, loss=LossConfig(topk_divisor=5))
    little = sum(lengths) < LITTLE
    return TrainConfig(
        steps=min(max(240 if little else 480, 8 * len(lengths)), 5000),
        batch=min(20, len(lengths)),
        snippets=min(500, max(lengths)),
        sampling="pad",
        lr=1e-3 if little else 2e-3,
        averaging=3.0,
        loss=LossConfig(norm=0.05),
    )


def model_settings(name: Preset) -> dict[str, Any]:
    """What a preset changes in the network, as settings of `ModelConfig`.

    ActivityNet's few long actions want smoothing and less dropout. One's own few videos want a small D, attention
    logits scaled by it (seeds then differ less), and a little smoothing, over 1.9 s. At lambda_3 .1, two seeds,
    mAP@0.5 is 83 and 80 with all three, 72 and 75 without the smoothing, 76 and 58 without the scaling too
    (240 steps at 1e-3, last weights; 20 of SportsMini's training videos held out).
    """
    if name == "activitynet":
        return {"dropout": 0.5, "smooth": 13}
    return {"dim": 128, "qk_scale": True, "smooth": 3} if name == "own" else {}


# Table 4, by the number of the experiment: modules, terms. L_temp comes with TEA and the plain coarse term with CAD,
# which the table does not list; n-CAD (Exp 3) is CAD without that term.
_EXPERIMENTS: dict[int, tuple[str, str]] = {
    1: ("", "mil"),
    2: ("cad", "mil coarse"),
    3: ("cad", "mil"),
    4: ("tea", "mil temp supp"),
    5: ("cad tea", "mil temp supp coarse"),
    6: ("cad tea", "mil temp coarse coarse_supp"),
    7: ("cad tea", "mil temp supp coarse coarse_supp"),
    8: ("cad tea", "mil temp supp coarse coarse_supp norm"),
    9: ("cad tea", "mil temp supp coarse coarse_supp norm guide"),
    10: ("cad tea", "mil temp supp coarse coarse_supp norm guide cas"),
}


def experiment(number: int, model: ModelConfig, train: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
    """Exp 1-10 of Table 4: `model` and `train` with the modules and terms of the others switched off.

    Exp 1 classifies X^a, as UM, which the paper likens it to, embeds the features first.

    Raises:
        ValueError: there is no such experiment.
    """
    if number not in _EXPERIMENTS:
        raise ValueError(f"Table 4 has the experiments 1 to {len(_EXPERIMENTS)}, not {number!r}.")
    modules, terms = (text.split() for text in _EXPERIMENTS[number])
    off = {name: 0.0 for name in TERMS if name not in terms}
    return (
        replace(model, cad="cad" in modules, tea="tea" in modules),
        replace(train, loss=replace(train.loss, **off)),  # type: ignore[arg-type]
    )

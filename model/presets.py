"""Named training presets, and the ablations of Table 4. Without torch, so that --help can read them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Literal, get_args

from model.config import TERMS, LossConfig, ModelConfig, TrainConfig

Preset = Literal["own", "paper", "long", "activitynet"]
PRESETS: tuple[str, ...] = get_args(Preset)

SHORT, SHORTEST = 1.5, 1.0
"""Medians of marked actions in seconds below which `own` takes stride 8, and stride 4. The rule `runs` draws nothing
shorter than two snippets side by side, which are 1.28 s at stride 16."""

LENGTH = 16
"""Frames of a snippet."""

LITTLE = 600
"""If all training videos together have fewer snippets than this, `own` trains less. It is six minutes at stride 16."""


def preset(name: Preset, lengths: Sequence[int]) -> TrainConfig:
    """The training settings of a preset, as a starting point.

    `paper` is section 4.1 for THUMOS14, and `activitynet` the same for ActivityNet1.2. `long` has the 5,000 steps that
    the networks use which JCDNet is based on.

    `own` is for a folder of your own videos and adapts to their number: 8 steps for each video, at least 480 and at
    most 5,000, at lr 2e-3. For little footage it takes at least 240 steps at 1e-3. The weights of all steps are
    averaged.
    benchmarks/sportsmini_worlds.py chose these values; benchmarks/README.md has the figures:

    - At the paper's lr of 1e-4, 60 videos are undertrained.
    - What is best for 16 videos of 65 snippets overfits 24 videos of 12 snippets.
    - 1,440 steps were better there, but not on SportsMini's test videos, where seeds then differ by 18 points.
    - The paper's lambda_3 of .8 leaves A^ness high on the surest snippets only: mAP@0.5 is 31, and 76 at .1. In three
      of three seeds .05 was slightly better still (240 steps at 1e-3, last weights, D 128; 20 of SportsMini's training
      videos held out).

    Args:
        name: name of the preset.
        lengths: number of snippets in each training video.

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


def stride_for(seconds: Sequence[float]) -> int | None:
    """The stride that `own` chooses for marked actions of these lengths; None means that the usual one is right.

    At stride 4, a linear classifier on the classes of snippets finds actions of .7 s with mAP@0.5 61, at stride 16
    with 1 (rule `runs`; benchmarks/README.md, "Actions shorter than a second").
    """
    if not seconds or (middle := median(seconds)) >= SHORT:
        return None
    return 4 if middle < SHORTEST else 8


def spread_for(seconds: Sequence[float], stride: int) -> int:
    """How many snippets of this stride cover the time of one of stride 16, if marked actions have these lengths.

    At stride 4 they are 4, and `own` averages over as much time as at stride 16. For actions below 1.5 s it is 1: an
    average over as much time would mix them with what is around them.
    """
    short = bool(seconds) and median(seconds) < SHORT
    return 1 if short else max(1, LENGTH // stride)


def localization_for(seconds: Sequence[float], stride: int) -> dict[str, Any]:
    """What `own` changes of the rule `runs` for marked actions of these lengths; empty if nothing.

    The rule counts snippets, which stand for less time each if they overlap. For actions of 1.5 s and longer, its
    smoothing, least length and gap should cover the same time as at stride 16. Short actions are found best with as few
    snippets as usual (benchmarks/short_actions.py).
    """
    n = spread_for(seconds, stride)
    return {} if n == 1 else {"smooth": 2 * n + 1, "min_snippets": 2 * n, "merge_gap": n}


def model_settings(name: Preset, spread: int = 1) -> dict[str, Any]:
    """The settings of `ModelConfig` that a preset changes.

    ActivityNet's few long actions need smoothing and less dropout. A user's few videos need a small D, attention logits
    scaled by it (seeds then differ less), and a little smoothing, over 1.9 s. With lambda_3 = .1 and two seeds, mAP@0.5
    is 83 and 80 with all three, 72 and 75 without smoothing, and 76 and 58 also without scaling (240 steps at 1e-3,
    last weights; 20 of SportsMini's training videos held out).

    Args:
        name: name of the preset.
        spread: of `own`, the result of `spread_for`. Where everything is marked at stride 4, an average over 9 snippets
            instead of 3 has mAP@0.5 96 and 91 (rules `paper` and `runs`; benchmarks/README.md, "Times").
    """
    if name == "activitynet":
        return {"dropout": 0.5, "smooth": 13}
    return {"dim": 128, "qk_scale": True, "smooth": 2 * spread + 1} if name == "own" else {}


# The experiments of Table 4: number → (modules, terms). The table does not list L_temp, which comes with TEA, and the
# plain coarse term, which comes with CAD. n-CAD (Exp 3) is CAD without this term.
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
    """Exp 1-10 of Table 4: `model` and `train` with only the modules and terms of this experiment.

    Exp 1 classifies X^a: the paper compares it with UM, which also embeds the features first.

    Raises:
        ValueError: there is no experiment of this number.
    """
    if number not in _EXPERIMENTS:
        raise ValueError(f"Table 4 has the experiments 1 to {len(_EXPERIMENTS)}, not {number!r}.")
    modules, terms = (text.split() for text in _EXPERIMENTS[number])
    off = {name: 0.0 for name in TERMS if name not in terms}
    return (
        replace(model, cad="cad" in modules, tea="tea" in modules),
        replace(train, loss=replace(train.loss, **off)),  # type: ignore[arg-type]
    )

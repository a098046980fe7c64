"""What a training is asked for, and the network and the training that follow from it: preset < TOML file < flags."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import kinetics
from model.checkpoint import Checkpoint
from model.config import ModelConfig, TrainConfig
from model.presets import Preset, model_settings, preset
from pipeline.api import load_model
from pipeline.config import read_toml
from support.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """What a training is asked for; None leaves it to the preset.

    folds: of the check at the end, None for up to four; 0 leaves it out. init: "kinetics400" starts from the embedded
    model where classes match; None draws all weights from the seed.
    """

    preset: Preset = "own"
    steps: int | None = None
    lr: float | None = None
    dim: int | None = None
    seed: int | None = None
    folds: int | None = None
    init: str | None = None
    config: Path | None = None
    """TOML file with tables [model], [training] and [training.loss]"""


def resolve(
    settings: Settings, classes: Sequence[str], lengths: Sequence[int], width: int
) -> tuple[ModelConfig, TrainConfig]:
    """The network and the training for videos of these lengths (snippets) and features of this width.

    Raises:
        UsageError: a setting that is unknown or makes no sense.
    """
    tables = _tables(settings.config)
    if settings.folds and not 2 <= settings.folds <= len(lengths):
        raise UsageError(f"--folds {settings.folds}: give 2 to {len(lengths)} (the videos), or 0 for no check.")
    try:
        training = preset(settings.preset, lengths)
        loss = tables["training"].pop("loss", {})
        if not isinstance(loss, dict):
            raise ValueError("loss must be a table, [training.loss].")
        asked = {k: v for k in ("steps", "lr", "seed") if (v := getattr(settings, k)) is not None}
        training = TrainConfig.from_dict(
            {
                **training.to_dict(),
                **tables["training"],
                **asked,
                "loss": {**dataclasses.asdict(training.loss), **loss},
            }
        )
        shape = {"classes": len(classes), "in_dim": width}
        embedded = {} if settings.init is None else {"dim": kinetics.WIDTH}
        network = {**model_settings(settings.preset), **embedded, **tables["model"]}
        if settings.dim is not None:
            network["dim"] = settings.dim
        if taken := sorted(shape.keys() & tables["model"].keys()):
            raise ValueError(f"model setting {taken[0]} follows from the labels and the features; leave it out.")
        model = ModelConfig.from_dict({**network, **shape})
        training.loss.check(model)
    except ValueError as error:
        where = f"{settings.config}: " if settings.config else ""
        raise UsageError(f"{where}{error}") from error
    return model, training


def _tables(path: Path | None) -> dict[str, dict[str, Any]]:
    """[model] and [training] of a TOML file."""
    if path is None:
        return {"model": {}, "training": {}}
    found = read_toml(path)
    known = ("model", "training")
    for name, table in found.items():
        if name not in known or not isinstance(table, dict):
            raise UsageError(f"{path}: {name} is not a table of a training; there are [model] and [training].")
    return {name: dict(found.get(name, {})) for name in known}


def embedded_for(name: str, classes: Sequence[str], streams: tuple[str, ...]) -> Checkpoint:
    """The embedded model, which reads these streams and knows one of the classes."""
    if name != kinetics.NAME:
        raise UsageError(f"--init {name}: the embedded model is {kinetics.NAME}.")
    if streams != ("rgb",):
        raise UsageError(f"--init {name}: it reads RGB only; train with --streams rgb.")
    embedded = load_model(name)
    if not kinetics.matches(embedded, classes):
        raise UsageError(f"--init {name}: it knows none of the classes {', '.join(classes)}; train without it.")
    return embedded


def from_embedded(start: Checkpoint, name: str) -> Checkpoint:
    """`start` with what the embedded model knows of its classes."""
    embedded = embedded_for(name, start.classes, start.streams)
    known, given = embedded.features["rgb"], start.features.get("rgb", {})
    if other := [key for key in known if known[key] != given.get(key)]:
        raise UsageError(f"--init {name}: it was made for other features ({', '.join(other)} differ).")
    try:
        return kinetics.adapt(embedded, start)
    except ValueError as error:
        raise UsageError(f"--init {name}: {error}") from error

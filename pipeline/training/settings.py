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


@dataclass(frozen=True)
class Recipe:
    """Settings that were read once: what they ask of the network and of the training, whatever the data."""

    settings: Settings
    network: dict[str, Any]
    """the table [model]"""
    training: dict[str, Any]
    """the table [training], without its loss"""
    loss: dict[str, Any]
    """the table [training.loss]"""

    def complete(self, classes: Sequence[str], lengths: Sequence[int], width: int) -> tuple[ModelConfig, TrainConfig]:
        """The network and the training for videos of these lengths (snippets) and features of this width.

        Raises:
            UsageError: a setting that is unknown or makes no sense.
        """
        asked = self.settings
        if asked.folds and not 2 <= asked.folds <= len(lengths):
            raise UsageError(f"--folds {asked.folds}: give 2 to {len(lengths)} (the videos), or 0 for no check.")
        shape = {"classes": len(classes), "in_dim": width}
        flags = {k: v for k in ("steps", "lr", "seed") if (v := getattr(asked, k)) is not None}
        network = model_settings(asked.preset) | ({} if asked.init is None else {"dim": kinetics.WIDTH}) | self.network
        if asked.dim is not None:
            network["dim"] = asked.dim
        try:
            if taken := sorted(shape.keys() & self.network.keys()):
                raise ValueError(f"model setting {taken[0]} follows from the labels and the features; leave it out.")
            defaults = preset(asked.preset, lengths)
            loss = dataclasses.asdict(defaults.loss) | self.loss
            training = TrainConfig.from_dict(defaults.to_dict() | self.training | flags | {"loss": loss})
            model = ModelConfig.from_dict(network | shape)
            training.loss.check(model)
        except ValueError as error:
            where = f"{asked.config}: " if asked.config else ""
            raise UsageError(f"{where}{error}") from error
        return model, training


def read_recipe(settings: Settings) -> Recipe:
    """Read the TOML file of the settings, if there is one.

    Raises:
        UsageError: it cannot be read, or has a table that no training has.
    """
    path = settings.config
    found = {} if path is None else read_toml(path)
    for name, table in found.items():
        if name not in ("model", "training") or not isinstance(table, dict):
            raise UsageError(f"{path}: {name} is not a table of a training; there are [model] and [training].")
    training = dict(found.get("training", {}))
    loss = training.pop("loss", {})
    if not isinstance(loss, dict):
        raise UsageError(f"{path}: loss must be a table, [training.loss].")
    return Recipe(settings, dict(found.get("model", {})), training, loss)


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


def from_embedded(embedded: Checkpoint, start: Checkpoint) -> Checkpoint:
    """`start` with what the embedded model knows of its classes.

    Raises:
        UsageError: the embedded model was made for other features, or for a network of another shape.
    """
    known, given = embedded.features["rgb"], start.features.get("rgb", {})
    if other := [key for key in known if known[key] != given.get(key)]:
        raise UsageError(f"--init {kinetics.NAME}: it was made for other features ({', '.join(other)} differ).")
    try:
        return kinetics.adapt(embedded, start)
    except ValueError as error:
        raise UsageError(f"--init {kinetics.NAME}: {error}") from error

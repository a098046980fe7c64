"""The settings of a training, and the network that follows from them: flags win over the TOML file, then the preset."""

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
    """The settings that a user gave; None leaves a setting to the preset."""

    preset: Preset = "own"
    steps: int | None = None
    lr: float | None = None
    dim: int | None = None
    seed: int | None = None
    folds: int | None = None
    """folds of the check at the end; None means up to four, 0 means no check"""
    init: str | None = None
    """"kinetics400" starts from the embedded model where classes match; None draws all weights from the seed"""
    times: Path | None = None
    """CSV or ActivityNet JSON of marked times; None trains on labels per video"""
    more: Path | None = None
    """a model of an earlier training, to start from with its settings; None draws all weights from the seed"""
    config: Path | None = None
    """TOML file with the tables [model], [training] and [training.loss]"""


@dataclass(frozen=True)
class Recipe:
    """Settings after reading the TOML file: what they say about network and training, independent of the data."""

    settings: Settings
    network: dict[str, Any]
    """the table [model]"""
    training: dict[str, Any]
    """the table [training] without its loss"""
    loss: dict[str, Any]
    """the table [training.loss]"""

    def complete(self, classes: Sequence[str], lengths: Sequence[int], width: int) -> tuple[ModelConfig, TrainConfig]:
        """The network and the training for videos of these lengths (in snippets) and features of this width.

        Raises:
            UsageError: a setting is unknown or cannot work.
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
    """Read the TOML file that the settings name, if there is one.

    Raises:
        UsageError: the file cannot be read, or has an unknown table.
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
    """Load the embedded model.

    Raises:
        UsageError: there is none of this name, it does not read these streams, or it knows none of the classes.
    """
    if name != kinetics.NAME:
        raise UsageError(f"--init {name}: the embedded model is {kinetics.NAME}.")
    if streams != ("rgb",):
        raise UsageError(f"--init {name}: it reads RGB only; train with --streams rgb.")
    embedded = load_model(name)
    if not kinetics.matches(embedded, classes):
        raise UsageError(f"--init {name}: it knows none of the classes {', '.join(classes)}; train without it.")
    return embedded


def from_embedded(embedded: Checkpoint, start: Checkpoint) -> Checkpoint:
    """`start` with the embedded model's weights for the classes that it knows.

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

"""The settings of a training, and the network that follows from them: flags win over the TOML file, then the preset."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extractors.config import USUAL
from model import checkpoint, kinetics
from model.checkpoint import Checkpoint
from model.config import ModelConfig, TimesConfig, TrainConfig
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
    times: dict[str, Any] | None = None
    """the table [training.times]; None without times"""
    before: Checkpoint | None = None
    """the model of `--more`, whose settings stand in the place of the preset's"""

    def complete(
        self, classes: Sequence[str], lengths: Sequence[int], width: int, spread: int = 1
    ) -> tuple[ModelConfig, TrainConfig]:
        """The network and the training for videos of these lengths (in snippets) and features of this width.

        spread: for the preset's network (`model.presets.spread_for`); a TOML file or an earlier model wins.

        Raises:
            UsageError: a setting is unknown or cannot work.
        """
        asked = self.settings
        if asked.folds and not 2 <= asked.folds <= len(lengths):
            raise UsageError(f"--folds {asked.folds}: give 2 to {len(lengths)} (the videos), or 0 for no check.")
        shape = {"classes": len(classes), "in_dim": width}
        flags = {k: v for k in ("steps", "lr", "seed") if (v := getattr(asked, k)) is not None}
        network = self._network(spread) | ({} if asked.init is None else {"dim": kinetics.WIDTH}) | self.network
        if asked.dim is not None:
            network["dim"] = asked.dim
        try:
            if taken := sorted(shape.keys() & self.network.keys()):
                raise ValueError(f"model setting {taken[0]} follows from the labels and the features; leave it out.")
            defaults = preset(asked.preset, lengths) if self.before is None else trained_with(self.before)
            tables: dict[str, Any] = {"loss": dataclasses.asdict(defaults.loss) | self.loss}
            if self.times is not None:
                tables["times"] = dataclasses.asdict(defaults.times or TimesConfig()) | self.times
            training = TrainConfig.from_dict(replace(defaults, times=None).to_dict() | self.training | flags | tables)
            model = ModelConfig.from_dict(network | shape)
            training.loss.check(model)
        except ValueError as error:
            where = f"{asked.config}: " if asked.config else ""
            raise UsageError(f"{where}{error}") from error
        return model, training

    def _network(self, spread: int) -> dict[str, Any]:
        """The settings of the network, before those of the TOML file."""
        if self.before is None:
            return model_settings(self.settings.preset, spread)
        return {k: v for k, v in self.before.config.to_dict().items() if k not in ("classes", "in_dim")}


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
    loss, times = training.pop("loss", {}), training.pop("times", None)
    for name, table in (("loss", loss), ("times", times or {})):
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table, [training.{name}].")
    if times is not None and settings.times is None:
        raise UsageError(f"{path}: [training.times] is about marked times; give them with --times, or leave it out.")
    times = None if settings.times is None else times or {}
    before = None if settings.more is None else earlier(settings)
    return Recipe(settings, dict(found.get("model", {})), training, loss, times, before)


def earlier(settings: Settings) -> Checkpoint:
    """Load the model of `--more`.

    Raises:
        UsageError: it was not made by `train`, or another setting contradicts it.
        CheckpointError: it cannot be read.
    """
    path = settings.more
    assert path is not None
    if settings.init is not None or settings.preset != "own" or settings.dim is not None:
        raise UsageError(
            f"--more {path}: it brings its own network and settings; leave out --init, --preset and --dim."
        )
    before = checkpoint.load(path)
    trained_with(before, path)
    return before


def trained_with(before: Checkpoint, path: Path | None = None) -> TrainConfig:
    """The settings that a model was trained with.

    Raises:
        UsageError: the model does not say.
    """
    try:
        return TrainConfig.from_dict(before.provenance["training"]["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--more {path}: does not hold the settings of a training; name a folder of `train`."
        ) from error


def from_earlier(before: Checkpoint, start: Checkpoint) -> Checkpoint:
    """`start` with the weights of an earlier model. Classes are matched by name; new ones keep the weights of `start`.

    Raises:
        UsageError: the earlier model was made for other features, or for a network of another shape.
    """
    for stream in dict.fromkeys((*before.streams, *start.streams)):
        known, given = before.features.get(stream), start.features.get(stream)
        if known is None or given is None:
            raise UsageError(f"--more: that model reads {'+'.join(before.streams)}; train with the same streams.")
        if other := [f"{key} {known.get(key)}" for key in known if known[key] != given.get(key)]:
            raise UsageError(f"--more: that model was trained on other features ({', '.join(other)}); use the same.")
    for name, value in before.config.to_dict().items():
        if name in ("in_dim", "dim", "kernel", "coarse_kernel", "cad", "tea") and value != getattr(start.config, name):
            raise UsageError(f"--more: that model has {name} {value}; leave this setting out.")
    state = {}
    for name, tensor in start.state.items():
        if name.split(".")[0] not in ("coarse", "temp", "classifier"):
            state[name] = before.state[name].clone()
            continue
        tensor = tensor.clone()
        for c, label in enumerate(start.classes):
            if label in before.classes:
                tensor[c] = before.state[name][before.classes.index(label)]
        if len(tensor) > len(start.classes):  # the background
            tensor[-1] = before.state[name][-1]
        state[name] = tensor
    about = {"more": {"weights": checkpoint.fingerprint(before), "classes": list(before.classes)}}
    return replace(start, state=state, provenance={**start.provenance, **about})


def embedded_for(name: str, classes: Sequence[str], streams: tuple[str, ...]) -> Checkpoint:
    """Load the embedded model.

    Raises:
        UsageError: there is none of this name, it does not read these streams, or it knows none of the classes.
    """
    if name != kinetics.NAME:
        raise UsageError(f"--init {name}: the embedded model is {kinetics.NAME}.")
    if streams != ("rgb",):
        raise UsageError(f"--init {name}: it reads RGB only; train with --streams rgb.")
    embedded = load_model(name, tuning=kinetics.START)
    if not kinetics.matches(embedded, classes):
        raise UsageError(f"--init {name}: it knows none of the classes {', '.join(classes)}; train without it.")
    return embedded


def from_embedded(embedded: Checkpoint, start: Checkpoint) -> Checkpoint:
    """`start` with the embedded model's weights for the classes that it knows.

    Raises:
        UsageError: the embedded model was made for other features, or for a network of another shape.
    """
    known, given = embedded.features["rgb"], start.features.get("rgb", {})
    # The head reads features of any view and of any window, and `own` has learnt on the usual ones.
    if other := [key for key in known if key not in USUAL and known[key] != given.get(key)]:
        raise UsageError(f"--init {kinetics.NAME}: it was made for other features ({', '.join(other)} differ).")
    try:
        return kinetics.adapt(embedded, start)
    except ValueError as error:
        raise UsageError(f"--init {kinetics.NAME}: {error}") from error

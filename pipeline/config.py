"""All settings of a run: flags win over `--config file.toml`, which wins over the checkpoint, then the defaults."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from extractors.config import FeatureConfig, Limits
from postprocess.config import LocalizeConfig
from support.errors import UsageError

# Largest settings file in bytes. A key with n dots costs the parser n² words of memory: 20,000 dots took 1.5 GB.
LARGEST = 16 << 10
STREAM_CHOICES = ("auto", "both", "rgb")
# The settings that options of the command line give, for messages: a user who typed --min-length looks for that.
OPTIONS = {"localize.min_seconds": "--min-length", "localize.merge_seconds": "--merge-gap"} | {
    name: f"--{name.rpartition('.')[2].replace('_', '-')}"
    for name in (
        *("model", "classes", "streams", "device", "rgb_weights", "flow_weights", "limits.timeout", "limits.memory"),
        *(f"localize.{name}" for name in ("threshold", "min_confidence", "top", "rule")),
        *(f"features.{name}" for name in ("stride", "view", "together", "backbone", "flow", "precision", "decoder")),
    )
}


@dataclass(frozen=True)
class Config:
    """Settings of `run` and `extract`."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
    limits: Limits = field(default_factory=Limits)
    model: str = "kinetics400"
    """name of an embedded model, or path of a checkpoint"""
    classes: str = "auto"
    """"sports", "all", or names joined by commas; auto: sports for kinetics400, all for other models"""
    streams: str = "auto"
    """auto (the streams that the model declares), both, or rgb"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    rgb_weights: str | None = None
    """file with the RGB backbone's weights instead of the published ones"""
    flow_weights: str | None = None
    """file with the flow backbone's weights instead of the published ones"""
    given: frozenset[str] = frozenset()
    """names of settings that a file or a flag set, such as "features.stride"; a checkpoint does not override them"""

    def __post_init__(self) -> None:
        if self.streams not in STREAM_CHOICES:
            raise ValueError(f"streams must be one of {', '.join(STREAM_CHOICES)}, not {self.streams!r}.")


def asked(config: Config) -> list[str]:
    """The settings that decide results and that the user chose, by name or by a value that is not the default."""
    plain = Config()
    found = {"device"} if "device" in config.given or config.device != plain.device else set()
    for section in ("features", "localize"):
        values, defaults = getattr(config, section), getattr(plain, section)
        for field_ in dataclasses.fields(values):
            name = f"{section}.{field_.name}"
            if name in config.given or getattr(values, field_.name) != getattr(defaults, field_.name):
                found.add(name)
    return sorted(found)


SECTIONS: dict[str, type] = {"features": FeatureConfig, "localize": LocalizeConfig, "limits": Limits}


def load_config(path: Path | None, flags: Mapping[str, Any]) -> Config:
    """Read settings from a TOML file and from flags; flags win. A flag that is None was not given.

    The names of flags include their section: `localize.threshold`, `features.stride`, `model`.

    Raises:
        UsageError: the file is missing or not TOML, a name is unknown, or a value cannot be used.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _flatten(read_toml(path), path)
    values |= {name: value for name, value in flags.items() if value is not None}
    where = f"{path}: " if path is not None else ""
    try:
        parts = {name: kind(**_section(values, name)) for name, kind in SECTIONS.items()}
        return Config(**parts, **{k: v for k, v in values.items() if "." not in k}, given=frozenset(values))
    except (TypeError, ValueError) as error:
        by_flag = [name for name in OPTIONS if flags.get(name) is not None]
        said = f"{str(error).rstrip('.')}."
        raise UsageError(_with_flag(said, by_flag) or f"{where}{said}") from error


def _with_flag(text: str, given: Sequence[str]) -> str:
    """A message about one of these settings, with the option in place of the setting's name; "" for other messages."""
    named, _, rest = text.partition(" ")
    return next((f"{OPTIONS[name]} {rest}" for name in given if name.rpartition(".")[2] == named), "")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UsageError: the file is missing, too large for settings, or not TOML.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: is too large for a settings file (limit {LARGEST >> 10} KiB); check --config.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check --config.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML ({error}).") from error


def adopt(
    config: Config, declared: Mapping[str, Mapping[str, Any]], localize: Mapping[str, Any] = MappingProxyType({})
) -> Config:
    """`config` with the settings that a checkpoint declares, except where the user chose another value.

    A value that differs from the default counts as chosen. If it is a feature setting, `Pipeline` then refuses it.

    Args:
        config: the settings of the user.
        declared: `Checkpoint.features`, by stream.
        localize: `Checkpoint.localize`; it holds for the rule `runs` only.

    Raises:
        UsageError: the declared settings cannot be used.
    """
    if not all(isinstance(settings, Mapping) for settings in declared.values()):
        raise UsageError(f"the model {config.model} declares features that are not settings by stream; train it again.")
    values = {name: value for settings in declared.values() for name, value in settings.items()}
    own = {f.name for f in dataclasses.fields(FeatureConfig)}  # the other names record how features were made
    config = _adopted(config, "features", {name: value for name, value in values.items() if name in own})
    return _adopted(config, "localize", localize) if config.localize.rule == "runs" else config


def _adopted(config: Config, section: str, declared: Mapping[str, Any]) -> Config:
    current, default = getattr(config, section), SECTIONS[section]()
    free = {
        name: value
        for name, value in declared.items()
        if f"{section}.{name}" not in config.given and getattr(current, name, None) == getattr(default, name, None)
    }
    try:
        return dataclasses.replace(config, **{section: dataclasses.replace(current, **free)})
    except (TypeError, ValueError) as error:
        by_flag = [name for name in OPTIONS if name in config.given]
        if said := _with_flag(str(error).rstrip("."), by_flag):  # what the user chose does not go with the model
            raise UsageError(f"{said}; the model {config.model} needs it.") from error
        raise UsageError(
            f"the model {config.model} declares {section} settings that this version cannot use: {error}"
        ) from error


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}


def _flatten(tree: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Nested tables as dotted names; each name and type is checked against the dataclasses."""
    known = {f.name: f for f in dataclasses.fields(Config) if f.name not in (*SECTIONS, "given")}
    for section, kind in SECTIONS.items():
        known |= {f"{section}.{f.name}": f for f in dataclasses.fields(kind)}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        entries = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        for name, entry in entries.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}."
                raise UsageError(f"{path}: unknown setting {name}{hint}")
            default = known[name].default
            if isinstance(default, float) and type(entry) is int:
                try:
                    entry = float(entry)
                except OverflowError as error:
                    raise UsageError(f"{path}: {name} is too large a number.") from error
            wanted = str if default is None or default is dataclasses.MISSING else type(default)
            if type(entry) is not wanted:
                raise UsageError(f"{path}: {name} must be a {wanted.__name__}, not {entry!r}.")
            flat[name] = entry
    return flat

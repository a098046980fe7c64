"""Whether a result that exists already may be made again: it may, unless the user asks for something else this time.

Two provenances may differ in what the user chose (a model, a threshold, classes, seconds), in the video's own bytes,
or in something else (versions of libraries, a device or a precision that `auto` chose). Only the first is a conflict,
and not even that if this run names settings by which segments are drawn, such as --threshold: whoever types them wants
these segments, and the features are there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache.content import Video
from pipeline.config import OPTIONS, Config
from support.paths import is_url

SHOWN = 3  # differences that a sentence names
# Options that are no settings.
OTHER_OPTIONS = {
    "model.name": "--model",
    "model.examples": "--like",
    "model.not": "--not",
    "model.label": "--name",
    "range": "--start and --end",
}
NOTHING = "nothing"
BESIDE = frozenset({"asked", "video"})  # a difference in these makes no other result
# Settings of a stream that no option of the command line chooses.
NOT_OPTIONS = frozenset({"format", "resize", "int8"})
# Precisions that `auto` may have chosen, by device, in results that do not say what the user asked for.
AUTO_DTYPES = {"cpu": ("float32",)}
OTHER_AUTO_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Redo:
    """A result that exists has to be made again.

    why: the reason as a clause; unsure: whether it may be a result of another video.
    """

    why: str
    unsure: bool = False


@dataclass(frozen=True)
class Change:
    """The differences between the result that exists and the one that is wanted."""

    asked: tuple[str, ...]
    """what the user asked for in one of the two runs only: "--threshold 0.36, now 0.7" """
    content: bool
    """whether the video's bytes differ"""
    versions: tuple[str, ...]
    """names of the other differences"""
    retuned: bool = False
    """whether all that the user asked for otherwise is how segments are drawn, and named in this run: --threshold .5"""

    @property
    def none(self) -> bool:
        """Whether there is no difference."""
        return not (self.asked or self.content or self.versions)

    def why(self) -> str:
        """Return a clause that says why the result is made again."""
        reasons = ["the video's file has changed since"] if self.content else []
        if self.retuned:
            reasons.append(f"other segments are asked for ({self.conflict()})")
        if "folder" in self.versions:
            reasons.append("it was compared with other videos of its folder")
        if versions := [name for name in self.versions if name != "folder"]:
            more = ", …" if len(versions) > SHOWN else ""
            reasons.append(f"it was made with other versions or another device ({', '.join(versions[:SHOWN])}{more})")
        return " and ".join(reasons)

    def conflict(self) -> str:
        """Return the differences that the user asked for, in a few words."""
        return "; ".join(self.asked[:SHOWN]) + ("; …" if len(self.asked) > SHOWN else "")


def compare(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> Change:
    """Compare two provenances, both as JSON gives them."""
    old, new = _flat(there), _flat(wanted)
    chosen = {name for side in (there, wanted) for name in _names(side.get("asked"))}
    named = set(_names(wanted.get("asked")))
    asked, versions, content, retuned = [], [], False, True
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name, NOTHING), new.get(name, NOTHING)
        if before == now or name in BESIDE:
            continue
        if name == "classes" and old.get("groups") == new.get("groups") is not None:  # the same names, typed otherwise
            continue
        if name == "content":
            content = True
        elif _by_the_user(name, old, new, chosen, known="asked" in there):
            asked.append(f"{_called(name)} {_short(before)}, now {_short(now)}")
            retuned &= name in named and name.startswith("localize.") and name != "localize.rule"
        else:
            versions.append(name)
    return Change(tuple(asked), content, tuple(versions), bool(asked) and retuned)


def _by_the_user(name: str, old: Mapping[str, Any], new: Mapping[str, Any], chosen: set[str], known: bool) -> bool:
    """Whether the user asked for a difference.

    chosen: settings that the user named in either run; known: whether the older result lists them.
    """
    section, _, rest = name.partition(".")
    before, now = old.get(name, NOTHING), new.get(name, NOTHING)
    if section == "versions":
        return False
    if section == "features":
        stream, _, setting = rest.partition(".")
        return _of_features(setting, f"features.{stream}.", old, new, chosen, known)
    if section == "model":  # another version brings another embedded model; a checkpoint's file may have changed
        return old.get("model.name") != new.get("model.name") or new.get("model.name") != Config.model
    if section == "folder":  # a query compares a video with all others of its folder
        return False
    if section == "groups":  # the groups of the same classes come with the version
        return False
    if section == "classes":
        return old.get("groups") != new.get("groups")
    if section == "localize":
        return name in chosen or (NOTHING not in (before, now) and not known)
    if section == "range":
        return True
    return NOTHING not in (before, now)


def _of_features(
    setting: str, stream: str, old: Mapping[str, Any], new: Mapping[str, Any], chosen: set[str], known: bool
) -> bool:
    if not (_has(old, stream) and _has(new, stream)):
        return True  # one of the two results has this stream, the other does not
    before, now = old.get(stream + setting, NOTHING), new.get(stream + setting, NOTHING)
    if setting in NOT_OPTIONS:
        return False
    if NOTHING in (before, now):
        return f"features.{setting}" in chosen
    if setting == "weights":
        return True
    if setting == "decoder":  # the user chooses the decoder, not its version
        return str(before).startswith("nvdec ") != str(now).startswith("nvdec ")
    if setting == "flow":
        return str(before).partition("-")[0] != str(now).partition("-")[0] and "features.flow" in chosen
    if setting == "device":
        return "device" in chosen
    if setting == "engine":  # the user chooses it by the precision, and not its version
        return str(before).partition("-")[0] != str(now).partition("-")[0] and "features.precision" in chosen
    if setting == "dtype":
        if known:
            return "features.precision" in chosen
        auto = AUTO_DTYPES.get(str(old.get(f"{stream}device")), OTHER_AUTO_DTYPES)
        return "features.precision" in chosen or before not in auto
    return f"features.{setting}" in chosen or not known


def another_video(named: str, video: Video) -> bool | None:
    """Return whether the file that a result names is not this video; None if that file no longer exists.

    Of two addresses in a store no one is asked whether the other still exists: it counts as another video.
    """
    if not isinstance(video, Path):
        return named != str(video) if is_url(named) or os.path.exists(named) else None  # noqa: PTH110
    path = Path(named)
    if os.path.abspath(path) == os.path.abspath(video):  # noqa: PTH100  abspath follows no links
        return False
    try:
        return not path.samefile(video)
    except OSError:
        return None


def _called(name: str) -> str:
    """What a user knows a difference as: the option, where there is one."""
    section, _, rest = name.partition(".")
    setting = f"features.{rest.rpartition('.')[2]}" if section == "features" else name
    return OTHER_OPTIONS.get(name) or OPTIONS.get(setting, name)


def _has(provenance: Mapping[str, Any], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in provenance)


def _names(given: Any) -> list[str]:
    return [str(name) for name in given] if isinstance(given, list | tuple) else []


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:  # a range of seconds, in which None is the end
        first, last = value
        return f"{first:g} to {'the end' if last is None else f'{last:g}'}"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = ", ".join(item.partition(" sha256:")[0] for item in value)  # examples: match.mp4@12.3-14.8 sha256:…
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"

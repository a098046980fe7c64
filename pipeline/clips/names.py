"""The names of clips and reels: from a template, or from what they show; any file system takes them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from postprocess.segment import DOUBT, UNSURE, Segment, said_sport
from support.errors import UsageError

NAME = "{stem}_{index:03d}_{name}"
LONGEST_NAME = 180  # bytes; file systems take 255, including the suffix and what a temporary name adds
_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*\ud800-\udfff]+')


def formatted(template: str, fields: Mapping[str, str | int | float]) -> str:
    """The name that a template gives; a / in it makes folders.

    Raises:
        UsageError: the template has other fields, or leads out of the folder.
    """
    if re.search(r"\{[^}]*[.\[]", re.sub(r":[^}]*", "", template)):  # no attributes or items
        raise UsageError(f"--name {template!r}: write fields as {{label}} or {{start:.1f}}.")
    try:
        name = template.format(**fields)
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(fields)
        raise UsageError(f"--name {template!r} cannot be filled in ({error}); its fields are {known}.") from error
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or name.endswith("/"):
        raise UsageError(f"--name {template!r} gives {name!r}, which is no file name below the output folder.")
    return "/".join(map(_shortened, parts))


def safe(text: str) -> str:
    """Turn a text into a part of a file name that any system takes."""
    return _UNSAFE.sub("_", text).strip(" .") or "_"


def named(segment: Segment) -> str:
    """What a segment shows, for a file name, as `Segment.name` says it: "weightlifting - squat", "golf driving"."""
    if segment.sport == UNSURE:
        return safe(f"{segment.label} {DOUBT.lstrip('? ')}")
    sport = said_sport(segment.sport, segment.label)
    return safe(f"{sport} - {segment.label}" if sport else segment.label)


def reel_names(segments: Sequence[Segment]) -> dict[str, tuple[str, str]]:
    """(file name, title) of the reel of each label. Reels that would share a file are numbered.

    A reel has the sport of its first segment whose sport is sure.
    """
    found: dict[str, tuple[str, str]] = {}
    for label in sorted({s.label for s in segments}):
        own = [s for s in segments if s.label == label]
        first = next((s for s in own if s.sport not in ("", UNSURE)), own[0])
        name, number = _shortened(named(first)), 2
        while name.lower() in {taken.lower() for taken, _ in found.values()}:
            name, number = f"{named(first)} ({number})", number + 1
        found[label] = (name, first.name)
    return found


def _shortened(name: str) -> str:
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")

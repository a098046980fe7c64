"""Reads `<stem>.corrections.json`, which the report page saves: what a person marked, kept and rejected in one video.

The file comes from a browser, by mail or from a shared disk, so nothing in it is believed before it is checked. The
video's path in it is only a name: it is compared with the names of files, and never opened.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprocess.evaluation.names import as_path
from postprocess.formats.annotated import Annotated, ExchangeError, Span, annotated
from postprocess.formats.text import one_line
from postprocess.formats.writers import clock

SCHEMA = 1
SUFFIX = ".corrections.json"
# A browser calls the second download of one name `match.corrections (1).json`.
PATTERN = "*.corrections*.json"
LARGEST = 16 << 20  # bytes; 50,000 segments have 5 MB
LONGEST = 200  # characters of a label
SLACK = 0.05  # seconds that a segment may end behind the video: browsers and FFmpeg round its length differently
NEXT = "save the corrections in the page again"
_FIELDS = ("corrections", "video", "content", "duration", "saved", "complete", "segments", "rejected")
_MOST_SHOWN = 20  # faults of one file


@dataclass(frozen=True)
class Marked:
    """The corrections of one video, and when the page saved them (ISO 8601, UTC)."""

    video: Annotated
    saved: str


def read_marked(path: Path) -> list[Marked]:
    """Read one file of corrections.

    Raises:
        ExchangeError: the file cannot be read, or is no file of corrections; the message lists all faults.
    """
    document = _document(path)
    faults = list(_faults(document))
    if faults:
        more = f"; and {len(faults) - _MOST_SHOWN} more" if len(faults) > _MOST_SHOWN else ""
        raise ExchangeError(f"{path}: {'; '.join(faults[:_MOST_SHOWN])}{more}; {NEXT}.")
    # A point has no end: it is a span without length.
    spans = [
        Span(float(s["start"]), float(s["start"] if s["end"] is None else s["end"]), s["label"].strip())
        for s in document["segments"]
    ]
    found = annotated(document["video"], spans, str(path), complete=document["complete"])
    return [Marked(found, document["saved"])]


def _document(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST:
            raise ExchangeError(f"{path}: has more than {LARGEST >> 20} MB, which no file of corrections has; {NEXT}.")
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refused)
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{path}: is not JSON ({error}); {NEXT}.") from error


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _faults(document: Any) -> Iterator[str]:
    """A phrase for each thing that is wrong."""
    if not isinstance(document, dict) or "corrections" not in document:
        yield "is JSON, but no file of corrections"
        return
    if type(document["corrections"]) is not int or document["corrections"] != SCHEMA:
        yield f"is of the version {_told(document['corrections'])}, and this jcdnet reads version {SCHEMA}"
        return
    yield from (f"has no {name!r}" for name in _FIELDS if name not in document)
    yield from (f"has the unknown field {_told(name)}" for name in document if name not in _FIELDS)
    video, content = document.get("video", "a"), document.get("content")
    if not isinstance(video, str) or not as_path(video).name.strip(". ") or _unprintable(video):
        yield f"names no video, but {_told(video)}"
    if content is not None and not isinstance(content, str):
        yield f"has {_told(content)} as `content`, which must be text or null"
    if not isinstance(document.get("saved", ""), str):
        yield "does not say when it was saved"
    if not isinstance(document.get("complete", False), bool):
        yield f"has {_told(document['complete'])} as `complete`, which must be true or false"
    duration = document.get("duration", math.inf)
    if duration is not math.inf and not (_is_number(duration) and duration > 0):
        yield f"has {_told(duration)} as `duration`, which must be seconds"
        duration = math.inf
    for name in ("segments", "rejected"):
        given = document.get(name, [])
        if not isinstance(given, list):
            yield f"has {_told(given)} as `{name}`, which must be a list"
            continue
        for i, segment in enumerate(given, start=1):
            yield from (f"{name} {i} {fault}" for fault in _wrong(segment, duration))
        if name == "segments":
            yield from _overlaps(given, duration)


def _wrong(segment: Any, duration: float) -> Iterator[str]:
    if not isinstance(segment, dict) or not {"start", "end", "label"} <= segment.keys():
        yield "needs start, end and label"
        return
    if unknown := segment.keys() - {"start", "end", "label", "origin"}:
        yield f"has the unknown field {_told(min(unknown))}"
    start, end, label = segment["start"], segment["end"], segment["label"]
    if not _is_number(start) or not (end is None or _is_number(end)):
        yield f"lasts from {_told(start)} to {_told(end)}, which must be seconds"
    elif start < 0 or (end is not None and end <= start):
        yield f"lasts from {start:g} to {start if end is None else end:g} s"
    elif (last := start if end is None else end) > duration + SLACK:
        yield f"ends at {last:g} s, and the video is over at {duration:g} s"
    if not isinstance(label, str) or not label.strip():
        yield "has no label"
    elif len(label) > LONGEST or "|" in label or _unprintable(label):
        yield f"has the label {_told(label)}, and a label is one line of at most {LONGEST} characters without |"


def _overlaps(segments: list[Any], duration: float) -> Iterator[str]:
    """One action cannot begin again before it has ended. Only segments that are right in themselves are compared."""
    sound = [s for s in segments if not any(_wrong(s, duration)) and s["end"] is not None]
    before: dict[str, Any] = {}
    for segment in sorted(sound, key=lambda s: (s["label"].strip(), s["start"])):
        label = segment["label"].strip()
        if (last := before.get(label)) and segment["start"] < last["end"]:
            yield (
                f"two segments of {_told(label)} overlap, at {clock(last['start'])} and at {clock(segment['start'])}"
            )
        if last is None or segment["end"] > last["end"]:
            before[label] = segment


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _unprintable(text: str) -> bool:
    return any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _told(value: Any) -> str:
    """What a stranger's file says, short and on one line."""
    text = one_line(value if isinstance(value, str) else json.dumps(value))
    return repr(text if len(text) <= 40 else f"{text[:37]}...")

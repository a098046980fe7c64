"""The result of a run: the segments of a video, and the JSON document that stores them."""

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from support.errors import INPUT_FAILED, UserError

SCHEMA = 1
UNSURE = "unsure"
DOUBT = "? (sport not sure)"  # behind a label that is a guess


class ResultError(UserError, ValueError):
    """A document that is not a valid result; the message says what is wrong."""

    exit_code = INPUT_FAILED


@dataclass(frozen=True)
class Segment:
    """One action: the paper's (t_s, t_e, ψ, c), and a confidence that people can read."""

    start: float
    """in seconds from the beginning of the video"""
    end: float
    """in seconds from the beginning of the video"""
    score: float
    """ψ; it is computed from logits, so it has no bounds"""
    confidence: float
    """mean probability in [0, 1]"""
    label: str
    sport: str = ""
    """the sport that `label` belongs to, "" if the model groups no classes; UNSURE if the confidence is lower than the
    model's own least one: some sport is shown, and `label` is a guess"""

    @property
    def name(self) -> str:
        """What people are told: the sport (`said_sport`) and the label, or that the label is a guess."""
        if self.sport == UNSURE:
            return self.label + DOUBT
        sport = said_sport(self.sport, self.label)
        return f"{sport}: {self.label}" if sport else self.label


def ways_to_say(label: str, sport: str = "") -> tuple[str, ...]:
    """The names by which people may call a label: plain, or as tables and pages show it, as a guess or with its sport.

    The sport may be typed also where tables leave it out because the label says it.
    """
    return (label, label + DOUBT, *((f"{sport}: {label}",) if sport not in ("", UNSURE) else ()))


def percent(confidence: float) -> str:
    """How sure the program is, as pages and overlays say it: "74 %". No program is ever 100 % sure: ">99 %"."""
    # Halves are rounded up, as in the page's script.
    return ">99\u00a0%" if confidence >= 0.995 else f"{math.floor(100 * confidence + 0.5)}\u00a0%"


@lru_cache(maxsize=1024)
def said_sport(sport: str, label: str) -> str:
    """The sport that is said before a label: "" where there is none or it is not sure, and where the label says it.

    A label says its sport if one of its words begins or ends with it, in any case and however it is spaced: "golf
    driving", "kitesurfing" (surfing), "snatch weight lifting" (weightlifting).
    """
    if sport in ("", UNSURE):
        return ""
    word = r"\s*".join(map(re.escape, "".join(sport.split())))
    return "" if re.search(rf"\b{word}|{word}\b", label, re.IGNORECASE) else sport


def left_out(found: Sequence[Segment], anything: Sequence[Segment], least: float) -> tuple[str, ...]:
    """A sentence about the segments that a least length left out, if there are any.

    Args:
        found: the segments that are at least so long.
        anything: what is found at any length.
        least: in seconds.
    """
    short = [
        s
        for s in anything
        if s.end - s.start < least and not any(s.start < other.end and other.start < s.end for other in found)
    ]
    if not short:
        return ()
    what = "1 segment" if len(short) == 1 else f"{len(short)} segments"
    return (f"{what} shorter than {least:g} s {'is' if len(short) == 1 else 'are'} left out (--min-length).",)


@dataclass(frozen=True)
class Result:
    """Everything that is known about one video after a run."""

    video: str
    duration: float
    """in seconds"""
    media: dict[str, Any]
    """width, height, rate and start_timecode of the video"""
    segments: tuple[Segment, ...]
    warnings: tuple[str, ...]
    provenance: dict[str, Any]
    partial: bool = False
    """whether a part of the video could not be read"""

    @property
    def best(self) -> Segment | None:
        """The segment with the highest confidence, the first one of several; None if nothing was found."""
        return max(self.segments, key=lambda s: s.confidence, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The result document, schema 1. Times are rounded to milliseconds, score and confidence to 4 decimals."""
        return {
            "schema": SCHEMA,
            "video": self.video,
            "duration": _rounded(self.duration, 3),
            "media": copy.deepcopy(self.media),
            "partial": self.partial,
            "warnings": list(self.warnings),
            "segments": [
                {
                    "start": _rounded(s.start, 3),
                    "end": _rounded(s.end, 3),
                    "score": _rounded(s.score, 4),
                    "confidence": _rounded(s.confidence, 4),
                    "label": s.label,
                }
                | ({"sport": s.sport} if s.sport else {})
                for s in self.segments
            ],
            "provenance": copy.deepcopy(self.provenance),
        }

    @classmethod
    def from_dict(cls, document: Any) -> "Result":
        """Read a result document back.

        Raises:
            ResultError: the schema is another one, a field is missing or unknown, or a value has the wrong type or
                is not finite.
        """
        if not isinstance(document, dict) or "schema" not in document:
            raise ResultError("this is not a result document: it has no schema")
        if type(document["schema"]) is not int or document["schema"] != SCHEMA:
            raise ResultError(f"schema {document['schema']!r} is not known here, this version reads schema {SCHEMA}")
        _expect_fields(document, {"schema", *(f.name for f in fields(cls))}, "the result")
        _expect(isinstance(document["video"], str), "video", "text")
        _expect(_is_number(document["duration"]) and document["duration"] >= 0, "duration", "seconds, 0 or more")
        _expect(isinstance(document["partial"], bool), "partial", "true or false")
        for name in ("media", "provenance"):
            _expect(isinstance(document[name], dict), name, "an object")
            _expect(_is_plain(document[name]), name, "made of JSON values with finite numbers")
        warnings, segments = document["warnings"], document["segments"]
        _expect(
            isinstance(warnings, list) and all(isinstance(w, str) for w in warnings),
            "warnings",
            "a list of texts",
        )
        _expect(isinstance(segments, list), "segments", "a list")
        return cls(
            video=document["video"],
            duration=float(document["duration"]),
            media=copy.deepcopy(document["media"]),
            segments=tuple(_segment(s, f"segment {i}") for i, s in enumerate(segments, start=1)),
            warnings=tuple(warnings),
            provenance=copy.deepcopy(document["provenance"]),
            partial=document["partial"],
        )


def _segment(document: Any, name: str) -> Segment:
    _expect(isinstance(document, dict), name, "an object")
    _expect_fields({"sport": ""} | document, {f.name for f in fields(Segment)}, name)
    for key in ("start", "end", "score", "confidence"):
        _expect(_is_number(document[key]), f"{key} of {name}", "a finite number")
    _expect(0 <= document["start"] <= document["end"], name, "such that 0 ≤ start ≤ end")
    _expect(0 <= document["confidence"] <= 1, f"confidence of {name}", "between 0 and 1")
    for key in ("label", "sport"):
        _expect(isinstance(document.get(key, ""), str), f"{key} of {name}", "text")
    return Segment(
        start=float(document["start"]),
        end=float(document["end"]),
        score=float(document["score"]),
        confidence=float(document["confidence"]),
        label=document["label"],
        sport=document.get("sport", ""),
    )


def _rounded(value: float, digits: int) -> float:
    # JSON cannot hold NumPy scalars, hence float(). Adding 0.0 turns −0.0 into 0.0.
    return round(float(value), digits) + 0.0


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _expect(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise ResultError(f"{name} must be {what}")


def _expect_fields(document: dict[str, Any], wanted: set[str], name: str) -> None:
    if missing := sorted(wanted - document.keys()):
        raise ResultError(f"{name} lacks {', '.join(missing)}")
    if unknown := sorted(str(k) for k in document.keys() - wanted):
        raise ResultError(f"{name} has fields that schema {SCHEMA} does not know: {', '.join(unknown)}")

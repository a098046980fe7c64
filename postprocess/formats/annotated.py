"""Annotations that a person made in another tool: labelled spans of seconds for each video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from support.errors import UserError


class ExchangeError(UserError, ValueError):
    """A file of another tool cannot be read; the message is one sentence: the file, the cause, the next step."""


@dataclass(frozen=True)
class Span:
    """A labelled span, in seconds of the video; a single moment has its start as its end."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Annotated:
    """A video as the file names it, its spans ordered by start, and notes about everything that was unclear."""

    video: str
    spans: tuple[Span, ...]
    notes: tuple[str, ...] = ()
    complete: bool | None = None
    """whether everything that happens is marked, so that the rest is background; None: the file does not say"""


def annotated(
    video: str, spans: list[Span], where: str, notes: Sequence[str] = (), complete: bool | None = None
) -> Annotated:
    """Check the spans of one video and put them in order.

    Raises:
        ExchangeError: a time is not finite, a span ends before it starts, or a label is empty.
    """
    for i, span in enumerate(spans, start=1):
        if not (math.isfinite(span.start) and math.isfinite(span.end) and 0 <= span.start <= span.end):
            raise ExchangeError(
                f"{where}: annotation {i} lasts from {span.start:g} to {span.end:g} s; correct it and export again."
            )
        if not span.label:
            raise ExchangeError(f"{where}: annotation {i}, at {span.start:g} s, has no label; give it one.")
    ordered = tuple(sorted(spans, key=lambda s: (s.start, s.end, s.label)))
    return Annotated(video, ordered, tuple(f"{where}: {note}" for note in notes), complete)

"""What a person drew in another tool, read back: spans of seconds with a label, by video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from support.errors import UserError


class ExchangeError(UserError, ValueError):
    """A file of another tool that cannot be read; one sentence: the file, the cause, the next step."""


@dataclass(frozen=True)
class Span:
    """Seconds of the video, and the label."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Annotated:
    """A video as the file names it, and the spans drawn in it, by start; and sentences about what was not plain."""

    video: str
    spans: tuple[Span, ...]
    notes: tuple[str, ...] = ()


def annotated(video: str, spans: list[Span], where: str, notes: Sequence[str] = ()) -> Annotated:
    """Spans of one video, checked and in order.

    Raises:
        ExchangeError: times that are not finite, an end before its start, a label that is empty.
    """
    for i, span in enumerate(spans, start=1):
        if not (math.isfinite(span.start) and math.isfinite(span.end) and 0 <= span.start <= span.end):
            raise ExchangeError(
                f"{where}: annotation {i} lasts from {span.start:g} to {span.end:g} s; correct it and export again."
            )
        if not span.label:
            raise ExchangeError(f"{where}: annotation {i}, at {span.start:g} s, has no label; give it one.")
    ordered = tuple(sorted(spans, key=lambda s: (s.start, s.end, s.label)))
    return Annotated(video, ordered, tuple(f"{where}: {note}" for note in notes))

"""SubRip and WebVTT subtitles, which show name and confidence during each segment in any player."""

from html import escape
from typing import TextIO

from postprocess.formats.text import one_line
from postprocess.segment import Result, Segment


def write_srt(result: Result, out: TextIO) -> None:
    """Write SubRip subtitles in order of time. If nothing was found, the file is empty: SubRip has no comments."""
    for index, (first, last, text) in enumerate(_cues(result), start=1):
        out.write(f"{index}\n{_clock(first, ',')} --> {_clock(last, ',')}\n{text}\n\n")


def write_vtt(result: Result, out: TextIO) -> None:
    """Write WebVTT for the `<track>` of a web page: the same cues, with markup escaped."""
    out.write("WEBVTT\n\n")
    for index, (first, last, text) in enumerate(_cues(result), start=1):
        out.write(f"{index}\n{_clock(first, '.')} --> {_clock(last, '.')}\n{escape(text, quote=False)}\n\n")


def _cues(result: Result) -> list[tuple[int, int, str]]:
    """(start, end, text) of each cue, in milliseconds and in order of time."""
    return [_cue(s) for s in sorted(result.segments, key=lambda s: (s.start, s.end))]


def _cue(s: Segment) -> tuple[int, int, str]:
    first = round(s.start * 1000)
    # A name may hold neither a blank line, which ends a cue, nor an arrow, which marks a line with times.
    label = one_line(s.name).replace("-->", "→")
    # Players ignore a cue without length.
    return first, max(round(s.end * 1000), first + 1), f"{label} {s.confidence:.2f}".lstrip()


def _clock(milliseconds: int, point: str) -> str:
    seconds, ms = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{ms:03d}"

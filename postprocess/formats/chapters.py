"""Chapters for the description of a YouTube video: one line for each, `minutes:seconds title`."""

from typing import TextIO

from postprocess.formats.text import one_line
from postprocess.segment import Result, Segment

SHORTEST = 10  # seconds; if one chapter is shorter, YouTube shows no chapters at all
FIRST = "Start"


def write_chapters(result: Result, out: TextIO) -> None:
    """Write a chapter for each segment. Its start is rounded down to whole seconds, so that no action is cut off.

    YouTube needs the first chapter at 0:00, which is `Start` unless an action begins there, and at least 10 s for each
    chapter. A segment that starts
    too soon after a chapter has none (`left_out` lists them). YouTube shows no chapters if there are fewer than three.
    """
    for second, title in _chapters(result)[0]:
        hours, rest = divmod(second, 3600)
        clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
        out.write(f"{clock} {title}\n")


def left_out(result: Result) -> list[Segment]:
    """The segments that get no chapter, because one that is less than 10 s away has it."""
    return _chapters(result)[1]


def _chapters(result: Result) -> tuple[list[tuple[int, str]], list[Segment]]:
    """((second, title) of each chapter, the segments without one)."""
    chapters: list[tuple[int, str]] = [(0, FIRST)]
    left = []
    for s in sorted(result.segments, key=lambda s: (s.start, -s.confidence)):
        second, title = int(s.start), one_line(s.name) or "action"
        if second == 0 and chapters == [(0, FIRST)]:  # the video begins with it
            chapters = [(0, title)]
        elif title == chapters[-1][1] and second - chapters[-1][0] < SHORTEST:
            continue  # it goes on in the chapter of its own name
        elif second - chapters[-1][0] >= SHORTEST and result.duration - second >= SHORTEST:
            if title != chapters[-1][1]:
                chapters.append((second, title))
        else:
            left.append(s)
    return chapters, left

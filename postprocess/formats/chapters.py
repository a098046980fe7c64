"""Chapters as YouTube reads them in a description: a line each, `minutes:seconds title`."""

from typing import TextIO

from postprocess.formats.text import one_line
from postprocess.segment import Result

SHORTEST = 10  # seconds; YouTube shows no chapters at all where one is shorter


def write_chapters(result: Result, out: TextIO) -> None:
    """A chapter from each segment's start, in whole seconds, rounded down so that the action is not missed.

    The first must be at 0:00, and none may be shorter than 10 s: a segment that begins earlier than that is left to
    the chapter before it. Of fewer than three chapters YouTube shows none.
    """
    chapters: list[tuple[int, str]] = []
    for s in sorted(result.segments, key=lambda s: (s.start, -s.confidence)):
        second, title = int(s.start), one_line(s.label) or "action"
        if not chapters and second >= SHORTEST:
            chapters.append((0, "Start"))
        if not chapters:
            chapters.append((0, title))
        elif second - chapters[-1][0] >= SHORTEST and result.duration - second >= SHORTEST and title != chapters[-1][1]:
            chapters.append((second, title))
    for second, title in chapters or [(0, "Start")]:
        hours, rest = divmod(second, 3600)
        clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
        out.write(f"{clock} {title}\n")

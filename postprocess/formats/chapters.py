"""Chapters for the description of a YouTube video: one line for each, `minutes:seconds title`."""

from typing import TextIO

from postprocess.formats.text import one_line
from postprocess.segment import Result

SHORTEST = 10  # seconds; if one chapter is shorter, YouTube shows no chapters at all


def write_chapters(result: Result, out: TextIO) -> None:
    """Write a chapter for each segment. Its start is rounded down to whole seconds, so that no action is cut off.

    YouTube needs the first chapter at 0:00, and at least 10 s for each chapter. A segment that starts too soon after a
    chapter belongs to that chapter. YouTube shows no chapters if there are fewer than three.
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

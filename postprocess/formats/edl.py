"""CMX 3600 edit decision lists: the segments as cuts, one behind the other, for Premiere, Resolve and Avid."""

from typing import TextIO

from postprocess.formats.text import one_line
from postprocess.formats.timecode import frames_of, rate_of, start_of, timecode
from postprocess.segment import Result

HOUR_ONE = 3600  # seconds; programmes begin at one hour by custom


def write_edl(result: Result, out: TextIO) -> None:
    """One cut of the picture a segment, in order of time: in and out of the source, and where it lies in the edit.

    The reel is AX, as for all that is a file and no tape; the file's name and the label stand in comments. The source
    counts from the video's own time code, where it has one. Segments that overlap are both there: a list of selects
    repeats what it must.

    Raises:
        ResultError: the result knows no frame rate.
    """
    rate = rate_of(result)
    begin, drop = start_of(result, rate)
    at = HOUR_ONE * round(rate)
    at -= round(rate) // 15 * 54 if drop else 0  # 54 of an hour's 60 minutes drop numbers
    name = one_line(result.video.replace("\\", "/").rpartition("/")[2])
    out.write(f"TITLE: {name}\nFCM: {'DROP FRAME' if drop else 'NON-DROP FRAME'}\n\n")
    for index, s in enumerate(sorted(result.segments, key=lambda s: (s.start, s.end)), start=1):
        first, behind = frames_of(s, rate)
        stamps = (begin + first, begin + behind, at, at + behind - first)
        out.write(f"{index:03d}  AX       V     C        {' '.join(timecode(n, rate, drop) for n in stamps)}\n")
        out.write(f"* FROM CLIP NAME: {name}\n* COMMENT: {one_line(s.label)} {s.confidence:.2f}\n\n")
        at = stamps[3]

"""CMX 3600 edit decision lists for Premiere, Resolve and Avid: the segments as cuts, one after the other."""

from typing import TextIO

from postprocess.formats.text import file_name, one_line
from postprocess.formats.timecode import counted_rate, frames_of, rate_of, sound_of, start_of, timecode
from postprocess.segment import Result

HOUR_ONE = 3600  # seconds; by convention, programmes begin at one hour


def write_edl(result: Result, out: TextIO) -> None:
    """Write a cut for each segment, in order of time, with its place in the source and in the edit.

    The reel is AX, as usual for files that are not tapes. The file name and the name of the action are comments. The
    source counts from the video's own time code, if it has one. Segments that overlap are both in the list. A cut is of
    the picture, and of one or two tracks of sound if `media.audio` says that the source has them. A film of more than
    99 frames a second is counted at a part of its rate, which a comment says, because frames have two digits.

    Raises:
        ResultError: the result has no frame rate.
    """
    own = rate_of(result)
    rate = counted_rate(own)
    begin, drop = start_of(result, rate)
    at = HOUR_ONE * round(rate)
    at -= round(rate) // 15 * 54 if drop else 0  # 54 of the 60 minutes of an hour drop numbers
    name = one_line(file_name(result.video))
    out.write(f"TITLE: {name}\nFCM: {'DROP FRAME' if drop else 'NON-DROP FRAME'}\n\n")
    tracks = {0: "V  ", 1: "B  "}.get(sound_of(result)[0], "AA/V")
    for index, s in enumerate(sorted(result.segments, key=lambda s: (s.start, s.end)), start=1):
        first, behind = frames_of(s, rate)
        stamps = (begin + first, begin + behind, at, at + behind - first)
        out.write(f"{index:03d}  AX       {tracks:<4}  C        {' '.join(timecode(n, rate, drop) for n in stamps)}\n")
        out.write(f"* FROM CLIP NAME: {name}\n* COMMENT: {one_line(s.name)} {s.confidence:.2f}\n")
        if rate != own:
            out.write(f"* COMMENT: {float(own):.6g} frames a second, counted as {float(rate):.6g}\n")
        out.write("\n")
        at = stamps[3]

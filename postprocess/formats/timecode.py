"""Seconds, frames and SMPTE time code (ST 12-1), in whole numbers: 29.97 is 30000/1001 and nothing else."""

import re
from fractions import Fraction

from postprocess.segment import Result, ResultError, Segment

# Headers that say 2997/100 mean 30000/1001; 24 and 23.976 differ by ten times this.
NEAR = Fraction(1, 10_000)
# Fraction itself takes 1e999999999, and an hour to write it out.
_RATE = re.compile(r"\d{1,9}(\.\d{1,20})?|\d{1,9}/\d{1,9}")
_TIMECODE = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d{2,3})")


def rate_of(result: Result) -> Fraction:
    """Frames per second of a result's video, exact.

    Raises:
        ResultError: the result does not say.
    """
    rate = read_rate(result.media.get("rate"))
    if rate is None:
        raise ResultError(
            f"{result.video}: its result knows no frame rate, which formats that count frames need; run it again, "
            "or use json, csv, srt or vtt."
        )
    exact = round(rate) * Fraction(1000, 1001)
    return exact if exact and abs(rate / exact - 1) < NEAR else rate


def read_rate(value: object) -> Fraction | None:
    """A number of frames per second, or the text of one ("25", "29.97", "30000/1001"); None where it is none."""
    try:
        rate = Fraction(text) if _RATE.fullmatch(text := str(value)) else Fraction(0)
    except ZeroDivisionError:
        return None
    return rate or None


def frames_of(segment: Segment, rate: Fraction) -> tuple[int, int]:
    """(first frame, first frame behind), the nearest to the segment's seconds; at least one frame."""
    first = round(Fraction(segment.start) * rate)
    return first, max(first + 1, round(Fraction(segment.end) * rate))


def can_drop(rate: Fraction) -> bool:
    """Whether drop-frame time code is defined: multiples of 30000/1001."""
    return rate.denominator == 1001 and round(rate) % 30 == 0


def timecode(frame: int, rate: Fraction, drop: bool) -> str:
    """The time code of a frame: "01:00:00:00", with a semicolon where it drops; a day wraps around.

    Drop-frame leaves out the numbers :00 and :01 (of 60, the first four) of each minute but every tenth.

    Raises:
        ValueError: drop-frame is not defined for this rate.
    """
    base = round(rate) or 1
    if drop:
        if not can_drop(rate):
            raise ValueError(f"drop-frame time code is not defined for {rate} frames per second")
        dropped = base // 15
        ten_minutes = 600 * base - 9 * dropped
        tens, rest = divmod(frame, ten_minutes)
        frame += 9 * dropped * tens + dropped * max(0, (rest - dropped) // (60 * base - dropped))
    seconds, frames = divmod(frame, base)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours % 24:02d}:{minute:02d}:{second:02d}{';' if drop else ':'}{frames:02d}"


def frame_of(text: str, rate: Fraction) -> tuple[int, bool]:
    """(frame, whether it drops) of a time code.

    Raises:
        ValueError: not a time code at this rate.
    """
    found = _TIMECODE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a time code, such as 01:00:00:00")
    hours, minutes, seconds, frames = (int(found[i]) for i in (1, 2, 3, 5))
    base = round(rate) or 1
    drop = found[4] != ":" and can_drop(rate)
    if minutes > 59 or seconds > 59 or frames >= base:
        raise ValueError(f"{text!r} is not a time code at {float(rate):.6g} frames per second")
    total = 60 * hours + minutes
    frame = (60 * total + seconds) * base + frames
    return (frame - base // 15 * (total - total // 10) if drop else frame), drop


def start_of(result: Result, rate: Fraction) -> tuple[int, bool]:
    """(frame number of the video's first time code, whether it drops).

    Without a time code of its own it counts from 0, and drops where that is defined: then it shows the clock's time.
    A time code that cannot be read counts as none, as editors have it.
    """
    own = result.media.get("start_timecode")
    if isinstance(own, str):
        try:
            return frame_of(own, rate)
        except ValueError:
            pass
    return 0, can_drop(rate)

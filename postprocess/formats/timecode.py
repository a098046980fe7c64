"""Seconds, frames and SMPTE time code (ST 12-1), computed exactly: 29.97 means 30000/1001."""

import re
from fractions import Fraction

from postprocess.segment import Result, ResultError, Segment

# Headers with 2997/100 mean 30000/1001. 24 and 23.976 differ by ten times this tolerance.
NEAR = Fraction(1, 10_000)
# Above this, a rate is the clock of a container: browsers record WebM whose nominal rate is 1000.
FASTEST = 500
# CMX 3600 has two digits for frames, and editors count at most 60: faster films count every second, third … frame.
DIGITS, COUNTED = 99, 60
# Fraction itself accepts 1e999999999 and needs an hour to compute it.
_RATE = re.compile(r"\d{1,9}(\.\d{1,20})?|\d{1,9}/\d{1,9}")
_TIMECODE = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d{2,3})")


def rate_of(result: Result) -> Fraction:
    """The exact frame rate of a result's video.

    Raises:
        ResultError: the result has no frame rate.
    """
    rate = read_rate(result.media.get("rate"))
    if rate is None:
        raise ResultError(
            f"{result.video}: its result has no frame rate, which formats that count frames need; run it again, "
            "or use json, csv, srt or vtt."
        )
    if rate > FASTEST:
        raise ResultError(
            f"{result.video}: its result says {float(rate):.6g} frames a second, which is the clock of its file and no "
            "frame rate; give the folder of the video with --videos, so that its frames can be counted."
        )
    exact = round(rate) * Fraction(1000, 1001)
    return exact if exact and abs(rate / exact - 1) < NEAR else rate


def sound_of(result: Result) -> tuple[int, int]:
    """(channels, samples a second) of the video's sound by `media.audio`, which exports add; (0, 0) without sound."""
    audio = result.media.get("audio")
    if isinstance(audio, dict):
        channels, hertz = audio.get("channels"), audio.get("rate")
        if isinstance(channels, int) and isinstance(hertz, int) and channels > 0 < hertz:
            return channels, hertz
    return 0, 0


def read_rate(value: object) -> Fraction | None:
    """Frames per second from a number or a text ("25", "29.97", "30000/1001"); None if the value is neither."""
    try:
        rate = Fraction(text) if _RATE.fullmatch(text := str(value)) else Fraction(0)
    except ZeroDivisionError:
        return None
    return rate or None


def counted_rate(rate: Fraction) -> Fraction:
    """The rate at which time code counts a film: its own up to 99, else the largest whole part of it up to 60.

    So 120 frames a second count as 60, and every second frame has a number of its own.
    """
    if round(rate) <= DIGITS:
        return rate
    parts = -(-round(rate) // COUNTED)
    whole = next((n for n in range(parts, 2 * parts + 1) if round(rate) % n == 0), parts)
    return rate / whole


def frames_of(segment: Segment, rate: Fraction) -> tuple[int, int]:
    """(first frame, first frame after the end), rounded to the nearest frames; at least one frame long."""
    first = round(Fraction(segment.start) * rate)
    return first, max(first + 1, round(Fraction(segment.end) * rate))


def can_drop(rate: Fraction) -> bool:
    """Whether drop-frame time code is defined for this rate: only for multiples of 30000/1001."""
    return rate.denominator == 1001 and round(rate) % 30 == 0


def timecode(frame: int, rate: Fraction, drop: bool) -> str:
    """The time code of a frame: "01:00:00:00", with a semicolon if it is drop-frame. It wraps around after a day.

    Drop-frame leaves out the numbers :00 and :01 (at 60 frames, the first four) of each minute except every tenth.

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
    """(frame, whether it is drop-frame) of a time code.

    Raises:
        ValueError: the text is not a time code at this rate.
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
    """(frame number of the video's first time code, whether it is drop-frame).

    A video without a time code counts from 0, with drop-frame if that is defined, so that it shows the real time. A
    time code that cannot be read is ignored, as video editors do.
    """
    own = result.media.get("start_timecode")
    if isinstance(own, str):
        try:
            return frame_of(own, rate)
        except ValueError:
            pass
    return 0, can_drop(rate)

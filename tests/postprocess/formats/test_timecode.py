"""Time code in whole numbers: against OpenTimelineIO, and its own inverse."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentimelineio import opentime

from postprocess.formats.timecode import can_drop, frame_of, frames_of, rate_of, read_rate, start_of, timecode
from postprocess.segment import Result, ResultError, Segment

patient = settings(deadline=None)
FILM, PAL, NTSC, NTSC60 = Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60000, 1001)
RATES = (FILM, Fraction(24), PAL, NTSC, Fraction(30), Fraction(50), NTSC60, Fraction(60))
DAY = 24 * 3600


def of(**media: object) -> Result:
    return Result("v.mp4", 10.0, media, (), (), {})


@pytest.mark.parametrize(
    ("frame", "rate", "drop", "expected"),
    [
        (0, NTSC, True, "00:00:00;00"),
        (1799, NTSC, True, "00:00:59;29"),
        (1800, NTSC, True, "00:01:00;02"),  # :00 and :01 of the minute are not there
        (17982, NTSC, True, "00:10:00;00"),  # of every tenth they are
        (107892, NTSC, True, "01:00:00;00"),
        (3600, NTSC60, True, "00:01:00;04"),
        (1800, NTSC, False, "00:01:00:00"),
        (1440, FILM, False, "00:01:00:00"),
        (25 * DAY, PAL, False, "00:00:00:00"),
    ],
)
def test_known_time_codes(frame: int, rate: Fraction, drop: bool, expected: str) -> None:
    assert timecode(frame, rate, drop) == expected


@patient
@given(st.sampled_from(RATES), st.data(), st.booleans())
def test_time_codes_are_those_of_opentimelineio_and_read_back(rate: Fraction, data: st.DataObject, asked: bool) -> None:
    drop = asked and can_drop(rate)
    frame = data.draw(st.integers(0, int(DAY * rate) - 100))
    text = timecode(frame, rate, drop)
    assert frame_of(text, rate) == (frame, drop)
    theirs = opentime.RationalTime(frame, float(rate))
    assert text == theirs.to_timecode(float(rate), drop)
    assert opentime.from_timecode(text, float(rate)).to_frames() == frame


@patient
@given(st.sampled_from(RATES), st.floats(0, DAY), st.floats(0, 600))
def test_a_segment_in_frames_is_within_half_a_frame_of_its_seconds(rate: Fraction, start: float, length: float) -> None:
    first, behind = frames_of(Segment(start, start + length, 0, 1, "a"), rate)
    assert behind > first
    assert abs(first / rate - Fraction(start)) <= Fraction(1, 2) / rate
    assert behind == first + 1 or abs(behind / rate - Fraction(start + length)) <= Fraction(1, 2) / rate


def test_drop_frame_only_where_it_is_defined() -> None:
    assert [can_drop(rate) for rate in RATES] == [False, False, False, True, False, False, True, False]
    with pytest.raises(ValueError, match="drop-frame"):
        timecode(0, PAL, True)


@pytest.mark.parametrize(
    ("given_rate", "rate"),
    [("30000/1001", NTSC), ("2997/100", NTSC), ("11988/500", FILM), ("2397/100", Fraction(2397, 100)), ("24", 24),
     ("25", 25), (25, 25), ("5994/100", NTSC60), ("25/2", Fraction(25, 2))],
)  # fmt: skip
def test_the_rate_is_exact(given_rate: object, rate: Fraction) -> None:
    assert rate_of(of(rate=given_rate)) == rate


@pytest.mark.parametrize("media", [{}, {"rate": "0"}, {"rate": None}, {"rate": "1/0"}, {"rate": "fast"}])
def test_without_a_rate_it_is_one_sentence(media: dict[str, object]) -> None:
    with pytest.raises(ResultError, match=r"v\.mp4: its result has no frame rate"):
        rate_of(of(**media))


@pytest.mark.parametrize(
    ("own", "rate", "start"),
    [
        (None, NTSC, (0, True)),
        (None, PAL, (0, False)),
        ("01:00:00;00", NTSC, (107892, True)),
        ("01:00:00:00", NTSC, (108000, False)),
        ("10:00:00:00", PAL, (900000, False)),
        ("noon", PAL, (0, False)),
        ("00:00:00:25", PAL, (0, False)),
    ],
)
def test_the_first_time_code(own: str | None, rate: Fraction, start: tuple[int, bool]) -> None:
    assert start_of(of(start_timecode=own), rate) == start


def test_less_than_a_frame_in_two_seconds_counts_frames_of_its_own() -> None:
    assert rate_of(of(rate="1/4")) == Fraction(1, 4)
    assert timecode(3, Fraction(1, 4), False) == "00:00:03:00"
    assert frame_of("00:00:03:00", Fraction(1, 4)) == (3, False)


def test_a_ten_thousandth_off_is_another_rate() -> None:
    off = NTSC * Fraction(10_001, 10_000)
    assert rate_of(of(rate=str(off))) == off


@pytest.mark.parametrize("own", ["00:60:00:00", "00:00:60:00", "00:99:00:00", "00:00:99:00"])
def test_sixty_is_no_minute_and_no_second(own: str) -> None:
    with pytest.raises(ValueError, match=f"^'{own}' is not a time code at 25 frames per second$"):
        frame_of(own, PAL)


def test_what_is_no_time_code_is_named() -> None:
    with pytest.raises(ValueError, match=r"^'noon' is not a time code, such as 01:00:00:00$"):
        frame_of("noon", PAL)


@pytest.mark.parametrize(
    "rate", ["1e999999999", "1e5", "-25", "25/", "2" * 10, "1/" + "3" * 10, "nan", "inf", "0/1", True, [], 1e-7]
)
def test_a_rate_is_read_within_bounds(rate: object) -> None:
    """Fraction would write the first one out, digit by digit."""
    assert read_rate(rate) is None

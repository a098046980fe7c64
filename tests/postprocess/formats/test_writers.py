"""Result documents and the text formats: golden text, and each format read back by another parser."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.formats.writers import WRITERS, clock, write_csv
from postprocess.segment import Result, ResultError, Segment

# No deadline: a busy machine is not a wrong answer.
patient = settings(deadline=None)

GOLF = Result(
    video="clips/my golf.mp4",
    duration=61.4449,
    media={"width": 640, "height": 360, "rate": "30000/1001", "start_timecode": None},
    segments=(
        Segment(1.28, 5.12, 11.123456, 0.98765, "golf driving"),
        Segment(59.9996, 61.4449, -0.00001, 0.5, 'so-called "golf", putting'),
    ),
    warnings=("the last 0.3 s could not be decoded",),
    provenance={"model": "kinetics400", "settings": {"threshold": 0.3}},
    partial=True,
)
NOTHING = Result("empty street.mp4", 10.0, {}, (), (), {})


def written(name, result):
    out = io.StringIO(newline="")
    WRITERS[name](result, out)
    return out.getvalue()


def test_json_golden():
    assert written("json", GOLF) == (
        """{
  "schema": 1,
  "video": "clips/my golf.mp4",
  "duration": 61.445,
  "media": {
    "width": 640,
    "height": 360,
    "rate": "30000/1001",
    "start_timecode": null
  },
  "partial": true,
  "warnings": [
    "the last 0.3 s could not be decoded"
  ],
  "segments": [
    {
      "start": 1.28,
      "end": 5.12,
      "score": 11.1235,
      "confidence": 0.9877,
      "label": "golf driving"
    },
    {
      "start": 60.0,
      "end": 61.445,
      "score": 0.0,
      "confidence": 0.5,
      "label": "so-called \\"golf\\", putting"
    }
  ],
  "provenance": {
    "model": "kinetics400",
    "settings": {
      "threshold": 0.3
    }
  }
}
"""
    )


def test_jsonl_is_the_same_document_on_one_line():
    text = written("jsonl", GOLF)
    assert text.endswith("\n") and text.count("\n") == 1
    assert json.loads(text) == json.loads(written("json", GOLF))


def test_csv_golden():
    assert written("csv", GOLF) == (
        "video,start,end,label,confidence,score\n"
        "clips/my golf.mp4,1.280,5.120,golf driving,0.9877,11.1235\n"
        'clips/my golf.mp4,60.000,61.445,"so-called ""golf"", putting",0.5000,0.0000\n'
    )


def test_srt_golden():
    assert written("srt", GOLF) == (
        "1\n00:00:01,280 --> 00:00:05,120\ngolf driving 0.99\n\n"
        '2\n00:01:00,000 --> 00:01:01,445\nso-called "golf", putting 0.50\n\n'
    )


def test_nothing_found_is_a_valid_file_of_each_format():
    assert json.loads(written("json", NOTHING))["segments"] == []
    assert written("csv", NOTHING) == "video,start,end,label,confidence,score\n"
    assert written("srt", NOTHING) == ""
    assert NOTHING.best is None


def test_csv_of_many_results_has_one_header_and_takes_an_iterator():
    out = io.StringIO(newline="")
    write_csv(iter([GOLF, NOTHING, GOLF]), out)
    rows = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert [r[0] for r in rows] == ["video"] + ["clips/my golf.mp4"] * 4


def test_best_is_the_most_confident_the_first_of_several():
    a, b, c = (Segment(i, i + 1, 9 - i, p, str(i)) for i, p in enumerate((0.4, 0.8, 0.8)))
    assert Result("v", 3, {}, (a, b, c), (), {}).best is b


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
awkward = text | st.sampled_from(
    [
        "",
        "=1+1",
        "-x",
        "@home",
        "'quoted",
        "a,b",
        'a"b',
        "a\nb",
        "a\r\nb",
        "a\n\n2\n00:00:01,000 --> 00:00:02,000\nb",
        "+",
    ]
)
seconds = st.floats(0, 90_000)
segment = st.builds(
    lambda start, length, score, confidence, label: Segment(start, start + length, score, confidence, label),
    seconds,
    seconds,
    st.floats(-1e3, 1e3),
    st.floats(0, 1),
    awkward,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
result = st.builds(
    Result,
    video=awkward,
    duration=seconds,
    media=st.dictionaries(text, plain, max_size=3),
    segments=st.lists(segment, max_size=4).map(tuple),
    warnings=st.lists(text, max_size=2).map(tuple),
    provenance=st.dictionaries(text, plain, max_size=3),
    partial=st.booleans(),
)


@patient
@given(result)
def test_json_round_trip(given_result):
    for name in ("json", "jsonl"):
        document = json.loads(written(name, given_result).encode("utf-8"))
        back = Result.from_dict(document)
        assert back.to_dict() == document == given_result.to_dict()
        for s, t in zip(back.segments, given_result.segments, strict=True):
            assert abs(s.start - t.start) <= 0.00050001 and abs(s.end - t.end) <= 0.00050001
            assert abs(s.score - t.score) <= 0.000050001 and abs(s.confidence - t.confidence) <= 0.000050001
            assert s.label == t.label


@patient
@given(result)
def test_csv_round_trip_without_a_single_formula(given_result):
    rows = list(csv.reader(io.StringIO(written("csv", given_result), newline=""), strict=True))
    assert len(rows) == 1 + len(given_result.segments)
    for row, s in zip(rows[1:], given_result.segments, strict=True):
        video, start, end, label, confidence, score = row
        for cell, original in ((video, given_result.video), (label, s.label)):
            assert not cell or cell[0] not in "=+-@\t\r\n\0"
            assert (cell[1:] if cell.startswith("'") else cell) == original
        assert [float(start), float(end)] == pytest.approx([s.start, s.end], abs=0.00051)
        assert [float(confidence), float(score)] == pytest.approx([s.confidence, s.score], abs=0.000051)
        assert not re.fullmatch(r"-0\.0+", score)


TIME = re.compile(r"(\d\d+):([0-5]\d):([0-5]\d),(\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d),(\d{3})")


def read_srt(content):
    """A strict reader: [(index, start ms, end ms, text)]."""
    cues = []
    assert content == "" or content.endswith("\n\n")
    for block in content.split("\n\n")[:-1]:
        index, time, *lines = block.split("\n")
        assert len(lines) == 1 and lines[0] and lines[0] == lines[0].strip()
        h, m, s, ms, *rest = map(int, TIME.fullmatch(time).groups())
        end = ((rest[0] * 60 + rest[1]) * 60 + rest[2]) * 1000 + rest[3]
        cues.append((int(index), ((h * 60 + m) * 60 + s) * 1000 + ms, end, lines[0]))
    return cues


@patient
@given(result)
def test_srt_reads_back_in_order(given_result):
    content = written("srt", given_result)
    assert "\r" not in content and content.count("-->") == len(given_result.segments)
    cues = read_srt(content)
    assert [c[0] for c in cues] == list(range(1, len(given_result.segments) + 1))
    assert [c[1] for c in cues] == sorted(round(s.start * 1000) for s in given_result.segments)
    assert all(start < end for _, start, end, _ in cues)


def test_srt_is_in_order_of_time_whatever_the_order_of_the_result():
    first, second = Segment(0, 1, 1.0, 0.1, "a"), Segment(5, 6, 2.0, 0.9, "b")
    cues = read_srt(written("srt", Result("v", 9, {}, (second, first), (), {})))
    assert [(c[1], c[3]) for c in cues] == [(0, "a 0.10"), (5000, "b 0.90")]


def test_a_name_that_is_not_utf8_can_be_written_and_survives_in_json():
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    odd = Result(name, 1.0, {"rate": "25"}, (Segment(0, 1, 0, 1, name),), (), {})
    for writer in WRITERS:
        written(writer, odd).encode("utf-8")
    assert Result.from_dict(json.loads(written("json", odd))).video == name
    assert "é" in written("json", Result("café.mp4", 1.0, {}, (), (), {}))


def test_numpy_numbers_are_written_as_numbers():
    odd = Result("v", np.float32(1), {}, (Segment(*np.array([0, 1, 2, 0.5], dtype=np.float32), label="a"),), (), {})
    assert json.loads(written("json", odd))["segments"][0]["confidence"] == 0.5


def test_json_refuses_what_is_not_json():
    with pytest.raises(ValueError):
        written("json", Result("v", 1.0, {"rate": math.nan}, (), (), {}))


def changed(**changes):
    return GOLF.to_dict() | changes


def with_segment(**changes):
    document = GOLF.to_dict()
    document["segments"][1] |= changes
    return document


def without(name):
    document = GOLF.to_dict()
    del document[name]
    return document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "not a result document"),
        ({}, "not a result document"),
        (changed(schema=2), "schema 2 is not known"),
        (changed(schema=True), "schema True is not known"),
        (changed(schema="1"), "schema '1' is not known"),
        (without("media"), "the result lacks media"),
        (changed(fps=25), "does not know: fps"),
        (changed(video=None), "video must be text"),
        (changed(duration="61"), "duration must be"),
        (changed(duration=math.inf), "duration must be"),
        (changed(duration=-1), "duration must be"),
        (changed(duration=True), "duration must be"),
        (changed(media=[]), "media must be an object"),
        (changed(provenance={"a": [math.nan]}), "provenance must be made of"),
        (changed(partial=0), "partial must be true or false"),
        (changed(warnings="none"), "warnings must be a list"),
        (changed(warnings=[1]), "warnings must be a list"),
        (changed(segments={}), "segments must be a list"),
        (changed(segments=[3]), "segment 1 must be an object"),
        (with_segment(start=math.nan), "start of segment 2 must be a finite number"),
        (with_segment(score=None), "score of segment 2 must be a finite number"),
        (with_segment(start=62.0), "segment 2 must be such that"),
        (with_segment(start=-1.0), "segment 2 must be such that"),
        (with_segment(confidence=1.2), "confidence of segment 2 must be between"),
        (with_segment(label=3), "label of segment 2 must be text"),
        (with_segment(frame=3), "segment 2 has fields that"),
    ],
)
def test_from_dict_is_strict_and_says_what_is_wrong(document, says):
    with pytest.raises(ResultError, match=re.escape(says)) as caught:
        Result.from_dict(document)
    assert "\n" not in str(caught.value)


def test_to_dict_and_from_dict_share_nothing_with_the_result():
    document = GOLF.to_dict()
    back = Result.from_dict(document)
    document["provenance"]["settings"]["threshold"] = 0.9
    assert GOLF.provenance["settings"]["threshold"] == back.provenance["settings"]["threshold"] == 0.3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0:00.00"),
        (5.004, "0:05.00"),
        (59.994, "0:59.99"),
        (59.996, "1:00.00"),
        (75.5, "1:15.50"),
        (3599.999, "1:00:00.00"),
        (3675.5, "1:01:15.50"),
        (36_000, "10:00:00.00"),
        (-1.5, "-0:01.50"),
        (-0.001, "0:00.00"),
        (np.float32(2.5), "0:02.50"),
    ],
)
def test_clock(value, expected):
    assert clock(value) == expected


@patient
@given(st.floats(0, 1e6))
def test_clock_reads_back(value):
    total = 0.0
    for part in clock(value).split(":"):
        total = total * 60 + float(part)
    assert total == pytest.approx(value, abs=0.0051)


def test_seconds_stand_beside_clock_times_where_people_read_them():
    out = io.StringIO()
    write_csv([Result("v", 9, {}, (Segment(1.5, 62.25, -2.5, 0.5, "a"),), (), {})], out, clocks=True)
    head, row = list(csv.reader(io.StringIO(out.getvalue())))
    assert dict(zip(head, row, strict=True)) == {
        "video": "v", "start": "1.500", "end": "62.250", "label": "a", "confidence": "0.5000", "score": "-2.5000",
        "start_clock": "0:01.50", "end_clock": "1:02.25",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0:00.00"), (0.5, "0:00.50"), (-5.0, "-0:05.00"), (-0.25, "-0:00.25"), (-0.001, "0:00.00")],
)
def test_clock_has_a_sign_before_zero_alone(value, expected):
    assert clock(value) == expected


def test_a_name_that_is_not_utf_8_is_ascii_and_as_wide_as_any_other():
    text = written("json", Result("\udcff é.mp4", 1.0, {}, (), (), {}))
    assert text.isascii()
    assert text.startswith('{\n  "schema": 1,')
    assert json.loads(text)["video"] == "\udcff é.mp4"


def test_cells_get_one_apostrophe_and_quotes_only_where_they_need_them():
    segments = tuple(Segment(i, i + 1, 0, 0.5, label) for i, label in enumerate(("=1+1", "Xavier", "OX")))
    out = io.StringIO()
    write_csv([Result("v", 9, {}, segments, (), {})], out)
    assert [row["label"] for row in csv.DictReader(io.StringIO(out.getvalue()))] == ["'=1+1", "Xavier", "OX"]
    assert '"' not in out.getvalue()


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_a_cue_without_length_lasts_a_millisecond(kind):
    text = written(kind, Result("v", 9, {}, (Segment(1, 1, 0, 0.5, "a"),), (), {}))
    assert "00:00:01.001" in text.replace(",", ".")


def test_sports_are_the_last_column_and_only_where_there_are_some():
    squat = Result("a.mp4", 9.0, {}, (Segment(1, 2, 0.5, 0.74, "squat", "weightlifting"),), (), {})
    unsure = Result("b.mp4", 9.0, {}, (Segment(1, 2, 0.5, 0.3, "squat", "unsure"),), (), {})
    out = io.StringIO(newline="")
    write_csv([squat, unsure, GOLF], out, clocks=True)
    rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert rows[0] == ["video", "start", "end", "label", "confidence", "score", "start_clock", "end_clock", "sport"]
    assert [row[-1] for row in rows[1:]] == ["weightlifting", "unsure", "", ""]
    plain = io.StringIO(newline="")
    write_csv(iter([GOLF, NOTHING]), plain)
    assert plain.getvalue() == written("csv", GOLF)  # byte for byte as before there were sports
    assert "weightlifting: squat 0.74" in written("srt", squat) and "squat? (sport not sure) 0.30" in written(
        "vtt", unsure
    )

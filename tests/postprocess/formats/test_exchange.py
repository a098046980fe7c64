"""Other people's formats: golden text, and each read back by a parser of its own world."""

import io
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlparse

import opentimelineio as otio
import pytest
import srt
import webvtt
from fcpxml.parser import FCPXMLParser
from hypothesis import given, settings
from hypothesis import strategies as st
from kloppy import sportscode as kloppy_sportscode
from pympi.Elan import Eaf

from pipeline.run.exports import remarks
from postprocess.evaluation.annotations import from_results, read_predictions
from postprocess.formats.annotated import Annotated, ExchangeError, Span
from postprocess.formats.chapters import left_out
from postprocess.formats.elan import read_elan
from postprocess.formats.labelstudio import read_labelstudio
from postprocess.formats.sportscode import read_sportscode
from postprocess.formats.timecode import counted_rate
from postprocess.formats.writers import SUFFIXES, VIEWS, WRITERS, is_result
from postprocess.segment import Result, ResultError, Segment

patient = settings(deadline=None, max_examples=40)
RATES = ("24000/1001", "25", "30000/1001", "60000/1001")
NAMES = ('serve "ace" & volley', "<script>alert(1)</script>", "⛳ golf – driving's", "a --> b", "]]>", "päron\tå\nö")
FRAMES = ("edl", "fcpxml", "labelstudio")


def result(
    rate: str = "30000/1001", names: tuple[str, ...] = NAMES, video: str = '/footage/my "best" & ⛳.mp4'
) -> Result:
    spans = [(0.0, 1.28), (59.99, 61.44), (61.44, 70.0), (599.5, 600.7), (3599.9, 3605.25), (7000.123, 7001.456)]
    segments = tuple(
        Segment(start, end, 2.5 - i, round(0.9 - i / 10, 2), name)
        for i, ((start, end), name) in enumerate(zip(spans, names, strict=False))
    )
    media = {"width": 1920, "height": 1080, "rate": rate, "start_timecode": None}
    return Result(video, 7200.0, media, segments, (), {"model": {"name": "kinetics400"}, "localize": {"rule": "runs"}})


def written(name: str, what: Result) -> str:
    out = io.StringIO(newline="")
    WRITERS[name](what, out)
    return out.getvalue()


def saved(name: str, what: Result, folder: Path) -> Path:
    path = folder / f"match{SUFFIXES[name]}"
    path.write_text(written(name, what), encoding="utf-8", newline="")
    return path


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def plain(label: str) -> str:
    return " ".join(label.split())


SHORT = Result(
    video="/footage/golf & co.mp4",
    duration=61.0,
    media={"width": 1920, "height": 1080, "rate": "30000/1001", "start_timecode": "01:00:00;00"},
    segments=(Segment(1.28, 5.12, 3.5, 0.9877, "golf driving"), Segment(59.9996, 61.0, 1.0, 0.5, 'so-called "golf"')),
    warnings=(),
    provenance={},
)

GOLDEN = {
    "vtt": (
        "WEBVTT\n\n1\n00:00:01.280 --> 00:00:05.120\ngolf driving 0.99\n\n"
        '2\n00:01:00.000 --> 00:01:01.000\nso-called "golf" 0.50\n\n'
    ),
    "edl": (
        "TITLE: golf & co.mp4\nFCM: DROP FRAME\n\n"
        "001  AX       V     C        01:00:01;08 01:00:05;03 01:00:00;00 01:00:03;25\n"
        "* FROM CLIP NAME: golf & co.mp4\n* COMMENT: golf driving 0.99\n\n"
        "002  AX       V     C        01:00:59;28 01:01:01;00 01:00:03;25 01:00:04;25\n"
        '* FROM CLIP NAME: golf & co.mp4\n* COMMENT: so-called "golf" 0.50\n\n'
    ),
    "chapters": "0:00 Start\n",
    "activitynet": """{
  "version": "jcdnet, schema 1",
  "results": {
    "/footage/golf & co.mp4": [
      {
        "label": "golf driving",
        "score": 3.5,
        "segment": [
          1.28,
          5.12
        ]
      },
      {
        "label": "so-called \\"golf\\"",
        "score": 1.0,
        "segment": [
          60.0,
          61.0
        ]
      }
    ]
  },
  "external_data": {}
}
""",
    "sportscode": """<?xml version="1.0" encoding="UTF-8"?>
<file>
  <ALL_INSTANCES>
    <instance>
      <ID>1</ID>
      <start>1.280</start>
      <end>5.120</end>
      <code>golf driving</code>
      <label>
        <group>confidence</group>
        <text>0.99</text>
      </label>
    </instance>
    <instance>
      <ID>2</ID>
      <start>60.000</start>
      <end>61.000</end>
      <code>so-called "golf"</code>
      <label>
        <group>confidence</group>
        <text>0.50</text>
      </label>
    </instance>
  </ALL_INSTANCES>
  <ROWS>
    <row>
      <code>golf driving</code>
      <R>0</R>
      <G>29298</G>
      <B>45746</B>
    </row>
    <row>
      <code>so-called "golf"</code>
      <R>59110</R>
      <G>40863</G>
      <B>0</B>
    </row>
  </ROWS>
</file>
""",
    "fcpxml": """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.8">
  <resources>
    <format id="r1" name="FFVideoFormatRateUndefined" frameDuration="1001/30000s" width="1920" height="1080" />
    <asset id="r2" name="golf &amp; co.mp4" src="file:///footage/golf%20%26%20co.mp4" start="107999892/30000s" \
duration="1829828/30000s" hasVideo="1" format="r1" />
  </resources>
  <library>
    <event name="jcdnet">
      <project name="golf &amp; co.mp4">
        <sequence format="r1" duration="145145/30000s" tcStart="0s" tcFormat="DF">
          <spine>
            <asset-clip ref="r2" name="golf driving" offset="0s" start="108037930/30000s" duration="115115/30000s" \
format="r1" tcFormat="DF">
              <marker start="108037930/30000s" duration="1001/30000s" value="golf driving" note="confidence 0.99" />
            </asset-clip>
            <asset-clip ref="r2" name="so-called &quot;golf&quot;" offset="115115/30000s" start="109799690/30000s" \
duration="30030/30000s" format="r1" tcFormat="DF">
              <marker start="109799690/30000s" duration="1001/30000s" value="so-called &quot;golf&quot;" \
note="confidence 0.50" />
            </asset-clip>
          </spine>
        </sequence>
      </project>
    </event>
  </library>
</fcpxml>
""",
    "labelstudio": """[
  {
    "data": {
      "video": "/data/local-files/?d=footage/golf%20%26%20co.mp4",
      "source": "/footage/golf & co.mp4",
      "fps": 29.97002997002997,
      "rate": "30000/1001"
    },
    "meta": {
      "config": "<View><Video name=\\"video\\" value=\\"$video\\" frameRate=\\"$fps\\" timelineHeight=\\"120\\"/>\
<TimelineLabels name=\\"actions\\" toName=\\"video\\"><Label value=\\"golf driving\\"/>\
<Label value='so-called \\"golf\\"'/></TimelineLabels></View>"
    },
    "predictions": [
      {
        "model_version": "jcdnet",
        "result": [
          {
            "id": "segment-1",
            "from_name": "actions",
            "to_name": "video",
            "type": "timelinelabels",
            "score": 0.9877,
            "value": {
              "ranges": [
                {
                  "start": 39,
                  "end": 153
                }
              ],
              "timelinelabels": [
                "golf driving"
              ]
            }
          },
          {
            "id": "segment-2",
            "from_name": "actions",
            "to_name": "video",
            "type": "timelinelabels",
            "score": 0.5,
            "value": {
              "ranges": [
                {
                  "start": 1799,
                  "end": 1828
                }
              ],
              "timelinelabels": [
                "so-called \\"golf\\""
              ]
            }
          }
        ]
      }
    ]
  }
]
""",
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden(name: str) -> None:
    assert written(name, SHORT) == GOLDEN[name]


def test_elan_golden() -> None:
    text = written("elan", SHORT)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT AUTHOR="jcdnet"')
    for line in (
        '<MEDIA_DESCRIPTOR MEDIA_URL="file:///footage/golf%20%26%20co.mp4" MIME_TYPE="video/mp4" />',
        '<TIER TIER_ID="golf driving" LINGUISTIC_TYPE_REF="default-lt">',
        '<ANNOTATION_VALUE>so-called "golf"</ANNOTATION_VALUE>',
    ):
        assert text.count(line) == 1
    assert re.findall(r'TIME_VALUE="(\d+)"', text) == ["1280", "5120", "60000", "61000"]
    assert text == written("elan", SHORT)


def test_every_format_has_a_suffix_of_its_own() -> None:
    assert [*WRITERS, *VIEWS] == list(SUFFIXES)
    assert len(set(SUFFIXES.values())) == len(SUFFIXES)


def test_every_format_takes_a_result_without_a_segment() -> None:
    empty = Result("street.mp4", 10.0, {"rate": "25"}, (), (), {})
    for name in WRITERS:
        written(name, empty)
    assert otio.adapters.read_from_string(written("edl", empty), "cmx_3600", rate=25).name == "street.mp4"
    assert written("chapters", empty) == "0:00 Start\n"


@pytest.mark.parametrize("name", FRAMES)
def test_what_counts_frames_needs_their_rate(name: str) -> None:
    with pytest.raises(ResultError, match="has no frame rate"):
        written(name, Result("v.mp4", 1.0, {}, (), (), {}))


# --- read back by others ---


@pytest.mark.parametrize("rate", RATES)
def test_edl_through_opentimelineio(rate: str) -> None:
    what, fps = result(rate), Fraction(rate)
    timeline = otio.adapters.read_from_string(written("edl", what), "cmx_3600", rate=float(fps))
    (track,) = timeline.tracks
    clips = list(track)
    assert len(clips) == len(what.segments) and timeline.name == Path(what.video).name
    at = 0
    for clip, s in zip(clips, what.segments, strict=True):
        first, length = clip.source_range.start_time.to_frames(), clip.source_range.duration.to_frames()
        assert abs(first / fps - Fraction(s.start)) <= Fraction(1, 2) / fps
        assert abs((first + length) / fps - Fraction(s.end)) <= Fraction(1, 2) / fps
        assert track.range_of_child(clip).start_time.to_frames() == at  # one behind the other, or OTIO adds gaps
        at += length
        assert clip.name == Path(what.video).name
        assert list(clip.metadata["cmx_3600"]["comments"]) == [f"COMMENT: {plain(s.label)} {s.confidence:.2f}"]


def test_edl_counts_from_the_time_code_of_the_video_across_midnight() -> None:
    what = Result("v.mp4", 20.0, {"rate": "25", "start_timecode": "23:59:55:00"}, (Segment(4, 6, 0, 1, "a"),), (), {})
    assert " 23:59:59:00 00:00:01:00 01:00:00:00 01:00:02:00\n" in written("edl", what)


def rational(text: str) -> Fraction:
    assert re.fullmatch(r"\d+(/\d+)?s", text)
    return Fraction(text.removesuffix("s"))


@pytest.mark.parametrize("rate", RATES)
def test_fcpxml_holds_whole_frames(rate: str) -> None:
    what, fps = result(rate), Fraction(rate)
    root = ET.fromstring(written("fcpxml", what))
    assert rational(root.find(".//format").get("frameDuration")) == 1 / fps
    at = Fraction(0)
    clips = root.findall(".//asset-clip")
    for clip, s in zip(clips, what.segments, strict=True):
        start, length = rational(clip.get("start")), rational(clip.get("duration"))
        assert (start * fps).denominator == (length * fps).denominator == 1
        assert abs(start - Fraction(s.start)) <= Fraction(1, 2) / fps
        assert abs(start + length - Fraction(s.end)) <= Fraction(1, 2) / fps
        assert rational(clip.get("offset")) == at and clip.get("name") == plain(s.label)
        at += length
    assert rational(root.find(".//sequence").get("duration")) == at
    assert Path(unquote(urlparse(root.find(".//asset").get("src")).path)) == Path(what.video)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start_timecode", [None, "01:00:00:00"])
def test_fcpxml_through_a_reader_of_fractions(rate: str, start_timecode: str | None, tmp_path: Path) -> None:
    """fcp-mcp-server's parser: the frames it counts are the nearest to each segment's bounds."""
    what, fps = result(rate), Fraction(rate)
    what = replace(what, media=what.media | {"start_timecode": start_timecode})
    project = FCPXMLParser().parse_file(str(saved("fcpxml", what, tmp_path)))
    (timeline,) = project.timelines
    assert timeline.frame_rate == pytest.approx(float(fps), rel=1e-9)
    hour = 0 if start_timecode is None else 3600 * round(fps)  # non-drop: the clock counts whole frames
    begins = Fraction(0)
    for clip, s in zip(timeline.clips, what.segments, strict=True):
        first, behind = round(Fraction(s.start) * fps), round(Fraction(s.end) * fps)
        assert (clip.source_start.frames - hour, clip.duration.frames) == (first, behind - first)
        assert clip.start.frames == begins and clip.name == plain(s.label)
        assert abs((clip.source_start.frames - hour) / fps - Fraction(s.start)) <= Fraction(1, 2) / fps
        assert Path(unquote(urlparse(clip.media_path).path)) == Path(what.video)
        assert [marker.name for marker in clip.markers] == [plain(s.label)]
        begins += clip.duration.frames


@pytest.mark.parametrize("rate", RATES)
def test_fcpxml_through_opentimelineio(rate: str) -> None:
    """Its adapter counts 29.97 as 29 frames a second, and cuts off: its times are exact to one of those."""
    what = result(rate)
    collection = otio.adapters.read_from_string(written("fcpxml", what), "fcpx_xml")
    (timeline,) = collection
    clips = [clip for clip in timeline.find_clips()]
    assert [clip.name for clip in clips] == [plain(s.label) for s in what.segments]
    for clip, s in zip(clips, what.segments, strict=True):
        theirs = clip.source_range.start_time.rate
        assert theirs == int(Fraction(rate))
        assert clip.source_range.start_time.to_seconds() == pytest.approx(s.start, abs=1.6 / theirs)
        assert clip.source_range.duration.to_seconds() == pytest.approx(s.end - s.start, abs=2.1 / theirs)
        assert clip.media_reference.target_url == Path(what.video).as_uri()
        assert [marker.name for marker in clip.markers] == [plain(s.label)]


def test_elan_through_pympi(tmp_path: Path) -> None:
    what = result()
    path = saved("elan", what, tmp_path)
    eaf = Eaf(path)
    assert sorted(eaf.get_tier_names()) == sorted({plain(s.label) for s in what.segments})
    for s in what.segments:
        assert [tuple(a[:3]) for a in eaf.get_annotation_data_for_tier(plain(s.label))] == [
            (round(s.start * 1000), round(s.end * 1000), plain(s.label))
        ]
    (back,) = read_elan(path)
    assert Path(back.video) == Path(what.video)
    assert back.spans == tuple(Span(round(s.start, 3), round(s.end, 3), plain(s.label)) for s in what.segments)


def test_elan_gives_overlapping_segments_of_a_class_tiers_of_their_own(tmp_path: Path) -> None:
    spans = [(0, 10), (2, 5), (4, 8), (5, 7), (10, 12)]
    what = Result("v.mp4", 20.0, {}, tuple(Segment(s, e, 0, 1, "a") for s, e in spans), (), {})
    path = saved("elan", what, tmp_path)
    tiers = {t: [a[:2] for a in sorted(Eaf(path).get_annotation_data_for_tier(t))] for t in Eaf(path).get_tier_names()}
    assert tiers == {"a": [(0, 10000), (10000, 12000)], "a (2)": [(2000, 5000), (5000, 7000)], "a (3)": [(4000, 8000)]}
    assert {span.label for span in read_elan(path)[0].spans} == {"a"}


def test_elan_tiers_of_classes_that_are_called_like_further_tiers(tmp_path: Path) -> None:
    spans = [(0, 10, "a"), (2, 5, "a"), (3, 6, "a (2)"), (4, 8, "a (2)"), (1, 3, "a (2) (2)")]
    what = Result("v.mp4", 20.0, {}, tuple(Segment(s, e, 0, 1, label) for s, e, label in spans), (), {})
    (back,) = read_elan(saved("elan", what, tmp_path))
    assert back.spans == tuple(sorted((Span(*span) for span in spans), key=lambda s: (s.start, s.end)))


def test_sportscode_through_kloppy(tmp_path: Path) -> None:
    what = result()
    path = saved("sportscode", what, tmp_path)
    codes = kloppy_sportscode.load(str(path)).codes
    for code, s in zip(codes, what.segments, strict=True):
        assert code.code == plain(s.label)
        assert code.timestamp == timedelta(milliseconds=round(s.start * 1000))
        assert code.end_timestamp == timedelta(milliseconds=round(s.end * 1000))
        assert code.labels == {"confidence": pytest.approx(s.confidence, abs=0.006)}
    assert read_sportscode(path) == [
        Annotated("match", tuple(Span(round(s.start, 3), round(s.end, 3), plain(s.label)) for s in what.segments))
    ]


def test_srt_through_srt() -> None:
    what = result()
    cues = list(srt.parse(written("srt", what), ignore_errors=False))
    for cue, s in zip(cues, what.segments, strict=True):
        assert cue.start == timedelta(milliseconds=round(s.start * 1000))
        assert cue.end == timedelta(milliseconds=round(s.end * 1000))
        assert cue.content == f"{plain(s.label).replace('-->', '→')} {s.confidence:.2f}"


def test_vtt_through_webvtt() -> None:
    what = result()
    cues = webvtt.from_string(written("vtt", what))
    for cue, s in zip(cues, what.segments, strict=True):
        assert seconds(cue.start) == pytest.approx(s.start, abs=0.00051)
        assert seconds(cue.end) == pytest.approx(s.end, abs=0.00051)
        # It hands out the text as it stands, escapes and all.
        assert unescape(cue.text) == f"{plain(s.label).replace('-->', '→')} {s.confidence:.2f}"
        assert "<" not in cue.text


@pytest.mark.parametrize("rate", RATES)
def test_label_studio_read_back(rate: str, tmp_path: Path) -> None:
    what, fps = result(rate), Fraction(rate)
    tasks = json.loads(written("labelstudio", what))
    (prediction,) = tasks[0].pop("predictions")
    tasks[0]["annotations"] = [{"result": prediction["result"], "was_cancelled": False}]  # what submitting makes of it
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    (back,) = read_labelstudio(path)
    assert back.video == what.video
    for span, s in zip(back.spans, what.segments, strict=True):
        assert abs(span.start - s.start) <= 0.5 / fps + 1e-9 and abs(span.end - s.end) <= 0.5 / fps + 1e-9
        assert span.label == s.label.strip()
    interface = ET.fromstring(tasks[0]["meta"]["config"])
    assert sorted(x.get("value") for x in interface.iter("Label")) == sorted(plain(s.label) for s in what.segments)


def test_activitynet_is_read_as_the_result_itself(tmp_path: Path) -> None:
    for rule in ("runs", "paper"):
        what = result()
        what.provenance["localize"]["rule"] = rule
        path = saved("activitynet", what, tmp_path)
        saved("json", what, tmp_path)
        theirs, ours = read_predictions([path]).actions[what.video], from_results([what]).actions[what.video]
        assert sorted(map(repr, theirs)) == sorted(map(repr, ours))
        assert list(read_predictions([tmp_path]).actions) == [what.video]  # the folder holds it twice, and counts once


def test_only_results_are_results() -> None:
    assert is_result(Path("out/clip.v2.json"))
    for name in ("_run.json", ".hidden.json", "a.activitynet.json", "a.labelstudio.json", "a.srt", "a.chapters.txt"):
        assert not is_result(Path(name))


def test_chapters() -> None:
    spans = [(12, 20, "serve"), (15, 18, "net"), (30, 40, "serve"), (50.9, 60, "net"), (3700, 3710, "serve")]
    what = Result("v.mp4", 3705.0, {}, tuple(Segment(s, e, 0, 1, n) for s, e, n in spans), (), {})
    assert written("chapters", what) == "0:00 Start\n0:12 serve\n0:50 net\n"
    longer = Result("v.mp4", 4000.0, {}, what.segments, (), {})
    assert written("chapters", longer).splitlines()[-1] == "1:01:40 serve"


def test_chapters_that_leave_actions_out_say_which() -> None:
    """An action that begins within 10 s of a chapter has none; the first chapter is `Start`, unless one begins at 0."""
    spans = [(4, 8, "serve"), (12, 20, "serve"), (15, 18, "net"), (30, 33, "net"), (96, 99, "serve")]
    what = Result("v.mp4", 100.0, {}, tuple(Segment(s, e, 0, 1, n) for s, e, n in spans), (), {})
    assert written("chapters", what) == "0:00 Start\n0:12 serve\n0:30 net\n"
    assert [s.start for s in left_out(what)] == [4, 15, 96]
    (said,) = remarks(["chapters"], what)
    assert said.startswith("v.mp4: 3 of 5 actions have no chapter, since each needs 10 s") and "net at 0:15.00" in said
    begins = Result("v.mp4", 100.0, {}, (Segment(0.4, 9, 0, 1, "serve"), Segment(40, 50, 0, 1, "net")), (), {})
    assert written("chapters", begins) == "0:00 serve\n0:40 net\n" and remarks(["chapters"], begins) == []


@pytest.mark.parametrize(("channels", "tracks"), [(1, {"Audio": 1}), (2, {"Audio": 2})])
def test_sound_where_the_source_has_it(channels: int, tracks: dict[str, int]) -> None:
    what = result()
    what.media["audio"] = {"channels": channels, "rate": 44100}
    timeline = otio.adapters.read_from_string(written("edl", what), "cmx_3600", rate=30000 / 1001)
    assert Counter(track.kind for track in timeline.tracks) == {"Video": 1} | tracks
    first = [next(iter(track.find_clips())).trimmed_range() for track in timeline.tracks]
    assert len({str(span) for span in first}) == 1  # sound and picture of one place
    root = ET.fromstring(written("fcpxml", what))
    (asset,), (sequence,) = root.iter("asset"), root.iter("sequence")
    assert (asset.get("hasAudio"), asset.get("audioChannels"), asset.get("audioRate")) == ("1", str(channels), "44100")
    assert sequence.get("audioLayout") == ("mono" if channels == 1 else "stereo")
    assert {clip.get("audioRole") for clip in root.iter("asset-clip")} == {"dialogue"}


def test_120_frames_a_second_in_an_edl_count_as_60() -> None:
    """CMX 3600 has two digits for frames: of f120.mp4 it was `00:00:02:118` once."""
    media = {"width": 384, "height": 256, "rate": "120", "start_timecode": None}
    what = Result(
        "f120.mp4", 5.12, media, (Segment(0, 2.5, 0, 0.9, "badminton"), Segment(2.56, 5.12, 0, 0.9, "golf")), (), {}
    )
    timeline = otio.adapters.read_from_string(written("edl", what), "cmx_3600", rate=60)
    spans = [clip.trimmed_range() for clip in timeline.find_clips()]
    assert [(s.start_time.to_seconds(), s.duration.to_seconds()) for s in spans] == [
        (0, 2.5),
        (pytest.approx(2.56, abs=1 / 60), pytest.approx(2.56, abs=1 / 60)),
    ]
    assert "* COMMENT: 120 frames a second, counted as 60" in written("edl", what)
    (said,) = remarks(["edl"], what)
    assert said.startswith("f120.mp4: has 120 frames a second; the EDL counts 60")
    assert 'frameDuration="1/120s"' in written("fcpxml", what)  # which has no digits to run out of


def test_the_clock_of_a_container_is_no_frame_rate() -> None:
    what = Result("rec.webm", 5.12, {"rate": "1000"}, (Segment(0, 2.5, 0, 0.9, "golf"),), (), {})
    for name in FRAMES:
        with pytest.raises(ResultError, match="1000 frames a second, which is the clock of its file"):
            written(name, what)


@pytest.mark.parametrize(
    ("rate", "counted"),
    [("25", "25"), ("60", "60"), ("90", "90"), ("100", "50"), ("120", "60"), ("144", "48"), ("240", "60"),
     ("480", "60"), ("120000/1001", "60000/1001")],
)  # fmt: skip
def test_what_time_code_counts(rate: str, counted: str) -> None:
    assert counted_rate(Fraction(rate)) == Fraction(counted)


def test_paths_are_normal_and_below_the_document_root(tmp_path: Path) -> None:
    what = result(video="../footage/./a b.mp4")
    assert f'src="{(Path.cwd().parent / "footage" / "a b.mp4").as_uri()}"' in written("fcpxml", what)
    below = result(video=str(tmp_path / "day" / ".." / "media" / "a b.mp4"))
    below.media["document_root"] = str(tmp_path)
    assert json.loads(written("labelstudio", below))[0]["data"]["video"] == "/data/local-files/?d=media/a%20b.mp4"
    below.media["document_root"] = str(tmp_path / "other")
    with pytest.raises(ResultError, match="is not below the document root"):
        written("labelstudio", below)


text = st.text(max_size=12)  # surrogates and control characters among them
segment = st.builds(
    lambda start, length, p, label: Segment(start, start + length, p, p, label),
    st.floats(0, 80_000),
    st.floats(0, 900),
    st.floats(0, 1),
    text,
)


@patient
@given(st.lists(segment, max_size=4), text, st.sampled_from(RATES))
def test_whatever_the_names_every_file_is_well_formed(segments: list[Segment], name: str, rate: str) -> None:
    what = Result("/" + name.replace("\0", ""), 90_000.0, {"rate": rate}, tuple(segments), (), {})
    for form in WRITERS:
        content = written(form, what)
        content.encode("utf-8")
        if form in ("fcpxml", "elan", "sportscode"):
            ET.fromstring(content.encode("utf-8"))
        elif form in ("activitynet", "labelstudio"):
            json.loads(content)
        elif form == "edl":
            events = [line for line in content.split("\n") if re.match(r"\d", line)]
            assert len(events) == len(segments)
            assert all(re.match(r"\d|\*|TITLE|FCM|$", line) for line in content.split("\n"))


# --- what people send ---


@pytest.mark.parametrize(
    ("reader", "content", "says"),
    [
        (read_sportscode, "not xml", "is not XML"),
        (read_sportscode, "<file/>", "has no ALL_INSTANCES"),
        (read_sportscode, "<file><ALL_INSTANCES><instance/></ALL_INSTANCES></file>", "instance 1 has no start and end"),
        (
            read_sportscode,
            "<file><ALL_INSTANCES><instance><start>5</start><end>3</end><code>a</code></instance></ALL_INSTANCES></file>",
            "annotation 1 lasts from 5 to 3 s",
        ),
        (
            read_sportscode,
            "<file><ALL_INSTANCES><instance><start>1</start><end>3</end></instance></ALL_INSTANCES></file>",
            "has no label",
        ),
        (read_elan, "not xml", "is not an ELAN file"),
        (read_elan, "<ANNOTATION_DOCUMENT/>", "is not an ELAN file"),
        (read_labelstudio, "{", "is not JSON"),
        (read_labelstudio, "[]", "no task has a submitted annotation"),
        (read_labelstudio, '[{"data": {}, "predictions": [{"result": []}]}]', "a program's predictions alone"),
        (read_labelstudio, "{}", "a list of tasks, and this is an object with nothing"),
        (read_labelstudio, "[1]", "a list of tasks, and this is a list of something else"),
        (read_labelstudio, "3", "a list of tasks, and this is a number"),
        (read_labelstudio, "null", "a list of tasks, and this is None"),
        (
            read_labelstudio,
            '{"images": [], "annotations": [], "categories": []}',  # COCO
            "this is an object with images, annotations, categories; export as JSON from Label Studio",
        ),
        (read_labelstudio, '{"schema": 1, "video": "v", "segments": []}', "an object with schema, video, segments;"),
        (read_labelstudio, '[{"image": 3}]', "whose tasks have `data`, and these have image;"),
        (read_labelstudio, '[{"data": {"video": "v"}, "annotations": [7]}]', "its annotations are not in the file"),
        (read_labelstudio, '[{"data": {"video": "v"}, "annotations": [{"result": [{}]}]}]', "has no text 'type'"),
        (read_labelstudio, '[{"data": {}, "annotations": [{"result": []}]}]', "task 1: has no text 'video'"),
        (
            read_labelstudio,
            '[{"data": {"video": "v"}, "annotations": [{"result": [{"type": "labels", '
            '"value": {"start": "soon", "end": 2, "labels": ["a"]}}]}]}]',
            "the start of a region must be a number, not 'soon'",
        ),
        (
            read_labelstudio,
            '[{"id": 7, "video": "v", "tricks": "none", "annotator": 1, "annotation_id": 2, "lead_time": 3.5}]',
            "is Label Studio's JSON-MIN export",
        ),
        (
            read_labelstudio,
            '[{"data": {"video": "v"}, "annotations": [{"result": [{"type": "timelinelabels", '
            '"value": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["a"]}}]}]}]',
            "counts frames but says no rate",
        ),
    ],
)
def test_what_cannot_be_read_is_one_sentence(reader: object, content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(ExchangeError, match=re.escape(says)) as caught:
        reader(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(ExchangeError, match="check the path"):
        reader(tmp_path / "missing")


def test_label_studio_in_seconds_the_last_annotation_and_uploads(tmp_path: Path) -> None:
    def region(start: float, label: str) -> dict[str, object]:
        return {"type": "labels", "value": {"start": start, "end": start + 1.5, "labels": [label]}}

    tasks = [
        {
            "data": {"video": "/data/upload/1/3f2a9c1b-my%20game.mp4"},
            "annotations": [
                {"updated_at": "2026-01-02", "result": [region(2, "new"), {"type": "rating", "value": {"rating": 4}}]},
                {"updated_at": "2026-01-01", "result": [region(1, "old")]},
                {"updated_at": "2026-01-03", "was_cancelled": True, "result": [region(3, "skipped")]},
            ],
        },
        {"data": {"video": "unreviewed.mp4"}, "predictions": [{"result": [region(1, "ours")]}]},
        {"data": {"video": "empty.mp4"}, "annotations": [{"result": []}]},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    assert read_labelstudio(path) == [
        Annotated("/data/upload/1/my game.mp4", (Span(2.0, 3.5, "new"),)),
        Annotated("empty.mp4", ()),
    ]

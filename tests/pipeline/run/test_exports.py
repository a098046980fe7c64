"""`export`, and what the writers get from the video itself: its sound, and a frame rate that an editor knows."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import opentimelineio as otio
import pytest
from conftest import coded, encode

from pipeline.clips.choose import labels_meant
from pipeline.clips.medium import counted, heard
from postprocess.segment import UNSURE, Result, Segment
from support.errors import UsageError

Run = Callable[..., tuple[int, str, str]]


def stored(folder: Path, video: Path, rate: str = "25", duration: float = 3.0) -> Path:
    media = {"width": 72, "height": 48, "rate": rate, "start_timecode": None}
    segments = (
        Segment(0.2, 0.8, 0, 0.9, "serve"),
        Segment(1.0, 2.0, 0, 0.5, "net"),
        Segment(2.5, 3.0, 0, 0.8, "Serve"),
    )
    folder.mkdir(exist_ok=True)
    path = folder / f"{video.stem}.json"
    path.write_text(json.dumps(Result(str(video), duration, media, segments, (), {}).to_dict()))
    return path


def cuts(path: Path, rate: float = 25) -> list[tuple[str, float, float]]:
    timeline = otio.adapters.read_from_file(str(path), "cmx_3600", rate=rate)
    spans = [clip.trimmed_range() for clip in timeline.video_tracks()[0].find_clips()]
    return [(str(len(timeline.audio_tracks())), s.start_time.to_seconds(), s.duration.to_seconds()) for s in spans]


def test_margins_sound_and_a_choice_of_actions(jcdnet: Run, tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", [coded(k) for k in range(75)], sound=3.0)
    result = stored(tmp_path / "results", video)
    before = result.read_bytes()
    code, printed, said = jcdnet("export", tmp_path / "results", "-f", "edl,fcpxml,chapters", "--pad", "0:00.4",
                                 "--classes", "SERVE")  # fmt: skip
    assert code == 0 and [Path(line).name for line in printed.split()] == ["a.edl", "a.fcpxml", "a.chapters.txt"]
    near = pytest.approx
    assert cuts(result.with_suffix(".edl")) == [("2", 0.0, near(1.2)), ("2", near(2.12), near(0.88))]
    root = ET.parse(result.with_suffix(".fcpxml")).getroot()
    assert [clip.get("name") for clip in root.iter("asset-clip")] == ["serve", "Serve"]
    assert root.find(".//asset").get("hasAudio") == "1"  # type: ignore[union-attr]
    assert "2 of 2 actions have no chapter" not in said and "1 of 2 actions have no chapter" in said
    assert result.read_bytes() == before
    code, _, said = jcdnet("export", result, "-f", "edl")
    assert code == 3 and "a.edl: is there already; use --overwrite" in said
    code, printed, said = jcdnet("export", tmp_path / "results", "-f", "edl,fcpxml,srt")  # one sentence for both files
    assert code == 3 and [Path(line).name for line in printed.split()] == ["a.srt"]
    assert said.count("--overwrite") == 1 and "each of 2 files" in said
    code, _, _ = jcdnet("export", result, "-f", "edl", "--overwrite", "--min-confidence", 0.9, "--after", 0.4)
    assert code == 0 and cuts(result.with_suffix(".edl")) == [("2", 0.2, pytest.approx(1.0))]
    video.unlink()  # then nobody knows whether there is sound
    assert jcdnet("export", result, "-f", "edl", "-o", tmp_path / "other")[0] == 0
    assert {tracks for tracks, _, _ in cuts(tmp_path / "other" / "a.edl")} == {"0"}


def test_actions_are_chosen_by_the_names_that_the_table_shows() -> None:
    segments = (
        Segment(0.2, 0.8, 0, 0.9, "squat", "weightlifting"),
        Segment(1.0, 2.0, 0, 0.5, "deadlifting", "weightlifting"),
        Segment(2.5, 3.0, 0, 0.8, "golf driving", "golf"),
        Segment(3.5, 4.0, 0, 0.3, "archery", UNSURE),
    )
    results = [Result("a.mp4", 5.0, {}, segments, (), {})]
    assert segments[0].name == "weightlifting: squat" and segments[3].name == "archery? (sport not sure)"
    for shown in (s.name for s in segments):
        assert (
            labels_meant(shown, results)
            == labels_meant(shown.upper(), results)
            == {shown.split(": ")[-1].split("?")[0]}
        )
    assert labels_meant("Weightlifting: Squat, golf: golf driving", results) == {"squat", "golf driving"}
    with pytest.raises(UsageError, match="no segment is called golf: squat; did you mean 'squat'"):
        labels_meant("golf: squat", results)
    mine = Segment(0, 1, 0, 0.9, "golf: squat")  # a person's own label has the first word
    assert labels_meant("golf: squat", [*results, Result("b.mp4", 5.0, {}, (mine,), (), {})]) == {"golf: squat"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("-f", "avro"), "unknown format 'avro'; there are: csv, srt"),
        (("-f", "Premiere"), "-f Premiere: this is a program; choose the format that it reads: edl."),
        (("-f", "html"), "`report` makes pages"),
        (("-f", "srt", "--pad", "1"), "are for edl and fcpxml"),
        (("-f", "edl", "--document-root", "/data"), "--document-root is for labelstudio"),
        (("-f", "labelstudio", "--document-root", "/nowhere"), "is not below the document root"),
        (("-f", "edl", "-o", "x.edl"), "name a folder"),
        (("-f", "edl", "--classes", "golf"), "no segment is called golf"),
    ],
)
def test_what_export_refuses(jcdnet: Run, tmp_path: Path, given: tuple[str, ...], says: str) -> None:
    result = stored(tmp_path / "results", tmp_path / "a.mp4")
    code, _, said = jcdnet("export", result, *given)
    assert code in (2, 3) and says in said and list((tmp_path / "results").iterdir()) == [result]


def test_label_studio_finds_the_video_below_its_root(jcdnet: Run, tmp_path: Path) -> None:
    video = encode(tmp_path / "a b.mp4", [coded(k) for k in range(5)])
    result = stored(tmp_path / "results", video)
    assert jcdnet("export", result, "-f", "labelstudio", "--document-root", tmp_path.parent)[0] == 0
    (task,) = json.loads((tmp_path / "results" / "a b.labelstudio.json").read_text())
    assert task["data"]["video"] == f"/data/local-files/?d={tmp_path.name}/a%20b.mp4"


def test_a_browsers_recording_gets_a_rate_that_editors_know(jcdnet: Run, cases: Path, tmp_path: Path) -> None:
    """rec.webm: WebM's clock of milliseconds stands where a rate should be, and about 25 frames a second are there."""
    assert counted(cases / "rec.webm") == 25 and heard(cases / "rec.webm") is None
    result = stored(tmp_path / "results", cases / "rec.webm", "1000", 5.12)
    code, _, said = jcdnet("export", result, "-f", "edl,fcpxml,labelstudio")
    assert code == 0, said
    assert cuts(result.with_suffix(".edl"))[1][1:] == (1.0, 1.0)
    assert 'frameDuration="1/25s"' in result.with_suffix(".fcpxml").read_text()
    (task,) = json.loads(result.with_suffix(".labelstudio.json").read_text())
    assert task["data"]["rate"] == "25"


def test_120_frames_a_second(jcdnet: Run, cases: Path, tmp_path: Path) -> None:
    result = stored(tmp_path / "results", cases / "f120.mp4", "120", 5.12)
    code, _, said = jcdnet("export", result, "-f", "edl")
    assert code == 0 and "note: " in said and "has 120 frames a second; the EDL counts 60" in said
    assert [spans[1:] for spans in cuts(result.with_suffix(".edl"), 60)][1] == (1.0, 1.0)

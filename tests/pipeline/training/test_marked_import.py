"""`labels import --from jcdnet`: a folder of corrections becomes labels, times and ground truth."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.training.corrections import marked_before, read_corrections
from pipeline.training.labels import load_labels
from pipeline.training.times import read_times
from postprocess.evaluation.annotations import read_ground_truth
from postprocess.segment import Result
from support.errors import UsageError

Run = Callable[..., tuple[int, str, str]]
Marks = tuple[float, float | None, str]


def saved(folder: Path, name: str, video: str, *spans: Marks, complete: bool = False, at: int = 1) -> Path:
    segments = [{"start": a, "end": b, "label": label, "origin": "added"} for a, b, label in spans]
    document = {
        "corrections": 1, "video": video, "content": None, "duration": 20.0, "saved": f"2026-01-{at:02}T00:00:00.000Z",
        "complete": complete, "segments": segments, "rejected": [],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    for name in ("day 1/a.mp4", "day 2/a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        (tmp_path / "footage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "footage" / name).touch()
    return tmp_path / "footage"


def test_a_folder_of_corrections_becomes_all_three_files(footage: Path, tmp_path: Path, jcdnet: Run) -> None:
    marks = tmp_path / "downloads"
    saved(marks, "a.corrections", str(footage / "day 1" / "a.mp4"), (1.0, 2.5, "serve"), (4.0, None, "net"))
    saved(marks, "a.corrections (1)", "C:\\footage\\day 2\\a.mp4", (3.0, 3.5, "serve"), complete=True)
    saved(marks / "more", "b.corrections", "/elsewhere/b.mp4", complete=True)
    saved(marks, "c.corrections", "c.mp4")
    (marks / "notes.json").write_text("{}")  # not ours
    labels, times, truth = (tmp_path / name for name in ("labels.csv", "times.csv", "truth.json"))
    arguments = ("labels", "import", marks, "--from", "jcdnet", "--videos", footage, "-o", labels, "--times", times)
    code, out, said = jcdnet(*arguments, "--ground-truth", truth)
    assert code == 0 and out == "" and "4 videos, 3 segments" in said
    assert "c.mp4: nothing is marked in it and it is not called complete" in said
    assert "day 1/a.mp4: 1 mark has no end, so that the ground truth leaves it out" in said
    assert times.read_text().splitlines() == [
        "video,start,end,label,complete",
        "b.mp4,,,,yes",
        "day 1/a.mp4,1.000,2.500,serve,no",
        "day 1/a.mp4,4.000,,net,no",
        "day 2/a.mp4,3.000,3.500,serve,yes",
    ]
    assert sorted((row.video, row.labels) for row in load_labels(labels)[0]) == [
        ("b.mp4", ()), ("day 1/a.mp4", ("serve", "net")), ("day 2/a.mp4", ("serve",)),
    ]  # fmt: skip
    read = read_times(times)
    assert read.problems == () and {v: (len(of.marks), of.complete) for v, of in read.videos.items()} == {
        "b.mp4": (0, True), "day 1/a.mp4": (2, False), "day 2/a.mp4": (1, True),
    }  # fmt: skip
    database = json.loads(truth.read_text())["database"]
    assert {v: entry["complete"] for v, entry in database.items()} == {v: of.complete for v, of in read.videos.items()}
    assert [len(v.actions) for v in read_ground_truth(truth).values()] == [0, 1, 1]
    code, _, said = jcdnet(*arguments)
    assert code == 2 and "--overwrite" in said


def test_of_several_corrections_of_a_video_the_last_counts(footage: Path, tmp_path: Path) -> None:
    marks = tmp_path / "downloads"
    saved(marks, "b.corrections", "/f/b.mp4", (5.0, 6.0, "late"), at=3)
    saved(marks, "b.corrections (1)", "/f/b.mp4", (1.0, 2.0, "early"), at=2)
    (found,) = read_corrections([marks], "jcdnet", footage)
    assert [s.label for s in found.spans] == ["late"]
    assert any("b.corrections (1).json" in note and "these count" in note for note in found.notes)


def test_all_that_is_wrong_with_all_files_is_said_at_once(tmp_path: Path, jcdnet: Run) -> None:
    marks = tmp_path / "downloads"
    saved(marks, "a.corrections", "a.mp4", (2.0, 1.0, "serve"), (3.0, 30.0, "net"))
    saved(marks, "b.corrections", "..", (2.0, 3.0, "a|b"))
    (marks / "c.corrections.json").write_text("{")
    code, out, said = jcdnet("labels", "import", marks, "--from", "jcdnet", "-o", tmp_path / "l.csv")
    assert code == 2 and out == "" and not (tmp_path / "l.csv").exists()
    for part in ("a.corrections.json: segments 1 lasts from 2 to 1 s; segments 2 ends at 30 s", "names no video",
                 "has the label 'a|b'", "c.corrections.json: is not JSON"):  # fmt: skip
        assert part in said


def test_a_path_in_a_file_is_only_a_name(footage: Path, tmp_path: Path, jcdnet: Run) -> None:
    """It may lead anywhere: it is not opened, and nothing outside of the given folder is taken."""
    secret = tmp_path / "secret.mp4"
    secret.touch()
    for n, path in enumerate((str(secret), "../secret.mp4", "..\\..\\secret.mp4", "/etc/passwd")):
        marks = saved(tmp_path / f"m{n}", "x.corrections", path, (1.0, 2.0, "serve"))
        code, _, said = jcdnet("labels", "import", marks, "--from", "jcdnet", "--videos", footage)
        assert code == 2 and "is not there" in said
        code, out, _ = jcdnet("labels", "import", marks, "--from", "jcdnet")
        assert code == 0 and "/" not in out and "\\" not in out  # without a folder only the name is left


def test_two_videos_of_one_name_are_told_apart_or_refused(footage: Path, tmp_path: Path, jcdnet: Run) -> None:
    marks = tmp_path / "downloads"
    saved(marks, "a.corrections", "footage/day 1/a.mp4", (1.0, 2.0, "serve"))
    saved(marks, "a.corrections (1)", "footage/day 2/a.mp4", (1.0, 2.0, "serve"))
    assert [v.video for v in read_corrections([marks], "jcdnet", footage)] == ["day 1/a.mp4", "day 2/a.mp4"]
    code, _, said = jcdnet("labels", "import", marks, "--from", "jcdnet")
    assert code == 2 and "comes twice" in said and "--videos" in said
    (tmp_path / "empty").mkdir()
    code, _, said = jcdnet("labels", "import", tmp_path / "empty", "--from", "jcdnet")
    assert code == 2 and "no file in it ends in .corrections.json" in said


def test_what_was_marked_before_is_found_by_the_video(tmp_path: Path) -> None:
    def result(video: str) -> Result:
        return Result(video, 20.0, {}, (), (), {})

    saved(tmp_path, "a.corrections", "/f/day 1/a.mp4", (1.0, 2.0, "one"))
    saved(tmp_path, "a.corrections (1)", "/f/day 2/a.mp4", (1.0, 2.0, "two"))
    saved(tmp_path, "b.corrections", "/old/b.mp4", (1.0, 2.0, "b"))
    of = marked_before(tmp_path)
    for video, label in (("/f/day 2/a.mp4", "two"), ("/new/b.mp4", "b")):
        found = of(result(video))
        assert found is not None and found.spans[0].label == label
    assert of(result("/g/a.mp4")) is None and of(result("/f/c.mp4")) is None
    assert marked_before(None)(result("/f/day 2/a.mp4")) is None
    with pytest.raises(UsageError, match="no file in it"):
        marked_before(tmp_path / "nowhere" if (tmp_path / "nowhere").mkdir() is None else None)

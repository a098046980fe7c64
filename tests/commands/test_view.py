"""`report`, `clips`, `plot` and the formats of `run` that show the video, as a user runs them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import coded, encode, number_of

from commands.terminal import result_table
from extractors.backbones import weights
from postprocess.segment import Result, Segment
from support.errors import DiskFull

Run = Callable[..., tuple[int, str, str]]
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """results/ with two videos, of which one has curves, and footage/ with the videos."""
    (tmp_path / "footage").mkdir()
    (tmp_path / "results").mkdir()
    for name, labels in (("a", ("serve", "net")), ("b", ("serve",))):
        video = encode(tmp_path / "footage" / f"{name}.mp4", [coded(k) for k in range(75)])
        segments = tuple(Segment(i + 0.2, i + 0.8, 0.0, 0.9 - 0.5 * i, label) for i, label in enumerate(labels))
        document = Result(str(video), 3.0, {"rate": "25"}, segments, (), {"content": f"sha256:{name}"}).to_dict()
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(document))
    times = np.arange(4)[:, None] * 0.64 + np.array([0.0, 0.64])
    cas = np.zeros((4, 3), np.float32)
    np.savez(
        tmp_path / "results" / "a.scores.npz",
        times=times, actionness=np.ones(4, np.float32), cas=cas, coarse_cas=cas, classes=np.array(["serve", "net"]),
    )  # fmt: skip
    return tmp_path / "results"


def numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_clips_of_a_folder(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    code, said, _ = jcdnet("clips", results, "-o", out, "--before", 0.2, "--after", 0.2)
    assert code == 0
    assert said.split() == [str(out / f"{n}.mp4") for n in ("a_001_serve", "a_002_net", "b_001_serve")]
    assert numbers(out / "a_002_net.mp4") == list(range(25, 50))
    code, _, said = jcdnet("clips", results, "-o", out)
    assert code == 2 and "is there already" in said
    code, said, _ = jcdnet("clips", results, "-o", out, "--overwrite", "--min-confidence", 0.5, "--classes", "serve",
                           "--name", "{label}/{stem}")  # fmt: skip
    assert code == 0 and said.split() == [str(out / "serve" / f"{n}.mp4") for n in "ab"]
    code, said, _ = jcdnet("clips", results, "-o", tmp_path / "reels", "--reel")
    assert code == 0 and sorted(said.split()) == [str(tmp_path / "reels" / f"{n}.mp4") for n in ("net", "serve")]
    code, said, note = jcdnet("clips", results, "-o", tmp_path / "copied", "--copy")
    assert code == 0 and "begin at the keyframe" in note
    assert numbers(tmp_path / "copied" / "a_001_serve.mp4")[0] == 0


def test_clips_of_two_videos_of_one_name(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    for folder, name in (("d1", "a"), ("d2", "b")):
        (results / folder).mkdir()
        (results / f"{name}.json").rename(results / folder / "a.json")
    code, said, _ = jcdnet("clips", results, "-o", tmp_path / "clips", "--classes", "serve")
    assert code == 0
    assert [Path(line).name for line in said.split()] == ["d1_a_001_serve.mp4", "d2_a_001_serve.mp4"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reel", "--copy"), "leave --copy out"),
        (("--reel", "--name", "{index}"), "called as its class"),
        (("--classes", "golf"), "no segment is called golf; there are net, serve"),
        (("--classes", "serv"), "no segment is called serv; did you mean 'serve'? There are net, serve"),
        (("--classes", ", "), "names no class"),
        (("--size", "640x360"), "--size is for reels"),
        (("--reel", "--size", "640"), "write WIDTHxHEIGHT"),
        (("--reel", "--size", "641x360"), "must be even"),
        (("--before", "1:75"), "below 60"),
        (("--pad", "a bit"), "'a bit' is not a time; write seconds (90.5), or a clock"),
        (("--name", "{label}"), "two clips would be called serve.mp4"),
        (("--name", "{player}"), "its fields are"),
    ],
)
def test_what_clips_refuses(jcdnet: Run, results: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    code, _, said = jcdnet("clips", results, "-o", tmp_path / "clips", *arguments)
    assert code == 2 and says in said
    assert not (tmp_path / "clips").exists()


def test_classes_in_any_case_and_by_sport(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    """`--classes Serve`, and `--classes tennis` for results of the embedded model, which names sports."""
    code, said, _ = jcdnet("clips", results, "-o", tmp_path / "any", "--classes", "SERVE")
    assert code == 0 and [Path(line).name for line in said.split()] == ["a_001_serve.mp4", "b_001_serve.mp4"]
    document = json.loads((results / "a.json").read_text())
    document["provenance"]["model"] = {"name": "kinetics400"}
    document["segments"][0]["label"] = "playing tennis"
    (results / "a.json").write_text(json.dumps(document))
    code, said, _ = jcdnet("clips", results, "-o", tmp_path / "sport", "--classes", "Tennis,NET")
    assert code == 0
    assert [Path(line).name for line in said.splitlines()] == ["a_001_playing tennis.mp4", "a_002_net.mp4"]


def test_times_are_seconds_or_clocks(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    for given in (("--pad", "0.2"), ("--before", "0:00.2", "--after", ".2"), ("--before", "0:00:00.2", "--after", 0.2)):
        out = tmp_path / "-".join(map(str, given)).replace("/", "")
        assert jcdnet("clips", results / "a.json", "-o", out, *given, "--classes", "net")[0] == 0
        assert numbers(out / "a_001_net.mp4") == list(range(25, 50))


def test_reels_have_the_most_common_size_or_the_one_that_is_asked_for(
    jcdnet: Run, results: Path, tmp_path: Path
) -> None:
    def size(path: Path) -> tuple[int, int]:
        with av.open(str(path)) as container:
            return container.streams.video[0].width, container.streams.video[0].height

    encode(tmp_path / "footage" / "a.mp4", [coded(k, 96, 64) for k in range(75)])  # the first video is an odd one out
    encode(tmp_path / "footage" / "c.mp4", [coded(k) for k in range(75)])
    document = json.loads((results / "b.json").read_text()) | {"video": str(tmp_path / "footage" / "c.mp4")}
    (results / "c.json").write_text(json.dumps(document))
    assert jcdnet("clips", results, "-o", tmp_path / "reels", "--reel")[0] == 0
    assert size(tmp_path / "reels" / "serve.mp4") == (72, 48)
    assert size(tmp_path / "reels" / "net.mp4") == (64, 96)  # it has a clip of that video alone
    assert jcdnet("clips", results, "-o", tmp_path / "asked", "--reel", "--size", "128x96")[0] == 0
    assert {size(path) for path in (tmp_path / "asked").glob("*.mp4")} == {(128, 96)}


def test_nothing_to_cut_is_no_mistake(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    code, out, said = jcdnet("clips", results, "-o", tmp_path / "clips", "--min-confidence", 1)
    assert code == 0 and out == "" and "nothing to cut" in said


def test_a_video_that_moved(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    (tmp_path / "footage").rename(tmp_path / "archive")
    for command in ("clips", "report", "plot"):
        output = tmp_path / ("out.png" if command == "plot" else "out")
        code, _, said = jcdnet(command, results / "a.json", "-o", output)
        assert code == 3 and "name its folder with --videos" in said
    code, _, _ = jcdnet("clips", results, "-o", tmp_path / "clips", "--videos", tmp_path / "archive")
    assert code == 0


def test_reports_of_one_and_of_a_folder(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    code, out, _ = jcdnet("report", results / "a.json")
    assert code == 0 and out.strip() == str(results / "a.html")
    assert '"link":"../footage/a.mp4"' in (results / "a.html").read_text()
    code, out, said = jcdnet("report", results / "b.json", "-o", tmp_path / "pages", "--embed")
    assert code == 0 and "has no curves" in said
    assert (tmp_path / "pages" / "b.html").stat().st_size > (tmp_path / "footage" / "b.mp4").stat().st_size
    code, out, _ = jcdnet("report", results)
    assert code == 0 and [Path(line).name for line in out.split()] == ["a.html", "b.html", "index.html"]
    (tmp_path / "footage" / "b.mp4").unlink()
    code, out, said = jcdnet("report", results)
    assert code == 3 and "b.mp4 is not there" in said and (results / "index.html").exists()
    code, out, _ = jcdnet("report", results / "a.json", results / "a.json")
    assert code == 0 and out.split() == [str(results / n) for n in ("a.html", "a.html", "index.html")]
    (tmp_path / "empty").mkdir()
    for wrong, says in ((results / "c.json", "no such file"), (tmp_path / "empty", "no result in it")):
        code, _, said = jcdnet("report", wrong)
        assert code == 2 and says in said
    (results / "bad.json").write_text("{}")
    code, _, said = jcdnet("report", results / "bad.json")
    assert code == 3 and "not a result document" in said


def test_plots(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    truth = {"database": {"a": {"annotations": [{"label": "serve", "segment": [0, 1]}]}}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    code, _, _ = jcdnet("plot", results / "a.json", "--ground-truth", tmp_path / "truth.json", "--frames", 3)
    assert code == 0 and (results / "a.png").read_bytes()[:4] == b"\x89PNG"
    code, _, said = jcdnet("plot", results / "b.json", "-o", tmp_path / "b.svg", "--frames", 0)
    assert code == 0 and "has no curves" in said and b"<svg" in (tmp_path / "b.svg").read_bytes()
    for arguments, says in (
        ((results / "a.json", "-o", "a.jpg"), "a PNG or an SVG"),
        ((results, "-o", "a.png"), "there are several results; name a folder"),
        ((results / "b.json", "--ground-truth", tmp_path / "truth.json"), "b.mp4"),
    ):
        code, _, said = jcdnet("plot", *arguments)
        assert code == 2 and says in said
    code, out, said = jcdnet("plot", results, "--frames", 1, "-o", tmp_path / "plots")
    assert code == 0 and out.split() == [str(tmp_path / "plots" / f"{n}.png") for n in "ab"]
    (tmp_path / "footage" / "b.mp4").unlink()
    code, out, said = jcdnet("plot", results, "--frames", 1)  # what can be drawn is drawn
    assert code == 3 and out.split() == [str(results / "a.png")] and "b.mp4 is not there" in said


@needs_weights
def test_run_writes_the_page_and_the_overlay_and_keeps_them(jcdnet: Run, tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    encode(footage / "clip.mkv", [coded(k) for k in range(34)])
    arguments = ("run", footage, "-o", footage / "results", "-f", "json,html,overlay,edl,elan")
    code, _, said = jcdnet(*arguments)
    assert code == 0, said
    made = {p.name for p in (footage / "results").iterdir()}
    assert {"clip.json", "clip.html", "clip.overlay.mp4", "clip.proxy.mp4", "clip.edl", "clip.eaf"} <= made
    assert len(numbers(footage / "results" / "clip.overlay.mp4")) == 34
    page = (footage / "results" / "clip.html").read_text()
    assert '"least":0.0' in page and '"curves":{' in page
    # What it made beside the footage is no footage, and that is said.
    code, out, said = jcdnet(*arguments)
    assert code == 0 and "kept from before" in out and "videos are done" not in said
    assert f"left out 2 videos, such as {footage}/results/clip.overlay.mp4, that jcdnet made; a file that" in said
    code, _, said = jcdnet("run", footage, "-o", "-", "-f", "html")
    assert code == 2 and "html is a file beside the result" in said
    encode(footage / "other.mp4", [coded(k) for k in range(20)])
    code, _, said = jcdnet("run", footage, "-o", "-", "-f", "vtt")
    assert code == 2 and "json, jsonl, csv only" in said
    # Of several videos there is an index.
    assert not (footage / "results" / "index.html").exists()
    code, _, said = jcdnet(*arguments)
    assert code == 0 and "all 2 videos are done (1 " in said and ", 1 there before)" in said
    assert {'href="clip.html#up=0"', 'href="other.html#up=0"'} <= set(
        re.findall('href="[^"]*"', (footage / "results" / "index.html").read_text())
    )


@pytest.fixture
def troubled(results: Path, tmp_path: Path) -> Path:
    """results/ of two good videos, one of noise, one that is gone, and a damaged document."""
    for name in ("noise", "gone"):
        document = json.loads((results / "b.json").read_text())
        document["video"] = str(tmp_path / "footage" / f"{name}.mp4")
        document["segments"] *= 2 if name == "noise" else 1
        (results / f"{name}.json").write_text(json.dumps(document))
    (tmp_path / "footage" / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (results / "torn.json").write_text((results / "a.json").read_text()[:50])
    return results


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), {"a_001_serve.mp4", "a_002_net.mp4", "b_001_serve.mp4"}),
        (("--copy",), {"a_001_serve.mp4", "a_002_net.mp4", "b_001_serve.mp4"}),
        (("--reel",), {"net.mp4", "serve.mp4"}),
    ],
)
def test_one_failing_video_costs_its_own_clips_alone(
    jcdnet: Run, troubled: Path, tmp_path: Path, arguments: tuple[str, ...], names: set[str]
) -> None:
    out = tmp_path / "clips"
    code, printed, said = jcdnet("clips", troubled, "-o", out, *arguments)
    assert code == 3
    assert {Path(line).name for line in printed.split()} == {p.name for p in out.glob("*.mp4")} == names
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 3 and "Traceback" not in said
    for name, cause in (("torn.json", "not JSON"), ("gone.mp4", "is not there"), ("noise.mp4", "2 clips left out")):
        assert any(name in error and cause in error for error in errors), errors
    assert "3 clips of 2 videos, 2 left out" in said
    if arguments == ("--reel",):  # the title card, and one clip of each of the two videos
        with av.open(str(out / "serve.mp4")) as container:
            stream = container.streams.video[0]
            last = [float(frame.pts * frame.time_base) for frame in container.decode(stream)][-1]
        assert last == pytest.approx(2.0 + 2 * 0.6, abs=0.09)


def test_clips_of_one_bad_result_or_video_are_one_sentence(jcdnet: Run, troubled: Path, tmp_path: Path) -> None:
    for name, cause in (("torn", "not JSON"), ("gone", "is not there"), ("noise", "not a video that FFmpeg can open")):
        code, printed, said = jcdnet("clips", troubled / f"{name}.json", "-o", tmp_path / name)
        assert (code, printed) == (3, "") and said.count("error:") == 1 and cause in said
        assert not list(tmp_path.glob(f"{name}/*"))


def test_a_reel_of_bad_videos_alone_is_not_written(jcdnet: Run, troubled: Path, tmp_path: Path) -> None:
    code, printed, said = jcdnet("clips", troubled / "noise.json", "-o", tmp_path / "reels", "--reel")
    assert (code, printed) == (3, "") and "2 clips left out" in said
    assert not list(tmp_path.glob("reels/*"))


def test_a_full_disk_stops_all_clips(
    jcdnet: Run, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise DiskFull("x: the disk is full; make room and run again, what is complete is kept.")

    monkeypatch.setattr("pipeline.clips.cut.shape_of", full)
    code, printed, said = jcdnet("clips", results, "-o", tmp_path / "clips")
    assert (code, printed) == (4, "") and said.count("the disk is full") == 1


def test_one_damaged_result_costs_its_own_page_alone(jcdnet: Run, troubled: Path, tmp_path: Path) -> None:
    code, printed, said = jcdnet("report", troubled, "-o", tmp_path / "pages")
    assert code == 3
    assert {Path(line).name for line in printed.split()} == {"a.html", "b.html", "index.html"}
    assert "torn.json" in said and "gone.mp4" in said and "noise.mp4" in said
    assert "Traceback" not in said


def test_the_table_counts_each_action(capsys: pytest.CaptureFixture[str]) -> None:
    found = (Segment(0, 2.5, 0, 0.9, "serve"), Segment(3, 70, 0, 0.8, "rally"), Segment(80, 81, 0, 0.7, "serve"))
    result_table(Result("a.mp4", 90.0, {}, found, (), {}), "")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:3] == [
        ["start", "end", "length", "conf", "action"],
        ["0:00.00", "0:02.50", "0:02.50", "0.90", "serve"],
    ]
    assert rows[5:] == [["times", "in", "all", "action"], ["1", "1:07.00", "rally"], ["2", "0:03.50", "serve"]]


# --- pages on which marking starts from nothing ---


def test_pages_of_videos_without_a_result(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    code, out, said = jcdnet("report", footage / "a.mp4", "--classes", "serve, net,serve")
    assert code == 0 and out.strip() == str(footage / "a.html") and said == ""
    text = (footage / "a.html").read_text()
    assert '"labels":["serve","net"]' in text and '"segments":[]' in text and '"link":"a.mp4"' in text
    assert '"unseen":true' in text and '"duration":3.0' in text and '"rate":25.0' in text
    code, out, _ = jcdnet("report", footage / "a.mp4", "-o", tmp_path / "one.html")
    assert code == 0 and '"link":"footage/a.mp4"' in (tmp_path / "one.html").read_text()
    (footage / "day 2").mkdir()
    (footage / "b.mp4").rename(footage / "day 2" / "b.mp4")
    (footage / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    code, out, said = jcdnet("report", footage, "-o", tmp_path / "marks")
    assert code == 3 and "noise.mp4: not a video" in said and "2 done, 1 failed" in said
    made = [Path(line).relative_to(tmp_path / "marks").as_posix() for line in out.splitlines()]
    assert made == ["a.html", "day 2/b.html", "index.html"]
    assert '"link":"../../footage/day%202/b.mp4"' in (tmp_path / "marks" / "day 2" / "b.html").read_text()
    index = (tmp_path / "marks" / "index.html").read_text()
    assert 'href="day%202/b.html#up=1"' in index and index.count("not marked yet") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("footage/a.mp4", "results/a.json"), "give one kind at a time"),
        (("footage", "-o", "page.html"), "is one page, and several are made"),
        (("footage/a.mp4", "--classes", "a|b"), "holds a |"),
        (("footage/a.mp4", "--corrections", "footage"), "no file in it ends in .corrections.json"),
        (("footage/gone.mp4",), "gone.mp4"),
    ],
)
def test_what_report_refuses(
    jcdnet: Run, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, said = jcdnet("report", *arguments)
    assert code in (2, 3) and says in said and out == "" and "Traceback" not in said


def test_what_was_marked_is_on_the_next_page(jcdnet: Run, results: Path, tmp_path: Path) -> None:
    """The new result has the same first segment: the marked one takes its place. Corrections among results are none."""
    marked = {
        "corrections": 1, "video": str(tmp_path / "footage" / "a.mp4"), "content": None, "duration": 3.0, "saved": "x",
        "complete": True, "segments": [{"start": 0.1, "end": 0.9, "label": "serve"}], "rejected": [],
    }  # fmt: skip
    (results / "a.corrections.json").write_text(json.dumps(marked))
    code, out, said = jcdnet("report", results, "--corrections", results)
    assert code == 0 and "2 done, 0 failed" in said and len(out.splitlines()) == 3
    text = (results / "a.html").read_text()
    assert '"marked":[[0.1,0.9,1]],"complete":true' in text and '"labels":["net","serve"]' in text
    assert '"marked":[],"complete":false' in (results / "b.html").read_text()

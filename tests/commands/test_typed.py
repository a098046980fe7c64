"""What people type and see: help, dashes, options in messages, the last line of a run, sports in names."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import coded, encode

import cli
from commands.cache import _ago
from pipeline.clips.cut import plan
from pipeline.clips.names import reel_names
from pipeline.config import OPTIONS, Config
from pipeline.run.outcome import Order, finish
from pipeline.run.results import written_beside
from pipeline.run.store import existing, write_result
from pipeline.run.summary import summed_up
from postprocess.config import LocalizeConfig
from postprocess.curves import Curves
from postprocess.segment import UNSURE, Result, Segment, left_out
from support.files import sha256

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", [(), ("run",), ("cache",), ("cache", "list"), ("labels", "import"), ("models",)])
def test_h_is_help_everywhere(jcdnet: Run, words: tuple[str, ...]) -> None:
    short, long = jcdnet(*words, "-h"), jcdnet(*words, "--help")
    assert short == long and short[0] == 0 and "Usage:" in short[1]


def test_a_file_that_begins_with_a_dash(jcdnet: Run, tmp_path: Path) -> None:
    code, _, said = jcdnet("run", "-name.mp4")
    assert code == 2 and said == "error: -name.mp4: begins with a dash, as options do; write the file as ./-name.mp4\n"
    (tmp_path / "-found").touch()
    assert "write the file as ./-found" in jcdnet("report", "-found")[2]
    assert "write the file as ./-out.mp4" in jcdnet("run", "-out.mp4")[2]  # else it would be -o ut.mp4
    assert "No such option" in jcdnet("run", "-x")[2]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("run", "a.mp4", "--min-confidence", "3"), "error: --min-confidence must lie between 0 and 1, not 3.0."),
        (("run", "a.mp4", "--min-length", "soon"), "error: --min-length: 'soon' is not a time; write seconds"),
        (("run", "a.mp4", "--stride", "0"), "error: --stride must be positive, not 0."),
        (("run", "a.mp4", "--top", "0"), "error: --top must be greater than or equal to 1."),
        (("find", "a.mp4", "--like", "a.mp4", "--threshold", "2"), "error: --threshold must lie between 0 and 1"),
        (("plot", "a.json", "--frames", "many"), "error: --frames must be a valid integer."),
        (("run", "a.mp4", "--config", "c.toml"), "error: c.toml: min_confidence must lie between 0 and 1, not 3.0."),
        (("run",), "error: PATHS is missing: Videos, folders (searched recursively) or glob patterns"),
        (("export", "x.json"), "error: --format is missing: Joined by commas: csv, srt"),
        (("run", "nothere.mp4"), "error: nothere.mp4: no such file; check the path."),
        (("extract", "nothere.mp4"), "error: nothere.mp4: no such file; check the path."),
    ],
)
def test_messages_name_what_was_typed(jcdnet: Run, tmp_path: Path, given: tuple[str, ...], says: str) -> None:
    (tmp_path / "c.toml").write_text("[localize]\nmin_confidence = 3.0\n")
    code, _, said = jcdnet(*given)
    assert code == 2 and said.startswith(says) and said.count("\n") == 1


def test_each_option_of_the_messages_is_one_of_a_command() -> None:
    import typer

    group = typer.main.get_command(cli.app)
    there = {o for name in ("run", "train") for p in group.get_command(None, name).params for o in p.opts}  # type: ignore[attr-defined]
    assert len(OPTIONS) > 15 and set(OPTIONS.values()) <= there


def test_the_last_line_of_a_run() -> None:
    assert summed_up({"from cache": 5}) == "all 5 videos are done (all from cached features)"
    counts = {"done": 1, "from cache": 2, "kept": 1, "duplicate": 1, "failed": 1, "not done": 2}
    assert summed_up(counts) == (
        "5 of 8 videos are done (1 new, 2 from cached features, 1 there before, 1 the same as another), 1 failed, "
        "2 not done"
    )
    assert summed_up({"failed": 2}) == "0 of 2 videos are done, 2 failed"


def test_what_a_least_length_left_out() -> None:
    long, short, inside = (Segment(a, b, 1, 1, "x") for a, b in ((0, 3), (5, 6), (1, 2)))
    assert left_out([long], [long, short, inside], 2) == ("1 segment shorter than 2 s is left out (--min-length).",)
    assert left_out([], [short, inside], 2) == ("2 segments shorter than 2 s are left out (--min-length).",)
    assert left_out([long], [long], 2) == ()


def test_a_run_with_a_least_length_says_what_it_left_out() -> None:
    """Of the settings alone: the same features are drawn once more without the limit."""
    found, short = Segment(0, 3, 1, 1, "x"), Segment(5, 6, 1, 1, "x")

    class Drawn(SimpleNamespace):
        def result(self, video: Path, *_: object) -> tuple[Result, None]:
            return Result(str(video), 9.0, {}, (found,), ("partial",), {}), None

        def segments(self, *_: object, rule: LocalizeConfig) -> list[Segment]:
            assert rule.min_seconds == 0
            return [found, short]

    config = Config(localize=LocalizeConfig(min_seconds=2))
    features: Any = None
    for asked, warnings in (
        (["localize.min_seconds"], ("partial", "1 segment shorter than 2 s is left out (--min-length).")),
        ([], ("partial",)),  # nobody asked for it: the model brings it
    ):
        drawn: Any = Drawn(asked=asked, config=config)
        assert finish(drawn, Order(Path("a.mp4")), "", features).result.warnings == warnings


def test_names_of_clips_and_reels_have_the_sport() -> None:
    squat, none, golf = (
        Segment(0, 1, 1, 0.9, "squat", "weightlifting"),
        Segment(1, 2, 1, 0.9, "squat"),
        Segment(2, 3, 1, 0.9, "golf", "golf"),
    )
    unsure = Segment(3, 4, 1, 0.2, "squat", UNSURE)
    driving = Segment(4, 5, 1, 0.9, "golf driving", "golf")
    called = [cut.name for cut in plan(Path("m.mp4"), "m", [squat, none, golf, unsure, driving], 9.0)]
    assert called == [
        "m_001_weightlifting - squat", "m_002_squat", "m_003_golf", "m_004_squat (sport not sure)", "m_005_golf driving"
    ]  # fmt: skip
    (own,) = plan(Path("m.mp4"), "m", [squat], 9.0, template="{sport}/{label}")
    assert own.name == "weightlifting/squat"
    assert reel_names([unsure, squat, golf, driving]) == {
        "squat": ("weightlifting - squat", "weightlifting: squat"),
        "golf": ("golf", "golf"),
        "golf driving": ("golf driving", "golf driving"),
    }


def test_a_page_that_report_wrote_is_no_edit(jcdnet: Run, tmp_path: Path) -> None:
    """Only a page that somebody changed by hand is kept as .bak, and the note says what it is."""
    import numpy as np

    video = encode(tmp_path / "a.mp4", [coded(k) for k in range(40)])
    curves = Curves(
        np.array([[0, 0.64], [0.64, 1.28]]), np.ones(2, np.float32), np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.float32), ("serve",),
    )  # fmt: skip

    def result(threshold: float) -> Result:
        found = (Segment(0, 0.64, 1.0, threshold, "serve"),)
        return Result(str(video), 1.6, {"rate": "25"}, found, (), {"content": "sha256:a", "localize": {"x": threshold}})

    target = tmp_path / "out" / "a"
    assert write_result(result(0.1), curves, target, ["json", "html"]) == []
    assert jcdnet("report", "out")[0] == 0 and jcdnet("report", "out/a.json", "--classes", "ace")[0] == 0
    assert written_beside(tmp_path / "out" / "a.scores.npz")[".html"] == sha256(target.with_name("a.html"))
    assert isinstance(existing(target, result(0.1).provenance, ["html"], video), Result)
    assert write_result(result(0.2), curves, target, ["json", "html"]) == []
    target.with_name("a.html").write_text("changed by hand")
    assert write_result(result(0.3), curves, target, ["json", "html"]) == [target.with_name("a.html.bak")]


def test_how_long_ago_is_said_as_people_say_it(jcdnet: Run) -> None:
    assert [_ago(s) for s in (0, 60, 7300, 90000, 9e5)] == [
        "just now",
        "1 minute ago",
        "2 hours ago",
        "1 day ago",
        "10 days ago",
    ]
    code, printed, said = jcdnet("cache", "list")
    assert (code, printed, said) == (0, "", "the cache is empty\n")


def test_exports_of_a_sport_say_it(jcdnet: Run, tmp_path: Path) -> None:
    found = (
        Segment(12, 14, 1.0, 0.74, "squat", "weightlifting"),
        Segment(30, 34, 1.0, 0.9, "golf driving", "golf"),
        Segment(46, 48, 1.0, 0.2, "squat", UNSURE),
    )
    document = Result("m.mp4", 60.0, {"rate": "25"}, found, (), {}).to_dict()
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert jcdnet("export", "m.json", "-f", "csv,srt,edl,fcpxml,chapters,sportscode")[0] == 0
    assert Path("m.csv").read_text().splitlines()[0] == "video,start,end,label,confidence,score,sport"
    for suffix in ("srt", "edl", "fcpxml", "chapters.txt"):
        text = Path(f"m.{suffix}").read_text()
        assert all(s.name in text for s in found) and "weightlifting: squat" in text, suffix
        assert "golf: " not in text and "squat? (sport not sure)" in text, suffix  # nothing is said twice
    # What reads them back finds the action's own name.
    assert "<code>squat</code>" in Path("m.sportscode.xml").read_text()
    assert "weightlifting" in Path("m.sportscode.xml").read_text()
    _, table, _ = jcdnet("labels", "import", "m.sportscode.xml", "--from", "sportscode")
    assert table == "video,labels\nm,squat|golf driving\n"

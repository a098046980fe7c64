"""Many videos at once: what is seen once, what is kept, what is reported, and the commands around it."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode

from extractors.backbones import weights
from pipeline.config import load_config
from pipeline.workers import backends
from pipeline.workers.engine import Engine
from support.errors import DiskFull, EnvironmentMissing, UsageError

pytestmark = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three videos, one of them twice, and a broken one; the working directory is above it."""
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.toml").write_text("[features]\ncrop = 32\nshort_side = 48\n")
    (tmp_path / "night" / "later").mkdir(parents=True)
    for k, name in enumerate(("a.mp4", "b.mp4", "later/c.mp4")):
        encode(tmp_path / "night" / name, [coded(j + 100 * k) for j in range(40)])
    shutil.copy(tmp_path / "night" / "a.mp4", tmp_path / "night" / "later" / "copy of a.mp4")
    (tmp_path / "night" / "broken.mp4").write_text("text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(folder: str = "out") -> dict:
    return json.loads((Path(folder) / "_run.json").read_text())


def statuses(folder: str = "out") -> dict[str, str]:
    return {video["name"]: video["status"] for video in report(folder)["videos"]}


RUN = ("run", "night", "-o", "out", "--config", "small.toml")


def test_the_report_of_a_night(jcdnet, night: Path) -> None:
    code, shown, said = jcdnet(*RUN, "--classes", "all", "--threshold", "0")
    assert code == 3
    assert statuses() == {
        "a": "done",
        "b": "done",
        "broken": "failed",
        "later/c": "done",
        "later/copy of a": "duplicate",
    }
    document = report()
    assert document["schema"] == 1 and document["interrupted"] is False
    assert document["totals"]["done"] == 3 and document["totals"]["failed"] == 1
    assert document["seconds"] == pytest.approx(3 * 1.6) == document["seconds_computed"]
    assert document["times_real_time"] > 0
    (broken,) = [v for v in document["videos"] if v["status"] == "failed"]
    assert broken["error"].startswith("night/broken.mp4: not a video") and "convert it to MP4" in broken["error"]
    (copy,) = [v for v in document["videos"] if v["status"] == "duplicate"]
    assert copy["duplicate_of"] == "night/a.mp4"
    assert "later/copy of a.mp4  0:01.60 (the same as night/a.mp4)" in shown
    assert (
        "4 of 5 videos are done (3 new, 1 the same as another), 1 failed; 0:04.80 of video in " in said
        and "× real time" in said
    )
    # Each name has its result; the table of all segments has each content once.
    assert json.loads(Path("out/later/copy of a.json").read_text())["segments"]
    with Path("out/segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["video"] for row in rows} == {"night/a.mp4", "night/b.mp4", "night/later/c.mp4"}
    assert rows[0]["start_clock"] == "0:00.00" and rows[0]["end_clock"] == "0:01.28" and rows[0]["end"] == "1.280"


def test_what_is_there_is_not_done_again(jcdnet, night: Path) -> None:
    jcdnet(*RUN)
    before = {p: p.stat().st_ino for p in Path("out").rglob("*.json") if p.name != "_run.json"}
    assert jcdnet(*RUN)[0] == 3
    assert set(statuses().values()) == {"kept", "duplicate", "failed"}
    assert {p: p.stat().st_ino for p in before} == before
    assert report()["seconds_computed"] == 0
    shutil.rmtree("out")
    jcdnet(*RUN)
    assert [statuses()[name] for name in ("a", "b", "later/c")] == ["from cache"] * 3


def test_only_what_failed_is_tried_again_and_the_report_stays_whole(jcdnet, night: Path) -> None:
    code, _, said = jcdnet(*RUN, "--retry-failed")
    assert code == 2 and "no report of an earlier run" in said
    jcdnet(*RUN, "--classes", "all", "--threshold", "0")
    shutil.copy("night/b.mp4", "night/broken.mp4")
    with Path("night/broken.mp4").open("ab") as file:
        file.write(b"\0")
    code, shown, _ = jcdnet(*RUN, "--classes", "all", "--threshold", "0", "--retry-failed")
    assert code == 0
    assert "broken.mp4" in shown and "a.mp4" not in shown
    assert sorted(statuses().values()) == ["done", "done", "done", "done", "duplicate"]
    assert len({row.split(",")[0] for row in Path("out/segments.csv").read_text().splitlines()[1:]}) == 4
    code, _, said = jcdnet(*RUN, "--classes", "all", "--threshold", "0", "--retry-failed")
    assert code == 0 and "nothing had failed when it was last run into this folder." in said
    Path("out/_run.json").write_text("[]")
    code, _, said = jcdnet(*RUN, "--retry-failed")
    assert code == 2 and "not a report of a run" in said
    code, _, said = jcdnet("run", "night", "--retry-failed")
    assert code == 2 and "name its folder with -o" in said


def test_a_dry_run_does_nothing_and_says_what_would_be_done(jcdnet, night: Path) -> None:
    code, shown, said = jcdnet(*RUN, "--dry-run")
    assert code == 3 and "broken.mp4: not a video" in said
    assert not Path("out").exists()
    assert not list(Path("cache").rglob("*.npz"))
    assert shown.count("extract    0:01.60") == 3
    assert shown.count("duplicate") == 1
    assert "0:04.80 of video to extract, at a speed not yet known here; 0.0 MB of cache" in shown
    Path("cache").mkdir(exist_ok=True)
    jcdnet(*RUN)
    code, shown, _ = jcdnet(*RUN, "--dry-run")
    assert shown.count("keep") == 3 and "0:00.00 of video to extract" in shown
    code, shown, _ = jcdnet(*RUN, "-f", "json,srt", "--dry-run")  # the results lack a format
    assert shown.count("from cache") == 3 and "0:00.00 of video to extract" in shown
    code, _, said = jcdnet(*RUN, "--classes", "tennis", "--dry-run")
    assert code == 3 and said.count("was made from another file, model or settings") == 1 and "of 3 files" in said
    code, shown, said = jcdnet(*RUN, "--threshold", "0.7", "--dry-run")
    assert shown.count("from cache") == 3 and said.count("note: made anew, as other segments are asked for") == 1


def test_another_threshold_draws_the_segments_anew_from_the_cache(jcdnet, night: Path) -> None:
    """Whoever types --threshold wants these segments; who leaves it out later did not ask for others."""
    run = (*RUN, "--classes", "all")
    jcdnet(*run, "--threshold", "0.9", "-f", "json,srt")
    Path("out/b.srt").write_text("corrected by hand")
    code, shown, said = jcdnet(*run, "--threshold", "0", "--min-length", "0:00.6")
    assert code == 3 and said.count("error: ") == 1 and "broken.mp4" in said  # that one fails as before
    assert said.count("made anew, as other segments are asked for (--min-length 0.0, now 0.6; --threshold ") == 1
    assert {statuses()[name] for name in ("a", "b", "later/c")} == {"from cache"}
    made = json.loads(Path("out/a.json").read_text())
    assert made["segments"] and made["provenance"]["localize"]["threshold"] == 0
    first = made["segments"][0]["label"]
    assert f"  {first}" in shown and first in Path("out/a.srt").read_text()  # the other formats follow
    assert Path("out/b.srt.bak").read_text() == "corrected by hand"
    code, _, said = jcdnet(*run, "--threshold", "0", "--min-length", "0.6")
    assert "made anew" not in said and statuses()["a"] == "kept"
    code, _, said = jcdnet(*run)
    assert code == 3 and said.count("was made from another file, model or settings (--min-length 0.6, now") == 1
    assert json.loads(Path("out/a.json").read_text()) == made


def test_a_first_run_says_how_to_look_at_it(jcdnet, night: Path) -> None:
    small = ("--config", "small.toml", "--classes", "all", "--threshold", "0")
    assert "next: the same with -o results -f html" in jcdnet("run", "night/a.mp4", *small)[2]
    run = ("run", "night/a.mp4", "-o", "out", *small)
    assert "next: the same with -f html, to look at it" in jcdnet(*run)[2]
    assert "next:" not in jcdnet(*run)[2]
    said = jcdnet(*run, "-f", "html")[2]
    assert "next:" not in said and "to look at the results, open out/a.html in a browser" in said


def test_the_table_has_lengths_and_a_line_for_each_action(jcdnet, night: Path) -> None:
    small = ("--config", "small.toml", "--classes", "all", "--threshold", "0")
    _, shown, _ = jcdnet("run", "night/a.mp4", *small)
    rows = [line.split() for line in shown.splitlines()]
    assert rows[1] == ["start", "end", "length", "conf", "action"] and rows[2][:3] == ["0:00.00", "0:01.28", "0:01.28"]


def test_a_name_that_is_not_there_names_what_is_near(jcdnet, night: Path) -> None:
    for given, says in (
        ("night/brokn.mp4", "night/brokn.mp4: no such file; is 'broken.mp4' meant?"),
        ("night/A.mov", "night/A.mov: no such file; is 'a.mp4' meant?"),
        ("day/a.mp4", "day/a.mp4: no such file; the folder day is not there, either."),
        ("night/entirely different.mp4", "different.mp4: no such file; check the path."),
    ):
        code, _, said = jcdnet("run", given, "--config", "small.toml")
        assert code == 2 and says in said
    code, _, said = jcdnet("run", "night/a.mp4", "night/none.mp4", "--config", "small.toml")
    assert code == 3 and "night/none.mp4: no such file" in said and "1 of 2 videos are done" in said
    code, _, said = jcdnet("run", "night/none.mp4", "night/nil.mp4", "--model", "not loaded")
    assert code == 2 and "night/none.mp4: no such file" in said and "None of the 2 files is there" in said


def test_the_cache_is_another_one_when_asked(jcdnet, night: Path) -> None:
    assert jcdnet("run", "night/a.mp4", "--config", "small.toml", "--cache-dir", "elsewhere")[0] == 0
    assert len(list(Path("elsewhere/features").rglob("*.npz"))) == 1
    assert not list(Path("cache").rglob("*.npz"))


def test_looking_after_the_cache(jcdnet, night: Path) -> None:
    jcdnet(*RUN)
    code, shown, _ = jcdnet("cache")
    assert code == 0 and "3 features of 3 videos" in shown
    listed = jcdnet("cache", "list")[1]
    assert listed.count("complete") == 3 and {line.split()[0] for line in listed.splitlines()[1:]} == {
        "a.mp4",
        "b.mp4",
        "c.mp4",
    }
    assert jcdnet("cache", "verify")[1] == "3 read, 0 damaged\n"
    entries = sorted(Path("cache").rglob("features/*/*.npz"))
    for age, entry in enumerate(entries):
        os.utime(entry, (time.time() - age * 86400 * 20,) * 2)
    os.utime(entries[0], (time.time() + 1e6,) * 2)  # a clock that was set back since: as good as new
    assert jcdnet("cache", "prune", "--older-than", "30d")[1].startswith("1 taken out")
    assert not entries[2].exists() and entries[1].exists()
    size = entries[0].stat().st_size
    assert jcdnet("cache", "prune", "--larger-than", f"{size / 1e6 * 1.5:.4f}MB")[1].startswith("1 taken out")
    assert entries[0].exists() and not entries[1].exists()
    entries[0].write_bytes(entries[0].read_bytes()[:-40])
    code, shown, said = jcdnet("cache", "verify")
    assert code == 3 and shown == "1 read, 1 damaged\n" and "not a whole features file" in said
    assert not entries[0].exists()
    for flags, cause in (
        ((), "say what is to go"),
        (("--older-than", "soon"), "--older-than soon: write a number with its unit, d, h or m, such as 30d."),
    ):
        code, _, said = jcdnet("cache", "prune", *flags)
        assert code == 2 and cause in said


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--jobs", "many"), "--jobs must be a number from 1 on, or auto"),
        (("--engine", "spark"), "--engine must be one of local, dask, ray"),
        (("--engine", "dask"), "--engine dask needs its scheduler"),
        (("--address", "x:1"), "add --engine dask or ray"),
    ],
)
def test_wrong_usage_is_one_sentence(jcdnet, night: Path, flags: tuple[str, ...], cause: str) -> None:
    code, _, said = jcdnet(*RUN, *flags)
    assert code == 2 and said.count("error: ") == 1 and cause in said
    assert not Path("out").exists()


def test_a_cluster_that_is_not_there_is_one_sentence(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("pipeline.workers.backends.ANSWER", 1)
    code, _, said = jcdnet(*RUN, "--engine", "dask", "--address", "tcp://127.0.0.1:1")
    assert code == 4 and said.count("error: ") == 1 and "no Dask scheduler answers at tcp://127.0.0.1:1" in said


def test_no_ray_is_said_at_once() -> None:
    """Ray itself tries for many minutes."""
    with pytest.raises(EnvironmentMissing, match="no Ray answers at localhost:1 "):
        backends._answers(Engine("ray", -1, "localhost:1"))
    for address in (None, "auto", "ray://localhost:1"):
        backends._answers(Engine("ray", -1, address))


def test_a_cluster_without_jcdnet_is_one_sentence() -> None:
    pytest.importorskip("distributed")

    class Client:
        def run_on_scheduler(self, function: Callable[[str], object], name: str) -> object:
            return function(f"{name}_that_is_not_there")

    with pytest.raises(EnvironmentMissing, match="the scheduler at tcp://x:1 or one of its workers has no jcdnet"):
        backends._carry(Client(), Engine("dask", -1, "tcp://x:1"))


def test_a_package_that_is_not_there_is_one_sentence(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, said = jcdnet(*RUN, "--engine", "ray")
    assert code == 4 and "pip install ray" in said


def test_limits_are_settings(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[limits]\nstall = 5\nmemory = 1.5\n")
    found = load_config(tmp_path / "c.toml", {"limits.timeout": 60.0}).limits
    assert (found.timeout, found.stall, found.memory) == (60.0, 5.0, 1.5)
    with pytest.raises(UsageError, match="stall must be positive"):
        load_config(None, {"limits.stall": 0.0})


def test_a_video_is_refused_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.run import batch

    video = tmp_path / "v.mp4"
    video.write_bytes(bytes(1000))
    batch.make_sure_of_room(tmp_path / "not" / "yet", video)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DiskFull, match=r"1 MB are free, and .*v\.mp4 may take 4 MB; make room"):
        batch.make_sure_of_room(tmp_path, video)


def test_two_signals_and_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from commands.terminal import stopping

    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
    answers = []
    thread = threading.Thread(target=lambda: answers.append(stopping().__enter__()()))
    thread.start()
    thread.join()
    assert answers == [False]


def test_files_of_somebody_else_stay(jcdnet, night: Path) -> None:
    """Results may stand among the footage, whose subtitles and corrections have the names that ours would get."""
    run = ("run", "night/a.mp4", "--config", "small.toml", "-o", "night")
    own = {name: f"my own {name}" for name in ("a.srt", "a.eaf", "a.csv")}
    for name, text in own.items():
        Path("night", name).write_text(text)
    assert jcdnet(*run)[0] == 0
    assert {name: Path("night", name).read_text() for name in own} == own
    shutil.rmtree("cache")
    for path in ("a.json", "a.scores.npz"):
        Path("night", path).unlink()
    code, _, said = jcdnet(*run, "-f", "json,srt")
    assert code == 3 and "night/a.srt: is there already, and not ours; use --overwrite" in said
    assert Path("night/a.srt").read_text() == own["a.srt"] and not Path("night/a.json").exists()
    assert jcdnet(*run, "-f", "json,srt", "--overwrite")[0] == 0
    assert Path("night/a.srt").read_text() != own["a.srt"] and Path("night/a.eaf").read_text() == own["a.eaf"]


def test_a_format_that_is_asked_for_later_leaves_the_others_alone(jcdnet, night: Path) -> None:
    run = ("run", "night/a.mp4", "--config", "small.toml", "-o", "out")
    assert jcdnet(*run, "-f", "json,elan")[0] == 0
    Path("out/a.eaf").write_text("corrected by hand")
    before = Path("out/a.json").stat().st_ino
    assert jcdnet(*run, "-f", "json,vtt")[0] == 0
    assert Path("out/a.vtt").read_text().startswith("WEBVTT")
    assert Path("out/a.eaf").read_text() == "corrected by hand"
    assert Path("out/a.json").stat().st_ino == before
    # Another result takes the place of all that the first one left.
    assert jcdnet(*run, "--threshold", "0.2", "--overwrite")[0] == 0
    assert not Path("out/a.eaf").exists() and not Path("out/a.vtt").exists()


def test_a_result_half_written_is_written_again(jcdnet, night: Path) -> None:
    """Killed before the JSON, which comes last: the curves tell that the rest is ours."""
    run = ("run", "night/a.mp4", "--config", "small.toml", "-o", "out", "-f", "json,srt")
    jcdnet(*run)
    Path("out/a.json").unlink()
    assert jcdnet(*run)[0] == 0
    assert Path("out/a.json").exists()


def test_the_index_stays_whole_and_names_are_not_markup(jcdnet, night: Path) -> None:
    folder = Path("night/n[")  # a copy of night/n[/red].mp4
    folder.mkdir()
    encode(folder / "red].mp4", [coded(j + 300) for j in range(40)])
    shutil.copy(folder / "red].mp4", "night/z.mp4")
    code, shown, said = jcdnet(*RUN, "-f", "html")
    assert code == 3 and "a bug" not in said and "(the same as night/n[/red].mp4)" in shown
    shutil.copy("night/b.mp4", "night/broken.mp4")
    with Path("night/broken.mp4").open("ab") as file:
        file.write(b"\0")
    assert jcdnet(*RUN, "-f", "html", "--retry-failed")[0] == 0
    index = Path("out/index.html").read_text()
    assert 'href="broken.html#' in index and 'href="a.html#' in index and 'href="later/c.html#' in index


def test_videos_named_as_what_a_run_writes_keep_their_results(jcdnet, night: Path) -> None:
    for name in ("index", "segments", "_run", "_DSC1"):
        shutil.copy("night/b.mp4", f"night/{name}.mp4")
        with Path(f"night/{name}.mp4").open("ab") as file:
            file.write(name.encode())
    assert jcdnet(*RUN, "-f", "json,html,csv")[0] == 3
    for name in ("index.mp4", "segments.mp4", "_run.mp4", "_DSC1"):
        document = json.loads(Path(f"out/{name}.json").read_text())
        assert document["video"] == f"night/{name.removesuffix('.mp4')}.mp4"
    from pipeline.run.results import read_results

    assert len(read_results([Path("out")])) == 8


def test_stopping_keeps_what_was_kept(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept results are in the report also when the extraction of another video is stopped."""
    from pipeline.run import batch
    from support.errors import Stopped

    (night / "night" / "broken.mp4").unlink()
    jcdnet(*RUN)
    with Path("night/later/c.mp4").open("ab") as file:
        file.write(b"\0")
    Path("out/later/c.json").unlink()
    Path("out/later/c.scores.npz").unlink()

    def stopped(*_: object):
        items = _[-1]
        next(iter(items))
        raise Stopped
        yield

    monkeypatch.setattr(batch, "extract", stopped)
    code, _, _ = jcdnet(*RUN)
    assert code == 130
    assert statuses()["a"] == statuses()["b"] == "kept" and statuses()["later/c"] == "not done"
    assert report()["interrupted"] is True


def test_a_bug_in_a_batch_costs_its_video_alone_and_is_kept(
    jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is exit code 1, also beside videos that failed by themselves, and its traceback is not lost."""
    from pipeline.api import Pipeline

    honest = Pipeline.result

    def broken(self: Pipeline, video: Path, *more: object):
        return {}["no such key"] if video.name == "b.mp4" else honest(self, video, *more)

    monkeypatch.setattr(Pipeline, "result", broken)
    code, _, said = jcdnet(*RUN)
    assert code == 1
    assert "error: night/b.mp4: a bug in jcdnet: KeyError: 'no such key'; please report it" in said
    assert "Traceback" not in said
    assert statuses() == {
        "a": "done", "b": "failed", "broken": "failed", "later/c": "done", "later/copy of a": "duplicate",
    }  # fmt: skip
    kept = {video["name"]: video.get("traceback") for video in report()["videos"]}
    assert kept.pop("b").rstrip().endswith("KeyError: 'no such key'") and set(kept.values()) == {None}
    code, _, said = jcdnet("--debug", *RUN)
    assert code == 1 and 'in broken\n    return {}["no such key"]' in said and "error: night/b.mp4: a bug" in said
    monkeypatch.setattr(Pipeline, "result", honest)
    assert jcdnet(*RUN)[0] == 3  # broken.mp4 failed by itself


def test_a_bug_under_labels_propose_is_exit_1(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object):
        raise AttributeError("gone")

    monkeypatch.setattr("pipeline.api.Pipeline.scores", broken)
    code, _, said = jcdnet("labels", "propose", "night/later", "-o", "labels.csv")
    assert code == 1 and "a bug in jcdnet: AttributeError: gone" in said


def test_a_missing_package_is_the_machine_and_a_missing_name_of_ours_a_bug() -> None:
    from support.errors import BUG, ENVIRONMENT, exit_code

    for text, code in (
        ("import no_such_package", ENVIRONMENT),
        ("import pipeline.no_such_module", BUG),
        ("from pipeline.run.batch import no_such_name", BUG),
    ):
        with pytest.raises(ImportError) as raised:
            exec(text)
        assert exit_code(raised.value) == code, text


# --- the table and the report are of the folder ---


def in_table(folder: str = "out") -> list[str]:
    with Path(folder, "segments.csv").open() as file:
        return list(dict.fromkeys(row["video"] for row in csv.DictReader(file)))


ALL = ("--config", "small.toml", "--classes", "all", "--threshold", "0")


def test_a_refused_run_takes_nothing_from_the_table_and_claims_nothing(jcdnet, night: Path) -> None:
    jcdnet("run", "night/a.mp4", "night/b.mp4", "-o", "out", *ALL)
    before = Path("out/segments.csv").read_bytes()
    assert in_table() == ["night/a.mp4", "night/b.mp4"]
    code, _, said = jcdnet("run", "night/a.mp4", "night/b.mp4", "-o", "out", *ALL, "--end", "1")
    assert code == 3 and "each of 2 files, out/a.json and out/b.json:" in said and "use --overwrite" in said
    assert Path("out/segments.csv").read_bytes() == before
    assert "results are in" not in said
    assert report()["totals"] | {"failed": 2} == report()["totals"] and report()["seconds"] == 0


def test_a_run_of_one_more_video_keeps_the_rows_of_the_others(jcdnet, night: Path) -> None:
    jcdnet("run", "night/a.mp4", "-o", "out", *ALL)
    first = report()["videos"]
    code, _, said = jcdnet("run", "night/b.mp4", "night/broken.mp4", "-o", "out", *ALL)
    assert code == 3 and "results are in out" in said
    assert "1 of 2 videos are done (all new), 1 failed; 0:01.60 of video" in said  # of this run
    assert in_table() == ["night/a.mp4", "night/b.mp4"]
    assert statuses() == {"a": "done", "b": "done", "broken": "failed"}
    assert report()["videos"][:1] == first
    totals = report()["totals"]
    assert totals == {"done": 2, "from cache": 0, "kept": 0, "duplicate": 0, "failed": 1, "not done": 0}
    assert report()["seconds"] == pytest.approx(3.2) and report()["seconds_computed"] == pytest.approx(1.6)
    assert [row["run"] == report()["began"] for row in report()["videos"]] == [False, True, True]
    # That an earlier run failed over another video is not this run's failure, and it can still be retried.
    assert jcdnet("run", "night/a.mp4", "-o", "out", *ALL)[0] == 0
    assert statuses() == {"a": "kept", "b": "done", "broken": "failed"}
    code, _, said = jcdnet("run", "night", "-o", "out", *ALL, "--retry-failed")
    assert code == 3 and said.count("error: ") == 1 and "broken.mp4: not a video" in said


def test_the_table_is_what_stands_in_the_folder(jcdnet, night: Path) -> None:
    """Corrected results count as they are now, deleted ones not, and those of an output folder below for themselves."""
    jcdnet(*RUN, *ALL[2:])
    jcdnet("run", "night/b.mp4", "-o", "out/of its own", *ALL)
    document = json.loads(Path("out/b.json").read_text())
    document["segments"] = [document["segments"][0] | {"label": "corrected"}]
    Path("out/b.json").write_text(json.dumps(document))
    Path("out/a.json").unlink()
    Path("out/notes.json").write_text("{}")
    Path("out/later/c.json").write_text("[1")
    code, _, said = jcdnet("run", "night/later/copy of a.mp4", "-o", "out/later", *ALL)
    assert code == 0
    code, _, said = jcdnet("run", "night/b.mp4", "-o", "out", *ALL)
    assert code == 0 and "note: out/later/c.json: is not JSON" not in said  # a folder of its own since
    Path("out/later/_run.json").unlink()
    code, _, said = jcdnet("run", "night/b.mp4", "-o", "out", *ALL)
    assert code == 0 and "note: out/later/c.json: is not JSON" in said and "notes.json" not in said
    with Path("out/segments.csv").open() as file:
        rows = [(row["video"], row["label"]) for row in csv.DictReader(file)]
    assert {video for video, _ in rows} == {"night/b.mp4", "night/later/copy of a.mp4"}
    assert [label for video, label in rows if video == "night/b.mp4"] == ["corrected"]
    assert set(statuses()) == {"b", "broken", "later/c", "later/copy of a"}


def test_two_runs_into_one_folder_at_the_same_time_lose_no_row(night: Path) -> None:
    """Each has done its own video when both come to write; the one that has not reached a video says nothing of it."""
    from pipeline.run.outcome import Outcome
    from pipeline.run.summary import RunReport
    from pipeline.run.videos import Job
    from postprocess.segment import Result, Segment

    out = Path("together")
    out.mkdir()
    a, b = (Job(Path(f"night/{name}.mp4"), Path(name)) for name in "ab")
    ours, theirs = RunReport("run", [a, b], out), RunReport("run", [b], out)
    theirs._began_at = "2026-01-01T00:00:00.000+00:00"
    for run, job in ((theirs, b), (ours, a)):
        found = (Segment(0.0, 1.0, 1.0, 0.5, f"of {job.name}"),)
        result = Result(str(job.video), 1.6, {}, found, (), {"content": str(job.name)})
        (out / f"{job.name}.json").write_text(json.dumps(result.to_dict()))
        run.add(Outcome(job, result=result))
        run.write()
        run.write_segments()
    assert statuses("together") == {"a": "done", "b": "done"}
    assert in_table("together") == ["night/a.mp4", "night/b.mp4"]
    assert {path.name for path in out.iterdir()} == {"a.json", "b.json", "_run.json", "segments.csv"}


def test_many_processes_write_the_report_of_one_folder(night: Path) -> None:
    """No row is lost between one that reads and one that writes."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.run.outcome import Outcome\n"
        "from pipeline.run.summary import RunReport\nfrom pipeline.run.videos import Job\n"
        "for k in range(8):\n"
        "    job = Job(Path(f'{sys.argv[1]}{k}.mp4'), Path(f'{sys.argv[1]}{k}'))\n"
        "    run = RunReport('run', [job], Path('many'))\n"
        "    run.add(Outcome(job, error=ValueError('x')))\n"
        "    run.write()\n"
    )
    Path("many").mkdir()
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    running = [subprocess.Popen([sys.executable, "-c", script, name], env=environment) for name in "abc"]
    assert [child.wait() for child in running] == [0, 0, 0]
    assert set(statuses("many")) == {f"{name}{k}" for name in "abc" for k in range(8)}
    assert [path.name for path in Path("many").iterdir()] == ["_run.json"]


# --- what stands in a folder and may be made anew ---


ONE = ("run", "night/a.mp4", "-o", "out", *ALL)


def as_7e10d01_wrote_it(name: str = "a", **features: object) -> dict:
    """Turn a result into what that commit would have written: an older format and libraries, and no hashes of files."""
    path = Path(f"out/{name}.json")
    document = json.loads(path.read_text())
    made = document["provenance"]
    del made["asked"]
    made["versions"] = {"jcdnet": "0.1.0", "torch": "2.14.1", "numpy": "2.4.4"}
    for stream in made["features"].values():
        for newer in ("engine", "int8"):
            stream.pop(newer, None)
        stream |= {
            "dtype": "float32",
            "format": 1,
            "decoder": "pyav-18.0.0 libavcodec-62.11.100 libswscale-9.1.100",
        } | features
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    curves = path.with_name(f"{name}.scores.npz")
    with np.load(curves) as stored:
        arrays = {key: stored[key] for key in stored.files if key != "written"}
    np.savez_compressed(curves, **arrays)
    return document


def test_a_folder_of_an_earlier_version_is_made_anew_and_that_is_said(jcdnet, night: Path) -> None:
    run = (*ONE, "-f", "json,csv,srt,elan")
    assert jcdnet(*run)[0] == 0
    fresh = {path.name: path.read_bytes() for path in Path("out").iterdir() if path.name.startswith("a.")}
    as_7e10d01_wrote_it(resize="opencv-4.13.0")
    Path("out/a.eaf").write_text("corrected by hand")
    code, _, said = jcdnet(*run, "--dry-run")
    assert code == 0 and "note: out/a.json: is made anew: it was made with other versions" in said
    assert json.loads(Path("out/a.json").read_text())["provenance"]["features"]["rgb"]["format"] == 1
    code, _, said = jcdnet(*ONE)  # the other formats stay, too
    assert code == 0 and "error" not in said
    assert "note: out/a.json: is made anew: it was made with other versions or another device (features.rgb.d" in said
    assert "note: out/a.eaf.bak: the a.eaf from before, kept since somebody changed it" in said
    assert {p.name: p.read_bytes() for p in Path("out").iterdir() if p.name in fresh} == fresh
    assert Path("out/a.eaf.bak").read_text() == "corrected by hand"
    assert [path.name for path in Path("out").glob("*.bak*")] == ["a.eaf.bak"]  # of the others nothing is lost
    assert statuses() == {"a": "from cache"} and len(report()["videos"][0]["notes"]) == 2
    assert "kept from before" in jcdnet(*run)[1]


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({"dtype": "bfloat16"}, ()),  # nothing but a wish gives that on a CPU
        ({"weights": "sha256:other"}, ()),
        ({"stride": 8}, ()),
        ({"decoder": "nvdec pyav-18.0.0"}, ()),
        ({}, ("--classes", "tennis")),
        ({}, ("--threshold", "0.5", "--end", "1")),
        ({}, ("--rule", "paper")),
        ({}, ("--end", "1")),
    ],
)
def test_what_was_asked_for_otherwise_is_still_refused(
    jcdnet, night: Path, change: dict[str, object], flags: tuple[str, ...]
) -> None:
    """Of an earlier version, too."""
    assert jcdnet(*ONE)[0] == 0
    as_7e10d01_wrote_it(**change)
    before = Path("out/a.json").read_bytes()
    code, _, said = jcdnet(*ONE, *flags)
    assert code == 3 and "was made from another file, model or settings (" in said and "use --overwrite" in said
    assert Path("out/a.json").read_bytes() == before and not list(Path("out").glob("*.bak"))


def test_what_auto_chose_on_another_machine_is_no_wish(jcdnet, night: Path) -> None:
    assert jcdnet(*ONE)[0] == 0
    as_7e10d01_wrote_it(dtype="float16", device="cuda", resize="device-1")
    assert jcdnet(*ONE)[0] == 0
    features = json.loads(Path("out/a.json").read_text())["provenance"]["features"]["rgb"]
    assert features["dtype"] != "float16" and features["device"] == "cpu"
    as_7e10d01_wrote_it(dtype="float16", device="cuda", resize="device-1")
    code, _, said = jcdnet(*ONE, "--precision", "float32")
    assert code == 3 and "features.rgb.dtype float16, now float32" in said


def test_a_video_that_was_still_being_copied_is_done_again(jcdnet, night: Path) -> None:
    """A transport stream can be read while it grows: its first result is of less than it is now."""
    whole = encode(Path("whole.ts"), [coded(k) for k in range(90)]).read_bytes()
    video = Path("night/copied.ts")
    video.write_bytes(whole[: len(whole) // 2])
    run = ("run", video, "-o", "out", *ALL)
    assert jcdnet(*run)[0] == 0
    first = json.loads(Path("out/copied.json").read_text())
    video.write_bytes(whole)
    code, _, said = jcdnet(*run)
    assert code == 0
    assert "note: out/copied.json: is made anew: the video's file has changed since." in said
    assert json.loads(Path("out/copied.json").read_text())["duration"] > first["duration"]
    assert not list(Path("out").glob("*.bak"))  # nobody had edited it
    assert "kept from before" in jcdnet(*run)[1]
    # Another setting is still another wish.
    video.write_bytes(whole[: len(whole) // 2])
    assert jcdnet(*run, "--end", "1")[0] == 3


def test_the_result_of_another_video_is_not_made_anew(jcdnet, night: Path) -> None:
    jcdnet("run", "night/a.mp4", "-o", "out", *ALL)
    Path("elsewhere").mkdir()
    shutil.copy("night/b.mp4", "elsewhere/a.mp4")
    before = Path("out/a.json").read_bytes()
    code, _, said = jcdnet("run", "elsewhere/a.mp4", "-o", "out", *ALL)
    assert code == 3 and "out/a.json: is the result of another video, night/a.mp4" in said
    assert Path("out/a.json").read_bytes() == before
    Path("night/a.mp4").rename("night/gone.mp4")  # now nobody can tell
    assert jcdnet("run", "elsewhere/a.mp4", "-o", "out", *ALL)[0] == 0
    assert Path("out/a.json.bak").read_bytes() == before


def test_what_somebody_edited_is_kept_beside(jcdnet, night: Path) -> None:
    run = (*ONE, "-f", "json,srt,elan")
    jcdnet(*run)
    document = json.loads(Path("out/a.json").read_text())
    document["segments"] = [document["segments"][0] | {"label": "mine"}]
    corrected = json.dumps(document)
    Path("out/a.json").write_text(corrected)
    Path("out/a.srt").write_text("mine")
    assert "kept from before" in jcdnet(*run)[1]
    # A format that is made later is made of what was corrected.
    assert jcdnet(*ONE, "-f", "vtt")[0] == 0
    assert "mine" in Path("out/a.vtt").read_text() and Path("out/a.json").read_text() == corrected
    code, _, said = jcdnet(*run, "--overwrite", "--top", "1")
    assert code == 0 and said.count("from before, kept since somebody changed it") == 2
    assert Path("out/a.json.bak").read_text() == corrected and Path("out/a.srt.bak").read_text() == "mine"
    assert "mine" not in Path("out/a.json").read_text() and not Path("out/a.vtt").exists()
    Path("out/a.srt").write_text("mine again")
    assert jcdnet(*run, "--overwrite")[0] == 0
    assert {path.name for path in Path("out").glob("*.bak*")} == {"a.json.bak", "a.srt.bak", "a.srt.bak2"}


def test_a_result_stays_until_the_new_one_is_whole(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the writing of the new one, before or in the midst of it."""
    from postprocess.formats import writers

    run = (*ONE, "-f", "json,srt,html")
    jcdnet(*run)
    before = {path.name: path.read_bytes() for path in Path("out").glob("a.*")}

    def broken(*_: object, **__: object) -> None:
        raise OSError(13, "Permission denied")

    for name, place in (("pipeline.run.views.page", None), ("srt", writers.WRITERS)):
        with monkeypatch.context() as patch:
            patch.setitem(place, name, broken) if place is not None else patch.setattr(name, broken)
            code, _, said = jcdnet(*run, "--threshold", "0.5", "--overwrite")
            assert code == 3 and "cannot be written (Permission denied)" in said
        assert {path.name: path.read_bytes() for path in Path("out").glob("a.*")} == before
        assert not [path for path in Path("out").iterdir() if path.name.startswith(".")]
    for stop in range(1, 6):  # the renames one by one
        with monkeypatch.context() as patch:
            honest, done = Path.replace, []

            def replace(self: Path, target: Path, honest=honest, done=done, stop=stop) -> Path:
                done.append(target)
                if len(done) == stop and Path(target).name.startswith("a."):
                    raise OSError(5, "Input/output error")
                return honest(self, target)

            patch.setattr(Path, "replace", replace)
            jcdnet(*run, "--threshold", "0.5", "--overwrite")
        assert json.loads(Path("out/a.json").read_text())["video"] == "night/a.mp4"
        assert jcdnet(*run, "--overwrite")[0] == 0
        assert Path("out/a.json").read_bytes() == before["a.json"]


def test_a_video_that_grows_while_it_is_read_is_said(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.run import batch

    honest = batch.content_hash

    def grows(path: Path, *more: object) -> str:
        found = honest(path, *more)
        if path.name == "a.mp4" and not done:
            done.append(path)
            with path.open("ab") as file:
                file.write(b"more")
        return found

    done: list[Path] = []
    monkeypatch.setattr(batch, "content_hash", grows)
    code, _, said = jcdnet("run", "night/a.mp4", "night/b.mp4", "-o", "out", *ALL)
    assert code == 3 and "night/a.mp4: changed while it was read" in said
    assert statuses() == {"a": "failed", "b": "done"}
    os.utime("night/a.mp4")  # touched alone it is the same
    assert jcdnet("run", "night/a.mp4", "night/b.mp4", "-o", "out", *ALL)[0] == 0


def test_features_files_are_made_anew_as_results_are(jcdnet, night: Path) -> None:
    from extractors.features import load, save

    run = ("extract", "night/a.mp4", "-o", "out", "--streams", "rgb", "--config", "small.toml")
    assert jcdnet(*run)[0] == 0
    path = Path("out/a.npz")
    fresh = path.read_bytes()
    assert jcdnet(*run)[0] == 0 and statuses() == {"a": "kept"} and path.read_bytes() == fresh
    for flag, value, cause in (
        ("--stride", 8, "--stride 16, now 8"),
        ("--end", 1, "--start and --end 0 to the end, now 0 to 1"),
    ):
        code, _, said = jcdnet(*run, flag, value)
        assert code == 3 and "made with other settings (" in said and cause in said
    # As an earlier version wrote it: nothing about the video, an older format.
    old = load(path)
    older = {"rgb": old.settings["rgb"] | {"format": 1, "decoder": "pyav-18.0.0 libavcodec-62.11.100"}}
    save(dataclasses.replace(old, settings=older, rgb=old.rgb + 1), path)
    kept = path.read_bytes()
    code, _, said = jcdnet(*run)
    assert code == 0 and "note: out/a.npz: is made anew: it was made with other versions" in said
    assert path.read_bytes() == fresh and Path("out/a.npz.bak").read_bytes() == kept
    save(old, path)  # its own features, but not what they are of
    assert jcdnet(*run)[0] == 0 and statuses() == {"a": "kept"}
    code, _, said = jcdnet(*run, "--start", "0.7")
    assert code == 3 and "other seconds of the video" in said
    assert jcdnet(*run, "--overwrite")[0] == 0
    # The file has changed.
    encode(Path("night/a.mp4"), [coded(k + 50) for k in range(60)])
    code, _, said = jcdnet(*run)
    assert code == 0 and "is made anew: the video's file has changed since" in said and len(load(path).times) == 3
    Path("d").mkdir()
    shutil.copy("night/b.mp4", "d/a.mp4")
    code, _, said = jcdnet("extract", "d/a.mp4", *run[2:])
    assert code == 3 and "holds features of another video, night/a.mp4" in said


def test_a_result_under_an_older_name_is_found_again(jcdnet, night: Path) -> None:
    """Of a run of one folder alone, and of the rule of an earlier version."""
    for folder in ("d1", "d2"):
        Path(folder).mkdir()
    shutil.copy("night/a.mp4", "d1/a.mp4")
    shutil.copy("night/b.mp4", "d2/a.mp4")
    assert jcdnet("run", "d1", "-o", "out", *ALL)[0] == 0
    code, shown, said = jcdnet("run", "d1", "d2", "-o", "out", *ALL)
    assert code == 0 and "d1/a.mp4  0:01.60 (kept from before)" in shown
    assert "note: results keep the names that they have from an earlier run: out/a.json for d1/a.mp4." in said
    assert statuses() == {"a": "kept", "d2/a": "done"} and in_table() == ["d1/a.mp4", "d2/a.mp4"]
    # The other folder alone finds its own, though the first one's result has the name that it would get.
    code, shown, said = jcdnet("run", "d2", "-o", "out", *ALL)
    assert code == 0 and "out/d2/a.json for d2/a.mp4" in said and "kept from before" in shown
    # Another working directory: whether it is the same video cannot be seen, so it is said.
    os.chdir("d1")
    code, _, said = jcdnet("run", "../d1", "../d2", "-o", "../out", *("--config", "../small.toml", *ALL[2:]))
    assert code == 0 and "note: ../out/a.json: may be of ../d1/a.mp4, under the name of an earlier run" in said
    assert jcdnet("extract", "a.mp4", "-o", "../features", "--config", "../small.toml", "--streams", "rgb")[0] == 0
    code, shown, said = jcdnet(
        "extract", "../d1", "../d2", "-o", "../features", "--config", "../small.toml", "--streams", "rgb"
    )
    assert code == 0 and "../features/a.npz\t" in shown and "../features/d2/a.npz\t" in shown


def test_cards_of_one_name_say_their_folders(jcdnet, night: Path) -> None:
    for folder, name in (("d1", "a.mov"), ("d1", "a.mp4"), ("d2", "a.mp4")):
        Path(folder).mkdir(exist_ok=True)
        encode(Path(folder, name), [coded(k + 7 * len(name) + ord(folder[1])) for k in range(17)])
    assert jcdnet("run", "d1", "d2", "-o", "out", *ALL, "-f", "json,html")[0] == 0
    links = re.findall(r'href="([^"#]*)#up=.*?<b [^>]*>([^<]*)</b>', Path("out/index.html").read_text())
    assert links == [
        ("d1/a.mov.html", "a.mov"),
        ("d1/a.mp4.html", "d1/a.mp4"),
        ("d2/a.html", "d2/a.mp4"),
    ]


def test_what_failed_under_another_name_is_retried(jcdnet, night: Path) -> None:
    """Of one folder alone the video was called otherwise than of two."""
    assert jcdnet("run", "night", "-o", "out", *ALL)[0] == 3
    assert statuses()["broken"] == "failed"
    Path("more").mkdir()
    shutil.copy("night/b.mp4", "more/x.mp4")
    encode(Path("night/broken.mp4"), [coded(k + 900) for k in range(20)])
    code, shown, _ = jcdnet("run", "night", "more", "-o", "out", *ALL, "--retry-failed")
    assert code == 0 and "night/broken.mp4" in shown and "night/a.mp4" not in shown
    assert "broken" not in statuses() and statuses()["night/broken"] == "done" and report()["totals"]["failed"] == 0
    assert "nothing had failed" in jcdnet("run", "night", "more", "-o", "out", *ALL, "--retry-failed")[2]


def test_a_whole_result_is_kept_beside_a_partial_one(tmp_path: Path) -> None:
    """The file may have been damaged since; the other way round nothing is lost."""
    from pipeline.run.store import write_result
    from postprocess.curves import Curves
    from postprocess.segment import Result, Segment

    cas = np.zeros((2, 2), np.float32)
    curves = Curves(np.array([[0.0, 0.64], [0.64, 1.28]]), np.ones(2, np.float32), cas, cas, ("golf",))

    def result(content: str, seconds: float, partial: bool) -> Result:
        found = (Segment(0.0, seconds, 1.0, 0.5, "golf"),)
        return Result("v.mp4", seconds, {}, found, (), {"content": content}, partial)

    target = tmp_path / "v"
    assert write_result(result("part", 1.0, True), curves, target, ["json", "srt"]) == []
    assert write_result(result("whole", 1.28, False), curves, target, ["json", "srt"]) == []
    whole = (tmp_path / "v.json").read_bytes()
    assert write_result(result("damaged", 0.64, True), curves, target, ["json", "srt"]) == [tmp_path / "v.json.bak"]
    assert (tmp_path / "v.json.bak").read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"v.json", "v.srt", "v.scores.npz", "v.json.bak"}

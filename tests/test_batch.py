"""Many videos at once: what is seen once, what is kept, what is reported, and the commands around it."""

import csv
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import coded, encode

from extractors import weights
from pipeline import backends
from pipeline.config import load_config
from pipeline.engine import Engine
from pipeline.errors import DiskFull, EnvironmentMissing, UsageError

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
    assert "3 done, 1 duplicate, 1 failed; 0:04.80 of video in " in said and "× real time" in said
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
    assert code == 0 and "nothing had failed in the last run into this folder." in said
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
    code, _, said = jcdnet(*RUN, "--threshold", "0.7", "--dry-run")
    assert code == 3 and said.count("was made from another file, model or settings") == 3


def test_the_cache_is_another_one_when_asked(jcdnet, night: Path) -> None:
    assert jcdnet("run", "night/a.mp4", "--config", "small.toml", "--cache-dir", "elsewhere")[0] == 0
    assert len(list(Path("elsewhere/features").rglob("*.npz"))) == 1
    assert not list(Path("cache").rglob("*.npz"))


def test_looking_after_the_cache(jcdnet, night: Path) -> None:
    jcdnet(*RUN)
    code, shown, _ = jcdnet("cache")
    assert code == 0 and "3 features of 3 videos" in shown
    assert jcdnet("cache", "list")[1].count("whole") == 3
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
        (("--older-than", "soon"), "--older-than is a number and one of d"),
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
    monkeypatch.setattr("pipeline.backends.ANSWER", 1)
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
    from pipeline import batch

    video = tmp_path / "v.mp4"
    video.write_bytes(bytes(1000))
    batch.make_sure_of_room(tmp_path / "not" / "yet", video)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DiskFull, match=r"1 MB are free, and .*v\.mp4 may take 4 MB; make room"):
        batch.make_sure_of_room(tmp_path, video)


def test_two_signals_and_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from commands.stopping import stopping

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
    assert 'href="broken.html"' in index and 'href="a.html"' in index and 'href="later/c.html"' in index


def test_videos_named_as_what_a_run_writes_keep_their_results(jcdnet, night: Path) -> None:
    for name in ("index", "segments", "_run", "_DSC1"):
        shutil.copy("night/b.mp4", f"night/{name}.mp4")
        with Path(f"night/{name}.mp4").open("ab") as file:
            file.write(name.encode())
    assert jcdnet(*RUN, "-f", "json,html,csv")[0] == 3
    for name in ("index.mp4", "segments.mp4", "_run.mp4", "_DSC1"):
        document = json.loads(Path(f"out/{name}.json").read_text())
        assert document["video"] == f"night/{name.removesuffix('.mp4')}.mp4"
    from pipeline.results import read_results

    assert len(read_results([Path("out")])) == 8


def test_stopping_keeps_what_was_kept(jcdnet, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept results are in the report also when the extraction of another video is stopped."""
    from pipeline import batch
    from pipeline.errors import Stopped

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
    from pipeline.errors import BUG, ENVIRONMENT, exit_code

    for text, code in (
        ("import no_such_package", ENVIRONMENT),
        ("import pipeline.no_such_module", BUG),
        ("from pipeline.batch import no_such_name", BUG),
    ):
        with pytest.raises(ImportError) as raised:
            exec(text)
        assert exit_code(raised.value) == code, text

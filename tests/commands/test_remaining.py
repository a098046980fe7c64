"""How long a run still takes: against runs that are played with a clock of their own, of which the end is known."""

import heapq
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import coded, encode

from commands import bars as running
from commands.remaining import EVIDENCE, Remaining
from extractors.decode import headers
from pipeline.run.videos import Job

STEP = 0.64


@dataclass
class Film:
    seconds: float
    size: int
    declared: bool = True
    cached: bool = False
    """nothing has to be extracted"""
    before: int = 0
    """snippets that an earlier run did"""


def play(
    films: Sequence[Film], speed: float, workers: int = 1, load: float = 6.0, hashing: float = 0.2
) -> tuple[list[tuple[float, float | None]], float]:
    """What is said to be left, with the time of each saying, and when the run ended."""
    remaining = Remaining({k: film.size for k, film in enumerate(films)}, STEP)
    for k, film in enumerate(films):
        remaining.header(k, film.seconds if film.declared else 0.0)
    free = [load] * workers
    events: list[tuple[float, int, int]] = []  # (when, film, snippets done; -1: finished)
    for k, film in enumerate(films):
        now = heapq.heappop(free) + hashing
        if not film.cached:
            for done in range(film.before + 2, int(film.seconds / STEP) + 1, 2):
                now += 2 * STEP / speed
                events.append((now, k, done))
        events.append((now, k, -1))
        heapq.heappush(free, now)
    said = []
    for now, k, done in sorted(events):
        if done < 0:
            remaining.finished(k, films[k].seconds)
        else:
            remaining.progress(k, done, now)
        said.append((now, remaining.left(now)))
    return said, max(free)


def test_a_folder_of_two_of_unlike_bytes() -> None:
    # A short one of many bytes first: by bytes, which was the rule, the second would be thought 15 times too long.
    said, end = play([Film(60, 1_000_000_000), Film(1200, 1_300_000_000)], speed=5)
    told = [(now, left) for now, left in said if left is not None]
    assert told[0][0] < 20 < end - told[0][0]
    for now, left in told:
        assert left == pytest.approx(end - now, rel=0.1, abs=2)


def test_nothing_is_said_before_it_can_be_known() -> None:
    said, _ = play([Film(600, 10**8), Film(600, 10**8)], speed=2, load=60)
    began = said[0][0]
    assert all(left is None for now, left in said if now < began + EVIDENCE)
    assert said[-2][1] is not None
    silent = Remaining({"a": 10**8, "b": 10**8})
    silent.header("a", 100.0)
    for done in range(2, 60, 2):
        silent.progress("a", done, now=float(done))
    assert silent.left(60.0) is None  # b's header has not been read
    silent.header("b", 0.0)
    assert silent.left(60.0) is not None
    mute = Remaining({"a": 10**8})
    mute.header("a", 0.0)
    for done in range(2, 60, 2):
        mute.progress("a", done, now=float(done))
    assert mute.left(60.0) is None  # nothing says how long anything is


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("load", [0.0, 30.0])
def test_it_comes_true_whatever_the_workers_and_the_start(workers: int, load: float) -> None:
    films = [Film(100 + 37 * (k % 5), 10**6 * (1 + 9 * (k % 3))) for k in range(24)]
    said, end = play(films, speed=3, workers=workers, load=load)
    halfway = [(now, left) for now, left in said if left is not None and now > load + (end - load) / 8]
    for now, left in halfway:
        assert left is not None
        assert left == pytest.approx(end - now, rel=0.2, abs=100 / 3)  # the last ones run alone


def test_what_comes_from_the_cache_makes_no_speed() -> None:
    films = [Film(3600, 10**9, cached=True) for _ in range(20)] + [Film(300, 10**8) for _ in range(4)]
    said, end = play(films, speed=2)
    told = [(now, left) for now, left in said if left is not None]
    assert told
    for now, left in told:
        assert left == pytest.approx(end - now, rel=0.05, abs=2)


def test_what_an_earlier_run_did_makes_no_speed() -> None:
    films = [Film(64 * STEP * 40, 10**9, before=64 * 30), Film(64 * STEP * 10, 10**8)]
    said, end = play(films, speed=2)
    told = [(now, left) for now, left in said if left is not None]
    assert told
    for now, left in told:
        assert left == pytest.approx(end - now, rel=0.05, abs=2)


def test_a_video_that_does_not_say_counts_by_its_bytes() -> None:
    films = [Film(300, 3 * 10**8), Film(600, 6 * 10**8, declared=False)]
    said, end = play(films, speed=4)
    told = [(now, left) for now, left in said if left is not None]
    for now, left in told:
        assert left == pytest.approx(end - now, rel=0.05, abs=2)


def test_a_failed_one_is_no_work_any_more_and_a_range_is_all_there_is() -> None:
    remaining = Remaining({"a": 1, "b": 1, "c": 1}, STEP, start=100.0, end=164.0)
    for name, seconds in (("a", 3600.0), ("b", 3600.0), ("c", 132.0)):
        remaining.header(name, seconds)
    assert remaining.total() == 64 + 64 + 32
    remaining.finished("a", 0.0)
    for done in range(2, 52, 2):
        remaining.progress("b", done, now=done * STEP)
    assert remaining.total() == 64 + 32
    assert remaining.speed(50 * STEP) == pytest.approx(1.0)
    assert remaining.left(50 * STEP) == pytest.approx(96 - 50 * STEP)


def test_workers_at_different_stretches_of_one_video() -> None:
    remaining = Remaining({"a": 1}, STEP)
    remaining.header("a", 64 * 10 * STEP)
    remaining.progress("a", 2, 10.0)
    remaining.progress("a", 322, 10.0)
    for k in range(1, 31):
        remaining.progress("a", 2 + 2 * k, 10.0 + k)
        remaining.progress("a", 322 + 2 * k, 10.0 + k)
    assert remaining.speed(40.0) == pytest.approx(4 * STEP, rel=0.05)
    assert remaining.through() == pytest.approx(124 * STEP)


def test_what_is_compiled_once_makes_no_speed() -> None:
    remaining = Remaining({"a": 1}, STEP)
    remaining.header("a", 640.0)
    remaining.progress("a", 2, 10.0)
    remaining.compiled(40.0)
    for k in range(1, 11):
        remaining.progress("a", 2 + 2 * k, 40.0 + k)
    assert remaining.speed(50.0) == pytest.approx(2 * STEP)


def test_the_bar_over_all_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [encode(tmp_path / f"{name}.mp4", [coded(k) for k in range(100)]) for name in "ab"]
    jobs = [Job(video, Path(video.stem)) for video in videos]
    now = [0.0]
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(headers, "durations", lambda paths, stop: [(path, 128.0) for path in paths])
    with running.Bars(jobs, Remaining({job.name: 1 for job in jobs}, STEP), lambda: None) as bars:
        for thread in threading.enumerate():
            if thread.name == "headers":
                thread.join()
        show = bars.video(jobs[0])
        labels = []
        for done in range(2, 102, 2):
            now[0] += 1.0  # 1.28 s of video a second
            show("decode", done, 200)
            show("i3d", done, 200)
            labels.append(bars.live.tasks[bars.overall].description)
    assert labels[0] == "0 of 2 videos"
    assert labels[-1] == "0 of 2 videos, 2:30 left"


# --- headers ----------------------------------------------------------------------------------------------------------


def test_durations_come_from_headers(tmp_path: Path) -> None:
    long = encode(tmp_path / "long.mp4", [coded(k) for k in range(100)])
    short = encode(tmp_path / "short.mkv", [coded(k) for k in range(25)])
    (tmp_path / "text.mp4").write_text("no video")
    raw = encode(tmp_path / "raw.h264", [coded(k) for k in range(25)])  # an elementary stream has no header
    paths = [long, tmp_path / "text.mp4", tmp_path / "none.mp4", raw, short]
    assert dict(headers.durations(paths)) == {
        long: pytest.approx(4.0),
        paths[1]: 0.0,
        paths[2]: 0.0,
        raw: 0.0,
        short: pytest.approx(1.0, abs=0.05),
    }
    assert list(headers.durations(paths, stop=lambda: True)) == []


@pytest.mark.parametrize("how", ["crashes", "hangs"])
def test_a_file_that_takes_the_reader_along_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    good = encode(tmp_path / "good.mp4", [coded(k) for k in range(50)])
    code = {"crashes": f"os.kill(os.getpid(), {int(signal.SIGKILL)})", "hangs": "time.sleep(60)"}[how]
    monkeypatch.setattr(
        headers,
        "_ARGUMENTS",
        (
            "-P",
            "-c",
            "import os, time; from extractors.decode import headers; read = headers._read\n"
            f"def bad(path):\n    if path.name == 'bad.mp4': {code}\n    return read(path)\n"
            "headers._read = bad; headers.serve()",
        ),
    )
    found = dict(headers.durations([tmp_path / "bad.mp4", good], patience=2.0 if how == "hangs" else 60.0))
    assert found == {tmp_path / "bad.mp4": 0.0, good: pytest.approx(2.0)}

"""gpu.py's order of events: a stage that fails, and one that there is no time for, are said and stop no other."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import gpu


def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: list[float], *more: str) -> tuple[int, list[str], dict]:
    """Exit code, the stages that began, and the JSON. clock: minutes at the start, then whenever a stage begins or
    ends; one that is left out only begins.
    """
    begun: list[str] = []

    def stage(name: str, fails: bool = False):
        def run(bench: gpu.Bench) -> None:
            """A stage."""
            begun.append(name)
            if fails:
                raise RuntimeError("no such kernel")

        return run

    stages = {"one": stage("one"), "two": stage("two", fails=True), "three": stage("three")}
    monkeypatch.setattr(gpu, "STAGES", stages)
    ticks = iter(60 * minute for minute in clock)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    out = tmp_path / "gpu.json"
    line = ["gpu.py", "--clips", str(tmp_path / "none"), "--device", "cpu", "--json", str(out), *more]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    return int(stopped.value.code or 0), begun, json.loads(out.read_text())


def test_a_stage_that_fails_is_said_and_the_next_one_runs(monkeypatch, tmp_path, capsys) -> None:
    code, begun, found = ran(monkeypatch, tmp_path, [0, 0, 1, 1, 2, 2, 3])
    assert code == 1 and begun == ["one", "two", "three"]
    assert found["two failed"] == "RuntimeError('no such kernel')"
    assert "failed: two failed" in capsys.readouterr().out


def test_no_stage_begins_when_the_time_is_over(monkeypatch, tmp_path, capsys) -> None:
    code, begun, found = ran(monkeypatch, tmp_path, [0, 0, 4.1, 4.1, 4.2])
    printed = capsys.readouterr().out
    assert code == 0 and begun == ["one"]
    assert found["two left out"] == found["three left out"] == "4 minutes were over"
    assert "left out, since 4 minutes were over: --only two three runs it" in printed
    assert "all stages ran" not in printed


def test_a_quick_run_has_no_limit(monkeypatch, tmp_path) -> None:
    _, begun, _ = ran(monkeypatch, tmp_path, [0, *[9] * 6], "--quick")
    assert begun == ["one", "two", "three"]

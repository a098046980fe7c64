"""What became of a run: `_run.json`, `segments.csv`, and the figures of the table."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from extractors.config import cache_dir
from extractors.writing import write_atomically
from pipeline.batch import Outcome
from pipeline.errors import UsageError, cannot_write
from pipeline.storing import with_suffix
from pipeline.version import package_version
from pipeline.videos import Job
from postprocess.segment import Result, ResultError
from postprocess.writers import RUN, write_csv

NAME = RUN
SCHEMA = 1
STATUSES = ("done", "from cache", "kept", "duplicate", "failed", "not done")
OFTEN = 10.0  # seconds between two writes while the run goes on


class RunReport:
    """The outcomes of a run, in the order of its videos."""

    def __init__(self, command: str, jobs: Sequence[Job], out: Path | None, earlier: Sequence[dict[str, Any]] = ()):
        """`earlier`: rows of the report before, which this run adds to (`--retry-failed`)."""
        self.command, self.out = command, out
        self.rows = {row["name"]: dict(row) for row in earlier}
        for job in jobs:
            self.rows[job.name.as_posix()] = _row(job, "not done")
        self.outcomes: dict[str, Outcome] = {}
        self._began, self._began_at = time.monotonic(), _now()
        self._written = self._began

    def add(self, outcome: Outcome) -> None:
        """Take an outcome in; on disk it is within seconds."""
        row = _row(outcome.job, status(outcome), outcome.seconds)
        if outcome.error is not None:
            row["error"] = str(outcome.error)
        if outcome.duplicate_of is not None:
            row["duplicate_of"] = str(outcome.duplicate_of.video)
        if outcome.result is not None:
            row |= {"segments": len(outcome.result.segments), "partial": outcome.result.partial}
        self.rows[row["name"]] = row
        self.outcomes[row["name"]] = outcome
        if time.monotonic() - self._written > OFTEN:
            self.write()

    @property
    def counts(self) -> Counter[str]:
        """Videos by status."""
        return Counter(row["status"] for row in self.rows.values())

    @property
    def failed(self) -> bool:
        """Whether any video did."""
        return self.counts["failed"] > 0

    @property
    def seconds(self) -> float:
        """Of video, of all that have a result."""
        return float(sum(row["seconds"] for row in self.rows.values() if row["status"] != "duplicate"))

    @property
    def computed(self) -> float:
        """Of video, extracted in this run."""
        return float(sum(o.seconds for o in self.outcomes.values() if status(o) == "done"))

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def write(self, interrupted: bool = False) -> None:
        """Write `_run.json`.

        Raises:
            OutputError, DiskFull: it cannot be written.
        """
        self._written = time.monotonic()
        if self.out is None:
            return
        counts = self.counts
        totals = {name: counts[name] for name in STATUSES}
        document = {
            "schema": SCHEMA,
            "command": self.command,
            "version": package_version("jcdnet"),
            "began": self._began_at,
            "ended": _now(),
            "interrupted": interrupted,
            "totals": totals,
            "seconds": round(self.seconds, 3),
            "seconds_computed": round(self.computed, 3),
            "elapsed": round(self.elapsed, 3),
            "times_real_time": round(self.computed / max(self.elapsed, 1e-9), 3),
            "videos": list(self.rows.values()),
        }
        # ASCII: names that are not UTF-8 reach Python as lone surrogates, which no UTF-8 file takes.
        _write(self.out / NAME, json.dumps(document, indent=2).encode())

    def write_segments(self) -> None:
        """Write `segments.csv`: the segments of all videos, each content once.

        Raises:
            OutputError, DiskFull: it cannot be written.
        """
        if self.out is None:
            return
        text = io.StringIO()
        write_csv([result for _, result in self.results()], text, clocks=True)
        _write(self.out / "segments.csv", text.getvalue().encode())

    def results(self) -> Iterator[tuple[str, Result]]:
        """Name and result of every video that has one, each content once; those of the run before are read."""
        for name, row in self.rows.items():
            if row["status"] in ("duplicate", "failed", "not done"):
                continue
            if name in self.outcomes:
                result = self.outcomes[name].result
                assert result is not None
                yield name, result
            elif self.out is not None:
                with contextlib.suppress(OSError, ValueError, ResultError):
                    path = with_suffix(self.out / name, ".json")
                    yield name, Result.from_dict(json.loads(path.read_text(encoding="utf-8")))


def status(outcome: Outcome) -> str:
    """One of STATUSES."""
    if outcome.error is not None:
        return "failed"
    if outcome.duplicate_of is not None:
        return "duplicate"
    if outcome.skipped:
        return "kept"
    return "from cache" if outcome.cached else "done"


def failed_before(out: Path, jobs: Sequence[Job]) -> tuple[list[Job], list[dict[str, Any]]]:
    """Of these videos, those that failed in the run whose report stands in `out`; and all rows of that report.

    Raises:
        UsageError: there is no report, or none of ours.
    """
    path = out / NAME
    try:
        document = json.loads(path.read_bytes())
        rows = [dict(row) for row in document["videos"]]
        failed = {str(row["name"]) for row in rows if row["status"] in ("failed", "not done")}
        _ = [float(row["seconds"]) for row in rows]
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no report of an earlier run; run without --retry-failed first.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a report of a run ({error}); run without --retry-failed.") from error
    return [job for job in jobs if job.name.as_posix() in failed], rows


def speeds() -> dict[str, float]:
    """What earlier runs on this machine reached, × real time, by `speed_key`."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((cache_dir() / "speed.json").read_bytes())
        return {str(name): float(value) for name, value in found.items() if float(value) > 0}
    return {}


def remember_speed(key: str, speed: float) -> None:
    """For `--dry-run`: how fast a run was, × real time, its start apart."""
    with contextlib.suppress(OSError):
        found = speeds() | {key: round(speed, 3)}
        write_atomically(cache_dir() / "speed.json", json.dumps(found).encode())


def _row(job: Job, status: str, seconds: float = 0.0) -> dict[str, Any]:
    return {"video": str(job.video), "name": job.name.as_posix(), "status": status, "seconds": round(seconds, 3)}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise cannot_write(path, error) from error

"""The report of a run: `_run.json`, `segments.csv`, and the figures of the table at the end."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.run.outcome import Outcome
from pipeline.run.results import Stored, standing
from pipeline.run.videos import Job
from postprocess.formats.writers import RUN, write_csv
from support.errors import Bug, UsageError
from support.files import write_atomically, writing
from support.locks import Lock
from support.paths import cache_dir, called, is_url, with_suffix
from support.version import package_version

if TYPE_CHECKING:
    from pipeline.run.mirror import Mirror

NAME = RUN
SCHEMA = 1
STATUSES = ("done", "from cache", "kept", "duplicate", "failed", "not done")
UNFINISHED = ("failed", "not done")
LOCK = ".run.lock"
OFTEN = 10.0  # seconds between two writes while the run goes on


class RunReport:
    """The outcomes of a run, in the order of its videos.

    The files describe the whole folder: rows of this run replace older ones, and rows of other videos stay.
    """

    def __init__(self, command: str, jobs: Sequence[Job], out: Path | None, mirror: Mirror | None = None):
        """`mirror`: what puts the folder's files into a store."""
        self.command, self.out, self.mirror = command, out, mirror
        self.errors: list[Exception] = []
        """the errors of the videos that failed in this run"""
        self.finished = 0
        """videos of this run that did not fail"""
        self.computed = 0.0
        """seconds of video that were extracted in this run"""
        self.messages: list[str] = []
        """what is wrong with files of the folder, a sentence each"""
        self._began, self._began_at = time.monotonic(), _now()
        self.rows = {job.name.as_posix(): self._row(job, "not done") for job in jobs}
        self._before = {} if out is None else {row["name"]: row for row in self._there()}
        self._written = self._began

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a video; it reaches the disk within seconds."""
        row = self._row(outcome.job, status(outcome), outcome.seconds)
        if outcome.error is not None:
            row["error"] = called(str(outcome.error))
        if outcome.messages:
            row["notes"] = list(map(called, outcome.messages))
        if isinstance(outcome.error, Bug):
            row["traceback"] = called(outcome.error.traceback)
        if outcome.duplicate_of is not None:
            row["duplicate_of"] = str(outcome.duplicate_of.video)
        if outcome.result is not None:
            row |= {"segments": len(outcome.result.segments), "partial": outcome.result.partial}
        self.rows[row["name"]] = row
        # Not the outcome itself: 100,000 results do not fit into memory.
        self.errors += [] if outcome.error is None else [outcome.error]
        self.finished += outcome.error is None
        self.computed += outcome.seconds if row["status"] == "done" else 0.0
        if time.monotonic() - self._written > OFTEN:
            self.write()

    @property
    def counts(self) -> Counter[str]:
        """How many videos of this run have each status."""
        return Counter(row["status"] for row in self.rows.values())

    @property
    def seconds(self) -> float:
        """Seconds of video of this run that have a result."""
        return _seconds(self.rows.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def write(self, interrupted: bool = False) -> None:
        """Write `_run.json`.

        Raises:
            OutputError, DiskFull: the file cannot be written.
        """
        self._written = time.monotonic()
        if self.out is None:
            return
        with _exclusive(self.out):
            rows = self._merged(self._there())
            counts = Counter(row["status"] for row in rows)
            document = {
                "schema": SCHEMA,
                "command": self.command,
                "version": package_version("jcdnet"),
                "began": self._began_at,
                "ended": _now(),
                "interrupted": interrupted,
                "totals": {name: counts[name] for name in STATUSES},
                "seconds": round(_seconds(rows), 3),
                "seconds_computed": round(self.computed, 3),
                "elapsed": round(self.elapsed, 3),
                "times_real_time": round(self.computed / max(self.elapsed, 1e-9), 3),
                "videos": rows,
            }
            # In ASCII: names that are not UTF-8 reach Python as lone surrogates, which UTF-8 cannot encode.
            with writing(self.out / NAME):
                write_atomically(self.out / NAME, json.dumps(document, indent=2).encode())
            if self.mirror is not None:
                self.mirror.push_file(NAME)

    def write_segments(self) -> None:
        """Write `segments.csv`: the segments of all results in the folder, each content once.

        It is made from the result files, so it also has results of other runs and the user's corrections.

        Raises:
            OutputError, DiskFull: the file cannot be written.
        """
        if self.out is None:
            return
        with _exclusive(self.out):  # another run might write a newer file between our reading and writing
            text = io.StringIO()
            write_csv([stored.result for stored in self.results()], text, clocks=True)
            with writing(self.out / "segments.csv"):
                write_atomically(self.out / "segments.csv", text.getvalue().encode())
            if self.mirror is not None:
                self.mirror.push_file("segments.csv")

    def results(self) -> list[Stored]:
        """Return all results in the folder, each content once, under the name that it has in this run."""
        if self.out is None:
            return []
        if self.mirror is not None:
            self.mirror.pull_results()
        own = {name for name, row in self.rows.items() if row["status"] != "duplicate"}
        found, problems = standing(self.out, own)
        self.messages += [problem for problem in problems if problem not in self.messages]
        return found

    def _row(self, job: Job, status: str, seconds: float = 0.0) -> dict[str, Any]:
        row = {"video": str(job.video), "name": job.name.as_posix(), "status": status, "seconds": round(seconds, 3)}
        return row | {"run": self._began_at}

    def _there(self) -> list[dict[str, Any]]:
        """The rows of the report in the folder; if that is no report of ours, none, and a message says so."""
        assert self.out is not None
        if self.mirror is not None:
            self.mirror.refresh(NAME)
        try:
            return read_rows(self.out / NAME)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{self.out / NAME}: was not a report of a run ({error}) and is written anew."
            self.messages += [message] if message not in self.messages else []
            return []

    def _merged(self, there: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """These rows, replaced by ours where we have one; rows whose results were deleted since are left out."""
        ours = {_absolute(row) for row in self.rows.values()}

        def stays(row: dict[str, Any]) -> bool:
            if row["name"] in self.rows:
                return True
            failed_otherwise = (
                row["status"] in UNFINISHED and _absolute(row) in ours
            )  # under the name it had in another run
            return self._stands(row) and not failed_otherwise

        rows = {row["name"]: row for row in there if stays(row)}
        for name, row in self.rows.items():
            theirs = rows.get(name)
            new = theirs is not None and theirs != self._before.get(name) and theirs.get("run") != self._began_at
            if not (new and row["status"] == "not done"):  # another run did this video meanwhile
                rows[name] = row
        return list(rows.values())

    def _stands(self, row: dict[str, Any]) -> bool:
        assert self.out is not None
        target = self.out / row["name"]
        # os.path.exists, because Path.exists raises where a name is too long.
        there = (os.path.exists(with_suffix(target, end)) for end in (".json", ".npz"))  # noqa: PTH110
        return row["status"] in UNFINISHED or any(there)


def status(outcome: Outcome) -> str:
    """Return the status of an outcome, one of STATUSES."""
    if outcome.error is not None:
        return "failed"
    if outcome.duplicate_of is not None:
        return "duplicate"
    if outcome.skipped:
        return "kept"
    return "from cache" if outcome.cached else "done"


def summed_up(counts: Mapping[str, int]) -> str:
    """Say how many videos are done, and where their results (or features) came from.

    counts: videos of a run by their status, of STATUSES.
    """
    ways = {
        "done": "new",
        "from cache": "from cached features",
        "kept": "there before",
        "duplicate": "the same as another",
    }
    fine = {way: counts[name] for name, way in ways.items() if counts.get(name)}
    total, good = sum(counts.values()), sum(fine.values())
    how = ", ".join(f"{count} {way}" if len(fine) > 1 else f"all {way}" for way, count in fine.items())
    of = f"all {total}" if good == total else f"{good} of {total}"
    bad = "".join(f", {counts[name]} {name}" for name in ("failed", "not done") if counts.get(name))
    return f"{of} videos are done{f' ({how})' if how else ''}{bad}"


def failed_before(out: Path, jobs: Sequence[Job]) -> list[Job]:
    """Return those of these videos that failed or were not reached last time, by the report in `out`.

    Raises:
        UsageError: there is no report, or it is damaged.
    """
    path = out / NAME
    try:
        rows = read_rows(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no report of an earlier run; run without --retry-failed first.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a report of a run ({error}); run without --retry-failed.") from error
    status = {row["name"]: row["status"] for row in rows}
    failed = {_absolute(row) for row in rows if row["status"] in UNFINISHED}  # also under the names of other runs
    return [
        job
        for job in jobs
        if status.get(name := job.name.as_posix()) in UNFINISHED
        or (name not in status and _absolute({"video": job.video}) in failed)
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a report, one for each video.

    Raises:
        OSError: the file cannot be read.
        ValueError, KeyError, TypeError: it is not a report.
    """
    rows = [dict(row) for row in json.loads(path.read_bytes())["videos"]]
    for row in rows:
        row |= {"name": str(row["name"]), "status": str(row["status"]), "seconds": float(row["seconds"])}
    return rows


def speeds() -> dict[str, float]:
    """Return the speeds of earlier runs on this machine, × real time, by `speed_key`."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((cache_dir() / "speed.json").read_bytes())
        return {str(name): float(value) for name, value in found.items() if float(value) > 0}
    return {}


def remember_speed(key: str, speed: float) -> None:
    """Remember, for `--dry-run`, how fast a run was after its start, × real time."""
    with contextlib.suppress(OSError):
        found = speeds() | {key: round(speed, 3)}
        write_atomically(cache_dir() / "speed.json", json.dumps(found).encode())


def _absolute(row: Mapping[str, Any]) -> str:
    video = str(row.get("video"))
    return video if is_url(video) else os.path.abspath(video)  # noqa: PTH100


def _seconds(rows: Iterable[dict[str, Any]]) -> float:
    return float(sum(row["seconds"] for row in rows if row["status"] != "duplicate"))


@contextlib.contextmanager
def _exclusive(out: Path) -> Iterator[None]:
    """Keep other runs from changing the report or the table of this folder until the block ends."""
    lock = Lock(out / LOCK)
    with writing(out / NAME):
        lock.wait()
    with lock.held():
        yield


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

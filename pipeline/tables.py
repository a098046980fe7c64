"""Results as tables: `segments.parquet` and `videos.parquet`, folders of part files that many processes can add to.

A video is done when `videos.parquet` has its row, so "nothing was found" is known, too. The segments are written first:
a process that is killed in between leaves segments of a video without a row; the next run of the video removes them.

In a store, a part appears whole or not at all, and there are no locks. Each process writes its own parts. One run at a
time must be responsible for a video, since the rows that it replaces may stand in a part of an earlier run.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from postprocess.formats.text import encodable
from postprocess.segment import Result
from support.errors import EnvironmentMissing, UsageError
from support.files import identity, is_alive, replacing, sweep, writing
from support.locks import Lock
from support.paths import called
from support.store import StoreError

if TYPE_CHECKING:
    from pipeline.run.mirror import Mirror

VIDEOS, SEGMENTS = "videos.parquet", "segments.parquet"
VIDEO_TYPES = {
    "id": "string",
    "status": "string",
    "error": "string",
    "duration": "float64",
    "n_segments": "int64",
    "partial": "bool",
    "warnings": "string",
    "model": "string",
    "provenance": "string",
    "content": "string",
}
SEGMENT_TYPES = {
    "id": "string",
    "start": "float64",
    "end": "float64",
    "label": "string",
    "sport": "string",
    "confidence": "float64",
    "score": "float64",
    "model": "string",
}
DONE, FAILED = "done", "failed"
ROWS = 5000  # videos in a part; a process writes its last part anew until it is full
OFTEN = 30.0  # seconds between two writes; a killed run loses the rows of this time
LOCK = ".tables.lock"


def made_by(provenance: Mapping[str, Any]) -> str:
    """A hash of everything but the video that decides a result: the model, the settings and the versions.

    Two videos of one run have the same; what the user called default and what a setting came from does not matter.
    """
    rest = {name: value for name, value in provenance.items() if name not in ("content", "asked")}
    text = json.dumps(rest, sort_keys=True, default=list)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def video_row(name: str, result: Result | None, error: Exception | None) -> dict[str, Any]:
    """The row of a video in `videos.parquet`. It failed if there is no result; no value is None."""
    name = encodable(name)
    if result is None:
        empty = dict.fromkeys(("warnings", "model", "provenance", "content"), "")
        rest = {"error": encodable(called(str(error or ""))), "duration": 0.0, "n_segments": 0, "partial": False}
        return {"id": name, "status": FAILED, **rest, **empty}
    return {
        "id": name,
        "status": DONE,
        "error": "",
        "duration": round(result.duration, 3),
        "n_segments": len(result.segments),
        "partial": result.partial,
        "warnings": encodable("\n".join(result.warnings)),
        "model": encodable(_model(result)),
        "provenance": made_by(result.provenance),
        "content": str(result.provenance.get("content", "")),
    }


def segment_rows(name: str, result: Result | None) -> list[dict[str, Any]]:
    """The rows of a video in `segments.parquet`. Numbers are rounded as in the result's JSON.

    The sport is that of the result: "unsure" if it is not sure, "" if the model groups no classes.
    """
    found = [] if result is None else result.to_dict()["segments"]
    model = "" if result is None else _model(result)
    rest = {"id": encodable(name), "model": encodable(model)}
    return [
        {**rest, **segment, "label": encodable(segment["label"]), "sport": segment.get("sport", "")}
        for segment in found
    ]


def segments_text(result: Result | None) -> str:
    """The segments of a video as JSON, without its id and the model."""
    rows = ({k: v for k, v in row.items() if k not in ("id", "model")} for row in segment_rows("", result))
    return json.dumps(list(rows), ensure_ascii=False)


def _model(result: Result) -> str:
    model = result.provenance.get("model")
    return str(model.get("name", "")) if isinstance(model, dict) else ""


def arrow() -> ModuleType:
    """PyArrow with its Parquet module.

    Raises:
        EnvironmentMissing: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise EnvironmentMissing("-f parquet and --resume-from need pyarrow: pip install pyarrow.") from error
    found: ModuleType = pyarrow
    return found


@dataclass(frozen=True)
class Row:
    """What the tables know of a video."""

    done: bool
    provenance: str
    part: str
    """name of the part file"""


def read_rows(folder: Path, wanted: Collection[str] | None = None) -> dict[str, Row]:
    """The videos in the tables of a folder, by id; of `wanted` ids only, if they are given.

    Raises:
        UsageError: a part cannot be read.
        EnvironmentMissing: pyarrow is not installed.
    """
    found: dict[str, Row] = {}
    for path in _parts(folder, VIDEOS):
        table = _read(path, ["id", "status", "provenance"])
        for name, status, provenance in zip(*(table[c].to_pylist() for c in table.column_names), strict=True):
            if wanted is None or name in wanted:
                found[name] = Row(status == DONE, provenance, path.name)
    return found


def finished(
    folder: Path, provenance: str, wanted: Collection[str], mirror: Mirror | None = None
) -> tuple[set[str], int]:
    """(ids that are done, number of ids that are done otherwise) by the tables of a folder, for `--resume-from`.

    Args:
        provenance: `made_by` of this run; a row with another one comes from another model, setting or version.
        mirror: what fetches the folder's files from a store.

    Raises:
        UsageError: the folder has no tables, or a part cannot be read.
        StoreError: the store cannot be read.
        EnvironmentMissing: pyarrow is not installed.
    """
    if not (folder / VIDEOS).is_dir():
        raise UsageError(f"{folder}: has no {VIDEOS}; give the folder of an earlier `run -o FOLDER -f parquet`.")
    if mirror is not None:
        mirror.pull_below(VIDEOS)
    rows = read_rows(folder, wanted)
    done = {name for name, row in rows.items() if row.done}
    same = {name for name in done if rows[name].provenance == provenance}
    return same, len(done - same)


class Tables:
    """The tables of an output folder, to which this process adds rows."""

    def __init__(self, folder: Path, ids: Collection[str], mirror: Mirror | None = None) -> None:
        """Open the tables, and remove what killed processes left half written.

        Args:
            ids: the videos of this run; rows that one of them has already are replaced.
            mirror: what puts the folder's files into a store.

        Raises:
            OutputError, DiskFull: the folder cannot be written.
            StoreError: the store cannot be read or written.
            UsageError: a part that is there cannot be read.
            EnvironmentMissing: pyarrow is not installed.
        """
        # PyArrow imports pandas, if it is installed, when it converts its first rows: 40 MB. A long run takes them now.
        arrow().array([""])
        self.folder, self.mirror = folder, mirror
        self.videos: list[dict[str, Any]] = []
        self.segments: list[dict[str, Any]] = []
        self.name, self.fresh, self.late, self._written = _new_name(), 0, False, time.monotonic()
        if mirror is not None:
            mirror.prove()
        with writing(folder, "choose another folder with -o"):
            for table in (VIDEOS, SEGMENTS):
                (folder / table).mkdir(parents=True, exist_ok=True)
                sweep(folder / table)
        wanted = set(ids)
        self.there: dict[str, set[str]] = defaultdict(set)
        """by id, the names of the parts with rows of earlier runs"""
        with self._alone():
            self._look(wanted)

    def _look(self, wanted: set[str]) -> None:
        """Find the rows that the videos of this run have already."""
        for table in (VIDEOS, SEGMENTS):
            if self.mirror is not None:
                self.mirror.pull_below(table)
        for part in _parts(self.folder, SEGMENTS):
            known = self.folder / VIDEOS / part.name
            whole = set(_read(known, ["id"])["id"].to_pylist()) if known.exists() else set()
            if is_alive(_writer(part)) is False:
                self._keep(SEGMENTS, part.name, whole)
            # Of a machine that was lost: whoever runs the video again removes them.
            elif part.exists() and (torn := wanted & (set(_read(part, ["id"])["id"].to_pylist()) - whole)):
                for name in torn:
                    self.there[name].add(part.name)
        for name, row in read_rows(self.folder, wanted).items():
            self.there[name].add(row.part)

    def add(self, name: str, result: Result | None, error: Exception | None = None) -> None:
        """Add the row of a video and its segments; they reach the disk within OFTEN seconds of further rows.

        While a store does not answer, rows wait here; `flush` at the end says so if it never does.
        """
        self.videos.append(video_row(name, result, error))
        self.segments += segment_rows(name, result)
        self.fresh += 1
        if (len(self.videos) >= ROWS and not self.late) or time.monotonic() - self._written > OFTEN:
            try:
                self.flush()
            except StoreError:
                self.late = True

    def flush(self) -> None:
        """Write what is not written yet. A part that is full is left behind, and the next one begun.

        Raises:
            OutputError, DiskFull: the folder cannot be written.
            StoreError: the store cannot be written; the rows stay here.
        """
        if not self.fresh:
            return
        self._written = time.monotonic()
        self._replace([row["id"] for row in self.videos[-self.fresh :]])
        for table, rows, types in ((SEGMENTS, self.segments, SEGMENT_TYPES), (VIDEOS, self.videos, VIDEO_TYPES)):
            _write(self.folder / table / self.name, rows, types)
            self._put(table, self.name)
        self.fresh, self.late, self._written = 0, False, time.monotonic()
        if len(self.videos) >= ROWS:
            self.videos, self.segments, self.name = [], [], _new_name()

    def _replace(self, names: Iterable[str]) -> None:
        """Remove the rows that these videos have from earlier runs; a kill in between costs a row that is made anew."""
        old: dict[str, set[str]] = defaultdict(set)
        for name in names:
            for part in self.there.get(name, ()):
                old[part].add(name)
        if not old:
            return
        with self._alone():
            for part, gone in old.items():
                for table in (VIDEOS, SEGMENTS):
                    path = self.folder / table / part
                    if self.mirror is not None:
                        self.mirror.pull_file(f"{table}/{part}")
                    if path.exists():
                        self._keep(table, part, set(_read(path, ["id"])["id"].to_pylist()) - gone)
                for name in gone:
                    self.there[name].discard(part)

    def _keep(self, table: str, part: str, names: Collection[str]) -> None:
        """Keep the rows of these ids alone; a part without any is removed."""
        path, pyarrow = self.folder / table / part, arrow()
        rows = _read(path)
        kept = rows.filter(pyarrow.compute.is_in(rows["id"], pyarrow.array(list(names), pyarrow.string())))
        if kept.num_rows == rows.num_rows and kept.num_rows:
            return
        if kept.num_rows:
            _write(path, kept, {})
        else:
            path.unlink(missing_ok=True)
        self._put(table, part)

    def _put(self, table: str, part: str) -> None:
        if self.mirror is not None:
            self.mirror.push_file(f"{table}/{part}")

    def _alone(self) -> Any:
        lock = Lock(self.folder / LOCK)
        with writing(self.folder / VIDEOS, "choose another folder with -o"):
            lock.wait()
        return lock.held()


def _new_name() -> str:
    return f"part-{identity()}-{uuid.uuid4().hex[:8]}.parquet"


def _writer(part: Path) -> str:
    return part.stem.removeprefix("part-").rpartition("-")[0]


def _parts(folder: Path, table: str) -> list[Path]:
    return sorted((folder / table).glob("part-*.parquet"))


def _read(path: Path, columns: list[str] | None = None) -> Any:
    try:
        return arrow().parquet.ParquetFile(path).read(columns)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error}); remove it, and its videos are run again.") from error
    except (arrow().ArrowException, KeyError) as error:
        raise UsageError(
            f"{path}: is no part of our tables ({error}); remove it, and its videos are run again."
        ) from error


def _write(path: Path, rows: list[dict[str, Any]] | Any, types: Mapping[str, str]) -> None:
    pyarrow = arrow()
    with writing(path), replacing(path) as temporary:
        if isinstance(rows, list):
            schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in types.items()])
            rows = pyarrow.Table.from_pylist(rows, schema=schema)
        pyarrow.parquet.write_table(rows, temporary)

"""Results as tables: `segments.parquet` and `videos.parquet`, folders of part files that many processes can add to.

A video is done when `videos.parquet` has its row, so "nothing was found" is known, too. The segments are written first:
a process that is killed in between leaves segments of a video without a row, and the next run removes them.
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
from typing import Any

from postprocess.formats.text import encodable
from postprocess.segment import Result
from support.errors import EnvironmentMissing, UsageError
from support.files import identity, is_alive, replacing, sweep, writing
from support.locks import Lock

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
        rest = {"error": encodable(str(error or "")), "duration": 0.0, "n_segments": 0, "partial": False}
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


def finished(folder: Path, provenance: str, wanted: Collection[str]) -> tuple[set[str], int]:
    """(ids that are done, number of ids that are done otherwise) by the tables of a folder, for `--resume-from`.

    `provenance`: `made_by` of this run; a row with another one comes from another model, setting or version.

    Raises:
        UsageError: the folder has no tables, or a part cannot be read.
        EnvironmentMissing: pyarrow is not installed.
    """
    if not (folder / VIDEOS).is_dir():
        raise UsageError(f"{folder}: has no {VIDEOS}; give the folder of an earlier `run -o FOLDER -f parquet`.")
    rows = read_rows(folder, wanted)
    done = {name for name, row in rows.items() if row.done}
    same = {name for name in done if rows[name].provenance == provenance}
    return same, len(done - same)


class Tables:
    """The tables of an output folder, to which this process adds rows."""

    def __init__(self, folder: Path, ids: Collection[str]) -> None:
        """Open the tables, and remove what killed processes left half written.

        `ids`: the videos of this run; a row that one of them has already is replaced.

        Raises:
            OutputError, DiskFull: the folder cannot be written.
            UsageError: a part that is there cannot be read.
            EnvironmentMissing: pyarrow is not installed.
        """
        arrow()
        self.folder = folder
        self.videos: list[dict[str, Any]] = []
        self.segments: list[dict[str, Any]] = []
        self.name, self.fresh, self._written = _new_name(), 0, time.monotonic()
        with writing(folder, "choose another folder with -o"):
            for table in (VIDEOS, SEGMENTS):
                (folder / table).mkdir(parents=True, exist_ok=True)
                sweep(folder / table)
        with self._alone():
            for part in _parts(folder, SEGMENTS):
                if is_alive(_writer(part)) is False:
                    known = folder / VIDEOS / part.name
                    _keep(part, _read(known, ["id"])["id"].to_pylist() if known.exists() else ())
        self.there = read_rows(folder, set(ids))

    def add(self, name: str, result: Result | None, error: Exception | None = None) -> None:
        """Add the row of a video and its segments; they reach the disk within OFTEN seconds of further rows."""
        self.videos.append(video_row(name, result, error))
        self.segments += segment_rows(name, result)
        self.fresh += 1
        if len(self.videos) >= ROWS or time.monotonic() - self._written > OFTEN:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet. A part that is full is left behind, and the next one begun.

        Raises:
            OutputError, DiskFull: the folder cannot be written.
        """
        self._written = time.monotonic()
        if not self.fresh:
            return
        self._replace([row["id"] for row in self.videos[-self.fresh :]])
        _write(self.folder / SEGMENTS / self.name, self.segments, SEGMENT_TYPES)
        _write(self.folder / VIDEOS / self.name, self.videos, VIDEO_TYPES)
        self.fresh = 0
        if len(self.videos) >= ROWS:
            self.videos, self.segments, self.name = [], [], _new_name()

    def _replace(self, names: Iterable[str]) -> None:
        """Remove the rows that these videos have from earlier runs; a kill in between costs a row that is made anew."""
        old: dict[str, set[str]] = defaultdict(set)
        for name in names:
            if (row := self.there.pop(name, None)) is not None:
                old[row.part].add(name)
        if old:
            with self._alone():
                for part, gone in old.items():
                    for table in (VIDEOS, SEGMENTS):
                        if (path := self.folder / table / part).exists():
                            _keep(path, set(_read(path, ["id"])["id"].to_pylist()) - gone)

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


def _keep(path: Path, names: Collection[str]) -> None:
    """Keep the rows of these ids alone; a part without any is removed."""
    table, pyarrow = _read(path), arrow()
    kept = table.filter(pyarrow.compute.is_in(table["id"], pyarrow.array(list(names), pyarrow.string())))
    if kept.num_rows == table.num_rows and kept.num_rows:
        return
    if kept.num_rows:
        _write(path, kept, {})
    else:
        path.unlink(missing_ok=True)

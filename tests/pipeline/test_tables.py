"""Tables of results: what stands in them, who opens them, and that each video is in them exactly once."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import coded, encode, small_checkpoint

from extractors.backbones import weights
from model import checkpoint
from pipeline import shards, tables
from pipeline.run.videos import Job
from pipeline.tables import SEGMENTS, VIDEOS, Tables, made_by, read_rows
from postprocess.segment import Result, Segment
from support.errors import EnvironmentMissing, UsageError

pyarrow = pytest.importorskip("pyarrow")
PROVENANCE = {"content": "sha256:x", "model": {"name": "m", "fingerprint": "f"}, "asked": [], "range": [0.0, None]}


def result(name: str, *labels: str, warnings: tuple[str, ...] = (), **provenance: Any) -> Result:
    found = tuple(
        Segment(float(k), k + 1.23456, 2.0, 0.5, label, "tennis" if label == "serve" else "")
        for k, label in enumerate(labels)
    )
    return Result(name, 9.5, {}, found, warnings, PROVENANCE | provenance)


def read(folder: Path, table: str) -> list[dict[str, Any]]:
    parts = sorted((folder / table).glob("*.parquet"))
    rows = [row for part in parts for row in pyarrow.parquet.ParquetFile(part).read().to_pylist()]
    return sorted(rows, key=lambda row: (row["id"], row.get("start", 0)))


def test_what_stands_in_the_tables(tmp_path: Path) -> None:
    made = Tables(tmp_path, ())
    made.add("a.mp4", result("a.mp4", "serve", "volley", warnings=("one.", "two.")))
    made.add("nothing found.mp4", result("b.mp4"))
    made.add("bad.mp4", None, UsageError("bad.mp4: cannot be read; check it."))
    made.add("caf\udce9.mp4", result("c.mp4"))  # a name that is no UTF-8
    made.flush()
    bad, serve, escaped, nothing = read(tmp_path, VIDEOS)[1], *(read(tmp_path, VIDEOS)[k] for k in (0, 2, 3))
    assert serve == {
        "id": "a.mp4",
        "status": "done",
        "error": "",
        "duration": 9.5,
        "n_segments": 2,
        "partial": False,
        "warnings": "one.\ntwo.",
        "model": "m",
        "provenance": made_by(PROVENANCE),
        "content": "sha256:x",
    }
    assert (bad["status"], bad["error"], bad["n_segments"]) == ("failed", "bad.mp4: cannot be read; check it.", 0)
    assert (nothing["status"], nothing["n_segments"]) == ("done", 0) and escaped["id"] == "caf\\udce9.mp4"
    rows = read(tmp_path, SEGMENTS)
    assert [(r["id"], r["label"], r["sport"], r["end"]) for r in rows] == [
        ("a.mp4", "serve", "tennis", 1.235),
        ("a.mp4", "volley", "", 2.235),
    ]


def test_pandas_is_loaded_at_the_start_and_not_by_the_first_rows(tmp_path: Path) -> None:
    """PyArrow loads it, 40 MB, when it first converts something: hours later the machine's memory may be full."""
    code = """if True:
        import sys
        from pathlib import Path
        from pipeline.tables import Tables
        made = Tables(Path(sys.argv[1]), ())
        before = "pandas" in sys.modules
        made.add("a.mp4", None, ValueError("no"))
        made.flush()
        print(before, "pandas" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_pandas_and_duckdb_open_them(tmp_path: Path) -> None:
    import duckdb
    import pandas

    for k in range(3):  # three writers
        made = Tables(tmp_path, ())
        made.add(f"{k}.mp4", result(f"{k}.mp4", *["serve"] * k))
        made.flush()
    frame = pandas.read_parquet(tmp_path / VIDEOS)
    assert sorted(frame["id"]) == ["0.mp4", "1.mp4", "2.mp4"] and frame["n_segments"].sum() == 3
    query = f"""
        select v.id, count(s.label) from '{tmp_path / VIDEOS}/*.parquet' v
        left join '{tmp_path / SEGMENTS}/*.parquet' s using (id) group by v.id order by v.id
    """
    assert duckdb.sql(query).fetchall() == [("0.mp4", 0), ("1.mp4", 1), ("2.mp4", 2)]


def test_a_part_grows_until_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 4)
    made = Tables(tmp_path, ())
    for k in range(10):
        made.add(str(k), result(str(k), "serve"))
        made.flush()
        assert len(made.videos) < 4
    assert len(list((tmp_path / VIDEOS).iterdir())) == 3
    assert Counter(row["id"] for row in read(tmp_path, VIDEOS)) == Counter(map(str, range(10)))
    assert len(read(tmp_path, SEGMENTS)) == 10


def test_a_video_that_is_run_again_has_one_row(tmp_path: Path) -> None:
    made = Tables(tmp_path, ())
    made.add("a", None, UsageError("bad."))
    made.add("b", result("b", "serve"))
    made.flush()
    again = Tables(tmp_path, ("a", "b", "c"))
    again.add("a", result("a", "serve"))
    again.add("b", result("b", "volley", "serve"))
    again.flush()
    assert [(row["id"], row["status"], row["n_segments"]) for row in read(tmp_path, VIDEOS)] == [
        ("a", "done", 1),
        ("b", "done", 2),
    ]
    assert [(row["id"], row["label"]) for row in read(tmp_path, SEGMENTS)] == [
        ("a", "serve"),
        ("b", "volley"),
        ("b", "serve"),
    ]
    assert len(list((tmp_path / VIDEOS).iterdir())) == 1  # the part that became empty is gone


def test_what_a_killed_writer_left_half_written_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between its two tables: the segments of a video without a row."""
    made = Tables(tmp_path, ())
    made.add("a", result("a", "serve"))
    made.flush()
    made.add("b", result("b", "serve"))

    def killed(path: Path, *more: Any) -> None:
        if path.parent.name == VIDEOS:
            raise KeyboardInterrupt
        honest(path, *more)

    honest = tables._write
    monkeypatch.setattr(tables, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        made.flush()
    monkeypatch.setattr(tables, "_write", honest)
    Tables(tmp_path, ())
    assert len(read(tmp_path, SEGMENTS)) == 2  # its writer, this process, lives
    monkeypatch.setattr(tables, "is_alive", lambda who: False)
    Tables(tmp_path, ())
    assert [row["id"] for row in read(tmp_path, SEGMENTS)] == ["a"]
    assert set(read_rows(tmp_path)) == {"a"}


def test_what_counts_as_made_the_same_way() -> None:
    same = made_by(PROVENANCE)
    assert made_by(PROVENANCE | {"content": "other", "asked": ["device"]}) == same
    assert made_by(json.loads(json.dumps(PROVENANCE | {"range": (0.0, None)}))) == same
    assert made_by(PROVENANCE | {"range": [1.0, None]}) != same


def test_without_pyarrow_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(EnvironmentMissing, match="need pyarrow: pip install pyarrow"):
        tables.arrow()


def test_a_damaged_part_is_said(tmp_path: Path) -> None:
    (tmp_path / VIDEOS).mkdir()
    (tmp_path / VIDEOS / "part-x.parquet").write_text("text")
    with pytest.raises(UsageError, match=r"part-x.parquet: is no part of our tables .*; remove it, and its videos"):
        read_rows(tmp_path)


# --- shards -----------------------------------------------------------------------------------------------------------


def test_shards_share_everything_and_nothing_twice() -> None:
    jobs = [Job(Path(f"/mnt/{k % 3}/v{k}.mp4"), Path(f"{k % 3}/v{k}")) for k in range(1000)]
    for count in (1, 2, 7):
        found = [shards.share(jobs, f"{k}/{count}") for k in range(1, count + 1)]
        assert sorted(job.name for shard in found for job in shard) == sorted(job.name for job in jobs)
        assert min(map(len, found)) > 0.7 * 1000 / count  # by chance within a few per cent of one another


def test_a_shard_is_the_same_wherever_the_folder_is() -> None:
    """By hand: the first 8 bytes of SHA-256 of "day/a.mp4", modulo the count."""
    import hashlib

    number = int(hashlib.sha256(b"day/a.mp4").hexdigest()[:16], 16) % 10 + 1
    for mount in ("/mnt/footage", "/data", "."):
        job = Job(Path(mount, "day/a.mp4"), Path("day/a"))
        assert shards.id_of(job) == "day/a.mp4" and shards.share([job], f"{number}/10") == [job]
    assert shards.id_of(Job(Path("x/a.mov"), Path("day/a.mov"))) == "day/a.mov"
    assert shards.shard_of("caf\u00e9.mp4", 97) == shards.shard_of("cafe\u0301.mp4", 97)


@pytest.mark.parametrize("text", ["3", "0/10", "11/10", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shards_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        shards.parse(text)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four videos, two of one content, and a broken one; the working directory is above it."""
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.toml").write_text("[features]\ncrop = 32\nshort_side = 48\n")
    (tmp_path / "night" / "day").mkdir(parents=True)
    for k, name in enumerate(("a.mp4", "b.mp4", "day/c.mp4")):
        encode(tmp_path / "night" / name, [coded(j + 100 * k) for j in range(20)])
    shutil.copy(tmp_path / "night" / "a.mp4", tmp_path / "night" / "day" / "again.mp4")
    (tmp_path / "night" / "broken.mp4").write_text("text")
    checkpoint.save(small_checkpoint(), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
RUN = ("run", "night", "-o", "out", "--config", "small.toml", "--model", "model.safetensors", "-f", "parquet")


@needs_weights
def test_a_run_into_tables_and_what_is_resumed(jcdnet: Any, night: Path) -> None:
    everything = ["a.mp4", "b.mp4", "broken.mp4", "day/again.mp4", "day/c.mp4"]
    code, _, said = jcdnet(*RUN, "--shard", "1/2")
    assert code in (0, 3) and "note: shard 1/2: " in said
    assert {p.name for p in Path("out").iterdir()} == {VIDEOS, SEGMENTS}  # nothing for each video
    first = {row["id"] for row in read(Path("out"), VIDEOS)}
    assert jcdnet(*RUN, "--shard", "2/2")[0] in (0, 3)
    rows = read(Path("out"), VIDEOS)
    assert [row["id"] for row in rows] == everything and set(everything) > first > set()
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done", "done"]
    # What is done is left out, even if its video is gone; what failed is run again.
    os.remove("night/b.mp4")  # noqa: PTH107
    (night / "night" / "broken.mp4").unlink()
    encode(night / "night" / "broken.mp4", [coded(j + 500) for j in range(20)])
    code, shown, said = jcdnet(*RUN, "--resume-from", "out")
    assert code == 0 and "note: 3 videos are done by the tables in out, and are left out." in said
    assert "night/broken.mp4" in shown and "night/a.mp4" not in shown
    rows = read(Path("out"), VIDEOS)
    assert [row["id"] for row in rows] == everything and {row["status"] for row in rows} == {"done"}
    code, shown, said = jcdnet(*RUN, "--resume-from", "out", "--threshold", "0.7")
    assert code == 0 and "4 more are there by another model, setting or version, and are run again." in said
    assert [row["id"] for row in read(Path("out"), VIDEOS)] == everything
    # Beside other formats, and in another folder.
    code, _, _ = jcdnet(*RUN[:3], "other", *RUN[4:-1], "json,parquet", "--resume-from", "out", "--threshold", "0.7")
    assert code == 0 and read(Path("other"), VIDEOS) == []
    document = json.loads(Path("other/_run.json").read_text())
    assert document["videos"] == []
    code, _, _ = jcdnet(*RUN[:3], "other", *RUN[4:-1], "json,parquet")
    assert code == 0 and len(read(Path("other"), VIDEOS)) == 4 and Path("other/day/c.json").exists()


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("-o", "-", "-f", "parquet"), "parquet is a folder of tables; use -o FOLDER"),
        (("-f", "parquet"), "parquet is a folder of tables; use -o FOLDER"),
        (("-o", "x.parquet"), "use -o FOLDER -f parquet"),
        (("-o", "out", "--resume-from", "nowhere"), "nowhere: has no videos.parquet; give the folder of an earlier"),
        (("-o", "out", "--shard", "0/4"), "the shards of 4 are 1/4 to 4/4"),
        (("-o", "out", "-f", "avro"), "unknown format 'avro'; there are: json, "),
    ],
)
def test_wrong_usage_is_one_sentence(jcdnet: Any, night: Path, flags: tuple[str, ...], cause: str) -> None:
    code, _, said = jcdnet("run", "night", "--config", "small.toml", "--model", "model.safetensors", *flags)
    assert code == 2 and said.count("error: ") == 1 and cause in said
    assert not Path("out").exists()


def test_a_shard_without_videos_is_no_error(jcdnet: Any, night: Path) -> None:
    full = shards.shard_of("a.mp4", 1000)
    code, _, said = jcdnet("run", "night/a.mp4", "-o", "out", "-f", "parquet", "--shard", f"{full % 1000 + 1}/1000")
    assert code == 0 and "0 of 1 videos" in said and not Path("out").exists()

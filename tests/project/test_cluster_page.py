"""docs/cluster.md, from one machine to Ray on S3: its commands and its script, on moto's S3 server and real Ray."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
from stores import free_port, s3

from extractors.backbones import weights

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
ONE_PAGE = 80  # lines
RUNS, AGAIN, SHARDS, START, CLUSTER = "json,parquet", "--resume-from", "--shard", "ray start", "--engine ray"
CLIPS = ("GolfSwing/GolfSwing_001.mp4", "TennisRally/TennisRally_002.mp4", "Street/Street_001.mp4")


def lines(language: str) -> list[str]:
    text = "".join(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    return [line.split("  #")[0].strip() for line in text.splitlines()]


def commands(word: str) -> list[str]:
    return [line for line in lines("bash") if word in line]


def test_it_is_one_page() -> None:
    assert PAGE.count("\n") <= ONE_PAGE
    (script,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(script.splitlines()) <= 20
    ours = [line for line in lines("bash") if line.startswith("python cli.py")]
    assert sorted(ours) == sorted(
        {line for word in (RUNS, AGAIN, SHARDS, "/tables -f parquet", CLUSTER) for line in commands(word)}
    )


@pytest.fixture(scope="module")
def bucket(corpus: Path) -> Iterator[str]:
    """The page's bucket, with three clips, one of them twice, and a file that is no video."""
    pytest.importorskip("moto.server", reason="needs moto[server] and s3fs")
    pytest.importorskip("s3fs", reason="needs moto[server] and s3fs")
    with pytest.MonkeyPatch.context() as patch, s3(patch) as root:
        store = fsspec.filesystem("s3")
        for k, clip in enumerate(CLIPS):
            store.put_file(str(corpus / clip), f"bucket/videos/day{k}/{Path(clip).name}")
        store.put_file(str(corpus / CLIPS[0]), "bucket/videos/again.mp4")
        store.pipe_file("bucket/videos/broken.mp4", b"text")
        yield root


@pytest.fixture(scope="module")
def head(bucket: str) -> Iterator[str]:
    """A Ray head and a second node, started as the page says, with a token."""
    pytest.importorskip("ray", reason="needs ray")
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets must be short
    address = f"127.0.0.1:{free_port()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 48)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
        first, second = commands(START)
        more = "--num-cpus 1 --node-ip-address 127.0.0.1"
        try:
            port = address.rpartition(":")[2]
            start(f"{first.replace('6379', port)} {more} --include-dashboard false --temp-dir {folder}")
            start(f"{second.replace('HEAD:6379', address)} {more}")
            yield address
        finally:
            end(folder)
            shutil.rmtree(folder, ignore_errors=True)


def end(folder: Path) -> None:
    """End the processes of one cluster, which name its folder; `ray stop` would end those of others, too."""
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()):
                process.kill()
        except psutil.Error:
            continue


def start(command: str) -> None:
    program = [sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())"]
    done = subprocess.run([*program, *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def run(command: str, folder: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, on a machine of its own: with an empty cache."""
    words = [sys.executable, *shlex.split(command)[1:], *more]
    environment = os.environ | {"JCDNET_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    for secret in ("AKIATESTTESTTESTTEST", "a-secret-of-the-test-server", "0" * 48):
        assert secret not in done.stdout + done.stderr
    return done


def stored(name: str) -> dict[str, bytes]:
    store = fsspec.filesystem("s3", use_listings_cache=False)
    return {path.removeprefix(f"bucket/{name}/"): store.cat_file(path) for path in store.find(f"bucket/{name}")}


def results(name: str) -> dict[str, bytes]:
    """The files of single videos."""
    found = stored(name)
    return {path: data for path, data in found.items() if ".parquet/" not in path and path != "_run.json"}


def table(name: str) -> list[dict[str, Any]]:
    from pyarrow import BufferReader, parquet

    parts = [data for path, data in stored(name).items() if path.startswith("videos.parquet/")]
    return sorted(
        (row for part in parts for row in parquet.ParquetFile(BufferReader(part)).read().to_pylist()),
        key=lambda row: row["id"],
    )


@pytest.fixture(scope="module")
def alone(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """What step 1 puts into the store."""
    pytest.importorskip("pyarrow")
    if weights.find("i3d-rgb") is None:
        pytest.skip("the I3D weights are not installed")
    (command,) = [line for line in commands(RUNS) if CLUSTER not in line]
    done = run(command, tmp_path_factory.mktemp("alone"))
    assert done.returncode == 3 and "broken.mp4: not a video" in done.stderr, done.stderr
    found = results("results"), table("results")
    assert len([name for name in found[0] if name.endswith(".json")]) == 4
    assert [(row["id"], row["status"]) for row in found[1]] == [
        ("again.mp4", "done"), ("broken.mp4", "failed"), ("day0/GolfSwing_001.mp4", "done"),
        ("day1/TennisRally_002.mp4", "done"), ("day2/Street_001.mp4", "done"),
    ]  # fmt: skip
    fsspec.filesystem("s3").rm("bucket/results", recursive=True)
    return found


Alone = tuple[dict[str, bytes], list[dict[str, Any]]]


@pytest.mark.slow
def test_tables_their_continuation_and_shards(bucket: str, alone: Alone, tmp_path: Path) -> None:
    first, resumed = commands("/tables -f parquet")[0], commands(AGAIN)[0]
    assert run(first, tmp_path).returncode == 3 and table("tables") == alone[1]
    done = run(resumed, tmp_path)
    assert "4 videos are done by the tables in s3://bucket/tables, and are left out" in done.stderr
    assert table("tables") == alone[1]
    fsspec.filesystem("s3").rm("bucket/tables", recursive=True)
    shards = commands(SHARDS)
    assert len(shards) == 2
    machines = [
        subprocess.Popen(
            [sys.executable, *shlex.split(command)[1:]],
            cwd=ROOT,
            env=os.environ | {"JCDNET_CACHE": str(tmp_path / command[-3]), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in shards
    ]
    assert {machine.wait(600) for machine in machines} <= {0, 3}
    assert table("tables") == alone[1]


@pytest.mark.slow
def test_the_script_of_ray_data(bucket: str, head: str, alone: Alone, tmp_path: Path) -> None:
    from pyarrow import BufferReader, parquet

    (script,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "rows.py").write_text(script)
    assert "`RAY_ADDRESS=HEAD:6379 python rows.py`" in PAGE
    done = run(f"python {tmp_path / 'rows.py'}", tmp_path, RAY_ADDRESS=head)
    assert done.returncode == 0, done.stderr
    rows = [
        row
        for name, part in stored("rows").items()
        if name
        for row in parquet.ParquetFile(BufferReader(part)).read().to_pylist()
    ]
    named = {row["id"]: row for row in rows}
    assert len(rows) == len(named) == 5
    assert [{key: named[row["id"]][key] for key in row} for row in alone[1]] == alone[1]
    for name, row in named.items():
        assert row["json"] == alone[0].get(f"{name.removesuffix('.mp4')}.json", b"")
        assert len(json.loads(row["segments"])) == row["n_segments"]


@pytest.mark.slow
def test_the_command_line_on_ray(bucket: str, head: str, alone: Alone, tmp_path: Path) -> None:
    (command,) = commands(CLUSTER)
    command = command.replace("HEAD:6379", head).replace("/shared/cache", str(tmp_path / "shared"))
    done = run(command, tmp_path)
    assert done.returncode == 3 and "broken.mp4: not a video" in done.stderr, done.stderr
    assert results("results") == alone[0] and table("results") == alone[1]
    again = run(command, tmp_path)  # everything is there
    assert (
        again.returncode == 3
        and "4 of 5 videos are done (3 there before, 1 the same as another), 1 failed" in again.stderr
    ), again.stderr
    assert results("results") == alone[0] and table("results") == alone[1]
    wrong = run(command, tmp_path, RAY_AUTH_TOKEN="1" * 48)
    assert wrong.returncode == 4 and "with the same RAY_AUTH_MODE and token" in " ".join(wrong.stderr.split())

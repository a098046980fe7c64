"""Runs over a store: videos from it, results into it and back, its failures, and secrets that stay out."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from conftest import coded, encode
from stores import Flaky, cut_short, gs, memory, s3

from extractors.backbones import registry
from extractors.backbones.registry import Backbone
from model import checkpoint
from model.config import ModelConfig
from model.train import initialise
from pipeline import tables
from pipeline.cache import spool
from pipeline.cache.content import at_hand, content_hash, video_at
from pipeline.run import mirror
from pipeline.run.mirror import Mirror
from pipeline.run.videos import find_videos
from pipeline.tables import SEGMENTS, VIDEOS, Tables
from postprocess.segment import Result, Segment
from support import store
from support.errors import UserError
from support.files import identity, scratch_folder
from support.store import StoreError

ROOT = Path(__file__).parents[3]


class Means(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4)).repeat(1, 342)[:, :1024]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of two small videos and of a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    found = {}
    for k, name in enumerate(("day1/a.mp4", "day2/a.mp4")):
        encode(path := folder / f"{k}.mp4", [coded(j + 100 * k) for j in range(40)])
        found[name] = path.read_bytes()
    return found | {"day2/broken.mp4": b"text", "day2/notes.txt": b"text"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with a network that takes no time, a model, an empty cache and an empty spool; where it stands."""
    monkeypatch.setitem(registry.BACKBONES, "i3d", lambda stream, path: Backbone(Means, 1024, "means"))
    model = initialise(ModelConfig(classes=2, in_dim=1024, dim=8), ("serve", "volley"), ("rgb",), {}, seed=0)
    checkpoint.save(model, tmp_path / "model.safetensors")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(spool, "_SPOOL", spool._Spool())
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(spool.LIMIT, raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def flaky(machine: Path, monkeypatch: pytest.MonkeyPatch, videos: dict[str, bytes]) -> Iterator[type[Flaky]]:
    with memory(monkeypatch) as found:
        fill("memory://bucket", videos)
        yield found


def fill(root: str, files: dict[str, bytes]) -> None:
    fs, path = fsspec.url_to_fs(root)
    for name, data in files.items():
        fs.pipe_file(f"{path}/{name}", data)


def in_store(root: str = "memory://bucket/out") -> dict[str, bytes]:
    fs, path = fsspec.url_to_fs(root, use_listings_cache=False)
    return {name.split(f"{path}/", 1)[1]: fs.cat_file(name) for name in fs.find(path)}


def rows(root: str = "memory://bucket/out") -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(in_store(root)["_run.json"])["videos"]}


MODEL = ("--model", "model.safetensors", "--all", "--threshold", "0")
Run = Callable[..., tuple[int, str, str]]


def over_a_store(jcdnet: Run, root: str, videos: dict[str, bytes], local: Path) -> None:
    """A run over a store's folder into a store's folder gives what a run on a disk gives, and can be resumed."""
    out = f"{root}/out"
    run = ("run", f"{root}/day1", f"{root}/day2", "-o", out, "-f", "json,csv", *MODEL)
    code, shown, said = jcdnet(*run)
    assert code == 3, said  # of broken.mp4
    assert f"{root}/day1/a.mp4  0:01.60" in shown and f"results are in {out}" in said
    assert f"error: {root}/day2/broken.mp4: not a video" in said
    assert f"{root}/day2: left out what is no video by its name: 1 file (1 .txt)" in said
    assert {name: row["status"] for name, row in rows(out).items()} == {
        "day1/a": "done", "day2/a": "done", "day2/broken": "failed"}  # fmt: skip
    there = in_store(out)
    assert set(there) == {
        "_run.json", "segments.csv",
        *(f"{day}/a{end}" for day in ("day1", "day2") for end in (".json", ".csv", ".scores.npz")),
    }  # fmt: skip
    document = json.loads(there["day1/a.json"])
    assert document["video"] == f"{root}/day1/a.mp4"
    assert f"{root}/day2/a.mp4" in there["segments.csv"].decode()

    for name, data in videos.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(data)
    jcdnet("run", local / "day1", local / "day2", "-o", local / "out", *MODEL, "--cache-dir", local / "cache")
    os.environ["JCDNET_CACHE"] = str(local.parent / "cache")
    same = json.loads((local / "out" / "day1" / "a.json").read_text())
    assert {k: v for k, v in same.items() if k != "video"} == {k: v for k, v in document.items() if k != "video"}

    code, _, said = jcdnet(*run)
    assert code == 3 and {row["status"] for row in rows(out).values()} == {"kept", "failed"}
    after = in_store(out)
    assert all(after[name] == data for name, data in there.items() if name not in ("_run.json", "segments.csv"))

    fs, path = fsspec.url_to_fs(root)
    fs.pipe_file(f"{path}/day2/broken.mp4", videos["day1/a.mp4"] + b"\0")
    code, _, said = jcdnet(*run, "--retry-failed")
    assert code == 0 and rows(out)["day2/broken"]["status"] == "done", said

    code, shown, said = jcdnet("evaluate", "--predictions", out, "--ground-truth", f"{root}/truth.json", "--json")
    assert code == 2 and f"{root}/truth.json: " in said  # there is none
    truth = {"database": {f"{root}/day1/a.mp4": {
        "subset": "test", "annotations": [{"label": "serve", "segment": [0, 1.6]}]}}}  # fmt: skip
    fs.pipe_file(f"{path}/truth.json", json.dumps(truth).encode())
    code, shown, said = jcdnet("evaluate", "--predictions", f"{out}/day1/a.json", "--ground-truth",
                               f"{root}/truth.json", "--json", "--ignore-unknown")  # fmt: skip
    assert code == 0 and json.loads(shown)["predictions"] == 1, said


def test_a_run_over_memory(jcdnet: Run, flaky: type[Flaky], videos: dict[str, bytes], machine: Path) -> None:
    over_a_store(jcdnet, "memory://bucket", videos, machine / "local")


@pytest.fixture
def bucket(machine: Path, monkeypatch: pytest.MonkeyPatch, videos: dict[str, bytes]) -> Iterator[str]:
    """A bucket with the videos on a real S3 server."""
    pytest.importorskip("moto.server", reason="needs moto[server] and s3fs")
    pytest.importorskip("s3fs", reason="needs moto[server] and s3fs")
    with s3(monkeypatch) as root:
        fill(root, videos)
        yield root


def test_a_run_over_s3(jcdnet: Run, bucket: str, videos: dict[str, bytes], machine: Path) -> None:
    over_a_store(jcdnet, bucket, videos, machine / "local")
    code, _, said = jcdnet("run", "s3://nowhere/day1", *MODEL)
    assert code == 3 and "s3://nowhere/day1: " in said and "check the address" in said
    assert b"a-secret-of-the-test-server" not in b"".join(in_store(f"{bucket}/out").values())


def test_a_run_over_google_cloud_storage(
    jcdnet: Run, videos: dict[str, bytes], machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gcp_storage_emulator", reason="needs gcsfs and gcp-storage-emulator")
    pytest.importorskip("gcsfs", reason="needs gcsfs and gcp-storage-emulator")
    with gs(monkeypatch) as root:
        fill(root, videos)
        over_a_store(jcdnet, root, videos, machine / "local")
        code, _, said = jcdnet("run", f"{root}/day1", "-o", f"{root}/tables", "-f", "parquet", *MODEL)
        assert code == 0 and [row["id"] for row in read_table(VIDEOS, f"{root}/tables")] == ["a.mp4"], said
        code, _, said = jcdnet("run", "gs://nowhere/day1", *MODEL)
        assert code == 3 and "gs://nowhere/day1: " in said and "check the address" in said


def test_an_s3_object_that_changes_while_it_is_read(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's own condition (If-Match) fails the second block; the next try reads the new object whole."""
    monkeypatch.setattr(store, "BLOCK", 1 << 16)
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0, 0.0))
    fill(bucket, {"long.mp4": bytes(200_000)})
    changed = []

    def change(stage: str, done: int, total: int) -> None:
        if not changed:
            changed.append(done)
            fill(bucket, {"long.mp4": b"\1" * 200_000})

    found, _ = store.fetch(f"{bucket}/long.mp4", tmp_path / "copy", change)
    assert changed and (tmp_path / "copy").read_bytes() == b"\1" * 200_000 and found.tag.startswith("ETag:")


def test_a_worker_of_its_own_process_reads_s3(jcdnet: Run, bucket: str, machine: Path) -> None:
    """What is sent to workers holds no credentials; they find them where the store's package does."""
    import pickle

    video = video_at(f"{bucket}/day1/a.mp4")
    assert b"AKIA" not in pickle.dumps(video) and b"secret" not in pickle.dumps(video)
    code = "import pickle, sys; from pipeline.cache.spool import content_of; " \
        "print(content_of(pickle.loads(bytes.fromhex(sys.argv[1]))))"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(video).hex()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == content_hash(video), done.stderr


def test_what_is_known_is_not_fetched_again(jcdnet: Run, flaky: type[Flaky], machine: Path) -> None:
    run = ("run", "memory://bucket/day1", *MODEL)
    assert jcdnet(*run)[0] == 0
    flaky.calls.clear()
    code, shown, _ = jcdnet(*run)
    assert code == 0 and "memory://bucket/day1/a.mp4  0:01.60" in shown
    assert not any(what == "open" for what, _ in flaky.calls), flaky.calls
    (entry,) = (machine / "cache" / "urls").rglob("*.json")
    assert json.loads(entry.read_text())["url"] == "memory://bucket/day1/a.mp4"


def test_features_pages_clips_and_pictures(jcdnet: Run, flaky: type[Flaky], machine: Path) -> None:
    code, shown, said = jcdnet("extract", "memory://bucket/day1/a.mp4", "-o", "memory://bucket/features")
    assert code == 0 and shown == "memory://bucket/features/a.npz\t2 snippets\n", said
    assert "a.npz" in in_store("memory://bucket/features")
    jcdnet("extract", "memory://bucket/day1/a.mp4", "-o", "memory://bucket/features")
    assert rows("memory://bucket/features")["a"]["status"] == "kept"

    jcdnet("run", "memory://bucket/day1/a.mp4", "-o", "memory://bucket/one/match.json", *MODEL)
    assert set(in_store("memory://bucket/one")) == {"match.json", "match.scores.npz"}
    code, shown, said = jcdnet("report", "memory://bucket/one/match.json")
    assert code == 0 and shown == "memory://bucket/one/match.html\n", said
    assert set(in_store("memory://bucket/one")) >= {"match.html", "match.proxy.mp4"}
    assert "match.proxy.mp4" in in_store("memory://bucket/one")["match.html"].decode()
    code, shown, said = jcdnet("clips", "memory://bucket/one", "-o", "memory://bucket/clips")
    assert code == 0, said
    assert shown.splitlines() == [f"memory://bucket/clips/{name}" for name in sorted(in_store("memory://bucket/clips"))]
    code, _, said = jcdnet("clips", "memory://bucket/one", "-o", "memory://bucket/clips")
    assert code == 2 and "memory://bucket/clips/" in said and "is there already" in said
    code, shown, said = jcdnet("plot", "memory://bucket/one/match.json", "--frames", "1")
    assert code == 0 and in_store("memory://bucket/one")["match.png"].startswith(b"\x89PNG"), said


def test_an_edited_result_is_kept_beside_the_new_one(jcdnet: Run, flaky: type[Flaky]) -> None:
    run = ("run", "memory://bucket/day1", "-o", "memory://bucket/out", *MODEL)
    jcdnet(*run)
    document = json.loads(in_store()["a.json"])
    document["segments"][0]["label"] = "smash"
    fill("memory://bucket/out", {"a.json": (edited := json.dumps(document).encode())})
    code, _, said = jcdnet(*run, "--overwrite")
    assert code == 0, said
    assert in_store()["a.json.bak"] == edited and b"smash" not in in_store()["a.json"]
    assert "memory://bucket/out/a.json.bak: the a.json from before, kept since" in said


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        ({"open": [TimeoutError("read timeout")] * 9}, "could not be read in 4 tries (TimeoutError: read timeout)"),
        ({"open": [OSError("503 Slow Down")] * 9}, "503 Slow Down); see whether the store works, then run again."),
        ({"open": [cut_short] * 9}, "bytes, and says that there are"),
        ({"open": [FileNotFoundError("gone")] * 9}, "the store has nothing there, or no longer; check the address."),
        ({"open": [PermissionError("denied, key='AKIAIOSFODNN7ZZZZZZZ'")] * 9}, "check the credentials"),
    ],
)
def test_a_store_that_fails_costs_its_videos_alone(
    jcdnet: Run, flaky: type[Flaky], machine: Path, videos: dict[str, bytes], orders: dict[str, list[Any]], said: str
) -> None:
    (machine / "b.mp4").write_bytes(videos["day2/a.mp4"])
    flaky.orders.update(orders)
    code, shown, heard = jcdnet("run", "memory://bucket/day1/a.mp4", "b.mp4", "-o", "out", *MODEL)
    assert code == 3 and "b.mp4  0:01.60" in shown
    there = {row["name"]: row for row in json.loads(Path("out/_run.json").read_text())["videos"]}
    assert there["b"]["status"] == "done" and there["a"]["status"] == "failed"
    assert there["a"]["error"].startswith("memory://bucket/day1/a.mp4: ") and said in there["a"]["error"]
    assert "AKIA" not in heard + Path("out/_run.json").read_text()
    if "Slow Down" in said:
        flaky.orders.clear()
        assert jcdnet("run", "memory://bucket/day1/a.mp4", "b.mp4", "-o", "out", *MODEL, "--retry-failed")[0] == 0


def test_a_store_that_takes_no_results(jcdnet: Run, flaky: type[Flaky]) -> None:
    run = ("run", "memory://bucket/day1", "-o", "memory://bucket/out", *MODEL)
    flaky.orders["put"] = [PermissionError("no PutObject")] * 99
    code, shown, said = jcdnet(*run)
    assert code == 3 and not shown and "memory://bucket/out/_run.json: the store refuses" in said
    flaky.orders["put"] = [None] + [OSError("503")] * 4  # the report goes in, the first file of the result does not
    code, shown, said = jcdnet(*run)
    assert code == 3 and rows()["a"]["status"] == "failed"
    assert "could not be written in 4 tries (OSError: 503)" in rows()["a"]["error"]
    flaky.orders.clear()
    assert jcdnet(*run)[0] == 0 and rows()["a"]["status"] == "kept"  # its files were tried once more at the end
    assert set(in_store()) == {"_run.json", "segments.csv", "a.json", "a.scores.npz"}


def test_a_video_that_is_replaced_between_two_reads(flaky: type[Flaky], videos: dict[str, bytes]) -> None:
    video = video_at("memory://bucket/day1/a.mp4")
    content = content_hash(video)
    with at_hand(video, content) as path:
        assert path.read_bytes() == videos["day1/a.mp4"] and path.suffix == ".mp4"
    spool._SPOOL._drop_oldest(0)
    fill("memory://bucket", {"day1/a.mp4": b"another"})
    said = r"memory://bucket/day1/a.mp4: changed since it was first read"
    with pytest.raises(UserError, match=said), at_hand(video, content):
        pass
    assert content_hash(video) != content


def test_the_spool_is_bounded(
    jcdnet: Run, flaky: type[Flaky], machine: Path, monkeypatch: pytest.MonkeyPatch, videos: dict[str, bytes]
) -> None:
    size = len(videos["day1/a.mp4"])
    code, _, said = jcdnet("run", "memory://bucket/day1", *MODEL, "--spool", f"{size / 2e9:.9f}")
    assert code == 3 and "memory://bucket/day1/a.mp4: has 0 MB, and 0 MB may be taken" in said and "--spool" in said
    for k in range(5):
        fill("memory://bucket/many", {f"{k}.mp4": videos["day1/a.mp4"] + bytes([k])})
    monkeypatch.setenv(spool.LIMIT, f"{size * 1.5 / 1e9:.9f}")  # room for one at a time
    for k in range(5):
        content_hash(video_at(f"memory://bucket/many/{k}.mp4"))
        assert len(list((machine / "tmp").rglob("*.mp4"))) == 1
    monkeypatch.delenv(spool.LIMIT)
    monkeypatch.setattr(spool, "IDLE_BYTES", size)
    for k in range(5):
        with at_hand(video_at(f"memory://bucket/many/{k}.mp4")):
            assert len(list((machine / "tmp").rglob("*.mp4"))) <= spool.IDLE + 1  # and the one in use


def test_names_with_the_signs_of_patterns(flaky: type[Flaky], videos: dict[str, bytes]) -> None:
    fill("memory://odd", {"a[1].mp4": b"1", "a1.mp4": b"2", "a2.mp4": b"3"})
    found = {given: [str(job.video) for job in find_videos([given])] for given in (
        "memory://odd/a[1].mp4", "memory://odd/a[12].mp4", "memory://odd/*.mp4")}  # fmt: skip
    assert found["memory://odd/a[1].mp4"] == ["memory://odd/a[1].mp4"]
    assert found["memory://odd/a[12].mp4"] == ["memory://odd/a1.mp4", "memory://odd/a2.mp4"]
    assert len(found["memory://odd/*.mp4"]) == 3


def test_what_killed_processes_left_is_removed(machine: Path, flaky: type[Flaky]) -> None:
    machine_id = identity().partition("-")[0]
    content_hash(video_at("memory://bucket/day1/a.mp4"))
    (top,) = (machine / "tmp").iterdir()
    assert top.stat().st_mode & 0o777 == 0o700
    (left := top / f".spool.{machine_id}-999999999-1.abc.part").mkdir()
    (left / "film.mp4").touch()
    assert scratch_folder("spool").exists() and not left.exists() and len(list(top.rglob("*.mp4"))) == 1


def test_another_process_of_this_machine_takes_a_copy_over(flaky: type[Flaky], videos: dict[str, bytes]) -> None:
    video = video_at("memory://bucket/day1/a.mp4")
    content = content_hash(video)
    flaky.calls.clear()
    other = spool._Spool()
    with other.using(video, content, lambda *_: None) as copy:
        assert copy.path.read_bytes() == videos["day1/a.mp4"] and copy.path.stat().st_nlink == 2
    assert not flaky.calls


def test_credentials_never_appear(
    jcdnet: Run, flaky: type[Flaky], machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("AKIAIOSFODNN7ZZZZZZZ", "wJalrXUtnFEMIbPxRfiCY", "sTs-token-9876")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets[1])
    monkeypatch.setenv("AWS_SESSION_TOKEN", secrets[2])
    heard = []
    for given in (f"s3://{secrets[0]}:{secrets[1]}@bucket/a.mp4", f"s3://bucket/a.mp4?X-Amz-Signature={secrets[1]}"):
        for command in (("run", given), ("run", "x.mp4", "-o", given), ("report", given), ("train", given, "-o", "m"),
                        ("clips", "x.json", "-o", given), ("report", "x.json", "--videos", given),
                        ("run", "x.mp4", "--model", given), ("find", "x.mp4", "--like", given),
                        ("run", "x.mp4", "--resume-from", given), ("export", "x.json", "-f", "srt", "-o", given),
                        ("find", "x.mp4", "--like", "x.mp4", "-o", given)):  # fmt: skip
            code, shown, said = jcdnet(*command)
            assert code == 2, said
            heard.append(shown + said)
    flaky.orders["open"] = [OSError(f"GET /a?X-Amz-Credential={secrets[0]} {secrets[1]} token {secrets[2]}")] * 9
    code, shown, said = jcdnet("run", "memory://bucket/day1", "-o", "memory://bucket/out", *MODEL)
    assert code == 3 and "4 tries" in said
    heard.append(shown + said)
    written = [path.read_bytes() for path in machine.rglob("*") if path.is_file()] + list(in_store().values())
    for secret in secrets:
        assert not any(secret in text for text in heard), heard
        assert not any(secret.encode() in data for data in written)


def test_files_by_address(jcdnet: Run, machine: Path, videos: dict[str, bytes]) -> None:
    (machine / "a b.mp4").write_bytes(videos["day1/a.mp4"])
    code, _, said = jcdnet("run", f"file://{machine}/a%20b.mp4", "-o", f"file://{machine}/out", *MODEL)
    assert code == 0 and (machine / "out" / "a b.json").exists(), said
    code, _, said = jcdnet("report", f"file://{machine}/out")
    assert code == 0 and (machine / "out" / "a b.html").exists(), said


def test_from_python(flaky: type[Flaky], machine: Path) -> None:
    from pipeline.api import Pipeline

    result = Pipeline.load("model.safetensors", "cpu")("memory://bucket/day1/a.mp4")
    assert result.video == "memory://bucket/day1/a.mp4" and result.duration == pytest.approx(1.6)


def test_training_and_proposals_over_a_store(
    jcdnet: Run, flaky: type[Flaky], machine: Path, videos: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        fill("memory://bucket/train", {f"day/{k}.mp4": videos["day1/a.mp4"] + bytes([k])})
    lines = ["video,labels", *(f"day/{k}.mp4,{'ab'[k % 2]}" for k in range(4))]
    Path("labels.csv").write_text("\n".join(lines))
    code, shown, said = jcdnet("train", "labels.csv", "--videos", "memory://bucket/train", "-o", "runs/x",
                               "--steps", "2", "--dim", "8", "--folds", "0")  # fmt: skip
    assert code == 0 and "runs/x" in shown, said
    Path("labels.csv").write_text("\n".join([*lines, "day/9.mp4,a"]))
    code, _, said = jcdnet("train", "labels.csv", "--videos", "memory://bucket/train", "-o", "runs/x", "--overwrite")
    assert code == 2 and "day/9.mp4 is not there" in said
    jcdnet("run", "memory://bucket/train", "-o", "out", *MODEL)
    fill("memory://elsewhere", {"3.mp4": videos["day1/a.mp4"] + bytes([3])})
    code, _, said = jcdnet("clips", "out/day/3.json", "-o", "clips", "--videos", "memory://elsewhere")
    assert code == 0 and list(Path("clips").iterdir()), said
    code, _, said = jcdnet("clips", "out/day/2.json", "-o", "clips", "--videos", "memory://elsewhere")
    assert code == 3 and "its video 2.mp4 is not in memory://elsewhere" in said


# --- tables -----------------------------------------------------------------------------------------------------------

TABLES = "memory://bucket/tables"


def made_up(name: str, *labels: str) -> Result:
    found = tuple(Segment(float(k), k + 1.0, 2.0, 0.5, label, "") for k, label in enumerate(labels))
    return Result(name, 9.5, {}, found, (), {"content": "sha256:x", "model": {"name": "m"}})


def tables_of(*ids: str) -> Tables:
    pytest.importorskip("pyarrow")
    place = Mirror(TABLES)
    return Tables(place.folder, ids, place)


def read_table(table: str, root: str = TABLES) -> list[dict[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    fs, path = fsspec.url_to_fs(root, use_listings_cache=False)
    found = []
    for part in fs.find(f"{path}/{table}"):
        with fs.open(part) as file:
            found += parquet.ParquetFile(file).read().to_pylist()
    return sorted(found, key=lambda row: row["id"])


def test_each_video_has_one_row_and_each_process_parts_of_its_own(flaky: type[Flaky]) -> None:
    one, other = tables_of("a.mp4", "b.mp4"), tables_of("c.mp4")
    one.add("a.mp4", made_up("a.mp4", "serve"))
    one.add("b.mp4", None, UserError(f"{one.folder}/b.json: is in the way."))
    other.add("c.mp4", made_up("c.mp4", "volley"))
    one.flush()
    other.flush()
    assert len(in_store(f"{TABLES}/{VIDEOS}")) == 2
    assert [row["id"] for row in read_table(VIDEOS)] == ["a.mp4", "b.mp4", "c.mp4"]
    assert (
        read_table(VIDEOS)[1]["error"] == f"{TABLES}/b.json: is in the way."
    )  # not the folder that stands for it here
    again = tables_of("a.mp4", "b.mp4")
    again.add("a.mp4", made_up("a.mp4", "serve", "smash"))
    again.add("b.mp4", made_up("b.mp4"))
    again.flush()
    assert Counter(row["id"] for row in read_table(VIDEOS)) == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1}
    assert [(row["id"], row["label"]) for row in read_table(SEGMENTS)] == [
        ("a.mp4", "serve"), ("a.mp4", "smash"), ("c.mp4", "volley")]  # fmt: skip
    assert len(in_store(f"{TABLES}/{VIDEOS}")) == 2  # the part without rows is gone
    third = tables_of("c.mp4", "a.mp4")  # one after the other: a part is rewritten, and needed again
    for name in ("c.mp4", "a.mp4"):
        third.add(name, made_up(name))
        third.flush()
    assert [row["id"] for row in read_table(VIDEOS)] == ["a.mp4", "b.mp4", "c.mp4"] and not read_table(SEGMENTS)


def test_rows_wait_while_the_store_does_not_answer(
    flaky: type[Flaky],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tables_of("a.mp4", "b.mp4")
    monkeypatch.setattr(tables, "OFTEN", -1.0)
    flaky.orders["put"] = [OSError("503")] * 4
    made.add("a.mp4", made_up("a.mp4", "serve"))
    assert not read_table(VIDEOS)
    flaky.orders["put"] = [None, *[OSError("503")] * 4]  # the segments get there, the videos do not
    made.add("b.mp4", made_up("b.mp4", "serve"))
    assert len(read_table(SEGMENTS)) == 2 and not read_table(VIDEOS)
    flaky.orders["put"] = [OSError("503")] * 4
    with pytest.raises(StoreError, match=r"could not be written in 4 tries"):
        made.flush()
    made.flush()
    assert [row["id"] for row in read_table(VIDEOS)] == ["a.mp4", "b.mp4"] and len(read_table(SEGMENTS)) == 2


def test_segments_of_a_machine_that_was_lost_do_not_stay_beside_new_ones(
    flaky: type[Flaky],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tables, "identity", lambda: "0badcafe-7-7")  # of another machine, whose processes nobody knows
        lost = tables_of("a.mp4", "b.mp4")
    lost.add("a.mp4", made_up("a.mp4", "serve"))
    lost.add("b.mp4", made_up("b.mp4", "serve"))
    flaky.orders["put"] = [None, *[OSError("503")] * 4]
    with pytest.raises(StoreError):
        lost.flush()
    again = tables_of("a.mp4")
    again.add("a.mp4", made_up("a.mp4", "volley"))
    again.flush()
    assert [(row["id"], row["label"]) for row in read_table(SEGMENTS)] == [("a.mp4", "volley"), ("b.mp4", "serve")]
    assert [row["id"] for row in read_table(VIDEOS)] == ["a.mp4"]


def test_a_run_into_tables_in_a_store_and_its_continuation(
    jcdnet: Run,
    flaky: type[Flaky],
    videos: dict[str, bytes],
) -> None:
    run = ("run", "memory://bucket/day1", "memory://bucket/day2", "-o", TABLES, "-f", "parquet", *MODEL)
    flaky.orders["put"] = [PermissionError("no PutObject")] * 99
    flaky.calls.clear()
    code, shown, said = jcdnet(*run)
    assert code == 3 and not shown and "the store refuses (PermissionError: no PutObject)" in said
    assert not any(what == "open" for what, _ in flaky.calls)  # before any work
    flaky.orders.clear()
    code, _, said = jcdnet(*run)
    assert code == 3, said  # of broken.mp4
    there = {row["id"]: row["status"] for row in read_table(VIDEOS)}
    assert there == {"day1/a.mp4": "done", "day2/a.mp4": "done", "day2/broken.mp4": "failed"}
    assert {row["id"] for row in read_table(SEGMENTS)} == {"day1/a.mp4", "day2/a.mp4"}
    assert not [name for name in in_store(TABLES) if not name.startswith((VIDEOS, SEGMENTS))]
    fsspec.filesystem("memory").pipe_file("/bucket/day2/broken.mp4", videos["day1/a.mp4"] + b"\0")
    flaky.calls.clear()
    code, shown, said = jcdnet(*run, "--resume-from", TABLES)
    assert code == 0 and f"note: 2 videos are done by the tables in {TABLES}, and are left out." in said
    assert shown.startswith("memory://bucket/day2/broken.mp4") and "day1" not in shown
    assert Counter(row["id"] for row in read_table(VIDEOS) if row["status"] == "done") == dict.fromkeys(there, 1)
    code, _, said = jcdnet(*run, "--resume-from", "memory://bucket/day1")
    assert code == 2 and "memory://bucket/day1: has no videos.parquet" in said, said


def test_a_folder_here_resumed_from_a_store(jcdnet: Run, flaky: type[Flaky]) -> None:
    run = ("run", "memory://bucket/day1", "-f", "parquet", *MODEL)
    assert jcdnet(*run, "-o", TABLES)[0] == 0
    code, shown, said = jcdnet(*run, "-o", "here", "--resume-from", TABLES)
    assert code == 0 and not shown and "1 videos are done" in said
    assert not list(Path("here").rglob("*.parquet/*"))


# --- models and trainings ---------------------------------------------------------------------------------------------


def test_a_model_in_a_store(jcdnet: Run, flaky: type[Flaky], machine: Path) -> None:
    data = (machine / "model.safetensors").read_bytes()
    fill("memory://bucket/runs/x", {"model.safetensors": data, "broken.safetensors": data[:99]})
    run = ("run", "memory://bucket/day1", "-o", "out", "--all", "--threshold", "0", "--model")
    for k, name in enumerate(("memory://bucket/runs/x", "memory://bucket/runs/x/model.safetensors")):
        code, _, said = jcdnet(*run, name, "--overwrite")
        assert code == 0, said
        assert json.loads(Path("out/a.json").read_text())["provenance"]["model"]["name"] == name
        fetched = [path for what, path in flaky.calls if what == "open" and path.endswith("model.safetensors")]
        assert len(fetched) == 1, k  # the same version is not fetched again
    changed = initialise(ModelConfig(classes=2, in_dim=1024, dim=8), ("other", "volley"), ("rgb",), {}, seed=1)
    checkpoint.save(changed, machine / "changed.safetensors")
    fill("memory://bucket/runs/x", {"model.safetensors": (machine / "changed.safetensors").read_bytes()})
    assert jcdnet(*run, "memory://bucket/runs/x", "--overwrite")[0] == 0
    used = json.loads(Path("out/a.json").read_text())["provenance"]["model"]["fingerprint"]
    assert used == f"sha256:{checkpoint.fingerprint(changed)}"
    assert len(list((machine / "cache" / "models").rglob("*.safetensors"))) == 1  # the earlier version is gone
    code, shown, said = jcdnet("models", "classes", "memory://bucket/runs/x")
    assert code == 0 and "other" in shown, said
    code, _, said = jcdnet(*run, "memory://bucket/runs/x/broken.safetensors")
    assert code == 2 and "error: memory://bucket/runs/x/broken.safetensors is cut short or damaged" in said
    code, _, said = jcdnet(*run, "memory://bucket/runs/y")
    assert code == 3 and "memory://bucket/runs/y/model.safetensors: the store has nothing there" in said
    code, _, said = jcdnet(*run, f"file://{machine}/model.safetensors", "--overwrite")
    assert code == 0, said


TRAIN = ("train", "labels.csv", "--videos", "memory://bucket/train", "--steps", "4", "--dim", "8", "--folds", "2")


@pytest.fixture
def labelled(flaky: type[Flaky], videos: dict[str, bytes]) -> None:
    for k in range(4):
        fill("memory://bucket/train", {f"{k}.mp4": videos["day1/a.mp4"] + bytes([k])})
    Path("labels.csv").write_text("\n".join(["video,labels", *(f"{k}.mp4,{'ab'[k % 2]}" for k in range(4))]))


def test_training_into_a_store_and_going_on_elsewhere(
    jcdnet: Run, flaky: type[Flaky], labelled: None, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jcdnet(*TRAIN, "-o", "runs/x")[0] == 0
    local = {path.name: path.read_bytes() for path in Path("runs/x").iterdir() if path.is_file()}
    flaky.calls.clear()
    monkeypatch.setattr(mirror, "OFTEN", -1.0)
    code, shown, said = jcdnet(*TRAIN, "-o", "memory://bucket/runs/x")
    assert code == 0 and shown.startswith("memory://bucket/runs/x/model.safetensors\n"), said
    assert "run VIDEO --model memory://bucket/runs/x" in said
    there = in_store("memory://bucket/runs/x")
    assert set(there) == {name for name in local if not name.startswith(".")}
    assert {name for name in local if there.get(name) != local[name]} <= {"quality.json", ".training.lock"}
    assert json.loads(there["quality.json"])["classes"] == json.loads(local["quality.json"])["classes"]
    first = [path for what, path in flaky.calls if what == "put"]
    assert any("fold-1-of-2" in path for path in first)  # each fold is there before the last one is done
    # Another machine, which has nothing but what the store has, finds it done.
    monkeypatch.setenv("JCDNET_CACHE", str(machine / "other"))
    code, _, said = jcdnet(*TRAIN, "-o", "memory://bucket/runs/x")
    assert code == 0 and in_store("memory://bucket/runs/x")["model.safetensors"] == there["model.safetensors"], said
    code, _, said = jcdnet("run", "memory://bucket/day1/a.mp4", "--model", "memory://bucket/runs/x")
    assert code == 0, said


def test_a_training_goes_on_from_the_state_in_the_store(
    jcdnet: Run, flaky: type[Flaky], labelled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the check: the model is in the store, and its training is not repeated."""
    from pipeline.training import fit

    honest = fit.cross_validate

    def killed(*_: Any, on_progress: Any, **__: Any) -> Any:
        on_progress("check", 0, 8)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "cross_validate", killed)
    jcdnet(*TRAIN, "-o", "memory://bucket/runs/x")
    there = in_store("memory://bucket/runs/x")
    assert {"model.safetensors", "training.safetensors", "log.csv"} <= set(there)
    monkeypatch.setattr(fit, "cross_validate", honest)
    code, _, said = jcdnet(*TRAIN, "-o", "memory://bucket/runs/x", "--overwrite")
    expected = in_store("memory://bucket/runs/x")
    assert code == 0, said
    fill("memory://bucket/runs/y", there)
    code, _, said = jcdnet(*TRAIN, "-o", "memory://bucket/runs/y")
    assert code == 0, said
    assert in_store("memory://bucket/runs/y")["model.safetensors"] == expected["model.safetensors"]


def test_a_training_is_not_lost_with_the_store(jcdnet: Run, flaky: type[Flaky], labelled: None, machine: Path) -> None:
    flaky.orders["put"] = [PermissionError("no PutObject")] * 99
    code, shown, said = jcdnet(*TRAIN, "-o", "memory://bucket/runs/x")
    assert code == 3 and not shown and "the store refuses" in said and "rescued" not in said  # before any work
    flaky.orders["put"] = [None, *[OSError("503")] * 999]
    code, _, said = jcdnet(*TRAIN, "-o", "memory://bucket/runs/x")
    (kept,) = (machine / "cache" / "rescued").iterdir()
    assert code == 3 and f"What was made is in {kept}; copy it there then." in " ".join(said.split())
    assert (kept / "model.safetensors").exists() and not in_store("memory://bucket/runs/x")
    flaky.orders.clear()
    assert jcdnet("run", "memory://bucket/day1", "--model", kept)[0] == 0


# --- which command takes an address where -----------------------------------------------------------------------------


def test_every_command_takes_addresses_or_says_what_to_do(
    jcdnet: Run, flaky: type[Flaky], machine: Path, videos: dict[str, bytes]
) -> None:
    """The table in docs/urls.md."""
    (machine / "a.mp4").write_bytes(videos["day1/a.mp4"])
    (machine / "labels.csv").write_text("video,labels\na.mp4,serve\n")
    there, out = "memory://bucket/day1/a.mp4", "memory://bucket/results"
    assert jcdnet("run", there, "-o", out, *MODEL)[0] == 0
    truth = {"database": {there: {"annotations": [{"label": "serve", "segment": [0, 1.6]}]}}}
    fill("memory://bucket", {"truth.json": json.dumps(truth).encode()})
    taken = [
        ("run", there, *MODEL), ("extract", there, "-o", "memory://bucket/features"),
        ("find", there, "--like", "a.mp4"), ("find", "a.mp4", "--like", "memory://bucket/day2/a.mp4@0-1"),
        ("find", "a.mp4", "--like", "a.mp4", "-o", "memory://bucket/found"), ("report", out), ("clips", out, "-o", "c"),
        ("plot", out, "--frames", "0", "--ground-truth", "memory://bucket/truth.json"), ("export", out, "-f", "srt"),
        ("export", out, "-f", "srt", "-o", "memory://bucket/exports"), ("labels", "propose", "memory://bucket/day1"),
        ("evaluate", out, "--ground-truth", "memory://bucket/truth.json", "--ignore-unknown"),
    ]  # fmt: skip
    for command in taken:
        if command[0] == "labels":  # the embedded model, which needs its weights
            continue
        code, _, said = jcdnet(*command)
        assert code == 0, (command, said)
    assert "a.json" in in_store("memory://bucket/found") and "a.srt" in in_store(out)
    assert set(in_store("memory://bucket/exports")) == {"a.srt"}
    code, _, said = jcdnet("find", "a.mp4", "--like", "a.mp4", "-o", "memory://bucket/found")
    assert code == 0 and rows("memory://bucket/found")["a"]["status"] == "kept", said
    refused = [
        ("run", "a.mp4", "--config", "memory://bucket/my.toml"), ("run", "a.mp4", "--cache-dir", "memory://bucket/cache"),
        ("train", "memory://bucket/labels.csv", "-o", "runs/x"), ("train", "labels.csv", "--features", out, "-o", "x"),
        ("train", "labels.csv", "--times", "memory://bucket/times.csv", "-o", "x"),
        ("train", "labels.csv", "--more", "memory://bucket/runs/x", "-o", "x"),
        ("labels", "propose", ".", "-o", "memory://bucket/labels.csv"), ("report", out, "--corrections", out),
        ("labels", "import", "memory://bucket/marks.json", "--from", "jcdnet"),
        ("evaluate", "--model", "model.safetensors", "--features", "memory://bucket/features"), ("bench", there),
    ]  # fmt: skip
    for command in refused:
        code, _, said = jcdnet(*command)
        assert code == 2 and ": this has to be on this machine's disks; name a path here, and copy" in said, command
    code, _, said = jcdnet("run", "a.mp4", "-o", "memory://bucket/out.parquet", "-f", "parquet")
    assert code == 2 and "the tables are two, in a folder" in said


@pytest.mark.slow
def test_tables_models_and_trainings_over_s3(
    jcdnet: Run, bucket: str, videos: dict[str, bytes], machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        fill(bucket, {f"train/{k}.mp4": videos["day1/a.mp4"] + bytes([k])})
    Path("labels.csv").write_text("\n".join(["video,labels", *(f"{k}.mp4,{'ab'[k % 2]}" for k in range(4))]))
    train = [word.replace("memory://bucket", bucket) for word in TRAIN]
    code, shown, said = jcdnet(*train, "-o", f"{bucket}/runs/x")
    assert code == 0 and shown.startswith(f"{bucket}/runs/x/model.safetensors\n"), said
    there = in_store(f"{bucket}/runs/x")
    assert {"model.safetensors", "training.safetensors", "quality.json"} <= set(there)
    monkeypatch.setenv("JCDNET_CACHE", str(machine / "other"))  # another machine
    code, _, said = jcdnet(*train, "-o", f"{bucket}/runs/x")
    assert code == 0 and in_store(f"{bucket}/runs/x")["model.safetensors"] == there["model.safetensors"], said
    run = ("run", f"{bucket}/day1", f"{bucket}/day2", "-o", f"{bucket}/tables", "-f", "parquet",
           "--model", f"{bucket}/runs/x")  # fmt: skip
    assert jcdnet(*run)[0] == 3  # of broken.mp4
    statuses = {row["id"]: row["status"] for row in read_table(VIDEOS, f"{bucket}/tables")}
    assert statuses == {"day1/a.mp4": "done", "day2/a.mp4": "done", "day2/broken.mp4": "failed"}
    fill(bucket, {"day2/broken.mp4": videos["day1/a.mp4"] + b"\0"})
    code, shown, said = jcdnet(*run, "--resume-from", f"{bucket}/tables")
    assert code == 0 and f"2 videos are done by the tables in {bucket}/tables" in said and "day1" not in shown
    assert Counter(row["status"] for row in read_table(VIDEOS, f"{bucket}/tables")) == {"done": 3}
    assert b"a-secret-of-the-test-server" not in b"".join(in_store(bucket).values())

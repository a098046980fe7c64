"""The Localizer: rows of a table from batches of videos, wherever it travels; what workers of a run finish by it."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import coded, encode, small_checkpoint

import jcdnet
from extractors.backbones import weights
from extractors.config import FeatureConfig
from model import checkpoint
from pipeline import localizer as localizers
from pipeline.api import Pipeline
from pipeline.config import Config
from pipeline.localizer import Localizer
from pipeline.run.batch import run_batch
from pipeline.run.outcome import Outcome, ResultOutput
from pipeline.run.videos import find_videos
from pipeline.workers import ending, tasks
from pipeline.workers.engine import Engine
from support.errors import EnvironmentMissing, UsageError

pytestmark = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
ROOT = Path(__file__).parents[2]
SMALL = FeatureConfig(short_side=48, crop=32)  # the real network, on a fiftieth of the pixels


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, one of them twice, a broken one, a model that is a file, and one cache for all."""
    folder = tmp_path_factory.mktemp("night")
    (folder / "videos" / "day").mkdir(parents=True)
    for k, name in enumerate(("a.mp4", "b.mp4", "day/c.mp4")):
        encode(folder / "videos" / name, [coded(j + 100 * k) for j in range(40)])
    shutil.copy(folder / "videos" / "a.mp4", folder / "videos" / "day" / "again.mp4")
    (folder / "videos" / "broken.mp4").write_text("text")
    checkpoint.save(small_checkpoint(), folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JCDNET_CACHE", str(folder / "cache"))
        yield folder


def config(night: Path) -> Config:
    return Config(features=SMALL, model=str(night / "model.safetensors"))


def run(night: Path, out: Path | None, engine: Engine, formats: tuple[str, ...] = ("json", "srt")) -> list[Outcome]:
    pipeline = Pipeline.load(config=config(night))
    jobs = find_videos([str(night / "videos")])
    return list(run_batch(pipeline, jobs, ResultOutput(out, None, formats), engine=engine))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def alone(night: Path) -> dict[str, bytes]:
    """What this process writes by itself."""
    run(night, night / "alone", Engine())
    return files(night / "alone")


def batch(night: Path) -> dict[str, list[str]]:
    names = ("a.mp4", "broken.mp4", "day/c.mp4", "gone.mp4", "s3")
    return {"id": list(names), "path": [*(str(night / "videos" / n) for n in names[:-1]), "ftp://bucket/a.mp4"]}


def test_a_batch_of_columns(night: Path, alone: dict[str, bytes]) -> None:
    localizer = jcdnet.Localizer(config=config(night), formats=("json", "srt"))
    localizer = pickle.loads(pickle.dumps(localizer))
    found = localizer(batch(night))
    assert found["id"] == batch(night)["id"] and found["status"] == ["done", "failed", "done", "failed", "failed"]
    assert {len(column) for column in found.values()} == {5}
    assert not [name for name, column in found.items() if None in column]
    assert "not a video" in found["error"][1] and "no such file; check the path" in found["error"][3]
    assert "download it first" in found["error"][4] and found["error"][0] == ""
    for row, name in ((0, "a"), (2, "day/c")):
        assert (found["json"][row], found["srt"][row]) == (alone[f"{name}.json"], alone[f"{name}.srt"])
        document = json.loads(found["json"][row])
        segments = json.loads(found["segments"][row])
        assert len(segments) == found["n_segments"][row] and found["duration"][row] == document["duration"]
        assert [{k: v for k, v in s.items() if v or k != "sport"} for s in segments] == document["segments"]
        assert {s["sport"] for s in segments} <= {"tennis"}
    assert found["json"][1] == b"" and found["segments"][1] == "[]" and found["provenance"][1] == ""
    assert found["provenance"][0] == found["provenance"][2] != ""


def test_videos_in_a_store(night: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/rows/a.mp4", (night / "videos" / "a.mp4").read_bytes())
    paths = ["memory://rows/a.mp4", "memory://rows/gone.mp4"]
    found = Localizer(config=config(night), formats=("json",))({"id": ["a", "gone"], "path": paths})
    assert found["status"] == ["done", "failed"] and "gone.mp4" in found["error"][1]
    made, expected = json.loads(found["json"][0]), json.loads(alone["a.json"])
    assert made["video"] == paths[0] and made["segments"] == expected["segments"]
    assert made["provenance"]["content"] == expected["provenance"]["content"]


def test_columns_of_numpy_arrow_and_pandas(night: Path) -> None:
    import pandas
    import pyarrow

    localizer = Localizer(config=config(night))
    asked = {name: column[:2] for name, column in batch(night).items()}
    plain = localizer(asked)
    arrays = {name: np.array(column) for name, column in asked.items()}
    for columns in (arrays, pyarrow.table(asked).to_pydict(), pandas.DataFrame(asked)):
        assert localizer(columns) == plain
    table = pyarrow.table(asked)
    assert localizer({name: table[name] for name in asked}) == plain
    ok = pyarrow.table(localizer({n: c[:1] for n, c in asked.items()})).schema
    assert ok == pyarrow.table(localizer({n: c[1:] for n, c in asked.items()})).schema  # whatever became of the videos


def test_it_says_what_it_cannot_do(night: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the columns id and path, and lacks id"):
        Localizer(config=config(night))({"path": ["a.mp4"]})
    with pytest.raises(UsageError, match="a row holds no format 'html'"):
        Localizer(formats=("html",))
    one = {name: column[:1] for name, column in batch(night).items()}
    with pytest.raises(UsageError, match="unknown model"):
        Localizer(model=str(tmp_path / "nowhere"))(one)
    with pytest.raises(EnvironmentMissing, match="a worker has another model"):
        Localizer(config=config(night), fingerprint="sha256:other")(one)


def test_a_crash_of_the_decoder_costs_its_row(night: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from extractors.decode.process import Decoder

    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path))
    honest = Decoder._command
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    calls: list[int] = []

    def command(self: Decoder) -> list[str]:
        calls.append(1)
        return crash if len(calls) == 1 else honest(self)

    monkeypatch.setattr(Decoder, "_command", command)
    found = Localizer(config=config(night), threads=1, start=0.1)(batch(night))
    assert found["status"][0] == "failed" and found["error"][0] and found["status"][2] == "done"


def test_it_travels_to_a_process_that_has_imported_nothing(night: Path) -> None:
    """The name of its class is looked up in `jcdnet`, which makes the packages of a wheel importable."""
    payload = pickle.dumps(Localizer(config=config(night)))
    code = "import sys, pickle; print(type(pickle.load(sys.stdin.buffer)).__qualname__, 'pipeline.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, cwd=ROOT)
    assert done.stdout.split() == [b"Localizer", b"True"], done.stderr


def test_it_is_sent_by_its_name_and_the_model_is_loaded_once(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cloudpickle, which loky, Dask and Ray use, sends a copy of a class that it cannot look up."""
    code = "import cloudpickle; from pipeline.localizer import Localizer;print(len(cloudpickle.dumps(Localizer())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert int(done.stdout) < 2000, done.stderr
    loaded: list[str] = []
    honest = localizers.load_model
    monkeypatch.setattr(localizers, "load_model", lambda name, *more: loaded.append(name) or honest(name, *more))
    localizers._held.owner = None
    one = {name: column[:1] for name, column in batch(night).items()}
    for _ in range(3):
        pickle.loads(pickle.dumps(Localizer(config=config(night))))(one)
    assert len(loaded) == 1


# --- workers of a run -------------------------------------------------------------------------------------------------


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process runs no network and reads no features: it could not. loky's workers are processes of their own."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("the machine that runs does the work of a worker")

    for place in (
        "model.jcdnet.JCDNet.forward",
        "pipeline.cache.extraction.load",
        "pipeline.cache.extraction.Extraction.finish",
        "extractors.features.Extractor.features",
        "pipeline.run.batch.finish",
    ):
        monkeypatch.setattr(place, refuse)
    yield


@pytest.mark.parametrize("seen", [True, False])
def test_workers_finish_videos_and_the_run_neither_holds_features_nor_runs_a_network(
    night: Path, alone: dict[str, bytes], tmp_path: Path, idle: None, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    """Also where workers do not see the output folder: then they return the bytes, and this process writes."""
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    if not seen:  # another folder of that name, as on another machine
        monkeypatch.setattr("pipeline.workers.scheduler.write_temporary", _elsewhere)
    outcomes = run(night, tmp_path / "out", Engine(jobs=2, small=0))
    assert files(tmp_path / "out") == alone
    assert sorted(type(o.error).__name__ for o in outcomes) == ["NoneType"] * 4 + ["VideoError"]
    assert [o.duplicate_of is not None for o in outcomes if o.job.name.name == "again"] == [True]
    # From the cache, too; the run itself does not read it.
    shutil.rmtree(tmp_path / "out")
    outcomes = run(night, tmp_path / "out", Engine(jobs=2, small=0))
    assert files(tmp_path / "out") == alone
    assert sorted(o.cached for o in outcomes if o.error is None and o.duplicate_of is None) == [True] * 3


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Two worker processes of Dask or Ray on this machine."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    if request.param == "dask":
        distributed = pytest.importorskip("distributed")
        with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as made:
            yield Engine("dask", -1, made.scheduler_address, small=0)
        return
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield Engine("ray", -1, head.address, small=0)
    head.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["dask", "ray"], indirect=True)
def test_the_driver_of_a_cluster_neither_holds_features_nor_runs_a_network(
    night: Path, alone: dict[str, bytes], tmp_path: Path, cluster: Engine, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    outcomes = run(night, tmp_path / "out", cluster)
    assert files(tmp_path / "out") == alone
    assert sorted(type(o.error).__name__ for o in outcomes) == ["NoneType"] * 4 + ["VideoError"]


def _elsewhere(folder: Path, name: str, data: bytes) -> Path:
    """The proof as a worker of another machine finds it: not at all."""
    return folder / "nowhere" / name


def test_a_worker_writes_only_beside_the_proof_of_its_own_run(tmp_path: Path) -> None:
    from pipeline.run.outcome import Order

    proof = tmp_path / "proof"
    setup: Any = type("Setup", (), {"proof": proof, "secret": "right"})()
    order = Order(Path("v.mp4"), tmp_path / "v")
    for content, answer in ((None, False), ("another run", False), ("right", True)):
        if content is not None:
            proof.write_text(content)
        ending._held.proof = None
        assert ending._may_write(setup, order) is answer
    assert not ending._may_write(setup, Order(Path("v.mp4"), tmp_path / "v", ("json", "html")))
    assert [path.name for path in tmp_path.iterdir()] == ["proof"]


def test_a_damaged_entry_of_the_cache_is_extracted_again_by_the_worker(
    night: Path, tmp_path: Path, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    run(night, None, Engine(jobs=2))
    (entry, *_) = sorted((tmp_path / "cache" / "features").rglob("*.npz"))
    entry.write_bytes(entry.read_bytes()[:-40])
    outcomes = run(night, None, Engine(jobs=2))
    said = [w for o in outcomes if o.result is not None for w in o.result.warnings]
    assert len({w for w in said if "damaged cache entry" in w}) == 1
    assert sorted(o.cached for o in outcomes if o.error is None and o.duplicate_of is None) == [False, True, True]


def test_messages_of_other_workers_reach_the_result(tmp_path: Path) -> None:
    for first, messages in ((64, ["late"]), (0, ["early", "both"]), (tasks.END, ["of the run"])):
        task: Any = type("Task", (), {"content": "c", "first": first})()
        ending.tell(tmp_path, task, messages)
    assert ending._told(tmp_path, "c") == ["of the run", "early", "both", "late"]


# --- the packages of other people, on real clips ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Path]:
    """Twelve clips, of different sports."""
    found = {clip.parent: clip for clip in sorted(corpus.rglob("*.mp4"), reverse=True)}  # the first of each folder
    return sorted(found.values())[:12]


def documents(folder: Path, clips: list[Path], *flags: object) -> dict[str, bytes]:
    """The JSON and the SRT that the command line writes, with a cache of its own."""
    environment = os.environ | {"JCDNET_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "cli.py", "-q", "run", *clips, "-o", folder / "out", "-f", "json,srt", *flags]
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {
        p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.suffix in (".json", ".srt") and p.stem[0] != "_"
    }


@pytest.mark.slow
def test_the_same_bytes_on_real_clips_by_every_way(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Localizer, `--jobs 2`, two shards, Ray Data and Dask: 12 clips, each way with an empty cache."""
    assert len(clips) == 12
    expected = documents(tmp_path / "jobs", clips, "--jobs", 2)
    ways = {"shards": {**documents(tmp_path / "shard", clips, "--shard", "1/2")}}
    ways["shards"] |= documents(tmp_path / "shard", clips, "--shard", "2/2")
    asked = {"id": [clip.stem for clip in clips], "path": list(map(str, clips))}
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # its own is 15: on a busy machine its workers starve

    def columns(name: str, make: Any) -> None:
        monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / name))
        rows = make()
        found = {f"{row['id']}.{kind}": row[kind] for row in rows for kind in ("json", "srt")}
        ways[name] = found

    def rows_of(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]

    localizer = Localizer(formats=("json", "srt"))
    columns("localizer", lambda: rows_of(localizer(asked)))

    def by_ray() -> list[dict[str, Any]]:
        import ray

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            videos = ray.data.from_items(rows_of(asked), override_num_blocks=4)
            found = videos.map_batches(
                Localizer, fn_constructor_kwargs={"formats": ("json", "srt")}, batch_size=3, concurrency=2
            )
            return found.take_all()
        finally:
            ray.shutdown()

    def by_dask() -> list[dict[str, Any]]:
        import dask.bag
        from distributed import Client

        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
            return list(dask.bag.from_sequence(rows_of(asked), npartitions=4).map(_row, localizer).compute())

    for name, package, make in (("ray", "ray", by_ray), ("dask", "distributed", by_dask)):
        pytest.importorskip(package)
        columns(name, make)
    for name, found in ways.items():
        assert found == expected, name


def _row(video: dict[str, str], localizer: Localizer) -> dict[str, Any]:
    return localizer.row(video["id"], video["path"])

"""`--engine dask|ray` over a real S3 server: the bytes of a local run; long videos are divided, and workers fetch."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import coded, encode, small_checkpoint
from stores import s3

from extractors.backbones import weights
from extractors.config import FeatureConfig
from model import checkpoint
from pipeline.api import Pipeline
from pipeline.cache import content as contents
from pipeline.cache import spool
from pipeline.config import Config
from pipeline.run import batch
from pipeline.run.batch import run_batch
from pipeline.run.mirror import Mirror
from pipeline.run.outcome import Outcome, ResultOutput
from pipeline.run.videos import find_videos
from pipeline.workers import planning
from pipeline.workers.engine import Engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed"),
]
ROOT = Path(__file__).parents[3]
PART = 2  # snippets


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two videos, one of them twice, a broken one and a model, on a real S3 server."""
    pytest.importorskip("moto.server", reason="needs moto[server] and s3fs")
    pytest.importorskip("s3fs", reason="needs moto[server] and s3fs")
    with s3(monkeypatch) as root:
        store = fsspec.filesystem("s3")
        for k, name in enumerate(("a.mp4", "day/b.mp4")):
            encode(path := tmp_path / f"{k}.mp4", [coded(j + 100 * k) for j in range(150)], options={"g": "20"})
            store.put_file(str(path), f"bucket/videos/{name}")
        store.put_file(str(tmp_path / "0.mp4"), "bucket/videos/again.mp4")
        store.pipe_file("bucket/videos/broken.mp4", b"text")
        checkpoint.save(small_checkpoint(), tmp_path / "model.safetensors")
        store.put_file(str(tmp_path / "model.safetensors"), "bucket/runs/x/model.safetensors")
        yield root


@pytest.fixture
def cluster(bucket: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Two worker processes of Dask or Ray on this machine."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    if request.param == "dask":
        distributed = pytest.importorskip("distributed", reason="needs distributed")
        with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as made:
            yield Engine("dask", -1, made.scheduler_address, small=0)
        return
    pytest.importorskip("ray", reason="needs ray")
    from ray.cluster_utils import Cluster

    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield Engine("ray", -1, head.address, small=0)
    head.shutdown()


def run(bucket: str, out: str, engine: Engine) -> list[Outcome]:
    small = FeatureConfig(short_side=48, crop=32)
    pipeline = Pipeline.load(config=Config(features=small, model=f"{bucket}/runs/x"))
    pipeline.cache.part = PART
    mirror = Mirror(out)
    output = ResultOutput(mirror.folder, mirror, ("json", "srt"))
    return list(run_batch(pipeline, find_videos([f"{bucket}/videos"]), output, engine=engine))


def files(out: str) -> dict[str, bytes]:
    store, path = fsspec.url_to_fs(out, use_listings_cache=False)
    return {name.removeprefix(f"{path}/"): store.cat_file(name) for name in store.find(path)}


@pytest.mark.parametrize("cluster", ["dask", "ray"], indirect=True)
def test_the_bytes_of_a_local_run(
    bucket: str, cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "alone"))
    run(bucket, f"{bucket}/alone", Engine())
    alone = files(f"{bucket}/alone")
    assert {name for name in alone if name.endswith(".json")} == {"a.json", "again.json", "day/b.json"}

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("the machine that runs fetches a video")

    tasks = []
    honest = planning.Planner.task
    monkeypatch.setattr(planning.Planner, "task", lambda *a: tasks.append(task := honest(*a)) or task)
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spool, "_SPOOL", type("", (), {"using": refuse})())
    monkeypatch.setattr(batch, "content_hash", refuse)
    monkeypatch.setattr(contents, "LITTLE", -1)
    monkeypatch.setattr(planning, "RUN_PARTS", 1)
    outcomes = run(bucket, f"{bucket}/out", cluster)
    assert files(f"{bucket}/out") == alone
    assert sorted(type(outcome.error).__name__ for outcome in outcomes) == ["NoneType"] * 3 + ["VideoError"]
    assert sum(outcome.duplicate_of is not None for outcome in outcomes) == 1
    pieces = [task for task in tasks if task.chunk is not None and task.video.name == "b.mp4"]
    assert len(pieces) == 5  # of ten snippets
    again = run(bucket, f"{bucket}/out", cluster)
    assert sum(outcome.skipped for outcome in again) == 3 and files(f"{bucket}/out") == alone

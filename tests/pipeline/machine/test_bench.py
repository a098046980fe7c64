"""The first use of a device happens beside other work, and is no part of what `bench` measures."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import coded, encode, small_checkpoint

from extractors.backbones import weights
from extractors.config import FeatureConfig
from model.predict import Scores
from pipeline import api
from pipeline.api import Pipeline
from pipeline.cache.entries import FeatureCache
from pipeline.config import Config
from pipeline.machine import bench
from pipeline.run.batch import run_batch
from pipeline.run.outcome import ResultOutput
from pipeline.run.videos import find_videos

pytestmark = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
SMALL = FeatureConfig(short_side=48, crop=32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "a.mp4", [coded(k) for k in range(40)])


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(small_checkpoint(), Config(device="cpu", features=SMALL), FeatureCache(tmp_path / "cache"))


@pytest.mark.parametrize("how", ["stages", "against"])
def test_everything_is_used_once_before_a_repeat_is_timed(
    pipeline: Pipeline, clip: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The cost of a first use (a device, a compiler) must not be in the first repeat."""
    told: list[str] = []
    scores, chunk, timed = Pipeline.scores, type(pipeline.extractor).chunk, bench._timed

    def tell(name: str, real: Any) -> Any:
        def called(*arguments: Any, **more: Any) -> Any:
            told.append(name)
            return real(*arguments, **more)

        return called

    monkeypatch.setattr(Pipeline, "scores", tell("scores", scores))
    monkeypatch.setattr(type(pipeline.extractor), "chunk", tell("chunk", chunk))
    monkeypatch.setattr(bench, "_timed", tell("timed", timed))
    if how == "stages":
        found = bench.stages(pipeline, clip, repeats=2)
        assert {len(stage.seconds) for stage in found} == {2}
        assert [stage.name for stage in found] == ["decode", "I3D rgb", "localisation", "end to end"]
    else:
        assert len(next(bench.against(pipeline, clip, repeats=1)).ratios) == 1
    before = told[: told.index("timed")]
    assert before == ["chunk", "scores"]


class Used:
    """Replaces the use of the network, and notes by which thread, on what and when it happens."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.threads: list[str] = []

    def __call__(self, net: Any, features: np.ndarray, device: str) -> Scores:
        self.rows.append(len(features))
        self.threads.append(threading.current_thread().name)
        rows = np.zeros((len(features), 3), np.float32)
        return Scores(rows, rows, np.zeros(len(features), np.float32), np.zeros(2, np.float32))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Used:
    found = Used()
    monkeypatch.setattr(api, "predict", found)
    return found


def test_on_a_gpu_the_localisation_network_is_made_ready_by_a_thread(
    pipeline: Pipeline, clip: Path, used: Used
) -> None:
    pipeline._net  # noqa: B018  (made while the device is still the CPU, which is all that there is here)
    pipeline.device = "cuda"
    pipeline(clip)
    assert used.rows == [2, 2]
    assert used.threads == ["warm-up", "MainThread"]
    pipeline(clip)
    assert used.rows == [2, 2, 2]  # once is enough


def test_on_a_cpu_there_is_nothing_to_make_ready(pipeline: Pipeline, clip: Path, used: Used) -> None:
    pipeline(clip)
    assert used.threads == ["MainThread"]


def test_a_batch_of_results_that_are_there_does_not_touch_the_gpu(
    pipeline: Pipeline, clip: Path, used: Used, tmp_path: Path
) -> None:
    jobs, out = find_videos([str(clip)]), tmp_path / "out"
    assert [done.error for done in run_batch(pipeline, jobs, ResultOutput(out))] == [None]
    pipeline.device = "cuda"
    assert [done.skipped for done in run_batch(pipeline, jobs, ResultOutput(out))] == [True]
    assert used.threads == ["MainThread"]
    assert [done.error for done in run_batch(pipeline, jobs, ResultOutput(out, overwrite=True))] == [None]
    assert used.threads == ["MainThread", "warm-up", "MainThread"]


def test_what_is_wrong_with_the_device_is_said_by_the_real_use(
    pipeline: Pipeline, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Scores:
        raise RuntimeError("CUDA error: the device is gone")

    monkeypatch.setattr(api, "predict", broken)
    pipeline._net  # noqa: B018
    pipeline.device = "cuda"
    with pytest.raises(RuntimeError, match="the device is gone"):
        pipeline(clip)

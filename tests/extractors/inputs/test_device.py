"""The accelerator's inputs, on CPU tensors, against OpenCV and the CPU's inputs."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import coded, encode

from extractors import features
from extractors.backbones.engines import gpu_batch
from extractors.config import VIEWS, FeatureConfig
from extractors.features import Extractor
from extractors.inputs import device
from extractors.inputs.device import DeviceInputs, Slab
from extractors.inputs.host import HostInputs
from extractors.inputs.prefetch import prefetch
from extractors.snippets import Snippet, snippets

CONFIG = FeatureConfig(length=4, stride=4, short_side=32, crop=32)


def test_grey_is_opencvs_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(device.grey(torch.from_numpy(image)[None])[0].numpy(), expected)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("frames", [17, 16, 3])
def test_inputs_equal_the_cpus(stride: int, frames: int, view: str) -> None:
    config = replace(CONFIG, stride=stride, view=view)
    images = [coded(k, 32, 44) for k in range(frames)]
    host, there = HostInputs(config, "numba"), DeviceInputs(config, "numba", "cpu")
    cut = list(snippets(enumerate(images), length=4, stride=stride))
    placed = ((k, there.frame(image)) for k, image in enumerate(images))
    moved = there.place(list(snippets(placed, length=4, stride=stride)))
    alone, threes = ([[[s] for s in some], [(some * 3)[:3], (some[::-1] * 3)[:3]]] for some in (cut, moved))
    for ours, theirs in zip(alone, threes, strict=True):  # snippets by themselves, and three together, some repeated
        assert torch.equal(host.rgb(ours), there.rgb(theirs))
        assert torch.allclose(host.flow(ours), there.flow(theirs), atol=1e-4)
    assert host.rgb(alone[1]).shape[2] == host.flow(alone[1]).shape[2] == 12


def test_frames_are_copies() -> None:
    image = coded(1, 32, 44)
    kept = image.copy()
    host, there = HostInputs(CONFIG, None), DeviceInputs(CONFIG, None, "cpu")
    frames = host.frame(image), there.frame(image)
    image[:] = 0
    (snippet,) = there.place([Snippet(0, (frames[1],), frames[1])])
    assert np.array_equal(frames[0], kept)
    assert snippet.following is not None
    assert all(np.array_equal(frame.numpy(), kept) for frame in (*snippet.frames, snippet.following))


def test_a_slab_is_sent_once_and_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    upload = Slab._upload

    def counted(self: Slab, until: int) -> None:
        if until > self._sent:
            sent.append((self._sent, until))
        upload(self, until)

    monkeypatch.setattr(Slab, "_upload", counted)
    there = DeviceInputs(CONFIG, None, "cpu")  # four frames to a slab
    waiting = [there.frame(coded(k, 32, 44)) for k in range(10)]
    assert sent == [(0, 4), (0, 4)]
    for k, frame in enumerate(waiting):
        assert np.array_equal(frame.slab.frame(frame.index).numpy(), coded(k, 32, 44))
    assert sent[2:] == [(0, 1), (1, 2)]  # the last ones are asked for before their slab is full
    waiting += [there.frame(coded(k, 32, 44)) for k in range(10, 12)]
    assert sent[4:] == [(2, 4)]
    other = there.frame(coded(12, 48, 64))  # of another video
    assert np.array_equal(other.slab.frame(other.index).numpy(), coded(12, 48, 64))


class Mean(torch.nn.Module):
    """A network for tests: the mean of every channel and frame, as a feature."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean(dim=(3, 4)).flatten(1)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        weights, width, graph = "stub", 8, False

        @staticmethod
        def load() -> torch.nn.Module:
            return Mean()

    monkeypatch.setattr(features.registry, "find", lambda *_: Found)


def on_device(config: FeatureConfig, batch: int, backend: str = "numba") -> Extractor:
    """An extractor that takes the accelerator's way, with its tensors on the CPU."""
    extractor = Extractor(replace(config, flow=backend), ("rgb", "flow"))
    extractor.inputs = DeviceInputs(config, backend, "cpu")
    extractor.batch = batch
    return extractor


def test_a_video_gives_the_same_features_by_either_way(stubbed: None, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k, 64, 88) for k in range(9)])
    host = Extractor(replace(CONFIG, flow="torch"), ("rgb", "flow")).chunk(video)
    there = on_device(CONFIG, 3, "torch").chunk(video)
    assert np.array_equal(host.times, there.times)
    assert len(there.times) == 2
    assert np.array_equal(host.rgb, there.rgb)
    assert np.allclose(host.flow, there.flow, atol=1e-4)
    assert host.settings == there.settings


def test_a_full_gpu_halves_the_batch(stubbed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k, 64, 96) for k in range(40)])
    expected = on_device(CONFIG, 1).chunk(video)
    extractor = on_device(CONFIG, 8)
    forward = Extractor.forward

    def small(self: Extractor, pixels: torch.Tensor, stream: str) -> np.ndarray:
        if len(pixels) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return forward(self, pixels, stream)

    monkeypatch.setattr(Extractor, "forward", small)
    got = extractor.chunk(video)
    assert extractor.batch == 2
    assert np.allclose(got.rgb, expected.rgb)
    assert np.allclose(got.flow, expected.flow, atol=1e-4)


def test_precisions(stubbed: None, tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k, 64, 96) for k in range(8)])
    plain = Extractor(CONFIG).chunk(video)
    half = Extractor(replace(CONFIG, precision="bfloat16")).chunk(video)
    assert half.settings["rgb"]["dtype"] == "bfloat16"
    assert np.allclose(plain.rgb, half.rgb, atol=0.01)
    assert gpu_batch("cpu") == 1


@pytest.mark.gpu
def test_uploads_while_the_gpu_is_busy() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (180, 320, 3), dtype=np.uint8) for _ in range(402)]
    there, busy = DeviceInputs(CONFIG, None, "cuda"), torch.randn(4096, 4096, device="cuda")
    sums = []
    for frame in prefetch((there.frame(image) for image in images), 64):
        busy = torch.tanh(busy @ busy)
        (snippet,) = there.place([Snippet(0, (frame,), None)])
        sums.append(snippet.frames[0].long().sum())  # queued behind that, when the next frames have long come
        del frame, snippet
    assert torch.stack(sums).tolist() == [int(image.sum()) for image in images]


@pytest.mark.gpu
def test_a_real_gpu_agrees_with_the_cpu(corpus: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    clip = corpus / "GolfSwing" / "GolfSwing_001.mp4"
    host = Extractor(FeatureConfig(), ("rgb", "flow")).chunk(clip)
    there = Extractor(FeatureConfig(), ("rgb", "flow"), device="cuda").chunk(clip)
    for name in ("rgb", "flow"):
        a, b = getattr(host, name), getattr(there, name)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() >= 0.999, name

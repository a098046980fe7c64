"""NVDEC: absent, it is one sentence at once; present, it is never silently replaced."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import coded, encode, number_of

from extractors import features
from extractors.config import FeatureConfig
from extractors.decode import container as video
from extractors.decode import grid as framing
from extractors.decode.container import open_video, require_nvdec
from extractors.decode.grid import Frames
from extractors.decode.process import Decoder
from extractors.decode.video import DecoderUnavailable, VideoError
from extractors.features import Extractor
from support.errors import exit_code

CONFIG = FeatureConfig(short_side=48, crop=32)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine may have NVDEC")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return encode(tmp_path / "v.mp4", [coded(k) for k in range(60)], options={"g": "20"})


def test_an_ffmpeg_built_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av.codec.hwaccel, "hwdevices_available", lambda: ["drm"])
    with pytest.raises(DecoderUnavailable, match="comes without NVDEC; use --decoder cpu") as caught:
        require_nvdec()
    assert exit_code(caught.value) == 4


@without_gpu
def test_a_machine_without_it(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(DecoderUnavailable, match="cannot be opened on GPU 1"):
        require_nvdec(1)
    with pytest.raises(DecoderUnavailable), open_video(clip, gpu=0):
        pass
    with pytest.raises(VideoError, match="no such file"), open_video(tmp_path / "none.mp4", gpu=0):
        pass
    with pytest.raises(DecoderUnavailable, match="use --decoder cpu"):
        Extractor(replace(CONFIG, backbone="i3d", decoder="nvdec"), ())


@without_gpu
def test_the_decoders_process_says_so_and_lives_on(clip: Path) -> None:
    child = Decoder(gpu=0)
    for _ in range(2):
        with pytest.raises(DecoderUnavailable, match="GPU 0"), child.open(clip, CONFIG):
            pass
    assert child._child is not None
    pid = child._child.pid
    child.gpu = None
    with child.open(clip, CONFIG) as (_, frames):
        assert len(list(frames)) == 60
        assert child._child.pid == pid


def test_it_is_keyed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        weights, width, graph = "stub", 8, False

    monkeypatch.setattr(features.registry, "find", lambda *_: Found)
    asked: list[int] = []
    monkeypatch.setattr(video, "require_nvdec", asked.append)
    plain, there = (Extractor(replace(CONFIG, decoder=name)) for name in ("cpu", "nvdec"))
    assert asked == [0]
    assert (plain.decoder.gpu, there.decoder.gpu) == (None, 0)
    one, other = plain.settings()["rgb"], there.settings()["rgb"]
    assert other["decoder"] == f"nvdec {one['decoder']}"
    assert {k: v for k, v in one.items() if k != "decoder"} == {k: v for k, v in other.items() if k != "decoder"}
    with pytest.raises(ValueError, match="decoder must be one of cpu, nvdec"):
        replace(CONFIG, decoder="gpu")


def opening(monkeypatch: pytest.MonkeyPatch, refuses: bool) -> list[bool]:
    """Make av.open drop the accelerator, or refuse it as PyAV does; returns whether each call came with one."""
    asked: list[bool] = []
    real = av.open

    def fake(*args: Any, hwaccel: Any = None, **more: Any) -> Any:
        asked.append(hwaccel is not None)
        if hwaccel is not None and refuses:
            raise RuntimeError("Hardware accelerated decode requested but no stream is compatible")
        return real(*args, **more)

    monkeypatch.setattr(av, "open", fake)
    return asked


@pytest.mark.parametrize("refuses", [True, False])  # PyAV accepts a file when any stream of it is compatible
def test_a_codec_that_it_does_not_decode_is_not_decoded_otherwise(
    clip: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    asked = opening(monkeypatch, refuses)
    with (
        pytest.raises(VideoError, match=r"v.mp4: NVDEC does not decode its video codec \(h264\); use --decoder cpu"),
        open_video(clip, gpu=0),
    ):
        pass
    assert asked == ([True, False] if refuses else [True])


def test_no_frame_and_a_second_opening(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = video.open_video, []

    def fake(path: Path, gpu: int | None = None, *more: Any) -> Any:
        asked.append(gpu)
        return real(path, None, *more)

    monkeypatch.setattr(framing, "open_video", fake)
    with Frames(clip, 25, 48, gpu=1) as frames:
        monkeypatch.setattr(Frames, "_rising", lambda self: False)  # so that it is read again from its start
        assert [number_of(image) for _, image in frames.grid(50)] == list(range(50, 60))
    assert asked == [1, 1]
    monkeypatch.setattr(framing, "decode_seen", lambda *_, **__: iter(()))
    with pytest.raises(VideoError, match="NVDEC decodes no frame of it; use --decoder cpu"), Frames(clip, 25, 48, 1):
        pass


@pytest.mark.gpu
def test_it_shows_what_the_cpu_shows(tmp_path: Path) -> None:
    require_nvdec()
    path = encode(tmp_path / "v.mp4", [coded(k, 240, 320) for k in range(200)], options={"g": "40", "bf": "3"})
    with Frames(path, 25) as one, Frames(path, 25, gpu=0) as other:
        assert (one.origin, one.size, one.info) == (other.origin, other.size, other.info)
        for (k, a), (j, b) in zip(one.grid(), other.grid(), strict=True):
            assert k == j
            assert np.abs(a.astype(int) - b).mean() < 1.5
        assert (one.end, one.partial(True)) == (other.end, other.partial(True))
    with Frames(path, 25) as one, Frames(path, 25, gpu=0) as other:  # after a jump
        assert [k for k, _ in one.grid(123)] == [k for k, _ in other.grid(123)]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["GolfSwing/GolfSwing_001.mp4", "TennisRally/TennisRally_002.mp4"])
def test_real_clips(corpus: Path, name: str) -> None:
    require_nvdec()
    with Frames(corpus / name, 25) as one, Frames(corpus / name, 25, gpu=0) as other:
        worst = max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(one.grid(), other.grid(), strict=True))
    assert worst < 1.5

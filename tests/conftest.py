"""Tiny videos made on the spot, whose frames carry their number, and the optional corpus of real clips."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch

import cli
from extractors import flow
from extractors.backbones import registry
from extractors.backbones.registry import Backbone
from extractors.backbones.weights import weights_dir
from extractors.decode.grid import Frames
from extractors.decode.video import VideoInfo
from extractors.features import Features
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.jcdnet import JCDNet

torch.set_num_threads(1)

Image = np.ndarray
ROWS, COLUMNS = 2, 6  # of black and white cells: 12 bits of the frame's number


def coded(number: int, height: int = 48, width: int = 72) -> Image:
    """A frame (H, W, 3) whose cells spell `number`; a ramp drifts across it, so that no two frames are equal."""
    bits = (number >> np.arange(ROWS * COLUMNS)) & 1
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    cells = bits.reshape(ROWS, COLUMNS)[rows[:, None], columns[None, :]] * 170 + 30
    ramp = (np.arange(width) * 3 + number * 7) % 40
    return np.repeat((cells + ramp)[..., None], 3, axis=2).astype(np.uint8)


def number_of(image: Image) -> int:
    """Read what `coded` wrote, whatever the size and however lossy the codec."""
    height, width = image.shape[0] / ROWS, image.shape[1] / COLUMNS
    bits = 0
    for index in range(ROWS * COLUMNS):
        row, column = divmod(index, COLUMNS)
        middle = image[
            int((row + 0.3) * height) : int((row + 0.7) * height) + 1,
            int((column + 0.3) * width) : int((column + 0.7) * width) + 1,
        ]
        bits |= int(middle.mean() > 130) << index
    return bits


def encode(
    path: Path,
    frames: Sequence[Image],
    codec: str = "libx264",
    rate: Fraction | int = 25,
    times: Sequence[float] | None = None,
    tick: Fraction = Fraction(1, 90000),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    sound: float = 0.0,
) -> Path:
    """Write a video. `times`: seconds of the frames when they are not k / rate; `sound`: seconds of silence beside it.

    `prepare` gets the stream before the first frame (rotation, aspect ratio, pixel format).
    """
    with av.open(str(path), "w", options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p", "ffv1": "yuv444p"}.get(codec, "yuv420p")
        stream.options = {"preset": "veryfast"} if codec == "libx264" and options is None else options or {}
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = tick
        prepare(stream)
        audio = out.add_stream("aac", rate=48000) if sound else None
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = Fraction(1) / rate if times is None else tick
            frame.pts = k if times is None else round(times[k] / tick)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            for k in range(round(sound * 48000 / 1024)):
                silence.pts, silence.time_base = k * 1024, Fraction(1, 48000)
                out.mux(audio.encode(silence))
            out.mux(audio.encode(None))
    return path


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread or process does; at most ten seconds."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


def digest(features: Features) -> tuple[Any, ...]:
    """All that features hold, as what can be compared byte by byte."""
    rest = (features.duration, features.media, features.settings, features.warnings, features.partial)
    arrays = (features.rgb, features.flow, features.times)
    return (*(None if a is None else a.tobytes() for a in arrays), *map(repr, rest))


def small_checkpoint(**features: object) -> Checkpoint:
    """An untrained model of two classes that declares these settings of features."""
    config = ModelConfig(classes=2, in_dim=1024, dim=4)
    torch.manual_seed(0)
    return Checkpoint(
        config=config,
        classes=("serve", "volley"),
        streams=("rgb",),
        features={"rgb": features},
        state=JCDNet(config).state_dict(),
        groups={"serve": "tennis", "volley": "tennis"},
    )


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real clips: `JCDNET_CORPUS`, or ../shared/corpus beside the repository."""
    folder = Path(os.environ.get("JCDNET_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
    if not folder.is_dir():
        pytest.skip(f"no corpus at {folder} (JCDNET_CORPUS)")
    return folder


@pytest.fixture(scope="session")
def cases(corpus: Path) -> Path:
    """The folder of small inputs that failed once, beside the corpus."""
    folder = corpus.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}")
    return folder


class Pixels(torch.nn.Module):
    """A network whose feature is a sample of its input, of every frame: any wrong pixel shows, exactly."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :, 1::9, 2::7].flatten(1)


def difference(grey: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    """A flow that is the change of grey, in x, and its half in y."""
    change = np.diff(grey.astype(np.float32), axis=0)
    return np.stack([change, change / 2], axis=-1)


@pytest.fixture(scope="module")
def examples() -> ModuleType:
    """tools/examples.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("examples", Path(__file__).parents[1] / "tools" / "examples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stubs() -> Iterator[None]:
    """A backbone and a flow backend named `stub`, in which any wrong pixel shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, "stub", lambda stream, path: Backbone(Pixels, 480, f"stub {path}"))
        patch.setitem(flow.FLOWS, "stub", difference)
        patch.setitem(flow.VERSIONS, "stub", lambda: "stub-1")
        yield


def settings() -> dict[str, str]:
    """The variables of the environment that are jcdnet's own."""
    return {name: value for name, value in os.environ.items() if name.startswith("JCDNET_")}


@pytest.fixture(autouse=True)
def variables_stay() -> Iterator[None]:
    """No test leaves a variable behind for the tests after it."""
    before = settings()
    yield
    assert settings() == before


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for this test alone, with the weights that are there."""
    monkeypatch.setenv("JCDNET_WEIGHTS", str(weights_dir()))
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mean_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with footage/ and a cache of its own; a feature is a snippet's mean colour and zeros."""
    import torch

    from extractors.backbones import registry

    class Means(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(x.mean(dim=(2, 3, 4)), (0, 1021))

    monkeypatch.setitem(registry.BACKBONES, "i3d", lambda stream, path: registry.Backbone(Means, 1024, "means"))
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "footage").mkdir()
    return tmp_path


@pytest.fixture
def jcdnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jcdnet", *map(str, arguments)])
        monkeypatch.setattr(cli.err, "quiet", False)
        code, before = 0, settings()
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:  # --cache and --spool set variables for workers; a command of its own process would take them with it
            for name in settings().keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def probe(path: Path) -> VideoInfo:
    """The header of a video, and one frame of its picture for its rotation."""
    with Frames(path) as frames:
        return frames.info

"""Measures how fast this machine is: each stage of a run, the whole run, and the usual pipeline for comparison."""

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import av
import cv2
import numpy as np
import torch

from extractors import flow
from extractors.backbones import registry
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.weights import WeightsError, find, inflate_flow
from extractors.config import FeatureConfig, Stretch
from extractors.decode.grid import Frames
from extractors.features import Features
from extractors.inputs.host import rgb_input, seen
from extractors.snippets import Snippet, snippets
from model.predict import Scores
from pipeline.api import Pipeline
from pipeline.cache.entries import FeatureCache
from postprocess.segment import Result, Segment
from support.paths import program

T = TypeVar("T")
REFERENCE = "opencv"
LONGEST = 60  # seconds; the rest of a longer video is not measured


@dataclass(frozen=True)
class Stage:
    """One row: the `seconds` that each repeat took for `frames` frames of the 25 fps grid."""

    name: str
    frames: int
    seconds: tuple[float, ...]

    @property
    def fps(self) -> float:
        """Frames per second of the median repeat."""
        return self.frames / statistics.median(self.seconds)

    def to_dict(self, grid_fps: float) -> dict[str, Any]:
        """Return frames/s, times real time, minutes per hour of video, and the seconds of each repeat."""
        return {
            "stage": self.name,
            "frames": self.frames,
            "frames_per_s": self.fps,
            "x_real_time": self.fps / grid_fps,
            "min_per_hour": 60 * grid_fps / self.fps,
            "seconds": list(self.seconds),
        }


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the reference, for each repeat; the two runs of a repeat follow one another.

    agreement: the smallest tIoU between a segment and the reference's; 0 if a segment has no counterpart of its label,
    1 if neither found anything.
    """

    name: str
    ratios: tuple[float, ...]
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """Return the median and the spread of the ratios."""
        return {
            "stage": self.name,
            "median": statistics.median(self.ratios),
            "min": min(self.ratios),
            "max": max(self.ratios),
            "ratios": list(self.ratios),
            "least_tiou_of_segments": self.agreement,
        }


def make_clip(path: Path, seconds: float = 10.0, size: tuple[int, int] = (256, 340)) -> Path:
    """Encode a clip of drifting texture in H.264 at 25 fps, for machines without a video."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 4, 3), dtype=np.uint8)
    scene = np.asarray(cv2.resize(noise, (2 * width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(round(seconds * 25)):
            image = np.ascontiguousarray(np.roll(scene, 2 * k, axis=1)[:, :width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def stages(pipeline: Pipeline, video: Path, repeats: int = 3) -> list[Stage]:
    """Time decoding, flow, I3D, localisation and a whole run, one after the other, each `repeats` times.

    Raises:
        VideoError: the video cannot be decoded.
    """
    extractor = pipeline.extractor
    batch = _snippets(video, extractor.config)
    frames = len(batch) * extractor.config.stride
    features = warm_up(pipeline, video)
    jobs: dict[str, Callable[[], object]] = {"decode": lambda: _decode(pipeline, video)}
    if extractor.flow_backend is not None:
        backend = extractor.flow_backend
        jobs[f"flow ({backend})"] = lambda: [_flow(snippet, backend, extractor.device) for snippet in batch]
    for stream in extractor.streams:
        channels = 3 if stream == "rgb" else 2
        height, width, _ = batch[0].frames[0].shape
        rows, columns = seen(height, width, extractor.config)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        together = extractor.config.together
        pixels = torch.zeros(extractor.batch, channels, extractor.config.length * together, *size)
        runs = math.ceil(len(batch) / (extractor.batch * together))
        jobs[f"I3D {stream}"] = lambda s=stream, p=pixels, n=runs: [  # type: ignore[misc]
            extractor.forward(p, s) for _ in range(n)
        ]
    jobs["localisation"] = lambda: pipeline.segments(pipeline.scores(features), features)
    jobs["end to end"] = lambda: run_afresh(pipeline, video)
    return [Stage(name, frames, tuple(_seconds(job) for _ in range(repeats))) for name, job in jobs.items()]


def warm_up(pipeline: Pipeline, video: Path) -> Features:
    """Run every stage once. This loads and compiles, so that no repeat includes the first use of a device."""
    features = pipeline.extractor.chunk(video, Stretch(end=LONGEST))
    pipeline.segments(pipeline.scores(features), features)
    return features


def run_afresh(pipeline: Pipeline, video: Path) -> tuple[Result, Features, Scores]:
    """Run with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        own, pipeline.cache = pipeline.cache, FeatureCache(Path(folder))
        try:
            return pipeline.run(video, end=LONGEST)
        finally:
            pipeline.cache = own


class Reference:
    """The usual pipeline: OpenCV's TV-L1 with its defaults, pair by pair, and the plain I3D module."""

    def __init__(self, config: FeatureConfig, streams: Sequence[str]) -> None:
        """Load the same weights into networks that are not optimised (neither folded nor re-laid).

        Raises:
            WeightsError: the weights are not on this machine.
        """
        self.config, self.streams = config, streams
        path = find("i3d-rgb")
        if path is None:
            raise WeightsError(f"the I3D weights are not on this machine; run `{program()} models fetch i3d-rgb`.")
        state = registry.i3d_state(path)
        self.nets: dict[str, InceptionI3d] = {}
        for stream in streams:
            net = InceptionI3d(3 if stream == "rgb" else 2)
            net.load_state_dict(state if stream == "rgb" else inflate_flow(state), strict=False)
            self.nets[stream] = net.eval()

    def __call__(self, video: Path) -> dict[str, np.ndarray]:
        """Return features (T, 1024) by stream."""
        rows: dict[str, list[np.ndarray]] = {stream: [] for stream in self.streams}
        for snippet in _snippets(video, self.config):
            for stream in self.streams:
                pixels = rgb_input(snippet.frames, self.config) if stream == "rgb" else self._flow(snippet)
                with torch.no_grad():
                    rows[stream].append(self.nets[stream](pixels.unsqueeze(0))[0].numpy())
        return {stream: np.stack(values) for stream, values in rows.items()}

    def _flow(self, snippet: Snippet[Any]) -> torch.Tensor:
        from extractors.inputs.host import flow_input

        return flow_input(snippet, self.config, REFERENCE, workers=1)


def against(pipeline: Pipeline, video: Path, repeats: int = 3) -> Iterator[Ratio]:
    """Time whole runs against the reference pipeline, in turn: theirs, ours, theirs, ours.

    Raises:
        WeightsError: the reference's weights are not on this machine.
    """
    reference = Reference(pipeline.extractor.config, pipeline.extractor.streams)
    warm_up(pipeline, video)
    ratios, agreement = [], 1.0
    for _ in range(repeats):
        theirs, rows = _timed(lambda: reference(video))
        ours, (result, features, _) = _timed(lambda: run_afresh(pipeline, video))
        ratios.append(theirs / ours)
        expected = dataclasses.replace(features, rgb=rows.get("rgb"), flow=rows.get("flow"))
        agreement = min(agreement, _agreement(result.segments, pipeline.segments(pipeline.scores(expected), expected)))
    yield Ratio("end to end", tuple(ratios), agreement)


def _agreement(found: Sequence[Segment], expected: Sequence[Segment]) -> float:
    """The agreement of `Ratio`; segments are compared in the order of their starts."""
    pairs = zip(*(sorted(side, key=lambda s: (s.start, s.label)) for side in (found, expected)), strict=False)
    overlaps = [_tiou(a, b) if a.label == b.label else 0.0 for a, b in pairs]
    return min(overlaps, default=1.0) if len(found) == len(expected) else 0.0


def _tiou(a: Segment, b: Segment) -> float:
    union = max(a.end, b.end) - min(a.start, b.start)
    return max(0.0, min(a.end, b.end) - max(a.start, b.start)) / union if union else 1.0


def _timed(job: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    value = job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, value


def _seconds(job: Callable[[], object]) -> float:
    return _timed(job)[0]


def _snippets(video: Path, config: FeatureConfig) -> list[Snippet[Any]]:
    with Frames(video, config.fps, config.short_side) as frames:
        stretch = frames.grid(0, LONGEST * config.fps)  # held in memory
        return list(snippets(stretch, length=config.length, stride=config.stride))


def _decode(pipeline: Pipeline, video: Path) -> int:
    extractor = pipeline.extractor
    take = extractor.inputs.frame
    with extractor.decoder.open(video, extractor.config, Stretch(end=LONGEST), take=take) as (_, frames):
        return sum(1 for _ in frames)


def _flow(snippet: Snippet[Any], backend: str, device: str) -> object:
    frames = snippet.frames if snippet.following is None else (*snippet.frames, snippet.following)
    return flow.FLOWS[backend](np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]), device=device)

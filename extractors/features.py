"""From a video to its features: decode, flow and I3D, snippet by snippet, in memory that does not grow."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors import backbones, flow
from extractors.ahead import ahead
from extractors.config import STREAMS, FeatureConfig
from extractors.decoder import Decoder
from extractors.device import DeviceInputs
from extractors.inputs import HostInputs
from extractors.snippets import Snippet, snippet_range, snippet_times, snippets
from extractors.video import VideoError, fit, require_nvdec

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""(stage, done, total), in snippets; total is an estimate from the container's duration"""

# Two snippets at once run 1.5 times as fast as one by one on two cores, and four no faster (benchmarks/README.md).
CPU_BATCH = 2
# Of a GPU's free memory, a snippet in the networks and in flow takes well under this much (bytes).
SNIPPET_BYTES = 512 << 20
MOST_SNIPPETS = 32  # 512 frame pairs of flow at once; a larger batch only costs short videos, which fill it up

FORMAT = 2  # of the settings and of the features file; raise it when the same settings would mean other numbers


class FeaturesError(Exception):
    """A features file, or a request for features, is not usable; the message says why and what to do."""


@dataclass(frozen=True)
class Features:
    """Features of a video, or of a stretch of it."""

    rgb: Floats | None
    """(T, D)"""
    flow: Floats | None
    """(T, D), or None when the stream was not asked for"""
    times: NDArray[np.float64]
    """(T, 2) start and end of each snippet, seconds of the video"""
    duration: float
    """seconds from 0 to where the video's last frame stops being shown"""
    media: dict[str, Any]
    """width and height upright in square pixels, rate as a fraction, start_timecode"""
    settings: dict[str, dict[str, Any]]
    """by stream: everything that decided the numbers"""
    warnings: tuple[str, ...] = ()
    partial: bool = False
    """whether parts of the file could not be decoded"""

    def stacked(self, streams: tuple[str, ...]) -> Floats:
        """The asked streams side by side, RGB first: (T, D) or (T, 2D).

        Raises:
            FeaturesError: a stream is not there.
        """
        parts = [(name, getattr(self, name)) for name in STREAMS if name in streams]
        for name, values in parts:
            if values is None:
                raise FeaturesError(f"the model needs the {name} stream; extract it too (--streams both).")
        return np.concatenate([values for _, values in parts], axis=1)


class Extractor:
    """The backbones of the streams, loaded once and when first needed, and `chunk`, the unit of extraction."""

    def __init__(
        self,
        config: FeatureConfig,
        streams: tuple[str, ...] = ("rgb",),
        device: str = "cpu",
        weights: Mapping[str, Path | None] | None = None,
    ) -> None:
        """Find the weights and the flow backend; `weights`: by stream, a file instead of the published one.

        Raises:
            WeightsError: weights are missing.
            FlowError: there is no such flow backend, or (FlowUnavailable) it cannot work here.
            DecoderUnavailable: NVDEC is asked for, and there is none.
        """
        self.config, self.device = config, device
        self.streams = tuple(name for name in STREAMS if name in streams)
        backend = flow.resolve(config.flow, device)
        self.flow_backend = backend if "flow" in streams else None
        if self.flow_backend is not None:
            flow.require(backend, device)
        chosen = weights or {}
        self.backbones = {n: backbones.find(config.backbone, n, chosen.get(n)) for n in self.streams}
        on_host = torch.device(device).type == "cpu"
        self.precision = config.precision
        if config.precision == "auto":
            self.precision = "float32" if on_host else "float16"
        self.inputs: Any = (
            HostInputs(config, self.flow_backend) if on_host else DeviceInputs(config, self.flow_backend, device)
        )
        self.batch = CPU_BATCH if on_host else gpu_batch(device)
        gpu = (torch.device(device).index or 0) if config.decoder == "nvdec" else None
        if gpu is not None:
            require_nvdec(gpu)
        self.decoder = Decoder(gpu)
        self._nets: dict[str, nn.Module] = {}

    def net(self, stream: str) -> nn.Module:
        """The network of a stream, on the device."""
        if stream not in self._nets:
            self._nets[stream] = self.backbones[stream].load().to(self.device)
        return self._nets[stream]

    def settings(self) -> dict[str, dict[str, Any]]:
        """By stream, everything that decides its numbers: the cache key, and what checkpoints compare."""
        config = self.config
        common = {
            "format": FORMAT,
            "backbone": config.backbone,
            "fps": config.fps,
            "length": config.length,
            "stride": config.stride,
            "short_side": config.short_side,
            "crop": config.crop,
            "resize": "device-1" if self.inputs.native else f"opencv-{cv2.__version__}",
            "decoder": f"{'nvdec ' if config.decoder == 'nvdec' else ''}pyav-{av.__version__} {_libraries()}",
            "device": torch.device(self.device).type,
            "dtype": self.precision,
        }
        found = {name: common | {"weights": b.weights} for name, b in self.backbones.items()}
        if self.flow_backend is not None:
            found["flow"] |= {"flow": flow.version(self.flow_backend), "flow_clip": config.flow_clip}
        return found

    def chunk(
        self,
        path: Path,
        start: float = 0.0,
        end: float = math.inf,
        streams: tuple[str, ...] | None = None,
        on_progress: Progress = lambda stage, done, total: None,
    ) -> Features:
        """Features of the snippets that cover seconds start..end of a video; times stay those of the whole video.

        `streams`: those of the extractor's that are wanted now; default all.
        Snippets go through the networks in batches of one fixed size, the last one filled up with copies, so that
        the numbers do not depend on how a video is cut.

        Raises:
            VideoError: the file cannot be decoded, or has nothing between start and end.
        """
        config = self.config
        wanted = self.streams if streams is None else streams
        rows: dict[str, list[Floats]] = {name: [] for name in wanted}
        times: list[tuple[float, float]] = []
        padded = False
        native, take = self.inputs.native, self.inputs.frame
        with self.decoder.open(path, config, start, end, native, take) as (clip, frames):
            _, expected = snippet_range(0.0, clip.info.duration, clip.origin, config)
            total = max(int(min(expected, clip.last)) - clip.first, 1)
            if native:  # the decoder's ring holds few frames of full size: they wait on the device, a batch of them
                frames = ahead(frames, self.batch * config.length)
            cut = snippets(frames, length=config.length, stride=config.stride, last=clip.last)
            for batch in _batched(cut, self.batch):
                on_progress("decode", len(times) + len(batch), total)
                if "flow" in wanted and not times:
                    self._compile(fit(clip.size, config.short_side), on_progress)
                for name in wanted:
                    rows[name].append(self._features(batch, name))
                    on_progress("flow" if name == "flow" else "i3d", len(times) + len(batch), total)
                times += [snippet_times(snippet.index, clip.origin, config) for snippet in batch]
                padded |= batch[0].padded
        if not times:
            raise VideoError(f"{path}: nothing between {start:g} s and {end:g} s; the video ends at {clip.end:.2f} s.")
        said = clip.warnings
        if padded:
            seconds = config.length / config.fps
            said = (*said, f"shorter than a snippet ({seconds:.2f} s): its last frame was repeated.")
        stacked = {name: np.concatenate(values) for name, values in rows.items()}
        return Features(
            rgb=stacked.get("rgb"),
            flow=stacked.get("flow"),
            times=np.array(times, dtype=np.float64),
            duration=clip.end if math.isinf(clip.last) else max(clip.info.duration, clip.end),
            media={
                "width": clip.info.width,
                "height": clip.info.height,
                "rate": clip.info.rate,
                "start_timecode": clip.info.start_timecode,
            },
            settings={name: self.settings()[name] for name in wanted},
            warnings=said,
            partial=clip.partial,
        )

    def _compile(self, size: tuple[int, int], on_progress: Progress) -> None:
        """Compile the flow kernels for frames of this size, and say so: it happens once on a machine."""
        assert self.flow_backend is not None
        if flow.must_compile(self.flow_backend, size[1]):
            on_progress("compile", 0, 1)
            flow.warmup(self.flow_backend, size[1])
            on_progress("compile", 1, 1)

    def _features(self, batch: list[Snippet[Any]], stream: str) -> Floats:
        """Features (B, D) of one stream for B snippets; B is filled up to the fixed batch size.

        A GPU that is full gets half the batch, from there on.
        """
        filled = batch + batch[-1:] * (self.batch - len(batch))
        make = self.inputs.rgb if stream == "rgb" else self.inputs.flow
        while True:
            try:
                parts = [self.forward(make(part), stream) for part in _batched(filled, self.batch)]
                return np.concatenate(parts)[: len(batch)]
            except torch.cuda.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch //= 2
                torch.cuda.empty_cache()

    def forward(self, pixels: Tensor, stream: str) -> Floats:
        """One pass of a stream's network: (B, 3 or 2, L, crop, crop) in [-1, 1] -> (B, D)."""
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        exact = torch.backends.cudnn.flags(allow_tf32=False)  # cuDNN would round float32 to TF32 by itself
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype != torch.float32), exact:
            placed = pixels.to(self.device).contiguous(memory_format=torch.channels_last_3d)
            features: Tensor = self.net(stream)(placed)
            return features.float().cpu().numpy()


def _batched(items: Iterable[Snippet[Any]], size: int) -> Iterator[list[Snippet[Any]]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def gpu_batch(device: str) -> int:
    """Snippets in a batch: a power of two that the device's free memory holds, between 1 and MOST_SNIPPETS."""
    if torch.device(device).type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return 1 << int(math.log2(min(max(free // SNIPPET_BYTES, 1), MOST_SNIPPETS)))


def _libraries() -> str:
    """FFmpeg's own versions: another one may decode or convert colours differently."""
    parts = av.library_versions
    return " ".join(f"{name}-{'.'.join(map(str, parts[name]))}" for name in ("libavcodec", "libswscale"))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temp file in the same folder, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cut short, or a name of 250 characters, which a video may have, would leave no room for the random ones.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from colleagues
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save(features: Features, path: Path) -> None:
    """Write a features file (.npz: rgb, flow, times, and a JSON string `settings`), without pickles."""
    meta = {
        "settings": features.settings,
        "duration": features.duration,
        "media": features.media,
        "warnings": features.warnings,
        "partial": features.partial,
    }
    arrays: dict[str, Any] = {"times": features.times, "settings": np.array(json.dumps(meta))}
    arrays |= {name: v for name in STREAMS if (v := getattr(features, name)) is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> Features:
    """Read a features file and check it: shapes, types, finite numbers, the ZIP's own checksums.

    Raises:
        FeaturesError: there is none, or it is damaged, or not ours.
    """
    if not path.is_file():
        raise FeaturesError(f"{path}: no such features file.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays["settings"][()]))
        times = np.asarray(arrays["times"], np.float64)
        streams = {name: np.asarray(arrays[name], np.float32) for name in STREAMS if name in arrays}
        duration = float(meta["duration"])
        if times.shape != (len(times), 2) or not streams or not np.isfinite([*times.flat, duration]).all():
            raise ValueError("times must be (T, 2) and finite")
        for name, values in streams.items():
            if values.ndim != 2 or len(values) != len(times) or not np.isfinite(values).all():
                raise ValueError(f"{name} must be (T, D) and finite")
        return Features(
            rgb=streams.get("rgb"),
            flow=streams.get("flow"),
            times=times,
            duration=duration,
            media=dict(meta["media"]),
            settings=dict(meta["settings"]),
            warnings=tuple(meta["warnings"]),
            partial=bool(meta["partial"]),
        )
    except Exception as error:  # a damaged ZIP raises many kinds
        raise FeaturesError(f"{path}: not a whole features file ({error}); delete it and extract again.") from error

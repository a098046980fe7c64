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
from extractors.config import STREAMS, FeatureConfig
from extractors.decoder import Decoder
from extractors.snippets import Snippet, snippet_range, snippet_times, snippets
from extractors.video import Image, VideoError

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""(stage, done, total), in snippets; total is an estimate from the container's duration"""

GPU_BATCH = 32  # snippets; the last one is filled up, so a larger batch only costs short videos

FORMAT = 1  # of the settings and of the features file; raise it when the same settings would mean other numbers


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
            FlowError: there is no such flow backend.
        """
        self.config, self.device = config, device
        self.streams = tuple(name for name in STREAMS if name in streams)
        self.flow_backend = flow.resolve(config.flow, device) if "flow" in streams else None
        chosen = weights or {}
        self.backbones = {n: backbones.find(config.backbone, n, chosen.get(n)) for n in self.streams}
        self.batch = 1 if torch.device(device).type == "cpu" else GPU_BATCH
        self.decoder = Decoder()
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
            "resize": f"opencv-{cv2.__version__}",
            "decoder": f"pyav-{av.__version__} {_libraries()}",
            "device": torch.device(self.device).type,
            "dtype": "float32",
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
        the numbers do not depend on how a video is cut (on the CPU the size is 1).

        Raises:
            VideoError: the file cannot be decoded, or has nothing between start and end.
        """
        config = self.config
        wanted = self.streams if streams is None else streams
        rows: dict[str, list[Floats]] = {name: [] for name in wanted}
        times: list[tuple[float, float]] = []
        padded = False
        with self.decoder.open(path, config, start, end) as (clip, frames):
            _, expected = snippet_range(0.0, clip.info.duration, clip.origin, config)
            total = max(int(min(expected, clip.last)) - clip.first, 1)
            cut = snippets(frames, length=config.length, stride=config.stride, last=clip.last)
            for batch in _batched(cut, self.batch):
                on_progress("decode", len(times) + len(batch), total)
                for name in wanted:
                    rows[name].append(self._rows(batch, name))
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

    def _rows(self, batch: list[Snippet], stream: str) -> Floats:
        """Features (B, D) of one stream, for B snippets."""
        if stream == "rgb":
            pixels = torch.stack([rgb_input(snippet.frames, self.config) for snippet in batch])
        else:
            assert self.flow_backend is not None
            pixels = torch.stack(
                [flow_input(snippet, self.config, self.flow_backend, self.device) for snippet in batch]
            )
        return self._forward(pixels, stream)

    def _forward(self, pixels: Tensor, stream: str) -> Floats:
        """(B, C, L, crop, crop) -> (B, D); B filled up to the fixed batch size, halved when the GPU is full."""
        kept = len(pixels)
        filled = torch.cat([pixels, pixels[-1:].expand(self.batch - kept, *pixels.shape[1:])])
        while True:
            try:
                parts = [self._infer(part, stream) for part in filled.split(self.batch)]
                return torch.cat(parts)[:kept].numpy()
            except torch.cuda.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch //= 2
                torch.cuda.empty_cache()

    def _infer(self, pixels: Tensor, stream: str) -> Tensor:
        with torch.inference_mode():
            placed = pixels.to(self.device).contiguous(memory_format=torch.channels_last_3d)
            features: Tensor = self.net(stream)(placed)
            return features.float().cpu()


def _batched(items: Iterable[Snippet], size: int) -> Iterator[list[Snippet]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _libraries() -> str:
    """FFmpeg's own versions: another one may decode or convert colours differently."""
    parts = av.library_versions
    return " ".join(f"{name}-{'.'.join(map(str, parts[name]))}" for name in ("libavcodec", "libswscale"))


def _crop(image: NDArray[np.uint8], size: int) -> tuple[slice, slice]:
    """Rows and columns of the centre square."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return slice(top, top + size), slice(left, left + size)


def rgb_input(frames: tuple[Image, ...], config: FeatureConfig) -> Tensor:
    """Network input (3, L, crop, crop) in [-1, 1] from L frames (H, W, 3) uint8."""
    rows, columns = _crop(frames[0], config.crop)
    pixels = torch.from_numpy(np.stack([frame[rows, columns] for frame in frames]))
    return pixels.permute(3, 0, 1, 2).float() / 127.5 - 1


def flow_input(snippet: Snippet, config: FeatureConfig, backend: str, device: str) -> Tensor:
    """Network input (2, L, crop, crop) in [-1, 1]: TV-L1 of grey frames, clipped to +-flow_clip px, divided by it.

    L fields come from L + 1 frames; at the end of the video the last field is repeated.
    """
    frames = snippet.frames if snippet.following is None else (*snippet.frames, snippet.following)
    grey = np.stack([np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames])
    if len(grey) == 1:  # a one-frame snippet at the very end: nothing moves
        fields = np.zeros((1, *grey.shape[1:], 2), np.float32)
    else:
        fields = flow.FLOWS[backend](grey, device=device)
    if snippet.following is None and len(fields) < config.length:
        fields = np.concatenate([fields, fields[-1:]])
    rows, columns = _crop(grey[0], config.crop)
    clipped = np.clip(fields[:, rows, columns], -config.flow_clip, config.flow_clip) / config.flow_clip
    return torch.from_numpy(clipped).permute(3, 0, 1, 2)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temp file in the same folder, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
        if times.shape != (len(times), 2) or not streams or not np.isfinite(times).all():
            raise ValueError("times must be (T, 2) and finite")
        for name, values in streams.items():
            if values.ndim != 2 or len(values) != len(times) or not np.isfinite(values).all():
                raise ValueError(f"{name} must be (T, D) and finite")
        return Features(
            rgb=streams.get("rgb"),
            flow=streams.get("flow"),
            times=times,
            duration=float(meta["duration"]),
            media=dict(meta["media"]),
            settings=dict(meta["settings"]),
            warnings=tuple(meta["warnings"]),
            partial=bool(meta["partial"]),
        )
    except Exception as error:  # a damaged ZIP raises many kinds
        raise FeaturesError(f"{path}: not a whole features file ({error}); delete it and extract again.") from error

"""From a video to its features: decode, flow and I3D, snippet by snippet, in memory that does not grow."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import Tensor, nn

from extractors import flow
from extractors.backbones import registry as backbones
from extractors.config import STREAMS, WHOLE, FeatureConfig, Limits, Stretch
from extractors.decode.container import Damage, VideoError, require_nvdec
from extractors.decode.grid import fit
from extractors.decode.process import Clip, Decoder
from extractors.exact import exact
from extractors.featurefile import Features, FeaturesError, Floats, load, save
from extractors.inputs.device import DeviceInputs
from extractors.inputs.host import HostInputs
from extractors.inputs.prefetch import ahead
from extractors.parts import Part, Seen, join
from extractors.snippets import Snippet, nothing_there, snippet_range, snippet_times, snippets
from support.files import write_atomically
from support.progress import Progress, silent

__all__ = ["Extractor", "Features", "FeaturesError", "Progress", "load", "save", "write_atomically"]

# Two snippets at once run 1.5 times as fast as one by one on two cores, and four no faster (benchmarks/README.md).
CPU_BATCH = 2
# Of a GPU's free memory, a snippet in the networks and in flow takes well under this much (bytes).
SNIPPET_BYTES = 512 << 20
MOST_SNIPPETS = 32  # 512 frame pairs of flow at once; a larger batch only costs short videos, which fill it up

PART = 64  # snippets, 41 s of video: what a killed run loses at most

# Of the settings and of the features file; raise it when the same settings would mean other numbers. 3: the stream that
# a player shows, HDR as SDR, one orientation a stream, raw streams at the rate that they declare (issue 15).
FORMAT = 3


class _NotFromHere(Exception):
    """A reading that jumped into the video met damage: it must be one from the start."""


class Extractor:
    """The backbones of the streams, loaded once and when first needed, and `parts`, what extraction is made of."""

    def __init__(
        self,
        config: FeatureConfig,
        streams: tuple[str, ...] = ("rgb",),
        device: str = "cpu",
        weights: Mapping[str, Path | None] | None = None,
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> None:
        """Find the weights and the flow backend.

        Args:
            config, streams, device: as everywhere.
            weights: by stream, a file instead of the published one.
            limits: what one video may cost.
            threads: for flow and decoding; default the cores. (PyTorch's are the process's own.)

        Raises:
            WeightsError: weights are missing.
            FlowError: there is no such flow backend, or (FlowUnavailable) it cannot work here.
            DecoderUnavailable: NVDEC is asked for, and there is none.
        """
        self.config, self.device, self.limits = config, device, limits or Limits()
        self.streams = tuple(name for name in STREAMS if name in streams)
        backend = flow.resolve(config.flow, device)
        self.flow_backend = backend if "flow" in streams else None
        if self.flow_backend is not None:
            flow.require(backend, device)
        chosen = dict(weights or {})
        self.weights_files, self.threads = chosen, threads
        self.backbones = {n: backbones.find(config.backbone, n, chosen.get(n)) for n in self.streams}
        on_host = torch.device(device).type == "cpu"
        self.precisions = {n: precision(config.precision, n, device) for n in self.streams}
        self.inputs: Any = (
            HostInputs(config, self.flow_backend, threads)
            if on_host
            else DeviceInputs(config, self.flow_backend, device)
        )
        self.batch = CPU_BATCH if on_host else gpu_batch(device)
        gpu = (torch.device(device).index or 0) if config.decoder == "nvdec" else None
        if gpu is not None:
            require_nvdec(gpu)
        self.decoder = Decoder(gpu, self.limits, threads or 0)
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
        }
        found = {n: common | {"dtype": self.precisions[n], "weights": b.weights} for n, b in self.backbones.items()}
        if self.flow_backend is not None:
            found["flow"] |= {"flow": flow.version(self.flow_backend), "flow_clip": config.flow_clip}
        return found

    def chunk(
        self,
        path: Path,
        stretch: Stretch = WHOLE,
        streams: tuple[str, ...] | None = None,
        on_progress: Progress = silent,
    ) -> Features:
        """Features of the snippets that cover a stretch of a video; times stay those of the whole video.

        `streams`: those of the extractor's that are wanted now; default all.
        Raises:
            VideoError: the file cannot be decoded, or has nothing in that stretch.
        """
        parts = list(self.parts(path, stretch, streams, on_progress, size=None))
        if not any(len(part.times) for part in parts):
            shown = parts[-1].seen.end if parts else 0.0
            raise VideoError(nothing_there(path, stretch, shown))
        return self.join(parts, stretch.open_ended)

    def join(self, parts: list[Part], whole: bool) -> Features:
        """Parts of a video, in order, as its Features; `whole`: it was asked for to its end."""
        return join(parts, self.settings(), whole, self.config.length / self.config.fps)

    def parts(
        self,
        path: Path,
        stretch: Stretch = WHOLE,
        streams: tuple[str, ...] | None = None,
        on_progress: Progress = silent,
        size: int | None = PART,
        span: tuple[int, float] = (0, math.inf),
        from_start: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Part]:
        """The features of a chunk, a part of `size` snippets at a time, each as soon as it is there.

        Snippets go through the networks in batches of one fixed size, the last one of a part filled up with copies,
        so that the numbers do not depend on how a video is cut. A file that turns out to be damaged behind a jump is
        read from its start, so that they do not depend on the jump either.

        Args:
            path, stretch, streams, on_progress: as `chunk`.
            size: default all in one.
            span: only the snippets span[0] <= i < span[1] of the video.
            from_start: read the video from its start, whatever `span` is.
            stop: asked between batches; once it is true, what is there is given as a last, shorter part.

        Raises:
            VideoError: the file cannot be decoded, or went over a limit.
        """
        deadline = time.monotonic() + (self.limits.timeout or math.inf)
        at, seek = span[0], not from_start
        while True:
            try:
                for part in self._parts(
                    path, stretch, streams or self.streams, on_progress, size, (at, span[1]), seek, stop, deadline
                ):
                    yield part
                    at = part.until
                return
            except _NotFromHere:
                seek = False

    def _parts(
        self,
        path: Path,
        stretch: Stretch,
        wanted: tuple[str, ...],
        on_progress: Progress,
        size: int | None,
        span: tuple[int, float],
        seek: bool,
        stop: Callable[[], bool],
        deadline: float,
    ) -> Iterator[Part]:
        config, native, take = self.config, self.inputs.native, self.inputs.frame
        opened = self.decoder.open(path, config, stretch, native, take, span, seek, deadline)
        with opened as (clip, frames):
            begin, until = snippet_range(stretch, clip.origin, config)
            _, expected = snippet_range(Stretch(0.0, clip.info.duration), clip.origin, config)
            total = max(int(min(expected, until)) - begin, 1)
            if native:  # the decoder's ring holds few frames of full size: they wait on the device, a batch of them
                frames = ahead(frames, self.batch * config.length)
            cut = _Peeking(snippets(frames, length=config.length, stride=config.stride, last=clip.last))
            first, more, stopped = clip.first, True, False
            while more and first < clip.last:
                until = min(clip.last, math.inf if size is None else (first // size + 1) * size)
                rows: dict[str, list[Floats]] = {name: [] for name in wanted}
                times: list[tuple[float, float]] = []
                padded = False
                limit = None if math.isinf(until) else int(until) - first
                for batch in _batched(itertools.islice(cut, limit), self.batch):
                    done = batch[-1].index + 1 - begin
                    on_progress("decode", done, total)
                    if "flow" in wanted and not times:
                        self._compile(fit(clip.size, config.short_side), on_progress)
                    for name in wanted:
                        rows[name].append(self._features(batch, name))
                        on_progress("flow" if name == "flow" else "i3d", done, total)
                    times += [snippet_times(snippet.index, clip.origin, config) for snippet in batch]
                    padded |= batch[0].padded
                    if time.monotonic() > deadline:
                        raise VideoError(f"{path}: took longer than --timeout allows; raise it, or leave it out.")
                    if stopped := stop():
                        break
                # One snippet ahead: whether the video goes on is part of what is known of this part.
                more = not stopped and cut.goes_on()
                if clip.sought and clip.damage != Damage():
                    raise _NotFromHere
                reached = first + len(times)
                if stopped or math.isinf(until):
                    until = reached
                if reached or not stopped:
                    yield Part(
                        first=first,
                        until=int(until),
                        rows={n: np.concatenate(v) if v else np.zeros((0, 0), np.float32) for n, v in rows.items()},
                        times=np.array(times, dtype=np.float64).reshape(-1, 2),
                        seen=_seen(clip, padded),
                    )
                first = int(until)

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
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precisions[stream])
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype != torch.float32), exact():
            placed = pixels.to(self.device).contiguous(memory_format=torch.channels_last_3d)
            features: Tensor = self.net(stream)(placed)
            return features.float().cpu().numpy()


class _Peeking:
    """Snippets, of which can be told whether there is another one."""

    def __init__(self, source: Iterator[Snippet[Any]]) -> None:
        self._source = source
        self._next: Snippet[Any] | None = None

    def __iter__(self) -> Iterator[Snippet[Any]]:
        return self

    def __next__(self) -> Snippet[Any]:
        if not self.goes_on():
            raise StopIteration
        found, self._next = self._next, None
        assert found is not None
        return found

    def goes_on(self) -> bool:
        if self._next is None:
            self._next = next(self._source, None)
        return self._next is not None


def _seen(clip: Clip, padded: bool) -> Seen:
    media = {
        "width": clip.info.width,
        "height": clip.info.height,
        "rate": clip.info.rate,
        "start_timecode": clip.info.start_timecode,
    }
    return Seen(
        media=media,
        duration=clip.info.duration,
        origin=clip.origin,
        end=clip.end,
        exhausted=clip.exhausted,
        missing=clip.missing,
        sought=clip.sought,
        padded=padded,
        damage=clip.damage,
    )


def _batched(items: Iterable[Snippet[Any]], size: int) -> Iterator[list[Snippet[Any]]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def precision(asked: str, stream: str, device: str) -> str:
    """The precision of a stream's network: the one that was asked for, or what `auto` means on this device.

    On a GPU flow stays in float32: in float16 one snippet's cosine to the CPU's features was .990, where RGB has .9999
    (H200, measured while cuDNN was off).
    """
    if asked != "auto":
        return asked
    return "float32" if stream == "flow" or torch.device(device).type == "cpu" else "float16"


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

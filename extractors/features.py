"""From a video to its features: decoding, flow and I3D, snippet by snippet, in constant memory."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors import flow
from extractors.backbones import engines, registry
from extractors.config import STREAMS, USUAL, WHOLE, FeatureConfig, Limits, Stretch
from extractors.decode.process import Decoder
from extractors.decode.video import Clip, Damage, VideoError
from extractors.exact import exact
from extractors.featurefile import Features, FeaturesError, Floats, load, save
from extractors.inputs.host import make_inputs
from extractors.parts import Part, join, seen
from extractors.snippets import (
    Peeking,
    Snippet,
    batched,
    block,
    nothing_there,
    snippet_range,
    snippet_times,
    snippets,
    whole_blocks,
    windows,
)
from support.files import write_atomically
from support.progress import Progress, silent

__all__ = ["Extractor", "Features", "FeaturesError", "Progress", "load", "save", "write_atomically"]

# PyTorch runs two snippets at once 1.5 times as fast as one by one on two cores, and four no faster
# (benchmarks/README.md). OpenVINO computes two side by side (engines.AT_ONCE).
CPU_BATCH = 2
PART = 64  # snippets, 41 s of video: the most that a killed run loses

# The format of the settings and of the features file. Raise it when the same settings would give other numbers. 3: the
# stream that a player shows, HDR as SDR, one orientation for a stream, raw streams at their declared rate (issue 15).
# 4: one pass of swscale makes the small picture, where OpenCV shrank a converted one (issue 17).
FORMAT = 4


class Extractor:
    """Extracts features with the backbones of the streams, which are loaded once, when they are first needed."""

    def __init__(
        self,
        config: FeatureConfig,
        streams: tuple[str, ...] = ("rgb",),
        device: str = "cpu",
        weights: Mapping[str, Path | None] | None = None,
        limits: Limits | None = None,
        threads: int | None = None,
        ways: Mapping[str, engines.Way] | None = None,
        decoders: int | None = None,
    ) -> None:
        """Find the weights and the flow backend.

        Args:
            weights: by stream, a file to use instead of the published one.
            limits: what one video may cost.
            threads: for flow, decoding and OpenVINO; default: the number of cores. (PyTorch has its own setting.)
            ways: by stream, the engine and the precision that another machine has chosen; default: by `config`.
            decoders: how many read one video at once; default: `decoders_for`. The features do not depend on it.

        Raises:
            WeightsError: weights are missing.
            UsageError, EnvironmentMissing: these weights or this machine do not have the precision.
            FlowError: there is no such flow backend, or it does not work here (FlowUnavailable).
            DecoderUnavailable: the configuration asks for NVDEC, and this machine has none.
        """
        self.config, self.device, self.limits = config, device, limits or Limits()
        self.streams = tuple(name for name in STREAMS if name in streams)
        backend = flow.resolve(config.flow, device)
        self.flow_backend = backend if "flow" in streams else None
        if self.flow_backend is not None:
            flow.require(backend, device)
        chosen = dict(weights or {})
        self.weights_files, self.threads = chosen, threads
        self.backbones = {n: registry.find(config.backbone, n, chosen.get(n), config.together) for n in self.streams}
        on_host = torch.device(device).type == "cpu"
        self.ways = {n: engines.choose(config.precision, n, b, device) for n, b in self.backbones.items()}
        if ways is not None:
            self.ways = {n: ways[n] for n in self.streams}
            for name, way in self.ways.items():
                engines.require(way, self.backbones[name], device)
        self.inputs = make_inputs(config, self.flow_backend, device, threads)
        self.batch = CPU_BATCH if on_host else max(engines.gpu_batch(device) // config.together, 1)
        self.decoder = self._make_decoder(decoders)
        self._nets: dict[str, nn.Module] = {}

    def _make_decoder(self, count: int | None) -> Any:
        device = torch.device(self.device)
        if device.type == self.config.decoder == "cpu" and count in (None, 1):
            return Decoder(None, self.limits, self.threads or 0)
        from extractors.inputs.ahead import decoder_for  # a CPU does not need it

        return decoder_for(device, self.config.decoder, self.limits, self.threads, count)

    def expect(self, now: Path, following: Path | None, stretch: Stretch = WHOLE) -> None:
        """Say which video is read now and which one, whole, after it; None: nobody knows."""
        asked = (following, self.config, stretch, self.inputs.frame)
        self.decoder.expect(now, None if following is None else asked)

    def net(self, stream: str) -> nn.Module:
        """The network of a stream, on the device."""
        if stream not in self._nets:
            net = engines.load(self.ways[stream], self.backbones[stream], self.threads)
            self._nets[stream] = net.to(self.device)
        return self._nets[stream]

    def settings(self) -> dict[str, dict[str, Any]]:
        """By stream, everything that decides its numbers. It is the cache key, and checkpoints compare it."""
        config, nvdec = self.config, "nvdec " if self.config.decoder == "nvdec" else ""
        common = {
            "format": FORMAT,
            "backbone": config.backbone,
            "fps": config.fps,
            "length": config.length,
            "stride": config.stride,
            "short_side": config.short_side,
            "crop": config.crop,
            "resize": _version("libswscale").removeprefix("lib"),
            "decoder": f"{nvdec}pyav-{av.__version__} {_version('libavcodec', 'libswscale')}",
            "device": torch.device(self.device).type,
        }
        # Usual values are left out: such features keep the settings that they had before there was a choice.
        common |= {n: getattr(config, n) for n, usual in USUAL.items() if getattr(config, n) != usual}
        found = {n: common | self.ways[n].settings() | {"weights": b.weights} for n, b in self.backbones.items()}
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
        """Features of the snippets that cover a stretch of a video; their times count from the start of the video.

        `streams`: which of the extractor's streams to compute; default: all.

        Raises:
            VideoError: the file cannot be decoded, or has no snippet in that stretch.
        """
        parts = list(self.parts(path, stretch, streams, on_progress, size=None))
        if not any(len(part.times) for part in parts):
            shown = parts[-1].seen.end if parts else 0.0
            raise VideoError(nothing_there(path, stretch, shown))
        return self.join(parts, stretch.open_ended)

    def join(self, parts: list[Part], whole: bool) -> Features:
        """Parts of a video, in order, as its Features; `whole`: they should reach the end of the video."""
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
        """The same features in parts of `size` snippets, each as soon as it is complete.

        Snippets go through the networks in batches of one fixed size, and the last batch of a part is filled up with
        copies. So the numbers do not depend on how a video is divided. A file that turns out to be damaged behind a
        jump is read again from its start, so they do not depend on the jump either.

        Args:
            path, stretch, streams, on_progress: as in `chunk`.
            size: None: one part for everything.
            span: only the snippets span[0] <= i < span[1] of the video.
            from_start: read the video from its start, whatever `span` is.
            stop: called between batches; once it returns true, a last, shorter part holds what is complete.

        Raises:
            VideoError: the file cannot be decoded, or exceeds a limit.
        """
        deadline = time.monotonic() + (self.limits.timeout or math.inf)
        size = size and whole_blocks(size, self.config)
        wanted = _Wanted(path, stretch, streams or self.streams, on_progress, size, stop, deadline)
        reading = _Reading(self, wanted, span, seek=not from_start)
        yield from reading.parts()
        if reading.unreliable:
            yield from _Reading(self, wanted, (reading.at, span[1]), seek=False).parts()

    def compile_flow(self, size: tuple[int, int], on_progress: Progress) -> None:
        """Compile the flow kernels for frames of this size, and show that: it happens once on a machine."""
        assert self.flow_backend is not None
        if flow.must_compile(self.flow_backend, size[1]):
            on_progress("compile", 0, 1)
            flow.warmup(self.flow_backend, size[1])
            on_progress("compile", 1, 1)

    @property
    def at_once(self) -> int:
        """Snippets that are read and computed together."""
        return whole_blocks(self.batch * self.config.together, self.config)

    def features(self, batch: list[Snippet[Any]], stream: str) -> Floats:
        """Features (B, D) of one stream for B snippets, of which no window lies partly in another batch.

        They are filled up to the fixed batch size, except for OpenVINO, which computes each window by itself. When the
        GPU's memory is full, the batch size is halved from then on.
        """
        seen_at_once = windows(batch, self.config)
        alone = self.ways[stream].engine == engines.OPENVINO
        filled = seen_at_once if alone else seen_at_once + seen_at_once[-1:] * (-len(seen_at_once) % self.batch)
        place: dict[int, int] = {}
        for row, snippet in enumerate(itertools.chain.from_iterable(seen_at_once)):
            place.setdefault(snippet.index, row)
        make = self.inputs.rgb if stream == "rgb" else self.inputs.flow
        while True:
            try:
                parts = [self.forward(make(part), stream) for part in batched(filled, self.batch)]
                return np.concatenate(parts)[[place[snippet.index] for snippet in batch]]
            except torch.cuda.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch //= 2
                torch.cuda.empty_cache()

    def forward(self, pixels: Tensor, stream: str) -> Floats:
        """One pass of a stream's network: (B, 3 or 2, L, h, w) in [-1, 1] -> (B, D); L and B of `together` snippets."""
        kind, dtype = torch.device(self.device).type, self.ways[stream].autocast
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype != torch.float32), exact():
            placed = pixels.to(self.device)
            if self.ways[stream].engine != engines.OPENVINO:
                placed = placed.contiguous(memory_format=torch.channels_last_3d)
            net, more = self.net(stream), (self.config.together,) if self.config.together > 1 else ()
            features: Tensor = net(placed, *more)
            return features.float().cpu().numpy()


@dataclass(frozen=True)
class _Wanted:
    """The arguments of `Extractor.parts` that hold for every reading."""

    path: Path
    stretch: Stretch
    streams: tuple[str, ...]
    on_progress: Progress
    size: int | None
    stop: Callable[[], bool]
    deadline: float
    """by time.monotonic()"""


class _Reading:
    """One reading of a video, from its start or from a place that it jumps to."""

    def __init__(self, extractor: Extractor, wanted: _Wanted, span: tuple[int, float], seek: bool) -> None:
        self.extractor, self.wanted, self.span, self.seek = extractor, wanted, span, seek
        self.at = span[0]
        """the first snippet that is in no part yet"""
        self.unreliable = False
        """whether it jumped into the video and met damage, so that the video must be read from its start"""
        self.stopped = False

    def parts(self) -> Iterator[Part]:
        """The parts; ends early when the reading turns out to be unreliable."""
        wanted, config, inputs = self.wanted, self.extractor.config, self.extractor.inputs
        opened = self.extractor.decoder.open(
            wanted.path, config, wanted.stretch, inputs.frame, self.span, self.seek, wanted.deadline
        )
        with opened as (clip, frames):
            if inputs.ahead:  # the decoder's ring holds less than a batch
                from extractors.inputs.prefetch import prefetch  # a CPU does not need it

                frames = prefetch(frames, self.extractor.at_once * config.length)
            source = Peeking(snippets(frames, length=config.length, stride=config.stride, last=clip.last))
            self.at, more = clip.first, True
            while more and self.at < clip.last:
                until = min(clip.last, math.inf if wanted.size is None else (self.at // wanted.size + 1) * wanted.size)
                rows, times, padded = self._read(source, until, clip)
                # This decodes one more snippet, since a part records whether the video goes on behind it.
                more = not self.stopped and source.goes_on()
                if clip.sought and clip.damage != Damage():
                    self.unreliable = True
                    return
                reached = self.at + len(times)
                if self.stopped or math.isinf(until):
                    until = reached
                if reached or not self.stopped:
                    yield Part(self.at, int(until), rows, times, seen(clip, padded))
                self.at = int(until)

    def _read(
        self, source: Iterator[Snippet[Any]], until: float, clip: Clip
    ) -> tuple[dict[str, Floats], NDArray[np.float64], bool]:
        """Rows by stream and times of the snippets before `until`, and whether the first one is padded.

        `stop` may cut them short.
        """
        wanted, extractor = self.wanted, self.extractor
        begin, total = self._progress_range(clip)
        rows: dict[str, list[Floats]] = {name: [] for name in wanted.streams}
        times: list[tuple[float, float]] = []
        padded = False
        limit = None if math.isinf(until) else int(until) - self.at
        first = extractor.at_once - self.at % block(extractor.config)
        for batch in batched(itertools.islice(source, limit), extractor.at_once, first):
            done = batch[-1].index + 1 - begin
            wanted.on_progress("decode", done, total)
            if "flow" in wanted.streams and not times:
                extractor.compile_flow(clip.size, wanted.on_progress)
            placed = extractor.inputs.place(batch)
            for name in wanted.streams:
                rows[name].append(extractor.features(placed, name))
                wanted.on_progress("flow" if name == "flow" else "i3d", done, total)
            times += [snippet_times(snippet.index, clip.origin, extractor.config) for snippet in batch]
            padded |= batch[0].padded
            if time.monotonic() > wanted.deadline:
                raise VideoError(f"{wanted.path}: took longer than --timeout allows; raise it, or leave it out.")
            if wanted.stop():
                self.stopped = True
                break
        joined = {n: np.concatenate(v) if v else np.zeros((0, 0), np.float32) for n, v in rows.items()}
        return joined, np.array(times, np.float64).reshape(-1, 2), padded

    def _progress_range(self, clip: Clip) -> tuple[int, int]:
        """The first snippet of the stretch, and how many there are by the video's header: what progress counts."""
        config = self.extractor.config
        begin, end = snippet_range(self.wanted.stretch, clip.origin, config)
        _, expected = snippet_range(Stretch(0.0, clip.info.duration), clip.origin, config)
        return begin, max(int(min(expected, end)) - begin, 1)


def _version(*libraries: str) -> str:
    """FFmpeg's own versions: another one may decode or convert colours differently."""
    return " ".join(f"{name}-{'.'.join(map(str, av.library_versions[name]))}" for name in libraries)

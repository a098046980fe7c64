"""From snippets to network inputs on an accelerator: frames are uploaded once, then greyed and cropped there.

The decoder's process makes the small pictures for the CPU and for accelerators alike, so what travels is small. Frames
are collected in slabs and a slab is uploaded at once: on CUDA from pinned memory in a stream of its own, and nobody
waits for it, so that the frames of the next batch arrive while the networks work on this one.

The arithmetic is the same as in host.py, so tests compare both on CPU tensors.
"""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extractors import flow
from extractors.config import FeatureConfig, seen
from extractors.decode.video import Image
from extractors.snippets import Snippet, Window

# OpenCV's integer weights of R, G, B for grey, over 2**15.
GREY = (9798, 19235, 3735)


def grey(frames: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB to (N, H, W) uint8, exactly as OpenCV's COLOR_RGB2GRAY."""
    red, green, blue = frames.to(torch.int32).unbind(dim=-1)
    return ((red * GREY[0] + green * GREY[1] + blue * GREY[2] + (1 << 14)) >> 15).to(torch.uint8)


class Slab:
    """Frames in the order in which they were decoded: (N, H, W, 3) uint8, on the host and on the device."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, stream: "torch.cuda.Stream | None") -> None:
        """`stream`: where it is uploaded, on CUDA."""
        self._host = torch.empty(shape, dtype=torch.uint8, pin_memory=stream is not None)
        self._stream, self._arrived = stream, None if stream is None else torch.cuda.Event()
        with torch.cuda.stream(stream):
            self._placed = torch.empty(shape, dtype=torch.uint8, device=device)
        self._filled = self._sent = 0
        self._lock = threading.Lock()
        """frames are added by the thread that reads them, and asked for by the one that works on them"""

    def add(self, image: Image) -> int:
        """Copy a frame (H, W, 3) into the slab, and upload the slab if it is full; returns the frame's index."""
        index = self._filled
        self._host[index].numpy()[:] = image
        self._filled += 1
        if self.full:
            with self._lock:
                self._upload(len(self._host))
        return index

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return tuple(self._host.shape)

    @property
    def full(self) -> bool:
        """Whether no further frame fits."""
        return self._filled == len(self._host)

    def frame(self, index: int) -> Tensor:
        """A frame on the device; the current stream waits for it."""
        with self._lock:
            self._upload(index + 1)
        if self._arrived is not None:
            torch.cuda.current_stream(self._placed.device).wait_event(self._arrived)
        return self._placed[index]

    def _upload(self, until: int) -> None:
        """Send the frames before `until` that have not been sent yet. PyTorch keeps both memories until it is done."""
        if until <= self._sent:
            return
        part = slice(self._sent, until)
        with torch.cuda.stream(self._stream):
            self._placed[part].copy_(self._host[part], non_blocking=self._stream is not None)
        if self._stream is not None and self._arrived is not None:
            self._arrived.record(self._stream)
            self._placed.record_stream(torch.cuda.default_stream(self._placed.device))  # the stream that will read it
        self._sent = until


@dataclass(frozen=True)
class Waiting:
    """A frame of a slab, which may be on its way."""

    slab: Slab
    index: int


class DeviceInputs:
    """Network inputs of a batch, made on the device."""

    ahead = True

    def __init__(self, config: FeatureConfig, flow_backend: str | None, device: str) -> None:
        self.config, self.flow_backend, self.device = config, flow_backend, torch.device(device)
        self._slab: Slab | None = None

    def frame(self, image: Image) -> Waiting:
        """A copy of a frame (H, W, 3), which goes to the device together with those around it."""
        shape = (self.config.length, *image.shape)
        if self._slab is None or self._slab.full or self._slab.shape != shape:
            self._slab = Slab(shape, self.device, self._uploads)
        return Waiting(self._slab, self._slab.add(image))

    def place(self, batch: Sequence[Snippet[Waiting]]) -> list[Snippet[Tensor]]:
        """The same snippets with their frames on the device: (H, W, 3) uint8."""

        def placed(frame: Waiting) -> Tensor:
            return frame.slab.frame(frame.index)

        return [
            Snippet(
                snippet.index,
                tuple(map(placed, snippet.frames)),
                None if snippet.following is None else placed(snippet.following),
                snippet.padded,
            )
            for snippet in batch
        ]

    @cached_property
    def _uploads(self) -> "torch.cuda.Stream | None":
        return torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def rgb(self, windows: Sequence[Window[Tensor]]) -> Tensor:
        """(B, 3, k L, h, w) of B windows of k snippets."""
        frames = torch.stack([torch.stack([f for snippet in window for f in snippet.frames]) for window in windows])
        rows, columns = seen(frames.shape[2], frames.shape[3], self.config)
        return frames[:, :, rows, columns].permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def flow(self, windows: Sequence[Window[Tensor]]) -> Tensor:
        """(B, 2, k L, h, w) of B windows of k snippets.

        Raises:
            FlowError: the backend does not work here.
        """
        config = self.config
        runs: list[list[Snippet[Tensor]]] = []
        for snippet in itertools.chain(*windows):  # consecutive ones share frames, so one call computes all their pairs
            follows = runs and config.stride == config.length and runs[-1][-1].index + 1 == snippet.index
            runs[-1].append(snippet) if follows else runs.append([snippet])
        fields = torch.cat(
            [self._fields([frame for snippet in run for frame in snippet.frames], run[-1].following) for run in runs]
        )
        rows, columns = seen(fields.shape[1], fields.shape[2], config)
        clipped = fields[:, rows, columns].clamp(-config.flow_clip, config.flow_clip) / config.flow_clip
        return clipped.unflatten(0, (len(windows), -1)).permute(0, 4, 1, 2, 3)

    def _fields(self, run: list[Tensor], following: Tensor | None) -> Tensor:
        """(N, H, W, 2) px for N frames; without a following frame the last field is repeated."""
        frames = grey(torch.stack(run if following is None else [*run, following]))
        if len(frames) == 1:
            return torch.zeros(1, *frames.shape[1:], 2, device=frames.device)
        fields = self._tv_l1(frames)
        return fields if following is not None else torch.cat([fields, fields[-1:]])

    def _tv_l1(self, frames: Tensor) -> Tensor:
        if self.flow_backend == "torch":
            from extractors.flow import torch_tvl1 as backend
        elif self.flow_backend == "cuda":
            from extractors.flow import cuda_tvl1 as backend  # type: ignore[no-redef]
        else:  # the user chose a CPU backend by name
            assert self.flow_backend is not None
            fields = flow.FLOWS[self.flow_backend](frames.cpu().numpy())
            return torch.from_numpy(fields).to(self.device)
        return backend.tv_l1(frames)

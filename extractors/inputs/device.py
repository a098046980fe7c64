"""From snippets to network inputs on an accelerator: a frame is uploaded once, then resized, greyed and cropped there.

On CUDA a frame is uploaded from pinned memory in a stream of its own, so that the frames of the next batch arrive while
the networks work on this one.

The arithmetic is the same as in host.py, so tests compare it with OpenCV on CPU tensors.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from extractors import flow
from extractors.config import FeatureConfig
from extractors.decode.container import Image
from extractors.decode.grid import fit
from extractors.exact import exact
from extractors.inputs.host import centre
from extractors.snippets import Snippet

# OpenCV's integer weights of R, G, B for grey, over 2**15.
GREY = (9798, 19235, 3735)


@lru_cache(maxsize=16)
def resampling(source: int, target: int, device: str, shrink: bool) -> Tensor:
    """(target, source) weights of OpenCV's INTER_AREA (shrink) or INTER_LINEAR along one axis."""
    weights = np.zeros((target, source))
    scale = source / target
    for row in range(target):
        if shrink:  # each source pixel counts by the share of it that lies under the target pixel
            edges = np.clip(np.arange(source + 1), row * scale, (row + 1) * scale)
            weights[row] = np.diff(edges) / scale
        else:  # half-pixel centres, edges repeated
            at = np.clip((row + 0.5) * scale - 0.5, 0, source - 1)
            low = min(int(at), source - 1)
            high = min(low + 1, source - 1)
            weights[row, low] += 1 - (at - low)
            weights[row, high] += at - low
    return torch.tensor(weights, dtype=torch.float32, device=device)


def resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 to (h, w, 3) uint8, by two matrix products; equal to OpenCV within one grey level."""
    height, width, _ = frame.shape
    if (height, width) == size:
        return frame
    shrink = size[0] * size[1] < height * width
    device = str(frame.device)
    rows = resampling(height, size[0], device, shrink)
    columns = resampling(width, size[1], device, shrink)
    planes = frame.permute(2, 0, 1).float()
    with exact():  # TF32 has 10 bits, too few to round as OpenCV does
        resized = rows @ planes @ columns.T
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)


def grey(frames: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB to (N, H, W) uint8, exactly as OpenCV's COLOR_RGB2GRAY."""
    red, green, blue = frames.to(torch.int32).unbind(dim=-1)
    return ((red * GREY[0] + green * GREY[1] + blue * GREY[2] + (1 << 14)) >> 15).to(torch.uint8)


class DeviceInputs:
    """Network inputs of a batch, made on the device; frames are uploaded once, as they come from the decoder."""

    native = True

    def __init__(self, config: FeatureConfig, flow_backend: str | None, device: str) -> None:
        self.config, self.flow_backend, self.device = config, flow_backend, torch.device(device)

    def frame(self, image: Image) -> Tensor:
        """Copy a frame (H, W, 3) onto the device and resize it there: (h, w, 3) uint8."""
        pixels, size = torch.from_numpy(image), fit(image.shape[:2], self.config.short_side)
        if self.device.type != "cuda":
            return resize(pixels.to(self.device, copy=True), size)
        with torch.cuda.stream(self._uploads):
            small = resize(pixels.pin_memory().to(self.device, non_blocking=True), size)
            small.record_stream(torch.cuda.default_stream(self.device))  # the stream that will read it
        self._uploads.synchronize()  # waits for this frame alone; its pinned memory is then free for the next one
        return small

    @cached_property
    def _uploads(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def rgb(self, batch: Sequence[Snippet[Tensor]]) -> Tensor:
        """(B, 3, L, crop, crop)."""
        frames = torch.stack([torch.stack(list(snippet.frames)) for snippet in batch])
        rows, columns = centre(frames.shape[2], frames.shape[3], self.config.crop)
        return frames[:, :, rows, columns].permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def flow(self, batch: Sequence[Snippet[Tensor]]) -> Tensor:
        """(B, 2, L, crop, crop).

        Raises:
            FlowError: the backend does not work here.
        """
        config = self.config
        runs: list[list[Snippet[Tensor]]] = []
        for snippet in batch:  # consecutive snippets share frames, so one call computes all their pairs
            follows = runs and config.stride == config.length and runs[-1][-1].index + 1 == snippet.index
            runs[-1].append(snippet) if follows else runs.append([snippet])
        fields = torch.cat(
            [self._fields([frame for snippet in run for frame in snippet.frames], run[-1].following) for run in runs]
        )
        rows, columns = centre(fields.shape[1], fields.shape[2], config.crop)
        clipped = fields[:, rows, columns].clamp(-config.flow_clip, config.flow_clip) / config.flow_clip
        return clipped.reshape(len(batch), config.length, config.crop, config.crop, 2).permute(0, 4, 1, 2, 3)

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

"""From snippets to network inputs on the CPU: crop, scale, grey, flow. device.py does the same on an accelerator.

NumPy makes them, on one thread. PyTorch's threads would share this little work, and then spin while they wait for more:
beside a decoder on two cores that took 29 ms of CPU time a snippet, and the work itself 8 (benchmarks/README.md).
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors import flow
from extractors.config import FeatureConfig, seen
from extractors.decode.video import Image
from extractors.snippets import Snippet, Window


def rgb_input(frames: Sequence[Image], config: FeatureConfig, out: NDArray[np.float32] | None = None) -> Tensor:
    """Network input (3, L, h, w) in [-1, 1], of what is seen of L frames (H, W, 3) uint8, in `out` if that is given."""
    height, width, _ = frames[0].shape
    rows, columns = seen(height, width, config)
    planes = np.empty((3, len(frames), rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    for k, frame in enumerate(frames):
        cv2.split(np.ascontiguousarray(frame[rows, columns]), list(planes[:, k]))
    pixels = np.divide(planes, np.float32(127.5), out=out, dtype=np.float32)
    pixels -= 1
    return torch.from_numpy(pixels)


def flow_input(snippet: Snippet[Image], config: FeatureConfig, backend: str, workers: int | None = None) -> Tensor:
    """Network input (2, L, h, w) in [-1, 1]: TV-L1 of grey frames, clipped to +-flow_clip px, divided by it.

    L fields come from L + 1 frames; at the end of the video the last field is repeated. `workers`: threads for the
    pairs; default: the number of cores.

    Raises:
        FlowError: the backend does not work here.
    """
    frames = snippet.frames if snippet.following is None else (*snippet.frames, snippet.following)
    grey = np.stack([np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames])
    fields = flow.FLOWS[backend](grey, workers) if len(grey) > 1 else no_motion(grey)
    if len(fields) < config.length:
        fields = np.concatenate([fields, fields[-1:]])
    rows, columns = seen(grey.shape[1], grey.shape[2], config)
    clipped = np.clip(fields[:, rows, columns], -config.flow_clip, config.flow_clip) / config.flow_clip
    return torch.from_numpy(np.ascontiguousarray(clipped.transpose(3, 0, 1, 2)))


def no_motion(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(1, H, W, 2) zeros, for a snippet of one frame at the end of a video, which no frame follows."""
    return np.zeros((1, *grey.shape[1:], 2), np.float32)


class HostInputs:
    """Network inputs of a batch, made on the CPU."""

    ahead = False
    """whether frames are read by a thread of their own, a batch in advance"""

    def __init__(self, config: FeatureConfig, flow_backend: str | None, threads: int | None = None) -> None:
        self.config, self.flow_backend, self.threads = config, flow_backend, threads

    def frame(self, image: Image) -> Image:
        """A copy of a frame."""
        return image.copy()

    def place(self, batch: list[Snippet[Image]]) -> list[Snippet[Image]]:
        """The snippets are where they are needed."""
        return batch

    def rgb(self, windows: Sequence[Window[Image]]) -> Tensor:
        """(B, 3, k L, h, w) of B windows of k snippets."""
        height, width, _ = windows[0][0].frames[0].shape
        rows, columns = seen(height, width, self.config)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        made = np.empty((len(windows), 3, len(windows[0]) * self.config.length, *size), np.float32)
        for window, out in zip(windows, made, strict=True):
            rgb_input([frame for snippet in window for frame in snippet.frames], self.config, out)
        return torch.from_numpy(made)

    def flow(self, windows: Sequence[Window[Image]]) -> Tensor:
        """(B, 2, k L, h, w) of B windows of k snippets."""
        assert self.flow_backend is not None
        each = {snippet.index: snippet for window in windows for snippet in window}  # some may be there twice
        made = {k: flow_input(s, self.config, self.flow_backend, self.threads) for k, s in each.items()}
        return torch.stack([torch.cat([made[snippet.index] for snippet in window], 1) for window in windows])


def make_inputs(config: FeatureConfig, flow_backend: str | None, device: str, threads: int | None) -> Any:
    """What makes network inputs from snippets: on the CPU, or on the device."""
    if torch.device(device).type == "cpu":
        return HostInputs(config, flow_backend, threads)
    from extractors.inputs.device import DeviceInputs  # a CPU does not need it

    return DeviceInputs(config, flow_backend, device)

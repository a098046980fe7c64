"""One picture of a video, upright, in the colours of an SDR screen, at a given size."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from extractors.decode.container import Image, Orientation, orientation, upright_size
from extractors.decode.tone import BT601, BT709, BT2020, FULL, LIMITED, MATRICES, RANGES, UNSPECIFIED, Colours, Tone


class Look:
    """Shows the frames of one stream upright, in the colours of an SDR screen, at a given size.

    It is made when a file is opened, before anything is decoded. `settle` gets the first frame, whose orientation holds
    for all. After that, `size` is (H, W) as a player shows the frames, and `toned` tells whether the first frame is HDR
    or has wide colours.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        codec = stream.codec_context
        # Taken now: decoding may replace the container's values by those of the stream, which may be unspecified.
        self._declared = Colours(codec.color_trc, codec.color_primaries, codec.colorspace)
        self._stream = stream
        # One for all frames: otherwise each makes its own, with threads that live until collected (350 were seen).
        self._convert = VideoReformatter()
        self._tone = Tone()
        self.upright = Orientation()
        self.size = (0, 0)
        self.toned = False

    def settle(self, first: av.VideoFrame) -> None:
        """Set the orientation and the size, which hold for all frames."""
        self.upright = orientation(first)
        self.size = upright_size(first, self._stream, self.upright)
        self.toned = not self._colours(first).plain

    def _colours(self, frame: av.VideoFrame) -> Colours:
        return Colours(frame.color_trc, frame.color_primaries, frame.colorspace).over(self._declared)

    def rgb(self, frame: av.VideoFrame, size: tuple[int, int]) -> Image:
        """A frame as it is stored, resized: (H, W, 3) uint8 RGB for BT.709 screens."""
        colours = self._colours(frame)
        stored = self._stored(frame, colours)
        if stored.shape[:2] != size:
            shrink = size[0] * size[1] < stored.shape[0] * stored.shape[1]
            how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
            stored = cv2.resize(stored, size[::-1], interpolation=how)
        return np.asarray(stored, np.uint8) if colours.plain else self._tone(np.asarray(stored, np.uint16), colours)

    def _stored(self, frame: av.VideoFrame, colours: Colours) -> Any:
        """(H, W, 3) RGB in the frame's own size: uint8, or uint16 if its tones must still be mapped."""
        spaces: dict[str, int] = {}
        if (not colours.plain and colours.matrix != frame.colorspace) or frame.colorspace not in MATRICES:
            known = MATRICES - UNSPECIFIED
            spaces["src_colorspace"] = colours.matrix if colours.matrix in known else BT601 if colours.plain else BT2020
            spaces["dst_colorspace"] = BT709  # for RGB any value that swscale accepts will do
        if frame.color_range not in RANGES:
            spaces |= {"src_color_range": LIMITED, "dst_color_range": FULL}
        depth = "rgb24" if colours.plain else "rgb48le"
        return self._convert.reformat(frame, format=depth, threads=1, **spaces).to_ndarray()


def picture(frame: av.VideoFrame, size: tuple[int, int], look: Look) -> Image:
    """Upright RGB picture of a frame, resized: (H, W, 3) uint8 for `size` (H, W).

    Shrinking averages areas, as DeepMind's own pipeline does; enlarging is bilinear. HDR becomes SDR after that, when
    there are fewer pixels (tone.py).
    """
    upright = look.upright
    rgb = look.rgb(frame, (size[1], size[0]) if upright.turns % 2 else size)
    if upright.mirrored:
        rgb = rgb[::-1]
    return np.ascontiguousarray(np.rot90(rgb, upright.turns))

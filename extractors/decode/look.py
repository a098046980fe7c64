"""One picture of a video, upright, in the colours of an SDR screen, at a given size.

One pass of FFmpeg's swscale makes RGB of the right size from a frame as it is decoded. At 1080p this takes a ninth of
the time that a conversion at full size and a second pass take (benchmarks/one_pass.py), and it is more exact: swscale's
converter that does not resize takes the nearest chroma sample and rounds down, so that its pictures are a grey level
too dark.
"""

from __future__ import annotations

import threading
from typing import Any

import av
import av.filter
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from extractors.decode.container import Orientation, orientation, upright_size
from extractors.decode.tone import BT601, BT709, BT2020, FULL, LIMITED, MATRICES, RANGES, UNSPECIFIED, Colours, Tone
from extractors.decode.video import Image

# Along each axis a picture is shrunk by averaging areas, and enlarged bilinearly. Without the other flags swscale drops
# every second column of the chroma that it reads from RGB, and of the one that it makes if the width is even.
RESIZE = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
# swscale has vector code for planes of RGB and none for RGB side by side, so this takes half the time (1080p: .9 ms
# instead of 1.7), and OpenCV weaves the planes together in .07 ms.
PLANES = "gbrp"


class Look:
    """Shows the frames of one stream upright, in the colours of an SDR screen, at a given size.

    It is made when a file is opened, before anything is decoded. `settle` gets the first frame, whose orientation holds
    for all. After that, `size` is (H, W) as a player shows the frames, and several threads may use it at once, each for
    frames of its own.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        codec = stream.codec_context
        # Taken now: decoding may replace the container's values by those of the stream, which may be unspecified.
        self._declared = Colours(codec.color_trc, codec.color_primaries, codec.colorspace)
        self._stream = stream
        self._tools = _Tools()
        self.upright = Orientation()
        self.size = (0, 0)

    def settle(self, first: av.VideoFrame) -> None:
        """Set the orientation and the size, which hold for all frames."""
        self.upright = orientation(first)
        self.size = upright_size(first, self._stream, self.upright)

    def _colours(self, frame: av.VideoFrame) -> Colours:
        return Colours(frame.color_trc, frame.color_primaries, frame.colorspace).over(self._declared)

    def rgb(self, frame: av.VideoFrame, size: tuple[int, int]) -> Image:
        """A frame as it is stored, resized: (H, W, 3) uint8 RGB for BT.709 screens."""
        colours = self._colours(frame)
        stored = self._stored(frame, size, colours)
        return stored if colours.plain else self._tools.tone(stored, colours)

    def _stored(self, frame: av.VideoFrame, size: tuple[int, int], colours: Colours) -> Any:
        """(H, W, 3) RGB: uint8, or uint16 if its tones must still be mapped."""
        spaces: dict[str, int] = {}
        if (not colours.plain and colours.matrix != frame.colorspace) or frame.colorspace not in MATRICES:
            known = MATRICES - UNSPECIFIED
            spaces["src_colorspace"] = colours.matrix if colours.matrix in known else BT601 if colours.plain else BT2020
            spaces["dst_colorspace"] = BT709  # for RGB any value that swscale accepts will do
        if frame.color_range not in RANGES:
            spaces |= {"src_color_range": LIMITED, "dst_color_range": FULL}
        deep = None if colours.plain else "rgb48le"
        convert = self._tools.convert.reformat
        if size == (frame.height, frame.width):
            whole = convert(frame, format=deep or "rgb24", threads=1, **spaces)
            return whole.to_ndarray() if deep else _view(whole)
        if frame.interlaced_frame:
            frame = self._tools.whole(frame)
        small = convert(frame, size[1], size[0], deep or PLANES, interpolation=RESIZE, threads=1, **spaces)
        return small.to_ndarray() if deep else _woven(small)


def _view(frame: av.VideoFrame) -> Image:
    """(H, W, 3) of an rgb24 frame, without a copy: a large array for every frame would cost page faults."""
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return lines[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def _woven(frame: av.VideoFrame) -> Image:
    """(H, W, 3) uint8 RGB of a frame of the format PLANES."""
    green, blue, red = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    )
    return np.asarray(cv2.merge([red, green, blue]), np.uint8)


class _Tools(threading.local):
    """What a thread needs for its frames. A `Look` has one for each thread that uses it."""

    def __init__(self) -> None:
        # One for all frames: otherwise each makes its own, with threads that live until collected (350 were seen).
        self.convert = VideoReformatter()
        self.tone = Tone()
        self._made_for: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def whole(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same picture, without a copy, declared as not interlaced.

        swscale resizes the two fields of an interlaced frame apart and weaves them again. A small picture would keep
        the comb of a movement, which an average over all lines blends.
        """
        made_for = (frame.width, frame.height, frame.format.name)
        if self._graph is None or self._made_for != made_for:
            graph = av.filter.Graph()
            graph.threads = 1
            size = f"{frame.width}x{frame.height}"
            source = graph.add("buffer", video_size=size, pix_fmt=frame.format.name, time_base="1/25")
            graph.link_nodes(source, graph.add("setfield", mode="prog"), graph.add("buffersink")).configure()
            self._graph, self._made_for = graph, made_for
        self._graph.push(frame)
        made = self._graph.pull()
        assert isinstance(made, av.VideoFrame)
        return made


def picture(frame: av.VideoFrame, size: tuple[int, int], look: Look, out: Image | None = None) -> Image:
    """Upright RGB picture of a frame, resized: (H, W, 3) uint8 for `size` (H, W), written to `out` if that is given.

    Shrinking averages areas, as DeepMind's own pipeline does; enlarging is bilinear. HDR becomes SDR after that, when
    there are fewer pixels (tone.py).
    """
    upright = look.upright
    rgb = look.rgb(frame, (size[1], size[0]) if upright.turns % 2 else size)
    if upright.mirrored:
        rgb = rgb[::-1]
    shown = np.rot90(rgb, upright.turns)
    if out is None:
        return np.ascontiguousarray(shown)
    out[:] = shown
    return out

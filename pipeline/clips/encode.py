"""Writes MP4 files that play everywhere, with H.264 in BT.709 and AAC; a file appears whole or not at all."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from support.errors import EnvironmentMissing, cannot_write
from support.files import replacing

Image = NDArray[np.uint8]
Samples = NDArray[np.float32]

TICK = Fraction(1, 90_000)
HERTZ = 48_000
CODECS = ("libx264", "aac")
BT709 = 1  # the number of BT.709's colour space, primaries and transfer in ISO/IEC 23091-2


class MovieWriter:
    """Takes the pictures and the sound of a movie, in order; times count from its beginning."""

    def __init__(self, out: av.container.OutputContainer, size: tuple[int, int], rate: Fraction, quality: int) -> None:
        """size: (H, W), which becomes even, since 4:2:0 needs that; quality: x264's crf, lower is better."""
        self.height, self.width = (max(2, side // 2 * 2) for side in size)
        self._out = out
        # The rate is for the header only; each picture has a time of its own.
        stream = out.add_stream("libx264", rate=rate, options={"crf": str(quality), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = self.height, self.width, "yuv420p"
        codec = stream.codec_context
        codec.time_base = TICK
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = 1  # limited, as usual for video
        self._video = stream
        self._convert = VideoReformatter()  # one for all pictures, because each one has its own threads
        self._audio: av.AudioStream | None = None
        self._last = -1
        self._heard = 0  # samples written so far

    def add_sound(self, channels: int) -> None:
        """Add a track of sound. Call this before the first picture."""
        self._audio = self._out.add_stream("aac", rate=HERTZ, layout="mono" if channels == 1 else "stereo")

    def picture(self, image: Image, time: float) -> None:
        """Show (H, W, 3) RGB from `time` (s) on; a picture of another size is fitted between black borders."""
        frame = av.VideoFrame.from_ndarray(boxed(image, (self.height, self.width)), format="rgb24")
        frame = self._convert.reformat(frame, format="yuv420p", dst_colorspace=BT709, dst_color_range=1, threads=1)
        self._last = max(self._last + 1, round(time / TICK))
        frame.pts, frame.time_base = self._last, TICK
        self._out.mux(self._video.encode(frame))

    def sound(self, samples: Samples, first: int) -> None:
        """Play (channels, n) float32 at 48 kHz; `first` is the number of the first sample in the movie.

        Gaps are filled with silence, because players treat gaps in different ways.
        """
        if self._audio is None:
            return
        for at in range(self._heard, first, HERTZ):
            self._play(np.zeros((samples.shape[0], min(HERTZ, first - at)), np.float32))
        self._play(samples[:, max(0, self._heard - first) :])

    def _play(self, samples: Samples) -> None:
        if self._audio is None or not samples.shape[1]:
            return
        layout = "mono" if samples.shape[0] == 1 else "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = HERTZ, self._heard, Fraction(1, HERTZ)
        self._heard += samples.shape[1]
        self._out.mux(self._audio.encode(frame))

    def finish(self) -> None:
        """Write the pictures and samples that the encoders still hold."""
        self._out.mux(self._video.encode(None))
        if self._audio is not None:
            self._out.mux(self._audio.encode(None))


def boxed(image: Image, size: tuple[int, int]) -> Image:
    """Return the image at `size` (H, W): without its odd row or column, or fitted between black borders."""
    height, width = size
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = (min(height, round(image.shape[0] * scale)) or 1, min(width, round(image.shape[1] * scale)) or 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = cv2.resize(image, inner[::-1], interpolation=how)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = fitted
    return canvas


@contextlib.contextmanager
def open_movie(
    path: Path, size: tuple[int, int], rate: Fraction, quality: int = 18, comment: str = ""
) -> Iterator[MovieWriter]:
    """Write a movie to `path`; the file appears when the block ends, and not at all if the block fails.

    Raises:
        EnvironmentMissing: this PyAV lacks an encoder.
        OutputError: the folder or the disk does not take the file.
    """
    if missing := [name for name in CODECS if name not in av.codecs_available]:
        raise EnvironmentMissing(f"this PyAV comes without {' and '.join(missing)}; use the wheel of PyPI.")
    try:
        options = {"movflags": "faststart"}  # the index before the pictures, so that browsers can begin at once
        with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as out:
            out.metadata["comment"] = comment
            movie = MovieWriter(out, size, rate, quality)
            yield movie
            movie.finish()
    except (OSError, av.error.FFmpegError) as error:  # errors of reading come as VideoErrors, or not at all
        raise cannot_write(path, OSError(error.errno, error.strerror or str(error))) from error

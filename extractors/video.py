"""From a file to upright frames on a steady 25 fps grid: the one place where container time is settled.

0 s is the container's start time, as players show it. Grid point k lies k / fps after the first video frame
and shows the frame whose presentation time (PTS) is nearest; so variable frame rates, a first PTS that is not
0, and frames without PTS mean the same seconds to everything behind this file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.error
import av.video
import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# Seconds. PTS are rounded to the container's clock (1 ms in Matroska); nearness is not decided below this.
TIME_EPS = 1e-6
# A stream that ends this much (s) before its header says is reported as partial.
MISSING_TAIL = 1.0
# A silence between two frames longer than this (s) is a broken clock (a wrapped counter, a spliced recording),
# not a still picture: the frames behind it are moved up, or a bad file could ask for days of copies of one frame.
LONGEST_STILL = 600.0
# Decoder errors that are carried on over before the file is given up: a stream of noise would take for ever.
MAX_DAMAGE = 500


class VideoError(Exception):
    """A video cannot be read; the message names the file, the cause and the next step."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container says about its video, upright and in square pixels."""

    path: Path
    duration: float
    """seconds, 0 when the container does not say"""
    width: int
    height: int
    mean_fps: float
    rate: str
    """nominal frame rate as a fraction, such as 30000/1001"""
    start_timecode: str | None


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    """Open a file and its first video stream.

    Raises:
        VideoError: no such file, not a media file, no video stream, or no decoder for it.
    """
    if not path.exists():
        raise VideoError(f"{path}: no such file; check the path.")
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a video; name a file in it.")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty; copy or download it again.")
        container = av.open(str(path), metadata_errors="replace")
    except PermissionError as error:
        raise VideoError(f"{path}: may not be read; check its permissions.") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: not a video that FFmpeg can open ({_reason(error)}); "
            "if it is a cut download, get it again, else convert it to MP4."
        ) from error
    with container:
        # An attached cover picture is a video stream to FFmpeg, not to a viewer.
        streams = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
        if not streams:
            raise VideoError(f"{path}: holds no video stream (audio only?); give the file with the picture.")
        stream = streams[0]
        # Without a decoder PyAV has no codec context, and decoding would crash the interpreter (PyAV#2344).
        if stream.codec_context is None:
            raise VideoError(f"{path}: no decoder here for its video codec; convert it to H.264 MP4.")
        stream.thread_type = "AUTO"
        yield container, stream


_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC of libavformat


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def probe(path: Path) -> VideoInfo:
    """Read the header, and one frame of the picture for its rotation.

    Raises:
        VideoError: the file cannot be opened or holds no frame that can be decoded.
    """
    with open_video(path) as (container, stream):
        _, frame = next(decode(container, stream, path, Damage()), (0.0, None))
        if frame is None:
            raise VideoError(f"{path}: no frame of it can be decoded; the file is damaged, get it again.")
        height, width = upright_size(frame, stream)
        duration = container.duration / 1e6 if container.duration else 0.0
        if not duration and stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        rate = stream.guessed_rate or stream.average_rate
        timecode = stream.metadata.get("timecode") or container.metadata.get("timecode")
        mean = float(stream.average_rate or rate or 0)
        return VideoInfo(path, duration, width, height, mean, str(rate or "0"), timecode)


def upright_size(frame: av.VideoFrame, stream: av.video.VideoStream) -> tuple[int, int]:
    """(height, width) as a player shows the frame: square pixels, display rotation applied."""
    aspect = stream.sample_aspect_ratio
    width = round(frame.width * float(aspect)) if aspect and aspect > 0 else frame.width
    size = (frame.height, max(width, 1))
    return (size[1], size[0]) if frame.rotation % 180 else size


@dataclass
class Damage:
    """What went wrong on the way through a file; filled while it is decoded."""

    errors: int = 0
    jumps: int = 0


def decode(
    container: av.container.InputContainer, stream: av.video.VideoStream, path: Path, damage: Damage
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames in display order with their time (s) from the container's start; errors are skipped and counted.

    Times always rise: a frame without PTS, or whose PTS does not (H.264 in AVI carries decoding order), follows
    the one before by a frame's duration.
    """
    base = float(stream.time_base or 0) or 1 / 25
    zero = (container.start_time or 0) / 1e6
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    step = 1 / rate if rate > 0 else 1 / 25
    last: float | None = None
    shift = 0.0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            packet = None  # the demuxer cannot go on: what came so far is all there is
            damage.errors += 1
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            damage.errors += 1
            if damage.errors > MAX_DAMAGE:
                raise VideoError(f"{path}: too damaged to decode; get the file again.") from None
            continue
        for frame in frames:
            time = None if frame.pts is None else frame.pts * base - zero - shift
            if last is not None:
                if time is None or time <= last:
                    time = last + step
                elif time > last + LONGEST_STILL:
                    shift += time - last - step
                    time = last + step
                    damage.jumps += 1
            last = time = 0.0 if time is None else time
            yield time, frame


def picture(frame: av.VideoFrame, size: tuple[int, int]) -> Image:
    """Upright RGB picture of a frame, resized: (H, W, 3) uint8 for `size` (H, W).

    Area averaging when shrinking, as DeepMind's own pipeline does, bilinear when enlarging.
    """
    turns = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns that put it upright
    height, width = (size[1], size[0]) if turns % 2 else size
    rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    if rgb.shape[:2] != (height, width):
        shrink = height * width < rgb.shape[0] * rgb.shape[1]
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def fit(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) scaled so that the shorter side is `short_side`, shape kept."""
    height, width = size
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


class Frames:
    """The frames of a video on its grid: a context manager, iterated once through `grid`.

    Entering decodes the first frame, which gives `origin`, the time of grid point 0 (s). After the iteration
    `end` is the time at which the last frame read stops being shown (s); `partial` and `warnings` say what was
    wrong with the file.

    Raises (on entering):
        VideoError: the file cannot be opened, or nothing in it can be decoded.
    """

    def __init__(self, path: Path, fps: float, short_side: int) -> None:
        self.path, self.fps, self.short_side = path, fps, short_side
        self.damage = Damage()
        self.end = 0.0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Frames:
        with contextlib.ExitStack() as stack:
            self._container, self._stream = stack.enter_context(open_video(self.path))
            self._source = self._decode()
            head = next(self._source, None)
            if head is None:
                raise VideoError(f"{self.path}: no frame of it can be decoded; the file is damaged, get it again.")
            self._head = head
            self.origin = head[0]
            self.size = fit(upright_size(head[1], self._stream), self.short_side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def grid(self, first: int = 0, last: float = float("inf")) -> Iterator[tuple[int, Image]]:
        """Yield (k, (H, W, 3) uint8 RGB) for the grid points first <= k < last that the video has."""
        head, source = self._head, self._source
        if first > 0 and (sought := self._seek(head[1], self._time(first))):
            head, source = sought
        yield from self._nearest(head, source, first, last)

    def _decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        return decode(self._container, self._stream, self.path, self.damage)

    def _time(self, k: float) -> float:
        return self.origin + k / self.fps

    def _nearest(
        self,
        head: tuple[float, av.VideoFrame],
        source: Iterator[tuple[float, av.VideoFrame]],
        k: int,
        last: float,
    ) -> Iterator[tuple[int, Image]]:
        """Nearest frame for each grid point k..last-1; a tie goes to the earlier frame."""
        time, frame = head
        shown: Image | None = None  # converted only when a grid point wants it, once
        for later, successor in source:
            while k < last and self._time(k) <= (time + later) / 2 + TIME_EPS:
                shown = picture(frame, self.size) if shown is None else shown
                yield k, shown
                k += 1
            self.end = later
            if k >= last:
                return
            time, frame, shown = later, successor, None
        base = float(frame.time_base or 0)
        self.end = time + (frame.duration * base or 1 / self.fps)
        while k < last and self._time(k) < self.end - TIME_EPS:
            shown = picture(frame, self.size) if shown is None else shown
            yield k, shown
            k += 1

    def _seek(
        self, first: av.VideoFrame, target: float
    ) -> tuple[tuple[float, av.VideoFrame], Iterator[tuple[float, av.VideoFrame]]] | None:
        """Jump to a keyframe at or before `target` (s) and prove it by its PTS; None: go on from the start.

        AVI has no trustworthy PTS, and a stream whose first frame is not flagged as a keyframe cannot show where
        decoding is clean: both are decoded from their start. MPEG-TS lands late, so further back is tried.
        """
        container, stream = self._container, self._stream
        base = float(stream.time_base or 0)
        if container.format.name == "avi" or not first.key_frame or not base or first.pts is None:
            return None
        for margin in (0.0, 2.0, 10.0, 40.0):
            goal = target - margin
            if goal <= self.origin:
                break
            try:
                container.seek(int((goal + (container.start_time or 0) / 1e6) / base), stream=stream)
            except av.error.FFmpegError:
                break
            source = self._decode()
            # Frames before the first keyframe lean on frames that were never read.
            head = next(((t, f) for t, f in source if f.key_frame or t > target), None)
            if head is not None and head[1].key_frame and head[1].pts is not None and head[0] <= target:
                return head, source
        container.seek(0)
        source = self._decode()
        head = next(source, None)
        if head is None or abs(head[0] - self.origin) > TIME_EPS:
            raise VideoError(f"{self.path}: cannot be read again from its start; convert it to MP4.")
        return head, source

    def partial(self, whole: bool) -> bool:
        """Whether frames are missing: some could not be decoded, or the stream stops long before its header says.

        whole: the video was read to its end.
        """
        return bool(self.damage.errors) or (whole and self._missing > MISSING_TAIL)

    @property
    def _missing(self) -> float:
        """Seconds by which the frames fall short of the stream's declared duration."""
        if not self._stream.duration or not self._stream.time_base:
            return 0.0
        return float(self._stream.duration * self._stream.time_base) - (self.end - self.origin)

    def warnings(self, whole: bool) -> tuple[str, ...]:
        """What to tell the user; `whole`: the video was read to its end."""
        said = []
        if self.damage.errors:
            said.append(f"{self.damage.errors} damaged places were skipped.")
        if whole and self._missing > MISSING_TAIL:
            said.append(f"its frames end {self._missing:.1f} s before the file says that they do.")
        if self.damage.jumps:
            said.append("its clock jumps; the frames behind a jump follow at once.")
        return tuple(said)

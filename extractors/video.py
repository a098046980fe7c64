"""From a file to upright frames on a steady 25 fps grid: the one place where container time is settled.

0 s is the container's start time, as players show it. Grid point k lies k / fps after the first video frame
and shows the frame whose presentation time (PTS) is nearest; so variable frame rates, a first PTS that is not
0, and frames without PTS mean the same seconds to everything behind this file.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import av
import av.codec.hwaccel
import av.container
import av.error
import av.video
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# Seconds. PTS are rounded to the container's clock (1 ms in Matroska); nearness is not decided below this.
TIME_EPS = 1e-6
# A stream that ends this much (s) before its header says is reported as partial.
MISSING_TAIL = 1.0
# A silence between two frames longer than this (s) is a broken clock (a wrapped counter, a spliced recording),
# not a still picture: the frames behind it are moved up, or a bad file could ask for days of copies of one frame.
LONGEST_STILL = 600.0
# Decoder errors before the first frame after which a stream is given up as noise.
MAX_DAMAGE = 500
# Sample aspect ratios beyond this come from damaged headers, not from lenses: a frame would take gigabytes.
WIDEST_PIXEL = 8
# AVI has no true PTS and MPEG-PS gives one to some frames only: after a jump into them no time can be trusted.
UNSEEKABLE = frozenset({"avi", "mpeg"})
# What FFmpeg opens too: playlists lead to other files or the network and may be read again for ever; text and ANSI
# art are drawn.
NOT_VIDEO = frozenset({"adf", "bin", "concat", "dash", "hls", "idf", "imf", "lavfi", "sdp", "tty", "xbin"})


class VideoError(Exception):
    """A video cannot be read; the message names the file, the cause and the next step."""


class DecoderUnavailable(Exception):
    """NVDEC was asked for, and this machine has none; one sentence with the next step."""


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


def require_nvdec(gpu: int = 0) -> None:
    """Open NVIDIA's decoder on a GPU and close it again, before hours are spent.

    Raises:
        DecoderUnavailable: this build of FFmpeg or this machine has none.
    """
    if "cuda" not in av.codec.hwaccel.hwdevices_available():
        raise DecoderUnavailable("this PyAV comes without NVDEC; use --decoder cpu, or the wheel of PyPI.")
    try:
        _nvdec(gpu).create(av.codec.Codec("h264", "r"))
    except (av.error.FFmpegError, NotImplementedError) as error:
        raise DecoderUnavailable(
            f"NVDEC cannot be opened on GPU {gpu}, for want of a driver or a device ({_reason(error)}); "
            "see `python cli.py doctor`, or use --decoder cpu."
        ) from error


def _nvdec(gpu: int) -> av.codec.hwaccel.HWAccel:
    # No fallback: what was asked for is used, or it is an error; the cache key says which it was.
    return av.codec.hwaccel.HWAccel("cuda", device=str(gpu), allow_software_fallback=False)


@contextlib.contextmanager
def open_video(
    path: Path, gpu: int | None = None, threads: int = 0
) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    """Open a file and its first video stream; `gpu`: decode with NVDEC on that GPU instead of the CPU.

    `threads`: of the software decoder; 0: as many as there are cores.

    Raises:
        VideoError: no such file, not a media file, no video stream, or no decoder for it.
        DecoderUnavailable: there is no NVDEC on that GPU.
    """
    if not path.exists():
        raise VideoError(f"{path}: no such file; check the path.")
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a video; name a file in it.")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty; copy or download it again.")
        container = _open(path, gpu)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:  # the limit of the decoder's process
            raise MemoryError from error
        if gpu is not None:  # a missing device looks like a file that may not be read
            require_nvdec(gpu)
        if isinstance(error, PermissionError):
            raise VideoError(f"{path}: may not be read; check its permissions.") from error
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
        if gpu is None:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
        elif stream.codec_context.is_hwaccel:
            stream.codec_context.thread_count = 1  # each thread takes surfaces, of which NVDEC has 32 (PyAV#2411)
        else:
            codec = stream.codec_context.name
            raise VideoError(f"{path}: NVDEC does not decode its video codec ({codec}); use --decoder cpu for it.")
        yield container, stream


def _open(path: Path, gpu: int | None) -> av.container.InputContainer:
    # "file:", or FFmpeg takes what stands before a colon in a name for a protocol.
    name, formats = f"file:{path}", ",".join(sorted(av.formats_available - NOT_VIDEO))
    options = {"format_whitelist": formats}
    if gpu is not None:
        try:
            return av.open(name, metadata_errors="replace", options=options, hwaccel=_nvdec(gpu))
        except av.error.FFmpegError:
            raise
        except RuntimeError:  # none of its streams is for NVDEC: opened without, it can be said which codec it has
            pass
    return av.open(name, metadata_errors="replace", options=options)


_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC of libavformat


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def probe(path: Path) -> VideoInfo:
    """Read the header, and one frame of the picture for its rotation.

    Raises:
        VideoError: the file cannot be opened or holds no frame that can be decoded.
    """
    with Frames(path) as frames:
        return frames.info


def _describe(
    path: Path, container: av.container.InputContainer, stream: av.video.VideoStream, frame: av.VideoFrame
) -> VideoInfo:
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
    aspect = float(stream.sample_aspect_ratio or 1)
    width = round(frame.width * aspect) if 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL else frame.width
    size = (frame.height, max(width, 1))
    return (size[1], size[0]) if frame.rotation % 180 else size


def declared_duration(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    """Seconds that the header gives the picture, 0 where it does not tell them from the sound's."""
    alone = len(container.streams) == 1
    ticks = stream.duration or 0
    if container.format.name == "avi":  # its duration is what FFmpeg found, its frame count is the header's
        ticks = max(ticks, stream.frames)
    if container.format.name != "asf" or alone:  # ASF gives every stream the duration of the longest
        if ticks and stream.time_base:
            return float(ticks * stream.time_base)
        if clock := _CLOCK.fullmatch(stream.metadata.get("DURATION", "")):  # Matroska's, for each stream
            hours, minutes, seconds = map(float, clock.groups())
            return hours * 3600 + minutes * 60 + seconds
    return (container.duration or 0) / 1e6 if alone else 0.0


_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


@dataclass
class Damage:
    """What went wrong on the way through a file; filled while it is decoded."""

    errors: int = 0
    """places that could not be decoded, or that the demuxer or the decoder marks as corrupt"""
    jumps: int = 0
    """silences that were closed up"""
    made_up: int = 0
    """frames whose time had to be made up, since they have none or one that does not rise"""


def frame_step(stream: av.video.VideoStream) -> float:
    """Seconds from one frame to the next, nominally."""
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return 1 / rate if rate > 0 else 1 / 25


def decode(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    damage: Damage,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames in display order with their time (s) from the container's start; errors are skipped and counted.

    `tick` is called with each packet: a sign of life while no frame comes out.

    Times always rise: a frame without PTS, or whose PTS does not (H.264 in AVI carries decoding order), follows
    the one before by a frame's duration.
    """
    base = float(stream.time_base or 0) or 1 / 25
    zero = (container.start_time or 0) / 1e6
    step = frame_step(stream)
    last: float | None = None
    shift = 0.0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            packet = None  # the demuxer cannot go on: what came so far is all there is
            damage.errors += 1
        except IndexError:
            packet = None  # PyAV trips at the very end over a stream that appeared midway; ours is through by then
        if packet is None:
            return
        tick()
        damage.errors += packet.is_corrupt
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            if error.errno == errno.ENOMEM:  # the limit of the decoder's process, not a fault of this place
                raise MemoryError from error
            damage.errors += 1
            if last is None and damage.errors > MAX_DAMAGE:
                return
            continue
        for frame in frames:
            damage.errors += frame.is_corrupt
            time = None if frame.pts is None else frame.pts * base - zero - shift
            if last is not None:
                if time is None or time <= last:
                    time = last + step
                    damage.made_up += 1
                elif time > last + LONGEST_STILL:
                    shift += time - last - step
                    time = last + step
                    damage.jumps += 1
            last = time = 0.0 if time is None else time
            yield time, frame


def picture(frame: av.VideoFrame, size: tuple[int, int], convert: VideoReformatter | None = None) -> Image:
    """Upright RGB picture of a frame, resized: (H, W, 3) uint8 for `size` (H, W).

    Area averaging when shrinking, as DeepMind's own pipeline does, bilinear when enlarging. `convert`: shared by the
    frames of a video, or each makes its own, with threads that live until it is collected (350 of them were seen).
    """
    turns = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns that put it upright
    height, width = (size[1], size[0]) if turns % 2 else size
    plain = (convert or VideoReformatter()).reformat(frame, format="rgb24", threads=1)
    rgb = np.asarray(plain.to_ndarray(), np.uint8)
    if rgb.shape[:2] != (height, width):
        shrink = height * width < rgb.shape[0] * rgb.shape[1]
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)
    if _mirrored(frame):
        rgb = rgb[::-1]
    return np.ascontiguousarray(np.rot90(rgb, turns))


def _mirrored(frame: av.VideoFrame) -> bool:
    """Whether the display matrix mirrors: its angle is that of the picture flipped top to bottom."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it stands a kind of side data that PyAV has no name for
        return False
    if matrix is None:
        return False
    a, b, _, c, d, *_ = np.frombuffer(bytes(cast(Any, matrix)), np.int32).astype(float)
    return bool(a * d < b * c)


def fit(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) scaled so that the shorter side is `short_side`, shape kept."""
    height, width = size
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


class Frames:
    """The frames of a video on its grid: a context manager, iterated once through `grid`.

    Entering decodes the first frame, which gives `info`, and `origin`, the time of grid point 0 (s). After the
    iteration `end` is the time at which the last frame read stops being shown (s), `exhausted` whether the video has
    no further one, `damage` what was wrong with the file, and `sought` whether its beginning was jumped over.

    `short_side`: pixels that frames are resized to; None leaves them as large as they are. `gpu`: as `open_video`.
    `tick`: called while the file is read, a sign of life. `threads`: as `open_video`.

    Raises (on entering):
        VideoError: the file cannot be opened, or nothing in it can be decoded.
        DecoderUnavailable: there is no NVDEC on that GPU.
    """

    def __init__(
        self,
        path: Path,
        fps: float = 25.0,
        short_side: int | None = None,
        gpu: int | None = None,
        tick: Callable[[], None] = lambda: None,
        threads: int = 0,
    ) -> None:
        self.path, self.fps, self.short_side, self.gpu = path, fps, short_side, gpu
        self._tick, self._threads = tick, threads
        self._convert = VideoReformatter()
        self.damage = Damage()
        self.end = 0.0
        self.exhausted = self.sought = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Frames:
        with contextlib.ExitStack() as stack:
            self._container, self._stream = stack.enter_context(open_video(self.path, self.gpu, self._threads))
            self._source = self._decode()
            head = next(self._source, None)
            if head is None and self.gpu is not None:  # 10-bit H.264, or a driver without its video libraries
                raise VideoError(f"{self.path}: NVDEC decodes no frame of it; use --decoder cpu for it.")
            if head is None:
                raise VideoError(f"{self.path}: no frame of it can be decoded; the file is damaged, get it again.")
            self._head = head
            self.origin = head[0]
            self._declared = declared_duration(self._container, self._stream)
            self._zero = (self._container.start_time or 0) / 1e6
            self.info = _describe(self.path, self._container, self._stream, head[1])
            upright = (self.info.height, self.info.width)
            self.size = upright if self.short_side is None else fit(upright, self.short_side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def grid(self, first: int = 0, last: float = float("inf"), seek: bool = True) -> Iterator[tuple[int, Image]]:
        """Yield (k, (H, W, 3) uint8 RGB) for the grid points first <= k < last that the video has.

        seek: jump to the first of them where the format allows it; False reads all that comes before.
        """
        head, source = self._head, self._source
        if seek and first > 0 and (sought := self._seek(head[1], self._time(first))):
            head, source = sought
        yield from self._nearest(head, source, first, last)

    def _decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        return decode(self._container, self._stream, self.damage, self._tick)

    @property
    def seekable(self) -> bool:
        """Whether `grid` may jump, so that a part of the video costs no more than its own length."""
        return not (self._container.format.name in UNSEEKABLE or not self._head[1].key_frame)

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
                shown = picture(frame, self.size, self._convert) if shown is None else shown
                yield k, shown
                k += 1
            self.end = later
            if k >= last:
                return
            time, frame, shown = later, successor, None
        self.exhausted = True
        base = float(frame.time_base or 0)
        lasts = frame.duration * base
        self.end = time + (min(lasts, LONGEST_STILL) if lasts > TIME_EPS else frame_step(self._stream))
        while k < last and self._time(k) < self.end - TIME_EPS:
            shown = picture(frame, self.size, self._convert) if shown is None else shown
            yield k, shown
            k += 1

    def _seek(
        self, first: av.VideoFrame, target: float
    ) -> tuple[tuple[float, av.VideoFrame], Iterator[tuple[float, av.VideoFrame]]] | None:
        """Jump to a keyframe at or before `target` (s) and prove it by its PTS; None: go on from the start.

        Formats without trustworthy PTS, and a stream whose first frame is not flagged as a keyframe and so cannot
        show where decoding is clean, are decoded from their start. MPEG-TS lands late, so further back is tried; and
        where it was spliced its clock says nothing.
        """
        container, stream = self._container, self._stream
        base = float(stream.time_base or 0)
        if container.format.name in UNSEEKABLE or not first.key_frame or not base or first.pts is None:
            return None
        before = replace(self.damage)  # what is wrong on the way to a keyframe comes from the jump, not from the file
        for margin in (0.0, 2.0, 10.0, 40.0) if self._rising() else ():
            goal = target - margin
            if goal <= self.origin:
                break
            try:
                container.seek(int((goal + (container.start_time or 0) / 1e6) / base), stream=stream)
            except (av.error.FFmpegError, OverflowError):
                break
            source = self._decode()
            # Frames before the first keyframe lean on frames that were never read.
            head = next(((t, f) for t, f in source if f.key_frame or t > target), None)
            vars(self.damage).update(vars(before))
            if head is not None and head[1].key_frame and head[1].pts is not None and head[0] <= target:
                self.sought = True
                return head, source
        # Opened anew: not every format finds back to its start.
        self.damage = Damage()
        again = open_video(self.path, self.gpu, self._threads)
        self._container, self._stream = self._stack.enter_context(again)
        source = self._decode()
        head = next(source, None)
        if head is None or head[0] != self.origin:
            raise VideoError(f"{self.path}: cannot be read again from its start; convert it to MP4.")
        return head, source

    def _rising(self) -> bool:
        """Whether the clock only rises, as far as the packets say: only MPEG-TS can be spliced, and is read through."""
        if self._container.format.name != "mpegts":
            return True
        longest = LONGEST_STILL / float(self._stream.time_base or 1)
        last: int | None = None
        with contextlib.suppress(av.error.FFmpegError, IndexError):  # as in `decode`
            for packet in self._container.demux(self._stream):
                self._tick()
                if packet.dts is not None and last is not None and not 0 <= packet.dts - last <= longest:
                    return False
                last = last if packet.dts is None else packet.dts
        return True

    def partial(self, whole: bool) -> bool:
        """Whether frames are missing: some could not be decoded, or the stream stops long before its header says.

        whole: the video was read to its end.
        """
        return is_partial(self.damage, self.missing if whole else 0.0)

    @property
    def missing(self) -> float:
        """Seconds by which the frames fall short of the duration that the header declares, if it does.

        Some formats count it from the stream's own start, some from 0: the later end is believed.
        """
        return self._declared - self._zero - self.end

    def warnings(self, whole: bool) -> tuple[str, ...]:
        """What to tell the user; `whole`: the video was read to its end."""
        return warnings(self.damage, self.missing if whole else 0.0)


def is_partial(damage: Damage, missing: float) -> bool:
    """Whether frames are missing: some could not be decoded, or they end `missing` seconds before the header says."""
    return bool(damage.errors) or missing > MISSING_TAIL


def warnings(damage: Damage, missing: float) -> tuple[str, ...]:
    """What to tell the user about a file; `missing`: as `is_partial`."""
    said = []
    if damage.errors:
        said.append(f"it is damaged in {damage.errors} place{'s' if damage.errors > 1 else ''}.")
    if missing > MISSING_TAIL:
        said.append(f"its frames end {missing:.1f} s before the file says that they do.")
    if damage.jumps:
        said.append("its clock jumps; the frames behind a jump follow at once.")
    return tuple(said)

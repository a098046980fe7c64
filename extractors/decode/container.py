"""From a file to its frames and their times: the one place where container time is settled.

0 s is the container's start time, as players show it. grid.py puts the frames on a steady grid.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import av.codec.hwaccel
import av.container
import av.error
import av.video
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from numpy.typing import NDArray

from extractors.decode.foreign import foreign, picture
from extractors.decode.streams import best_video, tagged_seconds
from support.errors import ENVIRONMENT, INPUT_FAILED, UserError
from support.paths import program

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
# FFmpeg itself takes no more threads than these by default: frames lean on one another.
MOST_THREADS = 16
# Bytes of frames that a decoder's threads may hold, two each: enough for 16 of them in 4K with 10 bits (25 MB a frame).
THREAD_BYTES = 1 << 30
# AVI has no true PTS and MPEG-PS gives one to some frames only: after a jump into them no time can be trusted.
UNSEEKABLE = frozenset({"avi", "mpeg"})
# What FFmpeg opens too: playlists lead to other files or the network and may be read again for ever; text and ANSI
# art are drawn.
NOT_VIDEO = frozenset({"adf", "bin", "concat", "dash", "hls", "idf", "imf", "lavfi", "sdp", "tty", "xbin"})


class VideoError(UserError):
    """A video cannot be read; the message names the file, the cause and the next step."""

    exit_code = INPUT_FAILED


class ReadError(VideoError):
    """A file could not be read, or was written to meanwhile: what came out of it says nothing about the file."""


class DecoderUnavailable(UserError):
    """NVDEC was asked for, and this machine has none; one sentence with the next step."""

    exit_code = ENVIRONMENT


@dataclass(frozen=True)
class VideoInfo:
    """What the container says about its video, upright and in square pixels."""

    path: Path
    duration: float
    """seconds, 0 when the container does not say"""
    width: int
    height: int
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
            f"see `{program()} doctor`, or use --decoder cpu."
        ) from error


def _nvdec(gpu: int) -> av.codec.hwaccel.HWAccel:
    # No fallback: what was asked for is used, or it is an error; the cache key says which it was.
    return av.codec.hwaccel.HWAccel("cuda", device=str(gpu), allow_software_fallback=False)


@contextlib.contextmanager
def open_video(
    path: Path, gpu: int | None = None, threads: int = 0
) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    """Open a file and its video stream (streams.py); `gpu`: decode with NVDEC on that GPU instead of the CPU.

    `threads`: of the software decoder, at most (`decoder_threads`); 0: as many as there are cores.

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
        if (said := foreign(path)) is not None:
            raise VideoError(f"{path}: not a video that FFmpeg can open: {said}.") from error
        raise VideoError(
            f"{path}: not a video that FFmpeg can open ({_reason(error)}); "
            "if it is a cut download, get it again, else convert it to MP4."
        ) from error
    with container:
        stream = best_video(container)
        if stream is None:
            held = {"audio": "sound", "subtitle": "subtitles"}
            kinds = sorted({held.get(s.type, s.type) for s in container.streams if s.type != "video"}) or ["nothing"]
            raise VideoError(
                f"{path}: holds no video stream, only {' and '.join(kinds)}; give the file with the picture."
            )
        if (said := picture(path, container.format.name, container.metadata.get("major_brand", ""))) is not None:
            raise VideoError(f"{path}: {said}.")
        # Without a decoder PyAV has no codec context, and decoding would crash the interpreter (PyAV#2344).
        if stream.codec_context is None:
            raise VideoError(f"{path}: no decoder here for its video codec; convert it to H.264 MP4.")
        if gpu is None:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = decoder_threads(threads, stream)
        elif stream.codec_context.is_hwaccel:
            stream.codec_context.thread_count = 1  # each thread takes surfaces, of which NVDEC has 32 (PyAV#2411)
        else:
            codec = stream.codec_context.name
            raise VideoError(f"{path}: NVDEC does not decode its video codec ({codec}); use --decoder cpu for it.")
        yield container, stream


def decoder_threads(wanted: int, stream: av.video.VideoStream) -> int:
    """How many threads decode a stream: `wanted` (0: the cores), MOST_THREADS at most, and as THREAD_BYTES allow.

    Each thread works on a frame of its own, and another one that it has finished waits for its turn.
    """
    codec = stream.codec_context
    depth = codec.format.padded_bits_per_pixel if codec.format is not None else 0
    frame = max(codec.width * codec.height * (depth or 24) / 8, 1)
    return max(1, min(wanted or cores(), MOST_THREADS, int(THREAD_BYTES / (2 * frame))))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def describe(
    path: Path, container: av.container.InputContainer, stream: av.video.VideoStream, size: tuple[int, int]
) -> VideoInfo:
    """What is known of a video once its first frame is decoded, which tells the upright size (H, W)."""
    height, width = size
    duration = stated_duration(container, stream)
    rate = stream.guessed_rate or stream.average_rate
    timecode = stream.metadata.get("timecode") or container.metadata.get("timecode")
    return VideoInfo(path, duration, width, height, str(rate or "0"), timecode)


def stated_duration(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    """Seconds that the header gives the file, 0 where it does not say."""
    if container.duration:
        return container.duration / 1e6
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


@dataclass(frozen=True)
class Orientation:
    """How stored pictures are put upright: flipped top to bottom where `mirrored`, then turned."""

    turns: int = 0
    """counter-clockwise quarter turns"""
    mirrored: bool = False


def orientation(frame: av.VideoFrame) -> Orientation:
    """What the display matrix of a frame says.

    It belongs to the stream. FFmpeg hands it to every frame where the header holds it, and to key frames alone where
    it comes in the stream (an SEI message of H.264 and HEVC): the first frame is asked, for all of them.
    """
    turns = round(frame.rotation / 90) % 4
    try:
        # Not frame.side_data: the frame would keep the container, which keeps the frame, until Python's collector runs.
        matrix = cast(Any, SideDataContainer)(frame).get("DISPLAYMATRIX")
    except ValueError:  # beside it stands a kind of side data that PyAV has no name for
        matrix = None
    if matrix is None:
        return Orientation(turns)
    # Where it mirrors, its angle is that of the picture flipped top to bottom.
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
    return Orientation(turns, bool(a * d < b * c))


def upright_size(frame: av.VideoFrame, stream: av.video.VideoStream, shown: Orientation) -> tuple[int, int]:
    """(height, width) as a player shows the frame: square pixels, display rotation applied."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width = round(frame.width * aspect) if 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL else frame.width
    size = (frame.height, max(width, 1))
    return (size[1], size[0]) if shown.turns % 2 else size


def declared_duration(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    """Seconds that the header gives the picture, 0 where it does not tell them from the sound's."""
    alone = len(container.streams) == 1
    ticks = stream.duration or 0
    if container.format.name == "avi":  # its duration is what FFmpeg found, its frame count is the header's
        ticks = max(ticks, stream.frames)
    if container.format.name != "asf" or alone:  # ASF gives every stream the duration of the longest
        if ticks and stream.time_base:
            return float(ticks * stream.time_base)
        if seconds := tagged_seconds(stream):
            return seconds
    return (container.duration or 0) / 1e6 if alone else 0.0


@dataclass
class Damage:
    """What went wrong on the way through a file; filled while it is decoded."""

    errors: int = 0
    """places that could not be decoded, or that the demuxer or the decoder marks as corrupt"""
    jumps: int = 0
    """silences that were closed up"""
    made_up: int = 0
    """frames whose time had to be made up, since they have none or one that does not rise"""


# What the system says when it cannot read a file, as opposed to FFmpeg's own codes for what it reads. A demuxer that
# goes on after such an error, or takes it for the file's end, says it at the end.
UNREADABLE = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ENXIO", "ENODEV", "EREMOTEIO", "EMEDIUMTYPE", "ENOMEDIUM"),  # disks, cards and optical media
        *("ENOENT", "ESTALE", "EACCES", "EBADF", "EISDIR", "ENOLINK", "EREMCHG"),  # files that went away
        *("ETIMEDOUT", "ENOTCONN", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EPIPE", "ESHUTDOWN"),  # file servers
    )
    if hasattr(errno, name)
)


def raise_if_unreadable(container: av.container.InputContainer, error: av.error.FFmpegError) -> None:
    """Tell a disk or a network that fails from a damaged file.

    Raises:
        ReadError: it fails.
    """
    if error.errno in UNREADABLE:
        path = container.name.removeprefix("file:")
        raise ReadError(
            f"{path}: cannot be read to its end ({_reason(error)}); look after the disk or the network, then run again."
        ) from error


def frame_step(stream: av.video.VideoStream) -> float:
    """Seconds from one frame to the next, nominally.

    Raw streams (.h264, .hevc) have no time stamps: there FFmpeg's average is its own guess of 25, while the rate that
    the stream itself declares is the guessed one.
    """
    average, guessed = stream.average_rate, stream.guessed_rate
    rate = float((guessed or average if stream.start_time is None else average or guessed) or 25)
    return 1 / rate if rate > 0 else 1 / 25


def decode(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    damage: Damage,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames in display order with their time (s) from the container's start; errors are skipped and counted.

    `tick` is called with each packet: a sign of life while no frame comes out.

    Raises (while it is iterated):
        ReadError: the disk or the network fails. FFmpeg may have gone on behind the place, so that nothing of this
            reading counts.

    Times always rise: a frame without PTS, or whose PTS does not (H.264 in AVI carries decoding order), follows
    the one before by a frame's duration.
    """
    base = float(stream.time_base or 0) or 1 / 25
    zero = (container.start_time or 0) / 1e6
    step = frame_step(stream)
    last: float | None = None
    shift = 0.0
    packets = container.demux(stream)
    spliced = _Splices(container, base, step)
    shown: av.VideoFrame | None = None
    stays = -math.inf  # until when packets without a picture say that the last one is shown
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            packet = None  # the demuxer cannot go on: what came so far is all there is
            raise_if_unreadable(container, error)
            damage.errors += 1
        except IndexError:
            packet = None  # PyAV trips at the very end over a stream that appeared midway; ours is through by then
        damage.errors += spliced.errors(packet)
        if packet is None:
            if shown is not None and last is not None and stays - shift > last:
                yield stays - shift, shown
            return
        tick()
        if not packet.size and packet.pts is not None:  # Theora: the picture before stays (specification, chapter 7)
            stays = packet.pts * base - zero
            continue
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
            shown = frame
            yield time, frame


class _Splices:
    """Tells places where whole MPEG-TS files were joined (`cat`) from places where some of a file is lost.

    In both the packets' counter breaks, and FFmpeg marks one of the last two pictures before the break as corrupt.
    Where files were joined that picture is whole; behind it stands a key frame, and the clock starts anew. Had the
    picture lost something, its decoder would say so itself.
    """

    def __init__(self, container: av.container.InputContainer, base: float, step: float) -> None:
        """`base`: seconds of a tick; `step`: seconds from one frame to the next."""
        self._possible = container.format.name == "mpegts"
        self._longest, self._step = LONGEST_STILL / base, 1.5 * step / base
        self._marked = False
        self._waited = False
        """whether one more packet came behind the one that is marked"""
        self._last = 0

    def errors(self, packet: av.Packet | None) -> int:
        """How many places are damaged, as far as this packet says (None: there are no more)."""
        found = 0
        if self._marked and (packet is None or packet.dts is not None):
            ahead = 0 if packet is None or packet.dts is None else packet.dts - self._last
            if packet is not None and packet.is_keyframe and not 0 <= ahead <= self._longest:
                self._marked = False
            elif packet is not None and not self._waited and 0 < ahead <= self._step:
                self._waited = True
            else:
                found, self._marked = 1, False
        if packet is None or packet.dts is None:
            return found + bool(packet is not None and packet.is_corrupt)
        self._last = packet.dts
        if packet.is_corrupt and self._possible and not self._marked:
            self._marked, self._waited = True, False
            return found
        return found + packet.is_corrupt

"""Opening a video file: which of its streams to show, its decoder, and what its header says."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
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
from av.stream import Disposition

from extractors.config import cores
from extractors.decode.foreign import foreign, picture
from extractors.decode.video import DecoderUnavailable, VideoError, VideoInfo
from support.paths import program

# Sample aspect ratios beyond this come from damaged headers, not from lenses; a frame would take gigabytes.
WIDEST_PIXEL = 8
# FFmpeg's own limit by default, since frames depend on one another.
MOST_THREADS = 16
# FFmpeg waits for the oldest frame that is being decoded, so that a thread whose frame is done earlier has nothing to
# do. On two cores, two threads alone kept them busy for 81 % of the time at 1080p, and three for 95 %
# (benchmarks/README.md).
SPARE_THREADS = 1
# A picture that is shrunk so many times, and that no other refers to, is not smoothed at the edges of its blocks. That
# takes 5 % of the codec's time at 1080p, and little of it is left in the small picture (benchmarks/README.md).
SHRINKS = 3
# Bytes of frames that a decoder's threads may hold, two each: enough for 16 threads in 4K with 10 bits (25 MB a frame).
THREAD_BYTES = 1 << 30
# AVI has no true PTS, and MPEG-PS has one for some frames only, so no time can be trusted after a jump.
UNSEEKABLE = frozenset({"avi", "mpeg"})
# Formats that FFmpeg opens although they are no videos: playlists, which lead to other files or the network and may be
# read for ever, and text or ANSI art, which it draws.
NOT_VIDEO = frozenset({"adf", "bin", "concat", "dash", "hls", "idf", "imf", "lavfi", "sdp", "tty", "xbin"})

# For FFmpeg an attached cover picture is a video stream; for a viewer it is not.
COVER = Disposition.attached_pic
# Single pictures, and layers that are useful only together with another stream.
MINOR = Disposition.still_image | Disposition.timed_thumbnails | Disposition.dependent | Disposition.metadata
IMPAIRED = Disposition.hearing_impaired | Disposition.visual_impaired
_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


def require_nvdec(gpu: int = 0) -> None:
    """Check that NVIDIA's decoder can be opened on a GPU, before hours of work.

    Raises:
        DecoderUnavailable: this build of FFmpeg, or this machine, has no NVDEC.
    """
    if "cuda" not in av.codec.hwaccel.hwdevices_available():
        raise DecoderUnavailable("this PyAV comes without NVDEC; use --decoder cpu, or the wheel of PyPI.")
    try:
        _nvdec(gpu).create(av.codec.Codec("h264", "r"))
    except (av.error.FFmpegError, NotImplementedError) as error:
        raise DecoderUnavailable(
            f"NVDEC cannot be opened on GPU {gpu}, since a driver or a device is missing ({reason(error)}); "
            f"see `{program()} doctor`, or use --decoder cpu."
        ) from error


def _nvdec(gpu: int) -> av.codec.hwaccel.HWAccel:
    # No fallback to software: the cache key names the decoder, so the decoder must be the one that the user chose.
    return av.codec.hwaccel.HWAccel("cuda", device=str(gpu), allow_software_fallback=False)


@contextlib.contextmanager
def open_video(
    path: Path, gpu: int | None = None, threads: int = 0, short_side: int | None = None
) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    """Open a file and its video stream (`best_video`).

    `gpu`: decode with NVDEC on that GPU instead of the CPU. `threads`: how many cores the decoder on the CPU should
    keep busy (`decoder_threads`); 0: all. `short_side`: what pictures are shrunk to.

    Raises:
        VideoError: there is no such file, it is no media file, it has no video stream, or no decoder is here for it.
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
        if getattr(error, "errno", None) == errno.ENOMEM:  # the memory limit of the decoder's process
            raise MemoryError from error
        if gpu is not None:  # a missing GPU looks like a file without read permission
            require_nvdec(gpu)
        if isinstance(error, PermissionError):
            raise VideoError(f"{path}: there is no permission to read it; change its permissions.") from error
        if (kind := foreign(path)) is not None:
            raise VideoError(f"{path}: not a video that FFmpeg can open: {kind}.") from error
        raise VideoError(
            f"{path}: not a video that FFmpeg can open ({reason(error)}); "
            "if the download was incomplete, get it again, otherwise convert it to MP4."
        ) from error
    with container:
        stream = best_video(container)
        if stream is None:
            held = {"audio": "sound", "subtitle": "subtitles"}
            kinds = sorted({held.get(s.type, s.type) for s in container.streams if s.type != "video"}) or ["nothing"]
            raise VideoError(
                f"{path}: holds no video stream, only {' and '.join(kinds)}; use the file with the picture."
            )
        if (problem := picture(path, container.format.name, container.metadata.get("major_brand", ""))) is not None:
            raise VideoError(f"{path}: {problem}.")
        # Without a decoder PyAV has no codec context, and decoding would crash the interpreter (PyAV#2344).
        if stream.codec_context is None:
            raise VideoError(f"{path}: no decoder here for its video codec; convert it to H.264 MP4.")
        if gpu is None:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = decoder_threads(threads, stream)
            if short_side and min(stream.codec_context.width, stream.codec_context.height) >= SHRINKS * short_side:
                stream.codec_context.options = {"skip_loop_filter": "noref"}
        elif stream.codec_context.is_hwaccel:
            stream.codec_context.thread_count = 1  # each thread takes surfaces, and NVDEC has only 32 (PyAV#2411)
        else:
            codec = stream.codec_context.name
            raise VideoError(f"{path}: NVDEC does not decode its video codec ({codec}); use --decoder cpu for it.")
        yield container, stream


def decoder_threads(wanted: int, stream: av.video.VideoStream) -> int:
    """How many threads decode a stream, to keep `wanted` cores busy; 0: all.

    That is one thread for one core, and SPARE_THREADS more for several, limited by MOST_THREADS and THREAD_BYTES. Each
    thread holds two frames: the one that it works on, and a finished one that waits for its turn.
    """
    codec = stream.codec_context
    depth = codec.format.padded_bits_per_pixel if codec.format is not None else 0
    frame = max(codec.width * codec.height * (depth or 24) / 8, 1)
    busy = wanted or cores()
    return max(1, min(busy if busy == 1 else busy + SPARE_THREADS, MOST_THREADS, int(THREAD_BYTES / (2 * frame))))


def _open(path: Path, gpu: int | None) -> av.container.InputContainer:
    # With "file:", FFmpeg does not take a name with a colon for a protocol.
    name, formats = f"file:{path}", ",".join(sorted(av.formats_available - NOT_VIDEO))
    options = {"format_whitelist": formats}
    if gpu is not None:
        try:
            return av.open(name, metadata_errors="replace", options=options, hwaccel=_nvdec(gpu))
        except av.error.FFmpegError:
            raise
        except RuntimeError:  # NVDEC decodes none of its streams: open it without, to name the codec
            pass
    return av.open(name, metadata_errors="replace", options=options)


def reason(error: BaseException) -> str:
    """The cause of an error, in the words of the system or of FFmpeg."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def describe(
    path: Path, container: av.container.InputContainer, stream: av.video.VideoStream, size: tuple[int, int]
) -> VideoInfo:
    """The information about a video; `size`: upright (H, W), which only its first frame tells."""
    height, width = size
    duration = stated_duration(container, stream)
    rate = stream.guessed_rate or stream.average_rate
    timecode = stream.metadata.get("timecode") or container.metadata.get("timecode")
    return VideoInfo(path, duration, width, height, str(rate or "0"), timecode)


def stated_duration(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    """The duration of the file in seconds, by its header; 0 if the header does not say."""
    if container.duration:
        return container.duration / 1e6
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


@dataclass(frozen=True)
class Orientation:
    """How stored pictures are put upright: flipped top to bottom if `mirrored`, then turned."""

    turns: int = 0
    """counter-clockwise quarter turns"""
    mirrored: bool = False


def orientation(frame: av.VideoFrame) -> Orientation:
    """The orientation by a frame's display matrix.

    The orientation belongs to the stream, and the first frame decides for all. FFmpeg gives the matrix to every frame
    if the header has it, and to key frames alone if it comes in the stream (an SEI message of H.264 and HEVC).
    """
    turns = round(frame.rotation / 90) % 4
    try:
        # Not frame.side_data: frame and container would keep each other alive until Python's collector runs.
        matrix = cast(Any, SideDataContainer)(frame).get("DISPLAYMATRIX")
    except ValueError:  # the frame has another kind of side data that PyAV has no name for
        matrix = None
    if matrix is None:
        return Orientation(turns)
    # If the matrix mirrors, its angle is the one of the picture flipped top to bottom.
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
    return Orientation(turns, bool(a * d < b * c))


def upright_size(frame: av.VideoFrame, stream: av.video.VideoStream, shown: Orientation) -> tuple[int, int]:
    """(height, width) as a player shows the frame: square pixels, display rotation applied."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width = round(frame.width * aspect) if 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL else frame.width
    size = (frame.height, max(width, 1))
    return (size[1], size[0]) if shown.turns % 2 else size


def declared_duration(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    """The duration of the picture in seconds, by the header; 0 if it cannot be told from the sound's duration."""
    alone = len(container.streams) == 1
    ticks = stream.duration or 0
    if container.format.name == "avi":  # here FFmpeg found the duration itself, and the frame count is from the header
        ticks = max(ticks, stream.frames)
    if container.format.name != "asf" or alone:  # ASF gives every stream the longest duration
        if ticks and stream.time_base:
            return float(ticks * stream.time_base)
        if seconds := tagged_seconds(stream):
            return seconds
    return (container.duration or 0) / 1e6 if alone else 0.0


def best_video(container: av.container.InputContainer) -> av.video.VideoStream | None:
    """The video stream to show: one that moves, has a decoder, has the default flag, is the largest, or comes first.

    Earlier criteria count more. The flags count as in FFmpeg's av_find_best_stream: default, and not made for the
    impaired. That function compares bit rates next, but few headers have them, so here the picture size decides, as in
    the ffmpeg program. None: the file has no video stream, or only covers. A stream without a decoder is returned if
    there is no other.
    """

    def rank(stream: av.video.VideoStream) -> tuple[bool, bool, int, int]:
        codec = stream.codec_context
        flags = bool(stream.disposition & Disposition.default) + (not stream.disposition & IMPAIRED)
        return not _still(stream), codec is not None, flags, codec.width * codec.height if codec is not None else 0

    streams = [stream for stream in container.streams.video if not stream.disposition & COVER]
    return max(streams, key=rank, default=None)


def best_sound(container: av.container.InputContainer, picture: av.video.VideoStream) -> av.AudioStream | None:
    """The sound that belongs to a picture: FFmpeg's best one in its program, else the first with a decoder."""
    best = container.streams.best("audio", related=picture)
    if isinstance(best, av.AudioStream) and best.codec_context is not None:
        return best
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def plays_first(container: av.container.InputContainer, picture: av.video.VideoStream) -> bool:
    """Whether a player that ignores flags and takes the first streams shows this picture and its sound."""
    pictures = [stream for stream in container.streams.video if not stream.disposition & COVER]
    return picture is pictures[0] and best_sound(container, picture) in (*container.streams.audio[:1], None)


def tagged_seconds(stream: av.video.VideoStream) -> float:
    """Seconds by the tag that Matroska's muxers write for each stream; 0 if there is none."""
    clock = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))
    if clock is None:
        return 0.0
    hours, minutes, seconds = map(float, clock.groups())
    return hours * 3600 + minutes * 60 + seconds


def _still(stream: av.video.VideoStream) -> bool:
    """Whether a stream is a single picture, or only a part of another stream, as the file declares."""
    one = 1.5 / float(stream.average_rate) if stream.average_rate else 0.0
    return bool(stream.disposition & MINOR) or stream.frames == 1 or 0 < tagged_seconds(stream) < one

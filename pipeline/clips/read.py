"""Reads pictures and sound of a part of a video; times are the features': seconds from the container's start."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from extractors.decode.clock import decode, frame_step
from extractors.decode.container import UNSEEKABLE, best_sound, open_video
from extractors.decode.look import Look, picture
from extractors.decode.video import Damage, Image, VideoError, fit
from pipeline.clips.encode import HERTZ, MovieWriter, Samples

MARGINS = (0.0, 2.0, 10.0)  # seconds to seek back by, in turn: a seek in MPEG-TS may land too late
SHORT = 1e-6
THE_END = 1e7  # seconds, 115 days: later than any video's
AHEAD = 0.5  # seconds by which sound is written before its picture, which suits muxers


@dataclass(frozen=True)
class Shape:
    """What a movie of this video has in common with it. size: (H, W) upright; channels: 0 if it has no sound."""

    size: tuple[int, int]
    rate: Fraction
    channels: int


def shape_of(path: Path) -> Shape:
    """Read the headers and one frame.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(path) as (container, stream):
        look = Look(stream)
        if not _begin(look, container, stream):
            raise VideoError(f"{path}: no frame of it can be decoded; the file is damaged, get it again.")
        sound = best_sound(container, stream)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        channels = min(2, sound.codec_context.layout.nb_channels or 2) if sound else 0
        return Shape(look.size, Fraction(rate), channels)


def pictures(path: Path, start: float, end: float, short_side: int | None = None) -> Iterator[tuple[float, Image]]:
    """Yield (seconds, (H, W, 3) RGB) of the frames of [start, end), upright, from the one nearest to `start` on.

    If the nearest is more than half a frame away (a variable rate, a still), the frame that is shown at `start` comes
    first, with the time `start`. Larger pictures are shrunk to `short_side`.

    Raises:
        VideoError: the video cannot be read.
    """
    before: tuple[float, av.VideoFrame] | None = None
    begun = False
    look: Look | None = None
    size = (0, 0)
    for half, look, time, frame in _frames(path, start):
        if size == (0, 0):
            size = fit(look.size, short_side) if short_side and min(look.size) > short_side else look.size
        if time < start - half - SHORT:
            before = (time, frame)
            continue
        if not begun and (before is None or time <= start + half):
            begun = True  # even after `end`, so that a segment shorter than a frame shows one
            yield time, picture(frame, size, look)
            continue
        if not begun and before is not None:
            begun = True
            yield start, picture(before[1], size, look)
        if time >= end - half - SHORT:
            break
        yield time, picture(frame, size, look)
    if not begun and before is not None and look is not None:
        yield start, picture(before[1], size, look)


def _frames(path: Path, start: float) -> Iterator[tuple[float, Look, float, av.VideoFrame]]:
    """Yield (seconds of half a frame, the stream's look, seconds, frame) from a keyframe at or before `start` on."""
    for margin in MARGINS:
        if start - margin <= 0:
            break
        with open_video(path) as (container, stream):
            look = Look(stream)
            if container.format.name in UNSEEKABLE or not stream.time_base or not _begin(look, container, stream):
                break
            try:
                zero = (container.start_time or 0) / 1e6
                container.seek(int((start - margin + zero) / float(stream.time_base)), stream=stream)
            except (av.error.FFmpegError, OverflowError):  # a time that is in no video
                break
            source = decode(container, stream, Damage())
            # Frames before the first keyframe depend on frames that were not read.
            head = next(((t, f) for t, f in source if f.key_frame or t > start), None)
            if head is None or not head[1].key_frame or head[1].pts is None or head[0] > start:
                continue
            half = _half_a_frame(stream)
            yield half, look, *head
            for time, frame in source:
                yield half, look, time, frame
            return
    with open_video(path) as (container, stream):
        half, look = _half_a_frame(stream), Look(stream)
        for k, (time, frame) in enumerate(decode(container, stream, Damage())):
            if k == 0:
                look.settle(frame)
            yield half, look, time, frame


def _begin(look: Look, container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Decode the first frame, which decides how all frames are shown; returns False if there is none."""
    head = next(decode(container, stream, Damage()), None)
    if head is not None:
        look.settle(head[1])
    return head is not None


def _half_a_frame(stream: av.VideoStream) -> float:
    """Return half a frame in seconds, by the nominal rate: a mean says little where the rate varies."""
    return min(frame_step(stream), float(1 / (stream.guessed_rate or 1))) / 2


def sound(path: Path, start: float, end: float, channels: int) -> Iterator[tuple[int, Samples]]:
    """Yield the sound of [start, end) at 48 kHz as (number of the first sample from `start`, (channels, n) float32)."""
    if not channels:
        return
    with open_video(path) as (container, picture_stream):
        stream = best_sound(container, picture_stream)
        if stream is None or not stream.time_base:
            return
        zero = (container.start_time or 0) / 1e6
        if start > 1 and container.format.name not in UNSEEKABLE:
            # A second early, because the first packets after a seek depend on packets before them.
            with contextlib.suppress(
                av.error.FFmpegError, OverflowError
            ):  # without the seek it is read from its beginning
                container.seek(int((start - 1 + zero) / float(stream.time_base)), stream=stream)
        resampler = av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=HERTZ)
        last = 0
        for frame in _heard(container, stream):
            for piece in resampler.resample(frame):
                if piece.pts is None or piece.time_base is None:
                    continue
                first = round((piece.pts * float(piece.time_base) - zero - start) * HERTZ)
                # Samples that overlap the piece before, or lie outside, are cut off.
                left, right = max(0, last - first), round((end - start) * HERTZ) - first
                if right <= 0:
                    return
                samples = np.asarray(piece.to_ndarray(), np.float32)[:, left:right]
                if samples.shape[1]:
                    yield first + left, samples
                    last = first + left + samples.shape[1]


def _heard(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Yield frames of sound; packets that cannot be decoded are left out."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, IndexError):  # as in extractors.decode.clock.decode
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def shoot(
    movie: MovieWriter,
    path: Path,
    shape: Shape,
    start: float,
    end: float,
    at: float | None = None,
    short_side: int | None = None,
) -> Iterator[tuple[float, float, Image]]:
    """Write the sound of [start, end) to a movie, and yield the pictures in step with it; the caller writes those.

    at: the second of the movie where the first picture belongs; None: its second in the video.

    Yields:
        (seconds of the movie, seconds of the video, picture); the caller gives each picture to `movie.picture`.
    """
    heard: Iterator[tuple[int, Samples]] = iter(())
    waiting: tuple[int, Samples] | None = None
    begin: float | None = None
    offset = 0
    for time, image in pictures(path, start, end, short_side):
        if begin is None:
            # The sound begins with the first picture, which may be up to half a frame from `start`.
            begin = time
            at = begin if at is None else at
            offset = round(at * HERTZ)
            heard = sound(path, begin, max(end, begin), shape.channels)
            waiting = next(heard, None)
        while waiting is not None and waiting[0] / HERTZ <= time - begin + AHEAD:
            movie.sound(waiting[1], offset + waiting[0])
            waiting = next(heard, None)
        yield time - begin + (at or 0.0), time, image
    while waiting is not None:
        movie.sound(waiting[1], offset + waiting[0])
        waiting = next(heard, None)

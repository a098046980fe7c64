"""A stretch of a video, pictures and sound, by the same clock as the features: seconds from the container's start."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from extractors.frames import fit, picture
from extractors.video import UNSEEKABLE, Damage, Image, VideoError, decode, frame_step, open_video, upright_size
from pipeline.film import HERTZ, Film, Samples

MARGINS = (0.0, 2.0, 10.0)  # seconds; MPEG-TS lands late after a jump, so further back is tried
SHORT = 1e-6
THE_END = 1e7  # seconds, 115 days: later than any video's
AHEAD = 0.5  # seconds that sound is written before its picture, as muxers like it


@dataclass(frozen=True)
class Shape:
    """What a film of this video needs to know. size: (H, W) upright; channels: 0 without sound."""

    size: tuple[int, int]
    rate: Fraction
    channels: int


def shape_of(path: Path) -> Shape:
    """Read the headers and one frame.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(path) as (container, stream):
        head = next(decode(container, stream, Damage()), None)
        if head is None:
            raise VideoError(f"{path}: no frame of it can be decoded; the file is damaged, get it again.")
        sound = _sound_stream(container)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        channels = min(2, sound.codec_context.layout.nb_channels or 2) if sound else 0
        return Shape(upright_size(head[1], stream), Fraction(rate), channels)


def pictures(path: Path, start: float, end: float, short_side: int | None = None) -> Iterator[tuple[float, Image]]:
    """(seconds, (H, W, 3) RGB) of the frames of [start, end), upright; the first is the one nearest to `start`.

    Where the nearest is more than half a frame away (a variable rate, a still), the frame that is shown at `start`
    comes first, with the time `start`. `short_side`: shrink to it.

    Raises:
        VideoError: the video cannot be read.
    """
    before: tuple[float, av.VideoFrame] | None = None
    begun = False
    size: tuple[int, int] | None = None
    for half, upright, time, frame in _frames(path, start):
        if size is None:
            size = fit(upright, short_side) if short_side and min(upright) > short_side else upright
        if time < start - half - SHORT:
            before = (time, frame)
            continue
        if not begun and (before is None or time <= start + half):
            begun = True  # whatever the end: a segment shorter than a frame still shows one
            yield time, picture(frame, size)
            continue
        if not begun and before is not None:
            begun = True
            yield start, picture(before[1], size)
        if time >= end - half - SHORT:
            break
        yield time, picture(frame, size)
    if not begun and before is not None and size is not None:
        yield start, picture(before[1], size)


def _frames(path: Path, start: float) -> Iterator[tuple[float, tuple[int, int], float, av.VideoFrame]]:
    """(half a frame's seconds, upright size, seconds, frame) from a keyframe at or before `start` on."""
    for margin in MARGINS:
        if start - margin <= 0:
            break
        with open_video(path) as (container, stream):
            if container.format.name in UNSEEKABLE or not stream.time_base:
                break
            try:
                zero = (container.start_time or 0) / 1e6
                container.seek(int((start - margin + zero) / float(stream.time_base)), stream=stream)
            except (av.error.FFmpegError, OverflowError):  # a time that no video has
                break
            source = decode(container, stream, Damage())
            # Frames before the first keyframe lean on frames that were never read.
            head = next(((t, f) for t, f in source if f.key_frame or t > start), None)
            if head is None or not head[1].key_frame or head[1].pts is None or head[0] > start:
                continue
            size, half = upright_size(head[1], stream), _half_a_frame(stream)
            yield half, size, *head
            for time, frame in source:
                yield half, size, time, frame
            return
    with open_video(path) as (container, stream):
        half = _half_a_frame(stream)
        for time, frame in decode(container, stream, Damage()):
            yield half, upright_size(frame, stream), time, frame


def _half_a_frame(stream: av.VideoStream) -> float:
    """Seconds; by the nominal rate, because where the rate varies the mean says little of any one frame."""
    return min(frame_step(stream), float(1 / (stream.guessed_rate or 1))) / 2


def sound(path: Path, start: float, end: float, channels: int) -> Iterator[tuple[int, Samples]]:
    """(number, (channels, n) float32) of the sound of [start, end) at 48 kHz, counted from `start`, in order."""
    if not channels:
        return
    with open_video(path) as (container, _):
        stream = _sound_stream(container)
        if stream is None or not stream.time_base:
            return
        zero = (container.start_time or 0) / 1e6
        if start > 1 and container.format.name not in UNSEEKABLE:
            # A second early: the first packets after a jump lack their predecessors.
            with contextlib.suppress(av.error.FFmpegError, OverflowError):  # then it is read from its beginning
                container.seek(int((start - 1 + zero) / float(stream.time_base)), stream=stream)
        resampler = av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=HERTZ)
        last = 0
        for frame in _heard(container, stream):
            for piece in resampler.resample(frame):
                if piece.pts is None or piece.time_base is None:
                    continue
                first = round((piece.pts * float(piece.time_base) - zero - start) * HERTZ)
                # What overlaps the piece before, or lies outside, is cut off.
                left, right = max(0, last - first), round((end - start) * HERTZ) - first
                if right <= 0:
                    return
                samples = np.asarray(piece.to_ndarray(), np.float32)[:, left:right]
                if samples.shape[1]:
                    yield first + left, samples
                    last = first + left + samples.shape[1]


def _heard(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Frames of sound; what cannot be decoded is silent."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, IndexError):  # as in extractors.video.decode
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def shoot(
    film: Film,
    path: Path,
    shape: Shape,
    start: float,
    end: float,
    at: float | None = None,
    short_side: int | None = None,
) -> Iterator[tuple[float, float, Image]]:
    """Hand the pictures of [start, end) out, to be drawn on and given to the film, and give it their sound, in step.

    at: seconds of the film where the first picture belongs; None: where it is in the video.

    Yields:
        (seconds of the film, seconds of the video, picture); the caller gives each to `film.picture`.
    """
    heard: Iterator[tuple[int, Samples]] = iter(())
    waiting: tuple[int, Samples] | None = None
    begin: float | None = None
    offset = 0
    for time, image in pictures(path, start, end, short_side):
        if begin is None:
            # The sound begins with the first picture, which may lie half a frame beside `start`.
            begin = time
            at = begin if at is None else at
            offset = round(at * HERTZ)
            heard = sound(path, begin, max(end, begin), shape.channels)
            waiting = next(heard, None)
        while waiting is not None and waiting[0] / HERTZ <= time - begin + AHEAD:
            film.sound(waiting[1], offset + waiting[0])
            waiting = next(heard, None)
        yield time - begin + (at or 0.0), time, image
    while waiting is not None:
        film.sound(waiting[1], offset + waiting[0])
        waiting = next(heard, None)

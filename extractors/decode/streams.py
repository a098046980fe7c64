"""Which stream of a file to use: the one that players and FFmpeg choose."""

from __future__ import annotations

import re

import av
import av.container
import av.video
from av.stream import Disposition

# For FFmpeg an attached cover picture is a video stream; for a viewer it is not.
COVER = Disposition.attached_pic
# Single pictures, and layers that are useful only together with another stream.
MINOR = Disposition.still_image | Disposition.timed_thumbnails | Disposition.dependent | Disposition.metadata
IMPAIRED = Disposition.hearing_impaired | Disposition.visual_impaired
_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


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

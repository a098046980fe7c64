"""Copies of whole videos: with the result drawn in (overlay), or small and for any browser (proxy)."""

from itertools import islice
from pathlib import Path

import av
import av.error

from extractors.decode.clock import decode
from extractors.decode.container import open_video, orientation, plays_first
from extractors.decode.video import Damage
from pipeline.clips.draw import Overlay
from pipeline.clips.encode import open_movie
from pipeline.clips.read import THE_END, shape_of, shoot
from postprocess.segment import Result
from support.progress import Progress, silent

# What current browsers play: codecs by container, and pixel formats.
PICTURES = {"mp4": ("h264", "av1", "vp9"), "webm": ("vp8", "vp9", "av1")}
SOUNDS = {"mp4": ("aac", "mp3", "opus", "flac"), "webm": ("vorbis", "opus")}
PIXELS = ("yuv420p", "yuvj420p")
PROXY_SIDE = 720  # pixels; the longest short side of a proxy


def overlay(result: Result, video: Path, out: Path, on_progress: Progress = silent) -> None:
    """Write the video with running labels and confidence bars drawn in, and with its sound.

    Raises:
        VideoError: the video cannot be read.
        OutputError: the file cannot be written.
    """
    shape = shape_of(video)
    drawn = Overlay(result.segments, result.duration)
    with open_movie(out, shape.size, shape.rate) as movie:
        if shape.channels:
            movie.add_sound(shape.channels)
        for at, time, image in shoot(movie, video, shape, 0.0, THE_END):
            movie.picture(drawn.draw(image, time), at)
            on_progress("render", int(time), max(int(time), round(result.duration)))


def playable(video: Path) -> bool:
    """Return whether browsers play the file as it is, by its container, its codecs and its pixel format.

    Raises:
        VideoError: the file cannot be opened.
    """
    with open_video(video) as (container, stream):
        name = container.format.name
        kind = "mp4" if "mp4" in name else "webm" if "webm" in name and video.suffix.lower() == ".webm" else None
        if kind is None or stream.codec_context.pix_fmt not in PIXELS:
            return False
        # Browsers play the first track of pictures and the first of sound, and ignore others.
        if not plays_first(container, stream):
            return False
        # Browsers turn the pictures as the header says, and ignore what key frames say.
        if len({orientation(frame) for _, frame in islice(decode(container, stream, Damage()), 2)}) > 1:
            return False
        heard = [s.codec_context.name for s in container.streams.audio if s.codec_context is not None]
        return stream.codec_context.name in PICTURES[kind] and all(n in SOUNDS[kind] for n in heard[:1])


def proxy(video: Path, out: Path, content: str = "", on_progress: Progress = silent) -> bool:
    """Write a small H.264 copy of the whole video with the same times; returns False if there is one already.

    content: the hash of the video's bytes; it is written into the file, where the next call finds it.

    Raises:
        VideoError: the video cannot be read.
        OutputError: the file cannot be written.
    """
    if content and _comment(out) == content:
        return False
    shape = shape_of(video)
    side = min(PROXY_SIDE, *shape.size)
    scale = side / min(shape.size)
    with open_video(video) as (container, _):
        total = round((container.duration or 0) / 1e6)
    size = (round(shape.size[0] * scale), round(shape.size[1] * scale))
    with open_movie(out, size, shape.rate, quality=26, comment=content) as movie:
        if shape.channels:
            movie.add_sound(shape.channels)
        for at, time, image in shoot(movie, video, shape, 0.0, THE_END, short_side=side):
            movie.picture(image, at)
            on_progress("proxy", int(time), max(int(time), total))
    return True


def _comment(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        with av.open(f"file:{path}") as container:
            return container.metadata.get("comment")
    except (av.error.FFmpegError, OSError, ValueError):
        return None

"""What a video is like beside its picture: its sound, and how many frames a second it really has."""

import itertools
from fractions import Fraction
from pathlib import Path

from extractors.decode.container import best_sound, open_video

# The rates that editors know. A browser's recording has about one of them, and no header that says so.
USUAL = tuple(Fraction(n, d) for n, d in (
    (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1), (100, 1), (120, 1),
))  # fmt: skip
ENOUGH = 3000  # packets


def heard(video: Path) -> tuple[int, int] | None:
    """(channels, samples a second) of the sound that belongs to the picture; None if there is no sound.

    Raises:
        VideoError: the video cannot be opened.
    """
    with open_video(video) as (container, stream):
        sound = best_sound(container, stream)
        if sound is None:
            return None
        codec = sound.codec_context
        return codec.layout.nb_channels or 2, codec.sample_rate or 48_000


def counted(video: Path) -> Fraction:
    """The usual frame rate that is nearest to how many frames a second the video has, by the times of its packets.

    Raises:
        VideoError: the video cannot be opened, or says no times.
    """
    with open_video(video) as (container, stream):
        packets = itertools.islice(container.demux(stream), ENOUGH)
        times = sorted({packet.pts for packet in packets if packet.pts is not None})
        base = stream.time_base
    if len(times) < 2 or not base:
        return Fraction(25)
    rate = (len(times) - 1) / ((times[-1] - times[0]) * base)
    return min(USUAL, key=lambda usual: abs(usual / rate - 1))

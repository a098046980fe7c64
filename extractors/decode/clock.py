"""Decoded frames and their times: the only module that interprets the time stamps of a container.

0 s is the container's start time, as players show it. grid.py puts the frames on a steady grid.
"""

from __future__ import annotations

import errno
import heapq
import math
from collections.abc import Callable, Iterator

import av
import av.container
import av.error
import av.video

from extractors.decode.container import reason
from extractors.decode.unseen import Unseen
from extractors.decode.video import Damage, ReadError

# Seconds. A longer gap between two frames comes from a broken clock (a wrapped counter, a spliced recording), not from
# a still picture. The frames behind it are moved up, or a bad file could cause days of copies of one frame.
LONGEST_STILL = 600.0
# After this many decoder errors before the first frame, a stream is given up as noise.
MAX_DAMAGE = 500

# Codes of the system for a file that it cannot read, as opposed to FFmpeg's codes for bad content. A demuxer that
# continues after such an error, or takes it for the end of the file, reports it at the end.
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
    """Tell a failing disk or network from a damaged file.

    Raises:
        ReadError: the disk or the network fails.
    """
    if error.errno in UNREADABLE:
        path = container.name.removeprefix("file:")
        raise ReadError(
            f"{path}: cannot be read to its end ({reason(error)}); check the disk or the network, then run again."
        ) from error


def frame_step(stream: av.video.VideoStream) -> float:
    """Nominal seconds from one frame to the next.

    Raw streams (.h264, .hevc) have no time stamps. Their average rate is FFmpeg's own guess of 25, while the "guessed"
    rate is the one that the stream declares.
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
    """Frames in display order with their time (s) from the container's start. Errors are counted in `damage`.

    Times always rise. A frame without PTS, or with one that does not rise (H.264 in AVI has decoding order), follows
    the frame before by a nominal step. `tick` is called with each packet, as a sign of life.

    Raises (while it is iterated):
        ReadError: the disk or the network fails. FFmpeg may have skipped data, so nothing of this reading counts.
    """
    for time, frame in decode_seen(container, stream, damage, tick):
        assert frame is not None
        yield time, frame


def decode_seen(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    damage: Damage,
    tick: Callable[[], None] = lambda: None,
    unseen: Unseen | None = None,
    packets: Iterator[av.Packet] | None = None,
) -> Iterator[tuple[float, av.VideoFrame | None]]:
    """As `decode`; of a frame that `unseen` leaves out, which is not decoded, the time and None.

    `packets`: those to decode; default: all from where the container is.
    """
    base = float(stream.time_base or 0) or 1 / 25
    zero = (container.start_time or 0) / 1e6
    step = frame_step(stream)
    last: float | None = None
    shift = 0.0
    packets = container.demux(stream) if packets is None else packets
    marked = ((packet, False) for packet in packets) if unseen is None else unseen.marked(packets)
    left_out: list[float] = []  # times of frames that are not decoded; a heap
    spliced = _Splices(container, base, step)
    shown: av.VideoFrame | None = None
    stays = -math.inf  # until when the last picture is shown, by packets without a picture
    while True:
        try:
            packet, without = next(marked, (None, False))
        except av.error.FFmpegError as error:
            packet = None  # the demuxer cannot go on, so the video ends here
            raise_if_unreadable(container, error)
            damage.errors += 1
        except IndexError:
            packet = None  # a bug of PyAV with a stream that appears midway; our stream is complete by then
        damage.errors += spliced.errors(packet)
        if packet is None:
            if shown is not None and last is not None and stays - shift > last:
                yield stays - shift, shown
            return
        tick()
        if without and unseen is not None and not (damage.errors or damage.jumps or damage.made_up):
            heapq.heappush(left_out, unseen.time(packet))
            continue
        if not packet.size and packet.pts is not None:  # Theora: the previous picture stays (specification, chapter 7)
            stays = packet.pts * base - zero
            continue
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            if error.errno == errno.ENOMEM:  # the memory limit of the decoder's process, not damage
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
            while left_out and time is not None and left_out[0] < time:
                last = heapq.heappop(left_out)
                yield last, None
            last = time = 0.0 if time is None else time
            shown = frame
            yield time, frame


class _Splices:
    """Tells places where whole MPEG-TS files were joined (`cat`) from places where a part of a file is lost.

    At both the packets' counter breaks, and FFmpeg marks one of the last two pictures before the break as corrupt.
    Where files were joined, that picture is intact, a key frame follows, and the clock starts again. If the picture had
    lost data, its decoder would report that itself.
    """

    def __init__(self, container: av.container.InputContainer, base: float, step: float) -> None:
        """`base`: seconds of a tick of the clock. `step`: seconds from one frame to the next."""
        self._possible = container.format.name == "mpegts"
        self._longest, self._step = LONGEST_STILL / base, 1.5 * step / base
        self._marked = False
        self._waited = False
        """whether another packet followed the marked one"""
        self._last = 0

    def errors(self, packet: av.Packet | None) -> int:
        """The number of damaged places that this packet reveals (None: there are no more packets)."""
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

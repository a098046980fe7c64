"""Packets that need not be decoded, since no grid point shows their frames and no other frame refers to them.

A grid of 25 fps shows 25 of the 60 frames of a second. Each of the others may be needed to decode those, unless the
codec says that it is not: H.264 by nal_ref_idc 0 (ITU-T H.264, 7.4.1), HEVC by the type of a sub-layer non-reference
picture in the highest sub-layer (ITU-T H.265, 7.4.2.2). A decoder gives the same other frames without such packets.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Iterator

import av
import av.error
import av.video

from extractors.decode.video import TIME_EPS

MOST_HELD = 32  # packets that are read ahead; codecs put at most 16 frames into another order
RECENT = 4 * MOST_HELD  # time stamps that are remembered
ROUNDING = TIME_EPS / 10  # seconds; what sums of floats may be off by

H264_SLICE, H264_BESIDE = 1, frozenset({6, 9, 12})  # beside slices: SEI, delimiter, filler
HEVC_SLICES, HEVC_BESIDE = frozenset({0, 2, 4, 6, 8}), frozenset({35, 38, 39, 40})  # delimiter, filler, both SEI


class Unseen:
    """Finds the packets of a stream that need not be decoded. It finds none where the time stamps are odd."""

    def __init__(self, stream: av.video.VideoStream, zero: float, fps: float, origin: float | None) -> None:
        """`zero`: the container's start time in seconds; `fps`: of the grid."""
        self.origin = origin
        """seconds from `zero` to grid point 0; None, as long as that is not known: every packet is decoded"""
        self._base, self._zero, self._fps = float(stream.time_base or 0), zero, fps
        self._disposable = disposable(stream)
        self._on = self._disposable is not None and self._base > 0

    def marked(self, packets: Iterator[av.Packet]) -> Iterator[tuple[av.Packet, bool]]:
        """All packets in their order, and whether each may be left out. Errors of `packets` come at their place."""
        held: deque[tuple[av.Packet, bool]] = deque()  # and whether no other frame refers to it: looked up once
        stamps: list[int] = []
        newest = -math.inf  # decoding time stamp: no later packet is shown before it
        error: BaseException | None = None
        ended = False
        while True:
            while not ended and not (held and self._decided(held, stamps, newest)):
                try:
                    packet = next(packets, None)
                except (av.error.FFmpegError, IndexError) as problem:
                    packet, error = None, problem
                if packet is None:
                    ended = True
                else:
                    held.append((packet, self._on and self._candidate(packet)))
                    newest = self._note(packet, stamps, newest)
            if not held:
                if error is not None:
                    raise error
                return
            packet, candidate = held.popleft()
            yield packet, self._on and candidate and self._between(packet, stamps, newest)

    def _note(self, packet: av.Packet, stamps: list[int], newest: float) -> float:
        """Remember a packet's time stamps; returns the newest for decoding."""
        if not self._on or packet.is_discard or not packet.size:
            return newest
        pts, dts = packet.pts, packet.dts
        place = 0 if pts is None else bisect.bisect_left(stamps, pts)
        if pts is None or (dts is not None and not newest < dts <= pts) or pts in stamps[place : place + 1]:
            self._on = False
            return newest
        stamps.insert(place, pts)
        del stamps[:-RECENT]
        return newest if dts is None else dts  # Matroska's first packets have none

    def _candidate(self, packet: av.Packet) -> bool:
        assert self._disposable is not None
        return bool(packet.size) and not packet.is_discard and self._disposable(memoryview(packet))

    def _decided(self, held: deque[tuple[av.Packet, bool]], stamps: list[int], newest: float) -> bool:
        """Whether nothing that is read later changes what `_between` says of the first packet."""
        packet, candidate = held[0]
        if not (self._on and candidate) or self.origin is None or len(held) >= MOST_HELD:
            return True
        place = bisect.bisect_right(stamps, packet.pts or 0)
        return place < len(stamps) and stamps[place] <= newest

    def _between(self, packet: av.Packet, stamps: list[int], newest: float) -> bool:
        """Whether no grid point is nearer to the packet's frame than to the frames beside it."""
        place = bisect.bisect_left(stamps, packet.pts or 0)
        if self.origin is None or not 0 < place < len(stamps) - 1 or stamps[place + 1] > newest:
            return False
        before, own, after = stamps[place - 1 : place + 2]
        # As in grid.py, whose grid points beyond `first`, up to and with `last`, show the frame.
        first, last = (
            (one + two) / 2 * self._base - self._zero - self.origin + TIME_EPS
            for one, two in ((before, own), (own, after))
        )
        return math.floor((last + ROUNDING) * self._fps) <= (first - ROUNDING) * self._fps

    def time(self, packet: av.Packet) -> float:
        """Seconds from the container's start, of the frame of a packet that may be left out."""
        return (packet.pts or 0) * self._base - self._zero


def disposable(stream: av.video.VideoStream) -> Callable[[memoryview], bool] | None:
    """A function that tells from a packet's bytes whether no other frame refers to its own; None: nothing tells.

    Only files that give the length of each unit (MP4, MOV, Matroska) have such a function.
    """
    codec = stream.codec_context
    header = bytes(codec.extradata or b"")
    if codec.name == "h264" and len(header) > 6 and header[0] == 1:
        width = (header[4] & 3) + 1
        return lambda data: _h264(data, width)
    layers = header[21] >> 3 & 7 if len(header) > 22 else 0  # of HEVCDecoderConfigurationRecord (ISO/IEC 14496-15)
    if codec.name == "hevc" and header[0] == 1 and layers:
        width = (header[21] & 3) + 1
        return lambda data: _hevc(data, width, layers)
    return None


def units(data: memoryview, width: int) -> Iterator[memoryview]:
    """The units of a packet, each behind its length in `width` bytes. A broken one is empty."""
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + width], "big")
        place += width + size
        yield data[place - size : place] if place <= len(data) else data[:0]


def _h264(data: memoryview, width: int) -> bool:
    slices = False
    for unit in units(data, width):
        kind = unit[0] & 31 if unit else -1
        if kind == H264_SLICE and not unit[0] & 0x60:
            slices = True
        elif kind not in H264_BESIDE:
            return False
    return slices


def _hevc(data: memoryview, width: int, layers: int) -> bool:
    slices = False
    for unit in units(data, width):
        kind = unit[0] >> 1 & 63 if len(unit) > 1 else -1
        # Behind the type: 6 bits for another layer (0: this one), and 3 for the sub-layer, counted from 1.
        if kind in HEVC_SLICES and not unit[0] & 1 and unit[1] == layers:
            slices = True
        elif kind not in HEVC_BESIDE:
            return False
    return slices

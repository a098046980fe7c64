"""Where a video can be divided, so that several decoders read it at once (several.py): at keyframes.

The container's index tells where they are. A span is read from one such keyframe to the next. A decoder that begins at
a keyframe gives the frames that one from the start of the file gives, if no frame behind it refers to one before it.
The decoder that reads the span before meets the same packet, and both ask the packet itself (`clean`), so they agree on
where one span ends and the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.error
import av.video

from extractors.decode.container import open_video, stated_duration
from extractors.decode.unseen import units
from extractors.decode.video import fit, ring_slots

INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""formats with an index of keyframes that FFmpeg reads before the frames"""
LONGEST = 0.5
"""share of a video that its longest span may have; otherwise most decoders would have nothing to do"""
LATE = (0.0, 0.05, 0.2)  # seconds; frames may be shown so much later than the first frame tells
PROBES = 3  # keyframes that are looked at before a video is divided
H264_IDR = 5  # ITU-T H.264, table 7-1
HEVC_RANDOM_ACCESS = range(16, 22)  # BLA, IDR and CRA: ITU-T H.265, table 7-1


@dataclass(frozen=True)
class Plan:
    """Where the spans of a video begin."""

    keys: Sequence[int] = ()
    """stamps (`stamp`) of the keyframes at which it may be divided, in order; empty: one decoder must read it"""
    ahead: int = 0
    """what is added to a stamp for the time stamp at which the frame is shown, as far as the first frame tells"""
    longest: float = 0.0
    """seconds of the longest span"""
    why: str = ""
    """why one decoder must read it"""


def stamp(packet: av.Packet, form: str) -> int | None:
    """What a format's index calls a packet: its decoding time in MP4, when its frame is shown in Matroska."""
    return packet.pts if form.startswith("matroska") else packet.dts


def clean(packet: av.Packet, check: Callable[[memoryview], bool] | None) -> bool:
    """Whether a decoder may begin at this packet, and gives the same frames; `check`: see `checker`."""
    return bool(
        check is not None
        and packet.is_keyframe
        and packet.size
        and packet.pts is not None
        and not packet.is_discard
        and not packet.is_corrupt
        and check(memoryview(packet))
    )


def checker(stream: av.video.VideoStream) -> Callable[[memoryview], bool] | None:
    """A function that tells from a keyframe's bytes whether no later frame refers to a frame before it; None: unknown.

    An H.264 file may call a frame a keyframe behind which frames still refer to older ones (open GOPs, intra refresh).
    Only IDR pictures end that. In HEVC, frames that are shown behind a CRA picture never refer to what is before it.
    """
    codec = stream.codec_context
    header = bytes(codec.extradata or b"")
    if codec.name == "h264" and len(header) > 6 and header[0] == 1:
        width = (header[4] & 3) + 1
        return lambda data: any(len(unit) > 0 and unit[0] & 31 == H264_IDR for unit in units(data, width))
    if codec.name == "hevc" and len(header) > 22 and header[0] == 1:
        width = (header[21] & 3) + 1
        return lambda data: any(len(u) > 1 and u[0] >> 1 & 63 in HEVC_RANDOM_ACCESS for u in units(data, width))
    if codec.name in ("vp9", "libdav1d", "av1"):  # a keyframe forgets all frames before it
        return lambda data: True
    return None


def plan(path: Path, short_side: int, fps: float, least: tuple[int, int]) -> Plan:
    """Where a video can be divided into spans that are as long as a ring, or longer if its keyframes are rarer.

    `least`: (pixels of a picture, grid points of a span; 0: as many as a ring holds).

    Raises:
        VideoError: it cannot be opened.
    """
    with open_video(path, threads=1) as (container, stream):
        form, check = container.format.name, checker(stream)
        if form not in INDEXED or getattr(stream, "index_entries", None) is None:
            return Plan(why="its format has no index of keyframes")
        codec = stream.codec_context
        if codec.width * codec.height < least[0]:
            return Plan(why="its pictures are small")
        if check is None:
            return Plan(why="its codec does not tell where a decoder may begin")
        try:
            points = least[1] or ring_slots(fit((codec.height, codec.width), short_side))
            return _plan(container, stream, check, points / fps)
        except (av.error.FFmpegError, IndexError, OverflowError, ValueError):
            return Plan(why="its index cannot be read")


def _plan(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    check: Callable[[memoryview], bool],
    target: float,
) -> Plan:
    """The plan with spans of at least `target` seconds."""
    form, base = container.format.name, float(stream.time_base or 0)
    first = next((p for p in container.demux(stream) if p.size and p.is_keyframe), None)
    duration = stated_duration(container, stream)
    if first is None or first.pts is None or stamp(first, form) is None or not base or not duration:
        return Plan(why="its length or the times of its frames are not known")
    ahead = first.pts - (stamp(first, form) or 0)
    if form.startswith("matroska"):  # its index is read with the first jump
        container.seek(first.pts, stream=stream)
    begin = first.pts - ahead  # its stamp
    keys, at, longest = [], begin, 0.0
    every = [e.timestamp for e in stream.index_entries if e.is_keyframe and not e.is_discard and e.timestamp > begin]
    end = begin + duration / base
    for key in every:
        if (key - at) * base >= target and (end - key) * base >= target / 2:
            longest, at = max(longest, (key - at) * base), key
            keys.append(key)
    longest = max(longest, (end - at) * base)
    if not keys or longest > LONGEST * duration + target:
        return Plan(why="it has too few keyframes")
    for key in keys[:PROBES]:
        packet, _ = land(container, stream, key, ahead)
        if packet is None or not clean(packet, check):
            return Plan(why="decoders cannot begin at its keyframes")
    return Plan(tuple(keys), ahead, longest)


def land(
    container: av.container.InputContainer, stream: av.video.VideoStream, key: int, ahead: int
) -> tuple[av.Packet | None, Iterator[av.Packet]]:
    """Jump to the keyframe with the stamp `key`, and read its packet; None: the jump leads elsewhere.

    `ahead`: as in Plan. Returns the packet, and those behind it.
    """
    packets: Iterator[av.Packet] = iter(())
    # FFmpeg looks for the last keyframe that is shown at the goal or before, and only the packet tells when that is.
    for late in LATE:
        container.seek(key + ahead + round(late / (stream.time_base or 1)), stream=stream)
        packets = container.demux(stream)
        packet = next(packets, None)
        if packet is not None and packet.is_keyframe and stamp(packet, container.format.name) == key:
            return packet, packets
    return None, packets


class Border:
    """Looks among packets for the end of a span."""

    def __init__(self, keys: Sequence[int]) -> None:
        """`keys`: stamps of the keyframes at which the span may end. They may be changed later."""
        self.keys = keys
        self._met: tuple[int, int] | None = None

    @property
    def pts(self) -> int | None:
        """When the keyframe is shown with which the next span begins, once it was met."""
        return self._met[1] if self._met is not None and self._met[0] in self.keys else None

    def watch(self, packets: Iterator[av.Packet], stream: av.video.VideoStream, form: str) -> Iterator[av.Packet]:
        """The same packets."""
        check = checker(stream)
        for packet in packets:
            if packet.is_keyframe and self.pts is None:
                name = stamp(packet, form)
                if name is not None and name in self.keys and clean(packet, check):
                    self._met = name, packet.pts or 0
            yield packet

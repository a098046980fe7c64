"""Copies a part of a video without decoding it: from a keyframe on, into a file of the same container.

A container's decoding times (dts) cannot be trusted: after a seek in Matroska or MPEG-TS the first ones are missing or
wrong. So they are not used. The file is read twice: once for the display times (pts) of the packets that are needed,
from which decoding times follow, and once to copy the packets.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import av.container
import av.error
import av.packet
import av.stream
import av.video

from extractors.decode.clock import frame_step
from extractors.decode.container import UNSEEKABLE, best_sound, open_video
from extractors.decode.video import VideoError
from pipeline.run.videos import VIDEO_SUFFIXES
from postprocess.formats.writers import clock

MARGINS = (1.0, 10.0)  # seconds to seek back by, in turn: a seek in MPEG-TS may land too late
SHORT = 1e-6
REORDERED = 32  # the most packets that one may come late; H.264 and HEVC allow 16 frames, of two fields each
LATE_SOUND = 10.0  # seconds of picture after the end among which sound of the clip may still come
# Muxers by demuxer, because a suffix may be wrong. Where a demuxer has several muxers, the suffix decides.
MUXERS = {
    "mov,mp4,m4a,3gp,3g2,mj2": {"": "mp4", ".mov": "mov", ".qt": "mov", ".3gp": "3gp", ".3g2": "3g2"},
    "matroska,webm": {"": "matroska", ".webm": "webm"},
    "mpegts": {"": "mpegts"},
    "avi": {"": "avi"},
    "flv": {"": "flv"},
    "asf": {"": "asf"},
    "ogg": {"": "ogg"},
    "mxf": {"": "mxf"},
    "mpeg": {"": "vob"},
}
# For H.264 with B-frames these give a packet's place as its pts, and FFmpeg shows each frame later by the number of
# frames that the codec reorders.
PLACES = frozenset({"avi", "mxf"})

Input = av.container.InputContainer


class Uncopyable(Exception):
    """The packets of a video cannot be copied; the message is the cause, worded for parentheses."""


@dataclass(frozen=True)
class _Selection:
    """The packets of pictures that make up a copy."""

    begins: float
    """second of the video that the first packet shows"""
    seek_to: float | None
    """second of the video to seek to before reading; None: read from the beginning"""
    sound: float
    """second of the container's clock that becomes 0 in the copy; sound begins there"""
    times: list[tuple[int, tuple[int, int] | None]]
    """pts of each packet from the keyframe on, and its pts and dts in the copy; None: the packet depends on packets
    before the keyframe, and is left out"""


def remux(path: Path, start: float, end: float, to: Path) -> float:
    """Copy the pictures from the keyframe at or before `start` until `end` (s), and the first track of sound.

    Returns:
        The second of the video that the copy begins with.

    Raises:
        VideoError: the video cannot be read, or has no keyframe before `end`.
        Uncopyable: its container cannot be written, or cannot hold its packets.
    """
    try:
        selection = _find(path, start, end)
        if selection is None:
            raise VideoError(f"{path}: no keyframe of it before {clock(end)}; leave --copy out.")
        _copy(path, selection, end, to)
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise Uncopyable(getattr(error, "strerror", None) or str(error)) from error
    return selection.begins


def _find(path: Path, start: float, end: float) -> _Selection | None:
    for margin in (*MARGINS, None):
        seek_to = None if margin is None else start - margin
        if seek_to is not None and seek_to <= 0:
            continue
        with open_video(path) as (container, stream):
            _muxer(path, container)
            if seek_to is not None and not _seek(container, stream, seek_to):
                continue
            listed = _listed(container, stream, start, end, whole=seek_to is None)
            name, zero = container.format.name, _zero(container)
            base, step, late = float(stream.time_base or 0), frame_step(stream), 0.0
            if name in PLACES and all(a < b for (a, _), (b, _) in pairwise(listed)):
                late = stream.codec_context.reorder_depth * step
        if late:
            with open_video(path) as (container, stream):
                if seek_to is not None:
                    _seek(container, stream, seek_to)
                listed = _listed(container, stream, start - late, end, whole=seek_to is None)
        if not listed:
            continue
        begins = listed[0][0] * base - zero + late
        # A container may hold sound before the pictures that it belongs to.
        seek_to = None if seek_to is None or begins <= MARGINS[0] else min(seek_to, begins - MARGINS[0])
        if name == "avi":
            times, first = _places(listed)
        else:
            times, first = _decoding_times([pts for pts, _ in listed], max(1, round(step / base))), listed[0][0]
        return _Selection(begins, seek_to, first * base, times)
    return None


def _muxer(path: Path, container: Input) -> str:
    by_suffix = MUXERS.get(container.format.name)
    if by_suffix is None:
        raise Uncopyable(f"no clips of the format {container.format.long_name} are written")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise Uncopyable(f"no player knows a clip by the suffix {path.suffix or 'that it lacks'}")
    return by_suffix.get(path.suffix.lower(), by_suffix[""])


def _zero(container: Input) -> float:
    """The second of the container's clock that players, and this program, call 0."""
    return (container.start_time or 0) / 1e6


def _seek(container: Input, stream: av.video.VideoStream, to: float) -> bool:
    """Seek to about `to` seconds of the video or a little before; returns whether that works in this container."""
    if container.format.name in UNSEEKABLE or not stream.time_base:
        return False
    try:
        container.seek(round((to + _zero(container)) / float(stream.time_base)), stream=stream)
    except (av.error.FFmpegError, OverflowError):
        return False
    return True


def _demux(container: Input, streams: Sequence[av.stream.Stream]) -> Iterator[av.packet.Packet]:
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:  # PyAV raises this at the end of the file if a stream appeared midway
            return
        if packet is None:
            return
        if (
            packet.dts is not None or packet.pts is not None
        ):  # the last packet of each stream is empty; it is meant for decoders
            yield packet


def _listed(
    container: Input, stream: av.video.VideoStream, start: float, end: float, whole: bool
) -> list[tuple[int, int | None]]:
    """List (pts, dts) of the packets from the last keyframe at or before `start` to the last one shown before `end`.

    whole: the file is read from its beginning, so the first keyframe will do if none is early enough.
    """
    if not stream.time_base:
        raise Uncopyable("its packets have no times")
    base, zero = float(stream.time_base), _zero(container)
    listed: list[tuple[int, int | None]] = []
    needed, latest, most = 0, -math.inf, REORDERED * frame_step(stream)
    for packet in _demux(container, [stream]):
        if packet.pts is None:
            if listed:
                raise Uncopyable("some of its packets have no times")
            continue
        at = packet.pts * base - zero
        if at < latest - most:  # a spliced file, in which one time may mean two places
            raise Uncopyable("its clock goes back")
        latest = max(latest, at)
        if packet.is_keyframe and (at <= start + SHORT or (whole and not listed and at < end)):
            listed, needed = [(packet.pts, packet.dts)], 1
        elif listed:
            listed.append((packet.pts, packet.dts))
            if at < end - SHORT:
                needed = len(listed)
            elif len(listed) - needed > REORDERED:
                break
    if listed and latest + most < start:
        raise Uncopyable("its clock ends before")
    return listed[:needed]


def _decoding_times(pts: Sequence[int], step: int) -> list[tuple[int, tuple[int, int] | None]]:
    """Work out decoding times for packets that are given in decoding order.

    The decoding times are the display times in order, moved forward so that no packet is shown before it is decoded.

    Args:
        pts: display times of the packets.
        step: ticks from frame to frame.

    Returns:
        (pts, (pts, dts) counted from the first packet) for each packet; None instead of the times if the packet is
        shown before the first one.
    """
    copied = [p for p in pts if p >= pts[0]]
    ordered = sorted(copied)
    rank = {p: r for r, p in enumerate(ordered)}
    depth = max(i - rank[p] for i, p in enumerate(copied))
    if len(rank) < len(copied) or depth > REORDERED:
        raise Uncopyable("its clock goes back")
    dts = iter([*(ordered[0] - (depth - i) * step for i in range(depth)), *ordered])
    return [(p, (p - pts[0], next(dts) - pts[0]) if p >= pts[0] else None) for p in pts]


def _places(listed: Sequence[tuple[int, int | None]]) -> tuple[list[tuple[int, tuple[int, int] | None]], int]:
    """The same for AVI, which stores only the packets' places; returns also the first place."""
    places = [place for _, place in listed if place is not None]
    if len(places) < len(listed) or any(a >= b for a, b in pairwise(places)):
        raise Uncopyable("its packets have no places")
    first = listed[0][0]
    times = [None if pts < first else (place - places[0],) * 2 for (pts, _), place in zip(listed, places, strict=True)]
    return [(pts, copied) for (pts, _), copied in zip(listed, times, strict=True)], places[0]


def _copy(path: Path, selection: _Selection, end: float, to: Path) -> None:
    with open_video(path) as (container, stream):
        if selection.seek_to is not None:
            _seek(container, stream, selection.seek_to)
        sound = best_sound(container, stream)
        sounds = [] if sound is None else [sound]
        if container.format.name == "avi" and any(s.codec_context.name == "aac" for s in sounds):
            raise Uncopyable("AVI does not say how long a packet of AAC lasts")
        with av.open(str(to), "w", format=_muxer(path, container)) as out:
            _mux(container, stream, sounds, selection, end, out)


def _mux(
    container: Input,
    stream: av.video.VideoStream,
    sounds: Sequence[av.AudioStream],
    selection: _Selection,
    end: float,
    out: av.container.OutputContainer,
) -> None:
    assert stream.time_base is not None
    zero, first = _zero(container), selection.times[0][0]
    targets = {s.index: out.add_stream_from_template(s, opaque=True) for s in (stream, *sounds)}
    count: int | None = None  # packets of pictures so far, from the keyframe on
    quiet = not sounds
    for packet in _demux(container, [stream, *sounds]):
        if packet.stream is stream:
            if count is None and packet.is_keyframe and packet.pts == first:
                count = 0
            if count is None:
                continue
            if count >= len(selection.times):
                behind = packet.pts is not None and packet.pts * float(stream.time_base) - zero > end + LATE_SOUND
                if quiet or behind:
                    return
                continue
            pts, times = selection.times[count]
            count += 1
            if packet.pts != pts:
                raise Uncopyable("it changed while it was read")
            if times is None:
                continue
            packet.pts, packet.dts = times
        else:
            ticks = packet.dts if packet.pts is None else packet.pts
            assert ticks is not None
            middle = (ticks + (packet.duration or 0) / 2) * float(packet.time_base)
            quiet = quiet or middle >= end + zero
            if not selection.sound <= middle < end + zero:
                continue
            packet.pts = packet.dts = ticks - round(selection.sound / float(packet.time_base))
        packet.stream = targets[packet.stream.index]
        out.mux(packet)
    if count is None or count < len(selection.times):
        raise Uncopyable("it changed while it was read")

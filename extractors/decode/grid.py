"""Upright frames of a video on a steady 25 fps grid.

Grid point k lies k / fps after the first video frame and shows the frame whose presentation time (PTS) is nearest. So
later steps need not care about variable frame rates, a first PTS that is not 0, or frames without PTS.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import av
import av.container
import av.error
import av.video

from extractors.decode.clock import LONGEST_STILL, decode_seen, frame_step, raise_if_unreadable
from extractors.decode.container import UNSEEKABLE, declared_duration, describe, open_video
from extractors.decode.look import Look, picture
from extractors.decode.spans import Border, checker, clean, land
from extractors.decode.unseen import Unseen
from extractors.decode.video import TIME_EPS, Damage, Image, VideoError, fit, is_partial, warnings


class Lost(Exception):
    """A jump to a keyframe of the container's index leads elsewhere."""


class Frames:
    """The frames of a video on its grid: a context manager whose `grid` is iterated once.

    Entering decodes the first frame, and sets `info`, and `origin`, the time of grid point 0 (s). After the iteration
    `end` is the time at which the last frame that was read stops being shown (s), `exhausted` tells whether the video
    has no further frame, `damage` what is wrong with the file, and `sought` whether its beginning was jumped over.

    `short_side`: resize frames to so many pixels; None keeps their size. `tick`: called while the file is read, as a
    sign of life. `gpu`, `threads`: as in `open_video`.

    Raises (on entering):
        VideoError: the file cannot be opened, or nothing in it can be decoded.
        DecoderUnavailable: there is no NVDEC on that GPU.
    """

    def __init__(
        self,
        path: Path,
        fps: float = 25.0,
        short_side: int | None = None,
        gpu: int | None = None,
        tick: Callable[[], None] = lambda: None,
        threads: int = 0,
    ) -> None:
        self.path, self.fps, self.short_side, self.gpu = path, fps, short_side, gpu
        self._tick, self._threads = tick, threads
        self.damage = Damage()
        self._unseen: Unseen | None = None
        self.border: Border | None = None
        """where the reading ends, in packets; set it before a video is entered of which one span is to be read"""
        self._from: float | None = None
        """`origin`, once it is known"""
        self.end = 0.0
        self.exhausted = self.sought = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Frames:
        with contextlib.ExitStack() as stack:
            self._container, self._stream = stack.enter_context(self._open())
            self._look = Look(self._stream)
            self._source = self._decode()
            head = next(self._source, None)
            if head is None and self.gpu is not None:  # 10-bit H.264, or a driver without video libraries
                raise VideoError(f"{self.path}: NVDEC decodes no frame of it; use --decoder cpu for it.")
            if head is None:
                raise VideoError(f"{self.path}: no frame of it can be decoded; the file is damaged, get it again.")
            time, first = head
            assert first is not None
            self._head = time, first
            self.origin = self._from = time
            if self._unseen is not None:
                self._unseen.origin = time
            self._declared = declared_duration(self._container, self._stream)
            self._zero = (self._container.start_time or 0) / 1e6
            self._look.settle(first)
            self.info = describe(self.path, self._container, self._stream, self._look.size)
            self.size = self._look.size if self.short_side is None else fit(self._look.size, self.short_side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def grid(self, first: int = 0, last: float = float("inf"), seek: bool = True) -> Iterator[tuple[int, Image]]:
        """Yield (k, (H, W, 3) uint8 RGB) for the grid points first <= k < last that the video has.

        seek: jump to the first of them if the format allows it; False reads everything before it.
        """
        shown: tuple[av.VideoFrame, Image] | None = None  # converted once, when a grid point needs it
        for k, frame in self.frames(first, last, seek):
            if shown is None or shown[0] is not frame:
                shown = None  # so that no third frame is held while this one is converted
                shown = frame, self.picture(frame)
            yield k, shown[1]

    def frames(
        self, first: int = 0, last: float = float("inf"), seek: bool = True
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """The same, with frames as they are decoded, of which `picture` makes pictures."""
        head, source = self._head, self._source
        if seek and first > 0 and (sought := self._seek(head[1], self._time(first))):
            head, source = sought
        yield from self._nearest(head, source, first, last)

    def span(self, key: int, ahead: int, last: float) -> Iterator[tuple[int, av.VideoFrame]] | None:
        """As `frames`, from a keyframe with this stamp on, to the `border`; None: its packet is not `clean`.

        `ahead`: as in spans.Plan.

        Raises:
            Lost: the jump does not lead there.
        """
        try:
            packet, packets = land(self._container, self._stream, key, ahead)
        except (av.error.FFmpegError, IndexError, OverflowError) as error:
            raise Lost from error
        if packet is None or packet.pts is None:
            raise Lost
        if not clean(packet, checker(self._stream)):
            return None
        source = self._decode(itertools.chain([packet], packets))
        # Frames that are shown before the keyframe, but coded behind it, belong to the span before.
        head = next(((t, f) for t, f in source if f is not None and f.pts is not None and f.pts >= packet.pts), None)
        if head is None or not head[1].key_frame or head[1].pts != packet.pts:
            raise Lost
        return self._nearest(head, source, self.point(packet.pts), last)

    def until(self, last: float) -> float:
        """The grid point before which the reading ends: `last`, or the first one at or behind the border's keyframe."""
        return last if self.border is None or self.border.pts is None else min(last, self.point(self.border.pts))

    def point(self, pts: int) -> int:
        """The first grid point at or behind a time stamp."""
        time = pts * float(self._stream.time_base or 0) - self._zero
        k = max(math.ceil((time - self.origin) * self.fps) - 1, 0)
        while self._time(k) < time:
            k += 1
        return k

    def picture(self, frame: av.VideoFrame, out: Image | None = None) -> Image:
        """(H, W, 3) uint8 RGB of a frame, in `out`. Several threads may call it at once, for different frames."""
        return picture(frame, self.size, self._look, out)

    def _open(self) -> AbstractContextManager[tuple[av.container.InputContainer, av.video.VideoStream]]:
        return open_video(self.path, self.gpu, self._threads, self.short_side)

    def _decode(self, packets: Iterator[av.Packet] | None = None) -> Iterator[tuple[float, av.VideoFrame | None]]:
        """Times and frames; None for a frame that no grid point shows."""
        packets = self._container.demux(self._stream) if packets is None else packets
        if self.border is not None:
            packets = self.border.watch(packets, self._stream, self._container.format.name)
        zero = (self._container.start_time or 0) / 1e6
        self._unseen = Unseen(self._stream, zero, self.fps, self._from) if self.gpu is None else None
        return decode_seen(self._container, self._stream, self.damage, self._tick, self._unseen, packets)

    @property
    def seekable(self) -> bool:
        """Whether `grid` can jump, so that reading a part costs no more than the part's own length."""
        return not (self._container.format.name in UNSEEKABLE or not self._head[1].key_frame)

    def _time(self, k: float) -> float:
        return self.origin + k / self.fps

    def _nearest(
        self,
        head: tuple[float, av.VideoFrame],
        source: Iterator[tuple[float, av.VideoFrame | None]],
        k: int,
        last: float,
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Nearest frame for each grid point k..last-1; a tie goes to the earlier frame."""
        time, frame = head
        for later, successor in source:
            # The border is known by then: its packet is read before any frame that is shown behind it.
            while k < self.until(last) and self._time(k) <= (time + later) / 2 + TIME_EPS:
                yield k, frame
                k += 1
            self.end = later
            if k >= self.until(last):
                return
            time, frame = later, successor or frame
        self.exhausted = True
        base = float(frame.time_base or 0)
        lasts = frame.duration * base
        self.end = time + (min(lasts, LONGEST_STILL) if lasts > TIME_EPS else frame_step(self._stream))
        while k < self.until(last) and self._time(k) < self.end - TIME_EPS:
            yield k, frame
            k += 1

    def _seek(
        self, first: av.VideoFrame, target: float
    ) -> tuple[tuple[float, av.VideoFrame], Iterator[tuple[float, av.VideoFrame | None]]] | None:
        """Jump to a keyframe at or before `target` (s), and check its PTS; None: read on from the start.

        A file is decoded from its start if its format has no trustworthy PTS, or if its first frame is not flagged as a
        keyframe, since then keyframes do not show where decoding is clean. A jump in MPEG-TS lands too late, so earlier
        targets are tried; in a spliced MPEG-TS the clock is useless.
        """
        container, stream = self._container, self._stream
        base = float(stream.time_base or 0)
        if container.format.name in UNSEEKABLE or not first.key_frame or not base or first.pts is None:
            return None
        before = replace(self.damage)  # errors before the keyframe come from the jump, not from the file
        for margin in (0.0, 2.0, 10.0, 40.0) if self._rising() else ():
            goal = target - margin
            if goal <= self.origin:
                break
            try:
                container.seek(int((goal + (container.start_time or 0) / 1e6) / base), stream=stream)
            except (av.error.FFmpegError, OverflowError):
                break
            source = self._decode()
            # Frames before the first keyframe depend on frames that were never read.
            head = next(((t, f) for t, f in source if f is not None and (f.key_frame or t > target)), None)
            vars(self.damage).update(vars(before))
            if head is not None and head[1].key_frame and head[1].pts is not None and head[0] <= target:
                self.sought = True
                return head, source
        # The file is opened again: not every format can seek back to its start.
        self.damage = Damage()
        self._stack.close()  # so that two decoders do not hold frames at once
        self._container, self._stream = self._stack.enter_context(self._open())
        self._source = source = self._decode()
        time, frame = next(source, (math.nan, None))
        if frame is None or time != self.origin:
            raise VideoError(f"{self.path}: cannot be read again from its start; convert it to MP4.")
        return (time, frame), source

    def _rising(self) -> bool:
        """Whether the packets' clock only rises. Only MPEG-TS can be spliced, so other formats are not checked."""
        if self._container.format.name != "mpegts":
            return True
        longest = LONGEST_STILL / float(self._stream.time_base or 1)
        last: int | None = None
        try:
            for packet in self._container.demux(self._stream):
                self._tick()
                if packet.dts is not None and last is not None and not 0 <= packet.dts - last <= longest:
                    return False
                last = last if packet.dts is None else packet.dts
        except av.error.FFmpegError as error:
            raise_if_unreadable(self._container, error)
        except IndexError:  # as in `decode`
            pass
        return True

    def partial(self, whole: bool) -> bool:
        """Whether frames are missing: some could not be decoded, or the stream ends long before its header says.

        whole: whether the video was read to its end.
        """
        return is_partial(self.damage, self.missing if whole else 0.0)

    @property
    def missing(self) -> float:
        """Seconds by which the frames end before the duration in the header, if there is one.

        Some formats count the duration from the stream's own start, others from 0; the later end counts. (A start
        before 0, as in MPEG-TS whose clock wraps, is always the stream's own.)
        """
        return self._declared - max(self._zero, 0.0) - self.end

    def warnings(self, whole: bool) -> tuple[str, ...]:
        """Messages for the user; `whole`: whether the video was read to its end."""
        return warnings(self.damage, self.missing if whole else 0.0)

"""Upright frames of a video on a steady 25 fps grid.

Grid point k lies k / fps after the first video frame and shows the frame whose presentation time (PTS) is nearest; so
variable frame rates, a first PTS that is not 0, and frames without PTS mean the same seconds to everything behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from extractors.decode.clock import LONGEST_STILL, TIME_EPS, Damage, decode, frame_step, raise_if_unreadable
from extractors.decode.container import (
    UNSEEKABLE,
    Image,
    Orientation,
    VideoError,
    declared_duration,
    describe,
    open_video,
    orientation,
    upright_size,
)
from extractors.decode.tone import BT601, BT709, BT2020, FULL, LIMITED, MATRICES, RANGES, UNSPECIFIED, Colours, Tone

MISSING_TAIL = 1.0  # seconds; a video that ends so long before its header says is reported as partial


class Look:
    """How the frames of one stream are shown: upright, in the colours of an SDR screen, at a size.

    Made when a file is opened, before anything is decoded; `settle` gets the first frame, whose orientation is that of
    all. Afterwards `size` is (H, W) as a player shows them, and `toned` whether the first is HDR or has wide colours.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        codec = stream.codec_context
        # Decoding may replace what the container says by what the stream leaves open.
        self._told = Colours(codec.color_trc, codec.color_primaries, codec.colorspace)
        self._stream = stream
        # Shared by the frames, or each makes its own, with threads that live until it is collected (350 were seen).
        self._convert = VideoReformatter()
        self._tone = Tone()
        self.upright = Orientation()
        self.size = (0, 0)
        self.toned = False

    def settle(self, first: av.VideoFrame) -> None:
        """Decide what is decided once."""
        self.upright = orientation(first)
        self.size = upright_size(first, self._stream, self.upright)
        self.toned = not self._colours(first).plain

    def _colours(self, frame: av.VideoFrame) -> Colours:
        return Colours(frame.color_trc, frame.color_primaries, frame.colorspace).over(self._told)

    def rgb(self, frame: av.VideoFrame, size: tuple[int, int]) -> Image:
        """A frame as it is stored, resized: (H, W, 3) uint8 RGB for BT.709 screens."""
        colours = self._colours(frame)
        stored = self._stored(frame, colours)
        if stored.shape[:2] != size:
            shrink = size[0] * size[1] < stored.shape[0] * stored.shape[1]
            how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
            stored = cv2.resize(stored, size[::-1], interpolation=how)
        return np.asarray(stored, np.uint8) if colours.plain else self._tone(np.asarray(stored, np.uint16), colours)

    def _stored(self, frame: av.VideoFrame, colours: Colours) -> Any:
        """(H, W, 3) RGB as large as the frame is: uint8, or uint16 where the tones are still to be mapped."""
        told: dict[str, int] = {}
        if (not colours.plain and colours.matrix != frame.colorspace) or frame.colorspace not in MATRICES:
            known = MATRICES - UNSPECIFIED
            told["src_colorspace"] = colours.matrix if colours.matrix in known else BT601 if colours.plain else BT2020
            told["dst_colorspace"] = BT709  # of RGB: it only has to be one that swscale takes
        if frame.color_range not in RANGES:
            told |= {"src_color_range": LIMITED, "dst_color_range": FULL}
        depth = "rgb24" if colours.plain else "rgb48le"
        return self._convert.reformat(frame, format=depth, threads=1, **told).to_ndarray()


def picture(frame: av.VideoFrame, size: tuple[int, int], look: Look) -> Image:
    """Upright RGB picture of a frame, resized: (H, W, 3) uint8 for `size` (H, W).

    Area averaging when shrinking, as DeepMind's own pipeline does, bilinear when enlarging. HDR becomes SDR after
    that, when there are fewer pixels (tone.py).
    """
    upright = look.upright
    rgb = look.rgb(frame, (size[1], size[0]) if upright.turns % 2 else size)
    if upright.mirrored:
        rgb = rgb[::-1]
    return np.ascontiguousarray(np.rot90(rgb, upright.turns))


def fit(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) scaled so that the shorter side is `short_side`, shape kept."""
    height, width = size
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


class Frames:
    """The frames of a video on its grid: a context manager, iterated once through `grid`.

    Entering decodes the first frame, which gives `info`, and `origin`, the time of grid point 0 (s). After the
    iteration `end` is the time at which the last frame read stops being shown (s), `exhausted` whether the video has
    no further one, `damage` what was wrong with the file, and `sought` whether its beginning was jumped over.

    `short_side`: pixels that frames are resized to; None leaves them as large as they are. `gpu`: as `open_video`.
    `tick`: called while the file is read, a sign of life. `threads`: as `open_video`. `native`: leave frames as large
    as they are all the same, but for HDR, whose tones are mapped here, where few pixels are left.

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
        native: bool = False,
    ) -> None:
        self.native = native
        self.path, self.fps, self.short_side, self.gpu = path, fps, short_side, gpu
        self._tick, self._threads = tick, threads
        self.damage = Damage()
        self.end = 0.0
        self.exhausted = self.sought = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Frames:
        with contextlib.ExitStack() as stack:
            self._container, self._stream = stack.enter_context(open_video(self.path, self.gpu, self._threads))
            self._look = Look(self._stream)
            self._source = self._decode()
            head = next(self._source, None)
            if head is None and self.gpu is not None:  # 10-bit H.264, or a driver without its video libraries
                raise VideoError(f"{self.path}: NVDEC decodes no frame of it; use --decoder cpu for it.")
            if head is None:
                raise VideoError(f"{self.path}: no frame of it can be decoded; the file is damaged, get it again.")
            self._head = head
            self.origin = head[0]
            self._declared = declared_duration(self._container, self._stream)
            self._zero = (self._container.start_time or 0) / 1e6
            self._look.settle(head[1])
            self.info = describe(self.path, self._container, self._stream, self._look.size)
            whole = self.native and not self._look.toned
            self.size = self._look.size if self.short_side is None or whole else fit(self._look.size, self.short_side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def grid(self, first: int = 0, last: float = float("inf"), seek: bool = True) -> Iterator[tuple[int, Image]]:
        """Yield (k, (H, W, 3) uint8 RGB) for the grid points first <= k < last that the video has.

        seek: jump to the first of them where the format allows it; False reads all that comes before.
        """
        head, source = self._head, self._source
        if seek and first > 0 and (sought := self._seek(head[1], self._time(first))):
            head, source = sought
        yield from self._nearest(head, source, first, last)

    def _decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        return decode(self._container, self._stream, self.damage, self._tick)

    @property
    def seekable(self) -> bool:
        """Whether `grid` may jump, so that a part of the video costs no more than its own length."""
        return not (self._container.format.name in UNSEEKABLE or not self._head[1].key_frame)

    def _time(self, k: float) -> float:
        return self.origin + k / self.fps

    def _nearest(
        self,
        head: tuple[float, av.VideoFrame],
        source: Iterator[tuple[float, av.VideoFrame]],
        k: int,
        last: float,
    ) -> Iterator[tuple[int, Image]]:
        """Nearest frame for each grid point k..last-1; a tie goes to the earlier frame."""
        time, frame = head
        shown: Image | None = None  # converted only when a grid point wants it, once
        for later, successor in source:
            while k < last and self._time(k) <= (time + later) / 2 + TIME_EPS:
                shown = picture(frame, self.size, self._look) if shown is None else shown
                yield k, shown
                k += 1
            self.end = later
            if k >= last:
                return
            time, frame, shown = later, successor, None
        self.exhausted = True
        base = float(frame.time_base or 0)
        lasts = frame.duration * base
        self.end = time + (min(lasts, LONGEST_STILL) if lasts > TIME_EPS else frame_step(self._stream))
        while k < last and self._time(k) < self.end - TIME_EPS:
            shown = picture(frame, self.size, self._look) if shown is None else shown
            yield k, shown
            k += 1

    def _seek(
        self, first: av.VideoFrame, target: float
    ) -> tuple[tuple[float, av.VideoFrame], Iterator[tuple[float, av.VideoFrame]]] | None:
        """Jump to a keyframe at or before `target` (s) and prove it by its PTS; None: go on from the start.

        Formats without trustworthy PTS, and a stream whose first frame is not flagged as a keyframe and so cannot
        show where decoding is clean, are decoded from their start. MPEG-TS lands late, so further back is tried; and
        where it was spliced its clock says nothing.
        """
        container, stream = self._container, self._stream
        base = float(stream.time_base or 0)
        if container.format.name in UNSEEKABLE or not first.key_frame or not base or first.pts is None:
            return None
        before = replace(self.damage)  # what is wrong on the way to a keyframe comes from the jump, not from the file
        for margin in (0.0, 2.0, 10.0, 40.0) if self._rising() else ():
            goal = target - margin
            if goal <= self.origin:
                break
            try:
                container.seek(int((goal + (container.start_time or 0) / 1e6) / base), stream=stream)
            except (av.error.FFmpegError, OverflowError):
                break
            source = self._decode()
            # Frames before the first keyframe lean on frames that were never read.
            head = next(((t, f) for t, f in source if f.key_frame or t > target), None)
            vars(self.damage).update(vars(before))
            if head is not None and head[1].key_frame and head[1].pts is not None and head[0] <= target:
                self.sought = True
                return head, source
        # Opened anew: not every format finds back to its start.
        self.damage = Damage()
        self._stack.close()  # or two decoders would hold their frames
        again = open_video(self.path, self.gpu, self._threads)
        self._container, self._stream = self._stack.enter_context(again)
        self._source = source = self._decode()
        head = next(source, None)
        if head is None or head[0] != self.origin:
            raise VideoError(f"{self.path}: cannot be read again from its start; convert it to MP4.")
        return head, source

    def _rising(self) -> bool:
        """Whether the clock only rises, as far as the packets say: only MPEG-TS can be spliced, and is read through."""
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
        """Whether frames are missing: some could not be decoded, or the stream stops long before its header says.

        whole: the video was read to its end.
        """
        return is_partial(self.damage, self.missing if whole else 0.0)

    @property
    def missing(self) -> float:
        """Seconds by which the frames fall short of the duration that the header declares, if it does.

        Some formats count it from the stream's own start, some from 0: the later end is believed. (A start before 0,
        as of MPEG-TS whose clock wraps, is one's own.)
        """
        return self._declared - max(self._zero, 0.0) - self.end

    def warnings(self, whole: bool) -> tuple[str, ...]:
        """What to tell the user; `whole`: the video was read to its end."""
        return warnings(self.damage, self.missing if whole else 0.0)


def is_partial(damage: Damage, missing: float) -> bool:
    """Whether frames are missing: some could not be decoded, or they end `missing` seconds before the header says."""
    return bool(damage.errors) or missing > MISSING_TAIL


def warnings(damage: Damage, missing: float) -> tuple[str, ...]:
    """What to tell the user about a file; `missing`: as `is_partial`."""
    said = []
    if damage.errors:
        said.append(f"it is damaged in {damage.errors} place{'s' if damage.errors > 1 else ''}.")
    if missing > MISSING_TAIL:
        said.append(f"its frames end {missing:.1f} s before the file says that they do.")
    if damage.jumps:
        said.append("its clock jumps; the frames behind a jump follow at once.")
    return tuple(said)

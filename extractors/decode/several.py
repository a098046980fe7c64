"""Several decoders for one video: each reads spans of it from a keyframe on, and the frames come in order.

The threads with which FFmpeg decodes one stream wait for one another, so that 16 cores decode 327 frames/s of 1080p,
three times what one core does (benchmarks/README.md). Decoders that begin at different keyframes do not wait. spans.py
divides a video; of n decoders, the first reads the spans 0, n, 2n, ..., the second 1, n + 1, 2n + 1, ..., each into a
ring of its own that holds more than a span. So all of them work while the frames of one are read.

The frames are those of one decoder, to the byte. Where that is not sure, one decoder reads the video: if its format or
its codec does not promise it, and from the beginning again if anything odd is met (damage, a keyframe that is not where
the index says, spans that do not join).
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extractors.config import WHOLE, FeatureConfig, Limits, Stretch, cores
from extractors.decode.process import Decoder, Slots, Talk, clip_of, ring
from extractors.decode.video import Clip, Damage, Image, ReadError, VideoError, ring_slots
from extractors.snippets import frame_range
from support.errors import UserError

LEAST_PIXELS = 640 * 480
"""of a picture; smaller ones come fast enough from one decoder: 4,378 frames/s of 340x256 (benchmarks/README.md)"""
LEAST_SECONDS = 10.0
"""of a stretch; a shorter one has too few spans to gain from several decoders"""
MOST_RING_BYTES = 128 << 20
"""of a decoder's ring, which holds a span and as much as one decoder's ring would"""


class Apart(Exception):
    """The spans do not join, or a file is damaged: one decoder must read it."""


class Decoders:
    """Several children, with the interface of `Decoder`. They are started when a video is first divided."""

    gpu = None
    """they decode on the CPU"""

    def __init__(
        self,
        count: int,
        limits: Limits | None = None,
        threads: int = 0,
        each: int = 0,
        least: int = LEAST_PIXELS,
        span: int = 0,
    ) -> None:
        """`count`: how many there are.

        Args:
            threads: of one decoder that reads a video alone; 0: the number of cores.
            each: threads of each of several; 0: the cores divided by `count`.
            least: pixels of a picture of a video that is divided.
            span: frames that a span should have at least; 0: as many as the ring of one decoder holds.
        """
        self.count, self.least, self.span = count, least, span
        self.each = each or max(cores() // count, 1)
        self._all = [Decoder(None, limits, threads) for _ in range(count)]
        self.why = ""
        """why one decoder read the last video; empty if several did"""

    @contextlib.contextmanager
    def open(
        self,
        path: Path,
        config: FeatureConfig,
        stretch: Stretch = WHOLE,
        take: Callable[[Image], Any] = np.copy,
        span: tuple[int, float] = (0, float("inf")),
        seek: bool = True,
        deadline: float = float("inf"),
    ) -> Iterator[tuple[Clip, Iterator[tuple[int, Any]]]]:
        """As `Decoder.open`, with the same frames."""
        asked = _Asked(path, config, stretch, take, span, seek, deadline)
        with contextlib.ExitStack() as stack:
            opened = None
            if not seek:
                self.why = "it must be read from its start"
            elif stretch.end - stretch.start < LEAST_SECONDS:
                self.why = "its stretch is short"
            else:
                opened = self._divided(asked, stack)
            try:
                yield opened or stack.enter_context(self._all[0].open(*asked.arguments))
            finally:
                asked.left.set()

    def close(self) -> None:
        """End the children; the next video starts new ones."""
        for decoder in self._all:
            decoder.close()

    def _divided(self, asked: _Asked, stack: contextlib.ExitStack) -> tuple[Clip, Iterator[tuple[int, Any]]] | None:
        """The video, read by several decoders if it can be divided; None: it cannot even be looked at so."""
        wanted = {"threads": self.each, "least": self.least, "frames": self.span}
        try:
            talk = self._begin(0, asked, wanted | {"plan": None}, stack)
            header = talk.receive()
        except ReadError:
            raise
        except VideoError as error:  # one decoder says what is wrong, if it is not the division
            self.why = str(error)
            return None
        plan = header.pop("plan")
        self.why = plan["why"]
        clip = clip_of(header, asked.path)
        count = min(self.count, len(plan["keys"]) + 1)
        slots = ring_slots(clip.size)
        if count > 1:
            most = MOST_RING_BYTES // (clip.size[0] * clip.size[1] * 3)
            slots = max(slots, min(round(plan["longest"] * asked.config.fps) + slots, most))
        try:
            shares = [_Share(talk, asked.take, clip, (slots, 0, count), stack, {})]
            for number in range(1, count):
                talk = self._begin(number, asked, wanted | {"plan": plan}, stack)
                shares.append(_Share(talk, asked.take, clip, (slots, number, count), stack, header))
        except (OSError, UserError) as error:  # no room for so many rings, or no process could be started
            self.why = str(error)
            self._warn(asked)
            self.close()
            return None
        return clip, self._frames(asked, clip, shares, len(plan["keys"]) + 1)

    def _warn(self, asked: _Asked) -> None:
        why = self.why.removeprefix(f"{asked.path}: ").rstrip(".")
        warnings.warn(f"{asked.path}: one decoder reads it from its beginning: {why}.", RuntimeWarning, stacklevel=2)

    def _begin(self, number: int, asked: _Asked, several: dict[str, Any], stack: contextlib.ExitStack) -> Talk:
        decoder = self._all[number]
        talk = stack.enter_context(decoder.talk(asked.path, asked.deadline))
        request = decoder.request(asked.path, asked.config, asked.stretch, asked.span, asked.seek)
        talk.send(request | {"several": several})
        return talk

    def _frames(self, asked: _Asked, clip: Clip, shares: Sequence[_Share], spans: int) -> Iterator[tuple[int, Any]]:
        """The frames of all spans, in order; those of one decoder from where the spans do not join."""
        at, last = frame_range(clip.first, clip.last, asked.config)
        try:
            for number in range(spans):
                share = shares[number % len(shares)]
                for k, frame in share.read(number + len(shares) >= spans):
                    if share.damaged or k != at:
                        raise Apart(f"grid point {k} follows {at - 1}")
                    clip.sought = clip.sought or share.clip.sought
                    yield k, frame
                    at += 1
                end = share.end
                if share.damaged or end.get("lost"):
                    raise Apart("a keyframe is not where the index says that it is")
                until = end["until"]
                if not end["empty"] and (until is None or until >= last):  # the end of the video, or of the request
                    clip.end, clip.exhausted, clip.missing = end["end"], end["exhausted"], end["missing"]
                    clip.sought = clip.sought or end["sought"]
                    return
                if not end["empty"] and until != at:
                    raise Apart(f"a span ends before {until} instead of {at}")
            raise Apart("the last span has no end")
        except Apart as problem:
            self.why = "it is damaged" if any(share.damaged for share in shares) else str(problem)
        except VideoError as error:
            if isinstance(error, ReadError) or time.monotonic() > asked.deadline or asked.left.is_set():
                raise
            self.why = str(error)
        if not any(share.damaged for share in shares):  # damage is reported with the features
            self._warn(asked)
        self.close()
        yield from self._alone(asked, clip, at)

    def _alone(self, asked: _Asked, clip: Clip, at: int) -> Iterator[tuple[int, Any]]:
        """The frames from grid point `at` on, from one decoder that reads all that was asked for."""
        with self._all[0].open(*asked.arguments, skip=at) as (whole, frames):
            for k, frame in frames:
                vars(clip).update(vars(whole))
                yield k, frame
            vars(clip).update(vars(whole))


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The arguments of `open`."""

    path: Path
    config: FeatureConfig
    stretch: Stretch
    take: Callable[[Image], Any]
    span: tuple[int, float]
    seek: bool
    deadline: float
    left: threading.Event = dataclasses.field(default_factory=threading.Event)
    """whether nobody wants the frames any more; a thread that reads ahead may still wait for a child that was ended"""

    @property
    def arguments(self) -> tuple[Path, FeatureConfig, Stretch, Callable[[Image], Any], tuple[int, float], bool, float]:
        return (self.path, self.config, self.stretch, self.take, self.span, self.seek, self.deadline)


class _Share:
    """The spans of one decoder."""

    def __init__(
        self,
        talk: Talk,
        take: Callable[[Image], Any],
        clip: Clip,
        share: tuple[int, int, int],
        stack: contextlib.ExitStack,
        header: dict[str, Any],
    ) -> None:
        """`share`: (slots of the ring, number of the decoder, number of decoders).

        `header`: what the decoder must say about the video, as the first one did; empty: it has said it.
        """
        slots, number, of = share
        self._talk, self._header = talk, header
        self._ready = False
        name, memory = stack.enter_context(ring(clip.size, slots))
        talk.send({"ring": str(name), "slots": len(memory), "share": number, "of": of})
        self._slots = Slots(talk, memory, take)
        self.clip = dataclasses.replace(clip, damage=Damage())
        """what this decoder knows of the video by now"""

    @property
    def damaged(self) -> bool:
        """Whether it has met damage."""
        return self.clip.damage != Damage()

    @property
    def end(self) -> dict[str, Any]:
        """What the decoder said at the end of the last span."""
        return self._slots.end

    def read(self, final: bool) -> Iterator[tuple[int, Any]]:
        """The frames of the next span; `final`: it is the decoder's last one.

        Raises:
            VideoError: as `Decoder.open`.
            Apart: the decoder sees another video than the first one.
        """
        if not self._ready:
            if self._header and self._talk.receive() != self._header:
                raise Apart("the decoders see different videos")
            self._talk.receive()  # it has opened the ring
            self._ready = True
        yield from self._slots.read(self.clip)
        self.clip.damage = Damage(*self.end.get("damage", (0, 0, 0)))
        if final:
            self._talk.done()

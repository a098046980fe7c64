"""Beginning to decode the next video of a folder while the networks work on this one.

A decoder's child fills its ring by itself and then waits (decode/process.py). So it is enough to open the next video
early: when its turn comes, its first frames are there, and a GPU need not wait for a file to be opened, looked through
and decoded. Two decoders take turns.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extractors.config import WHOLE, FeatureConfig, Limits, Stretch, decoders_for
from extractors.decode.process import Decoder
from extractors.decode.several import Decoders
from extractors.decode.video import Clip, Image

Opened = tuple[Clip, Iterator[tuple[int, Any]]]


@dataclass(frozen=True)
class Asked:
    """The arguments of `Decoder.open` that decide which frames come, and what they become."""

    path: Path
    config: FeatureConfig
    stretch: Stretch = WHOLE
    take: Callable[[Image], Any] = np.copy
    span: tuple[int, float] = (0, math.inf)
    seek: bool = True

    @property
    def arguments(self) -> tuple[Path, FeatureConfig, Stretch, Callable[[Image], Any], tuple[int, float], bool]:
        """In the order of `Decoder.open`."""
        return (self.path, self.config, self.stretch, self.take, self.span, self.seek)


class _Begun:
    """A video that a thread opens with a decoder of its own, until somebody asks for it or nobody will."""

    def __init__(self, asked: Asked, decoder: Any) -> None:
        self.asked, self.decoder = asked, decoder
        self._opened: Opened | None = None
        self._stack = contextlib.ExitStack()
        self._lock, self._ready, self._left = threading.Lock(), False, False
        self._thread = threading.Thread(target=self._open, name="next video", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        # Whatever is wrong with the video is met again, and reported, when it is opened in its turn.
        with contextlib.suppress(Exception):
            self._opened = self._stack.enter_context(self.decoder.open(*self.asked.arguments))
        with self._lock:
            self._ready = True
            if self._left:
                self._end()

    def adopt(self) -> tuple[Opened, contextlib.ExitStack] | None:
        """(what `open` gives, what ends it), as soon as it is there; None: it could not be opened."""
        self._thread.join()
        return None if self._opened is None else (self._opened, self._stack)

    def leave(self) -> None:
        """End it, now or when the thread has opened it; nobody waits for that."""
        with self._lock:
            self._left = True
            if self._ready:
                self._end()

    def _end(self) -> None:
        with contextlib.suppress(Exception):
            self._stack.close()
        self.decoder.close()


class Ahead:
    """A decoder, with the interface of `Decoder`, which can begin with a video before it is asked for it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """`make`: makes a decoder, which starts no process before it opens a video."""
        self._make, self._idle = make, [make()]
        self._next: Asked | None = None
        self._begun: _Begun | None = None
        self.adopted = 0
        """how many videos had begun when they were asked for"""

    def expect(self, now: Path, following: tuple[Any, ...] | None) -> None:
        """Say which video is read now, and which one after it: that one begins as soon as this one has been opened.

        `following`: the first arguments of the `open` that will come.
        """
        if self._begun is not None and self._begun.asked.path != now:  # it was not needed in its turn
            self._leave()
        self._next = None if following is None else Asked(*following)

    @contextlib.contextmanager
    def open(
        self,
        path: Path,
        config: FeatureConfig,
        stretch: Stretch = WHOLE,
        take: Callable[[Image], Any] = np.copy,
        span: tuple[int, float] = (0, math.inf),
        seek: bool = True,
        deadline: float = math.inf,
    ) -> Iterator[Opened]:
        """As `Decoder.open`, with the same frames."""
        asked = Asked(path, config, stretch, take, span, seek)
        with contextlib.ExitStack() as stack:
            decoder, opened = self._adopt(asked, stack, deadline)
            if opened is None:
                stack.callback(self._idle.append, decoder)
                opened = stack.enter_context(decoder.open(*asked.arguments, deadline))
            if self._next is not None and self._begun is None:
                self._begun, self._next = _Begun(self._next, self._free()), None
            yield opened

    def _adopt(self, asked: Asked, stack: contextlib.ExitStack, deadline: float) -> tuple[Any, Opened | None]:
        """(the decoder that reads this, what it has opened already)."""
        begun = self._begun
        if begun is None or begun.asked.path != asked.path:
            return self._free(), None
        if begun.asked != asked or deadline < math.inf:  # it was begun without a time limit
            self._leave()
            return self._free(), None
        self._begun = None
        found = begun.adopt()
        if found is None:
            return begun.decoder, None
        self.adopted += 1
        stack.callback(self._idle.append, begun.decoder)
        opened, ending = found
        stack.enter_context(ending)
        return begun.decoder, opened

    def _free(self) -> Any:
        return self._idle.pop() if self._idle else self._make()

    def _leave(self) -> None:
        if self._begun is not None:
            self._begun.leave()
        self._begun = None

    def close(self) -> None:
        """End all children; the next video starts new ones."""
        self._next = None
        self._leave()
        for decoder in self._idle:
            decoder.close()


def decoder_for(device: torch.device, decoder: str, limits: Limits, threads: int | None, count: int | None) -> Any:
    """What decodes for an extractor on this device.

    Args:
        decoder: cpu or nvdec.
        threads: of a decoder on the CPU; default: the number of cores.
        count: how many decoders on the CPU read one video; default: `decoders_for`.

    Raises:
        DecoderUnavailable: it should be NVDEC, and this machine has none.
    """
    if decoder == "nvdec":
        from extractors.decode.container import require_nvdec  # it loads the decoder's own modules

        require_nvdec(gpu := device.index or 0)
        return Decoder(gpu, limits, threads or 0)
    several = count or decoders_for(device.type, threads)

    def make() -> Decoder | Decoders:
        return Decoders(several, limits, threads or 0) if several > 1 else Decoder(None, limits, threads or 0)

    return make() if device.type == "cpu" else Ahead(make)

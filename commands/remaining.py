"""Estimate how long a run over many videos still takes, from what is left and from how fast this run is."""

import math
from collections.abc import Hashable, Mapping

EVIDENCE = 5.0  # seconds of work that must have been measured before anything is said
COMPUTED = ("flow", "i3d")  # stages that tell how far a video is; decoding runs ahead
PIECE = 64  # snippets: several workers may be at different stretches of one video


class Remaining:
    """Seconds of video that are done, and how long the rest takes. A video may have any hashable name.

    All times are given, by whatever clock: nothing here looks at one.
    """

    def __init__(
        self, sizes: Mapping[Hashable, int], step: float = 0.64, start: float = 0.0, end: float = math.inf
    ) -> None:
        """`sizes`: bytes of each video; `step`: seconds from one snippet to the next; `start`, `end`: seconds."""
        self.sizes, self.step, self.start, self.end = dict(sizes), step, start, end
        self._seconds: dict[Hashable, float] = {}
        """seconds of each video, from its header or from its result"""
        self._asked: set[Hashable] = set()
        """videos whose headers were read, even if they say nothing"""
        self._finished: set[Hashable] = set()
        self._before: dict[Hashable, int] = {}
        """snippets that an earlier run had done"""
        self._reached: dict[Hashable, dict[int, int]] = {}
        """for each video and stretch, the snippet up to which it is done"""
        self.worked = 0.0
        """seconds of video extracted in this run"""
        self._began: tuple[float, float] | None = None
        """the time at which the networks were loaded, and the seconds of video done by then"""

    def header(self, name: Hashable, seconds: float) -> None:
        """Note the duration from a video's header; 0 if the header does not say."""
        self._asked.add(name)
        if seconds > 0 and name not in self._finished:
            self._seconds[name] = max(min(seconds, self.end) - self.start, 0.0)

    def told(self, name: Hashable, stage: str, done: int, total: int, now: float) -> None:
        """Note the progress of a stage, `done` of `total`."""
        if stage in COMPUTED:
            self.progress(name, done, now)
        elif stage == "compile" and done == total:
            self.compiled(now)

    def progress(self, name: Hashable, done: int, now: float) -> None:
        """Note that the first `done` snippets of a video, or a stretch that ends there, are done."""
        stretches = self._reached.setdefault(name, {})
        stretch = max(done - 1, 0) // PIECE
        if not stretches:
            self._before[name] = stretch * PIECE
        before = stretches.get(stretch, stretch * PIECE)
        if done > before:
            stretches[stretch] = done
            self.worked += (done - before) * self.step
        if self._began is None:
            self._began = (now, self.worked)

    def compiled(self, now: float) -> None:
        """Note that kernels were compiled, which happens once. Earlier measurements say nothing about the speed."""
        self._began = (now, self.worked)

    def finished(self, name: Hashable, seconds: float) -> None:
        """Note that a video is done. `seconds`: its length; 0 if it failed."""
        self._finished.add(name)
        self._seconds[name] = seconds

    def speed(self, now: float) -> float | None:
        """Seconds of video done in one second, without the start-up; None if too little was measured so far."""
        if self._began is None or now - self._began[0] < EVIDENCE or self.worked <= self._began[1]:
            return None
        return (self.worked - self._began[1]) / (now - self._began[0])

    def left(self, now: float) -> float | None:
        """Seconds until everything is done; None if that cannot be estimated yet."""
        speed, total = self.speed(now), self.total()
        if speed is None or total is None or not all(n in self._asked or n in self._finished for n in self.sizes):
            return None
        return max(total - self.through(), 0.0) / speed

    def total(self) -> float | None:
        """Seconds of video. An unknown video gets as many seconds per byte as the others; None if all are unknown."""
        if (rate := self._rate()) is None:
            return None
        return sum(self._weight(name, rate) for name in self.sizes)

    def through(self) -> float:
        """Seconds of video that are done, extracted or not."""
        rate = self._rate() or 0.0
        return sum(
            self._weight(name, rate) if name in self._finished else min(self._done(name), self._weight(name, rate))
            for name in {*self._finished, *self._reached}
        )

    def _rate(self) -> float | None:
        told = [name for name, seconds in self._seconds.items() if seconds > 0 and self.sizes.get(name)]
        size = sum(self.sizes[name] for name in told)
        return sum(self._seconds[name] for name in told) / size if size else None

    def _weight(self, name: Hashable, rate: float) -> float:
        if name in self._seconds:
            return self._seconds[name]
        return max(self.sizes[name] * rate, self._done(name))

    def _done(self, name: Hashable) -> float:
        stretches = self._reached.get(name, {})
        new = sum(done - stretch * PIECE for stretch, done in stretches.items())
        return (self._before.get(name, 0) + new) * self.step

"""Threads that make pictures while the caller decodes the next frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

MOST = 4
"""a picture of 1080p takes one thread .9 ms, so four make more of them than 16 cores decode frames, at 9 ms each"""


class Job:
    """A piece of work that is done at some time."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        self._error: BaseException | None = None
        self._done = threading.Event()

    def run(self) -> None:
        """Do the work; an error waits for `wait`."""
        assert self._work is not None
        try:
            self._work()
        except BaseException as error:
            self._error = error
        self._work = None  # so that its frame is not kept alive
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether it is done."""
        return self._done.is_set()

    def wait(self) -> None:
        """Return when it is done; raises its error."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class Converters:
    """A pool of threads that take their work in order. At the end of the block they finish what was submitted."""

    def __init__(self, threads: int) -> None:
        """`threads`: 0: the caller's own thread does the work at once."""
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name="converter", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Converters:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def most(self) -> int:
        """How many jobs may usefully be open: one for each thread, and two that wait. Each keeps a frame in memory."""
        return len(self._threads) + 2 if self._threads else 0

    def submit(self, work: Callable[[], None]) -> Job:
        """Have it done."""
        job = Job(work)
        self._waiting.put(job) if self._threads else job.run()
        return job

    def _serve(self) -> None:
        while (job := self._waiting.get()) is not None:
            job.run()
            del job  # so that nothing is kept alive while the thread waits

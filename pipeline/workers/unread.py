"""Videos whose content nobody knows yet: workers read them, since one machine's network would be too narrow for all.

A worker that has fetched a video from a store looks at its header, too, so that a long one can be divided.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from extractors.decode.video import VideoError
from pipeline.cache.content import keep_in_mind
from pipeline.workers.engine import Done, Engine, Item, Request
from pipeline.workers.planning import place_for
from pipeline.workers.tasks import Report, Task
from support.errors import BUG, ENVIRONMENT, exit_code


class Unread:
    """The videos of a run that workers were asked about, by a name for each, and the answers."""

    def __init__(self, engine: Engine, request: Request, tries: int) -> None:
        """`tries`: how often a video is asked about."""
        self.engine, self.request, self.most = engine, request, tries
        self.asked: dict[str, Item] = {}
        self.answers: deque[Report] = deque()
        self.failed: deque[Done] = deque()
        self.tries: Counter[str] = Counter()
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self.asked or self.answers)

    def ask(self, item: Item) -> Task:
        """The task to find out the content of a video."""
        self._count += 1
        name = f"unread{self._count}"
        self.asked[name] = item
        return self._task(name, item)

    def again(self) -> Iterator[Task]:
        """The tasks whose answers have not come: a worker died, or the round broke off."""
        answered = {report.task.content for report in self.answers}
        for name, item in list(self.asked.items()):
            if name not in answered:
                yield self._task(name, item)

    def _task(self, name: str, item: Item) -> Task:
        path, home = place_for(item.video, self.engine)
        long = not isinstance(path, Path) and (path.size is None or path.size > self.engine.small)
        return Task(path, name, self.request.stretch, None, home, unread=True, long=long)

    def take(self, report: Report) -> None:
        """Note an answer.

        Raises:
            EnvironmentMissing: the worker's machine lacks something, and the next video would fail too.
        """
        name, error = report.task.content, report.error
        if name not in self.asked:
            return
        if error is not None and exit_code(error) == ENVIRONMENT:
            raise error
        if report.content is not None:
            self.answers.append(report)
        elif error is not None:
            self.tries[name] += 1
            if exit_code(error) != BUG or self.tries[name] >= self.most:
                self._fail(name, error)

    def next_item(self) -> Item | None:
        """A video whose content is known by now, if something is to be done about it; None if there is no answer left.

        Called where videos come into the run, by one thread at a time.
        """
        while self.answers:
            report = self.answers.popleft()
            if (item := self.asked.pop(report.task.content, None)) is None:
                continue
            assert report.content is not None
            keep_in_mind(item.video, report.content)
            try:
                found = self.request.identified(item, report.content)
            except Exception as error:
                self.failed.append(Done(item, error=error))
                continue
            if found is not None:
                return dataclasses.replace(found, length=report.length)
        return None

    def settle(self, broken: bool, deaths: Counter[str], crashes: int) -> None:
        """After a round: let videos fail over which workers died, or that no worker answers for."""
        answered = {report.task.content for report in self.answers}
        for name, item in list(self.asked.items()):
            if name in answered:
                continue
            self.tries[name] += not broken
            if deaths[name] >= crashes:
                cause = f"{deaths[name]} workers died while reading it; give them more memory, or leave it out."
                self._fail(name, VideoError(f"{item.video}: {cause}"))
            elif self.tries[name] >= self.most:
                cause = f"not read after {self.tries[name]} tries; check that the workers can read it."
                self._fail(name, VideoError(f"{item.video}: {cause}"))

    def failures(self) -> Iterator[Done]:
        """The videos that failed since the last time."""
        while self.failed:
            yield self.failed.popleft()

    def _fail(self, name: str, error: Exception) -> None:
        self.failed.append(Done(self.asked.pop(name), error=error))

"""Workers on a Ray cluster: actors that live as long as the run; one that dies costs the chunk that it had.

joblib's backend for Ray returns everything at the end, so the machine that runs would hold all results of a night.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.workers.engine import Engine
from pipeline.workers.tasks import Report, Setup, Task

LOOK = 10.0  # seconds between two looks at how large the cluster is
FAILURES = 3  # so many actors in a row that do not start mean that none will

Work = Callable[[Setup, Task, Path], Report]


class Worker:
    """What lives in a process of the cluster."""

    def ready(self) -> bool:
        """Return True as soon as the process is there."""
        return True

    def do(self, work: Work, setup: Setup, task: Task, folder: Path) -> Report:
        """Do a task."""
        return work(setup, task, folder)


class Actors:
    """The workers of a run, on a Ray that is connected already."""

    def __init__(self, engine: Engine) -> None:
        import ray

        self.ray, self.jobs = ray, engine.jobs
        needs: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0}
        if engine.gpus_per_worker:
            needs["num_gpus"] = engine.gpus_per_worker
        self.kind: Any = ray.remote(**needs)(Worker)
        self.starting: dict[Any, Any] = {}
        self.idle: list[Any] = []
        self.busy: dict[Any, tuple[Any, Task]] = {}
        self.failures, self.looked, self.wanted = 0, -LOOK, 0

    def reports(self, work: Work, setup: Setup, tasks: Iterator[Task], folder: Path) -> Iterator[Report]:
        """Have workers do the tasks; gives each report as it comes back.

        The report of a worker that died is empty: what it left in the folder of the run says what it was doing.
        """
        more, shared = True, self.ray.put(setup)
        self.starting |= {actor.ready.remote(): actor for actor, _ in self.busy.values()}  # of a round that broke off
        self.busy = {}
        while more or self.busy:
            self._grow()
            while more and self.idle:
                if (task := next(tasks, None)) is None:
                    more = False
                else:
                    actor = self.idle.pop()
                    self.busy[actor.do.remote(work, shared, task, folder)] = (actor, task)
            if self.busy or more:
                ready, _ = self.ray.wait([*self.busy, *self.starting], timeout=LOOK)
                for answer in ready:
                    if answer in self.starting:
                        self._started(answer)
                    else:
                        yield self._report(answer)

    def _grow(self) -> None:
        """Start a worker for each that is wanted and not there: at first, after a death, when a node has joined."""
        if time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            self.wanted = self.jobs if self.jobs > 0 else max(int(self.ray.cluster_resources().get("CPU", 1)), 1)
        for _ in range(self.wanted - len(self.starting) - len(self.idle) - len(self.busy)):
            actor = self.kind.remote()
            self.starting[actor.ready.remote()] = actor

    def _started(self, answer: Any) -> None:
        actor = self.starting.pop(answer)
        try:
            self.ray.get(answer)
        except self.ray.exceptions.RayError:
            self.failures += 1
            if self.failures == FAILURES:
                self.failures = 0
                raise
        else:
            self.failures = 0
            self.idle.append(actor)

    def _report(self, answer: Any) -> Report:
        actor, task = self.busy.pop(answer)
        try:
            report: Report = self.ray.get(answer)
        except self.ray.exceptions.RayActorError:
            return Report(task)
        self.idle.append(actor)
        return report

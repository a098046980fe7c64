"""What a run over several videos shows while it works: bars, with the time that is left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress, TaskProgressColumn

from commands.remaining import Remaining
from commands.terminal import STAGES, drawn, err, escape
from postprocess.formats.writers import clock

if TYPE_CHECKING:
    from pipeline.run.outcome import Outcome
    from pipeline.run.videos import Job

SHOWN = 8  # videos that have a bar at the same time
READING = ("hash", "fetch", "wait")  # stages before any work


class Bars:
    """One bar over all videos, by seconds of video, and one for each that is at work."""

    def __init__(self, jobs: "Sequence[Job]", remaining: Remaining, begun: Callable[[], None]) -> None:
        """`begun`: is called while no bars are drawn, as soon as a video is not only read but worked on."""
        self.jobs, self.remaining, self.begun = jobs, remaining, begun
        self.total, self.finished = len(jobs), 0
        self.live: Progress | None = None
        self.tasks: dict[Path, Any] = {}
        self._lock = threading.RLock()  # workers' progress comes from a thread of its own
        self._away = False
        self._ended = threading.Event()

    def __enter__(self) -> "Bars":
        threading.Thread(target=self._read_headers, name="headers", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.clear()

    def _read_headers(self) -> None:
        """Read how long the videos are, while the work goes on. Only the estimate waits for this."""
        from extractors.decode.headers import durations

        names = {job.video: job.name for job in self.jobs if isinstance(job.video, Path)}
        for path, seconds in durations(list(names), self._ended.is_set):
            with self._lock:
                self.remaining.header(names[path], seconds)

    def video(self, job: "Job") -> Any:
        """The progress function of one video."""

        def on_progress(stage: str, done: int, total: int) -> None:
            with self._lock:
                self.remaining.told(job.name, stage, done, total, time.monotonic())
                if not self._away:
                    show(stage, done, total)

        def show(stage: str, done: int, total: int) -> None:
            if stage == "compile" and done < total:  # said also where bars are not drawn
                self.clear()
                err.print(f"[dim]{STAGES[stage]}[/]")
            if stage not in READING:
                self.begun()
            live = self._live()
            if job.name not in self.tasks:
                if len(self.tasks) >= SHOWN:
                    return
                self.tasks[job.name] = live.add_task("", total=1)
            label = f"  {escape(job.video.name)} {STAGES.get(stage, stage)}"
            live.update(self.tasks[job.name], description=label, completed=done, total=max(total, done))
            self._overall()

        return on_progress

    def done(self, outcome: "Outcome") -> None:
        """Count a video as done."""
        with self._lock:
            self.finished += 1
            self.remaining.finished(outcome.job.name, outcome.seconds)

    def clear(self) -> None:
        """Remove the bars."""
        with self._lock:
            live, self.live, self.tasks = self.live, None, {}
            if live is not None:
                live.stop()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Remove the bars while the block prints; otherwise they would be drawn over what it prints."""
        self.clear()
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def _live(self) -> Progress:
        if self.live is None:
            self.live = drawn(TaskProgressColumn())
            self.overall = self.live.add_task("", total=1.0)
            self.live.start()
        return self.live

    def _overall(self) -> None:
        """Update the bar over all videos, with the time left as soon as it can be estimated."""
        left, total = self.remaining.left(time.monotonic()), self.remaining.total()
        said = "" if left is None else f", {clock(left).partition('.')[0]} left"
        share = self.remaining.through() / total if total else self.finished / self.total
        if self.live is not None:
            label = f"{self.finished} of {self.total} videos{said}"
            self.live.update(self.overall, description=label, completed=share, total=1.0)

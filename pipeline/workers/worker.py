"""The work of a worker, on any machine: it extracts chunks of videos into the cache, and loads the weights once.

The worker that ends a video finishes it: it joins the chunks, runs JCDNet, and returns the result and its files as
bytes, or writes the files itself where it has proved that it can.

While it works on a part, a marker file in the run's folder shows its progress. The marker stays if the worker dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from extractors.decode.video import VideoError
from extractors.features import Extractor
from pipeline.cache.content import at_hand, content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import Extraction
from pipeline.workers.ending import end, tell
from pipeline.workers.planning import probe
from pipeline.workers.tasks import END, Report, Setup, Task, name_of
from support.errors import BUG, FULL, DiskFull, EnvironmentMissing, Stopped, as_bug, circumstance, exit_code
from support.files import is_alive
from support.locks import Lock

TELL = 0.5  # seconds between two messages to the run, and between two looks at whether it still exists

_held = threading.local()  # Dask may run several threads in a worker, and an extractor belongs to one thread
_slots: list[Lock] = []


def crashes(run: Path, content: str, first: int) -> int:
    """The number of workers that started on a part, and neither finished it nor gave it back."""
    return len(list(run.glob(f"{name_of(content, first)}.*")))


def read_marker(path: Path) -> dict[str, Any]:
    """The content of a worker's marker; empty while the worker is writing it."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text()))
    return {}


def die_with(driver: str) -> None:
    """End this worker as soon as the run with this `identity` has ended; loky's workers would stay for minutes."""

    def watch() -> None:
        while is_alive(driver):
            time.sleep(TELL)
        os._exit(1)

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the run handles it
    threading.Thread(target=watch, name="driver", daemon=True).start()


def work(setup: Setup, task: Task, run: Path) -> Report:
    """Extract a chunk into the cache; errors are returned, so that the error of one video ends no other."""
    messages: list[str] = []
    marker = _Marker(run, task)
    try:
        if marker.crashed_before() or (run / "stop").exists() or (run / f"skip-{task.content}").exists():
            return Report(task)
        marker.begin(task.first)
        if task.home is not None:  # loky's workers stay in the folder of the run that started them
            os.chdir(task.home)
        if task.unread:
            report = _read(setup, task, run, marker)
            marker.end()
            return report
        extractor = _extractor(setup, run)
        if task.chunk is not None:
            cache = FeatureCache(setup.cache, setup.part)
            state = Extraction(cache, task.video, task.content, extractor, task.stretch, messages.append, strict=True)
            if task.order is None or not state.assume():  # otherwise a worker ended it, and died before it said so
                state.extract(task.chunk, marker.progress, marker.stop, each=True, on_part=marker.begin)
            del state
        if task.order is None or marker.stop():
            finished, worked = None, True
        else:
            tell(run, task, messages)
            marker.begin(END)
            finished, worked = end(setup, task, run, extractor, marker.progress, marker.stop)
    except OSError as error:
        marker.end()
        if error.errno in FULL:
            return Report(
                task, DiskFull(f"{setup.cache}: no room left for features; make some and run again."), messages
            )
        return Report(task, circumstance(error) or as_bug(error, task.video), messages)
    except Exception as error:
        marker.end()
        # Converted here: pickling drops tracebacks, and an error that cannot be pickled would end the worker.
        return Report(task, as_bug(error, task.video) if exit_code(error) == BUG else error, messages)
    marker.end()
    return Report(task, None, messages, finished, worked or task.chunk is not None)


def _read(setup: Setup, task: Task, run: Path, marker: _Marker) -> Report:
    """The content of a video, and its length if that is asked for; nothing if the run stops."""

    def on_progress(stage: str, done: int, total: int) -> None:
        marker.progress(stage, done, total)
        if marker.stop():
            raise Stopped

    try:
        content, length = content_hash(task.video, on_progress), None
    except Stopped:
        return Report(task)
    if task.long:
        extractor = _extractor(setup, run)
        with contextlib.suppress(VideoError), at_hand(task.video, content) as path:  # whoever extracts it, says so
            length = probe(extractor, path)
    return Report(task, content=content, length=length)


class _Marker:
    """The file that shows what a worker is working on."""

    def __init__(self, run: Path, task: Task) -> None:
        self.run, self.task = run, task
        self.path: Path | None = None
        self.written = self.asked = 0.0
        self.stopped = False

    def crashed_before(self) -> bool:
        """Whether two workers died over the first part already; some engines hand a task out again by themselves."""
        return crashes(self.run, self.task.content, self.task.first) >= 2

    def begin(self, first: int) -> None:
        """Start on a part. The part before is done, so markers that dead workers left for it are removed."""
        self.end()
        self.path = self.run / f"{name_of(self.task.content, first)}.{uuid.uuid4().hex[:8]}"
        self.progress("begin", 0, 1)

    def end(self) -> None:
        """Remove the marker, and those that dead workers left for the same part."""
        if self.path is not None:
            for path in self.run.glob(f"{self.path.stem}.*"):
                path.unlink(missing_ok=True)
        self.path = None

    def progress(self, stage: str, done: int, total: int) -> None:
        """Write the progress into the marker from time to time."""
        if self.path is not None and (stage == "begin" or time.monotonic() - self.written > TELL):
            self.written = time.monotonic()
            with contextlib.suppress(OSError):
                self.path.write_text(
                    json.dumps({"content": self.task.content, "stage": stage, "done": done, "total": total})
                )

    def stop(self) -> bool:
        """Whether the run stops or is gone."""
        if time.monotonic() - self.asked > TELL:
            self.asked = time.monotonic()
            # A run that was killed leaves its folder behind; the folder's name tells which process it was.
            gone = not self.run.exists() or is_alive(self.run.name.split(".")[2]) is False
            self.stopped = gone or (self.run / "stop").exists()
        return self.stopped


def _extractor(setup: Setup, run: Path) -> Extractor:
    """The extractor of this worker, which is made once."""
    if getattr(_held, "setup", None) != setup:
        import torch

        if setup.threads:
            torch.set_num_threads(setup.threads)
        device = _gpu(run, torch.cuda.device_count()) if setup.device == "cuda" else setup.device
        weights = {name: None if file is None else Path(file) for name, file in setup.weights}
        made = Extractor(setup.config, setup.streams, device, weights, setup.limits, setup.threads, dict(setup.ways))
        if json.dumps(made.settings(), sort_keys=True) != setup.settings:
            raise EnvironmentMissing(
                "a worker has other versions or weights than this machine, and would make other features "
                f"({_difference(made.settings(), json.loads(setup.settings))}); install the same on both."
            )
        _held.setup, _held.extractor = setup, made
    found: Extractor = _held.extractor
    return found


def _difference(theirs: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]]) -> str:
    for stream, settings in ours.items():
        for name, value in settings.items():
            if (other := theirs.get(stream, {}).get(name)) != value:
                return f"{name} of {stream}: {other} there, {value} here"
    return "streams"


def _gpu(run: Path, count: int) -> str:
    """A local GPU that no other worker of the run uses, if there are several."""
    if count < 2:
        return "cuda"
    for index in range(count):
        lock = Lock(run / f"gpu-{index}.lock")
        if lock.take():
            _slots.append(lock)  # for as long as this process lives
            return f"cuda:{index}"
    return "cuda"

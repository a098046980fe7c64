"""The end of a video in a worker: it joins the parts, runs JCDNet, and writes the result or returns it as bytes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

from extractors.features import Extractor
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import Extraction
from pipeline.run.outcome import Finished, Order, finish, packed, write
from pipeline.workers.engine import with_warnings
from pipeline.workers.tasks import MODEL, Setup, Task
from support.files import write_atomically, write_temporary
from support.locks import Lock
from support.progress import Progress

_held = threading.local()


def tell(run: Path, task: Task, messages: list[str]) -> None:
    """Leave messages about a video's cache for the worker that will finish it: they belong in the result."""
    if messages:
        write_atomically(run / f"told-{task.content}" / f"{task.first}.json", json.dumps(messages).encode())


def _told(run: Path, content: str) -> list[str]:
    files = sorted((run / f"told-{content}").glob("*.json"), key=lambda file: int(file.stem))
    return [message for file in files for message in json.loads(file.read_bytes())]


def end(
    setup: Setup, task: Task, run: Path, extractor: Extractor, on_progress: Progress, stop: Callable[[], bool]
) -> tuple[Finished | None, bool]:
    """(the result, whether more had to be extracted); no result if other workers still have parts of the video.

    Raises:
        VideoError, ReadError: as `Extraction.finish`.
        OutputError: another file is in the way of the result.
        EnvironmentMissing: this machine has another model than the run.
        OSError: the cache cannot be written.
    """
    assert setup.localizer is not None and task.order is not None
    lock = Lock(run / f"end-{task.content}.lock")
    if not (lock.take() if task.chunk is not None else lock.wait(stop)):
        return None, False
    with lock.held():
        cache, worked = FeatureCache(setup.cache, setup.part), False
        messages: list[str] = []
        state = Extraction(cache, task.video, task.content, extractor, task.stretch, messages.append, strict=True)
        if (features := state.found()) is None:
            state.look()
            if task.chunk is not None and state.chunks():
                return None, False
            while (chunk := state.next_chunk()) is not None:  # an entry of the cache was damaged
                state.extract(chunk, on_progress, stop)
                worked = True
                if stop():
                    return None, True
            features = state.finish()
        model = run / MODEL
        pipeline = setup.localizer.adopt(extractor, cache, model if model.exists() else None)
        features = with_warnings(features, [*_told(run, task.content), *messages])
        finished = finish(pipeline, task.order, task.content, features, task.stretch)
        if _may_write(setup, task.order):
            return write(finished, task.order), worked
        return packed(finished, task.order), worked


def _may_write(setup: Setup, order: Order) -> bool:
    """Whether this worker sees the run's own output folder, and can write there; it tries once for each run."""
    if setup.proof is None or order.drawn or order.only is not None:
        return False
    if getattr(_held, "proof", None) != setup.proof:
        _held.proof, _held.proved = setup.proof, False
        with contextlib.suppress(OSError):
            if setup.proof.read_text() == setup.secret:
                write_temporary(setup.proof.parent, "write-test", b"jcdnet").unlink()
                _held.proved = True
    return bool(_held.proved)

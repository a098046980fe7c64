"""Features of many videos: extracted in this process, or by workers (scheduler.py)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from pipeline.workers.engine import Done, Engine, Item, Request, clear_runs, with_warnings
from support.errors import Busy, Stopped
from support.progress import Progress


def extract(engine: Engine, request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """The features of the videos, each as soon as it is done.

    Raises:
        Stopped: `request.stop` returned true; whatever is complete is in the cache.
        EnvironmentMissing: no worker can work.
    """
    clear_runs(request.cache.folder)
    if engine.here:
        yield from _here(request, items)
        return
    from pipeline.workers.scheduler import Scheduler  # here, since it loads joblib

    yield from Scheduler(engine, request).run(items)


def _here(request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """One video after the other; videos that another process is working on come last."""
    later: list[Item] = []
    for item, wait in itertools.chain(((i, False) for i in items), ((i, True) for i in later)):
        messages: list[str] = []
        worked: list[str] = []
        progress = request.on_progress(item)

        def on_progress(stage: str, done: int, total: int, show: Progress = progress, w: list[str] = worked) -> None:
            w.append(stage) if stage != "wait" and not w else None
            show(stage, done, total)

        try:
            features = request.cache.features(
                item.video,
                item.content,
                request.extractor,
                request.stretch,
                on_progress,
                messages.append,
                request.stop,
                wait,
            )
        except Busy:
            later.append(item)
        except Stopped:
            raise
        except Exception as error:
            yield Done(item, error=error)
        else:
            yield Done(item, with_warnings(features, messages), cached=not worked)
        if request.stop():
            raise Stopped

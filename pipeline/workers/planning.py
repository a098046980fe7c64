"""What the scheduler knows of each video, and how a video's missing parts become tasks."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from extractors.config import NOTHING, Stretch
from extractors.features import Extractor
from extractors.snippets import snippet_range
from pipeline.cache.content import Video as Source
from pipeline.cache.content import at_hand, size_of
from pipeline.cache.extraction import Chunk, Extraction
from pipeline.run.outcome import Finished
from pipeline.workers.ending import tell
from pipeline.workers.engine import Engine, Item, Request
from pipeline.workers.tasks import END, Setup, Task
from support.locks import Lock

RUN_PARTS = 16  # most parts in one task: 11 minutes of video


class Shared:
    """An iterator that joblib's threads and ours share; one thread at a time takes an item."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)


@dataclass
class Video:
    """A video that workers are working on."""

    item: Item
    state: Extraction
    lock: Lock
    messages: list[str] = field(default_factory=list)
    tasks: int = 0
    """tasks of this round that were handed out and have not come back"""
    planned: bool = False
    """whether all tasks of this round are handed out"""
    error: Exception | None = None
    cached: bool = False
    """whether all features were in the cache, and nothing was extracted"""
    finished: Finished | None = None


class Planner:
    """Cuts videos into tasks for the workers of a run."""

    def __init__(self, engine: Engine, request: Request, setup: Setup, folder: Path) -> None:
        """`folder`: that of the run."""
        self.engine, self.request, self.part, self.folder = engine, request, setup.part, folder
        self.workers = 1

    def cut(self, video: Video) -> Iterator[Task]:
        """Tasks for what is missing of a video; a long file that allows seeking is divided between workers."""
        self.look(video)
        for chunk in video.state.chunks():
            # Workers on other machines fetch a video from a store themselves, and whole.
            fetched = self.engine.kind != "local" and not isinstance(video.item.video, Path)
            small = video.item.length is None if fetched else size_of(video.item.video) <= self.engine.small
            if chunk.from_start or small:
                yield self.task(video, chunk)
                continue
            total, seekable = video.item.length or self._measured(video)
            last = int(min(chunk.last, total))
            if not seekable or last <= chunk.first:
                yield self.task(video, chunk)
                continue
            part = self.part
            parts = math.ceil((last - chunk.first) / part)
            # Fetching it once more must be worth it: the most parts that a task takes mean a minute on two cores.
            step = part * (RUN_PARTS if fetched else max(1, min(RUN_PARTS, math.ceil(parts / (4 * self.workers)))))
            edges = [chunk.first, *range((chunk.first // step + 1) * step, last, step), chunk.last]
            for a, b in itertools.pairwise(edges):
                yield self.task(video, dataclasses.replace(chunk, first=int(a), last=b))

    def _measured(self, video: Video) -> tuple[float, bool]:
        with at_hand(video.item.video, video.item.content) as path:
            return probe(self.request.extractor, path)

    def look(self, video: Video) -> None:
        """See which parts are there. If workers finish the video, their numbers are of no use here."""
        if video.item.order is not None:
            video.state.assume()
        video.state.look()
        if video.item.order is not None:
            video.state.drop_rows()

    def task(self, video: Video, chunk: Chunk | None) -> Task:
        """The task to extract a chunk; None: to finish the video."""
        path, home = place_for(video.item.video, self.engine)
        order = video.item.order
        if order is not None and order.target is not None and home is None:
            order = dataclasses.replace(order, target=order.target.absolute())
        task = Task(path, video.item.content, self.request.stretch, chunk, home, order)
        if order is not None and video.messages:
            tell(self.folder, dataclasses.replace(task, chunk=None), video.messages)
        return task

    def first(self, video: Video) -> int:
        """The first snippet that is missing; END if none is, and a worker has to finish the video."""
        chunk = video.state.next_chunk()
        return (0 if video.item.order is None else END) if chunk is None else chunk.first


def place_for(video: Source, engine: Engine) -> tuple[Source, Path | None]:
    """(where workers find a video, the folder that a relative path starts from)."""
    # Local workers change to the folder of this run, so that messages name the file as the user did. Workers on other
    # machines cannot.
    if not isinstance(video, Path) or video.is_absolute():
        return video, None
    return (video, Path.cwd()) if engine.kind == "local" else (video.absolute(), None)


def probe(extractor: Extractor, video: Path) -> tuple[float, bool]:
    """The number of snippets by a video's header, and whether the file allows seeking; asked in the decoder's process.

    Raises:
        VideoError: it cannot be opened.
    """
    with extractor.decoder.open(video, extractor.config, NOTHING) as (clip, frames):
        for _ in frames:
            pass
    _, total = snippet_range(Stretch(0.0, clip.info.duration), clip.origin, extractor.config)
    return total, clip.seekable

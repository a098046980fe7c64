"""Where extraction happens, and what is extracted: the choice of workers, the request of a run, and its work here."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.config import WHOLE, Stretch, cores
from extractors.features import Extractor, Features
from pipeline.api import Pipeline
from pipeline.cache.content import Content, Video, size_of
from pipeline.cache.entries import FeatureCache
from pipeline.run.outcome import Finished, Order
from support.errors import Busy, EnvironmentMissing, Stopped, UsageError
from support.files import sweep
from support.progress import Progress, silent

ENGINES = ("local", "dask", "ray")
SMALL = 8 << 20  # bytes; a smaller file is not worth dividing between workers
WORKER_BYTES = 2 << 30  # memory of a worker: the networks, a batch, and its decoder
RUNS = "runs"  # folder in the cache that holds a folder for each run with workers
WORTH_IT = 8  # with this many videos, starting workers (some seconds) pays


@dataclass(frozen=True)
class Engine:
    """Where the work is done. One local job means this process itself."""

    kind: str = "local"
    """local, dask or ray"""
    jobs: int = 1
    """number of workers; -1: all that a cluster has"""
    address: str | None = None
    """address of Dask's scheduler or Ray's head"""
    gpus_per_worker: float = 0.0
    """number of GPUs that the cluster must give each worker"""
    small: int = SMALL
    """bytes; a smaller file is a single task"""

    def __post_init__(self) -> None:
        if self.kind not in ENGINES:
            raise UsageError(f"--engine must be one of {', '.join(ENGINES)}, not {self.kind!r}.")
        if self.kind == "local" and (self.address or self.gpus_per_worker):
            raise UsageError("--address and --gpus-per-worker are for a cluster; add --engine dask or ray.")
        if self.kind == "dask" and not self.address:
            raise UsageError("--engine dask needs its scheduler: --address tcp://HOST:8786 (`dask scheduler`).")
        if self.jobs == 0 or self.jobs < -1:
            raise UsageError(f"--jobs must be 1 or more, or auto, not {self.jobs}.")

    @property
    def here(self) -> bool:
        """Whether this process does the work."""
        return self.kind == "local" and self.jobs == 1

    @property
    def threads(self) -> int | None:
        """Threads of a worker; None: as many as there are cores.

        PyTorch gives the same bytes with one and two threads. With three or more, one shape of MKL's differs (7e-7).
        """
        if self.here:
            return None
        return max(1, min(2, cores() // self.jobs)) if self.kind == "local" else 1


def choose_jobs(asked: str | None, kind: str, device: str, videos: Iterable[Video]) -> int:
    """The number of workers for `--jobs`: a number, or auto.

    auto gives one worker for each GPU. On the CPU it gives one for each core, as far as memory allows, when there is
    enough work to make up for starting them.

    Raises:
        UsageError: it is neither a number nor auto.
    """
    if asked is None:
        return 1 if kind == "local" else -1
    if asked != "auto":
        if not asked.isdigit() or int(asked) < 1:
            raise UsageError(f"--jobs must be a number from 1 on, or auto, not {asked!r}.")
        return int(asked)
    if kind != "local":
        return -1
    if device.startswith("cuda"):
        import torch

        return 1 if ":" in device else max(torch.cuda.device_count(), 1)
    sizes = [size for size in map(size_of, videos) if size]
    if len(sizes) < WORTH_IT and sum(sizes) < 2 * SMALL:
        return 1
    most = min(cores(), max(int(_free_memory() // WORKER_BYTES), 1))
    return min(most, max(len(sizes), sum(sizes) // SMALL))


def _free_memory() -> float:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return math.inf


@dataclass(frozen=True)
class Item:
    """A video to extract."""

    video: Video
    content: str
    """"" if a worker has to find it out"""
    key: Any = None
    """the caller's own name for it"""
    order: Order | None = None
    """what workers make of its features; None: the features themselves are wanted"""
    length: tuple[float, bool] | None = None
    """(number of snippets by its header, whether the file allows seeking), if a worker has looked"""


@dataclass(frozen=True)
class Done:
    """The outcome of an item."""

    item: Item
    features: Features | None = None
    finished: Finished | None = None
    """its result, if a worker has made it"""
    error: Exception | None = None
    cached: bool = False
    """whether all of it was in the cache already"""


@dataclass(frozen=True)
class Request:
    """What all videos of a run share."""

    extractor: Extractor
    cache: FeatureCache
    stretch: Stretch = WHOLE
    on_progress: Callable[[Item], Progress] = lambda item: silent
    stop: Callable[[], bool] = lambda: False
    pipeline: Pipeline | None = None
    """what workers use for items with an order"""
    out: Path | None = None
    """the folder of the results; workers that can write there do"""
    identified: Callable[[Item, Content], Item | None] = lambda item, content: dataclasses.replace(
        item, content=content
    )
    """what becomes of an item whose content a worker has found out; None: nothing is to be done"""


def clear_runs(folder: Path) -> None:
    """Remove what killed runs left in the cache's folder of runs, and the folder itself if nobody uses it."""
    with contextlib.suppress(OSError):
        sweep(folder / RUNS)
        (folder / RUNS).rmdir()


def with_warnings(features: Features, messages: list[str]) -> Features:
    """The features, with messages about the cache added to their warnings, each once."""
    return dataclasses.replace(features, warnings=(*features.warnings, *dict.fromkeys(messages)))


def check_engine(engine: Engine) -> None:
    """Check, before any work, that the packages of the engine are installed.

    Raises:
        EnvironmentMissing: they are not.
    """
    from importlib.util import find_spec

    package = {"dask": "distributed", "ray": "ray"}.get(engine.kind)
    if package is not None and find_spec(package) is None:
        raise EnvironmentMissing(f"--engine {engine.kind} needs {package}: pip install {package}.")


def extract_here(request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """Extract in this process, one video after the other; videos that another process is working on come last.

    Raises:
        Stopped: `request.stop` returned true; whatever is complete is in the cache.
    """
    later: list[Item] = []
    ahead = hasattr(request.extractor.decoder, "expect")  # beside a GPU
    known = _looking_ahead(request, items) if ahead else items
    for item, wait in itertools.chain(((i, False) for i in known), ((i, True) for i in later)):
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


def _looking_ahead(request: Request, items: Iterable[Item]) -> Iterator[Item]:
    """The items; the extractor learns of each which video comes after it, so that its decoding can begin."""
    try:
        for item, following in itertools.pairwise(itertools.chain(items, [None])):
            assert item is not None
            if isinstance(item.video, Path):
                request.extractor.expect(item.video, _fresh(request, following), request.stretch)
            yield item
    finally:
        request.extractor.expect(Path(), None)


def _fresh(request: Request, item: Item | None) -> Path | None:
    """The file of an item, if all of it will be decoded."""
    if item is None or not isinstance(item.video, Path):
        return None
    with contextlib.suppress(OSError):  # no permission
        if request.cache.untouched(item.content, request.extractor, request.stretch):
            return item.video
    return None

"""Where extraction is done: in this process, or by workers of loky, Dask or Ray (fleet.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.config import WHOLE, Stretch
from extractors.features import Extractor, Features
from extractors.flow.tvl1 import cores
from pipeline.cache.entries import FeatureCache
from support.errors import Busy, EnvironmentMissing, Stopped, UsageError
from support.files import sweep
from support.progress import Progress, silent

ENGINES = ("local", "dask", "ray")
SMALL = 8 << 20  # bytes of a file that is not worth to be cut over workers
WORKER_BYTES = 2 << 30  # of memory that a worker takes: networks, a batch, and its decoder
RUNS = "runs"  # in the cache: a folder for each run that has workers
WORTH_IT = 8  # videos from which on starting workers (some seconds) pays


@dataclass(frozen=True)
class Engine:
    """Where the work is done. One local job is this process itself."""

    kind: str = "local"
    """local, dask or ray"""
    jobs: int = 1
    """workers; -1: all that a cluster has"""
    address: str | None = None
    """of Dask's scheduler or Ray's head"""
    gpus_per_worker: float = 0.0
    """what the cluster is asked for"""
    small: int = SMALL
    """bytes of a file that is one task"""

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

        Up to two, PyTorch gives the same bytes for any number; from three on one shape of MKL's does not (7e-7).
        """
        if self.here:
            return None
        return max(1, min(2, cores() // self.jobs)) if self.kind == "local" else 1


def choose_jobs(asked: str | None, kind: str, device: str, videos: Iterable[Path]) -> int:
    """Workers for what `--jobs` says: a number, or auto.

    auto: a worker for each GPU, else for each core that has the memory, where there is enough to do for them to be
    worth their start.

    Raises:
        UsageError: neither.
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
    sizes = [path.stat().st_size for path in videos if path.is_file()]
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
    """A video that is to have features."""

    video: Path
    content: str
    key: Any = None
    """whatever the caller knows it by"""


@dataclass(frozen=True)
class Done:
    """What became of it."""

    item: Item
    features: Features | None = None
    error: Exception | None = None
    cached: bool = False
    """whether nothing had to be extracted"""


@dataclass(frozen=True)
class Request:
    """What all videos of a run have in common."""

    extractor: Extractor
    cache: FeatureCache
    stretch: Stretch = WHOLE
    on_progress: Callable[[Item], Progress] = lambda item: silent
    stop: Callable[[], bool] = lambda: False


def extract(engine: Engine, request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """Features of videos, as they are done.

    Raises:
        Stopped: `request.stop` said so; what is complete is in the cache.
        EnvironmentMissing: no worker can work.
    """
    clear_runs(request.cache.folder)
    if engine.here:
        yield from _here(request, items)
        return
    from pipeline.workers.scheduler import Fleet  # which imports this, and joblib

    yield from Fleet(engine, request).run(items)


def clear_runs(folder: Path) -> None:
    """Take away what killed runs left in the cache's folder of runs, and that folder when nobody uses it."""
    with contextlib.suppress(OSError):
        sweep(folder / RUNS)
        (folder / RUNS).rmdir()


def _here(request: Request, items: Iterable[Item]) -> Iterator[Done]:
    """One after the other; those that another process is at work on come last."""
    later: list[Item] = []
    for item, wait in itertools.chain(((i, False) for i in items), ((i, True) for i in later)):
        said: list[str] = []
        worked: list[str] = []
        progress = request.on_progress(item)

        def on_progress(stage: str, done: int, total: int, tell: Progress = progress, w: list[str] = worked) -> None:
            w.append(stage) if stage != "wait" and not w else None
            tell(stage, done, total)

        try:
            features = request.cache.features(
                item.video,
                item.content,
                request.extractor,
                request.stretch,
                on_progress,
                said.append,
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
            yield Done(item, told(features, said), cached=not worked)
        if request.stop():
            raise Stopped


def told(features: Features, said: list[str]) -> Features:
    """With what was said about the cache on the way."""
    return dataclasses.replace(features, warnings=(*features.warnings, *dict.fromkeys(said)))


def check_engine(engine: Engine) -> None:
    """Before any work: whether the packages of the engine are here.

    Raises:
        EnvironmentMissing: they are not.
    """
    from importlib.util import find_spec

    package = {"dask": "distributed", "ray": "ray"}.get(engine.kind)
    if package is not None and find_spec(package) is None:
        raise EnvironmentMissing(f"--engine {engine.kind} needs {package}: pip install {package}.")

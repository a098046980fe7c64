"""The engines: joblib's loky on this machine, its Dask on a cluster, and Ray."""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib

from pipeline.workers.engine import Engine
from pipeline.workers.tasks import Report, Setup, Task
from pipeline.workers.worker import die_with, work
from support.errors import EnvironmentMissing
from support.files import identity

ANSWER = 20  # seconds to wait for a scheduler


Reports = Callable[[Setup, Iterator[Task], Path], Iterator[Report]]
"""(setup, tasks, folder of the run) -> each report as it comes back"""


@contextlib.contextmanager
def started(engine: Engine) -> Iterator[Reports]:
    """Connect to the engine; gives the function that has its workers do tasks.

    Raises:
        EnvironmentMissing: the engine does not answer.
    """
    if engine.kind == "ray":
        from pipeline.workers.actors import Actors

        with _ray(engine):
            actors = Actors(engine)
            yield lambda setup, tasks, folder: actors.reports(work, setup, tasks, folder)
    else:
        with {"local": _loky, "dask": _dask}[engine.kind](engine):
            yield lambda setup, tasks, folder: _reports(engine, setup, tasks, folder)


def workers(engine: Engine) -> int:
    """The number of workers, while the engine is started."""
    if engine.jobs > 0:
        return engine.jobs
    if engine.kind == "ray":
        import ray

        return max(int(ray.cluster_resources().get("CPU", 1)), 1)
    return max(int(joblib.effective_n_jobs(-1)), 1)


@contextlib.contextmanager
def _loky(engine: Engine) -> Iterator[None]:
    try:
        multiprocessing.Semaphore()
    except (ImportError, OSError) as error:  # /dev/shm is missing, full or read-only
        raise EnvironmentMissing(
            f"workers need semaphores, and this machine gives none ({error}); repair /dev/shm, or leave --jobs out."
        ) from error
    follow = {"initializer": die_with, "initargs": (identity(),)}
    with joblib.parallel_config("loky", inner_max_num_threads=engine.threads, **follow):
        yield


@contextlib.contextmanager
def _dask(engine: Engine) -> Iterator[None]:
    from distributed import Client

    try:
        client = Client(engine.address, timeout=ANSWER)
    except (OSError, ValueError) as error:
        raise EnvironmentMissing(
            f"no Dask scheduler answers at {engine.address} ({error}); start one with `dask scheduler`."
        ) from error
    resources = {"resources": {"GPU": engine.gpus_per_worker}} if engine.gpus_per_worker else {}
    with client, joblib.parallel_config("dask", client=client, **resources):
        _carry(client, engine)
        yield


def _carry(client: Any, engine: Engine) -> None:
    """Import jcdnet in the scheduler and in every worker, also in workers that join later.

    That import makes the packages inside jcdnet's wheel importable.

    Raises:
        EnvironmentMissing: the scheduler or a worker has no jcdnet.
    """
    from distributed import WorkerPlugin

    class Carried(WorkerPlugin):  # defined here, so that pickle sends its code: workers could not import it by name
        def setup(self, worker: Any) -> None:
            importlib.import_module("jcdnet")

    try:
        client.run_on_scheduler(importlib.import_module, "jcdnet")
        client.register_plugin(Carried(), name="jcdnet")
    except ImportError as error:
        raise EnvironmentMissing(
            f"the scheduler at {engine.address} or one of its workers has no jcdnet ({error}); install the same jcdnet "
            "there, or start it in the folder of the checkout."
        ) from error


def _answers(engine: Engine) -> None:
    """Check that something listens at HOST:PORT, since Ray itself would keep trying for more than ten minutes.

    Raises:
        EnvironmentMissing: nothing does.
    """
    host, colon, port = (engine.address or "").rpartition(":")
    if "/" in host or not colon or not port.isdigit():  # ray://… or auto: Ray finds the address itself
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise EnvironmentMissing(
            f"no Ray answers at {engine.address} ({error}); start it with `ray start --head`."
        ) from error


@contextlib.contextmanager
def _ray(engine: Engine) -> Iterator[None]:
    import ray

    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    _answers(engine)
    try:
        ray.init(
            address=engine.address,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentMissing(
            f"no Ray answers at {engine.address} ({error}); start it with `ray start --head`, with the same Ray and "
            "Python there and here, and with the same RAY_AUTH_MODE and token."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _reports(engine: Engine, setup: Setup, tasks: Iterator[Task], folder: Path) -> Iterator[Report]:
    warnings.filterwarnings("ignore", module="joblib")  # it warns of cancelled tasks when we stop, as intended
    calls = (joblib.delayed(work)(setup, task, folder) for task in tasks)
    yield from joblib.Parallel(n_jobs=engine.jobs, return_as="generator_unordered", batch_size=1)(calls)

"""joblib's backends for the engines: loky on this machine, Dask or Ray on a cluster."""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib

from pipeline.workers.engine import Engine
from pipeline.workers.worker import Report, Setup, Task, die_with, done_name, work
from support.errors import EnvironmentMissing
from support.files import identity

ANSWER = 20  # seconds to wait for a scheduler
POLL = 0.5  # seconds between two looks at what Ray's workers have finished


@contextlib.contextmanager
def started(engine: Engine) -> Iterator[None]:
    """Connect to the engine, and make it joblib's backend (for Ray `reports` does that, in its own thread).

    Raises:
        EnvironmentMissing: the engine does not answer.
    """
    start = {"local": _loky, "dask": _dask, "ray": _ray}[engine.kind]
    with start(engine):
        yield


def workers(engine: Engine) -> int:
    """The number of workers, while the engine is started."""
    if engine.jobs > 0:
        return engine.jobs
    if engine.kind == "ray":
        import ray

        return max(int(ray.cluster_resources().get("CPU", 1)), 1)
    return max(int(joblib.effective_n_jobs(-1)), 1)


def _gpus(engine: Engine, name: str) -> dict[str, Any]:
    return {name: engine.gpus_per_worker} if engine.gpus_per_worker else {}


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
    resources = {"resources": _gpus(engine, "GPU")} if engine.gpus_per_worker else {}
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
    from ray.util.joblib import register_ray

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
            f"no Ray answers at {engine.address} ({error}); start it with `ray start --head`."
        ) from error
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


def reports(engine: Engine, setup: Setup, tasks: Iterator[Task], folder: Path) -> Iterator[Report]:
    """Have workers do the tasks; gives each report as it comes back. `folder`: that of the run."""
    warnings.filterwarnings("ignore", module="joblib")  # it warns of cancelled tasks when we stop, as intended
    handed: dict[str, Task] = {}

    def calls() -> Iterator[Any]:
        for task in tasks:
            handed[done_name(task)] = task
            yield joblib.delayed(work)(setup, task, folder)

    if engine.kind == "ray":
        yield from _ray_reports(engine, calls(), handed, folder)
    else:
        yield from joblib.Parallel(n_jobs=engine.jobs, return_as="generator_unordered", batch_size=1)(calls())


def _ray_reports(engine: Engine, calls: Iterator[Any], handed: dict[str, Task], folder: Path) -> Iterator[Report]:
    """Ray's backend returns everything at the end; until then, files in the run's folder show what is done."""
    ended: list[Report] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            # In this thread, since such settings belong to one thread.
            with joblib.parallel_config("ray", ray_remote_args=_gpus(engine, "num_gpus")):
                ended.extend(joblib.Parallel(n_jobs=engine.jobs, batch_size=1)(calls))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="ray", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL)
        for file in folder.glob("done-*"):
            file.unlink(missing_ok=True)
            if (task := handed.pop(file.name, None)) is not None:
                yield Report(task)
    yield from (report for report in ended if handed.pop(done_name(report.task), None) is not None)
    if errors:
        raise errors[0]

"""joblib's backends for the engines: loky on this machine, Dask's own, Ray's."""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib

from pipeline.workers.engine import Engine
from pipeline.workers.worker import die_with
from support.errors import EnvironmentMissing
from support.files import identity

ANSWER = 20  # seconds to wait for a scheduler


@contextlib.contextmanager
def started(engine: Engine) -> Iterator[None]:
    """With the engine connected, and, but for Ray, joblib set to it.

    Raises:
        EnvironmentMissing: it does not answer.
    """
    start = {"local": _loky, "dask": _dask, "ray": _ray}[engine.kind]
    with start(engine):
        yield


def ray_settings(engine: Engine) -> Any:
    """joblib set to Ray, in the thread that uses it: such settings are a thread's own."""
    return joblib.parallel_config("ray", ray_remote_args=_gpus(engine, "num_gpus"))


def workers(engine: Engine) -> int:
    """How many there are, while the engine is started."""
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
            f"workers need semaphores, and this machine gives none ({error}); mend /dev/shm, or leave --jobs out."
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
    """Have the scheduler and every worker, those that come later too, import jcdnet: it finds what its wheel carries.

    Raises:
        EnvironmentMissing: one of them has no jcdnet.
    """
    from distributed import WorkerPlugin

    class Carried(WorkerPlugin):  # a class of a function, so that it is sent whole: its name would not be found there
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
    """Ray itself would try for ten minutes and more.

    Raises:
        EnvironmentMissing: nobody listens at HOST:PORT.
    """
    host, colon, port = (engine.address or "").rpartition(":")
    if "/" in host or not colon or not port.isdigit():  # ray://…, or auto: its own to look up
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

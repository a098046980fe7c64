"""How throughput grows with workers: many short videos, and one long one, by each engine. See cluster.md.

    python benchmarks/cluster.py FOLDER                   # one job, two one-thread jobs, auto; interleaved
    python benchmarks/cluster.py FOLDER --engines         # 1 and 2 workers of loky, Dask and Ray, on this machine
    python benchmarks/cluster.py FOLDER --long VIDEO      # one long video, 1 and 2 workers

Each measurement starts with an empty cache and includes the workers' start. Ratios within a repeat are what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[[], float]


def seconds(paths: list[Path], *flags: object, threads: int | None = None) -> float:
    """Wall time of `extract --streams rgb` with an empty cache, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JCDNET_CACHE": f"{folder}/cache"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        else:
            environment.pop("OMP_NUM_THREADS", None)
        command = [sys.executable, "cli.py", "-q", "extract", *paths, "--streams", "rgb", "-o", f"{folder}/out", *flags]
        began = time.monotonic()
        subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began


@contextlib.contextmanager
def dask(workers: int) -> Iterator[str]:
    """The two commands of docs/workers.md: a scheduler and its workers."""
    python = Path(sys.executable)
    tools = str(python.with_name("dask"))
    address = "tcp://127.0.0.1:18786"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    command = [tools, "scheduler", "--port", "18786", "--no-dashboard", "--host", "127.0.0.1"]
    children = [subprocess.Popen(command, **quiet)]  # type: ignore[call-overload]
    command = [tools, "worker", address, "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard"]
    children.append(subprocess.Popen(command, **quiet))  # type: ignore[call-overload]
    time.sleep(12)  # until they have found one another
    try:
        yield address
    finally:
        for child in reversed(children):
            child.terminate()
            child.wait()


@contextlib.contextmanager
def ray(workers: int) -> Iterator[str]:
    """A head with one core, and a second node for a second worker."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(workers - 1):
        cluster.add_node(num_cpus=1)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def engines(paths: list[Path]) -> dict[str, Run]:
    """Workers of each engine."""

    def on(kind: str, workers: int) -> Run:
        def run() -> float:
            with {"dask": dask, "ray": ray}[kind](workers) as address:
                return seconds(paths, "--engine", kind, "--address", address)

        return run

    found: dict[str, Run] = {"this process, one thread": lambda: seconds(paths, threads=1)}
    for workers in (1, 2):
        if workers > 1:
            found[f"loky, {workers} workers"] = lambda: seconds(paths, "--jobs", 2)
        for kind in ("dask", "ray"):
            found[f"{kind}, {workers} worker{'s' * (workers > 1)}"] = on(kind, workers)
    return found


def table(runs: dict[str, Run], repeats: int) -> None:
    """Time each, one after the other, so often; print medians and ratios to the first."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            took[name].append(run())
            print(f"# {repeat}: {name}: {took[name][-1]:.1f} s", file=sys.stderr, flush=True)
    first = next(iter(took.values()))
    print("| | seconds (median) | times the first (median, min to max) |\n|---|---|---|")
    for name, values in took.items():
        ratios = [a / b for a, b in zip(first, values, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {statistics.median(values):.1f} | {spread} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--long", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.long:
        runs: dict[str, Run] = {
            "one job, one thread": lambda: seconds([asked.long], threads=1),
            "two jobs": lambda: seconds([asked.long], "--jobs", 2),
        }
    elif asked.engines:
        runs = engines([asked.folder])
    else:
        runs = {
            "one job, one thread": lambda: seconds([asked.folder], threads=1),
            "two jobs of one thread": lambda: seconds([asked.folder], "--jobs", 2),
            "one job, all cores": lambda: seconds([asked.folder]),
            "--jobs auto": lambda: seconds([asked.folder], "--jobs", "auto"),
        }
    table(runs, asked.repeats)


if __name__ == "__main__":
    main()

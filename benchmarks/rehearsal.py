"""A rehearsal of very many videos: stub videos through Ray with workers that are killed, and through `--shard`.

    python benchmarks/rehearsal.py ray 10000               # one run on Ray; a worker is killed every 500 videos
    python benchmarks/rehearsal.py ray 3000 --unread       # the same, as if the videos were large
    python benchmarks/rehearsal.py shards 10000            # four processes; one is killed, and resumed by its table

Only the extractor is a stub: it makes features of a 5-second video from the file's bytes, without decoding. Everything
else is real: hashes, locks, the cache, JCDNet, the tables. Every id must be in the tables exactly once. See cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from extractors.features import Extractor  # noqa: E402
from extractors.parts import Part, Seen  # noqa: E402

SNIPPETS, FPS, LENGTH = 8, 25.0, 16
SETTLED = 200  # videos, after which the start is over and memory and time count


class Stub(Extractor):
    """An extractor whose features follow from the file's bytes; it neither decodes nor loads a network."""

    def parts(self, path: Path, stretch: Any = None, streams: Any = None, *_: Any, **__: Any) -> Iterator[Part]:
        """One part, which is the whole video."""
        rng = np.random.default_rng(list(path.read_bytes()[:16]))
        step = LENGTH / FPS
        times = np.arange(SNIPPETS)[:, None] * step + np.array([0.0, step])
        end = SNIPPETS * step
        media = {"width": 340, "height": 256, "rate": FPS, "start_timecode": None}
        seen = Seen(media, end, 0.0, end, True, 0.0, False, False)
        rows = {name: rng.random((SNIPPETS, 1024), np.float32) for name in streams or self.streams}
        yield Part(0, 64, rows, times, seen)


def work(setup: Any, task: Any, run: Path) -> Any:
    """The work of a worker, with the stub; its CPU time is noted in a file beside the cache."""
    from pipeline.workers import worker

    worker.Extractor = Stub  # type: ignore[misc]
    first = getattr(worker._held, "setup", None) is None
    began = time.process_time()
    report = worker.work(setup, task, run)
    if not first:  # which loads the model
        with (Path(os.environ["REHEARSAL"]) / f"cpu-{os.getpid()}").open("a") as file:
            file.write(f"{time.process_time() - began}\n")
    return report


def megabytes() -> float:
    """Resident memory of this process."""
    return float(psutil.Process().memory_info().rss) / 1e6


def run(
    videos: Path,
    out: Path,
    engine: Any,
    share: str | None = None,
    resume: bool = False,
    on_done: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """What `run videos -o out -f parquet` does; CPU seconds a video of this process, and the growth of its memory."""
    from pipeline import api
    from pipeline.api import Pipeline
    from pipeline.run.batch import run_batch
    from pipeline.run.videos import find_videos
    from pipeline.shards import id_of
    from pipeline.shards import share as shared
    from pipeline.tables import Tables, finished, made_by

    api.Extractor = Stub  # type: ignore[misc]
    jobs = find_videos([str(videos)])
    jobs = jobs if share is None else shared(jobs, share)
    ids = {job.video: id_of(job) for job in jobs}
    pipeline = Pipeline.load()
    if resume:
        same, _ = finished(out, made_by(pipeline.provenance("")), set(ids.values()))
        jobs = [job for job in jobs if ids[job.video] not in same]
    tables = Tables(out, set(ids.values()))
    cpu = memory = most = 0.0
    done = 0
    try:
        for outcome in run_batch(pipeline, jobs, engine=engine):
            tables.add(ids[outcome.job.video], outcome.result, outcome.error)
            done += 1
            on_done(done)
            if done == SETTLED:
                cpu, memory = time.process_time(), megabytes()
            if done % 100 == 0:
                most = max(most, megabytes())
                print(f"{done} {time.process_time():.1f} s {megabytes():.0f} MB", file=sys.stderr, flush=True)
    finally:
        tables.flush()
    counted = max(done - SETTLED, 1)
    return {"videos": done, "ms": 1000 * (time.process_time() - cpu) / counted, "growth": most - memory}


def check(videos: int, out: Path) -> None:
    """Every id exactly once in the tables, and as many segments as the videos' rows say."""
    from pipeline.tables import SEGMENTS, VIDEOS, arrow

    arrow()
    import pyarrow.parquet as parquet

    def read(table: str, *columns: str) -> list[dict[str, Any]]:
        parts = (out / table).glob("*.parquet")
        return [row for part in parts for row in parquet.ParquetFile(part).read(list(columns)).to_pylist()]

    rows = read(VIDEOS, "id", "status", "n_segments", "error")
    assert Counter(row["id"] for row in rows) == Counter(f"{k:06d}.mp4" for k in range(videos))
    failed = [row["error"] for row in rows if row["status"] != "done"]
    segments = Counter(row["id"] for row in read(SEGMENTS, "id"))
    assert all(segments[row["id"]] == row["n_segments"] for row in rows)
    parts = len(list((out / VIDEOS).iterdir()))
    print(f"{len(rows)} rows, each id once; {len(failed)} failed; {sum(segments.values())} segments; {parts} parts")
    print("\n".join(sorted(set(failed))[:5]))


class Killer:
    """Kills a worker of Ray after every so many videos."""

    def __init__(self, every: int) -> None:
        self.every, self.killed = every, 0
        self.next = random.uniform(0.5, 1.5) * every

    def __call__(self, done: int) -> None:
        """Take note that so many videos are done."""
        if done >= self.next:
            self.next = done + random.uniform(0.5, 1.5) * self.every
            found = [p.pid for p in psutil.process_iter(["cmdline"]) if "ray::Worker" in str(p.info["cmdline"])]
            if found:
                os.kill(random.choice(found), signal.SIGKILL)
                self.killed += 1


def on_ray(videos: Path, folder: Path, count: int, every: int) -> None:
    from ray.cluster_utils import Cluster

    from pipeline.workers import backends
    from pipeline.workers.engine import Engine

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's own is 15: its workers starve where others work
    backends.work = work  # type: ignore[assignment]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    killer = Killer(every)
    began = time.monotonic()
    found = run(videos, folder / "out", Engine("ray", 2, cluster.address), on_done=killer)
    took = time.monotonic() - began
    cluster.shutdown()
    times = [float(t) for file in folder.glob("cpu-*") for t in file.read_text().split()]
    print(f"ray: {found['videos']:.0f} videos in {took:.0f} s, {killer.killed} workers killed")
    print(f"driver: {found['ms']:.1f} ms of CPU a video, {found['growth']:.0f} MB of growth after {SETTLED} videos")
    print(f"workers: {1000 * sum(times) / count:.1f} ms of CPU a video ({len(times)} tasks)")
    check(count, folder / "out")


def by_shards(videos: Path, folder: Path, count: int) -> None:
    def start(number: int, *flags: str) -> Any:
        command = [
            sys.executable,
            __file__,
            "one",
            str(count),
            "--folder",
            str(folder),
            "--shard",
            f"{number}/4",
            *flags,
        ]
        # The four share this machine's cores, which threads of PyTorch that wait for each other would waste.
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    children = {number: start(number) for number in (1, 2, 3, 4)}
    while not (folder / "out" / "videos.parquet").is_dir() or not list((folder / "out/videos.parquet").glob("part*")):
        time.sleep(1)  # until something is in the tables
    children[2].kill()
    children[2].wait()
    children[2] = start(2, "--resume")
    for number, child in children.items():
        found = json.loads(child.communicate()[0])
        print(
            f"shard {number}/4: {found['videos']:.0f} videos, {found['ms']:.1f} ms of CPU a video, "
            f"{found['growth']:.0f} MB of growth"
        )
    check(count, folder / "out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("ray", "shards", "one"))
    parser.add_argument("count", type=int)
    parser.add_argument("--every", type=int, default=500, help="videos between two kills")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--unread", action="store_true", help="have workers read all videos, as if these were large")
    parser.add_argument("--shard")
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    if asked.way == "one":
        from pipeline.workers.engine import Engine

        print(json.dumps(run(asked.folder / "videos", asked.folder / "out", Engine(), asked.shard, asked.resume)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        os.environ |= {"JCDNET_CACHE": str(folder / "cache"), "REHEARSAL": name, "PYTHONPATH": paths}
        (folder / "videos").mkdir()
        for k in range(asked.count):
            (folder / "videos" / f"{k:06d}.mp4").write_bytes(f"{k:016d}".encode() * 64)
        if asked.unread:
            from pipeline.cache import content

            content.LITTLE = -1
        if asked.way == "ray":
            on_ray(folder / "videos", folder, asked.count, asked.every)
        else:
            by_shards(folder / "videos", folder, asked.count)


if __name__ == "__main__":
    main()

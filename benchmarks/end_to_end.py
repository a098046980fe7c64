"""How long does `run` take from the shell, how many minutes would an hour of video take, and how much memory?

    python benchmarks/end_to_end.py [VIDEO ...] [--large] [--repeats 5] [--against CHECKOUT] [--folder DIR]

Without VIDEO it makes three videos first: start.mp4 (a clip of the corpus in 340x256, 3 s), small.mp4 (its packets, 60
s) and phone.mp4 (the packets of the 1080p original Ollie76.mov, 60 s); with --large also large.mp4 (start.mp4's clip in
3840x2160, 60 s). They stay in DIR if it is given; --seconds makes them shorter.

Every run is a process of its own with an empty cache. The first video's runs show the start-up: an hour takes what a
second of the others takes beyond them, 3,600 times, and the start-up.

CPU seconds count every process of a run. Memory is measured in one more run of each video: the largest sum, over all
processes of the run at one time, of what they hold (PSS: a page that several share counts in parts), and the sum of
each process's own largest RSS, which counts such pages twice and moments that differ.

--against: a checkout of another commit, whose code runs under this Python, in turn with this one.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu import encode, repeat

ROOT = Path(__file__).resolve().parents[1]
LOOK = 0.02  # seconds between two looks at the memory


def start(tree: Path, video: Path, folder: str) -> "subprocess.Popen[bytes]":
    """A run of a checkout, with an empty cache in `folder`."""
    command = [sys.executable, "cli.py", "--quiet", "run", str(video.resolve()), "-o", f"{folder}/out"]
    environment = os.environ | {"JCDNET_CACHE": f"{folder}/cache"}
    return subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.DEVNULL)


def seconds(tree: Path, video: Path) -> tuple[float, float]:
    """Of one run: on the clock, and of CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        assert start(tree, video, folder).wait() == 0
        clock, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def field(path: str, name: str) -> int:
    """Bytes, from a file of /proc with lines like "Pss:  12 kB"."""
    lines = Path(path).read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def memory(tree: Path, video: Path) -> tuple[float, float]:
    """MB (1e6 bytes) of one run: the largest sum of PSS at one time, and the sum of the largest RSS."""
    most, largest = 0, dict[int, int]()
    with tempfile.TemporaryDirectory() as folder:
        run = start(tree, video, folder)
        while run.poll() is None:
            held = 0
            try:
                for pid in family(run.pid):
                    held += field(f"/proc/{pid}/smaps_rollup", "Pss")
                    largest[pid] = max(largest.get(pid, 0), field(f"/proc/{pid}/status", "VmHWM"))
            except OSError:  # a process has ended meanwhile
                pass
            most = max(most, held)
            time.sleep(LOOK)
        assert run.returncode == 0
    return most / 1e6, sum(largest.values()) / 1e6


def duration(video: Path) -> float:
    """Seconds."""
    with av.open(str(video)) as container:
        return (container.duration or 0) / 1e6


def make(folder: Path, lasts: float, large: bool) -> list[Path]:
    """The videos."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Path(os.environ.get("JCDNET_CORPUS", ROOT.parent / "shared" / "corpus"))
    clip = corpus / "Basketball" / "Basketball_001.mp4"
    short = encode(clip, folder / "start.mp4", (256, 340))
    made = [short, repeat(short, folder / "small.mp4", lasts)]
    made.append(repeat(corpus / "originals" / "Ollie76.mov", folder / "phone.mp4", lasts))
    if large:
        made.append(repeat(encode(clip, folder / "once.mp4", (2160, 3840)), folder / "large.mp4", lasts))
    return made


def compare(video: Path, other: Path, repeats: int) -> float:
    """Run both checkouts in turn, and print that; returns this one's median seconds."""
    rows = [(*seconds(other, video), *seconds(ROOT, video)) for _ in range(repeats)]
    for name, column in (("clock", 0), ("CPU", 1)):
        ratios = sorted(row[column] / row[column + 2] for row in rows)
        print(
            f"{video.name:12} {name:5}  other {statistics.median(row[column] for row in rows):6.1f} s  "
            f"this {statistics.median(row[column + 2] for row in rows):6.1f} s  "
            f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
    return statistics.median(row[2] for row in rows)


def alone(video: Path, repeats: int) -> float:
    """Run this checkout, and print that; returns the median seconds."""
    rows = sorted(seconds(ROOT, video) for _ in range(repeats))
    clock, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{video.name:12} {clock:6.1f} s ({rows[0][0]:.1f} to {rows[-1][0]:.1f}), CPU {cpu:6.1f} s", flush=True)
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="0: only make the videos")
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = given.videos or make(given.folder or Path(folder), given.seconds, given.large)
        if not given.repeats:
            return
        first: tuple[float, float] | None = None  # its seconds of video, and what they take
        for video in videos:
            lasts = duration(video)
            took = compare(video, given.against, given.repeats) if given.against else alone(video, given.repeats)
            line = f"{video.name:12} {lasts:.1f} s of video"
            if first is not None:
                each = (took - first[1]) / (lasts - first[0])
                hour = (3600 * each + first[1] - first[0] * each) / 60
                line += f"; an hour would take {hour:.1f} minutes"
            first = first or (lasts, took)
            if sys.platform == "linux":
                together, apart = memory(ROOT, video)
                line += f"; memory at most {together:.0f} MB, and {apart:.0f} MB by each process's own peak"
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""How long does `run` take from the shell, against another checkout? Both in turn, each with an empty cache.

    python benchmarks/end_to_end.py OTHER VIDEO [VIDEO ...] [--repeats 5] [--make]

OTHER: a checkout of another commit, whose code runs under this Python. A short video among VIDEOs shows the start-up.
CPU seconds count every process of a run. --make writes three videos into the current folder first, and measures those:
start.mp4 (a clip of the corpus in 340x256, 3 s), small.mp4 (its packets, 60 s) and phone.mp4 (the packets of the 1080p
original Ollie76.mov, 60 s).
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu import encode, repeat

ROOT = Path(__file__).resolve().parents[1]


def seconds(tree: Path, video: Path) -> tuple[float, float]:
    """Of one run: on the clock, and of CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "cli.py", "--quiet", "run", str(video.resolve()), "-o", f"{folder}/out"]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=tree, env=os.environ | {"JCDNET_CACHE": f"{folder}/cache"}, check=True)
        clock, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make() -> list[Path]:
    """The three videos."""
    corpus = Path(os.environ.get("JCDNET_CORPUS", ROOT.parent / "shared" / "corpus"))
    start = encode(corpus / "Basketball" / "Basketball_001.mp4", Path("start.mp4"), (256, 340))
    small = repeat(start, Path("small.mp4"), 60)
    return [start, small, repeat(corpus / "originals" / "Ollie76.mov", Path("phone.mp4"), 60)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--make", action="store_true")
    arguments = parser.parse_args()
    for video in [*(make() if arguments.make else []), *arguments.videos]:
        rows = [(*seconds(arguments.other, video), *seconds(ROOT, video)) for _ in range(arguments.repeats)]
        for name, column in (("clock", 0), ("CPU", 1)):
            ratios = sorted(row[column] / row[column + 2] for row in rows)
            print(
                f"{video.name:12} {name:5}  other {statistics.median(row[column] for row in rows):6.1f} s  "
                f"this {statistics.median(row[column + 2] for row in rows):6.1f} s  "
                f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()

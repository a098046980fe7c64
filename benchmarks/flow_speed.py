"""TV-L1 on one core: the numba backend against OpenCV, interleaved, on real pairs of frames; and on two cores.

    python benchmarks/flow_speed.py [--corpus DIR] [--pairs 12] [--repeats 3] [--width 340] [--json FILE]

Pairs: in turn from every sport of the corpus, the middle of its first clip, then of its second, and so on; grey,
short side 256, the middle `--width` columns. Each backend's time is the best of the repeats, ratios are per pair.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.config import cores
from extractors.flow import numba_tvl1, opencv, version

SPORTS = [
    *("BaseballPitch", "Basketball", "IceHockeyPlay", "TennisStroke", "Kickflip", "Ollie"),
    *("TennisRally", "Badminton", "Volleyball", "Weightlifting", "GolfSwing", "CricketBowling"),
]
CORPUS = Path(os.environ.get("JCDNET_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "corpus"))


def grey_frames(clip: Path, middle: float, count: int, width: int, short: int = 256) -> np.ndarray:
    """Decode `count` consecutive frames around a fraction of the clip: (count, H, W) uint8, W at most `width`."""
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    first = min(max(round(middle * len(frames)) - count // 2, 0), max(len(frames) - count, 0))
    scale = short / min(frames[0].shape)
    size = tuple(round(side * scale) for side in frames[0].shape[::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    stack = np.stack(
        [np.asarray(cv2.resize(frame, size, interpolation=how)) for frame in frames[first : first + count]]
    )
    cut = max(stack.shape[2] - width, 0) // 2
    return np.ascontiguousarray(stack[:, :, cut : cut + width]).astype(np.uint8)


def real_pairs(corpus: Path, count: int, width: int, short: int = 256) -> dict[str, np.ndarray]:
    """Pairs (2, H, W) uint8 by the name of their clip, from the sports in turn."""
    clips = {sport: sorted((corpus / sport).glob("*.mp4")) for sport in SPORTS}
    clips = {sport: files for sport, files in clips.items() if files}
    if len(clips) < 4:
        raise SystemExit(f"at least four sports are needed, and {corpus} has {len(clips)}: give --corpus")
    chosen: dict[str, np.ndarray] = {}
    turn = 0
    while len(chosen) < count:
        for files in clips.values():
            again, which = divmod(turn, len(files))
            middle = (0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)[again % 7]
            if len(chosen) < count:
                chosen[f"{files[which].stem} @{middle}"] = grey_frames(files[which], middle, 2, width, short)
        turn += 1
    return chosen


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    import numba

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        wide = "AVX-512" if "avx512f" in found.get("flags", "") else "AVX2" if "avx2" in found.get("flags", "") else ""
        cpu = f"{found.get('model name', cpu)} family {found.get('cpu family')} model {found.get('model')} {wide}"
    return {
        "cpu": cpu.strip(),
        "cores": cores(),
        "python": platform.python_version(),
        "opencv": version("opencv"),
        "numba": f"{numba.__version__} ({version('numba')})",
    }


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=340)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    where = machine()
    print("   ".join(f"{key}: {value}" for key, value in where.items()), end="\n\n")
    pairs = real_pairs(arguments.corpus, arguments.pairs, arguments.width)
    for grey in pairs.values():
        numba_tvl1.warmup(grey.shape[2])

    cv2.setNumThreads(1)
    rows: list[dict[str, str | float]] = []
    ratios, sums = [], {"opencv": 0.0, "numba": 0.0}
    print(f"{'pair':28} {'size':>9} {'OpenCV ms':>10} {'numba ms':>9} {'ratio':>6}")
    for name, grey in pairs.items():
        out = np.empty((1, *grey.shape[1:], 2), np.float32)
        solvers = {"opencv": opencv.solver(grey, out), "numba": numba_tvl1.solver(grey, out)}
        best = dict.fromkeys(solvers, float("inf"))
        for _ in range(arguments.repeats):
            for backend, solve in solvers.items():
                best[backend] = min(best[backend], clock(partial(solve, 0))[0])
        ratios.append(best["opencv"] / best["numba"])
        sums = {backend: spent + best[backend] for backend, spent in sums.items()}
        size = f"{grey.shape[2]}x{grey.shape[1]}"
        rows.append({"pair": name, "size": size, **best, "ratio": ratios[-1]})
        print(f"{name:28} {size:>9} {best['opencv'] * 1e3:10.0f} {best['numba'] * 1e3:9.1f} {ratios[-1]:6.1f}")
    summary = {
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "of the summed times": sums["opencv"] / sums["numba"],
    }
    print(f"\nratio over {len(rows)} pairs: " + "   ".join(f"{key} {value:.1f}" for key, value in summary.items()))

    clip = sorted((arguments.corpus / SPORTS[0]).glob("*.mp4"))[0]
    grey = grey_frames(clip, 0.5, 17, arguments.width)
    count = len(grey) - 1
    runs: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(max(arguments.repeats, 5)):
        for workers, times in runs.items():
            times.append(clock(partial(numba_tvl1.flow, grey, workers)))
    wall = {workers: min(times)[0] for workers, times in runs.items()}
    cpu = {workers: min(spent for _, spent in times) for workers, times in runs.items()}
    print(f"\nnumba, {count} pairs of {clip.stem}, best of {len(runs[1])}, interleaved:")
    for workers in runs:
        rate, each = count / wall[workers], cpu[workers] / count * 1e3
        print(f"  {workers} worker(s): {rate:5.1f} pairs/s   {each:5.1f} ms of CPU a pair")
    print(f"  two against one: {wall[1] / wall[2]:.2f} (with both cores free it could be {2 * cpu[1] / cpu[2]:.2f})")
    if arguments.json:
        result = {"machine": where, "rows": rows, **summary, "two workers": wall[1] / wall[2]}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

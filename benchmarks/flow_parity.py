"""How far each TV-L1 backend is from OpenCV's fields, on real pairs of frames, beside OpenCV's own noise floor.

    python benchmarks/flow_parity.py [--corpus DIR] [--pairs 48] [--backends numba,torch] [--device cpu] [--width 340]
                                     [--short 256] [--json FILE]

A pair is inside when its mean endpoint error is below .05 px and its 99th percentile below .5 px. The floor is OpenCV
against itself on the same frames as floats in 0..1 with Gaussian noise of 1e-3 grey levels. Pairs as in flow_speed.
On a GPU: python benchmarks/flow_parity.py --backends numba,cuda --device cuda
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from flow_speed import CORPUS, machine, real_pairs

from extractors.flow import FLOWS, version


def noisy_opencv(grey: np.ndarray, seed: int) -> np.ndarray:
    """OpenCV's field of a pair with noise of 1e-3 grey levels: floats in 0..1, which it scales by 255."""
    noise = np.random.default_rng(seed).standard_normal(grey.shape) * 1e-3
    frames = ((grey + noise) / 255).astype(np.float32)
    optflow: Any = cv2.optflow
    return optflow.DualTVL1OpticalFlow_create().calc(frames[0], frames[1], None)[None]


def errors(fields: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Endpoint error in pixels at every pixel, flat."""
    return np.sqrt(((fields - reference) ** 2).sum(-1)).ravel()


def report(name: str, per_pair: list[np.ndarray]) -> dict[str, float]:
    """One row of the table."""
    means = np.array([e.mean() for e in per_pair])
    tails = np.array([np.quantile(e, 0.99) for e in per_pair])
    pooled = np.concatenate(per_pair)
    row = {
        "pairs": len(per_pair),
        "inside": float(((means < 0.05) & (tails < 0.5)).mean() * 100),
        "median": float(np.median(means)),
        "worst": float(means.max()),
        "mean": float(pooled.mean()),
        "p95": float(np.quantile(pooled, 0.95)),
        "p99": float(np.quantile(pooled, 0.99)),
    }
    print(
        f"{name:24} {row['pairs']:5.0f} {row['inside']:7.1f} % {row['median']:10.4f} {row['worst']:10.3f} "
        f"{row['mean']:10.4f} {row['p95']:8.4f} {row['p99']:8.3f}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--backends", default=",".join(name for name in ("numba", "torch") if name in FLOWS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=340)
    parser.add_argument("--short", type=int, default=256, help="short side of the frames")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = arguments.backends.split(",")
    where = machine()
    print("   ".join(f"{key}: {value}" for key, value in where.items()), end="\n\n")
    pairs = list(real_pairs(arguments.corpus, arguments.pairs, arguments.width, arguments.short).values())

    def compute_by(name: str) -> Callable[[np.ndarray, int], np.ndarray]:
        return lambda grey, _: FLOWS[name](grey, workers=1, device=arguments.device)

    candidates = {version(name): compute_by(name) for name in names}
    candidates["opencv, noise 1e-3"] = noisy_opencv
    found: dict[str, list[np.ndarray]] = {name: [] for name in candidates}
    for index, grey in enumerate(pairs):
        start = time.perf_counter()
        reference = FLOWS["opencv"](grey, workers=1)
        for name, compute in candidates.items():
            found[name].append(errors(compute(grey, index), reference))
        line = "   ".join(f"{name} {lists[-1].mean():.4f}" for name, lists in found.items())
        print(f"  pair {index + 1:2}: {line}   ({time.perf_counter() - start:.1f} s)", flush=True)
    print(f"\n{'endpoint error, px':24} {'pairs':>5} {'inside':>9} {'median':>10} {'worst':>10} ", end="")
    print(f"{'pooled':>10} {'p95':>8} {'p99':>8}")
    table = {name: report(name, lists) for name, lists in found.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": where, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()

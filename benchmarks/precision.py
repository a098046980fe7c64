"""Do I3D's features survive half precision on this device, and what does it gain? Per snippet, on real clips.

    python benchmarks/precision.py [--device cpu] [--halves bfloat16] [--sports 4] [--repeats 2] [--threads N]

Pairs of snippets from one clip a sport go through float32 and the halves in turn (autocast, as `precision` in the
settings does), interleaved; cosines are to the float32 features, ratios are per pair. With --threads 1 on a CPU the
clock is that of the process, which others on the machine disturb less. PyTorch has no float16 convolution for CPUs
that deserves the name: ask for that on CUDA only.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.config import FeatureConfig
from extractors.decode.grid import Frames
from extractors.features import Extractor
from extractors.inputs.host import HostInputs
from extractors.snippets import snippets

SPORTS = ("GolfSwing", "TennisRally", "BaseballPitch", "Basketball", "IceHockeyPlay", "Kickflip", "Badminton")
CORPUS = Path(os.environ.get("JCDNET_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "corpus"))


def pairs(corpus: Path, sport: str, config: FeatureConfig) -> dict[str, Tensor]:
    """The first two snippets of a sport's first clip as network inputs (2, C, L, crop, crop), by stream."""
    clip = sorted((corpus / sport).glob("*.mp4"))[0]
    with Frames(clip, config.fps, config.short_side) as frames:
        grid = frames.grid(0, 2 * config.stride + 1)
        batch = list(snippets(grid, length=config.length, stride=config.stride))[:2]
    inputs = HostInputs(config, "numba")
    return {"rgb": inputs.rgb(batch), "flow": inputs.flow(batch)}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, D), (B, D) -> (B,)."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--halves", nargs="+", default=["bfloat16"])
    parser.add_argument("--sports", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = FeatureConfig()
    extractor = Extractor(config, ("rgb", "flow"), arguments.device)
    gains: dict[tuple[str, str], list[float]] = {}
    likeness: dict[tuple[str, str], list[float]] = {}
    clock = time.process_time if arguments.threads == 1 and arguments.device == "cpu" else time.perf_counter

    def measure(pixels: Tensor, stream: str, precision: str) -> tuple[float, np.ndarray]:
        extractor.precisions[stream] = precision
        begin = clock()
        features = extractor.forward(pixels, stream)  # ends with a copy to the host, which waits for the device
        return clock() - begin, features

    for sport in SPORTS[: arguments.sports]:
        for stream, pixels in pairs(arguments.corpus, sport, config).items():
            measure(pixels, stream, "float32")  # loads, warms up
            for repeat in range(arguments.repeats):
                base, exact = measure(pixels, stream, "float32")
                for half in arguments.halves:
                    if repeat == 0:
                        measure(pixels, stream, half)
                    seconds, features = measure(pixels, stream, half)
                    gains.setdefault((half, stream), []).append(base / seconds)
                    near = cosines(exact, features).tolist()
                    likeness.setdefault((half, stream), []).extend(near)
                    print(
                        f"{sport:16} {stream:4} float32 {base:5.2f} s  {half} {seconds:5.2f} s  "
                        f"cosines {' '.join(f'{value:.6f}' for value in near)}",
                        flush=True,
                    )
    for (half, stream), found in gains.items():
        near = likeness[half, stream]
        print(
            f"{half:8} {stream:4} x{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})  "
            f"cosine median {statistics.median(near):.6f} min {min(near):.6f}, {len(near)} snippets"
        )


if __name__ == "__main__":
    main()

"""How near is each precision of the networks to float32, and how fast is it? Per snippet, on real clips.

    OMP_NUM_THREADS=1 python benchmarks/precision.py [--snippets 40] [--sports 8] [--streams rgb] [--whole]
    OMP_NUM_THREADS=1 python benchmarks/precision.py --videos DIR --only bfloat16 [--streams flow]
    python benchmarks/precision.py --features FLOAT32 OTHER

Snippets of the first clips of each sport that the int8 network was not calibrated on go through all arms in turn, one
snippet at a time, except PyTorch's, which takes two at a time as in the product. Cosines are to PyTorch's float32.
On a CPU the clock is that of the process and there is one thread, which others on the machine disturb less. --whole:
frames of 256 x 455 or as wide as they are, instead of the centre crop. PyTorch has no float16 convolution for CPUs that
deserves the name: that arm is for CUDA only.

--videos takes all snippets of the videos in a folder instead of clips of the corpus. TV-L1 takes longer than a network,
so each snippet's flow is computed once and goes through all arms. --only: these precisions of OpenVINO alone, beside
PyTorch's float32.

--features compares two folders of `extract` instead: the cosines of all snippets of the videos that are in both.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.backbones import engines
from extractors.backbones.engines import OPENVINO, TORCH, Way
from extractors.config import FeatureConfig
from extractors.decode.grid import Frames
from extractors.features import Extractor, load
from extractors.inputs.host import HostInputs
from extractors.snippets import snippets

SPORTS = (
    "GolfSwing",
    "TennisRally",
    "BaseballPitch",
    "Basketball",
    "IceHockeyPlay",
    "Kickflip",
    "Badminton",
    "Weightlifting",
)
CORPUS = Path(os.environ.get("JCDNET_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "corpus"))
ARMS = {
    "cpu": (
        Way(TORCH, "bfloat16"),
        Way(OPENVINO, "float32"),
        Way(OPENVINO, "bfloat16"),
        Way(OPENVINO, "int8+float32"),
        Way(OPENVINO, "int8+bfloat16"),
    ),
    "cuda": (Way(TORCH, "bfloat16"), Way(TORCH, "float16")),
}


def of_clip(clip: Path, config: FeatureConfig, streams: tuple[str, ...], whole: bool) -> Iterator[dict[str, Tensor]]:
    """Network inputs (1, C, L, H, W) of a clip's snippets, by stream."""
    inputs = HostInputs(config, "numba")
    with Frames(clip, config.fps, config.short_side) as frames:
        for snippet in snippets(frames.grid(0, 10**6), length=config.length, stride=config.stride):
            if whole:
                pixels = torch.from_numpy(np.stack(snippet.frames)).permute(3, 0, 1, 2).float() / 127.5 - 1
                yield {"rgb": pixels[None]}
            else:
                yield {s: inputs.rgb([[snippet]]) if s == "rgb" else inputs.flow([[snippet]]) for s in streams}


def chosen(corpus: Path, sports: int, count: int, **how: object) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(sport, inputs) of `count` snippets, from each sport in turn."""
    calibrated = {name.rpartition(" ")[0] for name in json.loads(engines.RANGES.read_text())["snippets"]}

    def of_sport(sport: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for clip in sorted((corpus / sport).glob("*.mp4")):
            if f"{sport}/{clip.name}" not in calibrated:
                for inputs in of_clip(clip, FeatureConfig(), **how):  # type: ignore[arg-type]
                    yield sport, inputs

    found = (pair for row in zip_longest(*map(of_sport, SPORTS[:sports])) for pair in row if pair is not None)
    for _, pair in zip(range(count), found, strict=False):
        yield pair


def whole_videos(folder: Path, **how: object) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(video, inputs) of all snippets of the videos in a folder."""
    for video in sorted(folder.glob("*.mp4")):
        for inputs in of_clip(video, FeatureConfig(), **how):  # type: ignore[arg-type]
            yield video.stem, inputs


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, D), (B, D) -> (B,)."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def compare(first: Path, second: Path) -> None:
    """Print the cosines of two folders of features."""
    for stream in ("rgb", "flow"):
        found = []
        for path in sorted(first.rglob("*.npz")):
            if (other := second / path.relative_to(first)).is_file():
                a, b = getattr(load(path), stream), getattr(load(other), stream)
                if a is not None and b is not None:
                    found.append(cosines(a, b))
        if found:
            near = np.concatenate(found)
            low = ", ".join(f"{np.quantile(near, q):.5f}" for q in (0.01, 0.1, 0.5))
            print(f"{stream}: {len(near)} snippets of {len(found)} videos, least {near.min():.5f}; 1, 10, 50 %: {low}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--snippets", type=int, default=40)
    parser.add_argument("--sports", type=int, default=8)
    parser.add_argument("--streams", nargs="+", default=["rgb"])
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--features", nargs=2, type=Path)
    given = parser.parse_args()
    if given.features:
        compare(*given.features)
        return
    kind = torch.device(given.device).type
    if kind == "cpu":
        torch.set_num_threads(1)
    config, streams = FeatureConfig(), tuple(given.streams)
    base = Way(TORCH, "float32")
    made = {}
    arms = [w for w in ARMS[kind] if given.only is None or (w.engine == OPENVINO and w.dtype in given.only)]
    for way in (base, *arms):
        made[way] = Extractor(replace(config, precision="float32"), streams, given.device, threads=1)
        made[way].ways = dict.fromkeys(streams, way)
    clock = time.process_time if kind == "cpu" else time.perf_counter
    seconds: dict[tuple[str, Way], list[float]] = {}
    near: dict[tuple[str, Way], list[float]] = {}
    last: dict[str, Tensor] = {}
    how = {"streams": streams, "whole": given.whole}
    source = chosen(given.corpus, given.sports, given.snippets, **how)
    if given.videos:
        source = whole_videos(given.videos, **how)
    for number, (_, inputs) in enumerate(source):
        for stream, pixels in inputs.items():
            exact = None
            for way, extractor in made.items():
                if way.is_int8 and stream != "rgb":
                    continue
                # PyTorch's batch of two: this snippet, and the last one of the same size.
                two = stream in last and last[stream].shape == pixels.shape and way.engine == TORCH
                batch = torch.cat([pixels, last[stream]]) if two else pixels
                begin = clock()
                features = extractor.forward(batch, stream)[:1]  # ends with a copy to the host: waits for the device
                took = (clock() - begin) / len(batch)
                exact = features if exact is None else exact
                near.setdefault((stream, way), []).append(float(cosines(exact, features)[0]))
                if number >= 2 and (two or way.engine == OPENVINO):  # the first ones load and warm up
                    seconds.setdefault((stream, way), []).append(took)
            last[stream] = pixels
    for (stream, way), found in near.items():
        middle = [statistics.median(seconds[stream, w]) for w in (base, way)]
        print(
            f"{stream:4} {way!s:36} {middle[1]:.3f} s a snippet, {middle[0] / middle[1]:.2f} times float32; "
            f"cosine least {min(found):.5f}, 1 % {np.quantile(found, 0.01):.5f}, "
            f"median {statistics.median(found):.5f}, {len(found)} snippets"
        )


if __name__ == "__main__":
    main()

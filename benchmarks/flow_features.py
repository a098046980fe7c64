"""Do I3D flow features from one TV-L1 backend equal those from OpenCV? Cosine per snippet on real clips.

python benchmarks/flow_features.py [--backend numba] [--clips 6] [--snippets 2]
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.backbones import registry
from extractors.config import FeatureConfig
from extractors.decode.grid import Frames
from extractors.inputs.host import flow_input
from extractors.snippets import snippets

SPORTS = ("BaseballPitch", "Basketball", "GolfSwing", "IceHockeyPlay", "TennisRally", "Kickflip", "Badminton")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--snippets", type=int, default=2)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    arguments = parser.parse_args()
    config = FeatureConfig()
    net = registry.find("i3d", "flow").load()
    cosines: list[float] = []
    for sport in SPORTS[: arguments.clips]:
        clip = sorted((arguments.corpus / sport).glob("*.mp4"))[0]
        with Frames(clip, config.fps, config.short_side) as frames:
            cut = list(snippets(frames.grid(), length=config.length, stride=config.stride))[: arguments.snippets]
        for snippet in cut:
            with torch.inference_mode():
                ours, theirs = (
                    net(flow_input(snippet, config, backend)[None])[0].double().numpy()
                    for backend in (arguments.backend, "opencv")
                )
            cosines.append(float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)))
            print(f"{clip.name:24} snippet {snippet.index}  cosine {cosines[-1]:.6f}", flush=True)
    print(f"{arguments.backend} against opencv: median {statistics.median(cosines):.6f}  min {min(cosines):.6f}")


if __name__ == "__main__":
    main()

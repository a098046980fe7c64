"""What the rule `runs` finds of short actions if the network is almost perfect: stride, smoothing and threshold.

    python benchmarks/short_actions.py [--smooth 3]

No footage and no network: videos of 40 s with actions of given lengths every few seconds. For each snippet the logits
are the logarithms of the shares of its classes, and A^ness is its share of action, both with noise on the logits; they
are smoothed over --smooth snippets, three as in the preset `own`. What is lost is then due to the stride and to the
rule alone. Printed is mAP 0.3:0.9 and @0.5 in percent, ranked by confidence. Takes some seconds.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.config import FeatureConfig
from extractors.snippets import snippet_times
from pipeline.training.snippets import Mark, Marked, known
from postprocess.config import LocalizeConfig
from postprocess.evaluation.metrics import Instances, Predictions, detect
from postprocess.localize import Activations, localize

CLASSES = ("a", "b")
FPS, LENGTH, SECONDS, VIDEOS = 25, 16, 40.0, 30
TIOUS = np.round(np.arange(0.3, 0.95, 0.1), 9)
LENGTHS = ((0.5, 0.95), (1.0, 1.5), (3.0, 8.0))
RULES = {
    "usual": LocalizeConfig(),
    "smooth 1": LocalizeConfig(smooth=1),
    "smooth 1, any length": LocalizeConfig(smooth=1, min_snippets=1),
    "and threshold .2": LocalizeConfig(smooth=1, min_snippets=1, threshold=0.2),
}
Floats = NDArray[np.float64]


def videos(shortest: float, longest: float) -> list[Marked]:
    """Actions with 3 to 8 s between them."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(VIDEOS):
        marks, at = [], 3.0
        while at < SECONDS - 5 - longest:
            length = rng.uniform(shortest, longest)
            marks.append(Mark(at, at + length, CLASSES[rng.integers(2)]))
            at += length + rng.uniform(3, 8)
        found.append(Marked(tuple(marks), True))
    return found


def outputs(marked: Marked, stride: int, noise: float, smooth: int, rng: np.random.Generator) -> Activations:
    """What an almost perfect network gives for a video."""
    config = FeatureConfig(stride=stride)
    times = np.array([snippet_times(k, 0.0, config) for k in range(int(SECONDS * FPS - LENGTH) // stride + 1)])
    middle = times.mean(axis=1, keepdims=True)
    # The network sees all frames of a snippet, which are more than the time that the snippet stands for.
    share = known(middle + np.array([-0.5, 0.5]) * LENGTH / FPS, marked, CLASSES).astype(np.float64)
    logits = np.log(np.clip(share, 1e-3, 1)) + rng.normal(0, noise, share.shape)
    inside = np.clip(1 - share[:, -1], 0.01, 0.99)
    actionness = 1 / (1 + np.exp(-np.log(inside / (1 - inside)) - rng.normal(0, noise, len(share))))
    both = np.column_stack((logits, actionness))
    taps = np.ones(smooth) / smooth
    both = np.apply_along_axis(lambda column: np.convolve(column, taps, "same"), 0, both)
    return Activations(both[:, :-1], both[:, -1].clip(0, 1), np.full(2, 0.5), times, CLASSES, SECONDS)


def mean_ap(truth: list[Marked], stride: int, noise: float, smooth: int, rule: LocalizeConfig) -> Floats:
    """(K,) mAP in percent at each of TIOUS."""
    rng = np.random.default_rng(1)
    number = {label: c for c, label in enumerate(CLASSES)}
    found = [localize(outputs(marked, stride, noise, smooth, rng), rule) for marked in truth]
    rows = [(v, number[s.label], s.start, s.end, s.confidence) for v, of in enumerate(found) for s in of]
    spans = [(v, number[m.label], m.start, m.end or 0.0) for v, of in enumerate(truth) for m in of.marks]
    p, t = np.array(rows, dtype=np.float64).reshape(-1, 5), np.array(spans, dtype=np.float64)
    instances = Instances(t[:, 0].astype(np.int64), t[:, 1].astype(np.int64), t[:, 2:])
    predictions = Predictions(p[:, 0].astype(np.int64), p[:, 1].astype(np.int64), p[:, 2:4], p[:, 4])
    return np.asarray(100 * detect(instances, predictions, TIOUS).mean_ap)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smooth", type=int, default=3, help="snippets, an odd number; 1 is no smoothing")
    smooth = parser.parse_args().smooth
    for noise in (0.7, 1.5):
        print(f"\nnoise {noise:g} on the logits\n")
        print(f"| actions | stride | {' | '.join(RULES)} |")
        print("|---" * (2 + len(RULES)) + "|")
        for lengths in LENGTHS:
            truth = videos(*lengths)
            for stride in (16, 8, 4):
                of = [mean_ap(truth, stride, noise, smooth, rule) for rule in RULES.values()]
                cells = [f"{values.mean():.0f}, {values[2]:.0f}" for values in of]
                print(f"| {lengths[0]:g} to {lengths[1]:g} s | {stride} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""What does `run --classes SPORT` find in untrimmed videos and on streets? On clips that no fit has read.

    python benchmarks/named_sports.py DIR
    python cli.py extract DIR/score -o VIDEOS --streams rgb --together 4
    python cli.py extract CORPUS/Street -o CLIPS --streams rgb --together 4
    python benchmarks/named_given.py VIDEOS CLIPS --truth DIR [--half score] [--tuning FILE]

For each sport that the half shows, every video and every street clip is run with its name, by `Pipeline.segments`, with
default settings.

tIoU: of each instance that of the best segment, 0 if there is none; its mean. Found: instances of which some segment
covers any part. mAP: the mean over the sports, segments ranked by confidence. False: segments of which less than half
lies on instances of the sport, per minute of video that shows something else. Length: seconds of the segments that
touch an instance, divided by those of the instances that they touch. Streets: runs of a street clip with one name that
find nothing, for the half's sports, and for all sports of the model. ECE: expected calibration error over ten bins; a
segment is right if at least half of it lies on instances of its sport.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.named_quality import TIOUS, overlap
from benchmarks.named_sports import HALVES, stored
from extractors.features import Features, load
from model import kinetics
from model.checkpoint import Checkpoint
from model.predict import Scores
from pipeline.api import EMBEDDED, Pipeline, load_model
from pipeline.config import Config
from postprocess.evaluation.annotations import Action, read_ground_truth
from postprocess.evaluation.metrics import Instances, Predictions, detect
from postprocess.nms import pairwise_tiou
from postprocess.segment import Segment

BINS = 10
Found = Callable[[Features, str], Sequence[Segment]]
"""the segments of a video if the user names a sport"""


def by_product(model: Checkpoint) -> Found:
    """What the product finds."""
    pipelines: dict[str, Pipeline] = {}
    scores: dict[int, Scores] = {}  # by the features, since they are the same for all sports

    def find(features: Features, sport: str) -> Sequence[Segment]:
        if sport not in pipelines:
            pipelines[sport] = Pipeline(model, Config(classes=sport, device="cpu", streams="rgb"))
        one = pipelines[sport]
        if id(features) not in scores:
            scores[id(features)] = one.scores(features)
        return one.segments(scores[id(features)], features)

    return find


def spans(items: Sequence[Segment] | Sequence[Action]) -> np.ndarray:
    """(N, 2) seconds."""
    return np.array([(s.start, s.end) for s in items]).reshape(-1, 2)


def ece(rows: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error of (confidence, right)."""
    c, right = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], dtype=float)
    bins = np.minimum((c * BINS).astype(int), BINS - 1)
    return float(
        sum((bins == b).sum() * abs(c[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins))
    ) / len(c)


def report(find: Found, videos: Mapping[str, Features], truth: Mapping[str, Sequence[Action]]) -> None:
    """Print the table of untrimmed videos."""
    sports = sorted({a.label for actions in truth.values() for a in actions})
    best: dict[str, list[float]] = {sport: [] for sport in sports}
    instances, ranked, rows, lengths = [], [], [], []
    hit, false, other = 0, 0, 0.0
    for v, (name, features) in enumerate(videos.items()):
        for c, sport in enumerate(sports):
            actions, found = [a for a in truth[name] if a.label == sport], find(features, sport)
            other += features.duration - sum(a.end - a.start for a in actions)
            instances += [(v, c, a.start, a.end) for a in actions]
            ranked += [(v, c, s.start, s.end, s.confidence) for s in found]
            for row in pairwise_tiou(spans(actions), spans(found)) if actions else ():
                best[sport].append(float(row.max(initial=0.0)))
            hit += sum(any(overlap(s, a) > 0 for s in found) for a in actions)
            for s in found:
                on, touched = sum(overlap(s, a) for a in actions), [a for a in actions if overlap(s, a) > 0]
                right = on >= (s.end - s.start) / 2
                false += not right
                rows.append((s.confidence, right))
                if touched:
                    lengths.append((s.end - s.start, sum(a.end - a.start for a in touched)))
    t, p = np.array(instances), np.array(ranked).reshape(-1, 5)
    scored = detect(
        Instances(t[:, 0].astype(int), t[:, 1].astype(int), t[:, 2:]),
        Predictions(p[:, 0].astype(int), p[:, 1].astype(int), p[:, 2:4], p[:, 4]),
        np.array(TIOUS),
    )
    tiou = [v for values in best.values() for v in values]
    said, shown = np.array(lengths).sum(axis=0)
    print("| mean tIoU | instances found | mAP@.3 | @.5 | @.7 | false/min | length | ECE |")
    print("|---|---|---|---|---|---|---|---|")
    cells = [f"{np.mean(tiou):.3f}", f"{hit} of {len(t)}", *(f"{100 * v:.1f}" for v in scored.mean_ap)]
    print(f"| {' | '.join(cells)} | {60 * false / other:.2f} | {said / shown:.2f} | {ece(rows):.3f} |")
    print("\nmean tIoU: " + ", ".join(f"{sport} {len(v)}: {np.mean(v):.2f}" for sport, v in best.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--half", choices=HALVES, default="score")
    parser.add_argument("--tuning", type=Path, default=kinetics.TUNING, help="another one than what ships")
    given = parser.parse_args()
    model = load_model(EMBEDDED, tuning=given.tuning)
    find = by_product(model)
    listed = read_ground_truth(given.truth / "ground_truth.json")
    truth = {name: video.actions for name, video in listed.items() if video.subset == given.half}
    of_videos, of_clips = stored(given.videos), stored(given.clips)
    report(find, {name: load(of_videos[name]) for name in truth}, truth)
    names = json.loads((given.truth / "clips.json").read_text())[given.half]["Street"]
    streets = [load(of_clips[PurePosixPath(n).stem]) for n in names]
    shown = sorted({a.label for actions in truth.values() for a in actions})
    for title, sports in (("the half's", shown), ("all", sorted(set(model.groups.values())))):
        loud = [sport for sport in sports for street in streets if find(street, sport)]
        runs, each = len(sports) * len(streets), ", ".join(f"{s} {loud.count(s)}" for s in sorted(set(loud)))
        print(f"street clips, {title} {len(sports)} sports: silent {runs - len(loud)} of {runs}; loud: {each}")


if __name__ == "__main__":
    main()

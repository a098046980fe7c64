"""`find` on SportsMini: one example, three, and one with two counter-examples, beside the supervised network.

    python benchmarks/sportsmini.py DIR
    python cli.py extract DIR/test -o FEATURES/test
    python benchmarks/find.py FEATURES/test --ground-truth DIR/ground_truth.json

For each class 20 random examples (or threes) are drawn from the instances of the videos, each with the seconds of the
whole instance. Everything else is what `find` does over the folder. Two figures, in percent, each the mean over the
draws and then over the classes:

- average precision of snippets: the snippets of all videos ranked by their probability; a snippet shows the class if
  its middle does. Chance is the share of such snippets.
- AP at tIoU .5 of the segments that are drawn, ranked by confidence: mAP@.5.

The instances that are examples, and what is found there, count in neither. The counter-examples are what a person would
mark: the two surest wrong segments of the first search, which no longer count, either. --choose prints the figures for
several levels instead; the level of `find` was chosen by it on training videos.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.featurefile import load
from pipeline import query as queries
from pipeline.query import Example, Query, Seen
from postprocess.evaluation.metrics import Instances, Predictions, detect

DRAWS, SEED = 20, 0
CHOOSING, LEVELS = 5, (0.2, 0.3, 0.4, 0.5, 0.6)  # draws, and levels


@dataclass(frozen=True)
class Instance:
    """An annotated action."""

    video: str
    start: float
    end: float
    label: str

    def touches(self, video: str, start: float, end: float) -> bool:
        """Whether a stretch of a video shares time with it."""
        return video == self.video and start < self.end and end > self.start


def instances(path: Path, videos: Sequence[str]) -> list[Instance]:
    """The instances of these videos."""
    database = json.loads(path.read_text())["database"]
    return [
        Instance(name, *map(float, a["segment"]), str(a["label"]))
        for name in videos
        for a in database[name]["annotations"]
    ]


def ranked_precision(score: np.ndarray, shown: np.ndarray) -> float:
    """Average precision of a ranking of snippets."""
    hits = shown[np.argsort(-score, kind="stable")]
    return float((np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)).mean())


class Trial:
    """The search for one class with certain examples."""

    def __init__(self, folder: dict[str, Seen], truth: list[Instance], label: str, examples: list[Instance]) -> None:
        self.folder, self.truth, self.label, self.examples = folder, truth, label, examples
        self.counter: list[Instance] = []

    def search(self) -> None:
        """Build the query, and look at all videos."""

        def given(several: list[Instance]) -> list[tuple[Example, Seen]]:
            return [(Example(Path(f"{i.video}.mp4"), i.start, i.end), self.folder[i.video]) for i in several]

        query = Query("found", given(self.examples), given(self.counter), list(self.folder.values()))
        self.found = {name: query.result(Path(name), seen)[0].segments for name, seen in self.folder.items()}
        self.curve = {name: query.probability(seen.features) for name, seen in self.folder.items()}

    def known(self, video: str, start: float, end: float) -> bool:
        """Whether this stretch was shown to the search."""
        return any(i.touches(video, start, end) for i in (*self.examples, *self.counter))

    def mark_two(self) -> None:
        """Take the two surest segments without the class as counter-examples."""
        segments = [(s, name) for name, found in self.found.items() for s in found]
        for s, name in sorted(segments, key=lambda pair: -pair[0].confidence):
            right = any(i.touches(name, s.start, s.end) for i in self.truth if i.label == self.label)
            if not right and len(self.counter) < 2:
                self.counter.append(Instance(name, s.start, s.end, ""))

    def figures(self) -> tuple[float, float, float]:
        """Average precision of snippets, AP at tIoU .5, and chance."""
        scores, shown = [], []
        for name, seen in self.folder.items():
            times = seen.features.times
            middle, here = times.mean(axis=1), np.zeros(len(times), dtype=bool)
            for i in self.truth:
                if i.label == self.label and i.video == name:
                    here |= (middle > i.start) & (middle < i.end)
            new = np.array([not self.known(name, start, end) for start, end in times])
            scores.append(self.curve[name][new])
            shown.append(here[new])
        number = {name: n for n, name in enumerate(self.folder)}
        left = [i for i in self.truth if i.label == self.label and i not in self.examples]
        drawn = [
            (number[name], s.start, s.end, s.confidence)
            for name, found in self.found.items()
            for s in found
            if not self.known(name, s.start, s.end)
        ]
        rows = np.array(drawn, dtype=np.float64).reshape(-1, 4)
        spans = np.array([(i.start, i.end) for i in left])
        truth = Instances(np.array([number[i.video] for i in left]), np.zeros(len(left), np.int64), spans)
        guess = Predictions(rows[:, 0].astype(np.int64), np.zeros(len(rows), np.int64), rows[:, 1:3], rows[:, 3])
        ap = float(detect(truth, guess, np.array([0.5])).mean_ap[0])
        all_shown = np.concatenate(shown)
        return ranked_precision(np.concatenate(scores), all_shown), ap, float(all_shown.mean())


def measure(folder: dict[str, Seen], truth: list[Instance], count: int, counter: bool, draws: int) -> np.ndarray:
    """(classes, 3) means over the draws of `Trial.figures`."""
    rows = []
    for number, label in enumerate(sorted({i.label for i in truth})):
        rng = np.random.default_rng([SEED, number])
        own = [i for i in truth if i.label == label]
        figures = []
        for _ in range(draws):
            trial = Trial(folder, truth, label, [own[k] for k in rng.choice(len(own), count, replace=False)])
            trial.search()
            if counter:
                trial.mark_two()
                trial.search()
            figures.append(trial.figures())
        rows.append(np.mean(figures, axis=0))
    return np.array(rows)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--choose", action="store_true")
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.features.glob("*.npz"))
    folder = {path.stem: Seen(path.stem, load(path)) for path in files}
    truth = instances(arguments.ground_truth, list(folder))
    labels = sorted({i.label for i in truth})
    space = queries.whiten([seen.features.stacked(("rgb",)) for seen in folder.values()])
    queries.whiten = lambda videos: space  # of one folder it is always the same
    print(
        f"{len(folder)} videos, {sum(len(s.features.times) for s in folder.values())} snippets, {len(truth)} instances"
    )
    print("examples | AP of snippets | chance | mAP@.5 |", " | ".join(f"{label}: AP, AP@.5" for label in labels))
    plans = [("one", 1, False), ("three", 3, False), ("one, two counter-examples", 1, True)]
    for level in LEVELS if arguments.choose else (queries.LEVEL,):
        queries.LEVEL = level
        for name, count, counter in plans:
            rows = 100 * measure(folder, truth, count, counter, CHOOSING if arguments.choose else DRAWS)
            precision, ap, chance = rows.mean(axis=0)
            each = " | ".join(f"{row[0]:.1f}, {row[1]:.1f}" for row in rows)
            at = f" (level {level})" if arguments.choose else ""
            print(f"{name}{at} | {precision:.1f} | {chance:.1f} | {ap:.1f} | {each}", flush=True)


if __name__ == "__main__":
    main()

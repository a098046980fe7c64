"""Which class is drawn where another one is: one training in a world of SportsMini's training clips, class by class.

    python benchmarks/which_class.py FEATURES/train --clips DIR/clips.json [--world 0] [--steps 240]

Full JCDNet on labels per video, preset `own`. Printed are the AP of each class at tIoU .3 to .9 under both rules, what
`runs` draws at each true action (tIoU .5), and the mean of A^ness and of the classes' probabilities inside them.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import judge, peers, sportsmini_worlds, tasks
from model.config import ModelConfig
from model.predict import Scores
from model.presets import model_settings, preset
from model.train import initialise, train
from pipeline.training.found import judge_times
from pipeline.training.snippets import Mark, Marked
from postprocess.config import RULES
from postprocess.evaluation.metrics import detect


def truth(task: tasks.Task) -> list[Marked]:
    """The actions in each test video, which are complete."""
    found = []
    for v in range(len(task.test.names)):
        rows = task.truth.video == v
        spans = zip(task.truth.span[rows].tolist(), task.truth.label[rows].tolist(), strict=True)
        found.append(Marked(tuple(Mark(a, b, task.test.classes[c]) for (a, b), c in spans), True))
    return found


def report(task: tasks.Task, scores: list[Scores]) -> None:
    """Print everything about one network."""
    classes = task.test.classes
    for rule in RULES:
        segments = judge._segments(task, scores, rule)
        ranked_by = judge.RANKED_BY[rule][rule]
        found = detect(task.truth, judge._predictions(segments, classes, ranked_by), judge.TIOUS)
        for c, label in enumerate(found.classes):
            print(f"{rule} {classes[label]}: AP", *np.round(100 * found.ap[:, c], 1))
        if rule == "runs":
            times = judge_times(task.test.names, task.durations, truth(task), segments, classes)
            print("drawn as", *classes, "nothing")
            for name, row in zip((*classes, "nothing"), times.confusion, strict=True):
                print(name, *row)
    print("inside each class: A^ness, then the probabilities of", *classes, "background")
    for c, label in enumerate(classes):
        inside = []
        for v, (s, when) in enumerate(zip(scores, task.times, strict=True)):
            p = np.exp(s.cas - s.cas.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            middle = when.mean(axis=1)
            for a, b in task.truth.span[(task.truth.video == v) & (task.truth.label == c)]:
                here = (a <= middle) & (middle < b)
                inside.append([s.actionness[here].mean(), *p[here].mean(axis=0)])
        print(label, *np.round(np.mean(inside, axis=0), 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, metavar="FEATURES/train")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--world", type=int, default=0)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = sportsmini_worlds.world(sportsmini_worlds.read(given.features, given.clips), given.world)
    config = preset("own", task.train.lengths)
    config = replace(config, steps=given.steps or config.steps)
    model = ModelConfig(len(task.train.classes), task.train.width, **model_settings("own"))
    net = train(initialise(model, task.train.classes, ("rgb",), {}, config.seed), task.train, config).build()
    report(task, [peers.scores(net, rows) for rows in task.test.features])


if __name__ == "__main__":
    main()

"""What a person may have marked in the training videos of a task: nothing, some instances, points, or everything."""

from dataclasses import replace

import numpy as np

from benchmarks.tasks import Task
from model.datasets import VideoSet
from pipeline.training.snippets import Mark, Marked, known

KNOWLEDGE = ("labels", "1", "3", "10", "points", "everything")


def marked(task: Task, knowledge: str, seed: int) -> list[Marked]:
    """The marks in each training video.

    Args:
        task: with the actions in its training videos.
        knowledge: of KNOWLEDGE; a number is of marked instances of each class, drawn at random from all videos.
        seed: decides which instances are marked, and where in an instance its point lies.
    """
    rng = np.random.default_rng((seed, 19))
    actions = [(v, c, start, end) for v, found in enumerate(task.spans) for c, start, end in found]
    if knowledge.isdigit():
        chosen = []
        for c in range(len(task.train.classes)):
            here = [action for action in actions if action[1] == c]
            picked = rng.permutation(len(here))[: int(knowledge)]
            chosen += [here[i] for i in sorted(picked)]
        actions = chosen
    elif knowledge == "labels":
        actions = []
    marks: list[list[Mark]] = [[] for _ in task.train.names]
    for v, c, start, end in actions:
        label = task.train.classes[c]
        if knowledge == "points":
            marks[v].append(Mark(float(rng.uniform(start, end)), None, label))
        else:
            marks[v].append(Mark(start, end, label))
    return [Marked(tuple(of), knowledge == "everything") for of in marks]


def learned(task: Task, knowledge: str, seed: int, margin: float) -> VideoSet:
    """The training videos with what is known about their snippets."""
    if knowledge == "labels":
        return task.train
    marks = marked(task, knowledge, seed)
    rows = [known(t, m, task.train.classes, margin) for t, m in zip(task.train_times, marks, strict=True)]
    return replace(task.train, known=rows)

"""Where the settings of the preset `own` are chosen: worlds made of the snippets of SportsMini's training videos alone.

    python benchmarks/sportsmini.py DIR
    python cli.py extract DIR -o FEATURES --streams rgb --precision bfloat16
    python benchmarks/sportsmini_worlds.py FEATURES/train --clips DIR/clips.json [--steps N] [--lr X] [--averaging X] …

A clip's snippets are those whose middle lies in it, as they stand in the training videos. Of each label three clips in
five are learned from and the rest looked at, another draw in every world; out of each side videos are put together as
sportsmini.py does it, snippet by snippet: 45 to learn from, 40 to look at. SportsMini's test videos are not read. What
is printed are the numbers of arms.py, one training a world, its seed 0.

--videos 16 learns from the first 16 alone, --videos 24 --snippets 12 from stretches of 12 snippets of the first 24,
five in six of them around an action.

The arms marked-*, points and everything of arms.py also have times; --snippet, --action, --mil and --edge say how these
are used. --stride 4 is for features of that stride.
"""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import arms, judge, tasks
from benchmarks.sportsmini import ACTIONS, BACKGROUND, FPS, Half, actions_of
from extractors.config import FeatureConfig
from extractors.features import load
from extractors.snippets import snippet_times
from model.config import TimesConfig, TrainConfig
from model.datasets import VideoSet
from model.presets import model_settings, preset
from pipeline.training.snippets import EDGE
from postprocess.evaluation.metrics import Instances

LENGTH = 16  # frames of a snippet
COUNTS = {"train": 45, "test": 40}
SHARE = 0.6  # of a label's clips, to learn from
CLASSES = tuple(sorted(ACTIONS))
Bank = dict[str, list[NDArray[np.float32]]]  # clip → (T, F) of each of its showings


def read(features: Path, clips: Path) -> Bank:
    """The snippets of every clip that the videos of a folder show."""
    shown = json.loads(clips.read_text())
    bank: Bank = defaultdict(list)
    for path in sorted(features.glob("*.npz")):
        found = load(path)
        middle = found.times.mean(axis=1)
        for start, end, clip in shown[path.stem]:
            assert found.rgb is not None
            rows = found.rgb[(start <= middle) & (middle < end)]
            if len(rows):
                bank[clip].append(rows)
    return dict(bank)


def split(bank: Bank, rng: np.random.Generator) -> dict[str, dict[str, list[str]]]:
    """Half → label → clips; a label of a single clip is on both sides."""
    by: dict[str, list[str]] = defaultdict(list)
    for clip in sorted(bank):
        by[clip.split("/")[0]].append(clip)
    halves: dict[str, dict[str, list[str]]] = {half: {} for half in COUNTS}
    for label in (*ACTIONS, *BACKGROUND):
        clips = [str(clip) for clip in rng.permutation(by[label])]
        cut = min(max(1, round(SHARE * len(clips))), len(clips) - 1)
        halves["train"][label], halves["test"][label] = (clips[:cut], clips[cut:]) if cut else (clips, clips)
    return halves


def videos(
    bank: Bank, clips: dict[str, list[str]], half: str, rng: np.random.Generator, stride: int
) -> tuple[VideoSet, list[NDArray[np.int64]]]:
    """Features and labels of a half's videos, and of each the class of every snippet, C for background."""
    lengths = {label: {c: stride * max(map(len, bank[c])) for c in names} for label, names in clips.items()}
    source = Half(lengths, rng, short=False)
    features, targets = [], []
    for n in range(COUNTS[half]):
        rows, classes = [], []
        for piece in source.video(actions_of(n, rng)):
            showings = bank[piece.clip]
            one = max(showings, key=len) if piece.first else showings[rng.integers(len(showings))]
            first = piece.first // stride
            part = one[first : first + max(1, round(piece.frames / stride))]
            rows.append(part)
            classes += [CLASSES.index(piece.label) if piece.label else len(CLASSES)] * len(part)
        features.append(np.concatenate(rows))
        targets.append(np.array(classes, dtype=np.int64))
    labels = np.array([[bool((t == c).any()) for c in range(len(CLASSES))] for t in targets])
    names = tuple(f"{half}_{n:03}" for n in range(COUNTS[half]))
    return VideoSet(features, labels, names, CLASSES), targets


def world(bank: Bank, number: int, stride: int = 16) -> tasks.Task:
    """A world; the same number gives the same one."""
    rng = np.random.default_rng(1000 + number)
    halves = split(bank, rng)
    train, classes = videos(bank, halves["train"], "train", rng, stride)
    test, truth = videos(bank, halves["test"], "test", rng, stride)

    def actions(of: NDArray[np.int64]) -> tuple[tuple[int, float, float], ...]:
        """In seconds: a snippet stands for the `stride` frames at its middle."""
        first = (LENGTH - stride) / 2
        return tuple((c, (first + stride * a) / FPS, (first + stride * b) / FPS) for c, a, b in stretches(of))

    def times(of: NDArray[np.int64]) -> NDArray[np.float64]:
        config = FeatureConfig(stride=stride)
        return np.array([snippet_times(k, 0.0, config) for k in range(len(of))])

    columns = np.array([(v, *a) for v, t in enumerate(truth) for a in actions(t)], dtype=np.float64)
    return tasks.Task(
        train=train,
        targets=classes,
        test=test,
        times=[times(t) for t in truth],
        durations=[float(times(t)[-1, 1]) for t in truth],
        truth=Instances(columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2:]),
        clips=None,
        spans=tuple(actions(t) for t in classes),
        train_times=tuple(times(t) for t in classes),
    )


def fewer(task: tasks.Task, number: int, count: int, snippets: int | None) -> tasks.Task:
    """Only `count` videos to learn from, and of each only a stretch; of the last sixth what comes before the action."""
    rng = np.random.default_rng(number)
    features, targets = task.train.features[:count], task.targets[:count]
    if snippets is not None:
        for v, classes in enumerate(targets):
            shown = np.flatnonzero(classes < len(CLASSES))
            if v < count * 5 // 6:
                first = int(rng.choice(shown)) - int(rng.integers(snippets // 4, snippets * 3 // 4))
                first = min(max(0, first), len(classes) - snippets)
                part = slice(first, first + snippets)
            else:
                part = slice(max(int(shown[0]), 4))
            features[v], targets[v] = features[v][part], classes[part]
    labels = np.array([[bool((t == c).any()) for c in range(len(CLASSES))] for t in targets])
    whole = {"spans": task.spans[:count], "train_times": task.train_times[:count]} if snippets is None else {}
    train = VideoSet(features, labels, task.train.names[:count], CLASSES)
    return replace(task, train=train, targets=targets, **({"spans": (), "train_times": ()} | whole))


def stretches(classes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(class, first snippet, the one after the last) of each run of an action."""
    edges = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(classes)]
    runs = [(int(classes[a]), a, b) for a, b in itertools.pairwise(edges)]
    return [run for run in runs if run[0] < len(CLASSES)]


@dataclass(frozen=True)
class Asked:
    """What a training in a world is given: changes of the preset `own` and of its use of times, and how much to see."""

    stride: int
    videos: int
    snippets: int | None
    training: dict[str, Any]
    network: dict[str, Any]
    times: dict[str, Any]
    edge: float


def run(bank: Bank, number: int, arm: str, asked: Asked) -> dict[str, Any]:
    """Train in a world and judge, on one thread."""
    torch.set_num_threads(1)
    task = fewer(world(bank, number, asked.stride), number, asked.videos, asked.snippets)
    config: TrainConfig = replace(preset("own", task.train.lengths), **asked.training, times=TimesConfig(**asked.times))
    source = tasks.Files(Path(), Path(), Path(), None)  # the task is at hand, so nothing is read
    network = model_settings("own") | arms.wider(arm, task) | asked.network
    job = arms.Job(arm, source, config, tuple(network.items()), asked.edge)
    return judge.judge(task, arms.learn(job, task), arms.drawn(arm, task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, metavar="FEATURES/train")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=arms.ARMS, default=["full"])
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--videos", type=int, default=COUNTS["train"])
    parser.add_argument("--snippets", type=int)
    parser.add_argument("--stride", type=int, default=LENGTH, help="that the features were made with")
    parser.add_argument("--edge", type=float, default=EDGE, help="seconds around a marked instance: background")
    groups: dict[str, dict[str, Any]] = {
        "training": {"steps": int, "lr": float, "averaging": float, "batch": int},
        "network": {"smooth": int, "dropout": float, "kernel": int},
        "times": {"snippet": float, "action": float},
    }
    for name, kind in (pair for group in groups.values() for pair in group.items()):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--mil", action="store_const", const=True, help="the terms of labels for complete videos, too")
    groups["times"]["mil"] = bool
    given = parser.parse_args()
    asked = Asked(
        given.stride,
        given.videos,
        given.snippets,
        **{kind: {n: v for n in group if (v := getattr(given, n)) is not None} for kind, group in groups.items()},
        edge=given.edge,
    )
    bank = read(given.features, given.clips)
    jobs = [(arm, number) for arm in given.arms for number in range(given.worlds)]
    parallel = joblib.Parallel(n_jobs=given.jobs)
    found = parallel(joblib.delayed(run)(bank, number, arm, asked) for arm, number in jobs)
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (arm, _), entry in zip(jobs, found, strict=True):
        runs[arm].append(entry)
    print(arms.table(dict(runs)))


if __name__ == "__main__":
    # Under its own name, so that worker processes find what they are sent.
    from benchmarks import sportsmini_worlds

    sportsmini_worlds.main()

"""Does it matter in which precision features were made, when a model trains on one precision and runs on another?

    for p in float32 bfloat16 int8; do
        for half in train test; do
            python cli.py extract DIR/$half -o F/$p/$half --streams rgb --precision $p
        done
    done
    python benchmarks/crossed.py F/float32 F/bfloat16 F/int8 --ground-truth TRUTH.json --labels DIR/labels.csv

TRUTH.json is DIR/ground_truth.json, and DIR is SportsMini's (benchmarks/sportsmini.py). --first 30 20 takes the first
30 training and 20 test videos. Full JCDNet learns from the train split of each folder, once with each seed, and is
judged on the test split of every folder. Printed is a table for each rule: mAP 0.3:0.9 and @0.5 in percent, mean and
standard deviation over the seeds; a row for each precision of the training.
"""

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import arms, tasks
from benchmarks.judge import judge
from model.presets import model_settings, preset
from postprocess.config import RULES


@dataclass(frozen=True)
class Asked:
    """What is trained on and judged: a folder of features for each precision, and what is known about the videos."""

    folders: tuple[Path, ...]
    ground_truth: Path
    labels: Path

    def task(self, folder: Path) -> tasks.Task:
        """The videos with the features of a folder."""
        return tasks.load(tasks.Files(folder, self.ground_truth, self.labels, None), 0)


def run(asked: Asked, folder: Path, seed: int) -> list[dict[str, Any]]:
    """Train on the features of one folder; what `judge` says of each folder, in their order. One thread."""
    torch.set_num_threads(1)
    task = asked.task(folder)
    config = replace(preset("own", task.train.lengths), seed=seed)
    source = tasks.Files(folder, asked.ground_truth, asked.labels, None)
    net = arms.learn(arms.Job("full", source, config, tuple(model_settings("own").items())), task)
    return [judge(asked.task(other), net) for other in asked.folders]


def first(labels: Path, counts: tuple[int, int], folder: Path) -> Path:
    """A copy of the labels with the first videos of each half alone."""
    with labels.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = []
    for half, count in zip(("train", "test"), counts, strict=True):
        kept += [row for row in rows if row["split"] == half][:count]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("video", "labels", "split"))
        writer.writeheader()
        writer.writerows(kept)
    return folder / "labels.csv"


def table(folders: tuple[Path, ...], found: dict[tuple[Path, Path], list[dict[str, Any]]], rule: str) -> str:
    """Markdown: a row for each folder that was trained on, a column for each that was judged."""
    lines = [
        f"| {rule}: trained on | {' | '.join(f'tested on {folder.name}' for folder in folders)} |",
        "|---" * (len(folders) + 1) + "|",
    ]
    for trained in folders:
        cells = []
        for tested in folders:
            judged = [entry["rules"][rule] for entry in found[trained, tested]]
            average = arms.spread([quality["average"] for quality in judged])
            cells.append(f"{average}, {arms.spread([quality['mAP']['0.5'] for quality in judged])}")
        lines.append(f"| {trained.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FEATURES")
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--first", type=int, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        labels = first(given.labels, tuple(given.first), Path(scratch)) if given.first else given.labels
        asked = Asked(tuple(given.folders), given.ground_truth, labels)
        jobs = [(folder, seed) for folder in asked.folders for seed in given.seeds]
        results = joblib.Parallel(n_jobs=given.jobs)(joblib.delayed(run)(asked, *job) for job in jobs)
    found: dict[tuple[Path, Path], list[dict[str, Any]]] = {}
    for (trained, _), judged in zip(jobs, results, strict=True):
        for tested, entry in zip(asked.folders, judged, strict=True):
            found.setdefault((trained, tested), []).append(entry)
    print("\n\n".join(table(asked.folders, found, rule) for rule in RULES))


if __name__ == "__main__":
    # Under its own name, so that worker processes find what they are sent.
    from benchmarks import crossed

    crossed.main()

"""What each round of marking and training gives: ten instances, then some complete videos, then all of them complete.

    python benchmarks/sportsmini.py DIR
    python cli.py extract DIR -o FEATURES --streams rgb
    python benchmarks/rounds.py FEATURES DIR OUT

The commands are a user's. Round 1 knows the labels of the training videos and ten instances of each action, drawn at
random (benchmarks/marks.py). In round 2 the first half of the videos is complete, in round 3 all are; each continues
from the model before with `train --more`. For comparison, the second and the third are trained from nothing, too. Each
model is judged on the test videos with the rule that `run` uses.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import marks, tasks
from pipeline.training.snippets import Marked

ROOT = Path(__file__).resolve().parents[1]


def write(names: tuple[str, ...], marked: list[Marked], path: Path) -> None:
    """times.csv as `train --times` reads it."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "start", "end", "label", "complete"))
        for name, of in zip(names, marked, strict=True):
            complete = "yes" if of.complete else ""
            writer.writerows((name, mark.start, mark.end, mark.label, complete) for mark in of.marks)
            if of.complete and not of.marks:
                writer.writerow((name, "", "", "", complete))


def jcdnet(*words: object) -> str:
    """What a command printed on stdout."""
    line = [sys.executable, "cli.py", "--quiet", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("videos", type=Path, metavar="DIR")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    truth, labels = given.videos / "ground_truth.json", given.videos / "labels.csv"
    task = tasks.load(tasks.Files(given.features, truth, labels, None), 0)
    ten, everything = (marks.marked(task, knowledge, 0) for knowledge in ("10", "everything"))
    half = len(ten) // 2
    given.out.mkdir(parents=True, exist_ok=True)
    rounds = {"1": ten, "2": everything[:half] + ten[half:], "3": everything}
    for name, marked in rounds.items():
        write(task.train.names, marked, given.out / f"times_{name}.csv")
    for name, before in (("1", None), ("2", "1"), ("3", "2"), ("2", None), ("3", None)):
        model = given.out / (f"round_{name}" if before or name == "1" else f"alone_{name}")
        more = ("--more", given.out / f"round_{before}") if before else ()
        jcdnet("train", labels, "--features", given.features, "--times", given.out / f"times_{name}.csv", *more,
               "--folds", 0, "-o", model)  # fmt: skip
        scored = jcdnet("evaluate", "--model", model, "--features", given.features / "test", "--ground-truth", truth,
                        "--rule", "runs", "--subset", "test", "--tiou", "0.3:0.9:0.1")  # fmt: skip
        print(f"{model.name}\n{scored}", flush=True)


if __name__ == "__main__":
    main()

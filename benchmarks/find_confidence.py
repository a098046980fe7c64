"""How often matches of `find` are right at each confidence, by the length of the footage that is searched.

    python benchmarks/sportsmini.py DIR
    python cli.py extract DIR/test -o FEATURES/test
    python benchmarks/find_confidence.py FEATURES/test --ground-truth DIR/ground_truth.json
    python cli.py extract CLIPS -o FEATURES/clips
    python benchmarks/find_confidence.py FEATURES/clips --clips --used DIR/clips.json --half test

Folders are drawn at random: videos until they are as long as wanted. For each, several queries: a random class, one to
three of its instances as examples, from the folder or from other videos of the same half, some of them marked shorter
than they are. A match is right if it shares half of the shorter one with another instance of the class; what lies on an
example counts nowhere. `before` is the mean of the curve, which was the confidence once. --fit prints the line that was
fitted on the training half: over the log odds of the curve's mean, with each length of footage weighing the same.

With --clips, a video is a clip of one action, which its name begins with (Kickflip_037): the clips that --used names
for this half of SportsMini.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.featurefile import load
from pipeline import query as queries
from pipeline.query import Example, Query, Seen

# Seconds of footage: folders, and queries in each.
SIZES = {30: (60, 6), 60: (60, 8), 120: (40, 8), 300: (25, 12), 900: (10, 25), 1620: (6, 40)}
BACKGROUND = ("Street", "Exercise")  # clips that show no action
PARTIAL, CUT, COUNTS = 0.3, 0.3, (1, 1, 1, 2, 3)
EDGE, BINS = 1e-6, 10


@dataclass(frozen=True)
class Match:
    """A match, with what its query knew."""

    before: float
    after: float
    minutes: float
    brief: bool
    right: bool


def share(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two stretches share half of the shorter one."""
    return min(a[1], b[1]) - max(a[0], b[0]) >= 0.5 * min(a[1] - a[0], b[1] - b[0])


def search(pool: dict[str, Seen], truth: dict[str, list], folder: list[str], rng: np.random.Generator) -> list[Match]:
    """The matches of one random query in a folder."""
    labels = sorted({label for here in truth.values() for label, _, _ in here})
    label = labels[rng.integers(len(labels))]
    count, inside = int(rng.choice(COUNTS)), rng.random() < 0.5
    for names in (folder, sorted(pool)) if inside else (sorted(pool),):
        own = [(name, start, end) for name in names for kind, start, end in truth[name] if kind == label]
        if len(own) >= count:
            break
    else:
        return []
    shown = [own[k] for k in rng.choice(len(own), count, replace=False)]
    cut = CUT * rng.random(2) if rng.random() < PARTIAL else (0.0, 0.0)
    marked = [(n, a + cut[0] * (b - a), b - cut[1] * (b - a)) for n, a, b in shown]
    given = [(Example(Path(f"{n}.mp4"), a, b), pool[n]) for n, a, b in marked]
    query = Query("found", given, [], [pool[name] for name in folder])
    slope, shift = query._drawn.confidence_slope, query._drawn.confidence_shift
    minutes = sum(pool[name].features.duration for name in folder) / 60
    brief = any("single snippet" in doubt for doubt in query.doubts)
    found = []
    for name in folder:
        for s in query.result(Path(name), pool[name])[0].segments:
            at = (s.start, s.end)
            if any(n == name and share(at, (a, b)) for n, a, b in marked):
                continue
            right = any(kind == label and share(at, (a, b)) for kind, a, b in truth[name])
            odds = (math.log(s.confidence / (1 - s.confidence)) - shift) / slope
            found.append(Match(1 / (1 + math.exp(-odds)), s.confidence, minutes, brief, right))
    return found


def gather(pool: dict[str, Seen], truth: dict[str, list], seed: int) -> dict[int, list[Match]]:
    """The matches by length of footage."""
    rng, real, found = np.random.default_rng(seed), queries.whiten, {}
    total = sum(seen.features.duration for seen in pool.values())
    for size, (folders, several) in SIZES.items():
        if size > total:
            continue
        found[size] = []
        for _ in range(folders):
            folder, seconds = [], 0.0
            for name in map(str, rng.permutation(sorted(pool))):
                if seconds < size:
                    folder.append(name)
                    seconds += pool[name].features.duration
            space = real([pool[name].features.stacked(("rgb",)) for name in folder])
            queries.whiten = lambda videos, space=space: space  # of one folder it is always the same
            for _ in range(several):
                found[size] += search(pool, truth, folder, rng)
        queries.whiten = real
        print_row(f"{size / 60:g} min", found[size])
    return found


def error(said: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error over ten bins."""
    at = np.minimum((said * BINS).astype(int), BINS - 1)
    return float(sum((at == b).mean() * abs(said[at == b].mean() - right[at == b].mean()) for b in set(at)))


def print_row(name: str, matches: list[Match]) -> None:
    """One length of footage: how sure, how right, and how far apart."""
    before, after, right = np.array([(m.before, m.after, m.right) for m in matches]).T
    shares = []
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        here = (after >= low) & (after < low + 0.2)
        shares.append(f"{100 * right[here].mean():.0f} ({here.sum()})" if here.any() else "-")
    figures = f"{right.mean():.2f} | {before.mean():.2f}, {error(before, right):.2f}"
    print(f"| {name} | {len(matches)} | {figures} | {after.mean():.2f}, {error(after, right):.2f} |", end=" ")
    print(f"{', '.join(shares)} |", flush=True)


def fit(found: dict[int, list[Match]]) -> np.ndarray:
    """(5,) weights of log odds, of them by size, of size and of brief examples, and the shift: by Newton's method."""
    rows, right, weight = [], [], []
    for matches in found.values():
        for m in matches:
            p = min(max(m.before, EDGE), 1 - EDGE)
            z, size = math.log(p / (1 - p)), math.log(min(max(m.minutes, 0.5), 30.0))
            rows.append((z, z * size, size, m.brief, 1.0))
            right.append(m.right)
            weight.append(1 / len(matches) / len(found))
    x, y, w, b = np.array(rows, float), np.array(right, float), np.array(weight), np.zeros(5)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ b))
        ridge = 1e-3 * np.array([1, 1, 1, 1, 0])
        slope = x.T @ (w * (p - y)) + ridge * b
        b -= np.linalg.solve((x * (w * p * (1 - p))[:, None]).T @ x + np.diag(ridge + 1e-9), slope)
    return b


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--ground-truth", type=Path)
    parser.add_argument("--clips", action="store_true")
    parser.add_argument("--used", type=Path)
    parser.add_argument("--half", choices=("train", "test"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    pool = {path.stem: Seen(path.stem, load(path)) for path in sorted(arguments.features.glob("*.npz"))}
    if arguments.clips:
        parts = json.loads(arguments.used.read_text())
        used = {Path(part[2]).stem for name, all_ in parts.items() if name.startswith(arguments.half) for part in all_}
        pool = {name: seen for name, seen in pool.items() if name in used}
        kinds = {name: name.partition("_")[0] for name in pool}
        truth = {
            name: [] if kinds[name] in BACKGROUND else [(kinds[name], 0.0, seen.features.duration)]
            for name, seen in pool.items()
        }
    else:
        database = json.loads(arguments.ground_truth.read_text())["database"]
        truth = {
            name: [(str(a["label"]), *map(float, a["segment"])) for a in database[name]["annotations"]] for name in pool
        }
    print("| searched | matches | right | before: mean, ECE | after: mean, ECE | right in %, by fifths of confidence |")
    print("|---|---|---|---|---|---|")
    found = gather(pool, truth, arguments.seed)
    print_row("all", [m for matches in found.values() for m in matches])
    if arguments.fit:
        print("slope, by size, shift by size, brief, shift:", np.round(fit(found), 3))


if __name__ == "__main__":
    main()

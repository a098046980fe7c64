"""What is the flow stream worth without published weights? Spread of its features, and linear probes, on real clips.

    OMP_NUM_THREADS=1 python benchmarks/flow_part.py [--corpus DIR] [--work DIR] [--repeats 5] [--units raw]

Four networks read the same 216 snippets: RGB; flow with RGB's batch-norm statistics as they are; flow with those of the
first layer re-estimated (TSN's partial BN); flow with all re-estimated (flow_statistics.py, on other clips). Each
feature set is judged by ridge logistic regression, its penalty (and the weight of a second stream) chosen on the
training part, in five folds that share no clip. Fields, statistics and features are kept in --work, so that probes can
be repeated without extraction; delete it after a change to extractors/.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.flow_statistics import (
    CONFIG,
    CORPUS,
    WORK,
    Cut,
    batches,
    choose,
    estimate,
    field,
    frames_of,
    inflated,
)
from extractors.backbones import registry
from extractors.features import CPU_BATCH
from extractors.inputs.host import rgb_input
from support.files import write_atomically

Floats = NDArray[np.float64]
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # times the snippets; rows have a mean squared length of 1
SHARES = (1.0, 0.3, 0.1)  # of the second stream beside the first
FOLDS, INNER = 5, 3
UNITS = ("standardised", "raw")

ACTIONS = (
    "IceHockeyFight",
    "IceHockeyPlay",
    "Kickflip",
    "Ollie",
    "TennisRally",
    "BaseballPitch",
    "Basketball",
    "Weightlifting",
)
TASKS: dict[str, dict[str, int]] = {
    "5 sports": {n: i for i, n in enumerate(("TennisRally", "BaseballPitch", "Basketball", "Weightlifting", "Street"))},
    "fight, play": {"IceHockeyFight": 1, "IceHockeyPlay": 0},
    "kickflip, ollie": {"Kickflip": 1, "Ollie": 0},
    "action, street": {**dict.fromkeys(ACTIONS, 1), "Street": 0},
}
UNSEEN = "action unseen, street"
AS_IS = "flow, RGB's statistics"


@dataclass(frozen=True)
class Probed:
    """The snippets of one task."""

    sets: dict[str, list[Floats]]
    """by name of a feature set: its streams, each (N, D)"""
    target: NDArray[np.int64]
    """(N,) class"""
    clip: NDArray[np.int64]
    """(N,) which clip a snippet is from"""
    label: NDArray[np.str_]
    """(N,) folder of the corpus"""


# --- features ---


def motion(x: Tensor) -> Floats:
    """How much moves: (10,) statistics in pixels, from the flow network's input (2, L, H, W); no network."""
    fields = x.numpy().astype(np.float64) * CONFIG.flow_clip
    rest = fields - np.median(fields, axis=(2, 3), keepdims=True)  # without the camera's pan
    found = []
    for part in (fields, rest):
        size = np.hypot(*part)
        found += [size.mean(), size.std(), np.percentile(size, 50), np.percentile(size, 95), size.mean((1, 2)).std()]
    return np.array(found)


def networks(statistics: dict[str, Tensor]) -> dict[str, Callable[[], nn.Module]]:
    """By name of a feature set, its network, ready for inference."""

    def flow(kept: str) -> nn.Module:
        net = inflated()
        net.load_state_dict({k: v for k, v in statistics.items() if k.startswith(kept)}, strict=False)
        return net.fold().to(memory_format=torch.channels_last_3d)

    return {
        "RGB": registry.find("i3d", "rgb").load,
        AS_IS: lambda: inflated().fold().to(memory_format=torch.channels_last_3d),
        "flow, first layer's re-estimated": partial(flow, "Conv3d_1a_7x7."),
        "flow, all re-estimated": partial(flow, ""),
    }


def features(name: str, load: Callable[[], nn.Module], cuts: list[Cut], corpus: Path, work: Path, tag: str) -> Floats:
    """(N, D) features of the cuts from one network, kept in `work` cut by cut."""
    folder = work / f"{name.replace(' ', '_').replace(',', '').replace(chr(39), '')}_{tag}"
    missing = [cut for cut in cuts if not (folder / f"{cut.name}.npy").exists()]
    net = load() if missing else None
    for i in range(0, len(missing), CPU_BATCH):
        batch = missing[i : i + CPU_BATCH]
        if name == "RGB":
            inputs = [rgb_input(frames_of(cut, corpus).frames, CONFIG) for cut in batch]
        else:
            inputs = [field(cut, corpus, work) for cut in batch]
        assert net is not None
        with torch.inference_mode():
            rows = net(torch.stack(inputs).contiguous(memory_format=torch.channels_last_3d)).numpy()
        for cut, row in zip(batch, rows, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, row, allow_pickle=False)
            write_atomically(folder / f"{cut.name}.npy", buffer.getvalue())
    return np.stack([np.load(folder / f"{cut.name}.npy", allow_pickle=False) for cut in cuts]).astype(np.float64)


def spread_of(x: Floats) -> str:
    """Cells of the table: dead units, mean variance, participation ratio of the covariance, likeness of snippets."""
    centred = x - x.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    likeness = ((unit @ unit.T).sum() - len(x)) / (len(x) * (len(x) - 1))
    dead = (x.std(0) < 0.01 * np.abs(x).mean()).mean()
    return (
        f"{100 * dead:.1f} % | {x.mean():.3f} | {x.var(0).mean():.5f} | "
        f"{values.sum() ** 2 / (values**2).sum():.1f} | {likeness:.3f}"
    )


# --- probes ---


def fit(x: Floats, y: Floats, weight: Floats, penalty: float) -> Floats:
    """Ridge logistic regression by Newton's method: x (N, R), y (N,) in {0, 1} -> (R + 1,), the last the bias."""
    rows = np.c_[x, np.ones(len(x))]
    ridge = penalty * np.r_[np.ones(x.shape[1]), 1e-6]
    beta = np.zeros(rows.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(rows @ beta, -30, 30)))
        gradient = rows.T @ (weight * (p - y)) / len(x) + ridge * beta
        hessian = (rows.T * (weight * np.maximum(p * (1 - p), 1e-6))) @ rows / len(x) + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        beta -= step
        if np.abs(step).max() < 1e-3 * max(np.abs(beta).max(), 1):
            break
    return beta


def scores(x: Floats, target: NDArray[np.int64], test: Floats, penalty: float) -> Floats:
    """Logits (M, K) of classes against the rest (K = 1 for two classes), every class weighing the same."""
    classes = np.unique(target)
    columns = classes[1:] if len(classes) == 2 else classes
    count = np.bincount(target)
    weight = len(target) / (len(classes) * count[target])
    betas = np.stack([fit(x, (target == c).astype(float), weight, penalty) for c in columns], axis=1)
    return np.c_[test, np.ones(len(test))] @ betas


def space(streams: list[Floats], train: NDArray[np.bool_], raw: bool, share: float = 1.0) -> Floats:
    """All rows (N, R) in the span of the training ones, where the ridge loses nothing.

    Units get the same variance, the second stream `share` times the first's scale; `raw` leaves the units' own
    scales, as a network that takes the features as they are would see them.
    """
    parts = []
    for x, scale in zip(streams, (1.0, share), strict=False):
        centred = x - x[train].mean(0)
        sd = centred[train].std(0)
        standard = np.where(sd > 1e-9, sd, np.inf) * np.sqrt(x.shape[1])
        parts.append(centred if raw else centred / standard * scale)
    z = np.concatenate(parts, axis=1)
    z /= np.sqrt((z[train] ** 2).sum(1).mean())
    _, values, axes = np.linalg.svd(z[train], full_matrices=False)
    return np.asarray(z @ axes[values > 1e-9].T)


def folds(clip: NDArray[np.int64], target: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray:
    """(N,) fold of each snippet; clips stay whole, classes are dealt evenly."""
    fold = np.zeros(len(clip), dtype=np.int64)
    for begin, c in enumerate(np.unique(target)):
        for i, one in enumerate(rng.permutation(np.unique(clip[target == c]))):
            fold[(clip == one) & (target == c)] = (begin + i) % count
    return fold


def loss(logits: Floats, target: NDArray[np.int64]) -> Floats:
    """(N,) logistic loss, summed over the one-against-rest columns."""
    wanted = target[:, None] == (np.array([1]) if logits.shape[1] == 1 else np.arange(logits.shape[1]))
    return np.logaddexp(0, np.where(wanted, -logits, logits)).sum(1)


def logits_of(
    streams: list[Floats], task: Probed, train: NDArray[np.bool_], test: NDArray[np.bool_], seed: int, raw: bool
) -> Floats:
    """Logits of the test rows; penalty and share are those of the least held-out loss within the training part."""
    target = task.target[train]
    inner = folds(task.clip[train], target, INNER, np.random.default_rng(seed))
    weight = 1 / np.bincount(target)[target]  # the classes weigh the same
    best: tuple[float, float, Floats] | None = None
    for share in SHARES if len(streams) > 1 and not raw else (1.0,):
        z = space(streams, train, raw, share)
        rows = z[train]
        for penalty in PENALTIES:
            total = 0.0
            for k in range(INNER):
                into, out = inner != k, inner == k
                lost = loss(scores(rows[into], target[into], rows[out], penalty), target[out])
                total += float(weight[out] @ lost)
            if best is None or total < best[0]:
                best = total, penalty, z
    assert best is not None
    _, penalty, z = best
    return scores(z[train], target, z[test], penalty)


def held_out(
    streams: list[Floats], task: Probed, splits: Iterator[tuple[NDArray, NDArray]], seed: int, raw: bool
) -> tuple[Floats, Floats]:
    """How often each snippet was held out, and how often it was then classified right: (N,) and (N,)."""
    seen, right = np.zeros(len(task.target)), np.zeros(len(task.target))
    for train, test in splits:
        logits = logits_of(streams, task, train, test, seed, raw)
        found = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(1)
        seen[test] += 1
        right[test] += found == task.target[test]
    return seen, right


def by_fold(task: Probed, rng: np.random.Generator) -> Iterator[tuple[NDArray, NDArray]]:
    """Training and test rows of one cross-validation."""
    fold = folds(task.clip, task.target, FOLDS, rng)
    for k in range(FOLDS):
        yield fold != k, fold == k


def by_label(task: Probed, rng: np.random.Generator) -> Iterator[tuple[NDArray, NDArray]]:
    """Train on all actions but one and half of the streets; test on that one and the other half, in turn."""
    half = folds(task.clip, task.target, 2, rng)
    for i, name in enumerate(rng.permutation(ACTIONS)):
        train = np.where(task.target == 1, task.label != name, half == i % 2)
        yield train, np.where(task.target == 1, task.label == name, half != i % 2)


def balance(task: Probed, name: str) -> Floats:
    """(N,) weights that sum to 1: every class weighs the same; of the actions left out, every one."""
    if name != UNSEEN:
        classes, count = len(np.unique(task.target)), np.bincount(task.target)
        return 1 / (classes * count[task.target])
    labels, index, count = np.unique(task.label, return_inverse=True, return_counts=True)
    return np.where(labels == "Street", 0.5, 0.5 / len(ACTIONS))[index] / count[index]


def interval(difference: Floats, weight: Floats, task: Probed) -> tuple[float, float]:
    """95 % of a weighted difference when the clips of each label are drawn again 2,000 times."""
    rng = np.random.default_rng(1)
    drawn = np.zeros(2000)
    for one in np.unique(task.label):
        rows = task.label == one
        names, index, counts = np.unique(task.clip[rows], return_inverse=True, return_counts=True)
        sums = np.bincount(index, difference[rows])
        pick = rng.integers(len(names), size=(2000, len(names)))
        drawn += weight[rows].sum() * sums[pick].sum(1) / counts[pick].sum(1)
    low, high = np.percentile(100 * drawn, (2.5, 97.5))
    return float(low), float(high)


def probe(name: str, task: Probed, repeats: int, raw: bool) -> dict[str, Floats]:
    """By feature set, how often each snippet was classified right when held out: (repeats, N), the splits alike."""
    split = by_label if name == UNSEEN else by_fold
    found: dict[str, Floats] = {}
    for which, streams in task.sets.items():
        rows = []
        for seed in range(repeats):
            seen, right = held_out(streams, task, split(task, np.random.default_rng(seed)), seed, raw)
            rows.append(right / seen)
        found[which] = np.array(rows)
    return found


def table(name: str, found: dict[str, Floats], weight: Floats, task: Probed) -> Iterator[str]:
    """Lines of a task: accuracy over the repeats, what it is beyond RGB's, and what re-estimating changes."""
    for which, rows in found.items():
        accuracy = 100 * rows @ weight
        cells = [f"{accuracy.mean():.1f} ± {accuracy.std(ddof=1):.1f}"]
        as_is = f"{which.rsplit('flow', 1)[0]}{AS_IS}"
        for base, wanted in (("RGB", which != "RGB"), (as_is, "re-estimated" in which)):
            gain = rows.mean(0) - found[base].mean(0) if wanted else np.zeros_like(weight)
            low, high = interval(gain, weight, task)
            cells.append(f"{100 * gain @ weight:+.1f} [{low:+.1f}, {high:+.1f}]" if wanted else "")
        yield f"| {name} | {which} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--units", nargs="+", choices=UNITS, default=UNITS, help="scale of the features")
    arguments = parser.parse_args()
    corpus, work = arguments.corpus, arguments.work
    cuts, others = choose(corpus)
    kept = work / f"statistics_{arguments.passes}.safetensors"
    if not kept.exists():
        net = inflated().to(memory_format=torch.channels_last_3d)
        write_atomically(kept, save(estimate(net, batches(others, corpus, work), arguments.passes)))
    tag = hashlib.sha256(kept.read_bytes()).hexdigest()[:8]
    x: dict[str, Floats] = {}
    print("| features | dead units | mean | mean variance | participation ratio | cosine of two snippets |")
    print("|---|---|---|---|---|---|")
    for name, load in networks(load_file(kept)).items():
        x[name] = features(name, load, cuts, corpus, work, tag if "re-estimated" in name else "")
        print(f"| {name} | {spread_of(x[name])} |", flush=True)
    sets = {name: [rows] for name, rows in x.items()}
    sets |= {f"RGB + {name}": [x["RGB"], rows] for name, rows in x.items() if name != "RGB"}
    moved = np.log(np.stack([motion(field(cut, corpus, work)) for cut in cuts]) + 1e-3)
    sets |= {"motion": [moved], "RGB + motion": [x["RGB"], moved]}
    label = np.array([cut.label for cut in cuts])
    clip = np.unique([cut.clip for cut in cuts], return_inverse=True)[1]
    everything = Probed(sets, np.zeros(len(cuts), dtype=np.int64), clip, label)
    for units in arguments.units:
        print(f"\nunits {units}\n")
        print("| task | features | balanced accuracy | minus RGB | re-estimated minus as is |\n|---|---|---|---|---|")
        overall = {which: np.zeros((arguments.repeats, len(cuts))) for which in sets}
        tasks = TASKS | {UNSEEN: TASKS["action, street"]}
        for name, classes in tasks.items():
            rows = np.isin(label, list(classes))
            target = np.array([classes[one] for one in label[rows]])
            picked = {which: [part[rows] for part in streams] for which, streams in sets.items()}
            task = Probed(picked, target, clip[rows], label[rows])
            weight, found = balance(task, name), probe(name, task, arguments.repeats, units == "raw")
            for which, right in found.items():
                overall[which][:, rows] += right * weight / len(tasks)
            print("\n".join(table(name, found, weight, task)), flush=True)
        print("\n".join(table("mean of the five", overall, np.ones(len(cuts)), everything)), flush=True)


if __name__ == "__main__":
    main()

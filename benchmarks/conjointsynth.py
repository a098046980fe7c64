"""ConjointSynth: synthetic videos of actions that share a phase, to see whether JCDNet finds the shared phase too.

    python benchmarks/arms.py --world B --worlds 5 --out conjoint.json

A video is T ~ U(100, 220) snippets, noisy directions of a space of `width` dimensions. Ten classes: {0, 1}, {2, 3} and
{4, 5, 6} are conjoint sets, 7, 8 and 9 the controls. An instance, L ~ U(8, 20), of a conjoint class is its set's common
phase (a fraction f ~ U) and then the class's definite phase; of a control the latter alone. Both count as the action.
Between instances lie 6 to 20 snippets of background, in stretches of three of twelve modes a video. A tenth of the
videos have two classes. Labels are per video. What regimes differ in stands at `Regime`; the number that controls all
is phi against 1/r of the top-k: where definite phases alone fill the top k, nothing rewards the common ones.

Worlds by number: prototypes and videos come from the number alone, so every arm sees the same ones. 0 to 99 are for
the verdict; tune nothing on them, use those from 1000 on.

The acceptance test, its thresholds fixed from a pilot before any run of this file (`ACCEPTANCE`, `verdict`): in regime
B at width 2048, the noise set on other worlds so that the baseline has an mAP 0.3:0.9 of 20 to 45, five worlds or more,
rule `paper`; paired over the worlds, 95 % intervals above 0:
    full - baseline: mAP 0.3:0.9 by at least 10 points, and coverage of common phases by at least .2
    CAD: Exp 7 - Exp 7 with its gates frozen at 0, mAP 0.3:0.9 above 0
    full: mean A^ness on common phases above that on background
To be published beside it, without a gate: Exp 2, regimes A, hard-B and C, phi .04 to .2, decoys 0 to 1, lambda_3 0 to
.8, and the negative controls: common phases torn from their definite ones (`--shuffled`: the gain should vanish) and
the control classes (no gain from CAD expected). Regime B was built to fit the paper's premise after A contradicted it.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model.datasets import VideoSet
from postprocess.evaluation.metrics import Instances, Predictions, ranking

SETS = ((0, 1), (2, 3), (4, 5, 6), (7,), (8,), (9,))
CONJOINT, CONTROL = tuple(range(7)), (7, 8, 9)
CLASSES = CONJOINT + CONTROL
SET_OF = np.array([next(g for g, members in enumerate(SETS) if c in members) for c in CLASSES])
MODES, MODES_OF_VIDEO = 12, 3
BACKGROUND, COMMON, DEFINITE, DECOY = range(4)
FORMAT = 1  # of the world of a number; raise it when the same number would mean another world
TEST_WORLDS = 100


@dataclass(frozen=True)
class Acceptance:
    """See the module's docstring."""

    width: int = 2048
    worlds: int = 5
    baseline: tuple[float, float] = (20.0, 45.0)
    gain: float = 10.0
    coverage: float = 0.2


ACCEPTANCE = Acceptance()


@dataclass(frozen=True)
class Regime:
    """What worlds differ in.

    Attributes:
        phi: the share of a conjoint class's video that its definite phases take, in the mean; it sets how many
            instances there are (Poisson, one at least).
        common: the range of f, the common phase's share of an instance.
        decoys: how many common phases without a definite one an instance brings along, in the mean; background.
        context: how much of its set's context all of a video shows, where prototypes have length 1.
        overlap: cosine of a common phase with a mode of background.
        noise: length of the noise, in the mean: half of its power AR(1) of .5, half white.
        style: length of a video's own constant, in the mean, in 8 dimensions.
        shuffled: tear common phases from their definite ones, to other places of the video; each then is an instance.
        width: of the features.
        train, test: videos.
    """

    phi: float = 0.08
    common: tuple[float, float] = (0.5, 0.75)
    decoys: float = 0.0
    context: float = 0.0
    overlap: float = 0.0
    noise: float = 1.5
    style: float = 0.5
    shuffled: bool = False
    width: int = 128
    train: int = 160
    test: int = 100


REGIMES = {
    "B": Regime(),
    "A": Regime(phi=0.21, common=(0.25, 0.5), overlap=0.3, decoys=0.5),
    "hard-B": Regime(context=0.3, noise=2.0),
    "C": Regime(decoys=0.3, context=0.2, overlap=0.2),
}


@dataclass(frozen=True, eq=False)
class Half:
    """Videos and what is true of them. One snippet is one second.

    data: features and labels; targets: of each video (T,) class of each snippet, len(CLASSES) for background; phase: of
    each video (T,) BACKGROUND, COMMON, DEFINITE or DECOY; truth: the instances; common and definite (G, 2): their
    phases in seconds, of no length where an instance has none.
    """

    data: VideoSet
    targets: list[NDArray[np.int64]]
    phase: list[NDArray[np.int64]]
    truth: Instances
    common: NDArray[np.float64]
    definite: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class World:
    """Videos to train on and others to be judged on."""

    train: Half
    test: Half

    @property
    def phi(self) -> float:
        """Median share of definite phases in the training videos of conjoint classes alone."""
        shares = [(self.train.phase[v] == DEFINITE).mean() for v in _conjoint_videos(self.train)]
        return float(np.median(shares))


@dataclass(frozen=True, eq=False)
class _Prototypes:
    definite: NDArray[np.float64]  # (classes, width)
    common: NDArray[np.float64]  # (sets, width); those of the controls are never shown
    modes: NDArray[np.float64]
    context: NDArray[np.float64]  # (sets, width)
    style: NDArray[np.float64]


def world(regime: Regime, number: int) -> World:
    """The world of that number; the same arguments give the same world."""
    rng = np.random.default_rng((number, FORMAT))
    modes = _directions(rng, MODES, regime.width)
    other = _directions(rng, len(SETS), regime.width)
    near = modes[rng.permutation(MODES)[: len(SETS)]]
    # Their cosine is `overlap` once what `other` has of the mode is taken out.
    other = _unit(other - (other * near).sum(axis=1, keepdims=True) * near)
    shown = _Prototypes(
        definite=_directions(rng, len(CLASSES), regime.width),
        common=regime.overlap * near + math.sqrt(1 - regime.overlap**2) * other,
        modes=modes,
        context=_directions(rng, len(SETS), regime.width),
        style=_directions(rng, 8, regime.width),
    )
    return World(_half(regime, shown, regime.train, rng, "train"), _half(regime, shown, regime.test, rng, "test"))


def _half(regime: Regime, shown: _Prototypes, count: int, rng: np.random.Generator, name: str) -> Half:
    features, targets, phases, rows = [], [], [], []
    labels = np.zeros((count, len(CLASSES)), dtype=bool)
    for v, first in enumerate(rng.permutation(np.arange(count) % len(CLASSES))):
        classes = [int(first)]
        if rng.random() < 0.1:
            classes.append(int(rng.choice([c for c in CLASSES if c != first])))
        labels[v, classes] = True
        t, pieces = _layout(regime, classes, rng)
        signal = shown.modes[_stretches(t, rng)]
        target, phase = np.full(t, len(CLASSES)), np.zeros(t, dtype=np.int64)
        for start, parts in pieces:
            spans = {COMMON: (start, start), DEFINITE: (start, start)}
            for kind, c, length in parts:
                here = slice(start, start + length)
                signal[here] = shown.definite[c] if kind == DEFINITE else shown.common[SET_OF[c]]
                phase[here] = kind
                if kind != DECOY:
                    target[here] = c
                    spans[kind] = (start, start + length)
                start += length
            found = [span for span in spans.values() if span[1] > span[0]]
            if found:
                rows.append((v, parts[0][1], (found[0][0], found[-1][1]), spans[COMMON], spans[DEFINITE]))
        signal = _blurred(signal) + regime.context * shown.context[SET_OF[classes[0]]]
        signal += regime.style / math.sqrt(8) * rng.normal(size=8) @ shown.style
        signal += regime.noise * _noise(t, regime.width, rng)
        features.append(signal.astype(np.float32))
        targets.append(target)
        phases.append(phase)
    video, label, span, common, definite = zip(*rows, strict=True)
    return Half(
        data=VideoSet(features, labels, tuple(f"{name}_{v:03}" for v in range(count)), tuple(map(str, CLASSES))),
        targets=targets,
        phase=phases,
        truth=Instances(np.array(video), np.array(label), np.array(span, dtype=float)),
        common=np.array(common, dtype=float),
        definite=np.array(definite, dtype=float),
    )


Part = tuple[int, int, int]
"""(phase, class, snippets); a decoy's class names the set whose common phase it is"""


def _layout(regime: Regime, classes: list[int], rng: np.random.Generator) -> tuple[int, list[tuple[int, list[Part]]]]:
    """T, and where which pieces begin, each of one part or more, in order."""
    t = int(rng.integers(100, 221))
    # phi is the share that `mean` instances' definite phases have, 14 snippets long in all, of the 160 of a video.
    mean = regime.phi * 160 / (14 * (1 - sum(regime.common) / 2))
    count = max(len(classes), int(rng.poisson(mean)))
    chosen = [*classes, *(int(c) for c in rng.choice(classes, size=count - len(classes)))]
    instances = [_instance(regime, c, rng) for c in chosen]
    # What does not fit is left out, decoys first, and never the first instance of a class.
    least = sum(len(pieces) for pieces in instances[: len(classes)])
    pieces = [piece for instance in instances for piece in instance]
    of_sets = [c for c in classes if c in CONJOINT] or list(CONJOINT)
    for _ in range(int(rng.poisson(regime.decoys * count))):
        length = _common_length(regime, int(rng.integers(8, 21)), rng)
        pieces.append([(DECOY, int(rng.choice(of_sets)), length)])
    gaps = rng.integers(6, 21, size=len(pieces) + 1)
    sizes = np.array([sum(length for _, _, length in piece) for piece in pieces])
    kept = len(pieces)
    while kept > least and sizes[:kept].sum() + gaps[: kept + 1].sum() > t:
        kept -= 1
    taken = int(sizes[:kept].sum() + gaps[: kept + 1].sum())
    t = max(t, taken)
    position, laid = int(rng.integers(t - taken + 1)), []
    for index, gap in zip(rng.permutation(kept), gaps, strict=False):
        position += int(gap)
        laid.append((position, pieces[index]))
        position += int(sizes[index])
    return t, laid


def _instance(regime: Regime, c: int, rng: np.random.Generator) -> list[list[Part]]:
    """One piece of one part or two, or, shuffled, two of one."""
    length = int(rng.integers(8, 21))
    if c in CONTROL:
        return [[(DEFINITE, c, length)]]
    common = _common_length(regime, length, rng)
    parts: list[Part] = [(COMMON, c, common), (DEFINITE, c, length - common)]
    return [[part] for part in parts] if regime.shuffled else [parts]


def _common_length(regime: Regime, length: int, rng: np.random.Generator) -> int:
    return min(max(1, round(float(rng.uniform(*regime.common)) * length)), length - 1)


def _stretches(t: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(T,) the mode of each snippet."""
    modes = rng.choice(MODES, size=MODES_OF_VIDEO, replace=False)
    lengths = rng.integers(15, 41, size=t // 15 + 1)
    return np.repeat(rng.choice(modes, size=len(lengths)), lengths)[:t]


def _blurred(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.concatenate([signal[:1], signal, signal[-1:]])
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]


def _noise(t: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, width) of length 1 in the mean square."""
    fresh = rng.normal(size=(t, width))
    for i in range(1, t):
        fresh[i] = 0.5 * fresh[i - 1] + math.sqrt(0.75) * fresh[i]
    return (fresh + rng.normal(size=(t, width))) / math.sqrt(2 * width)


def _directions(rng: np.random.Generator, count: int, width: int) -> NDArray[np.float64]:
    return _unit(rng.normal(size=(count, width)))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- judging ---


def completeness(half: Half, predictions: Predictions) -> dict[str, float]:
    """How much of each phase of the conjoint instances is found, and how much background with it.

    Of each instance counts the best-scoring prediction of its class that shares time with it.

    Returns:
        common, definite: mean share of the phase that is covered, 0 where nothing overlaps the instance. background:
        mean share of those predictions that no action of any class fills.
    """
    best_first = predictions.take(ranking(predictions))
    covered: dict[str, list[float]] = {"common": [], "definite": [], "background": []}
    for g in np.flatnonzero(np.isin(half.truth.label, CONJOINT)):
        rows = (best_first.video == half.truth.video[g]) & (best_first.label == half.truth.label[g])
        spans = best_first.span[rows]
        spans = spans[_shared(half.truth.span[g], spans) > 0]
        for name, phase in (("common", half.common[g]), ("definite", half.definite[g])):
            if phase[1] > phase[0]:
                share = _shared(spans[0], phase[None])[0] / (phase[1] - phase[0]) if len(spans) else 0.0
                covered[name].append(float(share))
        if len(spans):
            actions = half.truth.span[half.truth.video == half.truth.video[g]]
            inside = _shared(spans[0], actions).sum() / (spans[0, 1] - spans[0, 0])
            covered["background"].append(float(1 - inside))
    return {name: float(np.mean(values)) if values else math.nan for name, values in covered.items()}


def actionness_by_phase(half: Half, actionness: Sequence[NDArray[np.floating]]) -> dict[str, float]:
    """Mean A^ness on the snippets of each phase, in the test videos of conjoint classes alone."""
    chosen = _conjoint_videos(half)
    phase = np.concatenate([half.phase[v] for v in chosen])
    values = np.concatenate([actionness[v] for v in chosen])
    names = {"common": COMMON, "definite": DEFINITE, "background": BACKGROUND, "decoy": DECOY}
    return {n: float(values[phase == kind].mean()) for n, kind in names.items() if (phase == kind).any()}


def _conjoint_videos(half: Half) -> list[int]:
    """Those of conjoint classes alone."""
    return [v for v, row in enumerate(half.data.labels) if not row[list(CONTROL)].any()]


def definite_oracle(half: Half) -> Predictions:
    """A detector that finds every definite phase and nothing else: the floor of completeness."""
    keep = half.definite[:, 1] > half.definite[:, 0]
    truth = half.truth
    return Predictions(truth.video[keep], truth.label[keep], half.definite[keep], np.ones(int(keep.sum())))


def _shared(span: NDArray[np.float64], spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) seconds that one span shares with each of many."""
    return np.maximum(0.0, np.minimum(span[1], spans[:, 1]) - np.maximum(span[0], spans[:, 0]))


# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences and its 95 % interval; nan bounds where there is but one."""

    mean: float
    low: float
    high: float


def t_interval(differences: Sequence[float]) -> Interval:
    """Student's, over independent worlds; beyond 16 of them the quantile of 16."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), math.nan, math.nan)
    reach = _T95[min(len(values) - 1, len(_T95)) - 1] * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class Criterion:
    """One line of the verdict."""

    name: str
    found: Interval
    least: float

    @property
    def met(self) -> bool:
        """Whether the mean reaches `least` and the interval lies above 0."""
        return self.found.mean >= self.least and self.found.low > 0


ARMS_OF_VERDICT = ("baseline", "exp7", "exp7-frozen", "full")


def verdict(
    mean_ap: Mapping[str, Sequence[float]], common: Mapping[str, Sequence[float]], contrast: Sequence[float]
) -> list[Criterion]:
    """The acceptance test's criteria, without its conditions (`objections`).

    Args:
        mean_ap: by arm, mAP 0.3:0.9 in percent, a world each, in one order of the worlds.
        common: by arm, coverage of the common phases.
        contrast: of the full model, mean A^ness on common phases minus that on background.
    """

    def paired(values: Mapping[str, Sequence[float]], arm: str, other: str) -> Interval:
        return t_interval([a - b for a, b in zip(values[arm], values[other], strict=True)])

    return [
        Criterion("full - baseline, mAP 0.3:0.9", paired(mean_ap, "full", "baseline"), ACCEPTANCE.gain),
        Criterion("full - baseline, common coverage", paired(common, "full", "baseline"), ACCEPTANCE.coverage),
        Criterion("Exp 7 - Exp 7 with frozen gates, mAP 0.3:0.9", paired(mean_ap, "exp7", "exp7-frozen"), 0.0),
        Criterion("full: A^ness, common - background", t_interval(contrast), 0.0),
    ]


def objections(regime: Regime, worlds: Sequence[int], baseline: Sequence[float]) -> list[str]:
    """Why a run is not the acceptance test; empty if it is."""
    low, high = ACCEPTANCE.baseline
    mean = float(np.mean(baseline))
    asked = replace(REGIMES["B"], noise=regime.noise, width=regime.width)
    return [
        text
        for text, wrong in (
            ("the regime is not B", regime != asked),
            (f"the width is {regime.width}, not {ACCEPTANCE.width}", regime.width != ACCEPTANCE.width),
            (f"{len(worlds)} worlds are fewer than {ACCEPTANCE.worlds}", len(worlds) < ACCEPTANCE.worlds),
            (f"worlds from {TEST_WORLDS} on are for tuning", any(w >= TEST_WORLDS for w in worlds)),
            (f"the baseline's {mean:.1f} lies outside {low:g} to {high:g}", not low <= mean <= high),
        )
        if wrong
    ]

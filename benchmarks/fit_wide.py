"""What fit_kinetics400.py takes from corpus-wide: the calibration of the confidence, and what a named sport adds.

The clips of an owner of footage can be left out of the calibration (`HeldOut`), in FOLDS folds of owners.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.wide_sports import GROUPS, NEGATIVE, RENDERED, SPORT, WideClip
from model import kinetics
from model.predict import Scores, predict
from postprocess.config import LocalizeConfig
from postprocess.localize import Activations, calibrated, localize
from postprocess.segment import Segment

FOLDS = 9
FALSE_SHARE = 0.04  # of other clips, in which a sport that the user names is found
MOST_ADDED, STEPS = 8.0, 8  # the most that a named sport adds to its logits; halvings of that range
Row = tuple[float, bool]
"""the probability of a segment, and whether its name is right"""


def folds_of(clips: Sequence[WideClip]) -> dict[str, int]:
    """Owner -> fold; the owners of the most clips are in different folds."""
    owners = sorted({clip.owner for clip in clips})
    owners.sort(key=lambda owner: -sum(clip.owner == owner for clip in clips))
    return {owner: n % FOLDS for n, owner in enumerate(owners)}


def platt(p: np.ndarray, right: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(slope, shift) of P(right) = sigmoid(slope logit(p) + shift), by Newton; targets as Platt (1999) smooths them."""
    z = np.log(p / (1 - p))
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    x, theta = np.stack([z, np.ones_like(z)]), np.zeros(2)
    for _ in range(50):
        q = 1 / (1 + np.exp(-theta @ x))
        theta = theta - np.linalg.solve(
            (x * (weight * q * (1 - q))) @ x.T + 1e-6 * np.eye(2), x @ (weight * (q - target))
        )
    return float(theta[0]), float(theta[1])


def calibrate(near: Sequence[Row], far: Sequence[Row], actions: int) -> dict[str, float]:
    """Slope, shift and least confidence.

    Args:
        near: segments of clips of the other corpus.
        far: segments of corpus-wide's. Both weigh the same.
        actions: how many clips of corpus-wide show a sport: the least confidence is that of the highest F1 there, and
            of equals the largest.
    """
    rows = [*near, *far]
    p, right = np.array([row[0] for row in rows]).clip(1e-4, 1 - 1e-4), np.array([row[1] for row in rows])
    slope, shift = platt(p, right, np.array([1 / len(near)] * len(near) + [1 / len(far)] * len(far)) * len(rows) / 2)
    config = LocalizeConfig(confidence_slope=slope, confidence_shift=shift)
    confidence, good = np.array([calibrated(v, config) for v, _ in far]), np.array([r for _, r in far])
    f1 = {c: 2 * good[confidence >= c].sum() / ((confidence >= c).sum() + actions) for c in np.arange(0, 0.95, 0.05)}
    least = max(f1, key=lambda c: (round(f1[c], 9), c))
    return {"confidence_slope": slope, "confidence_shift": shift, "min_confidence": round(float(least), 2)}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Corpus-wide's clips, of which a fold of owners can be left out."""

    clips: Sequence[WideClip]
    model: kinetics.Checkpoint
    drawn: LocalizeConfig
    """threshold, edge and gap"""

    @cached_property
    def fold(self) -> dict[str, int]:
        """Of each owner."""
        return folds_of(self.clips)

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Of each clip."""
        net = self.model.build()
        return {clip.name: predict(net, clip.rgb) for clip in self.clips}

    def find(self, clip: WideClip, config: LocalizeConfig, sport: str | None = None, added: float = 0) -> list[Segment]:
        """Segments of all sports, or of one, to whose logits something is added."""
        scores = self.scores[clip.name]
        names = self.model.classes
        mine = np.array([[sport is not None and GROUPS.get(name) == sport for name in names] + [False]])
        given = Activations(
            scores.cas + np.float32(added) * mine.astype(np.float32),
            scores.actionness,
            scores.video,
            clip.features.times,
            names,
            clip.features.duration,
        )
        keep = frozenset(GROUPS) if sport is None else frozenset(n for n, s in GROUPS.items() if s == sport)
        return localize(given, config, groups=GROUPS, keep=keep, bars=(config.min_confidence,))

    def rows(self, folds: Sequence[int]) -> list[Row]:
        """The segments of the clips of these folds. Rendered games are left out."""
        return [
            (s.confidence, bool({s.label, GROUPS[s.label]} & clip.accept))
            for clip in self.clips
            if clip.label != RENDERED and self.fold[clip.owner] in folds
            for s in self.find(clip, self.drawn)
        ]

    def calibration(self, near: Sequence[Row], but: int | None = None) -> dict[str, float]:
        """See `calibrate`; `but`: a fold that is left out."""
        folds = [n for n in range(FOLDS) if n != but]
        actions = sum(clip.kind == SPORT and self.fold[clip.owner] in folds for clip in self.clips)
        return calibrate(near, self.rows(folds), actions)

    def enough(self, clip: WideClip, sport: str, config: LocalizeConfig) -> float:
        """What must be added to a sport's logits until it is found in a clip, up to MOST_ADDED; infinite: more."""
        if not self.find(clip, config, sport, MOST_ADDED):
            return np.inf
        low, high = 0.0, MOST_ADDED
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.find(clip, config, sport, middle) else (middle, high)
        return high

    def added(self, localisation: dict[str, Any]) -> dict[str, float]:
        """Sport -> what it adds: the most with which FALSE_SHARE of the other clips show it.

        localisation: the settings that decide.
        """
        config = LocalizeConfig(**localisation)
        others = [c for c in self.clips if c.kind in (SPORT, NEGATIVE) and c.label != RENDERED]
        found = {}
        for sport in sorted(set(GROUPS.values())):
            each = sorted(self.enough(clip, sport, config) for clip in others if sport not in clip.accept)
            found[sport] = round(float(max(0.0, min(MOST_ADDED, each[int(FALSE_SHARE * len(each))]) - 0.05)), 2)
        return found

    def finder(self, near: Sequence[Row]) -> Callable[[WideClip], list[Segment]]:
        """What the model finds, calibrated without the owner of the clip."""
        settings: dict[int, LocalizeConfig] = {}

        def find(clip: WideClip) -> list[Segment]:
            n = self.fold[clip.owner]
            if n not in settings:
                settings[n] = replace(self.drawn, **self.calibration(near, n))
            return self.find(clip, settings[n])

        return find

"""What a named sport needs (model/predict.py): a threshold for each sport, and the confidence. Clips of corpus-wide.

    python cli.py extract WIDE -o WIDE_FEATURES --streams rgb --together 4
    python benchmarks/fit_named.py WIDE_FEATURES [--held-out]

Writes both into model/kinetics400.safetensors and leaves everything else there as it is; fit_kinetics400.py does the
same at its end. For a named sport the published head alone is read, so nothing of the scores is fitted.

What is added to the log-odds of a sport lies half way between two values: the most with which FALSE_SHARE of the clips
of other things show the sport, and the most with which FALSE_SHARE of all pairs of a sport and a clip of other things
do. The first one alone rests on three or four clips. No clip of the sport itself is read for that.

The confidence is Platt's, with each sport that some clip shows named for each clip. Clips that show the sport weigh as
much together as the others: it is the confidence of somebody whose clips show the named sport half of the time.

--held-out prints what is found with the owner of a clip's footage left out of both; nothing is written.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import wide_sports
from benchmarks.fit_wide import folds_of, platt
from benchmarks.wide_sports import NEGATIVE, RENDERED, SPORT, WideClip
from model import kinetics
from model.checkpoint import Checkpoint
from model.kinetics import Tuning
from model.predict import Scores, named, predict
from pipeline.api import EMBEDDED, load_model
from postprocess.config import LocalizeConfig
from postprocess.localize import Activations, localize
from postprocess.segment import Segment

FALSE_SHARE = 0.04  # of other clips, in which a sport that the user names is found
LEAST_ADDED, MOST_ADDED, STEPS = -8.0, 12.0, 9  # to log-odds; halvings of that range
LEAST_SLOPE = 0.01  # of the confidence, which may not fall
MARGIN = 0.05  # below what would show the sport in one clip more


@dataclass(frozen=True, eq=False)
class NamedFit:
    """Measures, on clips whose owners can be left out."""

    model: Checkpoint
    """its names, groups and S^coarse are read"""
    scale: float
    """S^coarse times this has the logits of the head"""
    everything: Sequence[WideClip]
    """corpus-wide"""
    drawn: LocalizeConfig
    """threshold, edge and gap"""

    @cached_property
    def clips(self) -> list[WideClip]:
        """Those that count: of sports, and footage without any."""
        return [c for c in self.everything if c.kind in (SPORT, NEGATIVE) and c.label != RENDERED]

    @cached_property
    def fold(self) -> dict[str, int]:
        """Of each owner."""
        return folds_of(self.everything)

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Of each clip."""
        net = self.model.build()
        return {clip.name: predict(net, clip.rgb) for clip in self.clips}

    @cached_property
    def sports(self) -> tuple[str, ...]:
        """All of the model."""
        return tuple(sorted(set(self.model.groups.values())))

    def find(self, clip: WideClip, sport: str, settings: Mapping[str, Any]) -> list[Segment]:
        """Segments of a clip if the user names a sport, as the product finds them with these settings."""
        keep = frozenset(name for name, group in self.model.groups.items() if group == sport)
        basis = {name: getattr(self.drawn, name) for name in ("threshold", "edge", "merge_gap")}
        by_name = named(replace(self.model, named=dict(settings), localize=basis), keep)
        assert by_name is not None
        scores = by_name.read(self.scores[clip.name])
        given = Activations(
            scores.cas, scores.actionness, scores.video, clip.features.times, self.model.classes, clip.features.duration
        )
        return localize(given, LocalizeConfig(**by_name.localize), groups=self.model.groups, keep=keep)

    def _quick(self, clip: WideClip, odds: np.ndarray) -> list[Segment]:
        """What `find` finds, without names: two columns, the sport and the rest, are ten times as fast. odds: (T,)."""
        cas = np.stack([odds, np.zeros_like(odds)], axis=1)
        given = Activations(cas, np.ones(len(odds)), np.zeros(1), clip.features.times, ("",), clip.features.duration)
        return localize(given, self.drawn)

    def _enough(self, clip: WideClip, odds: np.ndarray) -> float:
        """What must be added to a sport's log-odds (T,) until it is found in a clip; infinite: more than MOST_ADDED."""
        low, high = LEAST_ADDED, MOST_ADDED
        if not self._quick(clip, odds + high):
            return np.inf
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._quick(clip, odds + middle) else (middle, high)
        return high

    def _odds(self, clip: WideClip, sports: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(sport, (T,) log-odds of P) under the head alone."""
        logits = self.scale * self.scores[clip.name].coarse_cas[:, :-1].astype(np.float64)
        for sport in sports:
            mine = np.array([self.model.groups.get(name) == sport for name in self.model.classes])
            own, rest = (np.logaddexp.reduce(logits[:, at], axis=1) for at in (mine, ~mine))
            yield sport, own - rest

    @cached_property
    def enough(self) -> dict[str, list[tuple[int, float]]]:
        """Sport -> of each clip of something else its fold, and what must be added until the sport is found."""
        found: dict[str, list[tuple[int, float]]] = {sport: [] for sport in self.sports}
        for clip in self.clips:
            for sport, odds in self._odds(clip, self.sports):
                if sport not in clip.accept:
                    found[sport].append((self.fold[clip.owner], self._enough(clip, odds)))
        return found

    def added(self, but: int | None = None) -> dict[str, float]:
        """Sport -> what is added. but: a fold that is left out."""
        each = {sport: sorted(v for n, v in values if n != but) for sport, values in self.enough.items()}
        common = _most(sorted(v for values in each.values() for v in values))
        return {sport: round((_most(values) + common) / 2, 2) for sport, values in each.items()}

    def calibration(self, added: Mapping[str, float], but: int | None = None) -> dict[str, float]:
        """Slope and shift of the confidence. Every segment is shown: what decides is the threshold of its sport."""
        clips = [clip for clip in self.clips if self.fold[clip.owner] != but]
        sports = wide_sports.known_sports(clips)
        own = sum(sport in clip.accept for sport in sports for clip in clips)
        rows = [
            (s.confidence, sport in clip.accept)
            for clip in clips
            for sport, odds in self._odds(clip, sports)
            for s in self._quick(clip, odds + added[sport])
        ]
        p, right = np.array([row[0] for row in rows]).clip(1e-4, 1 - 1e-4), np.array([row[1] for row in rows])
        weight = np.where(right, 1.0, own / (len(sports) * len(clips) - own))
        slope, shift = platt(p, right, weight)
        return {"confidence_slope": max(slope, LEAST_SLOPE), "confidence_shift": shift, "min_confidence": 0.0}

    def settings(self, but: int | None = None) -> dict[str, Any]:
        """What the model declares (`Checkpoint.named`). but: a fold that is left out."""
        added = self.added(but)
        return {"added": added, "scale": self.scale, "localize": self.calibration(added, but)}

    def finder(self) -> wide_sports.Find:
        """What is found by name, with settings that have not seen the owner of the clip."""
        settings: dict[int, dict[str, Any]] = {}

        def find(clip: WideClip, sport: str | None) -> list[Segment]:
            assert sport is not None
            n = self.fold[clip.owner]
            if n not in settings:
                settings[n] = self.settings(n)
            return self.find(clip, sport, settings[n])

        return find


def _most(enough: Sequence[float]) -> float:
    """The most that may be added so that FALSE_SHARE of the clips show it. enough: of each clip, in order."""
    return max(LEAST_ADDED, min(MOST_ADDED, enough[int(FALSE_SHARE * len(enough))]) - MARGIN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wide", type=Path, metavar="WIDE_FEATURES")
    parser.add_argument("--manifest", type=Path, default=wide_sports.WIDE / "manifest.csv", help="of corpus-wide")
    parser.add_argument("--held-out", action="store_true", help="print what is found, and write nothing")
    parser.add_argument("--out", type=Path, default=kinetics.TUNING)
    given = parser.parse_args()
    tuned = Tuning.load(given.out)
    drawn = LocalizeConfig(**{name: tuned.localize[name] for name in ("threshold", "edge", "merge_gap")})
    model = load_model(EMBEDDED, tuning=given.out)
    measured = NamedFit(model, tuned.temperature, wide_sports.read(given.wide, given.manifest), drawn)
    if given.held_out:
        wide_sports.report_named(measured.clips, measured.finder(), each=True)
        return
    found = replace(tuned, named=measured.settings())
    found.save(given.out)
    print(f"{given.out}: {found.named}")


if __name__ == "__main__":
    main()

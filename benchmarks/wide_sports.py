"""Does the embedded model name the sports in strangers' footage? Clips of corpus-wide, each run alone.

    python cli.py extract WIDE -o FEATURES --streams rgb --together 4
    python benchmarks/wide_sports.py FEATURES [--tuning FILE] [--clips]

WIDE has clips of sports, of actions that are no sport in our list, of sports that Kinetics lacks, and of other footage
(its manifest.csv says which names are right). The confidence is calibrated on them, and the settings of the
localisation were chosen on them. fit_kinetics400.py prints the same table with every owner of footage left out of the
calibration in turn (`--held-out`): that is the table to believe.

Right: the best segment's class or sport is one that the manifest accepts. False: segments on footage without sport,
per minute, without rendered games. Unknown: a sport that Kinetics lacks; right is nothing. Named: for each sport that
the clips show, every clip is run with `--classes SPORT`; of its own clips those with a segment are found, of all the
others they are false.
"""

import argparse
import csv
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.named_quality import Arm
from benchmarks.named_sports import stored
from extractors.features import Features, load
from model import kinetics
from model.predict import named, predict
from pipeline.api import EMBEDDED, load_model
from postprocess.config import LocalizeConfig
from postprocess.segment import Segment

SPORT, OTHER, UNKNOWN, NEGATIVE = "sport", "other", "unknown", "negative"
RENDERED = "SportsGame"  # a sport, drawn by a computer: counted apart
BINS = 10
GROUPS = kinetics.sports_groups()
WIDE = Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")).parent / "corpus-wide"


@dataclass(frozen=True, eq=False)
class WideClip:
    """A clip with its features, the names that are right, and whose footage it is."""

    name: str
    label: str
    kind: str
    accept: frozenset[str]
    owner: str
    size: tuple[int, int]
    """(width, height) of the original"""
    features: Features

    @property
    def rgb(self) -> np.ndarray:
        """(T, 1024)."""
        assert self.features.rgb is not None
        return self.features.rgb

    @property
    def shape(self) -> str:
        """What the table calls it."""
        width, height = self.size
        return "vertical" if height > width else "wider than 1.9:1" if width > 1.9 * height else "landscape or square"


def read(features: Path, manifest: Path = WIDE / "manifest.csv") -> list[WideClip]:
    """The clips of the manifest, with their features."""
    files, found = stored(features), []
    with manifest.open() as file:
        for row in csv.DictReader(file):
            accept = frozenset(filter(None, row["accept"].split("|")))
            size = int(row["width"]), int(row["height"])
            owner, name = row["source"].split("/")[0], Path(row["path"]).stem
            found.append(WideClip(name, row["label"], row["kind"], accept, owner, size, load(files[name])))
    return found


Find = Callable[[WideClip, str | None], list[Segment]]
"""the segments of a clip, of all sports or of the one that is named"""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was found in a clip, and whether it is right."""

    clip: WideClip
    segments: Sequence[Segment]

    @property
    def best(self) -> Segment | None:
        """The surest segment."""
        return max(self.segments, key=lambda s: s.confidence, default=None)

    def right(self, segment: Segment) -> bool:
        """Whether a segment has a name that is right."""
        return bool({segment.label, GROUPS.get(segment.label)} & self.clip.accept)

    @property
    def verdict(self) -> str:
        """right, wrong or silent."""
        return "silent" if self.best is None else "right" if self.right(self.best) else "wrong"


def outcomes(clips: Iterable[WideClip], find: Find) -> list[Outcome]:
    """Every clip with what is found in it, looking for all sports."""
    return [Outcome(clip, find(clip, None)) for clip in clips]


def ece(found: Iterable[Outcome]) -> float:
    """Expected calibration error of all segments over ten bins."""
    rows = [(s.confidence, outcome.right(s)) for outcome in found for s in outcome.segments]
    if not rows:
        return 0.0
    return _ece(*np.array(rows, dtype=float).T, np.ones(len(rows)))


def _ece(confidence: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """Of segments (N,), each with a weight."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    parts = [abs((weight * (confidence - right))[bins == b].sum()) for b in np.unique(bins)]
    return float(sum(parts) / weight.sum()) if len(weight) else 0.0


def false_per_minute(found: Iterable[Outcome]) -> float:
    """Segments per minute of footage without sport."""
    counted = [o for o in found if o.clip.kind == NEGATIVE and o.clip.label != RENDERED]
    return 60 * sum(len(o.segments) for o in counted) / sum(o.clip.features.duration for o in counted)


def known_sports(clips: Iterable[WideClip]) -> list[str]:
    """The sports of our list that some clip shows."""
    return sorted({name for clip in clips if clip.kind == SPORT for name in clip.accept})


def report_named(clips: Sequence[WideClip], find: Find, each: bool = False) -> None:
    """Print what is found when the user names the sport: clips of the sport, and others."""
    some = [clip for clip in clips if clip.label != RENDERED and clip.kind in (SPORT, NEGATIVE)]
    pairs = [(clip, sport, find(clip, sport)) for sport in known_sports(clips) for clip in some]
    own = [(clip, sport, found) for clip, sport, found in pairs if sport in clip.accept]
    others = [(clip, sport, found) for clip, sport, found in pairs if sport not in clip.accept]
    hit, false = (sum(bool(found) for _, _, found in part) for part in (own, others))
    print(
        f"with the sport named: {hit} of {len(own)} found, {100 * hit / len(own):.1f} %; "
        f"others {100 * false / len(others):.1f} % ({false} of {len(others)})"
    )
    rows = [(s.confidence, float(part is own)) for part in (own, others) for _, _, found in part for s in found]
    weight = np.array([1.0 if right else len(own) / len(others) for _, right in rows])
    half, all_alike = (_ece(*np.array(rows).reshape(-1, 2).T, w) for w in (weight, np.ones(len(rows))))
    print(f"ECE by name: {half:.3f} if half of the clips show the sport, {all_alike:.3f} over all segments")
    if each:
        print("not found: " + ", ".join(f"{clip.name} ({sport})" for clip, sport, found in own if not found))
        counts = Counter(sport for _, sport, found in others if found)
        print("found in others: " + ", ".join(f"{sport} {n}" for sport, n in sorted(counts.items())))


def by_model(model: kinetics.Checkpoint) -> Find:
    """What a model finds, with its own settings."""
    net = model.build()

    def find(clip: WideClip, sport: str | None) -> list[Segment]:
        keep = frozenset(n for n, s in model.groups.items() if sport in (None, s))
        read = None if sport is None else named(model, keep)
        if read is None:
            return Arm(lambda x: predict(net, x), model, LocalizeConfig(**model.localize)).find(clip.features, keep)
        other = replace(model, localize=read.localize)
        return Arm(lambda x: read.read(predict(net, x)), other, LocalizeConfig(**read.localize)).find(
            clip.features, keep
        )

    return find


def report(clips: Sequence[WideClip], find: Find, each: bool = False) -> None:
    """Print the tables."""
    found = outcomes(clips, find)
    of: Mapping[str, list[Outcome]] = defaultdict(list)
    for outcome in found:
        of[outcome.clip.kind].append(outcome)
    sports = of[SPORT]

    def counts(some: Sequence[Outcome]) -> str:
        verdicts = [o.verdict for o in some]
        return " | ".join(str(verdicts.count(v)) for v in ("right", "wrong", "silent"))

    print(
        f"| clips | n | right | wrong | silent |\n|---|---|---|---|---|\n| sports | {len(sports)} | {counts(sports)} |"
    )
    for shape in sorted({o.clip.shape for o in sports}):
        some = [o for o in sports if o.clip.shape == shape]
        print(f"| {shape} | {len(some)} | {counts(some)} |")
    for title, low, high in (("under 4 s", 0.0, 4.0), ("4 s and longer", 4.0, np.inf)):
        some = [o for o in sports if low <= o.clip.features.duration < high]
        print(f"| {title} | {len(some)} | {counts(some)} |")
    for title, low, high in (("short side under 480", 0, 480), ("480 and more", 480, np.inf)):
        some = [o for o in sports if low <= min(o.clip.size) < high]
        print(f"| {title} | {len(some)} | {counts(some)} |")
    for label in sorted({o.clip.label for o in sports}):
        some = [o for o in sports if o.clip.label == label]
        print(f"| {label} | {len(some)} | {counts(some)} |")
    print(f"| in Kinetics, no sport of ours | {len(of[OTHER])} | {counts(of[OTHER])} |")
    silent = sum(not o.segments for o in of[UNKNOWN])
    print(f"\nsports that Kinetics lacks: silent in {silent} of {len(of[UNKNOWN])}")
    print(f"footage without sport: {false_per_minute(found):.2f} false segments a minute")
    print(f"ECE: {ece(sports):.3f} on sports, {ece(o for o in found if o.clip.label != RENDERED):.3f} on all")
    report_named(clips, find, each)
    if each:
        for outcome in found:
            best = outcome.best
            said = f"{best.label} {best.confidence:.2f}" if best else "nothing"
            print(f"{outcome.clip.kind:8} {outcome.clip.name:22} {outcome.verdict:6} {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--tuning", type=Path, default=kinetics.TUNING, help="another one than what ships")
    parser.add_argument("--clips", action="store_true", help="a line a clip, too")
    given = parser.parse_args()
    report(read(given.features), by_model(load_model(EMBEDDED, tuning=given.tuning)), given.clips)


if __name__ == "__main__":
    main()

"""Choose the settings of the embedded model `kinetics400`, calibrate it, and write model/kinetics400.safetensors.

    python cli.py extract CORPUS/Street CORPUS/TennisRally ... -o CLIPS --streams rgb --together 4
    python benchmarks/named_sports.py DIR
    python cli.py extract DIR/fit DIR/score -o VIDEOS --streams rgb --together 4
    python cli.py extract WIDE -o WIDE_FEATURES --streams rgb --together 4
    python benchmarks/fit_kinetics400.py CLIPS --videos VIDEOS --truth DIR --wide WIDE_FEATURES [--held-out]

The scores are those of the published head: P(sport) = A^ness * softmax(S / temperature), summed over the sport's names
(model/kinetics.py). No part of them is fitted. What is chosen or fitted are a few numbers; all but those of the last
point are shared by all sports:

- The temperature, EVIDENCE, the share of a sport's names, the threshold and its edge were chosen on WIDE, with the
  owner of a clip's footage left out of the calibration (benchmarks/README.md has the tables).
- The gap is the best on the half's untrimmed videos (named_rule.py).
- The segments found in the half's clips, in clips of skateboarding, exercise and cricket, and in WIDE's give the
  calibration of the confidence (Platt, with his smoothed targets) and the least confidence that is shown.
- If a user names only sports, they are read otherwise (fit_named.py). If other classes are among the names, a sport's
  logits are raised by as much as lets FALSE_SHARE of WIDE's other clips show it.

All of it is deterministic. Nothing of the scored half is read, but the threshold and its edge were chosen with its
figures in view.

--held-out prints the table of wide_sports.py with every owner of WIDE's footage left out of the calibration and of what
a name adds; nothing is written.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import fit_named, fit_wide, named_rule, wide_sports
from benchmarks.named_sports import HALVES, stored
from extractors.backbones import registry, weights
from extractors.config import USUAL
from extractors.features import load
from model import kinetics
from model.kinetics import Tuning
from model.predict import predict
from postprocess.config import LocalizeConfig
from postprocess.localize import Activations, localize
from postprocess.segment import Segment

# As kinetics.EVIDENCE, for four snippets together, whose logits are higher: with 6, A^ness has a mean of .91 on
# streets, and with this one of .56. On sports it is .97 instead of .99.
EVIDENCE = 8.5
TEMPERATURE = 2.0
THRESHOLD, EDGE = 0.25, 0.42
# Folder -> sport, of clips that the calibration sees beside the half's.
OTHERS = {"Kickflip": "skateboarding", "Ollie": "skateboarding", "Exercise": "fitness", "CricketBowling": "cricket"}
GROUPS = kinetics.sports_groups()
SPORTS = sorted(set(GROUPS.values()))
NAMES = weights.kinetics400_names()


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip's features x (T, 1024) and times (T, 2), and its sport ("" for a street)."""

    sport: str
    x: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, eq=False)
class Head:
    """The published head. weight (400, 1024), bias (400,), backbone: identity of the weights."""

    weight: Tensor
    bias: Tensor
    backbone: str

    @classmethod
    def published(cls) -> "Head":
        """The one on this machine."""
        return cls(*registry.i3d_head())


def read_others(folder: Path) -> list[Clip]:
    """Clips that are not of named_sports."""
    found, files = [], stored(folder)
    if not any(name.startswith(tuple(f"{prefix}_" for prefix in OTHERS)) for name in files):
        sys.exit(f"{folder} has no features of {' or '.join(OTHERS)}: extract these folders of the corpus as well.")
    for prefix, sport in OTHERS.items():
        for path in (path for name, path in files.items() if name.startswith(f"{prefix}_")):
            features = load(path)
            assert features.rgb is not None
            found.append(Clip(sport, features.rgb, features.times))
    return found


def read(folder: Path, clips: dict[str, list[str]]) -> list[Clip]:
    """The half's clips. `clips`: sport, or "Street" -> paths in the corpus."""
    found, files = [], stored(folder)
    for sport, names in sorted(clips.items()):
        for name in sorted(names):
            features = load(files[PurePosixPath(name).stem])
            assert features.rgb is not None
            found.append(Clip(sport if sport in SPORTS else "", features.rgb, features.times))
    return found


def settings(head: Head) -> Tuning:
    """What is chosen and not measured here."""
    return Tuning(bias=kinetics.biases(), temperature=TEMPERATURE, evidence=EVIDENCE, backbone=head.backbone)


def assemble(head: Head, found: Tuning) -> kinetics.Checkpoint:
    """The whole model."""
    return kinetics.build(head.weight, head.bias, NAMES, head.backbone, found)


def segments(
    model: kinetics.Checkpoint, clips: Sequence[Clip], config: LocalizeConfig
) -> list[tuple[Clip, list[Segment]]]:
    """What is drawn in each clip, sports alone."""
    net, found = model.build(), []
    for clip in clips:
        scores = predict(net, clip.x)
        ends = float(clip.times[-1, 1])
        given = Activations(scores.cas, scores.actionness, scores.video, clip.times, model.classes, ends)
        some = localize(given, config, groups=model.groups, keep=frozenset(model.groups))
        found.append((clip, some))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, metavar="CLIPS")
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True, help="what named_sports.py wrote")
    parser.add_argument("--wide", type=Path, required=True, help="features of corpus-wide")
    parser.add_argument("--manifest", type=Path, default=wide_sports.WIDE / "manifest.csv", help="of corpus-wide")
    parser.add_argument("--half", choices=HALVES, default="fit", help="score: the other way round, for named_quality")
    parser.add_argument("--held-out", action="store_true", help="print the table of wide_sports.py, and write nothing")
    parser.add_argument("--out", type=Path, default=kinetics.TUNING)
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = Head.published()
    model = assemble(head, settings(head))
    videos = named_rule.read(given.videos, given.truth, given.half)
    gap = named_rule.choose(videos, model, LocalizeConfig(threshold=THRESHOLD, edge=EDGE))
    drawn = LocalizeConfig(threshold=THRESHOLD, edge=EDGE, merge_gap=gap)
    print(f"chosen: gaps of up to {gap}")
    clips = read(given.features, json.loads((given.truth / "clips.json").read_text())[given.half])
    found_in = segments(model, [*read_others(given.features), *clips], drawn)
    near = [(s.confidence, GROUPS[s.label] == clip.sport) for clip, some in found_in for s in some]
    wide = wide_sports.read(given.wide, given.manifest)
    held_out = fit_wide.HeldOut(wide, model, drawn)
    by_name = fit_named.NamedFit(model, TEMPERATURE, wide, drawn)
    if given.held_out:
        unnamed, of_sport = held_out.finder(near), by_name.finder()
        wide_sports.report(
            wide, lambda clip, sport: unnamed(clip) if sport is None else of_sport(clip, sport), each=True
        )
        return
    localisation = {"threshold": THRESHOLD, "edge": EDGE, "merge_gap": gap} | held_out.calibration(near)
    closed = held_out.added(localisation)
    found = replace(settings(head), localize=localisation, closed=closed, named=by_name.settings())
    made = wide[0].features.settings["rgb"]
    found = replace(found, features={name: made[name] for name in USUAL if name in made})
    found = replace(found, assembled=kinetics.fingerprint(assemble(head, found)))
    found.save(given.out)
    print(f"{given.out}: {found.localize}; {found.closed}; {found.assembled}")


if __name__ == "__main__":
    main()

"""How good is the embedded model at sports that Kinetics names? Scored on clips that no fit has read.

    python benchmarks/named_sports.py DIR
    python cli.py extract DIR/fit DIR/score -o VIDEOS --streams rgb --together 4
    python cli.py extract CORPUS/Street CORPUS/TennisRally ... -o CLIPS --streams rgb --together 4
    python benchmarks/named_quality.py VIDEOS CLIPS --truth DIR [--half score] [--tuning FILE] [--plot reliability.png]
    python benchmarks/fit_kinetics400.py CLIPS --videos VIDEOS --truth DIR --wide WIDE_FEATURES --half score --out OTHER
    python benchmarks/named_quality.py VIDEOS CLIPS --truth DIR --other OTHER

Arms: `plain head` is softmax over the 400 names without any background, the names of a sport summed, under the same
rule `runs` (3-tap smoothing, theta .3, gaps of 1, at least 2 snippets); `untuned` is kinetics400 with a temperature of
1, without biases, with evidence from 6 on, under the same rule; `kinetics400` is what ships, `--all` without its least
confidence, and once under the rule `paper`. With --other both halves are scored, each by what was chosen on the other
one.

mAP: the class mean, segments ranked by confidence (by psi under `paper`), a segment's class the sport of its name;
sports that no instance has are left out of it. Best segment: of each instance, the segment that covers most of it names
its sport. False: segments of which less than half lies on instances, per minute of street in the videos; and segments
per minute of the half's street clips, each run alone; silent: street clips without any. ECE: expected calibration error
of the confidence over ten bins, where a segment is right if at least half of it lies on instances of its sport.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.named_sports import HALVES, stored
from extractors.backbones import registry, weights
from extractors.features import Features, load
from model import kinetics
from model.predict import Scores, predict
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action, read_ground_truth
from postprocess.evaluation.metrics import Instances, Predictions, detect
from postprocess.localize import Activations, localize
from postprocess.segment import Segment

TIOUS = (0.3, 0.5, 0.7)
BINS = 10
GOLF, RALLIES = "golf driving", "TennisRally"


@dataclass(frozen=True, eq=False)
class Arm:
    """A model, a rule, and what it finds in a video. keep: the classes that may be found; None: the sports."""

    score: Callable[[np.ndarray], Scores]
    model: kinetics.Checkpoint
    config: LocalizeConfig

    def find(self, features: Features, keep: frozenset[str] | None = None) -> list[Segment]:
        """Segments of a video."""
        assert features.rgb is not None
        scores = self.score(features.rgb)
        return localize(
            Activations(
                scores.cas,
                scores.actionness,
                scores.video,
                features.times,
                self.model.classes,
                features.duration,
            ),
            self.config,
            groups=self.model.groups,
            keep=keep or frozenset(self.model.groups),
            bars=(self.model.localize.get("min_confidence", 0.0),),
        )

    def sport(self, segment: Segment) -> str:
        """Sport of a segment's name."""
        return self.model.groups[segment.label]


def plain_head(scores: Scores) -> Scores:
    """Without a background and without actionness: S of the head alone."""
    cas = scores.coarse_cas.copy()
    cas[:, -1] = -1e4
    return replace(scores, cas=cas, actionness=np.ones_like(scores.actionness))


def arms(tuning: Path = kinetics.TUNING) -> dict[str, Arm]:
    """Name → arm, in the order of the table. tuning: what fit_kinetics400.py wrote."""
    weight, bias, identity = registry.i3d_head()
    names = weights.kinetics400_names()
    models = {
        "untuned": kinetics.build(weight, bias, names, identity),
        "kinetics400": kinetics.build(weight, bias, names, identity, kinetics.Tuning.load(tuning)),
    }
    nets = {name: model.build() for name, model in models.items()}
    own = LocalizeConfig(**models["kinetics400"].localize)

    def by(name: str) -> Callable[[np.ndarray], Scores]:
        return lambda x: predict(nets[name], x)

    tuned = models["kinetics400"]
    return {
        "plain head": Arm(lambda x: plain_head(predict(nets["untuned"], x)), models["untuned"], LocalizeConfig()),
        "untuned": Arm(by("untuned"), models["untuned"], LocalizeConfig()),
        "kinetics400": Arm(by("kinetics400"), tuned, own),
        "kinetics400 --all": Arm(by("kinetics400"), tuned, replace(own, min_confidence=0.0)),
        "kinetics400 --rule paper": Arm(by("kinetics400"), tuned, LocalizeConfig(rule="paper")),
    }


def overlap(a: Segment | Action, b: Segment | Action) -> float:
    """Seconds that both last."""
    return max(0.0, min(a.end, b.end) - max(a.start, b.start))


@dataclass(frozen=True, eq=False)
class Quality:
    """What the table shows. right, confidence: (N,) of every segment in the videos."""

    mean_ap: np.ndarray
    ap: dict[str, tuple[int, np.ndarray]]
    best: list[bool]
    wrong: list[str]
    false: float
    right: np.ndarray
    confidence: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, ten bins."""
        return sum(n * abs(c - r) for n, c, r in reliability(self)) / max(len(self.right), 1)


def reliability(quality: Quality) -> list[tuple[int, float, float]]:
    """Of each bin that holds segments: how many, mean confidence, share that is right."""
    bins = np.minimum((quality.confidence * BINS).astype(int), BINS - 1)
    return [
        (int((bins == b).sum()), float(quality.confidence[bins == b].mean()), float(quality.right[bins == b].mean()))
        for b in np.unique(bins)
    ]


def judge(by: Mapping[str, Arm], videos: dict[str, Features], truth: dict[str, Sequence[Action]]) -> Quality:
    """Untrimmed videos, each with its arm."""
    labels = sorted({a.label for actions in truth.values() for a in actions})
    instances: list[tuple[int, int, float, float]] = []
    ranked: list[tuple[int, int, float, float, float]] = []
    best, wrong, right, confidence, false, street = [], [], [], [], 0, 0.0
    for v, (name, features) in enumerate(videos.items()):
        actions, arm = truth[name], by[name]
        found = arm.find(features)
        street += features.duration - sum(a.end - a.start for a in actions)
        for a in actions:
            instances.append((v, labels.index(a.label), a.start, a.end))
            longest = max(found, key=lambda s, a=a: overlap(s, a), default=None)
            said = arm.sport(longest) if longest is not None and overlap(longest, a) > 0 else "nothing"
            best.append(said == a.label)
            if said != a.label:
                wrong.append(f"{name} {a.start:.1f}-{a.end:.1f} {a.label}: {said}")
        for s in found:
            length = s.end - s.start
            false += sum(overlap(s, a) for a in actions) < length / 2
            right.append(sum(overlap(s, a) for a in actions if a.label == arm.sport(s)) >= length / 2)
            confidence.append(s.confidence)
            if arm.sport(s) in labels:
                score = s.score if arm.config.rule == "paper" else s.confidence
                ranked.append((v, labels.index(arm.sport(s)), s.start, s.end, score))
    t, p = np.array(instances), np.array(ranked).reshape(-1, 5)
    of_truth = Instances(t[:, 0].astype(int), t[:, 1].astype(int), t[:, 2:])
    found_all = Predictions(p[:, 0].astype(int), p[:, 1].astype(int), p[:, 2:4], p[:, 4])
    scored = detect(of_truth, found_all, np.array(TIOUS))
    ap = {labels[c]: (int((t[:, 1] == c).sum()), 100 * scored.ap[:, i]) for i, c in enumerate(scored.classes)}
    shown = np.array(right, dtype=bool), np.array(confidence)
    return Quality(100 * scored.mean_ap, ap, best, wrong, 60 * false / street, *shown)


def plot(quality: Quality, path: Path) -> None:
    """The reliability diagram."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    rows = reliability(quality)
    axes.plot([c for _, c, _ in rows], [r for _, _, r in rows], color="C0")
    for n, c, r in rows:
        axes.scatter(c, r, color="C0", s=15 + 3 * n)
        axes.annotate(str(n), (c, r), textcoords="offset points", xytext=(8, -12))
    axes.set_title(f"{len(quality.right)} segments, ECE {quality.ece:.2f}", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--half", choices=("fit", "score"), default="score")
    parser.add_argument("--tuning", type=Path, default=kinetics.TUNING, help="another one than what ships")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--other", type=Path, help="what was fitted on the half that is scored otherwise")
    given = parser.parse_args()
    ours = {given.half: arms(given.tuning)}
    if given.other:
        ours[next(half for half in HALVES if half != given.half)] = arms(given.other)
    listed = read_ground_truth(given.truth / "ground_truth.json")
    truth = {name: video.actions for name, video in listed.items() if video.subset in ours}
    of_videos, of_clips = stored(given.videos), stored(given.clips)
    videos = {name: load(of_videos[name]) for name in truth}
    clips = json.loads((given.truth / "clips.json").read_text())
    streets = [(half, load(of_clips[PurePosixPath(n).stem])) for half in ours for n in clips[half]["Street"]]
    minutes = sum(f.duration for _, f in streets) / 60
    rallies = [load(path) for name, path in of_clips.items() if name.startswith(f"{RALLIES}_")]
    print(
        "| arm | mAP@.3 | @.5 | @.7 | best segment | false/min in videos | on streets | silent | golf in tennis | ECE |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, arm in ours[given.half].items():
        q = judge({video: ours[listed[video].subset][name] for video in truth}, videos, truth)
        found = [len(ours[half][name].find(street)) for half, street in streets]
        golf = sum(bool(arm.find(rally, frozenset({GOLF}))) for rally in rallies)
        cells = [*(f"{v:.1f}" for v in q.mean_ap), f"{sum(q.best)} of {len(q.best)}", f"{q.false:.2f}"]
        cells += [f"{sum(found) / minutes:.2f}", f"{found.count(0)} of {len(found)}", f"{golf} of {len(rallies)}"]
        print(f"| {name} | {' | '.join(cells)} | {q.ece:.3f} |")
        if name == "kinetics400":
            shown = q
    print("\n| sport | instances | AP@.3 | @.5 | @.7 |\n|---|---|---|---|---|")
    for sport, (n, ap) in shown.ap.items():
        print(f"| {sport} | {n} | {' | '.join(f'{v:.1f}' for v in ap)} |")
    print(
        "\nconfidence, kinetics400: "
        + "; ".join(f"{c:.2f} said, {r:.2f} right (n {n})" for n, c, r in reliability(shown))
    )
    print("named wrong: " + "; ".join(shown.wrong))
    if given.plot:
        plot(shown, given.plot)


if __name__ == "__main__":
    main()

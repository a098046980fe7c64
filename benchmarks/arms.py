"""Which part of JCDNet earns its keep: ablations, peers and ceilings, trained alike and judged on the same videos.

    python benchmarks/arms.py FEATURES --ground-truth ground_truth.json --labels labels.csv [--clips clips.json]
    python benchmarks/arms.py --world B --worlds 5 [--shuffled] [--phi .04] [--decoys 1] [--noise 5 --width 2048]

FEATURES: what `jcdnet extract` makes of the videos that labels.csv (`video,labels,split`; benchmarks/sportsmini.py)
names: test/test_000.mp4 has its features in FEATURES/test/test_000.npz. An arm learns from the labels of the train
split and is judged on the test split, once with each of --seeds. With --world the videos are ConjointSynth's, and
world w is learned with seed w.

Both rules of localisation are judged. `paper` ranks by psi. `runs` ranks by confidence, which is the number that
`run` shows people (table, subtitles, --min-confidence); the results file has it ranked by psi, too ("runs by score"),
as `evaluate` ranks result documents. mAP is in percent, at tIoU .3 to .9 and at .5. Of the runs of an arm: mean and
standard deviation; the difference to `full` is of the same seeds.

Its 95 % interval: the clips that the test videos are cut from are drawn with replacement, 1,000 times, the same draws
for every arm. An instance, and whoever finds it, weighs as often as the clip at its middle was drawn, a false positive
as often as the clip at its own; without --clips whole videos are drawn. It is of what footage was chosen, given these
trainings; of the trainings the standard deviation speaks. Between worlds it is Student's, over their differences.

The arms marked-1, marked-3 and marked-10 also know when so many instances of each class happen, drawn by the seed;
`points` a point in each instance; `everything` all of them, so that the rest is background. They are `train --times`.

All arms have the settings of the preset `own`, which were chosen for JCDNet; those of the worlds were the pilot's.

An (arm, seed) that the results file holds with the same data and settings is not computed again.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import conjointsynth, marks, peers
from benchmarks.bootstrap import DRAWS
from benchmarks.conjointsynth import Interval, Regime
from benchmarks.judge import difference, judge
from benchmarks.tasks import Files, Source, Task, load
from extractors.features import FeaturesError
from model.checkpoint import write_atomically
from model.config import ModelConfig, TimesConfig, TrainConfig
from model.datasets import DatasetError
from model.presets import experiment, localization_for, model_settings, preset, spread_for
from model.train import TrainError, initialise, train
from pipeline.training.snippets import EDGE
from postprocess.config import RULES, LocalizeConfig
from postprocess.evaluation.protocols import EvaluateError

FORMAT = 1  # of an entry of the results file; raise it when the same settings would give other numbers
REFERENCE = "full"


@dataclass(frozen=True)
class Ablation:
    """An experiment of Table 4, and what else is changed: gates frozen at 0, or lambda_3."""

    experiment: int
    frozen: bool = False
    norm: float | None = None

    def configs(self, model: ModelConfig, config: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
        """The settings with the ablation's."""
        model, config = experiment(self.experiment, model, config)
        loss = config.loss if self.norm is None else replace(config.loss, norm=self.norm)
        return model, replace(config, loss=loss, gate_lr=0.0 if self.frozen else config.gate_lr)


ABLATIONS = {
    "baseline": Ablation(1),
    "cad": Ablation(2),
    "ncad": Ablation(3),
    "tea": Ablation(4),
    **{f"exp{n}": Ablation(n) for n in range(5, 10)},
    "full": Ablation(10),
    "exp7-frozen": Ablation(7, frozen=True),
    **{f"full-norm{norm:g}": Ablation(10, norm=norm) for norm in (0.0, 0.1, 0.8)},
}
# What `train --times` learns from, beside the labels of all training videos: benchmarks/marks.py.
MARKED = {f"marked-{n}": str(n) for n in (1, 3, 10)} | {"points": "points", "everything": "everything"}
ARMS = (*ABLATIONS, *MARKED, *peers.PEERS)
# `mil` is the baseline once more, to the last digit: tests/benchmarks/test_arms.py.
ON_FEATURES = (
    "baseline",
    "cad",
    "tea",
    "exp7",
    "full",
    "full-norm0.8",
    "basnet",
    "um",
    "co2net",
    "linear",
    "supervised",
)
ON_WORLDS = ("baseline", "cad", "tea", "exp7", "exp7-frozen", "full", "full-norm0.1")


# --- one training ---


@dataclass(frozen=True)
class Job:
    """One arm with one seed. config, settings: of training, the seed included, and of the network, for all arms.

    settings: those of ModelConfig that are not its defaults, as pairs.
    edge: seconds around marked instances that count as background.
    """

    arm: str
    source: Source
    config: TrainConfig
    settings: tuple[tuple[str, Any], ...]
    edge: float = EDGE


def learn(job: Job, task: Task) -> nn.Module:
    """The trained network."""
    config, seed, settings = job.config, job.config.seed, dict(job.settings)
    if job.arm in peers.PEERS:
        targets = task.targets if peers.PEERS[job.arm].supervised else None
        return peers.train_peer(job.arm, task.train, config, settings.pop("dim"), seed, targets, settings)
    model = ModelConfig(len(task.train.classes), task.train.width, **settings)
    data = task.train
    if job.arm in MARKED:
        data = marks.learned(task, MARKED[job.arm], seed, job.edge)
        config = replace(config, times=config.times or TimesConfig())
    else:
        model, config = ABLATIONS[job.arm].configs(model, replace(config, times=None))
    return train(initialise(model, task.train.classes, ("rgb",), {}, seed), data, config).build()


def wider(arm: str, task: Task) -> dict[str, int]:
    """The settings of the network that `own` changes if times are marked."""
    spread = spread_for(lengths(task), task.stride) if arm in MARKED else 1
    return {"smooth": model_settings("own", spread)["smooth"]}


def drawn(arm: str, task: Task) -> dict[str, Any]:
    """What `own` changes of the rule `runs` if times are marked."""
    return localization_for(lengths(task), task.stride) if arm in MARKED else {}


def lengths(task: Task) -> list[float]:
    """Seconds of each action in the training videos."""
    return [end - start for found in task.spans for _, start, end in found]


def run(job: Job) -> dict[str, Any]:
    """Train and judge, on one thread: the same numbers however many jobs there are."""
    torch.set_num_threads(1)
    task = load(job.source, job.config.seed)
    begin = time.perf_counter()
    net = learn(job, task)
    seconds = time.perf_counter() - begin
    about = {"arm": job.arm, "seed": job.config.seed, "training_seconds": round(seconds, 1)}
    return {
        **about,
        "settings": {**job.config.to_dict(), **dict(job.settings)},
        **judge(task, net, drawn(job.arm, task)),
    }


# --- all of them ---


def identity(job: Job, data: str) -> str:
    """What decides a job's numbers, as a short hash. data: of the videos."""
    rules = [asdict(LocalizeConfig(rule=rule)) for rule in RULES]
    ablation = asdict(ABLATIONS[job.arm]) if job.arm in ABLATIONS else None
    settings = {**job.config.to_dict(), **dict(job.settings), "arm": job.arm, "ablation": ablation, "rules": rules}
    if job.arm in MARKED:
        settings |= {"times": asdict(job.config.times or TimesConfig()), "edge": job.edge}
    if job.arm in peers.PEERS and peers.PEERS[job.arm].revision:
        settings["revision"] = peers.PEERS[job.arm].revision
    text = json.dumps([FORMAT, data, settings, DRAWS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fingerprint(source: Source, seed: int) -> str:
    """Of the videos; those of a world follow from its number."""
    if isinstance(source, Regime):
        return json.dumps([conjointsynth.FORMAT, asdict(source), seed])
    return load(source, 0).fingerprint()


def run_all(jobs: Sequence[Job], out: Path | None, workers: int) -> list[dict[str, Any]]:
    """The entry of each job, in order; those that `out` lacks are computed, and written as they come."""
    entries: dict[str, Any] = {}
    if out is not None and out.exists():
        entries = json.loads(out.read_text())["entries"]
    files: dict[Source, str] = {job.source: fingerprint(job.source, 0) for job in jobs if isinstance(job.source, Files)}
    names = [identity(job, files.get(job.source) or fingerprint(job.source, job.config.seed)) for job in jobs]
    waiting = {name: job for name, job in zip(names, jobs, strict=True) if name not in entries}
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    for name, entry in parallel(joblib.delayed(_named)(name, job) for name, job in waiting.items()):
        entries[name] = entry
        if out is not None:
            write_atomically(out, json.dumps({"schema": 1, "entries": entries}).encode())
        shown = ", ".join(f"{rule} {entry['rules'][rule]['average']:.1f}" for rule in RULES)
        print(f"{entry['arm']} {entry['seed']}: {entry['training_seconds']} s; {shown}", file=sys.stderr, flush=True)
    return [entries[name] for name in names]


def _named(name: str, job: Job) -> tuple[str, dict[str, Any]]:
    return name, run(job)


def by_arm(entries: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Arm → its runs, in the order of the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(entries, key=lambda e: e["seed"]):
        found.setdefault(entry["arm"], []).append(entry)
    return found


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown; a row an arm and rule."""
    lines = [
        f"| arm | rule | mAP 0.3:0.9 | mAP@0.5 | classification mAP | mAP 0.3:0.9 minus {REFERENCE}'s [95 %] |",
        "|---|---|---|---|---|---|",
    ]
    for arm, entries in runs.items():
        for rule in RULES:
            judged = [entry["rules"][rule] for entry in entries]
            versus = ""
            if arm != REFERENCE and REFERENCE in runs:
                versus = _signed(difference(judged, [entry["rules"][rule] for entry in runs[REFERENCE]]))
            average = spread([q["average"] for q in judged])
            half = spread([q["mAP"]["0.5"] for q in judged])
            kind = spread([entry["classification_mAP"] for entry in entries])
            lines.append(f"| {arm} | {rule} | {average} | {half} | {kind} | {versus} |")
    return "\n".join(lines)


def phases_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown; what is known of synthetic worlds alone, rule `paper`."""
    lines = [
        "| arm | conjoint mAP | control mAP | common covered | definite covered | background in it | "
        "A common | A definite | A background |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, entries in runs.items():
        rules = [entry["rules"]["paper"] for entry in entries]
        cells = [spread([q[name] for q in rules]) for name in ("conjoint", "control")]
        cells += [spread([q["coverage"][name] for q in rules], 2) for name in ("common", "definite", "background")]
        for name in ("common", "definite", "background"):
            cells.append(spread([entry["actionness"][name] for entry in entries], 2))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def judgement(runs: dict[str, list[dict[str, Any]]], regime: Regime, worlds: Sequence[int]) -> str:
    """The acceptance test of conjointsynth, in words."""
    if missing := [arm for arm in conjointsynth.ARMS_OF_VERDICT if arm not in runs]:
        return f"No verdict: it needs {', '.join(missing)}."
    of_paper = {arm: [entry["rules"]["paper"] for entry in entries] for arm, entries in runs.items()}
    mean_ap = {arm: [q["average"] for q in judged] for arm, judged in of_paper.items()}
    common = {arm: [q["coverage"]["common"] for q in judged] for arm, judged in of_paper.items()}
    contrast = [entry["actionness"]["common"] - entry["actionness"]["background"] for entry in runs["full"]]
    criteria = conjointsynth.verdict(mean_ap, common, contrast)
    lines = [
        f"{'met    ' if c.met else 'NOT MET'} {c.name}: {_signed(c.found, 2)}, at least {c.least:g} and above 0 asked"
        for c in criteria
    ]
    said = conjointsynth.objections(regime, worlds, mean_ap["baseline"])
    passed = "PASSED" if all(c.met for c in criteria) else "FAILED"
    verdict = f"Not the acceptance test: {'; '.join(said)}." if said else f"Acceptance test: {passed}."
    return "\n".join([*lines, verdict])


def spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Mean ± standard deviation; the mean alone of one value, a dash of none."""
    known = [value for value in values if value is not None]
    mean = f"{np.mean(known):.{digits}f}" if known else "–"
    return mean if len(known) < 2 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"


def _signed(interval: Interval, digits: int = 1) -> str:
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return f"{interval.mean:+.{digits}f}{bounds}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="?", metavar="FEATURES")
    parser.add_argument("--ground-truth", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dim", type=int, help="D; of preset `own`, and 64 of worlds")
    parser.add_argument("--steps", type=int, help="of preset `own`, and 400 of worlds")
    parser.add_argument("--gate-lr", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--world", type=lambda name: name.removeprefix("conjoint-"), choices=conjointsynth.REGIMES)
    parser.add_argument("--worlds", type=int, default=5)
    parser.add_argument("--first-world", type=int, default=0)
    # Those of Regime that are numbers, and its one switch.
    for field in fields(Regime):
        if field.name != "common":
            kind = {"action": "store_true"} if field.name == "shuffled" else {"type": type(field.default)}
            parser.add_argument(f"--{field.name}", default=None, help="of --world", **kind)
    given = parser.parse_args()
    changes = {f.name: value for f in fields(Regime) if (value := getattr(given, f.name, None)) is not None}
    try:
        if given.world is None:
            if None in (given.features, given.ground_truth, given.labels) or changes:
                parser.error("give FEATURES, --ground-truth and --labels, or --world and its settings")
            source: Source = Files(given.features, given.ground_truth, given.labels, given.clips)
            seeds, arms, task = given.seeds, given.arms or ON_FEATURES, load(source, 0)
            base, model = preset("own", task.train.lengths), model_settings("own")
        else:
            source = replace(conjointsynth.REGIMES[given.world], **changes)
            seeds, arms = list(range(given.first_world, given.first_world + given.worlds)), given.arms or ON_WORLDS
            # The pilot's, which no result of these worlds has touched.
            base, model = TrainConfig(steps=400, snippets=120, lr=1e-3), {"dim": 64}
            base = replace(base, loss=replace(base.loss, topk_divisor=8))
        base = replace(base, steps=given.steps or base.steps, gate_lr=given.gate_lr)
        settings = {**model, "dim": given.dim or model["dim"]}
        of_arm = {arm: tuple((settings | (wider(arm, task) if given.world is None else {})).items()) for arm in arms}
        # World by world, so that a worker makes each once.
        jobs = [Job(arm, source, replace(base, seed=seed), of_arm[arm]) for seed in seeds for arm in arms]
        runs = by_arm(run_all(jobs, given.out, given.jobs))
    except (DatasetError, EvaluateError, FeaturesError, TrainError, OSError) as error:
        sys.exit(str(error))
    runs = {arm: runs[arm] for arm in arms}
    of_network = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(f"{base.steps} steps of {base.batch} videos, lr {base.lr:g}, {of_network}; seeds {' '.join(map(str, seeds))}")
    print(f"{base.loss}\n")
    print(table(runs))
    if isinstance(source, Regime):
        some = [entry for entries in runs.values() for entry in entries]
        phi, floor = (float(np.mean([entry[name] for entry in some])) for name in ("phi", "definite_oracle"))
        print(f"\n{source}\nmedian phi {phi:.3f}; definite phases alone would have a conjoint mAP of {floor:.1f}\n")
        print(phases_table(runs))
        print(f"\n{judgement(runs, source, seeds)}")


if __name__ == "__main__":
    # Under its own name, so that worker processes find what they are sent.
    from benchmarks import arms

    arms.main()

"""The embedded model `kinetics400`: a JCDNet whose tensors are built from the 400-way head of the I3D network.

The head knows what 400 actions look like, and a JCDNet can represent this knowledge exactly:

- X^a passes the RGB feature through. The feature is a mean of ReLUs, so it is never negative, and LeakyReLU does not
  change it. alpha = 0, as the paper initialises it, so E^a = X.
- S^coarse is the head with its rows divided by a temperature, and a background row with a constant logit, `BACKGROUND`.
- S is the same, but with other biases for the names of sports (see `biases`).
- X^e holds two units for every class c: the head's logit l_c minus `EVIDENCE`, and the negative of that. They give
  ReLU(l_c - EVIDENCE) exactly, since max(z, 0) = (LeakyReLU(z) + slope LeakyReLU(-z)) / (1 - slope^2). S^temp_c is C
  times this, minus an offset, so its mean over the classes (equation 5) is the summed evidence for any action. A^ness
  is then high exactly where the head is sure of something. beta = 0, so E^e = X^e.

A high logit marks an action, not a high softmax: in a street scene all logits are low, but the softmax still sums to
one.

kinetics400.safetensors holds the chosen and fitted values. The model's card, kinetics400.md, says what was fitted on
which data.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

from model.checkpoint import Checkpoint, CheckpointError, fingerprint, write_atomically
from model.config import ModelConfig

NAME = "kinetics400"
WIDTH = 1024  # D and the width of an RGB feature
TUNING = Path(__file__).parent / f"{NAME}.safetensors"
# The tuning from which `train --init kinetics400` starts: an earlier one, with which its figures were measured.
START = Path(__file__).parent / f"{NAME}_start.safetensors"
CARD = Path(__file__).parent / f"{NAME}.md"

# The logit of "nothing". On our clips (benchmarks/named_clips.py) the largest of the 400 logits of a snippet has a
# median of 6.9 in street scenes (95 %: 10.6, spread over unlikely names), 15 in broadcast hockey, and 20 to 29 in
# tennis and baseball. Of the values 7 to 10 for BACKGROUND and 6 to 9 for EVIDENCE, these two named the most clips
# right without finding anything in a street scene. They are for snippets by themselves. Of four together, the largest
# logit of a street has a median of 9.9, so the embedded model's own numbers are higher (fit_kinetics400.py).
BACKGROUND = 8.0
EVIDENCE = 6.0
# A^ness = sigmoid(summed evidence - OFFSET): .12 without any, .5 where one class reaches BACKGROUND.
OFFSET = 2.0
# A sport of n names loses SHARE * log(n) in each of their logits. 0 would add the probabilities of its names up, which
# favours sports that Kinetics cuts into many names (basketball has four, volleyball one, and a gym is a gym). At a
# temperature of t, t would take their mean, which punishes a game that is several of them at once.
SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Tuning:
    """What benchmarks/fit_kinetics400.py chooses and fits, on labels per clip and, for the gap, on a few timed videos.

    Attributes:
        tilt: sport -> (1024,) float32, which is added to the head's row of every class of this sport. Only START has
            some: they found more of five sports in footage like that they were fitted on, and not in other footage
            (benchmarks/README.md).
        bias: class -> what is added to its logit, before the temperature; see `biases`.
        temperature: S is divided by this.
        background: the logit of "nothing", see BACKGROUND.
        evidence: what a logit must exceed to speak for an action, see EVIDENCE.
        localize: settings of the rule `runs`, including the calibration of the confidence.
        closed: sport -> what is added to the logits of its classes, behind the temperature, if the user names it.
        named: how the scores are read if the user names sports alone, see `Checkpoint.named`.
        backbone: identity of the RGB weights that made the features for fitting.
        features: settings of these features that are not the usual ones, such as {"together": 4}.
        assembled: SHA-256 of the whole model, as `fingerprint` computes it; "" while the model is being made.
    """

    tilt: Mapping[str, Tensor] = field(default_factory=dict)
    bias: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    background: float = BACKGROUND
    evidence: float = EVIDENCE
    localize: Mapping[str, Any] = field(default_factory=dict)
    closed: Mapping[str, float] = field(default_factory=dict)
    named: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    assembled: str = ""

    def save(self, path: Path) -> None:
        """Write a safetensors file that holds the tilts, and the other values as JSON in its header."""
        header = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "tilt"}
        state = {sport: row.float().contiguous() for sport, row in sorted(self.tilt.items())}
        write_atomically(path, safetensors_torch.save(state, {NAME: json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path = TUNING) -> "Tuning":
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[NAME])
                tilt = {sport: file.get_tensor(sport).clone() for sport in list(file.keys())}
            return cls(tilt, **header)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not the tuning of {NAME} ({error}); install jcdnet again.") from error


def _sports() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "kinetics_sports.toml").read_text(encoding="utf-8"))


def sports_groups() -> dict[str, str]:
    """Class -> sport, for the classes of the 400 that are sports (kinetics_sports.toml)."""
    return {name: sport for sport, names in _sports()["groups"].items() for name in names}


def biases() -> dict[str, float]:
    """Class -> what is added to its logit in S, for the sports; the reasons stand at SHARE and in the table `surer`."""
    sports, surer = _sports()["groups"].values(), _sports()["surer"]
    return {name: -SHARE * math.log(len(names)) - surer.get(name, 0.0) for names in sports for name in names}


def build(
    weight: Tensor, bias: Tensor, names: Sequence[str], backbone_weights: str, tuning: Tuning | None = None
) -> Checkpoint:
    """Build the embedded model from the head of an I3D network.

    Args:
        weight, bias: (C, 1024) and (C,), of the head.
        names: C class names in the order of the rows.
        backbone_weights: identity of the weights that the head belongs to. The model refuses features from others.
        tuning: None uses the head as it is, and so does one that was fitted with other weights.

    Raises:
        CheckpointError: the assembled model differs from the one that was measured.
    """
    if tuning is None or tuning.backbone != backbone_weights:
        tuning = Tuning()
    config = ModelConfig(classes=len(names), in_dim=WIDTH, dim=WIDTH)
    classes, slope, centre = config.classes, config.slope, config.kernel // 2

    embed_a = torch.zeros(WIDTH, WIDTH, config.kernel)
    embed_a[:, :, centre] = torch.eye(WIDTH)
    # Units 0..C-1 hold l_c - EVIDENCE, units C..2C-1 the negative of it. The other units stay 0.
    embed_e = torch.zeros(WIDTH, WIDTH, config.kernel)
    embed_e[: 2 * classes, :, centre] = torch.cat([weight, -weight])
    embed_e_bias = torch.zeros(WIDTH)
    embed_e_bias[: 2 * classes] = torch.cat([bias - tuning.evidence, tuning.evidence - bias])

    # The mean over the C classes divides by C, so the gain multiplies by C.
    gain = classes / (1 - slope**2)
    temp = torch.zeros(classes, WIDTH, 1)
    rows = torch.arange(classes)
    temp[rows, rows, 0] = gain
    temp[rows, rows + classes, 0] = gain * slope
    groups, tilted, shifted = sports_groups(), weight.clone(), bias.clone()
    for row, name in enumerate(names):
        if (tilt := tuning.tilt.get(groups.get(name, ""))) is not None:
            tilted[row] += tilt
        shifted[row] += tuning.bias.get(name, 0.0)
    background = torch.zeros(1, WIDTH)
    coarse, head = (torch.cat([rows, background]) / tuning.temperature for rows in (weight, tilted))
    coarse_bias, head_bias = (
        torch.cat([b, torch.tensor([tuning.background])]) / tuning.temperature for b in (bias, shifted)
    )
    state = {
        "embed_a.weight": embed_a,
        "embed_a.bias": torch.zeros(WIDTH),
        "embed_e.weight": embed_e,
        "embed_e.bias": embed_e_bias,
        "temp.weight": temp,
        "temp.bias": torch.full((classes,), -OFFSET),
        "coarse.weight": coarse.unsqueeze(-1),
        "coarse.bias": coarse_bias,
        "classifier.weight": torch.cat([head, torch.zeros(classes + 1, WIDTH)], dim=1).unsqueeze(-1),
        "classifier.bias": head_bias,
        "alpha": torch.tensor(0.0),
        "beta": torch.tensor(0.0),
    }
    for name in ("query", "key", "value"):  # not used while beta = 0
        state |= {f"{name}.weight": torch.zeros(WIDTH, WIDTH, 1), f"{name}.bias": torch.zeros(WIDTH)}
    about = "JCDNet built from the Kinetics-400 head of the I3D RGB network"
    model = Checkpoint(
        config=config,
        classes=tuple(names),
        streams=("rgb",),
        features={
            "rgb": {"backbone": "i3d", "fps": 25.0, "length": 16, "weights": backbone_weights, **tuning.features}
        },
        state=state,
        groups=groups,
        localize=dict(tuning.localize),
        closed=dict(tuning.closed),
        named=dict(tuning.named),
        provenance={"about": about},
    )
    if tuning.assembled and (found := fingerprint(model)) != tuning.assembled:
        raise CheckpointError(
            f"{NAME}, assembled from its parts, is {found[:12]}… and not {tuning.assembled[:12]}…, the model that was "
            "measured; install jcdnet and its weights again."
        )
    return model


def matches(embedded: Checkpoint, classes: Sequence[str]) -> dict[str, list[int]]:
    """Given class -> the rows of the embedded model that mean it: a class of this name, or all classes of this sport.

    A class may also be called as tables show it ("weightlifting: squat"). Case and underscores do not matter. Classes
    without a match are left out.
    """
    wanted = {_plain(name): name for name in classes}
    found: dict[str, list[int]] = {}
    for row, name in enumerate(embedded.classes):
        sport = embedded.groups.get(name, name)
        for known in {_plain(name), _plain(sport), _plain(f"{sport}: {name}")}:
            if known in wanted:
                found.setdefault(wanted[known], []).append(row)
    return found


def difference(ours: ModelConfig, theirs: ModelConfig) -> str | None:
    """A sentence that says why a network cannot start from the embedded model; None if it can."""
    for name in ("in_dim", "dim", "kernel", "coarse_kernel", "slope"):
        if getattr(ours, name) != getattr(theirs, name):
            return f"{NAME} has {name} {getattr(theirs, name)}, so a model that starts from it has it too."
    return None


def adapt(embedded: Checkpoint, start: Checkpoint) -> Checkpoint:
    """Initial weights for a user's own classes: `start`, with the knowledge of the embedded model.

    X^a and X^e are those of the embedded model. A class that matches gets the mean of its rows in S and S^coarse, and
    their evidence in S^temp. The attention and the classes without a match keep the weights of `start`, since zeros
    would get no gradient from each other. The background starts as in the embedded model.

    Args:
        embedded: the result of `build`.
        start: an untrained network for the user's classes, with in_dim, dim and kernel of the embedded model.

    Raises:
        ValueError: the shape differs, or no class matches.
    """
    ours, theirs = start.config, embedded.config
    if other := difference(ours, theirs):
        raise ValueError(other)
    rows = matches(embedded, start.classes)
    if not rows:
        raise ValueError(f"{NAME} knows none of the classes {', '.join(start.classes)}; train without it.")
    state = {name: tensor.clone() for name, tensor in start.state.items()}
    held = 2 * theirs.classes  # the units of X^e that hold evidence; the others can learn freely
    for name in ("embed_a.weight", "embed_a.bias"):
        state[name] = embedded.state[name].clone()
    for name in ("embed_e.weight", "embed_e.bias"):
        if name in state:
            state[name][:held] = embedded.state[name][:held]
    for name in ("coarse", "classifier"):
        if f"{name}.weight" not in state:
            continue
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        for c, own in enumerate(start.classes):
            if own in rows:
                weight[c] = embedded.state[f"{name}.weight"][rows[own], : weight.shape[1]].mean(dim=0)
                bias[c] = embedded.state[f"{name}.bias"][rows[own]].mean()
        weight[-1], bias[-1] = 0.0, embedded.state[f"{name}.bias"][-1]
    if "temp.weight" in state:
        share = ours.classes / theirs.classes  # equation 5 takes the mean over the classes, and now there are fewer
        for c, own in enumerate(start.classes):
            if own in rows:
                state["temp.weight"][c] = share * embedded.state["temp.weight"][rows[own]].sum(dim=0)
            state["temp.bias"][c] = -OFFSET
    about = {"initialised_from": NAME, "matches": {own: [embedded.classes[r] for r in rows[own]] for own in rows}}
    return replace(start, state=state, provenance={**start.provenance, **about})


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())

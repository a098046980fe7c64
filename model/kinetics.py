"""The embedded model `kinetics400`: a JCDNet whose tensors are read off the I3D network's own 400-way head.

The head knows what 400 actions look like, and a JCDNet can hold that knowledge exactly.

- X^a passes the RGB feature through (it is a mean of ReLUs, so never negative and LeakyReLU leaves it alone);
  alpha = 0, the paper's own initialisation, so E^a = X.
- S^coarse is the head, its rows divided by a temperature, and a background row: a constant logit, `BACKGROUND`.
- S is the same, but the rows of some sports are tilted (`Tuning`).
- X^e holds, for every class c, the head's logit above `EVIDENCE` and its mirror image: two units from which
  ReLU(l_c - EVIDENCE) is exact, max(z, 0) = (LeakyReLU(z) + slope LeakyReLU(-z)) / (1 - slope^2). S^temp_c is
  C times that less an offset, so its mean over the classes (equation 5) is the summed evidence for any action,
  and A^ness is high exactly where the head is sure of something. beta = 0, so E^e = X^e.

A high logit, not a high softmax, marks an action: a street scene has no logit above the rest of the world's,
yet its softmax still sums to one.

What was fitted, and on what, is in the model's card, kinetics400.md; kinetics400.safetensors holds it.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
CARD = Path(__file__).parent / f"{NAME}.md"

# Where "nothing" stands among the logits. On the corpus (benchmarks/named_clips.py) the largest of the 400 logits
# of a snippet is 6.9 in the median on streets (95 %: 10.6, spread over unlikely names), 15 on broadcast hockey,
# 20 to 29 on tennis and baseball. Of 7..10 for the one and 6..9 for the other, these two named the most clips
# right with nothing found on any street.
BACKGROUND = 8.0
EVIDENCE = 6.0
# A^ness = sigmoid(summed evidence - OFFSET): .12 without any, .5 where one class reaches BACKGROUND.
OFFSET = 2.0


@dataclass(frozen=True, eq=False)
class Tuning:
    """What benchmarks/fit_kinetics400.py fits on labels per clip, and of its localisation on a few timed videos.

    Attributes:
        tilt: sport -> (1024,) float32, added to the head's row of every name of that sport.
        temperature: what S is divided by.
        localize: settings of the rule `runs`, the calibration of the confidence among them.
        backbone: identity of the RGB weights whose features it was fitted on.
        assembled: SHA-256 of the whole model, as `fingerprint` gives it; "" while it is being made.
    """

    tilt: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0
    localize: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = ""
    assembled: str = ""

    def save(self, path: Path) -> None:
        """Write as safetensors: the tilts, and the rest as JSON in its header."""
        header = {name: getattr(self, name) for name in ("temperature", "localize", "backbone", "assembled")}
        state = {sport: row.float().contiguous() for sport, row in sorted(self.tilt.items())}
        write_atomically(path, safetensors_torch.save(state, {NAME: json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path = TUNING) -> "Tuning":
        """Read what `save` wrote.

        Raises:
            CheckpointError: it is not there, or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[NAME])
                tilt = {sport: file.get_tensor(sport).clone() for sport in list(file.keys())}
            return cls(tilt, **header)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not the tuning of {NAME} ({error}); install jcdnet again.") from error


def sports_groups() -> dict[str, str]:
    """Class name -> its sport, for the sports among the 400 (kinetics_sports.toml)."""
    text = (Path(__file__).parent / "kinetics_sports.toml").read_text(encoding="utf-8")
    return {name: sport for sport, names in tomllib.loads(text)["groups"].items() for name in names}


def build(
    weight: Tensor, bias: Tensor, names: Sequence[str], backbone_weights: str, tuning: Tuning | None = None
) -> Checkpoint:
    """The embedded model from the head of an I3D network.

    Args:
        weight: (C, 1024), bias: (C,): the head's rows.
        names: C class names in the rows' order.
        backbone_weights: identity of the weights that the head came with; features from any other are refused.
        tuning: None: the head as it is. One that was fitted on the features of other weights is left out, too.

    Raises:
        CheckpointError: what was assembled is not what was measured.
    """
    if tuning is None or tuning.backbone != backbone_weights:
        tuning = Tuning()
    config = ModelConfig(classes=len(names), in_dim=WIDTH, dim=WIDTH)
    classes, slope = config.classes, config.slope
    centre = config.kernel // 2

    embed_a = torch.zeros(WIDTH, WIDTH, config.kernel)
    embed_a[:, :, centre] = torch.eye(WIDTH)

    # Units 0..C-1 hold l_c - EVIDENCE, units C..2C-1 its mirror image; the rest stay 0.
    embed_e = torch.zeros(WIDTH, WIDTH, config.kernel)
    embed_e[: 2 * classes, :, centre] = torch.cat([weight, -weight])
    embed_e_bias = torch.zeros(WIDTH)
    embed_e_bias[: 2 * classes] = torch.cat([bias - EVIDENCE, EVIDENCE - bias])

    # The mean over the C classes divides by C: the gain makes up for it.
    gain = classes / (1 - slope**2)
    temp = torch.zeros(classes, WIDTH, 1)
    rows = torch.arange(classes)
    temp[rows, rows, 0] = gain
    temp[rows, rows + classes, 0] = gain * slope

    groups = sports_groups()
    tilted = weight.clone()
    for row, name in enumerate(names):
        if (tilt := tuning.tilt.get(groups.get(name, ""))) is not None:
            tilted[row] += tilt
    background = torch.zeros(1, WIDTH)
    coarse, head = (torch.cat([rows, background]) / tuning.temperature for rows in (weight, tilted))
    head_bias = torch.cat([bias, torch.tensor([BACKGROUND])]) / tuning.temperature
    state = {
        "embed_a.weight": embed_a,
        "embed_a.bias": torch.zeros(WIDTH),
        "embed_e.weight": embed_e,
        "embed_e.bias": embed_e_bias,
        "temp.weight": temp,
        "temp.bias": torch.full((classes,), -OFFSET),
        "coarse.weight": coarse.unsqueeze(-1),
        "coarse.bias": head_bias,
        "classifier.weight": torch.cat([head, torch.zeros(classes + 1, WIDTH)], dim=1).unsqueeze(-1),
        "classifier.bias": head_bias.clone(),
        "alpha": torch.tensor(0.0),
        "beta": torch.tensor(0.0),
    }
    for name in ("query", "key", "value"):  # out of play while beta = 0
        state |= {f"{name}.weight": torch.zeros(WIDTH, WIDTH, 1), f"{name}.bias": torch.zeros(WIDTH)}
    about = "JCDNet built from the Kinetics-400 head of the I3D RGB network"
    model = Checkpoint(
        config=config,
        classes=tuple(names),
        streams=("rgb",),
        features={"rgb": {"backbone": "i3d", "fps": 25.0, "length": 16, "weights": backbone_weights}},
        state=state,
        groups=groups,
        localize=dict(tuning.localize),
        provenance={"about": about, "tuned": sorted(tuning.tilt)},
    )
    if tuning.assembled and (found := fingerprint(model)) != tuning.assembled:
        raise CheckpointError(
            f"{NAME}, assembled from its parts, is {found[:12]}… and not {tuning.assembled[:12]}…, the model that was "
            "measured; install jcdnet and its weights again."
        )
    return model


def matches(embedded: Checkpoint, classes: Sequence[str]) -> dict[str, list[int]]:
    """Class of one's own -> the rows of the embedded model that mean it: the class of that name, or its sport's.

    Case and underscores do not matter. Classes without a match are left out.
    """
    wanted = {_plain(name): name for name in classes}
    found: dict[str, list[int]] = {}
    for row, name in enumerate(embedded.classes):
        for known in {_plain(name), _plain(embedded.groups.get(name, name))}:
            if known in wanted:
                found.setdefault(wanted[known], []).append(row)
    return found


def difference(ours: ModelConfig, theirs: ModelConfig) -> str | None:
    """A sentence where a network cannot start from the embedded one, None where it can."""
    for name in ("in_dim", "dim", "kernel", "coarse_kernel", "slope"):
        if getattr(ours, name) != getattr(theirs, name):
            return f"{NAME} has {name} {getattr(theirs, name)}, so a model that starts from it has it too."
    return None


def adapt(embedded: Checkpoint, start: Checkpoint) -> Checkpoint:
    """Initial weights for classes of one's own from the embedded model: `start`, and what it knows of them.

    X^a and X^e see what the embedded model's see; a class that matches gets the mean of its rows in S and S^coarse
    and their evidence in S^temp. The attention and the classes without a match keep the weights of `start`: zeros
    there would give each other no gradient. The background starts where the embedded model has it.

    Args:
        embedded: what `build` gave.
        start: an untrained network of one's own classes, with in_dim, dim and kernel of the embedded one.

    Raises:
        ValueError: another shape, or no class matches.
    """
    ours, theirs = start.config, embedded.config
    if other := difference(ours, theirs):
        raise ValueError(other)
    rows = matches(embedded, start.classes)
    if not rows:
        raise ValueError(f"{NAME} knows none of the classes {', '.join(start.classes)}; train without it.")
    state = {name: tensor.clone() for name, tensor in start.state.items()}
    held = 2 * theirs.classes  # units of X^e that hold evidence; the others are free to learn
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
        share = ours.classes / theirs.classes  # equation 5 takes the mean over the classes, now fewer
        for c, own in enumerate(start.classes):
            if own in rows:
                state["temp.weight"][c] = share * embedded.state["temp.weight"][rows[own]].sum(dim=0)
            state["temp.bias"][c] = -OFFSET
    about = {"initialised_from": NAME, "matches": {own: [embedded.classes[r] for r in rows[own]] for own in rows}}
    return replace(start, state=state, provenance={**start.provenance, **about})


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())

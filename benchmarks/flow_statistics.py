"""What flow_part.py reads: snippets of the corpus, their flow, and batch-norm statistics re-estimated on flow.

The flow network without published weights is the RGB one (`weights.inflate_flow`), and so are its means and variances,
which do not fit flow: fields are an order of magnitude weaker than pixels. `estimate` measures them again on up to
eight snippets a label; labels serve for nothing else there, and no clip is used that is probed.
"""

import csv
import io
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.backbones import registry, weights
from extractors.backbones.i3d import InceptionI3d
from extractors.config import FeatureConfig
from extractors.decode.grid import Frames
from extractors.inputs.host import flow_input
from extractors.snippets import Snippet
from support.files import write_atomically

CORPUS = Path(os.environ.get("JCDNET_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "corpus"))
WORK = Path(tempfile.gettempdir()) / "jcdnet_flow_part"
CONFIG = FeatureConfig()
FPS, LENGTH = round(CONFIG.fps), CONFIG.length

# Clips and snippets that flow_part.py probes; the clips left over are measured here.
PROBED = {
    "IceHockeyFight": (32, 32),
    "IceHockeyPlay": (32, 32),
    "Kickflip": (32, 32),
    "Ollie": (32, 32),
    "TennisRally": (11, 14),
    "BaseballPitch": (14, 14),
    "Basketball": (8, 14),
    "Weightlifting": (4, 14),
    "Street": (32, 32),
}
PER_LABEL, BATCH = 8, 8


@dataclass(frozen=True)
class Cut:
    """17 frames of a clip, from `first` on: a snippet and the frame behind it."""

    label: str
    clip: str
    first: int

    @property
    def name(self) -> str:
        """A file name."""
        return f"{Path(self.clip).stem}_{self.first:04}"


def spread(label: str, clips: Sequence[tuple[str, float]], wanted: int) -> list[Cut]:
    """About `wanted` cuts, dealt to the clips in turn, evenly spaced within each and never overlapping."""
    rooms = {clip: int(seconds * FPS) // (LENGTH + 1) for clip, seconds in clips}
    share = dict.fromkeys(rooms, 0)
    while sum(share.values()) < min(wanted, sum(rooms.values())):
        for clip, room in rooms.items():
            if share[clip] < room and sum(share.values()) < wanted:
                share[clip] += 1
    cuts = []
    for clip, seconds in clips:
        slot = int(seconds * FPS) / max(share[clip], 1)
        cuts += [Cut(label, clip, int((i + 0.5) * slot - (LENGTH + 1) / 2)) for i in range(share[clip])]
    return cuts


def choose(corpus: Path, seed: int = 5) -> tuple[list[Cut], list[Cut]]:
    """The cuts to probe, and those to measure statistics on: no clip is in both."""
    clips: dict[str, list[tuple[str, float]]] = defaultdict(list)
    with (corpus / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            clips[row["label"]].append((row["path"], float(row["seconds"])))
    rng = np.random.default_rng(seed)
    probed: list[Cut] = []
    left: list[list[Cut]] = []
    for label in sorted(clips):
        shuffled = [clips[label][i] for i in rng.permutation(len(clips[label]))]
        count, wanted = PROBED.get(label, (0, 0))
        probed += spread(label, shuffled[:count], wanted)
        left.append(spread(label, shuffled[count:], PER_LABEL))
    # The first of each label, then the second: so that a batch mixes labels.
    return probed, [cuts[i] for i in range(PER_LABEL) for cuts in left if i < len(cuts)]


def frames_of(cut: Cut, corpus: Path) -> Snippet:
    """The cut's pictures."""
    with Frames(corpus / cut.clip, CONFIG.fps, CONFIG.short_side) as frames:
        pictures = [picture for _, picture in frames.grid(cut.first, cut.first + LENGTH + 1)]
    following = pictures[LENGTH] if len(pictures) > LENGTH else None
    return Snippet(0, tuple(pictures[:LENGTH]), following)


def field(cut: Cut, corpus: Path, work: Path) -> Tensor:
    """The flow network's input (2, L, crop, crop), computed once and kept in `work`."""
    path = work / "fields" / f"{cut.name}.npy"
    if not path.exists():
        buffer = io.BytesIO()
        np.save(buffer, flow_input(frames_of(cut, corpus), CONFIG, "numba", workers=1).numpy(), allow_pickle=False)
        write_atomically(path, buffer.getvalue())
    return torch.from_numpy(np.load(path, allow_pickle=False))


def inflated() -> InceptionI3d:
    """The flow network with RGB's statistics, its batch norms not yet folded."""
    path = weights.find("i3d-rgb")
    if path is None:
        raise SystemExit("the I3D weights are not on this machine; run `python cli.py models fetch i3d-rgb`.")
    net = InceptionI3d(channels=2)
    net.load_state_dict(weights.inflate_flow(registry.i3d_state(path)), strict=False)
    return net.eval()


def estimate(net: nn.Module, batches: Iterable[Sequence[Tensor]], passes: int = 2) -> dict[str, Tensor]:
    """Mean and variance of every batch norm's input over all batches, written into `net` and returned by name.

    The first pass normalises by the batch: what a layer gets depends on the statistics before it, which are still to
    be found. A further pass normalises by what the last one found, as inference will. Moments are pooled over
    snippets and places in float64, so that differences between batches count.
    """
    norms = {name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm3d)}
    for number in range(passes):
        sums = {name: torch.zeros(3, norm.num_features, dtype=torch.float64) for name, norm in norms.items()}

        def add(name: str, x: Tensor, sums: dict[str, Tensor] = sums) -> None:
            flat = x.double().transpose(0, 1).flatten(1)
            sums[name] += torch.stack([torch.full((len(flat),), flat.shape[1]), flat.sum(1), (flat * flat).sum(1)])

        hooks = [
            norm.register_forward_pre_hook(lambda _, inputs, name=name, add=add: add(name, inputs[0]))
            for name, norm in norms.items()
        ]
        for norm in norms.values():
            norm.train(number == 0)
            norm.momentum = 0.0  # in training mode too the statistics stay as they are until the pass is over
        for batch in batches:
            with torch.inference_mode():
                net(torch.stack(list(batch)))
        for hook in hooks:
            hook.remove()
        for name, norm in norms.items():
            count, total, squares = sums[name]
            norm.running_mean = (total / count).float()
            norm.running_var = (squares / count - (total / count) ** 2).clamp(min=0).float()
    net.eval()
    state = net.state_dict()
    return {f"{name}.{key}": state[f"{name}.{key}"] for name in norms for key in ("running_mean", "running_var")}


def batches(cuts: Sequence[Cut], corpus: Path, work: Path) -> list[list[Tensor]]:
    """Inputs of the flow network, batch by batch."""
    fields = [field(cut, corpus, work) for cut in cuts]
    return [fields[i : i + BATCH] for i in range(0, len(fields), BATCH)]

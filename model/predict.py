"""Prediction: the scores of one video from its snippet features, section 3.6 up to the thresholds.

`named` says how they are read if the user names what was filmed. S and A^ness of the embedded model are made to keep
still in footage of anything else. Somebody who knows what was filmed does not need that. For a named sport the
published head alone is read: with h (T, C) its logits,

    P(sport) = sum over the names of the sport of softmax(h)_c, without background, without A^ness.

Each sport has a threshold of its own, since any footage looks a little like some of them. To the log-odds of P is added
what was measured for the sport, so that the one threshold of the rule `runs` becomes the sport's own:
logit(P) + added > logit(threshold). Adding to the logits of its names does exactly that. If several sports are named,
this is what a prior does: one can only take from another where it is likely itself.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import CLOSED, Checkpoint, added_logits, localize_settings_for
from model.jcdnet import JCDNet, top_k_mean

FloatArray = NDArray[np.float32]
NEVER = -1e4  # the logit of a background that takes no part: its exponential is 0


class PredictError(ValueError):
    """The model cannot use these features."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of JCDNet for one video, float32. The background is the last column, index C.

    Attributes:
        cas: (T, C+1) logits S.
        coarse_cas: (T, C+1) logits S^coarse.
        actionness: (T,) A^ness in [0, 1].
        video: (C,) probabilities of the classes in the whole video. With that of the background, which is left out,
            they sum to 1.
    """

    cas: FloatArray
    coarse_cas: FloatArray
    actionness: FloatArray
    video: FloatArray

    @property
    def suppressed(self) -> FloatArray:
        """(T, C) suppressed T-CAS A * S without the background, equation 6."""
        return self.actionness[:, None] * self.cas[:, :-1]


def predict(
    net: JCDNet,
    features: NDArray[np.floating],
    *,
    device: str | torch.device = "cpu",
    topk_divisor: int = 10,
) -> Scores:
    """Run `net` over a whole video of any length.

    The probabilities of the video are equations 7 and 8 on the suppressed T-CAS, with k = max(1, T // topk_divisor).
    The background takes part in the softmax and is then dropped, so a video without any action has low probabilities.

    Args:
        net: is moved to `device`. It runs in evaluation mode and then returns to its previous mode.
        features: (T, in_dim), one row for each snippet. They are not changed.
        device: where to compute.
        topk_divisor: r; the networks that JCDNet is based on use 10 at inference.

    Raises:
        PredictError: the shape is wrong, there are no snippets, a number is not finite, or r is below 1.
    """
    rows = _checked(features, net.config.in_dim)
    if topk_divisor < 1:
        raise PredictError(f"The top-k divisor must be at least 1, not {topk_divisor}.")
    was_training = net.training
    net.to(device).eval()
    try:
        with torch.inference_mode():
            output = net(torch.from_numpy(rows).unsqueeze(0).to(device))
            video = top_k_mean(output.suppressed_cas, None, topk_divisor)[0].softmax(dim=0)[:-1]
            cas, coarse_cas, actionness = output.cas[0], output.coarse_cas[0], output.actionness[0]
            return Scores(*(array.cpu().numpy() for array in (cas, coarse_cas, actionness, video)))
    finally:
        net.train(was_training)


def _checked(features: NDArray[np.floating], width: int) -> FloatArray:
    """Features as (T, width) float32, contiguous and writable, since torch shares the memory; or a PredictError."""
    if features.ndim != 2:
        raise PredictError(f"Features must be (T, {width}), not {features.shape}.")
    if len(features) == 0:
        raise PredictError("The features hold no snippet; extract them again from a video with frames.")
    if features.shape[1] != width:
        raise PredictError(
            f"The features are {features.shape[1]} wide and the model takes {width}; "
            "extract them with the streams and the backbone that the model declares."
        )
    rows = np.require(features, np.float32, ["C", "W"])
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise PredictError(
            f"Snippet {int(np.argmin(finite))} of the features holds a number that is not finite "
            f"({int((~finite).sum())} of {len(rows)} snippets do); extract them again."
        )
    return rows


@dataclass(frozen=True, eq=False)
class Named:
    """What it changes that the user named some classes.

    Attributes:
        columns: (C+1,) float32, what is added to the logits.
        localize: settings of the rule `runs`.
        added: sport -> what is added, if the head alone is read; else empty.
        scale: S^coarse times this is the head's logits at the temperature that was measured.
    """

    columns: np.ndarray
    localize: dict[str, Any]
    added: dict[str, float]
    scale: float = 1.0

    def read(self, scores: Scores) -> Scores:
        """Scores whose A * softmax(S) is the probability of each class, given that the user named some."""
        if not self.added:
            return replace(scores, cas=scores.cas + self.columns)
        cas = np.float32(self.scale) * scores.coarse_cas + self.columns
        cas[:, -1] = NEVER
        return replace(scores, cas=cas, actionness=np.ones_like(scores.actionness))


def read(given: Named | None, scores: Scores) -> Scores:
    """The scores that segments are drawn from. given: what `named` said."""
    return scores if given is None else given.read(scores)


def named(model: Checkpoint, classes: frozenset[str], rule: str = "runs") -> Named | None:
    """How the scores are read if the user named these classes; None: as without names.

    The head alone is read if all classes are of sports that it was measured for, at most CLOSED, and for the rule
    `runs`: the rule `paper` needs A^ness, and the probabilities of other classes are not comparable. Otherwise S is
    raised (`added_logits`).
    """
    sports = {model.groups.get(name, "") for name in classes}
    measured: dict[str, float] = model.named.get("added", {})
    if rule == "runs" and 0 < len(sports) <= CLOSED and sports <= measured.keys():
        added = {sport: measured[sport] for sport in sorted(sports)}
        columns = [added[model.groups[c]] if c in classes else 0.0 for c in model.classes]
        localize = model.localize | model.named["localize"]
        return Named(np.array([*columns, 0.0], np.float32), localize, added, model.named["scale"])
    raised = added_logits(model, classes)
    return None if raised is None else Named(raised, localize_settings_for(model, classes), {})

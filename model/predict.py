"""Prediction: the scores of one video from its snippet features, section 3.6 up to the thresholds."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.jcdnet import JCDNet, top_k_mean

FloatArray = NDArray[np.float32]


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

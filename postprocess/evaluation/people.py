"""An evaluation in the words of a person: found 8 of 10, 2 false, 1 wrong name, starts off by 0.4 s."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from postprocess.evaluation.diagnose import KINDS, false_positive_kinds
from postprocess.evaluation.metrics import Instances, Predictions, detect

TIOU = 0.5
"""A segment that covers at least half of what it and the action cover together has found the action."""


@dataclass(frozen=True)
class Drawn:
    """What became of the segments that were drawn, and of the actions that they should have found."""

    actions: int
    """annotated actions"""
    found: int
    """of these, the ones that a segment of their name has found"""
    misplaced: int
    """segments that touch an action but fit it too little"""
    wrong_name: int
    """segments that fit an action of another name"""
    false: int
    """segments where there is nothing, or where another segment has found the action already"""
    starts_off: float | None
    """seconds, the median over what was found; None if nothing was"""
    ends_off: float | None
    """seconds, the same of the ends"""

    def sentence(self) -> str:
        """The figures in one line."""
        parts = [f"found {self.found} of {self.actions}", f"{self.false} false", f"{self.wrong_name} wrong name"]
        if self.misplaced:
            parts.append(f"{self.misplaced} in the wrong place")
        if self.starts_off is not None and self.ends_off is not None:
            parts.append(f"starts off by {self.starts_off:.1f} s, ends by {self.ends_off:.1f} s")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON, with seconds to the millisecond."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}


def drawn(truth: Instances, found: Predictions) -> Drawn | None:
    """Compare segments as a person draws them with the truth, at tIoU .5, all in seconds.

    Returns:
        None if the predictions are candidates for mAP: those of one class overlap, which drawn segments never do.
    """
    if _overlap(found):
        return None
    match = detect(truth, found, np.array([TIOU])).match[0] if len(found) else np.zeros(0, np.int64)
    kinds = false_positive_kinds(truth, found, match, TIOU) if len(found) else np.zeros(0, np.int64)
    count = dict(zip(KINDS, np.bincount(kinds, minlength=len(KINDS)).tolist(), strict=True))
    hits = np.flatnonzero(match >= 0)
    off = np.abs(found.span[hits] - truth.span[match[hits]])
    return Drawn(
        actions=len(truth),
        found=count["true positive"],
        misplaced=count["localisation"] + count["confusion"],
        wrong_name=count["class"],
        false=count["background"] + count["duplicate"],
        starts_off=float(np.median(off[:, 0])) if len(hits) else None,
        ends_off=float(np.median(off[:, 1])) if len(hits) else None,
    )


def _overlap(found: Predictions) -> bool:
    """Whether two predictions of one class in one video share time."""
    order = np.lexsort((found.span[:, 0], found.label, found.video))
    same = (np.diff(found.video[order]) == 0) & (np.diff(found.label[order]) == 0)
    return bool((same & (found.span[order][1:, 0] < found.span[order][:-1, 1] - 1e-3)).any())

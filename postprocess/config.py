"""The settings of localisation. This module imports nothing heavy: the command line reads its defaults from it."""

import math
from dataclasses import dataclass

RULES = ("runs", "paper")
NMS_KINDS = ("soft", "hard")


@dataclass(frozen=True)
class LocalizeConfig:
    """How scores become segments. All defaults of postprocess/ are here.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    rule: str = "runs"
    """`runs` draws what a person would draw, one label at a time. `paper` is JCDNet §3.6: overlapping proposals with
    scores, for evaluation."""
    min_confidence: float = 0.0
    """Segments below this confidence are left out (both rules). `runs` never joins a segment that reaches it into a
    longer one that does not."""
    top: int = 0
    """Keep only this many segments of a video, those of the highest confidence (`paper`: of the highest ψ). 0 keeps
    all (both rules)."""
    confidence_slope: float = 1.0
    """runs: confidence = sigmoid(slope · logit(p) + shift), p being the mean probability; 1 and 0 leave p as it is."""
    confidence_shift: float = 0.0
    """runs: see confidence_slope. Both are fitted so that four in five segments of confidence .8 are right."""
    inflation: float = 0.25
    """λ of ψ: how far the outer area reaches on each side, relative to the length of the segment (both rules)."""
    video_weight: float = 0.2
    """γ of ψ: the weight of the video-level class score (both rules)."""

    threshold: float = 0.3
    """runs: θ; a snippet counts if its probability is above this."""
    edge: float = 0.0
    """runs: a snippet counts only if its probability is also above this share of the highest one of its run. Smoothing
    over three snippets leaves a third of a sure snippet on the one beside it, so a threshold that is low enough for
    unsure actions would draw every sure one too long; .36 and more keeps these neighbours out."""
    merge_gap: int = 1
    """runs: two runs of one group with at most this many snippets between them are joined, unless that would take a
    sure one below min_confidence. This setting, min_snippets and smooth count snippets that lie side by side, for
    instance .16 s each at stride 4. If the times of snippets overlap, as many are used as cover the same time."""
    min_snippets: int = 2
    """runs: shorter runs are dropped. In a video with fewer snippets than this, a run must cover all of them."""
    min_seconds: float = 0.0
    """runs: shorter runs are dropped, even one that is the whole video; in seconds. 0: as min_snippets says."""
    merge_seconds: float = -1.0
    """runs: the same as merge_gap, in seconds, in whole snippets. Negative: as merge_gap says."""
    smooth: int = 3
    """runs: window of the moving average over the probabilities, an odd number of snippets; 1 turns it off. On our
    clips, 3 names 85 of 92 right and 1 names 81, and neither finds anything in street scenes
    (benchmarks/named_clips.py)."""

    class_threshold: float = 0.2
    """paper: classes with a lower video-level score are discarded, unless that would discard all."""
    actionness_start: float = 0.05
    """paper: the first threshold on actionness."""
    actionness_stop: float = 0.95
    """paper: the last threshold on actionness, which is used, too."""
    actionness_count: int = 16
    """paper: number of thresholds; .05 to .95 in steps of .06 are 16 (§4.1)."""
    nms: str = "soft"
    """paper: `soft` lowers the scores of overlapping proposals (Gaussian), `hard` drops these proposals."""
    sigma: float = 0.3
    """paper: σ of soft-NMS."""
    nms_tiou: float = 0.7
    """paper: hard NMS drops a proposal if its tIoU with a better one is above this."""
    max_segments: int = 200
    """paper: keep at most this many segments of a video, those of the highest ψ."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        if self.nms not in NMS_KINDS:
            raise ValueError(f"nms must be one of {', '.join(NMS_KINDS)}, not {self.nms!r}")
        unit = (
            "min_confidence",
            "threshold",
            "edge",
            "class_threshold",
            "actionness_start",
            "actionness_stop",
            "nms_tiou",
        )
        for name in unit:
            if not 0 <= self._number(name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("inflation", "video_weight", "min_seconds"):
            if self._number(name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("sigma", "confidence_slope"):
            if self._number(name) <= 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
        self._number("confidence_shift")
        self._number("merge_seconds")
        for name, least in (("top", 0), ("merge_gap", 0), ("min_snippets", 1), ("smooth", 1), ("max_segments", 1)):
            self._integer(name, least)
        self._integer("actionness_count", 1)
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth must be odd, so that its window has a middle, not {self.smooth}")
        if self.actionness_stop < self.actionness_start:
            raise ValueError(
                f"actionness_stop must not be below actionness_start, "
                f"not {self.actionness_stop} after {self.actionness_start}"
            )

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value!r}")
        return value

    def _integer(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")

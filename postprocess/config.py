"""The numbers of localisation, and nothing heavy: the command line reads its defaults from here."""

import math
from dataclasses import dataclass

RULES = ("runs", "paper")
NMS_KINDS = ("soft", "hard")


@dataclass(frozen=True)
class LocalizeConfig:
    """How scores become segments; every default of postprocess/ lives here.

    Raises:
        ValueError: a value outside its range, named in one sentence.
    """

    rule: str = "runs"
    """`runs`: what a person would draw, one label at a time. `paper`: JCDNet §3.6, nested, for evaluation."""
    min_confidence: float = 0.0
    """Segments below this confidence are left out (both rules); `runs` joins no piece that is as sure into a segment
    that is not."""
    top: int = 0
    """Of a video, only so many segments, the surest (`paper`: of the highest ψ); 0 is all (both rules)."""
    confidence_slope: float = 1.0
    """runs: confidence = sigmoid(slope · logit(p) + shift), p the mean probability; 1 and 0 leave p as it is."""
    confidence_shift: float = 0.0
    """runs: see confidence_slope; both are fitted, so that of segments of confidence .8 four in five are right."""
    inflation: float = 0.25
    """λ of ψ: how far the outer area reaches on each side, as a share of the length (both rules)."""
    video_weight: float = 0.2
    """γ of ψ: the weight of the video-level class score (both rules)."""

    threshold: float = 0.3
    """runs: θ, the probability that a snippet must exceed."""
    merge_gap: int = 1
    """runs: runs of one group with at most this many snippets between them become one, unless a sure one would fall
    below min_confidence by it. This and the next two count snippets side by side; of overlapping ones as many as cover
    the same time."""
    min_snippets: int = 2
    """runs: shorter ones are dropped; a video with fewer snippets than this needs all of them."""
    smooth: int = 3
    """runs: odd window, in snippets, of a moving average over the probabilities; 1 is off. On the corpus 3 names
    85 of 92 clips where 1 names 81, with nothing on the streets either way (benchmarks/named_clips.py)."""

    class_threshold: float = 0.2
    """paper: classes whose video-level score is lower are discarded, unless that would leave none."""
    actionness_start: float = 0.05
    """paper: the first threshold on actionness."""
    actionness_stop: float = 0.95
    """paper: the last threshold on actionness, itself included."""
    actionness_count: int = 16
    """paper: how many thresholds; .05 to .95 in steps of .06 are 16 (§4.1)."""
    nms: str = "soft"
    """paper: `soft` is Gaussian and drops nothing, `hard` drops what overlaps too much."""
    sigma: float = 0.3
    """paper: σ of soft-NMS."""
    nms_tiou: float = 0.7
    """paper: hard NMS drops a proposal whose tIoU with a better one is above this."""
    max_segments: int = 200
    """paper: at most so many segments a video, the best by ψ."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        if self.nms not in NMS_KINDS:
            raise ValueError(f"nms must be one of {', '.join(NMS_KINDS)}, not {self.nms!r}")
        unit = (
            "min_confidence",
            "threshold",
            "class_threshold",
            "actionness_start",
            "actionness_stop",
            "nms_tiou",
        )
        for name in unit:
            if not 0 <= self._number(name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("inflation", "video_weight"):
            if self._number(name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("sigma", "confidence_slope"):
            if self._number(name) <= 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
        self._number("confidence_shift")
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

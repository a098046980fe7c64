"""From scores to segments, by one of two rules.

- `paper` is §3.6 of the paper with WTAL §3: many thresholds on actionness give proposals without a class, then each
  class ranks them by ψ and removes overlaps by NMS.
- `runs` draws what a person would draw: one label at a time, and nothing where nothing happens. The classes of one
  group (a sport, for example) are added up.

This module turns snippet indexes into seconds, and always does so through `times`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from postprocess.config import LocalizeConfig
from postprocess.proposals import (
    blocks,
    cells,
    counted,
    density,
    merge,
    moving_average,
    outer_inner_score,
    owners,
    runs,
)
from postprocess.segment import Segment

NO_GROUPS: Mapping[str, str] = {}
ROUNDING = 1e-6  # of a snippet: 1.28 s are two of .64 s


@dataclass(frozen=True, eq=False)
class Activations:
    """What the network gave for one video, which has T snippets and C classes."""

    cas: np.ndarray
    """(T, C+1) logits S, not yet suppressed; the background is the last column"""
    actionness: np.ndarray
    """(T,) in [0, 1]"""
    video: np.ndarray
    """(C,) class scores of the whole video, after the softmax, without the background"""
    times: np.ndarray
    """(T, 2) start and end of each snippet in seconds; gaps are allowed, but times never go back"""
    classes: Sequence[str]
    """C names"""
    duration: float
    """length of the video in seconds"""


@dataclass(frozen=True, eq=False)
class _Scene:
    """The input for one video after checking, with sums that both rules use."""

    logits: np.ndarray  # (C+1, T); classes come first because both rules work class by class
    actionness: np.ndarray  # (T,)
    video: np.ndarray  # (C,)
    snippets: np.ndarray  # (T, 2) start and end of each snippet in seconds
    times: np.ndarray  # (T, 2) the time that each snippet stands for, see `cells`
    block: np.ndarray  # (T,) number of the uninterrupted stretch that the snippet belongs to
    chosen: list[int]  # the classes that may be found
    peak: np.ndarray  # (T,) largest logit
    total: np.ndarray  # (T,) Σ exp(logit − peak)
    duration: float

    def probability(self, c: int, at: slice = slice(None)) -> np.ndarray:
        """(n,) probability A_t · softmax(S_t)_c of class c; the softmax runs over all C+1 columns."""
        shifted = np.subtract(self.logits[c, at], self.peak[at], dtype=np.float64)
        return self.actionness[at] * np.exp(shifted) / self.total[at]

    def psi(self, c: int, spans: np.ndarray, config: LocalizeConfig) -> np.ndarray:
        """(N,) ψ of class c: the contrast of the suppressed T-CAS S̄ = A ⊙ S (equation 6 as written), plus γ p_c."""
        suppressed = self.actionness * self.logits[c]
        return outer_inner_score(suppressed, spans, config.inflation) + config.video_weight * self.video[c]

    def seconds(self, spans: np.ndarray) -> np.ndarray:
        """(N, 2) start of the first and end of the last snippet in seconds, clamped to the video."""
        bounds = np.stack((self.times[spans[:, 0], 0], self.times[spans[:, 1], 1]), axis=1)
        return np.clip(bounds, 0.0, self.duration)


def localize(
    given: Activations,
    config: LocalizeConfig,
    *,
    groups: Mapping[str, str] = NO_GROUPS,
    keep: Collection[str] | None = None,
    bars: Collection[float] = (),
) -> list[Segment]:
    """Find the segments of one video.

    Args:
        given: what the network gave for the video.
        config: the rule and its settings.
        groups: class → group. A class without a group is a group of its own. Only for the rule `runs`.
        keep: the classes that may be found; None means all. The other classes still take part in the softmax.
        bars: more confidences that joining respects, as it respects `config.min_confidence`. The segments that the
            highest bar would find as `min_confidence` are then all found, together with less sure ones. Only for the
            rule `runs`.

    Returns:
        Segments within [0, duration]; none of them is empty. `runs` orders them by start, and they never overlap.
        `paper` orders them by ψ, best first, and they often overlap; with soft-NMS `score` is ψ after its decay.

    Raises:
        ValueError: shapes do not agree, a value is out of range, or `keep` names an unknown class.
    """
    scene = _checked(given, keep)
    classes = given.classes
    if not len(scene.block) or not scene.chosen:
        return []
    if config.rule == "paper":
        found = _paper(scene, classes, config)
        return found[: config.top or None]
    found = _runs(scene, classes, groups, config, bars)
    if config.top:
        surest = sorted(found, key=lambda s: -s.confidence)[: config.top]
        found = sorted(surest, key=lambda s: s.start)
    return found


def _paper(scene: _Scene, classes: Sequence[str], config: LocalizeConfig) -> list[Segment]:
    from postprocess.nms import hard_nms, soft_nms  # only here: the rule `runs` needs none of it

    chosen = [c for c in scene.chosen if scene.video[c] >= config.class_threshold]
    chosen = chosen or [max(scene.chosen, key=lambda c: scene.video[c])]
    thresholds = np.linspace(config.actionness_start, config.actionness_stop, config.actionness_count)
    spans = np.concatenate([runs(scene.actionness, t, scene.block) for t in thresholds])
    # A run that is found at many thresholds is one proposal: copies would only suppress each other.
    spans = np.unique(spans, axis=0)
    bounds = scene.seconds(spans)
    spans, bounds = spans[bounds[:, 1] > bounds[:, 0]], bounds[bounds[:, 1] > bounds[:, 0]]
    found: list[tuple[Segment, int]] = []
    for c in chosen:
        confidence = _means(scene.probability(c), spans)
        # This comes before NMS: a proposal that may not be shown must not suppress others.
        candidates = np.flatnonzero(confidence >= config.min_confidence)
        psi = scene.psi(c, spans[candidates], config)
        if config.nms == "soft":
            order, scores = soft_nms(bounds[candidates], psi, config.sigma, config.max_segments)
        else:
            order = hard_nms(bounds[candidates], psi, config.nms_tiou, config.max_segments)
            scores = psi[order]
        for i, score in zip(candidates[order], scores, strict=True):
            start, end = map(float, bounds[i])
            found.append((Segment(start, end, float(score), float(confidence[i]), classes[c]), c))
    found.sort(key=lambda item: (-item[0].score, item[0].start, item[0].end, item[1]))
    return [segment for segment, _ in found[: config.max_segments]]


def _runs(
    scene: _Scene,
    classes: Sequence[str],
    groups: Mapping[str, str],
    config: LocalizeConfig,
    bars: Collection[float],
) -> list[Segment]:
    # The settings count snippets that lie side by side. If snippets overlap, n times as many cover the same time.
    n = density(scene.snippets)
    shortest, gap = _counts(scene.snippets, n, config)
    window = (config.smooth - 1) * n + 1
    least = [least_mean(bar, config) for bar in sorted({config.min_confidence, *bars}, reverse=True) if bar > 0]
    # The flag separates a class without a group from a group that has the same name.
    members: dict[tuple[bool, str], list[int]] = {}
    for c in scene.chosen:
        name = classes[c]
        members.setdefault((name in groups, groups.get(name, name)), []).append(c)
    sports, curves, masks, candidates = [], [], [], []
    for sport in members.values():
        together = np.sum([scene.probability(c) for c in sport], axis=0)
        # No mean is higher than the highest snippet. Most sports end here, and a short video costs half as much.
        if together.max() < config.threshold - ROUNDING:
            continue
        curve = moving_average(together, window, scene.block)
        mask = counted(curve, config.threshold, config.edge, scene.block)
        spans = merge(runs(mask, 0, scene.block), gap, scene.block, curve, least, shortest)
        spans = spans[spans[:, 1] - spans[:, 0] + 1 >= shortest]
        if len(spans):
            sports.append(sport)
            curves.append(curve)
            masks.append(mask)
            candidates.append(spans)
    pieces = []
    for first, last, g in _one_at_a_time(curves, masks, candidates, shortest, config.threshold):
        # A rival may have taken the snippets that carried a weak join above the bar, so join again.
        within = first + runs(masks[g][first : last + 1], 0)
        again = merge(within, gap, scene.block, curves[g], least, shortest)
        pieces += [(int(s), int(e), g) for s, e in again if e - s + 1 >= shortest]
    if not pieces:
        return []
    spans = np.array([(first, last) for first, last, _ in pieces])
    bounds = scene.seconds(spans)
    named = np.array([_best_member(scene, sports[g], slice(first, last + 1)) for first, last, g in pieces])
    score = np.zeros(len(pieces))
    for c in np.unique(named):
        score[named == c] = scene.psi(c, spans[named == c], config)
    found = []
    for i, (first, last, g) in enumerate(pieces):
        confidence = calibrated(float(curves[g][first : last + 1].mean()), config)
        start, end = map(float, bounds[i])
        if end > start and confidence >= config.min_confidence:
            found.append(Segment(start, end, float(score[i]), confidence, classes[named[i]]))
    return found


def _counts(snippets: np.ndarray, n: int, config: LocalizeConfig) -> tuple[int, int]:
    """(the fewest snippets of a run, the most between two that are joined), from counts or from seconds."""
    starts = snippets[:, 0]
    step = float(np.median(np.diff(starts))) if len(starts) > 1 else float(snippets[0, 1] - snippets[0, 0])
    shortest, gap = min((config.min_snippets - 1) * n + 1, len(starts)), config.merge_gap * n
    if step > 0 and config.min_seconds > 0:  # of a shorter video nothing is left
        shortest = max(1, math.ceil(min(config.min_seconds / step, len(starts) + 1) - ROUNDING))
    if step > 0 and config.merge_seconds >= 0:
        gap = math.floor(min(config.merge_seconds / step, len(starts)) + ROUNDING)
    return shortest, gap


def calibrated(p: float, config: LocalizeConfig) -> float:
    """Confidence in [0, 1] of a segment with mean probability p: Platt's map on the log-odds of p."""
    p = min(max(p, 0.0), 1.0)
    if (config.confidence_slope, config.confidence_shift) == (1.0, 0.0) or p in (0.0, 1.0):
        return p
    odds = config.confidence_slope * math.log(p / (1 - p)) + config.confidence_shift
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0  # exp overflows at 710


def least_mean(bar: float, config: LocalizeConfig) -> float:
    """The smallest mean probability whose confidence is at least `bar`, which lies in (0, 1]."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if calibrated(middle, config) >= bar else (middle, high)
    return high


def _best_member(scene: _Scene, sport: list[int], at: slice) -> int:
    return max(sport, key=lambda c: scene.probability(c, at).mean())


def _one_at_a_time(
    curves: list[np.ndarray],
    masks: list[np.ndarray],
    candidates: list[np.ndarray],
    shortest: int,
    threshold: float,
) -> list[tuple[int, int, int]]:
    """Decide between candidates of different groups that overlap.

    A person changes the label where one curve crosses the other, draws a second sport inside the first one if its curve
    is clearly higher, and does not follow the flicker between two names with nearly equal curves. Taking the strongest
    whole segment would get the first two wrong; taking the strongest group of each snippet would get the last one
    wrong. So we take, of all ways to draw one label at a time, the one that covers the most probability. No piece may
    be shorter than `shortest`, and each piece costs a toll of θ · shortest, which is the least probability that a run
    of this length above θ holds. A candidate that shares no snippet with another one stays as it is.

    Returns:
        (first, last, group) of each piece, in order and never overlapping.
    """
    cover = [(int(s), int(e), g) for g, spans in enumerate(candidates) for s, e in spans]
    cover.sort()
    pieces: list[tuple[int, int, int]] = []
    for cluster in _clusters(cover):
        if len(cluster) == 1:
            pieces += cluster
            continue
        low, high = cluster[0][0], max(e for _, e, _ in cluster)
        rivals = sorted({g for _, _, g in cluster})
        may = np.zeros((len(rivals), high - low + 1), dtype=bool)
        for s, e, g in cluster:
            may[rivals.index(g), s - low : e - low + 1] = True
        mass = np.stack([curves[g][low : high + 1] for g in rivals])
        owner = owners(mass, may, shortest, threshold * shortest)
        for row, g in enumerate(rivals):
            for s, e in runs(owner == row, 0):
                # A piece that was cut at the edge of a rival may end in a bridged gap: shrink it to what counts.
                above = np.flatnonzero(masks[g][low + s : low + e + 1])
                if len(above) and above[-1] - above[0] + 1 >= shortest:
                    pieces.append((int(low + s + above[0]), int(low + s + above[-1]), g))
    return sorted(pieces)


def _clusters(cover: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Groups of candidates that overlap, given candidates sorted by start."""
    clusters: list[list[tuple[int, int, int]]] = []
    reach = -1
    for candidate in cover:
        if candidate[0] > reach:
            clusters.append([])
        clusters[-1].append(candidate)
        reach = max(reach, candidate[1])
    return clusters


def _means(curve: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """(N,) mean of a probability curve over each span, clipped because rounding errors could leave [0, 1]."""
    total = np.concatenate(([0.0], np.cumsum(curve)))
    return np.clip((total[spans[:, 1] + 1] - total[spans[:, 0]]) / (spans[:, 1] - spans[:, 0] + 1), 0.0, 1.0)


def _checked(given: Activations, keep: Collection[str] | None) -> _Scene:
    classes = given.classes
    steps, count = len(given.actionness), len(classes)
    wanted = {"cas": (steps, count + 1), "actionness": (steps,), "video": (count,), "times": (steps, 2)}
    for name, shape in wanted.items():
        array = getattr(given, name)
        if np.shape(array) != shape:
            raise ValueError(
                f"{name} must have the shape {shape} for {steps} snippets and {count} classes, not {np.shape(array)}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite")
    if not np.isfinite(given.duration) or given.duration < 0:
        raise ValueError(f"duration must be seconds, 0 or more, not {given.duration}")
    if steps and not (np.min(given.actionness) >= 0 and np.max(given.actionness) <= 1):
        raise ValueError("actionness must lie in [0, 1]")
    times = np.asarray(given.times, dtype=np.float64)
    if (times[:, 1] < times[:, 0]).any() or (np.diff(times, axis=0) < 0).any():
        raise ValueError("times must be (start, end) in seconds that never go back")
    if len(set(classes)) != count:
        raise ValueError("classes holds one name twice")
    if unknown := sorted(set(keep or ()) - set(classes)):
        raise ValueError(f"keep names classes that the model does not have: {', '.join(unknown)}")
    block = blocks(times)
    logits = np.ascontiguousarray(np.asarray(given.cas).T)
    peak = logits.max(axis=0)
    total = np.zeros(steps)
    for row in logits:
        total += np.exp(np.subtract(row, peak, dtype=np.float64))
    return _Scene(
        logits=logits,
        actionness=np.asarray(given.actionness, dtype=np.float64),
        video=np.asarray(given.video, dtype=np.float64),
        snippets=times,
        times=cells(times, block),
        block=block,
        chosen=[c for c, name in enumerate(classes) if keep is None or name in keep],
        peak=peak,
        total=total,
        duration=float(given.duration),
    )

"""Scores to segments, by one of two rules.

`paper` is §3.6 with WTAL §3: class-agnostic proposals from many thresholds on actionness, then ψ and NMS per
class. `runs` draws what a person would draw: the names of one sport act together, one label at a time,
nothing where nothing is. Snippet indexes become seconds here, through `times` and in no other way.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from postprocess.config import LocalizeConfig
from postprocess.nms import hard_nms, soft_nms
from postprocess.proposals import (
    blocks,
    cells,
    density,
    merge,
    moving_average,
    outer_inner_score,
    owners,
    runs,
)
from postprocess.segment import Segment

NO_GROUPS: Mapping[str, str] = {}


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
    """The checked input of one video, and the three curves that both rules read from it."""

    logits: np.ndarray  # (C+1, T): classes first, because both rules work class by class
    actionness: np.ndarray  # (T,)
    video: np.ndarray  # (C,)
    snippets: np.ndarray  # (T, 2) seconds of each snippet
    times: np.ndarray  # (T, 2) seconds that each snippet speaks for
    block: np.ndarray  # (T,)
    chosen: list[int]  # the classes that may be found
    peak: np.ndarray  # (T,) largest logit
    total: np.ndarray  # (T,) Σ exp(logit − peak)
    duration: float

    def probability(self, c: int, at: slice = slice(None)) -> np.ndarray:
        """(n,) A_t · softmax(S_t)_c, the softmax over all C+1."""
        shifted = np.subtract(self.logits[c, at], self.peak[at], dtype=np.float64)
        return self.actionness[at] * np.exp(shifted) / self.total[at]

    def psi(self, c: int, spans: np.ndarray, config: LocalizeConfig) -> np.ndarray:
        """(N,) ψ of class c: contrast of the suppressed T-CAS S̄ = A ⊙ S (eq 6, literal), plus γ p_c."""
        suppressed = self.actionness * self.logits[c]
        return outer_inner_score(suppressed, spans, config.inflation) + config.video_weight * self.video[c]

    def seconds(self, spans: np.ndarray) -> np.ndarray:
        """(N, 2) start of the first and end of the last snippet, clamped to the video."""
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
        config: the rule and its numbers.
        groups: class → group; a class that is not in it is a group of its own. Rule `runs` only.
        keep: the classes that may be found; None: all. The others still take part in the softmax.
        bars: confidences beside `config.min_confidence` that joining respects, too. What is found with the highest
            of them as `min_confidence` is then found here, and less sure segments beside it. Rule `runs` only.

    Returns:
        Segments within [0, duration], never empty ones. `runs`: by start, never overlapping. `paper`: by ψ,
        best first, often overlapping; with soft-NMS `score` is the decayed ψ.

    Raises:
        ValueError: shapes that do not agree, values out of range, an unknown name in `keep`.
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
    chosen = [c for c in scene.chosen if scene.video[c] >= config.class_threshold]
    chosen = chosen or [max(scene.chosen, key=lambda c: scene.video[c])]
    thresholds = np.linspace(config.actionness_start, config.actionness_stop, config.actionness_count)
    spans = np.concatenate([runs(scene.actionness, t, scene.block) for t in thresholds])
    # One run found at many thresholds is one proposal: its copies would only suppress each other.
    spans = np.unique(spans, axis=0)
    bounds = scene.seconds(spans)
    spans, bounds = spans[bounds[:, 1] > bounds[:, 0]], bounds[bounds[:, 1] > bounds[:, 0]]
    found: list[tuple[Segment, int]] = []
    for c in chosen:
        confidence = _means(scene.probability(c), spans)
        # Before NMS: what may not be shown has no say in what is.
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
    # What is counted in snippets side by side, in snippets that overlap: as many as cover the same time.
    n = density(scene.snippets)
    shortest = min((config.min_snippets - 1) * n + 1, len(scene.block))
    window, gap = (config.smooth - 1) * n + 1, config.merge_gap * n
    least = [least_mean(bar, config) for bar in sorted({config.min_confidence, *bars}, reverse=True) if bar > 0]
    # The flag keeps a class that stands alone apart from a group of the same name.
    members: dict[tuple[bool, str], list[int]] = {}
    for c in scene.chosen:
        name = classes[c]
        members.setdefault((name in groups, groups.get(name, name)), []).append(c)
    sports, curves, candidates = [], [], []
    for sport in members.values():
        together = np.sum([scene.probability(c) for c in sport], axis=0)
        curve = moving_average(together, window, scene.block)
        spans = merge(runs(curve, config.threshold, scene.block), gap, scene.block, curve, least, shortest)
        spans = spans[spans[:, 1] - spans[:, 0] + 1 >= shortest]
        if len(spans):
            sports.append(sport)
            curves.append(curve)
            candidates.append(spans)
    pieces = []
    for first, last, g in _one_at_a_time(curves, candidates, shortest, config.threshold):
        # A rival may have taken what carried a weak join above the bar.
        within = first + runs(curves[g][first : last + 1], config.threshold)
        again = merge(within, gap, scene.block, curves[g], least, shortest)
        pieces += [(int(s), int(e), g) for s, e in again if e - s + 1 >= shortest]
    if not pieces:
        return []
    spans = np.array([(first, last) for first, last, _ in pieces])
    bounds = np.stack((scene.times[spans[:, 0], 0], scene.times[spans[:, 1], 1]), axis=1)
    bounds = np.clip(bounds, 0.0, scene.duration)
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


def calibrated(p: float, config: LocalizeConfig) -> float:
    """Confidence in [0, 1] of a segment whose probability is p in the mean: Platt's map, on p's log-odds."""
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
    curves: list[np.ndarray], candidates: list[np.ndarray], shortest: int, threshold: float
) -> list[tuple[int, int, int]]:
    """Settle where candidates of different groups overlap → (first, last, group) in order, never overlapping.

    A person changes the label where one curve crosses the other, draws a second sport inside the first when
    it clearly stands above it, and does not follow a flicker between two near-equal names. The strongest
    segment as a whole would miss the first two, the strongest group of each snippet the last. So: of all ways
    to draw one label at a time, take the one that covers most probability, where no piece is shorter than
    `shortest` and each piece pays a toll of θ · shortest, the least that so short a run above θ holds. A
    candidate that shares no snippet with another is left as it is.
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
                # A piece cut at a rival's edge may end in a bridged gap: it shrinks to the snippets above θ.
                above = np.flatnonzero(mass[row, s : e + 1] > threshold)
                if len(above) and above[-1] - above[0] + 1 >= shortest:
                    pieces.append((int(low + s + above[0]), int(low + s + above[-1]), g))
    return sorted(pieces)


def _clusters(cover: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Candidates sorted by start, parted wherever no two of them share a snippet."""
    clusters: list[list[tuple[int, int, int]]] = []
    reach = -1
    for candidate in cover:
        if candidate[0] > reach:
            clusters.append([])
        clusters[-1].append(candidate)
        reach = max(reach, candidate[1])
    return clusters


def _means(curve: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """(N,) mean of a curve of probabilities over each span, clipped because rounding could leave [0, 1]."""
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

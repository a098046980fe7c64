"""A plot of one video over time, as in Figure 4 of the paper, with S^coarse beside S, as in its Figure 3b."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from postprocess.curves import Curves
from postprocess.formats.text import encodable, file_name
from postprocess.formats.writers import clock
from postprocess.pages.plots import FAINT, INK, drawn
from postprocess.palette import COLOURS
from postprocess.segment import Result

MOST = 8  # more curves cannot be told apart
# Bars of further names have the same colours with a pattern.
PATTERNS = ("", "////", "xxxx", "....", "----", "oo", "++", "**")
Span = tuple[float, float, str]
Look = dict[str, tuple[str, str]]  # label → its colour and its pattern


def timeline(
    result: Result,
    curves: Curves | None,
    frames: Sequence[np.ndarray] = (),
    truth: Sequence[Span] | None = None,
    form: str = "png",
) -> bytes:
    """Draw one video.

    Args:
        result: its segments become bars; surer segments have stronger colours.
        curves: actionness and A · softmax(S) over time, and softmax(S^coarse) beside softmax(S); None draws bars only.
        frames: (H, W, 3) RGB pictures for the top row. Each is from the middle of one of as many equal stretches.
        truth: (start, end, label) of the true actions, drawn above the found ones.
        form: "png" or "svg".

    Returns:
        The bytes of the file.
    """
    if curves is not None and not len(curves.actionness):
        curves = None
    labels = _shown(result, truth or ())
    # The truth may name the sport where a result names the action: both are one colour.
    true = {label for _, _, label in truth or ()}
    meant = {s.label: s.sport for s in result.segments if s.sport in true and s.label not in true}
    first = {meant.get(label, label) for label in labels}
    rest = {meant.get(label, label) for _, _, label in _spans(result, truth or ())} - first
    names = [*sorted(first), *sorted(rest)]
    look = {label: (COLOURS[i % len(COLOURS)], _pattern(i // len(COLOURS))) for i, label in enumerate(names)}
    look |= {label: look[sport] for label, sport in meant.items()}
    rows = [("frames", 1.15)] * bool(frames) + [("truth", 0.35)] * (truth is not None) + [("found", 0.35)]
    rows += [("scores", 1.7), ("maps", 0.5 + 0.19 * (len(labels) + 1))] if curves is not None else []
    legend = 0.17 * max(0, -(-len(names) // 4) - 2)  # inches, of the rows of names beyond the second
    figure = Figure(figsize=(10, 0.9 + legend + sum(height for _, height in rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 2, height_ratios=[height for _, height in rows])
    axes: dict[str, Any] = {name: figure.add_subplot(grid[i, :]) for i, (name, _) in enumerate(rows) if name != "maps"}
    figure.suptitle(_plain(file_name(result.video)), fontsize=11)
    if frames:
        _frames(axes["frames"], frames, result.duration)
    if truth is not None:
        _bars(axes["truth"], [(*span, 1.0) for span in truth], look, "truth")
    _bars(axes["found"], [(s.start, s.end, s.label, s.confidence) for s in result.segments], look, "found")
    if curves is not None:
        _scores(axes["scores"], curves, {label: look[label][0] for label in sorted(labels)})
        for column, (name, logits) in enumerate((("first guess", curves.coarse_cas), ("final guess", curves.cas))):
            _map(figure.add_subplot(grid[len(rows) - 1, column]), curves, logits, labels, name, first=column == 0)
    for name in ("truth", "found", "scores"):
        if name in axes:
            axes[name].set_xlim(0, max(result.duration, 1e-3))
            axes[name].xaxis.set_major_formatter(FuncFormatter(lambda t, _: clock(t)[:-3]))
            axes[name].tick_params(axis="x", labelsize=8, labelbottom=name == ("scores" if curves else "found"))
    handles = [
        axes["found"].barh([0], [0], color=code, hatch=pattern, edgecolor="white", linewidth=0, label=_plain(label))
        for label, (code, pattern) in look.items()
        if label not in meant
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return drawn(figure, form)


def _shown(result: Result, truth: Sequence[Span]) -> list[str]:
    """The labels with the most seconds, found or true, in the order of their first appearance."""
    seconds: dict[str, float] = {}
    for start, end, label in sorted(_spans(result, truth)):
        seconds[label] = seconds.get(label, 0.0) + end - start
    longest = set(sorted(seconds, key=lambda label: -seconds[label])[:MOST])
    return [label for label in seconds if label in longest]


def _spans(result: Result, truth: Sequence[Span]) -> list[Span]:
    return [(s.start, s.end, s.label) for s in result.segments] + list(truth)


def _pattern(n: int) -> str:
    """A pattern for each n: those of PATTERNS, then pairs of them."""
    return PATTERNS[n] if n < len(PATTERNS) else PATTERNS[1 + n % (len(PATTERNS) - 1)] + PATTERNS[n // 8 % 8]


def _frames(axis: Axes, frames: Sequence[np.ndarray], duration: float) -> None:
    """Draw frames side by side, each above its stretch of the video."""
    axis.set_axis_off()
    height = max(frame.shape[0] / frame.shape[1] for frame in frames)
    for i, frame in enumerate(frames):
        axis.imshow(frame, extent=(i + 0.02, i + 0.98, 0, 0.96 * frame.shape[0] / frame.shape[1]), aspect="equal")
    axis.set_xlim(0, len(frames))
    axis.set_ylim(0, height)


def _bars(axis: Axes, spans: Sequence[tuple[float, float, str, float]], look: Look, name: str) -> None:
    for start, end, label, confidence in spans:
        code, pattern = look[label]
        bar = axis.barh(0, end - start, left=start, height=0.8, color=code, alpha=0.25 + 0.75 * confidence)
        bar.patches[0].set(hatch=pattern, edgecolor="white", linewidth=0)
    axis.set_yticks([0], [name], fontsize=9)
    axis.set_ylim(-0.5, 0.5)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axis.axhline(-0.5, color=FAINT, linewidth=1)


def _scores(axis: Axes, curves: Curves, colour: dict[str, str]) -> None:
    middle = curves.times.mean(axis=1)
    if curves.has_actionness:
        axis.fill_between(middle, curves.actionness, color=FAINT, alpha=0.5, linewidth=0)
        axis.plot(middle, curves.actionness, color=INK, linewidth=0.8)
    probability = curves.probability()
    for label, code in colour.items():
        if label in curves.classes:
            axis.plot(middle, probability[:, curves.classes.index(label)], color=code, linewidth=1.4)
    axis.set_ylim(0, 1.02)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylabel("how sure at each moment" + "\n(grey: of any action)" * curves.has_actionness, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _map(axis: Axes, curves: Curves, logits: np.ndarray, labels: Sequence[str], name: str, first: bool) -> None:
    """Draw the softmax over all classes and the background, with the shown classes as rows and snippets as columns."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    share = shifted / shifted.sum(axis=1, keepdims=True)
    known = [label for label in labels if label in curves.classes]
    rows = share[:, [*map(curves.classes.index, known), len(curves.classes)]].T
    axis.imshow(rows, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    axis.set_title(name, fontsize=9)
    axis.set_yticks(range(len(rows)), [*map(_plain, known), "no action"] if first else [], fontsize=8)
    seconds = float(np.median(curves.times[:, 1] - curves.times[:, 0]))
    axis.set_xlabel(f"piece of the video ({seconds:.2g} s each; darker: surer)", fontsize=8)
    axis.tick_params(labelsize=8)


def _plain(text: str) -> str:
    """A name as plain text: without the backslash, a dollar sign would begin mathematics."""
    return encodable(text).replace("$", r"\$")

"""A picture of how good a model is on held-out videos, for people who know the sport and not the losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from postprocess.pages.plots import FAINT, INK, drawn
from postprocess.palette import COLOURS

FOUND, MISSED, FALSE = "#009e73", "#bbbbbb", "#d55e00"
SHOWN = 8  # videos at most

Span = tuple[float, float, str]


@dataclass(frozen=True)
class Bar:
    """One class: how many actions (or videos) show it, in how many it was found, and how often wrongly."""

    label: str
    shown: int
    found: int
    wrongly: int


@dataclass(frozen=True)
class Track:
    """One held-out video: what a person marked, and what the model draws, in seconds."""

    video: str
    duration: float
    marked: Sequence[Span]
    drawn: Sequence[Span]


def quality(
    bars: Sequence[Bar], what: str, title: str, confusion: Sequence[Sequence[int]] = (), tracks: Sequence[Track] = ()
) -> bytes:
    """Draw the counts of each class, and with times what was drawn where, and some videos as strips.

    Args:
        bars: the classes in their order.
        what: what is counted.
        title: one sentence above all.
        confusion: (C+1, C+1), rows marked, columns drawn, nothing last; empty without times.
        tracks: held-out videos with marks; the first ones are shown.

    Returns:
        A PNG.
    """
    tracks = tracks[:SHOWN]
    upper = max(2.4, 0.45 * len(bars) + 1.4)
    lower = 0.5 * len(tracks) + 0.9 if tracks else 0.0
    figure = Figure(figsize=(11, upper + lower + 0.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, color=INK)
    # Typed loosely, as Matplotlib's own types of these depend on the number of rows.
    parts: Any = figure.subfigures(1 + bool(tracks), 1, squeeze=False, height_ratios=[upper, lower][: 1 + bool(tracks)])
    parts = parts.ravel()
    columns = parts[0].subplots(1, 2, width_ratios=[3, 2]) if len(confusion) else [parts[0].subplots()]
    _bars(columns[0], bars, what)
    if len(confusion):
        _confusion(columns[1], confusion, [bar.label for bar in bars])
    if tracks:
        _tracks(parts[1].subplots(), tracks, [bar.label for bar in bars])
    return drawn(figure)


def _bars(axis: Axes, bars: Sequence[Bar], what: str) -> None:
    """Found and missed to the right, wrongly drawn to the left of zero."""
    names = [bar.label for bar in bars]
    found = [bar.found for bar in bars]
    missed = [bar.shown - bar.found for bar in bars]
    axis.barh(names, found, color=FOUND)
    axis.barh(names, missed, left=found, color=MISSED)
    axis.barh(names, [-bar.wrongly for bar in bars], color=FALSE)
    for y, bar in enumerate(bars):
        axis.text(bar.shown, y, f" {bar.found} of {bar.shown}", va="center", fontsize=9, color=INK)
        if bar.wrongly:
            axis.text(-bar.wrongly, y, f"{bar.wrongly} ", va="center", ha="right", fontsize=9, color=FALSE)
    most = max(1, *(bar.shown for bar in bars))
    axis.set_xlim(-1.25 * max(0.1 * most, *(bar.wrongly for bar in bars)), 1.2 * most)
    axis.axvline(0, color=INK, linewidth=1)
    axis.invert_yaxis()
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axis.set_title(what, fontsize=10)
    patches = [Patch(color=c, label=n) for c, n in ((FALSE, "false"), (FOUND, "found"), (MISSED, "missed"))]
    axis.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=9, frameon=False)


def _confusion(axis: Axes, confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> None:
    """A table of counts; the last row and column are nothing."""
    counts = np.array(confusion)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Greens", vmin=0, vmax=1.4, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axis.text(column, row, str(count), ha="center", va="center", fontsize=10, color=INK)
    names = [*labels, "nothing"]
    axis.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("the model draws", fontsize=9)
    axis.set_ylabel("marked", fontsize=9)


def _tracks(axis: Axes, tracks: Sequence[Track], labels: Sequence[str]) -> None:
    """For each video two strips: marked above, drawn below."""
    colours = {label: COLOURS[c % len(COLOURS)] for c, label in enumerate(labels)}
    for y, track in enumerate(tracks):
        axis.broken_barh([(0, track.duration)], (y - 0.38, 0.76), color="#f2f2f2")
        for spans, top in ((track.marked, y - 0.34), (track.drawn, y + 0.02)):
            for start, end, label in spans:
                width = max(end - start, 0.004 * max(t.duration for t in tracks))
                axis.broken_barh([(start, width)], (top, 0.32), color=colours.get(label, FAINT))
    axis.set_yticks(range(len(tracks)), [track.video for track in tracks], fontsize=8)
    axis.set_ylim(len(tracks) - 0.5, -0.5)
    axis.set_xlim(0, max(track.duration for track in tracks))
    said = "seconds; of each video the upper strip is what is marked, the lower one what the model draws"
    axis.set_xlabel(said, fontsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    patches = [Patch(color=colour, label=label) for label, colour in colours.items()]
    axis.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)

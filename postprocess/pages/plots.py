"""Plots of a training and of a diagnosis, as PNG.

They are drawn on Matplotlib's own canvas, without pyplot: there is no window and no state shared between threads.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from postprocess.evaluation.diagnose import Diagnosis
from postprocess.palette import COLOURS

INK, FAINT = "#222222", "#bbbbbb"
KIND_COLOURS = {
    "true positive": "#009e73",
    "duplicate": "#56b4e9",
    "class": "#cc79a7",
    "localisation": "#e69f00",
    "confusion": "#d55e00",
    "background": "#999999",
}


def training(columns: Sequence[str], rows: np.ndarray) -> bytes:
    """Plot the curves of a training.

    Args:
        columns: names, including "step" and "loss". alpha and beta are the gates, gradient is a norm, others are terms.
        rows: (steps, columns).

    Returns:
        A PNG with the loss, its terms (which are smaller) and the gates, if there are any.
    """
    at = {name: rows[:, i] for i, name in enumerate(columns)}
    gates = [name for name in ("alpha", "beta") if name in at]
    terms = [name for name in columns if name not in ("step", "loss", "gradient", *gates)]
    heights = [2, 2, 1] if gates else [1, 1]
    figure, axes = _figure(9, 1.5 * sum(heights) if gates else 5, heights)
    step = at["step"]
    # Batches differ a lot, so the running mean shows the trend.
    window = max(1, len(step) // 40)
    dots = "." if len(step) < 20 else None  # a single step draws no line
    axes[0].plot(step, at["loss"], color=FAINT, linewidth=1)
    axes[0].plot(step, _running_mean(at["loss"], window), color=INK, linewidth=2, marker=dots)
    axes[0].set_ylabel("loss")
    for i, name in enumerate(terms):  # with times there are more terms than colours
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": "-" if i < len(COLOURS) else "--"}
        axes[1].plot(step, _running_mean(at[name], window), linewidth=1.3, marker=dots, label=name, **look)
    axes[1].set_ylabel("terms, before their weights")
    for axis in axes[:2]:
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    for name, colour in zip(gates, COLOURS, strict=False):
        axes[2].plot(step, at[name], color=colour, marker=dots, label={"alpha": "α (CAD)", "beta": "β (TEA)"}[name])
    if gates:
        axes[2].axhline(0, color=FAINT, linewidth=1, zorder=0)
        axes[2].set_ylabel("gates")
    for axis in axes[1:]:
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    axes[-1].set_xlabel(f"step (curves: mean of {window} steps)" if window > 1 else "step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes[-1].set_xlim(0, max(2.0, 1.02 * float(step[-1])))
    return drawn(figure)


def diagnosis(found: Diagnosis) -> bytes:
    """Plot the kinds of predictions by rank, what each kind of mistake costs, and the influence of length, as PNG."""
    figure, axes = _figure(12, 4.2, [1], columns=3)
    left, middle, right = axes
    bottom = np.zeros(len(found.bands))
    names = [f"{band.multiple}G" for band in found.bands]
    totals = np.array([max(sum(band.counts.values()), 1) for band in found.bands])
    for kind, colour in KIND_COLOURS.items():
        share = 100 * np.array([band.counts[kind] for band in found.bands]) / totals
        left.bar(names, share, bottom=bottom, color=colour, width=0.85)
        bottom += share
    left.set_title("what predictions are, by rank", fontsize=10)
    left.set_ylabel("%")
    left.set_ylim(0, 100)
    left.set_xlabel("rank, in multiples of the instances G of a class", fontsize=9)
    left.tick_params(axis="x", labelsize=8)
    if not names:
        left.text(0.5, 0.5, "no predictions", transform=left.transAxes, ha="center", color=INK)
        left.set_xticks([])
    kinds = [kind for kind in KIND_COLOURS if kind in found.gains]
    gains = [100 * found.gains[kind] for kind in kinds]
    bars = middle.barh(kinds, gains, color=[KIND_COLOURS[kind] for kind in kinds])
    middle.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    middle.invert_yaxis()
    middle.set_xlim(0, 1.15 * max(1.0, *gains))
    middle.set_title(f"mAP gained without them, at tIoU {found.tiou:g}", fontsize=10)
    middle.set_xlabel("%", fontsize=9)
    labels = [f"{b.name}\n{b.shortest:.1f}-{b.longest:.1f}" for b in found.lengths]
    here = np.arange(len(labels))
    right.bar(here - 0.2, [100 * b.ap_n for b in found.lengths], 0.4, color=COLOURS[0], label="mAP_N")
    right.bar(here + 0.2, [100 * b.recall for b in found.lengths], 0.4, color=COLOURS[1], label="recall")
    right.axhline(100 * found.mean_ap_n, color=COLOURS[0], linewidth=1, linestyle="--", label="mAP_N of all")
    right.set_xticks(here, labels, fontsize=8)
    right.set_ylim(0, 100)
    right.set_title("by length of the instance", fontsize=10)
    right.set_ylabel("%")
    right.set_xlabel("fifths of the lengths: shortest-longest", fontsize=9)
    # Above the bars, which may reach 100.
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=3, fontsize=8, frameon=False)
    patches = [Patch(color=colour, label=kind) for kind, colour in KIND_COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return drawn(figure)


def _figure(width: float, height: float, heights: Sequence[float], columns: int = 1) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(heights), columns, squeeze=False, sharex=columns == 1, height_ratios=list(heights))
    axes = list(grid.flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """(n,) mean of the `window` values around each value; fewer at the ends."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    here = np.arange(len(values))
    begin = np.maximum(here - (window - 1) // 2, 0)
    end = np.minimum(here + window // 2 + 1, len(values))
    return np.asarray((total[end] - total[begin]) / (end - begin))


def drawn(figure: Figure, form: str = "png") -> bytes:
    """The figure as a PNG or SVG file. The same picture always gives the same PNG bytes."""
    buffer = io.BytesIO()
    # Text stays text in an SVG, so that it can be searched and edited.
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format=form, metadata={"Software": None} if form == "png" else {"Date": None})
    return buffer.getvalue()

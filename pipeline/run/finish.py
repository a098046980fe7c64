"""From a video's features to its result and the result's files, in this process or in a worker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from extractors.config import WHOLE, Stretch
from extractors.features import Features
from pipeline.api import Pipeline
from pipeline.run.remaking import Redo
from pipeline.run.results import Packed, pack
from pipeline.run.store import standing_formats, text_of, write_alone, write_result
from postprocess.curves import Curves
from postprocess.formats.writers import SUFFIXES, VIEWS
from postprocess.segment import Result, Segment
from support.files import sha256_of
from support.progress import Progress, silent


@dataclass(frozen=True)
class Order:
    """What is to become of a video's features."""

    video: Path
    """as the user named it; the result says so"""
    target: Path | None = None
    """where the result's files belong, without suffix; None: none are written"""
    formats: tuple[str, ...] = ("json",)
    overwrite: bool = False
    only: str | None = None
    """the one format that is written, without a result beside it (a JSON still has its curves)"""
    redo: Redo | None = None
    """why a result that is there is replaced"""

    @property
    def drawn(self) -> bool:
        """Whether a page or an overlay is wanted, which only the machine that runs makes."""
        return any(name in VIEWS for name in (self.only, *self.formats))


@dataclass(frozen=True)
class Finished:
    """The result of a video, and what its files are made of."""

    result: Result
    curves: Curves | Packed | None = None
    """None: there are no files, or they are written"""
    everything: tuple[Segment, ...] | None = None
    """segments of any confidence, for the page"""
    saved: tuple[Path, ...] = ()
    """earlier files that were kept under another name"""


def finish(pipeline: Pipeline, order: Order, content: str, features: Features, stretch: Stretch = WHOLE) -> Finished:
    """Localize a video whose features are given; nothing is written."""
    result, scores = pipeline.result(order.video, content, features, stretch.start, stretch.end)
    if order.target is None:
        return Finished(result)
    # Under `paper` unsure segments take part in NMS: without them others would be found.
    paged = "html" in (order.only, *order.formats) and pipeline.config.localize.rule == "runs"
    everything = pipeline.segments(scores, features, stretch.start, stretch.end, least=0.0) if paged else None
    arrays = (features.times, scores.actionness, scores.cas, scores.coarse_cas)
    curves = Curves(*arrays, tuple(pipeline.model.classes))
    return Finished(result, curves, None if everything is None else tuple(everything))


def packed(finished: Finished, order: Order) -> Finished:
    """Turn what is to be written into bytes, so that the machine that writes it need not compute them."""
    if order.drawn or order.only not in (None, "json") or not isinstance(finished.curves, Curves):
        return finished
    texts = {name: text_of(name, finished.result) for name in sorted({*order.formats, "json"})}
    hashes = {SUFFIXES[name]: sha256_of(data) for name, data in texts.items()}
    return dataclasses.replace(finished, curves=Packed(texts, pack(finished.curves, hashes), hashes))


def write(finished: Finished, order: Order, on_progress: Progress = silent) -> Finished:
    """Write the files of a result, if any are wanted.

    Raises:
        OutputError, DiskFull: as `write_result`.
        VideoError: a format that shows the video can no longer read it.
    """
    if order.target is None or finished.curves is None:
        return finished
    if order.only not in (None, "json"):
        curves = finished.curves.curves() if isinstance(finished.curves, Packed) else finished.curves
        everything = finished.everything
        write_alone(finished.result, curves, order.target, str(order.only), everything, on_progress)
        return dataclasses.replace(finished, curves=None, everything=None)
    # A result that is made again gets the formats that are there, too: nobody asked to remove them.
    wanted = [*order.formats, *(standing_formats(order.target) if order.redo is not None else ())]
    saved = write_result(
        finished.result,
        finished.curves,
        order.target,
        wanted,
        finished.everything,
        on_progress,
        order.overwrite,
        order.redo is not None and order.redo.unsure,
    )
    return dataclasses.replace(finished, curves=None, everything=None, saved=tuple(saved))

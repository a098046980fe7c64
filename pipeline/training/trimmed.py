"""Advice on training videos that were cut to the action, which teach little about where an action begins and ends."""

from collections.abc import Mapping
from typing import Any

from model.datasets import VideoSet

SHORT = 2.5  # seconds: four snippets, of which nothing is left to tell the action from what is around it


def advice(data: VideoSet, features: Mapping[str, Any]) -> str | None:
    """A sentence, if at least half of the videos that show an action are so short that they show nothing else.

    features: by stream, the settings of the features, of which `stride` and `fps` give the seconds of a row.
    """
    settings = next((s for s in features.values() if isinstance(s, Mapping)), {})
    step = float(settings.get("stride", 16)) / float(settings.get("fps", 25.0))
    shown = [len(rows) * step for rows, labels in zip(data.features, data.labels, strict=True) if labels.any()]
    short = sum(seconds < SHORT for seconds in shown)
    if not shown or 2 * short < len(shown):
        return None
    return (
        f"{short} of {len(shown)} videos with an action are under {SHORT:g} s, cut to the action: show what is around "
        "it, or the model cannot learn where it begins and ends (docs/train.md)."
    )

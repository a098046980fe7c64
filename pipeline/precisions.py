"""Features of several precisions together: allowed, because the difference was measured, and said once.

All other settings must agree. benchmarks/README.md ("Precision on the CPU") has the measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from extractors.config import PRECISION_SETTINGS

Settings = Mapping[str, Mapping[str, Any]]
"""by stream"""
MEASURED = 'the difference is small and was measured (benchmarks/README.md, "Precision on the CPU")'
BETWEEN = ", "


def without(settings: Settings) -> dict[str, dict[str, Any]]:
    """Settings without those that follow from the precision."""
    return {s: {k: v for k, v in about.items() if k not in PRECISION_SETTINGS} for s, about in settings.items()}


def joined(several: Iterable[Settings]) -> dict[str, dict[str, Any]]:
    """Settings that agree but for their precision as one; each setting of the precision lists all its values."""
    found: dict[str, dict[str, Any]] = {}
    values: dict[tuple[str, str], set[str]] = {}
    for settings in several:
        for stream, about in settings.items():
            found.setdefault(stream, {}).update(about)
            for name in PRECISION_SETTINGS:
                if name in about:
                    values.setdefault((stream, name), set()).add(str(about[name]))
    for (stream, name), seen in values.items():
        found[stream][name] = BETWEEN.join(sorted(seen))
    return found


def mixed(several: Iterable[Settings]) -> str:
    """A clause that says which precisions there are, such as "rgb: 12 in float32, 3 in bfloat16"; "" if one alone."""
    counts: dict[str, Counter[str]] = {}
    for settings in several:
        for stream, about in settings.items():
            counts.setdefault(stream, Counter())[str(about.get("dtype"))] += 1
    return "; ".join(
        f"{stream}: {', '.join(f'{n} in {dtype}' for dtype, n in count.most_common())}"
        for stream, count in counts.items()
        if len(count) > 1
    )


def other_than_trained(provenance: Mapping[str, Any], settings: Settings) -> tuple[str, ...]:
    """A sentence for each stream whose features have another precision than those that a model was trained on."""
    trained = provenance.get("features")
    if not isinstance(trained, Mapping):  # the embedded model, or a checkpoint that says nothing
        return ()
    found = []
    for stream, about in settings.items():
        before = trained.get(stream)
        then = before.get("dtype") if isinstance(before, Mapping) else None
        now = about.get("dtype")
        if then is not None and now is not None and now != then:
            found.append(f"the model was trained on {stream} features in {then}, and these are in {now}; {MEASURED}.")
    return tuple(found)

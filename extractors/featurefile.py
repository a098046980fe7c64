"""Features of a video, and the .npz file for them: it has no pickles, and a damaged file is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.config import STREAMS
from support.errors import INPUT_FAILED, UserError
from support.files import write_atomically
from support.npz import read_npz

Floats = NDArray[np.float32]


class FeaturesError(UserError):
    """A features file, or a request for features, cannot be used; the message says why and what to do."""

    exit_code = INPUT_FAILED


@dataclass(frozen=True)
class Features:
    """Features of a video, or of a stretch of it."""

    rgb: Floats | None
    """(T, D)"""
    flow: Floats | None
    """(T, D), or None if the stream was not requested"""
    times: NDArray[np.float64]
    """(T, 2) start and end of each snippet, in seconds of the video"""
    duration: float
    """seconds until the video's last frame stops being shown"""
    media: dict[str, Any]
    """width and height (upright, in square pixels), rate (a fraction), start_timecode"""
    settings: dict[str, dict[str, Any]]
    """by stream: everything that decided the numbers"""
    warnings: tuple[str, ...] = ()
    partial: bool = False
    """whether parts of the file could not be decoded"""

    def stacked(self, streams: tuple[str, ...]) -> Floats:
        """The given streams side by side, RGB first: (T, D) or (T, 2D).

        Raises:
            FeaturesError: a stream is missing.
        """
        parts = [(name, getattr(self, name)) for name in STREAMS if name in streams]
        for name, values in parts:
            if values is None:
                raise FeaturesError(f"the model needs the {name} stream; extract it too (--streams both).")
        return np.concatenate([values for _, values in parts], axis=1)


def save(features: Features, path: Path, made: Mapping[str, Any] | None = None) -> None:
    """Write a features file (.npz: rgb, flow, times, and a JSON string `settings`), without pickles.

    made: more about its origin, as plain JSON: the video and the seconds (`made_of` reads it).
    """
    meta = {
        "settings": features.settings,
        "duration": features.duration,
        "media": features.media,
        "warnings": features.warnings,
        "partial": features.partial,
    } | ({} if made is None else {"made": dict(made)})
    rows = {name: v for name in STREAMS if (v := getattr(features, name)) is not None}
    write_arrays(path, rows, features.times, meta)


def load(path: Path) -> Features:
    """Read a features file and check it: shapes, types, finite numbers, the ZIP's own checksums.

    Raises:
        FeaturesError: there is no such file, it is damaged, or jcdnet did not write it.
    """
    if not path.is_file():
        raise FeaturesError(f"{path}: no such features file.")
    try:
        rows, times, meta = read_arrays(path)
        duration = float(meta["duration"])
        if not rows or not np.isfinite(duration):
            raise ValueError("there must be rows and a finite duration")
        json.dumps(meta, allow_nan=False)  # it goes into results, which may not hold NaN
        settings, messages = dict(meta["settings"]), list(meta["warnings"])
        tables = all(isinstance(value, dict) for value in settings.values())
        if not tables or not all(isinstance(message, str) for message in messages):
            raise ValueError("settings must be tables by stream, and warnings text")
        if lost := set(STREAMS) & set(settings) - set(rows):  # a damaged name in the ZIP's directory hides an array
            raise ValueError(f"the {min(lost)} stream that its settings describe is not there")
        return Features(
            rgb=rows.get("rgb"),
            flow=rows.get("flow"),
            times=times,
            duration=duration,
            media=dict(meta["media"]),
            settings=settings,
            warnings=tuple(messages),
            partial=bool(meta["partial"]),
        )
    except Exception as error:  # a damaged ZIP raises many kinds
        raise FeaturesError(f"{path}: not a whole features file ({error}); delete it and extract again.") from error


def made_of(path: Path) -> dict[str, Any]:
    """What `save` recorded about the origin of a features file; {} if it recorded nothing."""
    try:
        found = json.loads(str(read_npz(path, ("settings",))["settings"][()])).get("made")
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def write_arrays(path: Path, rows: Mapping[str, Floats], times: NDArray[np.float64], meta: Mapping[str, Any]) -> None:
    """Write an .npz with rows (T, D) by stream, their times (T, 2), and `meta` as JSON; the ZIP has a CRC for each."""
    buffer = io.BytesIO()
    np.savez(buffer, times=times, settings=np.array(json.dumps(meta)), **dict[str, Any](rows))
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, Floats], NDArray[np.float64], dict[str, Any]]:
    """Read what `write_arrays` wrote, and check it.

    Raises:
        Exception: of many kinds, for a file that is damaged or that jcdnet did not write.
    """
    arrays = read_npz(path, ("settings", "times", *STREAMS))
    meta = json.loads(str(arrays["settings"][()]))
    times = np.asarray(arrays["times"], np.float64)
    if times.shape != (len(times), 2) or not np.isfinite(times).all():
        raise ValueError("times must be (T, 2) and finite")
    if (times[:, 1] < times[:, 0]).any() or (np.diff(times[:, 0]) < 0).any():
        raise ValueError("times must not go back")
    rows = {name: np.asarray(arrays[name], np.float32) for name in STREAMS if name in arrays}
    for name, values in rows.items():
        if values.ndim != 2 or len(values) != len(times) or not np.isfinite(values).all():
            raise ValueError(f"{name} must be (T, D) and finite")
    return rows, times, dict(meta)

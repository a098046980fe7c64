"""Parts of a video's features: they are kept while a video is read, and joined when all are there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.decode.video import Clip, Damage, is_partial, warnings
from extractors.featurefile import Features, FeaturesError, Floats, read_arrays, write_arrays


@dataclass(frozen=True)
class Seen:
    """What a reading knew about a file at the end of a part."""

    media: dict[str, Any]
    """as in Features"""
    duration: float
    """seconds, by the file's header"""
    origin: float
    """seconds of grid point 0"""
    end: float
    """seconds at which the last frame that was read stops being shown"""
    exhausted: bool
    """whether that was the last frame of the video"""
    missing: float
    """seconds by which an exhausted video is shorter than its header declares"""
    sought: bool
    """whether the reading jumped over the beginning"""
    padded: bool
    """whether the last frame was repeated to fill a snippet"""
    damage: Damage = field(default_factory=Damage)
    """since the start of the reading"""


@dataclass(frozen=True)
class Part:
    """Features of the snippets first <= i < until; there are fewer rows if the video ends before."""

    first: int
    until: int
    rows: dict[str, Floats]
    """by stream, (T, D)"""
    times: NDArray[np.float64]
    """(T, 2) s"""
    seen: Seen

    def only(self, stream: str) -> Part:
        """The same part with one stream."""
        return Part(self.first, self.until, {stream: self.rows[stream]}, self.times, self.seen)

    @property
    def trusted(self) -> bool:
        """Whether a reading from the start would certainly have given the same rows.

        After a jump into the middle, the time of a keyframe proves the place. If frames behind it have no times of
        their own, or cannot be decoded, the frames before the jump may matter, so such a video is read from its start.
        """
        return not self.seen.sought or self.seen.damage == Damage()


def seen(clip: Clip, padded: bool) -> Seen:
    """What the decoder knows about a video by now."""
    info = clip.info
    return Seen(
        media={"width": info.width, "height": info.height, "rate": info.rate, "start_timecode": info.start_timecode},
        duration=info.duration,
        origin=clip.origin,
        end=clip.end,
        exhausted=clip.exhausted,
        missing=clip.missing,
        sought=clip.sought,
        padded=padded,
        damage=clip.damage,
    )


def consistent(parts: Sequence[Part]) -> list[Part]:
    """The parts that fit together. If the clock jumps or is made up, only readings from the start count."""
    found = [part for part in parts if part.trusted]
    if any(part.seen.damage.jumps or part.seen.damage.made_up for part in found):
        found = [part for part in found if not part.seen.sought]
    return found


def from_the_start(parts: Sequence[Part]) -> bool:
    """Whether the rest of a video must be read from its start, since its parts are damaged or have no clock."""
    return any(part.seen.damage != Damage() for part in parts)


def gaps(parts: Sequence[Part], first: int, last: float) -> list[tuple[int, float]]:
    """The ranges within snippets [first, last) that no part covers, up to the end of the video if a part reached it.

    `parts` must be in order.
    """
    found, at = [], first
    for part in parts:
        if part.first > at:
            found.append((at, float(part.first)))
        at = max(at, part.until)
        if part.seen.exhausted:
            return found
    return [*found, (at, last)] if at < last else found


def ordered(parts: Sequence[Part]) -> list[Part]:
    """The parts in order, without those that overlap with an earlier one."""
    found: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.first, -part.until)):
        if not found or part.first >= found[-1].until:
            found.append(part)
    return found


def join(parts: Sequence[Part], settings: Mapping[str, Any], whole: bool, snippet: float) -> Features:
    """Join consecutive parts as one Features. The result does not depend on how the video was divided.

    Args:
        settings: by stream, everything that decided the numbers.
        whole: whether the parts should reach the end of the video.
        snippet: seconds of one snippet.
    """
    last = parts[-1].seen
    full = [part for part in parts if len(part.times)] or list(parts)
    damage = Damage(*(max(values) for values in zip(*(vars(p.seen.damage).values() for p in parts), strict=True)))
    missing = max(part.seen.missing for part in parts) if whole else 0.0
    messages = warnings(damage, missing)
    if any(part.seen.padded for part in parts):
        messages = (*messages, f"shorter than a snippet ({snippet:.2f} s): its last frame was repeated.")
    rows = {name: np.concatenate([part.rows[name] for part in full]) for name in full[0].rows}
    return Features(
        rgb=rows.get("rgb"),
        flow=rows.get("flow"),
        times=np.concatenate([part.times for part in full]),
        duration=last.end if whole else max(last.duration, last.end),
        media=last.media,
        settings={name: settings[name] for name in rows},
        warnings=messages,
        partial=is_partial(damage, missing),
    )


def save_part(part: Part, path: Path) -> None:
    """Write a part as an .npz file, in the format of features."""
    meta = {"first": part.first, "until": part.until, "seen": asdict(part.seen)}
    write_arrays(path, part.rows, part.times, meta)


def load_part(path: Path) -> Part:
    """Read a part and check it.

    Raises:
        FeaturesError: the file is damaged, or jcdnet did not write it.
    """
    try:
        rows, times, meta = read_arrays(path)
        seen = dict(meta["seen"])
        part = Part(
            first=int(meta["first"]),
            until=int(meta["until"]),
            rows=rows,
            times=times,
            seen=Seen(**seen | {"damage": Damage(**seen["damage"])}),
        )
        if not rows or not 0 <= len(times) <= part.until - part.first or not math.isfinite(part.seen.end):
            raise ValueError("there must be rows, as many as were asked for at most, and a finite end")
        if len(times) < part.until - part.first and not part.seen.exhausted:
            raise ValueError("rows are missing")
        return part
    except Exception as error:  # a damaged ZIP raises many kinds
        raise FeaturesError(f"{path}: not a whole part of features ({error}).") from error

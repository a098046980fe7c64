"""Results for the programs of others: with the sound and the frame rate of their video, with margins, with remarks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from extractors.decode.video import VideoError
from pipeline.cache.content import Video
from postprocess.formats.timecode import FASTEST, read_rate
from postprocess.formats.writers import OF_THE_VIDEO, clock
from postprocess.segment import Result

CUTS = ("edl", "fcpxml")
MOST_SHOWN = 5


@dataclass(frozen=True)
class Margins:
    """Seconds that a cut begins earlier and ends later than its segment."""

    before: float = 0.0
    after: float = 0.0


def for_format(
    name: str,
    result: Result,
    margins: Margins | None = None,
    document_root: Path | None = None,
    video: Video | None = None,
) -> Result:
    """The result as the writer of a format needs it. The result on the disk does not change.

    Args:
        margins: for the formats of CUTS; the segments of others stay as they are.
        document_root: the folder that Label Studio serves files from.
        video: where the video is now; None: where the result says.
    """
    media: dict[str, Any] = dict(result.media)
    if video is not None:
        result = dataclasses.replace(result, video=str(video))
    if name in OF_THE_VIDEO:
        media |= _seen(Path(result.video), media)
    if name == "labelstudio" and document_root is not None:
        media["document_root"] = os.fspath(document_root)
    segments = result.segments
    if name in CUTS and margins is not None:
        segments = tuple(
            dataclasses.replace(
                s,
                start=max(0.0, s.start - margins.before),
                end=min(max(result.duration, s.end), s.end + margins.after),
            )
            for s in segments
        )
    return dataclasses.replace(result, media=media, segments=segments)


def _seen(video: Path, media: Mapping[str, Any]) -> dict[str, Any]:
    """What the video itself adds; nothing if it is not there any more, or cannot be read."""
    from pipeline.clips.medium import counted, heard  # only here: most runs need no PyAV in this process

    try:
        found: dict[str, Any] = {}
        if (audio := heard(video)) is not None:
            found["audio"] = {"channels": audio[0], "rate": audio[1]}
        rate = read_rate(media.get("rate"))
        if rate is not None and rate > FASTEST:
            found["rate"] = str(counted(video))
        return found
    except (VideoError, OSError):
        return {}


def remarks(names: Sequence[str], result: Result) -> list[str]:
    """A sentence for each thing that one of these formats cannot hold."""
    found = []
    if "chapters" in names:
        from postprocess.formats.chapters import SHORTEST, left_out

        if left := left_out(result):
            some = ", ".join(f"{s.name} at {clock(s.start)}" for s in left[:MOST_SHOWN])
            more = f" and {len(left) - MOST_SHOWN} more" if len(left) > MOST_SHOWN else ""
            count = f"{len(left)} of {len(result.segments)} actions have"
            found.append(f"{result.video}: {count} no chapter, since each needs {SHORTEST} s of its own: {some}{more}.")
    if set(names) & {"edl"} and (rate := read_rate(result.media.get("rate"))) is not None and 99 < rate <= FASTEST:
        from postprocess.formats.timecode import counted_rate

        found.append(
            f"{result.video}: has {_plain(rate)} frames a second; the EDL counts {_plain(counted_rate(rate))}, since "
            "its frames have two digits. Set the editor to that rate."
        )
    return found


def _plain(rate: Fraction) -> str:
    return f"{float(rate):.6g}"

"""The report page of a result: the video, its time line, a table, and what a person needs to mark and correct segments.

A page is one file. Its Content-Security-Policy lets it load nothing but the video. What a person marks stays in the
browser until it is saved as `<stem>.corrections.json`, which `postprocess/formats/marked.py` reads.
"""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from postprocess.curves import Curves
from postprocess.evaluation.names import loose
from postprocess.formats.annotated import Annotated
from postprocess.formats.text import encodable, file_name
from postprocess.formats.timecode import read_rate
from postprocess.pages.fill import as_json, asset, filled, script, short, text
from postprocess.palette import COLOURS, rgb
from postprocess.segment import DOUBT, UNSURE, Result, Segment, said_sport, ways_to_say

MOST_LINES = 12  # more curves cannot be told apart
# Yellow is not visible on white, and grey is the colour of actionness.
LANES = [rgb(code) for code in COLOURS if code not in ("#f0e442", "#999999")]
MOST_OFFERED = 40  # names of a model; of more, a list to choose from is no help
SPORTS = "sports"  # what provenance calls all sports of a model, and nothing else
# What a stranger asks first of a page: what it is.
FOUND = "A program watched it and may be wrong."
HERE_TO_MARK = "Mark the actions that you see."
# The files of the script, in the order in which they build on one another.
PARTS = ("base", "theme", "items", "table", "timeline", "curves", "player", "edit", "drag", "store", "begin")


def page(
    result: Result,
    curves: Curves | None,
    link: str,
    inside: bytes | None = None,
    everything: Sequence[Segment] | None = None,
    classes: Sequence[str] = (),
    marked: Annotated | None = None,
) -> str:
    """The page of one result, or of a video without one: a result without segments and provenance.

    Args:
        result: the result to show.
        curves: curves to draw over the lanes; None draws the lanes only.
        link: address of the video, relative to the page.
        inside: the video itself as an MP4, to become part of the page. The link is then not used.
        everything: segments of any confidence, which the slider can show; None means only those of the result.
        classes: names to choose from when something is marked, beside those of the segments.
        marked: what a person marked on an earlier page of this video.
    """
    level = _least(result)
    segments = result.segments if everything is None else everything
    spans = () if marked is None else marked.spans
    # What a person marked takes the place of what was found there.
    segments = [
        s for s in segments if not any(s.label == m.label and s.start < m.end and m.start < s.end for m in spans)
    ]
    labels = sorted({s.label for s in segments})
    offered = (*_unknown(classes, labels, segments), *(s.label for s in spans))
    if curves is not None and len(curves.classes) <= MOST_OFFERED:
        offered = (*offered, *curves.classes)
    labels += [name for name in dict.fromkeys(offered) if name not in labels]
    number = {label: i for i, label in enumerate(labels)}
    sports = _sports(segments, labels)
    rate = read_rate(result.media.get("rate"))
    data = {
        "video": encodable(result.video),
        "stem": encodable(PurePosixPath(file_name(result.video)).stem),
        "content": content if isinstance(content := result.provenance.get("content"), str) else None,
        "duration": max([result.duration, *(s.end for s in segments), *(s.end for s in spans)]),
        "rate": None if rate is None else float(rate),
        "link": link,
        "unseen": not result.provenance and not segments,
        "sportsOnly": result.provenance.get("classes") == SPORTS,
        "level": level,
        "least": level if everything is None else 0.0,
        "labels": [encodable(label) for label in labels],
        "sports": [encodable(sport) for sport in sports],
        "said": [encodable(said_sport(sport, label)) for sport, label in zip(sports, labels, strict=True)],
        "doubt": DOUBT,
        "unsure": [i for i, s in enumerate(segments) if s.sport == UNSURE],
        "palette": LANES,
        "segments": [
            [round(s.start, 3), round(s.end, 3), round(s.confidence, 6), round(s.score, 4), number[s.label]]
            for s in segments
        ],
        "marked": [[round(s.start, 3), round(s.end, 3), number[s.label]] for s in spans],
        "complete": bool(marked and marked.complete),
        "curves": None if curves is None else _lines(curves, segments, labels),
    }
    # The browser keeps changes under this key: those of another result of the video are not of this page.
    of = as_json([data[name] for name in ("video", "content", "labels", "segments", "marked", "complete")])
    data["key"] = hashlib.sha256(of.encode()).hexdigest()[:24]
    return filled(
        "report.html",
        title=text(file_name(result.video)),
        about=text(f"{short(result.duration)} long. {HERE_TO_MARK if data['unseen'] else FOUND}"),
        size=_size(result),
        facts=text(" · ".join(_facts(result))),
        notes="".join(f'<p class="note">{text(note)}</p>' for note in _notes(result)),
        css=asset("report.css"),
        script=script(*(f"page_{name}.js" for name in PARTS)),
        data=as_json(data),
        film="" if inside is None else base64.b64encode(inside).decode(),
    )


def _least(result: Result) -> float:
    """The confidence below which segments were left out of the result."""
    localize = result.provenance.get("localize")
    least = localize.get("min_confidence") if isinstance(localize, dict) else None
    return float(least) if isinstance(least, int | float) else 0.0


def _sports(segments: Sequence[Segment], labels: Sequence[str]) -> list[str]:
    """The sport of each label, "" where none is known."""
    known = {s.label: s.sport for s in segments if s.sport not in ("", UNSURE)}
    return [known.get(label, "") for label in labels]


def _unknown(names: Sequence[str], labels: Sequence[str], segments: Sequence[Segment]) -> list[str]:
    """The names that are none of these labels, in any case and also as the page shows them ("weightlifting: squat")."""
    known = {
        loose(way)
        for label, sport in zip(labels, _sports(segments, labels), strict=True)
        for way in ways_to_say(label, sport)
    }
    return [name for name in names if loose(name) not in known]


def _size(result: Result) -> str:
    """Attributes of the player, so that nothing below it jumps when the video arrives."""
    width, height = (result.media.get(name) for name in ("width", "height"))
    known = all(isinstance(n, int) and n > 0 for n in (width, height))
    return f' width="{width}" height="{height}"' if known else ""


def _facts(result: Result) -> list[str]:
    """What engineers ask about a page; it is at its end."""
    parts = []
    if result.media.get("width") and result.media.get("height"):
        parts.append(f"{result.media['width']} × {result.media['height']} pixels")
    if rate := read_rate(result.media.get("rate")):
        parts.append(f"{told_rate(rate)} frames/s")
    model = result.provenance.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        parts.append(f"model {model['name']}")
    return parts


def told_rate(rate: Fraction) -> str:
    """Frames a second as people say them: 24000/1001 → "23.976"."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


def _notes(result: Result) -> list[str]:
    partial = ["A part of the video could not be read. Nothing is shown for that part."] if result.partial else []
    return partial + list(result.warnings)


def _lines(curves: Curves, segments: Sequence[Segment], labels: Sequence[str]) -> dict[str, Any]:
    """A^ness if it took part, and A · softmax(S) of the classes with the most seconds: base64 of 16-bit fractions."""
    seconds: dict[str, float] = defaultdict(float)
    for s in segments:
        seconds[s.label] += s.end - s.start
    longest = sorted(seconds, key=lambda label: (-seconds[label], label))[:MOST_LINES]
    probability = curves.probability()
    lines: list[dict[str, Any]] = []
    if curves.has_actionness:
        lines.append({"label": None, "values": _fractions(curves.actionness)})
    for label in longest:
        if label in curves.classes:
            values = probability[:, curves.classes.index(label)]
            lines.append({"label": list(labels).index(label), "values": _fractions(values)})
    times = np.ascontiguousarray(curves.times, dtype="<f4")
    return {"times": base64.b64encode(times.tobytes()).decode(), "lines": lines}


def _fractions(values: np.ndarray) -> str:
    scaled = np.round(np.clip(values, 0.0, 1.0) * 65535).astype("<u2")
    return base64.b64encode(scaled.tobytes()).decode()

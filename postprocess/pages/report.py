"""The report page of a result, with the video, its time line and a table; and the index page of a folder.

A page is one file. Everything that comes from files (names, labels, warnings) is escaped here or set as text by the
script, never as markup. The Content-Security-Policy of the page lets it load nothing but the video.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from postprocess.curves import Curves
from postprocess.evaluation.names import told_apart
from postprocess.formats.text import encodable, file_name
from postprocess.formats.writers import clock
from postprocess.palette import COLOURS, rgb
from postprocess.segment import Result, Segment

MOST_LINES = 12  # more curves cannot be told apart
# Yellow is not visible on white, and grey is the colour of actionness.
LANES = [rgb(code) for code in COLOURS if code not in ("#f0e442", "#999999")]


def page(
    result: Result,
    curves: Curves | None,
    link: str,
    inside: bytes | None = None,
    everything: Sequence[Segment] | None = None,
) -> str:
    """The page of one result.

    Args:
        result: the result to show.
        curves: curves to draw over the lanes; None draws the lanes only.
        link: address of the video, relative to the page.
        inside: the video itself as an MP4, to become part of the page. The link is then not used.
        everything: segments of any confidence, which the slider can show; None means only those of the result.
    """
    level = _least(result)
    segments = result.segments if everything is None else everything
    labels = sorted({s.label for s in segments})
    number = {label: i for i, label in enumerate(labels)}
    data = {
        "duration": max([result.duration, *(s.end for s in segments)]),
        "link": link,
        "level": level,
        "least": level if everything is None else 0.0,
        "labels": [encodable(label) for label in labels],
        "colours": [LANES[i % len(LANES)] for i in range(len(labels))],
        "segments": [
            [round(s.start, 3), round(s.end, 3), round(s.confidence, 6), round(s.score, 4), number[s.label]]
            for s in segments
        ],
        "curves": None if curves is None else _lines(curves, segments, labels),
    }
    return _filled(
        "report.html",
        title=_text(file_name(result.video)),
        about=_text(_about(result)),
        notes="".join(f'<p class="note">{_text(note)}</p>' for note in _notes(result)),
        css=_asset("report.css"),
        script=_asset("report.js"),
        data=_json(data),
        film="" if inside is None else base64.b64encode(inside).decode(),
    )


def _least(result: Result) -> float:
    """The confidence below which segments were left out of the result."""
    localize = result.provenance.get("localize")
    least = localize.get("min_confidence") if isinstance(localize, dict) else None
    return float(least) if isinstance(least, int | float) else 0.0


def _about(result: Result) -> str:
    parts = [clock(result.duration)]
    if result.media.get("width") and result.media.get("height"):
        parts.append(f"{result.media['width']} × {result.media['height']}")
    if result.media.get("rate"):
        parts.append(f"{result.media['rate']} frames/s")
    model = result.provenance.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        parts.append(f"model {model['name']}")
    return " · ".join(parts)


def _notes(result: Result) -> list[str]:
    partial = ["The video could not be read whole; what is missing is not shown here."] if result.partial else []
    return partial + list(result.warnings)


def _lines(curves: Curves, segments: Sequence[Segment], labels: Sequence[str]) -> dict[str, Any]:
    """Actionness, and A · softmax(S) of the classes with the most seconds, as 16-bit fractions in base64."""
    seconds: dict[str, float] = defaultdict(float)
    for s in segments:
        seconds[s.label] += s.end - s.start
    longest = sorted(seconds, key=lambda label: (-seconds[label], label))[:MOST_LINES]
    probability = curves.probability()
    lines: list[dict[str, Any]] = [{"label": None, "values": _fractions(curves.actionness)}]
    for label in longest:
        if label in curves.classes:
            values = probability[:, curves.classes.index(label)]
            lines.append({"label": list(labels).index(label), "values": _fractions(values)})
    times = np.ascontiguousarray(curves.times, dtype="<f4")
    return {"times": base64.b64encode(times.tobytes()).decode(), "lines": lines}


def _fractions(values: np.ndarray) -> str:
    scaled = np.round(np.clip(values, 0.0, 1.0) * 65535).astype("<u2")
    return base64.b64encode(scaled.tobytes()).decode()


@dataclass(frozen=True)
class Entry:
    """One video on the index."""

    result: Result
    link: str
    """address of its page"""
    thumbnail: bytes | None
    """JPEG"""


def index(title: str, entries: Sequence[Entry]) -> str:
    """The index page of a folder: totals for each class, and a card for each video with a link to its page."""
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    videos: dict[str, set[int]] = defaultdict(set)
    for i, entry in enumerate(entries):
        for s in entry.result.segments:
            seconds[s.label] += s.end - s.start
            counts[s.label] += 1
            videos[s.label].add(i)
    rows = "".join(
        f'<tr><td class="text">{_text(label)}</td><td>{len(videos[label])}</td><td>{counts[label]}</td>'
        f"<td>{clock(seconds[label])}</td></tr>"
        for label in sorted(seconds, key=lambda label: (-seconds[label], label))
    )
    total = sum(e.result.duration for e in entries)
    return _filled(
        "index.html",
        title=_text(title),
        about=_text(f"{len(entries)} video{'s' if len(entries) != 1 else ''} · {clock(total)}"),
        css=_asset("report.css"),
        rows=rows,
        cards="".join(map(_card, entries, told_apart([entry.result.video for entry in entries]))),
    )


def _card(entry: Entry, shown: str) -> str:
    name = _text(shown)
    if entry.thumbnail is None:
        image = '<div class="blank"></div>'
    else:
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(entry.thumbnail).decode()}">'
    found: dict[str, int] = defaultdict(int)
    for s in entry.result.segments:
        found[s.label] += 1
    labels = ", ".join(
        f"{_text(label)} × {count}" for label, count in sorted(found.items(), key=lambda i: (-i[1], i[0]))
    )
    return (
        f'<li>{image}<div class="about"><a href="{escape(entry.link)}">{name}</a>'
        f'<p class="muted">{clock(entry.result.duration)}</p><p>{labels or "nothing found"}</p></div></li>'
    )


def _text(text: str) -> str:
    return escape(encodable(text))


def _json(data: Any) -> str:
    # "<" could end the script element, whatever its type. Escaped, it is the same JSON.
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _filled(name: str, **fields: str) -> str:
    return Template(_asset(name)).substitute(fields)


def _asset(name: str) -> str:
    return files("postprocess.pages").joinpath("assets", name).read_text(encoding="utf-8")

"""The index page of a folder: totals for each action, a card for each video with a link to its page, a filter."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from postprocess.evaluation.names import told_apart
from postprocess.formats.writers import clock
from postprocess.pages.fill import asset, filled, script, text
from postprocess.segment import Result


@dataclass(frozen=True)
class Entry:
    """One video on the index."""

    result: Result
    link: str
    """address of its page; "" if it has none"""
    thumbnail: bytes | None
    """JPEG"""


def index(title: str, entries: Sequence[Entry]) -> str:
    """The index page of a folder."""
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    videos: dict[str, set[int]] = defaultdict(set)
    for i, entry in enumerate(entries):
        for s in entry.result.segments:
            seconds[s.label] += s.end - s.start
            counts[s.label] += 1
            videos[s.label].add(i)
    rows = "".join(
        f'<tr><td class="text"><button type="button" class="pick" aria-pressed="false">{text(label)}</button></td>'
        f"<td>{len(videos[label])}</td><td>{counts[label]}</td><td>{short(seconds[label])}</td></tr>"
        for label in sorted(seconds, key=lambda label: (-seconds[label], label))
    )
    total = sum(e.result.duration for e in entries)
    return filled(
        "index.html",
        title=text(title),
        about=text(f"{len(entries)} video{'s' if len(entries) != 1 else ''} · {short(total)}"),
        css=asset("report.css"),
        totals="" if rows else " hidden",
        rows=rows,
        cards="".join(map(_card, entries, told_apart([entry.result.video for entry in entries]))),
        script=script("page_theme.js", "index.js"),
    )


def short(seconds: float) -> str:
    """Seconds without hundredths: 75.5 → "1:16"; a sum of many segments needs no more."""
    return clock(float(round(seconds))).removesuffix(".00")


def _card(entry: Entry, shown: str) -> str:
    if entry.thumbnail is None:
        image = '<div class="blank"></div>'
    else:
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(entry.thumbnail).decode()}">'
    found: dict[str, int] = defaultdict(int)
    for s in entry.result.segments:
        found[s.label] += 1
    labels = ", ".join(
        f"{text(label)} × {count}" for label, count in sorted(found.items(), key=lambda i: (-i[1], i[0]))
    )
    unseen = "nothing found" if entry.result.provenance else "no result yet"
    inside = (
        f'{image}<span class="about"><b>{text(shown)}</b><span class="muted">{short(entry.result.duration)}</span>'
        f"<span>{labels or unseen}</span></span>"
    )
    names = escape("\n".join(map(text, found)))
    if not entry.link:
        return f'<li data-names="{names}"><div class="card">{inside}</div></li>'
    # The page shows a way back to the index, which lies so many folders above it.
    up = entry.link.count("/") - 2 * entry.link.count("../")
    back = f"#up={up}" if up >= 0 and "../" not in entry.link else ""
    return f'<li data-names="{names}"><a class="card" href="{escape(entry.link + back)}">{inside}</a></li>'

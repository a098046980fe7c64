"""The index page of a folder: totals for each action, a card for each video with a link to its page, a filter."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile

from postprocess.evaluation.names import told_apart
from postprocess.pages.fill import asset, filled, script, short, text
from postprocess.segment import Result

MOST_NAMED = 4  # actions on a card


@dataclass(frozen=True)
class Entry:
    """One video on the index."""

    result: Result
    link: str
    """address of its page; "" if it has none"""
    thumbnail: bytes | None
    """JPEG"""


def index(entries: Sequence[Entry]) -> str:
    """The index page of a folder."""
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    videos: dict[str, set[int]] = defaultdict(set)
    for i, entry in enumerate(entries):
        for s in entry.result.segments:
            seconds[s.name] += s.end - s.start
            counts[s.name] += 1
            videos[s.name].add(i)
    rows = "".join(
        '<tr><td class="text"><button type="button" class="pick" dir="auto" aria-pressed="false">'
        f"{text(name)}</button></td>"
        f"<td>{len(videos[name])}</td><td>{counts[name]}</td><td>{short(seconds[name])}</td></tr>"
        for name in sorted(seconds, key=lambda name: (-seconds[name], name))
    )
    total = sum(e.result.duration for e in entries)
    return filled(
        "index.html",
        title=f"{len(entries)} video{'s' if len(entries) != 1 else ''}",
        about=f"{_origin([entry.result.video for entry in entries])}{short(total)} of video",
        css=asset("report.css"),
        what="see what happens when. A program watched them and may be wrong."
        if any(entry.result.provenance for entry in entries)
        else "mark the actions that you see.",
        totals="" if rows else " hidden",
        rows=rows,
        cards="".join(map(_card, entries, told_apart([entry.result.video for entry in entries]))),
        script=script("page_theme.js", "index.js"),
    )


def _origin(videos: Sequence[str]) -> str:
    """Where videos come from, as HTML: their folder, or the one that has all of their folders; "" if none is known."""
    parts = [video.replace("\\", "/").split("/")[:-1] for video in videos]
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))]
    if not common or common[-1] in ("", ".", "..") or common[-1].endswith(":"):
        return ""
    below = " and the folders in it" if any(own != common for own in parts) else ""
    return f"from the folder <bdi>{text(common[-1])}</bdi>{below} · "


def _card(entry: Entry, shown: str) -> str:
    if entry.thumbnail is None:
        image = '<div class="blank"></div>'
    else:
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(entry.thumbnail).decode()}">'
    found: dict[str, int] = defaultdict(int)
    for s in entry.result.segments:
        found[s.name] += 1
    often = sorted(found.items(), key=lambda i: (-i[1], i[0]))
    lines = [f'{count}&nbsp;× <span dir="auto">{text(name)}</span>' for name, count in often[:MOST_NAMED]]
    if len(often) > MOST_NAMED:
        more = len(often) - MOST_NAMED
        lines.append(f"and {more} more action{'s' if more != 1 else ''}")
    if not often:
        lines.append("nothing found" if entry.result.provenance else "not marked yet")
    inside = (
        f'{image}<span class="about"><b dir="auto">{text(shown)}</b>'
        f'<span class="muted">{short(entry.result.duration)} long</span>'
        + "".join(f"<span>{line}</span>" for line in lines)
        + "</span>"
    )
    names = text("\n".join(found))
    if not entry.link:
        return f'<li data-names="{names}"><div class="card">{inside}</div></li>'
    # The page shows a way back to the index, which lies so many folders above it.
    up = entry.link.count("/") - 2 * entry.link.count("../")
    back = f"#up={up}" if up >= 0 and "../" not in entry.link else ""
    return f'<li data-names="{names}"><a class="card" href="{escape(entry.link + back)}">{inside}</a></li>'

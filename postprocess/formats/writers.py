"""Writers of results as text. To add a format, add an entry to WRITERS and to SUFFIXES.

Our own formats are in this file; each format of another tool has a file beside it, which is imported when a result is
written in that format. A writer writes only to the stream that it is given.

Streams must be UTF-8. Every line of every format ends with a plain newline, which CSV and SRT readers accept like
CR LF. Open files with encoding="utf-8", newline="", and the bytes are the same on every system.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import TextIO

from postprocess.segment import Result

Writer = Callable[[Result, TextIO], None]

CSV_COLUMNS = ("video", "start", "end", "label", "confidence", "score")
CLOCK_COLUMNS = ("start_clock", "end_clock")
SPORT_COLUMN = "sport"


def write_json(result: Result, out: TextIO) -> None:
    """Write the result document, indented for people."""
    out.write(_json(result, indent=2) + "\n")


def write_jsonl(result: Result, out: TextIO) -> None:
    """Write the result document on one line."""
    out.write(_json(result, indent=None) + "\n")


def write_csv(results: Iterable[Result], out: TextIO, clocks: bool = False) -> None:
    """Write the segments of all results under one header. A video without segments has no row.

    `clocks` adds two columns with start and end as people read them (m:ss). Times are written to the millisecond,
    confidence and score to 4 decimals. If any segment has a sport, the sports are the last column: whoever reads the
    other columns by their place finds them where they were.

    People open CSV in spreadsheets, which run a text that begins like a formula (CWE-1236), and labels may come from a
    stranger's checkpoint. Such a text gets an apostrophe in front. A text that begins with an apostrophe gets one, too,
    so removing one apostrophe always restores the original. JSON has every text unchanged.
    """
    results = list(results)
    sports = any(s.sport for result in results for s in result.segments)
    columns = (*CSV_COLUMNS, *(CLOCK_COLUMNS if clocks else ()), *([SPORT_COLUMN] if sports else ()))
    out.write(",".join(columns) + "\n")
    for result in results:
        for s in result.segments:
            numbers = f"{s.start:.3f}", f"{s.end:.3f}", f"{s.confidence:.4f}", f"{s.score:.4f}"
            start, end, confidence, score = (n.removeprefix("-") if float(n) == 0 else n for n in numbers)
            more = f",{clock(s.start)},{clock(s.end)}" if clocks else ""
            more += f",{_cell(s.sport)}" if sports else ""
            out.write(f"{_cell(result.video)},{start},{end},{_cell(s.label)},{confidence},{score}{more}\n")


def _in_file(name: str, writer: str) -> Writer:
    def write(result: Result, out: TextIO) -> None:
        getattr(importlib.import_module(f"postprocess.formats.{name}"), writer)(result, out)

    return write


WRITERS: dict[str, Writer] = {
    "json": write_json,
    "jsonl": write_jsonl,
    "csv": lambda result, out: write_csv([result], out),
    "srt": _in_file("subtitles", "write_srt"),
    "vtt": _in_file("subtitles", "write_vtt"),
    "activitynet": _in_file("activitynet", "write_activitynet"),
    "edl": _in_file("edl", "write_edl"),
    "fcpxml": _in_file("fcpxml", "write_fcpxml"),
    "elan": _in_file("elan", "write_elan"),
    "sportscode": _in_file("sportscode", "write_sportscode"),
    "labelstudio": _in_file("labelstudio", "write_labelstudio"),
    "chapters": _in_file("chapters", "write_chapters"),
}

# The suffix of each format. All must differ, or one file would overwrite another.
SUFFIXES = {
    "json": ".json",
    "jsonl": ".jsonl",
    "csv": ".csv",
    "srt": ".srt",
    "vtt": ".vtt",
    "activitynet": ".activitynet.json",
    "edl": ".edl",
    "fcpxml": ".fcpxml",
    "elan": ".eaf",
    "sportscode": ".sportscode.xml",
    "labelstudio": ".labelstudio.json",
    "chapters": ".chapters.txt",
    "html": ".html",
    "overlay": ".overlay.mp4",
}

# The formats that need the curves or the video itself; pipeline/run/views.py makes them.
VIEWS = ("html", "overlay")

# The formats that hold what only the video knows, which pipeline/run/exports.py adds: its sound, its real frame rate.
OF_THE_VIDEO = ("edl", "fcpxml", "labelstudio")

# The video on a page, for videos that browsers cannot play.
PROXY = ".proxy.mp4"

# The report of a run, which lies among its results.
RUN = "_run.json"

# The formats that hold several videos in one stream.
SEVERAL = ("json", "jsonl", "csv")


def is_made(path: PurePath) -> bool:
    """Whether a video is called as those that we make from other ones, and that may lie among the footage."""
    return path.name.endswith((SUFFIXES["overlay"], PROXY))


def is_result(path: Path) -> bool:
    """Whether a .json file in an output folder may be a result, and not another format or the report of a run."""
    other = tuple(suffix for suffix in SUFFIXES.values() if suffix.endswith(".json") and suffix != ".json")
    if path.suffix != ".json" or path.name.startswith(".") or path.name == RUN or path.name.endswith(other):
        return False
    return not re.search(r"\.corrections( ?\(\d+\))?\.json$", path.name)  # what the page saves


def clock(seconds: float) -> str:
    """Seconds as people read them, rounded to hundredths: 75.5 → "1:15.50", 3675.5 → "1:01:15.50"."""
    # Rounded before splitting, or 59.999 would become 0:60.00.
    whole, hundredths = divmod(round(abs(seconds) * 100), 100)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    sign = "-" if seconds < 0 and (whole or hundredths) else ""
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
    return f"{sign}{text}.{hundredths:02d}"


def _json(result: Result, indent: int | None) -> str:
    document = result.to_dict()
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    if text.isascii():
        return text
    from postprocess.formats.text import encodable  # most results hold no other letters

    if text == encodable(text):
        return text
    # A file name that is not UTF-8 has lone surrogates in Python, and UTF-8 streams refuse these.
    return json.dumps(document, indent=indent, ensure_ascii=True, allow_nan=False)


def _cell(text: str) -> str:
    from postprocess.formats.text import encodable

    # Excel in East Asian locales treats full-width signs like plain ones.
    text = "'" * text.startswith(tuple("=+-@\t\r\n\0＝＋－＠'")) + encodable(text)
    # RFC 4180 by hand: csv.writer with bare newlines leaves a lone carriage return unquoted (Python 3.11).
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text

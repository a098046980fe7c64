"""Results as text, written to the given stream and to nothing else. A new format is one entry of WRITERS and SUFFIXES.

Our own formats are here; those of other people's tools have a file each beside this one.

The text is for UTF-8 streams, and every line of every format ends with a bare newline, which CSV and SRT
readers take as well as CR LF: open files with encoding="utf-8", newline="" and the bytes are the same on
every system.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from postprocess.formats.activitynet import write_activitynet
from postprocess.formats.chapters import write_chapters
from postprocess.formats.edl import write_edl
from postprocess.formats.elan import write_elan
from postprocess.formats.fcpxml import write_fcpxml
from postprocess.formats.labelstudio import write_labelstudio
from postprocess.formats.sportscode import write_sportscode
from postprocess.formats.subtitles import write_srt, write_vtt
from postprocess.formats.text import encodable
from postprocess.segment import Result

Writer = Callable[[Result, TextIO], None]

CSV_COLUMNS = ("video", "start", "end", "label", "confidence", "score")
CLOCK_COLUMNS = ("start_clock", "end_clock")


def write_json(result: Result, out: TextIO) -> None:
    """The result document, indented for people."""
    out.write(_json(result, indent=2) + "\n")


def write_jsonl(result: Result, out: TextIO) -> None:
    """The result document on one line."""
    out.write(_json(result, indent=None) + "\n")


def write_csv(results: Iterable[Result], out: TextIO, clocks: bool = False) -> None:
    """All segments of any number of results under one header; a video without segments has no row.

    `clocks`: two more columns, start and end as people read them (m:ss).

    Seconds to the millisecond, confidence and score to 4 decimals. CSV is what people open in a spreadsheet,
    where a text that begins like a formula is run (CWE-1236), and labels may come from a stranger's
    checkpoint: such a text gets an apostrophe in front. So does one that begins with an apostrophe, and
    dropping one therefore always gives the original back. JSON has every text as it is.
    """
    out.write(",".join((*CSV_COLUMNS, *(CLOCK_COLUMNS if clocks else ()))) + "\n")
    for result in results:
        for s in result.segments:
            numbers = f"{s.start:.3f}", f"{s.end:.3f}", f"{s.confidence:.4f}", f"{s.score:.4f}"
            start, end, confidence, score = (n.removeprefix("-") if float(n) == 0 else n for n in numbers)
            more = f",{clock(s.start)},{clock(s.end)}" if clocks else ""
            out.write(f"{_cell(result.video)},{start},{end},{_cell(s.label)},{confidence},{score}{more}\n")


WRITERS: dict[str, Writer] = {
    "json": write_json,
    "jsonl": write_jsonl,
    "csv": lambda result, out: write_csv([result], out),
    "srt": write_srt,
    "vtt": write_vtt,
    "activitynet": write_activitynet,
    "edl": write_edl,
    "fcpxml": write_fcpxml,
    "elan": write_elan,
    "sportscode": write_sportscode,
    "labelstudio": write_labelstudio,
    "chapters": write_chapters,
}

# What a file of each format ends in. No two may be alike, or one would overwrite the other.
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

# What stands for a video in the page, where no browser plays the video itself.
PROXY = ".proxy.mp4"

# The report of a run, among its results.
RUN = "_run.json"

# The formats that hold several videos in one stream.
SEVERAL = ("json", "jsonl", "csv")


def is_made(path: Path) -> bool:
    """Whether a video was made of another one by us: results may stand among the footage."""
    return path.name.endswith((SUFFIXES["overlay"], PROXY))


def is_result(path: Path) -> bool:
    """Whether a .json file of an output folder may hold a result: not one of another format, nor a run's own report."""
    other = tuple(suffix for suffix in SUFFIXES.values() if suffix.endswith(".json") and suffix != ".json")
    return (
        path.suffix == ".json" and not path.name.startswith(".") and path.name != RUN and not path.name.endswith(other)
    )


def clock(seconds: float) -> str:
    """Seconds for people: 75.5 → "1:15.50", 3675.5 → "1:01:15.50", rounded to hundredths."""
    # Rounded before it is split: otherwise 59.999 would become 0:60.00.
    whole, hundredths = divmod(round(abs(seconds) * 100), 100)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    sign = "-" if seconds < 0 and (whole or hundredths) else ""
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
    return f"{sign}{text}.{hundredths:02d}"


def _json(result: Result, indent: int | None) -> str:
    document = result.to_dict()
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    if text == encodable(text):
        return text
    # A file name that is not UTF-8 reaches Python as lone surrogates, which no UTF-8 stream takes.
    return json.dumps(document, indent=indent, ensure_ascii=True, allow_nan=False)


def _cell(text: str) -> str:
    # Excel in East Asian locales takes the full-width signs for the plain ones.
    text = "'" * text.startswith(tuple("=+-@\t\r\n\0＝＋－＠'")) + encodable(text)
    # RFC 4180 by hand: csv.writer with bare newlines leaves a lone carriage return unquoted (Python 3.11).
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text

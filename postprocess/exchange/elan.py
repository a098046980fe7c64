"""ELAN's .eaf, through pympi: a tier a class, an annotation a segment, milliseconds."""

import mimetypes
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlparse

from postprocess.exchange.annotated import Annotated, ExchangeError, Span, annotated
from postprocess.exchange.text import file_url, xml_text
from postprocess.segment import Result


def write_elan(result: Result, out: TextIO) -> None:
    """A tier a class; where segments of a class overlap, which a tier cannot hold, further tiers `class (2)`.

    The annotation's value is the label. The date is a fixed one, so that the same result is the same file.
    """
    from pympi.Elan import Eaf, to_string

    eaf = Eaf(author="jcdnet")
    eaf.adocument["DATE"] = "1970-01-01T00:00:00+00:00"
    eaf.remove_tier("default")
    kind = mimetypes.guess_type(result.video)[0] or "unknown"
    eaf.add_linked_file(file_url(result.video), mimetype=kind)
    ends: dict[str, list[int]] = defaultdict(list)  # label → where the last annotation of each of its tiers ends, ms
    for s in sorted(result.segments, key=lambda s: (s.start, s.end)):
        label = xml_text(s.label) or "action"
        first = round(s.start * 1000)
        last = max(round(s.end * 1000), first + 1)
        row = next((i for i, end in enumerate(ends[label]) if end <= first), len(ends[label]))
        tier = label if row == 0 else f"{label} ({row + 1})"
        if row == len(ends[label]):
            ends[label].append(last)
            eaf.add_tier(tier)
        ends[label][row] = last
        eaf.add_annotation(tier, first, last, label)
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n' + to_string(eaf) + "\n")


def read_elan(path: Path) -> list[Annotated]:
    """All time-aligned annotations; the label is the annotation's value, and where that is empty the tier's name.

    Raises:
        ExchangeError: not readable, not such a file, an annotation without times.
    """
    from pympi.Elan import Eaf

    if not path.is_file():
        raise ExchangeError(f"{path}: no such file; check the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions that pympi does not know and reads all the same
            eaf = Eaf(path)
        found = [
            (eaf.timeslots[begin], eaf.timeslots[end], (value or "").strip() or tier)
            for tier, (aligned, *_) in eaf.tiers.items()
            for begin, end, value, _ in aligned.values()
        ]
    except Exception as error:  # pympi raises Exception itself, and whatever a missing attribute leads to
        raise ExchangeError(f"{path}: is not an ELAN file ({error}); save it in ELAN again.") from error
    spans = []
    for start, end, label in found:
        if start is None or end is None:
            raise ExchangeError(f"{path}: annotation {label!r} has no time; align it in ELAN.")
        spans.append(Span(start / 1000, end / 1000, label))
    media = [m.get("RELATIVE_MEDIA_URL") or m.get("MEDIA_URL") for m in eaf.media_descriptors]
    linked = next((unquote(urlparse(url).path) for url in media if url), path.stem)
    return [annotated(linked, spans, str(path))]

"""ELAN's .eaf files, written and read with pympi: a tier for each class, an annotation for each segment."""

import mimetypes
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from urllib.parse import unquote, urlparse

from postprocess.formats.annotated import Annotated, ExchangeError, Span, annotated
from postprocess.formats.text import file_url, xml_text
from postprocess.segment import Result

SOUND = frozenset({".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"})


def write_elan(result: Result, out: TextIO) -> None:
    """Write a tier for each class. A tier cannot hold overlapping segments; these go into more tiers, `class (2)`.

    The value of an annotation is the label. The date is fixed, so that the same result always gives the same file.
    """
    from pympi.Elan import Eaf, to_string

    eaf = Eaf(author="jcdnet")
    eaf.adocument["DATE"] = "1970-01-01T00:00:00+00:00"
    eaf.remove_tier("default")
    kind = (mimetypes.guess_type(result.video)[0] or "unknown").replace(
        "audio/", "video/"
    )  # Python takes .3gp for audio
    eaf.add_linked_file(file_url(result.video), mimetype=kind)
    taken = {xml_text(s.label) for s in result.segments}  # a class itself may be called `class (2)`
    ends: dict[str, dict[str, int]] = defaultdict(dict)  # label → tier → end of its last annotation
    for s in sorted(result.segments, key=lambda s: (s.start, s.end)):
        label = xml_text(s.label) or "action"
        first = round(s.start * 1000)
        last = max(round(s.end * 1000), first + 1)
        tier = next((tier for tier, end in ends[label].items() if end <= first), None)
        if tier is None:
            further = (f"{label} ({number})" for number in count(2))
            tier = next(name for name in further if name not in taken) if ends[label] else label
            taken.add(tier)
            eaf.add_tier(tier)
        ends[label][tier] = last
        eaf.add_annotation(tier, first, last, label)
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n' + to_string(eaf) + "\n")


def read_elan(path: Path) -> list[Annotated]:
    """Read all annotations, in seconds of the video. The label is the value or, if it is empty, the name of the tier.

    ELAN counts from the TIME_ORIGIN of a linked file, in milliseconds: `ElanMediaPlayer.setOffset` in its source calls
    this the new point zero of the media, and its players seek to the time of an annotation plus this offset.
    Annotations without times of their own get the times that ELAN shows.

    Raises:
        ExchangeError: the file cannot be read or is not an ELAN file, or its times are not in milliseconds or not in
            order.
    """
    from pympi.Elan import Eaf

    if not path.is_file():
        raise ExchangeError(f"{path}: no such file; check the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pympi warns about versions that it does not know, but reads them
            eaf = Eaf(path)
        units = eaf.header.get("TIME_UNITS") or "milliseconds"
        video, origin, notes = _media(eaf, path)
        times, untimed = _times(eaf)
        found = [(times.get(i), _label(value, tier, eaf), tier) for i, value, tier in _annotations(eaf)]
    except Exception as error:  # pympi raises Exception itself, and other kinds for missing attributes
        raise ExchangeError(f"{path}: is not an ELAN file ({error}); save it in ELAN again.") from error
    if units != "milliseconds":
        raise ExchangeError(f"{path}: counts in {units}, but ELAN counts in milliseconds; save it in ELAN again.")
    spans, early, lost = [], 0, defaultdict[str, int](int)
    for span, label, tier in found:
        if span is None:
            lost[tier] += 1
        elif span[1] + origin < 0:
            early += 1
        else:
            spans.append(Span(max(span[0] + origin, 0) / 1000, (span[1] + origin) / 1000, label))
    notes += untimed
    notes += [
        f"tier {tier!r}: {_have(n)} no times and nothing to take times from: left out." for tier, n in lost.items()
    ]
    if early:
        notes.append(f"{_have(early)} times before the video begins: left out.")
    return [annotated(video, spans, str(path), notes)]


def _annotations(eaf: Any) -> Iterator[tuple[str, str, str]]:
    """(id, value, tier) of each annotation, in the order of the file."""
    for tier, (aligned, referring, *_) in eaf.tiers.items():
        yield from ((i, value, tier) for i, (_, _, value, _) in aligned.items())
        yield from ((i, value, tier) for i, (_, value, _, _) in referring.items())


def _label(value: str, tier: str, eaf: Any) -> str:
    """The value on one line, or the tier's name. Our own tier `tennis (2)` holds overlapping segments of `tennis`."""
    overflow = re.fullmatch(r"(.+) \((?:[2-9]|[1-9]\d+)\)", tier, re.DOTALL)
    name = overflow[1] if overflow and overflow[1] in eaf.tiers else tier
    return " ".join(value.split()) or " ".join(name.split())


def _have(number: int) -> str:
    return "1 annotation has" if number == 1 else f"{number} annotations have"


# --- times ---


def _times(eaf: Any) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Annotation → (start, end) in ELAN's milliseconds, and a note about each tier without times of its own.

    Missing times are filled in as ELAN's `TimeProposer2` and `SymbolicSubdivision` do.
    """
    slots = {slot: time for slot, time in eaf.timeslots.items() if time is not None}
    given = set(slots)
    for tier in sorted(eaf.tiers, key=lambda tier: _depth(tier, eaf)):  # children share the time slots of their parent
        _spread(eaf.tiers[tier][0].values(), slots)
    times: dict[str, tuple[int, int]] = {}
    notes = []
    for tier, (aligned, *_) in eaf.tiers.items():
        placed = {i: (slots[b], slots[e]) for i, (b, e, *_) in aligned.items() if b in slots and e in slots}
        times |= placed
        if loose := sum(not given.issuperset(aligned[i][:2]) for i in placed):
            notes.append(f"tier {tier!r}: {_have(loose)} no times of their own, and got those that ELAN shows.")
    for tier, number in _refer(eaf, times).items():
        notes.append(
            f"tier {tier!r}: {_have(number)} no times of their own, and got those of the annotations "
            "that they refer to."
        )
    return times, notes


def _spread(tier: Collection[tuple[str, ...]], slots: dict[str, int]) -> None:
    """Space time slots without a time evenly between the slots before and after them in the tier."""
    follow = {begin: end for begin, end, *_ in tier}
    for begin in [slot for slot in follow if slot in slots]:
        loose: list[str] = []
        end = follow[begin]
        while end not in slots and end in follow and len(loose) < len(follow):
            loose.append(end)
            end = follow[end]
        if loose and end in slots:
            step = (slots[end] - slots[begin]) // (len(loose) + 1)
            slots.update((slot, slots[begin] + k * step) for k, slot in enumerate(loose, start=1))


def _refer(eaf: Any, times: dict[str, tuple[int, int]]) -> dict[str, int]:
    """Add annotations that refer to others, with the same times or an equal share of them; count them by tier."""
    groups: dict[tuple[str, str], dict[str, str | None]] = defaultdict(dict)
    for tier, (_, referring, *_) in eaf.tiers.items():
        for i, (parent, _, previous, _) in referring.items():
            groups[tier, parent][i] = previous
    counts: dict[str, int] = defaultdict(int)
    while ready := [key for key in groups if key[1] in times]:
        for tier, parent in ready:
            members = _in_order(groups.pop((tier, parent)))
            start, end = times[parent]
            kind = eaf.linguistic_types.get(eaf.tiers[tier][2].get("LINGUISTIC_TYPE_REF"), {}).get("CONSTRAINTS")
            share = (end - start) / len(members)
            for k, i in enumerate(members):
                part = (start + int(k * share), start + int((k + 1) * share))
                times[i] = part if kind == "Symbolic_Subdivision" else (start, end)
            counts[tier] += len(members)
    return counts


def _in_order(group: Mapping[str, str | None]) -> list[str]:
    """The annotations of one parent, each after its previous one."""
    behind = {previous: i for i, previous in group.items() if previous in group}
    ordered: list[str] = []
    for first in (i for i, previous in group.items() if previous not in group):
        at: str | None = first
        while at is not None and at not in ordered:
            ordered.append(at)
            at = behind.get(at)
    return ordered + [i for i in group if i not in ordered]


def _depth(tier: str, eaf: Any) -> int:
    seen: set[str] = set()
    while tier in eaf.tiers and tier not in seen:
        seen.add(tier)
        tier = eaf.tiers[tier][2].get("PARENT_REF", "")
    return len(seen)


# --- the video ---


def _media(eaf: Any, path: Path) -> tuple[str, int, list[str]]:
    """The annotated video as the file names it, the time in it at which ELAN begins to count (ms), and notes."""
    linked = [m for m in eaf.media_descriptors if m.get("MEDIA_URL") or m.get("RELATIVE_MEDIA_URL")]
    videos = [m for m in linked if not _is_sound(m)]
    if not linked:
        return eaf.header.get("MEDIA_FILE") or path.stem, 0, []
    chosen = (videos or linked)[0]
    name = _file(chosen, path)
    origin = int(chosen.get("TIME_ORIGIN") or 0)
    if not videos:  # a sound file names the video that it was extracted from, or has the same name
        name = _place(chosen["EXTRACTED_FROM"])[1] if chosen.get("EXTRACTED_FROM") else str(Path(name).with_suffix(""))
        return name, origin, [f"links only sound, and was taken to belong to the video {name!r}."]
    more = [f"links {len(videos)} videos, and was taken to belong to the first, {name!r}."] if len(videos) > 1 else []
    return name, origin, more


def _is_sound(descriptor: Mapping[str, str]) -> bool:
    url = descriptor.get("MEDIA_URL") or descriptor.get("RELATIVE_MEDIA_URL") or ""
    suffix = PurePosixPath(_place(url)[1]).suffix.lower()
    says = descriptor.get("MIME_TYPE", "").lower()
    return suffix in SOUND or (says.startswith("audio/") and not suffix.startswith(".3g"))


def _file(descriptor: Mapping[str, str], path: Path) -> str:
    """The name of a linked file. It has two addresses with two readings each; the first that exists is used."""
    urls = filter(None, (descriptor.get("MEDIA_URL"), descriptor.get("RELATIVE_MEDIA_URL")))
    readings = [reading for url in urls for reading in _place(url)]
    there = (name for name in readings if (path.parent / name).is_file())
    return next(there, readings[1])


def _place(url: str) -> tuple[str, str]:
    """The path of an address, unchanged and decoded: ELAN does not escape names, other tools do."""
    if re.match(r"(?i)(https?|rtsp|ftp):", url):
        text = urlparse(url).path
    else:
        text = re.sub(r"(?i)^file:(//(?=/|[A-Z]:))?", "", url)
        text = re.sub(r"(?i)^/+(?=[A-Z]:[/\\])", "", text)
    text = str(PurePosixPath(text)) if text else url
    return text, unquote(text)

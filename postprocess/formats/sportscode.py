"""The XML timeline of Hudl Sportscode, which LongoMatch, Nacsport, Metrica and others also read and write."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TextIO

from postprocess.formats.annotated import Annotated, ExchangeError, Span, annotated
from postprocess.formats.text import xml_text
from postprocess.palette import COLOURS, rgb
from postprocess.segment import Result


def write_sportscode(result: Result, out: TextIO) -> None:
    """Write an instance for each segment: its label as code, times to the millisecond, and a colour for each label.

    The sport is a label of the instance beside the confidence, since the code is read back as the action's name.
    """
    root = ET.Element("file")
    instances = ET.SubElement(root, "ALL_INSTANCES")
    for index, s in enumerate(sorted(result.segments, key=lambda s: (s.start, s.end)), start=1):
        instance = ET.SubElement(instances, "instance")
        for tag, text in (("ID", str(index)), ("start", f"{s.start:.3f}"), ("end", f"{s.end:.3f}")):
            ET.SubElement(instance, tag).text = text
        ET.SubElement(instance, "code").text = xml_text(s.label)
        for group, text in (("confidence", f"{s.confidence:.2f}"), ("sport", xml_text(s.sport))):
            if text:
                label = ET.SubElement(instance, "label")
                ET.SubElement(label, "group").text = group
                ET.SubElement(label, "text").text = text
    rows = ET.SubElement(root, "ROWS")
    for index, code in enumerate(sorted({xml_text(s.label) for s in result.segments})):
        row = ET.SubElement(rows, "row")
        ET.SubElement(row, "code").text = code
        for tag, value in zip("RGB", rgb(COLOURS[index % len(COLOURS)]), strict=True):
            ET.SubElement(row, tag).text = str(value * 257)  # 16 bits for each channel
    ET.indent(root)
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n")


def read_sportscode(path: Path) -> list[Annotated]:
    """Read the instances of one timeline. The format does not name its video, so the name of the file is used.

    Raises:
        ExchangeError: the file cannot be read or has another form, or an instance lacks its code or times.
    """
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two for encodings that expat does not know
        raise ExchangeError(f"{path}: is not XML ({error}); export the timeline as XML again.") from error
    instances = root.find("ALL_INSTANCES")
    if instances is None:
        raise ExchangeError(f"{path}: has no ALL_INSTANCES; export the timeline as Sportscode XML.")
    spans = []
    for i, instance in enumerate(instances.iter("instance"), start=1):
        try:
            start, end = (float(instance.findtext(tag, "").replace(",", ".")) for tag in ("start", "end"))
        except ValueError as error:
            raise ExchangeError(f"{path}: instance {i} has no start and end in seconds; export it again.") from error
        spans.append(Span(start, end, instance.findtext("code", "").strip()))
    return [annotated(path.stem.removesuffix(".sportscode"), spans, str(path))]

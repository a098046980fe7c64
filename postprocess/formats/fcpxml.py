"""FCPXML 1.8 for Final Cut Pro and DaVinci Resolve; for Premiere use EDL. Every time is a fraction of seconds."""

import xml.etree.ElementTree as ET
from fractions import Fraction
from typing import TextIO

from postprocess.formats.text import file_name, file_url, xml_text
from postprocess.formats.timecode import frames_of, rate_of, sound_of, start_of
from postprocess.segment import Result


def write_fcpxml(result: Result, out: TextIO) -> None:
    """Write a project with the segments as clips, one after the other in order of time, with their names as markers.

    Times are whole frames, written for example as n · 1001/30000 s, as Final Cut requires. The clips have the source's
    sound if `media.audio` says that it has some.

    Raises:
        ResultError: the result has no frame rate.
    """
    rate = rate_of(result)
    begin, drop = start_of(result, rate)
    spans = [(s, *frames_of(s, rate)) for s in sorted(result.segments, key=lambda s: (s.start, s.end))]
    length = max([1, round(Fraction(result.duration) * rate), *(behind for _, _, behind in spans)])
    name = xml_text(file_name(result.video))
    shape = "DF" if drop else "NDF"

    def time(frames: int) -> str:
        if (seconds := frames / rate).denominator == 1:
            return f"{seconds.numerator}s"
        return f"{frames * rate.denominator}/{rate.numerator}s"

    root = ET.Element("fcpxml", version="1.8")
    resources = ET.SubElement(root, "resources")
    picture = {key: str(result.media[key]) for key in ("width", "height") if result.media.get(key)}
    step = f"{rate.denominator}/{rate.numerator}s"
    ET.SubElement(
        resources, "format", {"id": "r1", "name": "FFVideoFormatRateUndefined", "frameDuration": step} | picture
    )
    channels, hertz = sound_of(result)
    heard = {"hasAudio": "1", "audioSources": "1", "audioChannels": str(channels), "audioRate": str(hertz)}
    asset = {"name": name, "src": file_url(result.video), "start": time(begin), "duration": time(length)}
    ET.SubElement(
        resources, "asset", {"id": "r2"} | asset | {"hasVideo": "1", "format": "r1"} | (heard if channels else {})
    )
    project = ET.SubElement(ET.SubElement(ET.SubElement(root, "library"), "event", name="jcdnet"), "project", name=name)
    total = sum(behind - first for _, first, behind in spans)
    sequence = ET.SubElement(project, "sequence", format="r1", duration=time(total), tcStart="0s", tcFormat=shape)
    if channels:
        sequence.attrib |= {"audioLayout": "mono" if channels == 1 else "stereo", "audioRate": "48k"}
    spine = ET.SubElement(sequence, "spine")
    at = 0
    for s, first, behind in spans:
        label = xml_text(s.name) or "action"
        clip = ET.SubElement(
            spine, "asset-clip", ref="r2", name=label, offset=time(at), start=time(begin + first),
            duration=time(behind - first), format="r1", tcFormat=shape,
        )  # fmt: skip
        if channels:
            clip.set("audioRole", "dialogue")
        ET.SubElement(
            clip, "marker", start=time(begin + first), duration=time(1), value=label,
            note=f"confidence {s.confidence:.2f}",
        )  # fmt: skip
        at += behind - first
    ET.indent(root)
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n')
    out.write(ET.tostring(root, encoding="unicode") + "\n")

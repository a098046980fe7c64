"""Draws on pictures: title cards, and the labels and bars of the actions that are going on."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from pipeline.clips.encode import Image
from postprocess.palette import COLOURS, rgb
from postprocess.segment import Segment, percent

ROOM = 0.06  # the height of a line of text, as a part of the picture's height
LEAST = 13  # pixels; smaller letters are illegible


@cache
def _font(size: int, bold: bool = False) -> Any:
    from matplotlib import get_data_path  # only here: the import takes half a second

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def colours(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return label → RGB. Colours follow the order of the names, so a class has the same one in every picture."""
    return {label: rgb(COLOURS[i % len(COLOURS)]) for i, label in enumerate(sorted(set(labels)))}


def card(size: tuple[int, int], title: str, below: str) -> Image:
    """Return a title card (H, W, 3) with the title, as large as possible, and a line below it."""
    height, width = size
    image = Pillow.new("RGB", (width, height), "black")
    pen = ImageDraw.Draw(image)
    large = max(LEAST, height // 9)
    while large > LEAST and pen.textlength(title, font=_font(large, bold=True)) > 0.9 * width:
        large -= 1
    heading = _shortened(pen, title, _font(large, bold=True), 0.9 * width)
    pen.text((width / 2, height * 0.46), heading, "white", _font(large, bold=True), anchor="mm")
    small = max(LEAST, min(3 * large // 4, height // 18))
    below = _shortened(pen, below, _font(small), 0.9 * width)
    pen.text((width / 2, height * 0.46 + large * 1.3), below, "#bbbbbb", _font(small), anchor="mm")
    return np.array(image)


class Overlay:
    """Draws the labels of running segments, bars of their confidence, and the position in the video."""

    def __init__(self, segments: Sequence[Segment], duration: float) -> None:
        self.segments, self.duration = sorted(segments, key=lambda s: (s.start, s.end)), max(duration, 1e-6)
        self.colour = colours([s.label for s in segments])
        self._panels: dict[tuple[Any, ...], Image] = {}
        self._line, self._covered = np.zeros((1, 0, 3), np.uint8), np.zeros(0, bool)

    def draw(self, image: Image, time: float) -> Image:
        """Return a copy of the picture (H, W, 3) at `time` (s) with the drawing on it."""
        image = image.copy()
        height, width = image.shape[:2]
        line = max(LEAST + 6, round(height * ROOM))
        strip = max(3, height // 70)
        self._strip(image[height - strip :], time)
        top = height - strip
        for s in reversed([s for s in self.segments if s.start <= time < s.end][: max(1, (top // line) // 2)]):
            panel = self._panel(s, width, line)
            top -= line
            under = image[top : top + line, : panel.shape[1]].astype(np.uint16)
            opaque = panel[: under.shape[0], : under.shape[1], 3:].astype(np.uint16)
            mixed = (under * (255 - opaque) + panel[: under.shape[0], : under.shape[1], :3] * opaque) // 255
            image[top : top + line, : panel.shape[1]] = mixed.astype(np.uint8)
        return image

    def _strip(self, strip: Image, time: float) -> None:
        """Draw the whole video as a line: segments in their colours, and the position in white."""
        width = strip.shape[1]
        if self._line.shape[1] != width:
            self._line = np.zeros((1, width, 3), np.uint8)
            self._covered = np.zeros(width, bool)
            for s in self.segments:
                left, right = (int(t / self.duration * width) for t in (s.start, s.end))
                self._line[:, left : max(right, left + 1)] = self.colour[s.label]
                self._covered[left : max(right, left + 1)] = True
        strip[:] = np.where(self._covered[:, None], self._line, strip // 4)
        here = min(width - 1, int(time / self.duration * width))
        strip[:, max(0, here - 1) : here + 1] = 255

    def _panel(self, s: Segment, width: int, line: int) -> Image:
        """Return (line, W', 4) RGBA with one label and its bar; it is the same for every frame of the segment."""
        number = percent(s.confidence)
        key = (s.name, number, width, line)
        if key not in self._panels:
            if len(self._panels) > 64:  # a bound on memory: long videos have many labels
                self._panels.clear()
            size = max(LEAST, round(line * 0.62))
            font = _font(size)
            bar = max(24, width // 8)
            canvas = Pillow.new("RGBA", (width, line), (0, 0, 0, 150))
            pen = ImageDraw.Draw(canvas)
            text = _shortened(pen, s.name, font, width - bar - 5 * size)
            pad = line // 4
            pen.rectangle((pad, pad, pad + bar, line - pad), fill=(255, 255, 255, 70))
            pen.rectangle((pad, pad, pad + bar * s.confidence, line - pad), fill=(*self.colour[s.label], 255))
            at = 2 * pad + bar
            pen.text((at, line / 2), f"{number}  {text}", "white", font, anchor="lm")
            end = min(width, round(at + pen.textlength(f"{number}  {text}", font=font) + 2 * pad))
            self._panels[key] = np.array(canvas)[:, :end]
        return self._panels[key]


def _shortened(pen: Any, text: str, font: Any, room: float) -> str:
    """Return the text on one line, shortened with an ellipsis to `room` pixels."""
    text = " ".join(text.split()).encode("utf-8", "replace").decode("utf-8") or "action"
    if pen.textlength(text, font=font) <= room:
        return text
    while text and pen.textlength(text + "…", font=font) > room:
        text = text[:-1]
    return text + "…"

"""The picture of one video: whole files, in both formats, for whatever was found and however it is called."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from conftest import coded
from PIL import Image
from test_plots import size

from postprocess.curves import Curves
from postprocess.pages.timeplot import MOST, _pattern, _shown, timeline
from postprocess.palette import COLOURS
from postprocess.segment import Result, Segment

NAMES = ("serve", "<b> & $x", r"a $\frac$ \b", "ünï \udce9")


def result(names: tuple[str, ...] = NAMES) -> Result:
    segments = tuple(Segment(3.0 * i, 3.0 * i + 2, 0, 0.2 + 0.1 * (i % 8), name) for i, name in enumerate(names))
    return Result("/footage/my <$match$>.mp4", 19.84, {}, segments, (), {})


def curves(names: tuple[str, ...] = NAMES, steps: int = 31) -> Curves:
    rng = np.random.default_rng(0)
    times = np.arange(steps)[:, None] * 0.64 + np.array([0.0, 0.64])
    cas, coarse = rng.normal(size=(2, steps, len(names) + 1)).astype(np.float32)
    return Curves(times, rng.random(steps).astype(np.float32), cas, coarse, names)


FRAMES = [coded(k, 90, 160) for k in range(4)] + [coded(9, 160, 90)]


@pytest.mark.parametrize("with_truth", [False, True])
@pytest.mark.parametrize("with_curves", [False, True])
@pytest.mark.parametrize("names", [(), NAMES, tuple("abcdefghijkl")])
def test_a_whole_picture(names: tuple[str, ...], with_curves: bool, with_truth: bool) -> None:
    truth = [(0.0, 4.0, "serve"), (5.0, 6.0, "never found")] if with_truth else None
    width, height = size(timeline(result(names), curves(names) if with_curves else None, FRAMES, truth))
    assert width == 1200 and 150 <= height <= 1200


def test_an_svg_holds_the_names_as_text_and_no_markup_of_theirs() -> None:
    text = timeline(result(), curves(), FRAMES[:2], [(0, 1, "serve")], "svg")
    root = ET.fromstring(text)
    said = "".join(root.itertext())
    assert "<b> & $x" in said and "my <$match$>.mp4" in said and "truth" in said and "no action" in said
    assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in ("b", "script")]


def test_axes_speak_of_what_a_coach_knows() -> None:
    """The formulas are in docs/exporting.md."""
    root = ET.fromstring(timeline(result(), curves(), (), None, "svg"))
    said = " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text"))
    words = ("how sure at each moment", "(grey: of any action)", "100%", "first guess", "final guess")
    words = (*words, "piece of the video (0.64 s each; darker: surer)")
    assert [w for w in words if w not in said] == []
    assert not [w for w in ("softmax", "coarse", "actionness", "snippet", "background", "·") if w in said]


def test_bars_and_curves_are_where_the_seconds_are() -> None:
    """The columns of the bar's colour, measured on a true action that lasts all of the video."""
    only = Result("v.mp4", 20.0, {}, (Segment(5.0, 10.0, 0, 1.0, "serve"),), (), {})
    picture = timeline(only, None, truth=[(0.0, 20.0, "whole")])
    image = np.array(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)

    def widest(red: int, green: int, blue: int) -> np.ndarray:
        """First and last column of the row that has most of a colour: of its bar, not of its patch in the legend."""
        mask = np.abs(image - np.array([red, green, blue])).sum(axis=2) < 12
        return np.flatnonzero(mask[int(np.argmax(mask.sum(axis=1)))])[[0, -1]]

    bar, (left, right) = widest(0, 114, 178), widest(230, 159, 0)
    assert (bar - left) / (right - left) == pytest.approx([0.25, 0.5], abs=0.004)


def test_the_longest_classes_are_shown_in_order_of_appearance() -> None:
    spans = [(float(i), i + 1.0 + (i % 7), chr(97 + i)) for i in range(15)]
    found = Result("v", 40.0, {}, tuple(Segment(s, e, 0, 1, n) for s, e, n in spans), (), {})
    shown = _shown(found, [(0.5, 30.0, "true")])
    assert len(shown) == MOST and shown[0] == "true" and shown[1:] == sorted(shown[1:])


def test_every_bar_has_a_name_and_a_look_of_its_own() -> None:
    """With truth, and with more names than there are colours."""
    spans = [(2.0 * i, 2.0 * i + 1.0, f"class {i:02}") for i in range(3 * MOST)]
    found = Result("v", 60.0, {}, tuple(Segment(s, e, 0, 1, n) for s, e, n in spans[: 2 * MOST]), (), {})
    drawing = timeline(found, None, truth=spans, form="svg").decode()
    texts = "".join(ET.fromstring(drawing).itertext())
    assert all(name in texts for _, _, name in spans) and "more" not in texts
    assert drawing.count("<pattern ") == 2 * 8  # of the second and the third eight, one for each colour
    assert "#bbbbbb" in drawing  # the axis alone
    looks = {(COLOURS[i % 8], _pattern(i // 8)) for i in range(100)}
    assert len(looks) == 100


def test_a_video_without_a_snippet() -> None:
    assert size(timeline(Result("v", 0.0, {}, (), (), {}), curves(steps=0)))


def test_a_sport_of_the_truth_and_its_action_have_one_colour() -> None:
    found = (Segment(0, 4, 0, 1, "playing tennis", "tennis"), Segment(5, 8, 0, 1, "squat", "weightlifting"))
    drawing = timeline(
        Result("v", 10.0, {}, found, (), {}), None, truth=[(0, 4, "tennis"), (5, 8, "squat")], form="svg"
    )
    texts = "".join(ET.fromstring(drawing.decode()).itertext())
    assert "tennis" in texts and "playing tennis" not in texts and "squat" in texts and "weightlifting" not in texts

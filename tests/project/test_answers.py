"""What docs/faq.md and docs/editors.md say of jcdnet is what it does."""

import io
import json
import os
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from extractors.backbones import weights
from extractors.config import FeatureConfig
from extractors.features import Features
from extractors.features import save as save_features
from pipeline.run.videos import VIDEO_SUFFIXES
from postprocess.formats.writers import WRITERS
from postprocess.segment import Result, Segment

ROOT = Path(__file__).parents[2]
FAQ, EDITORS = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("faq.md", "editors.md"))
WORDS = " ".join(FAQ.split())  # wherever its lines are broken
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


def test_every_question_is_in_the_list_of_questions() -> None:
    asked = re.findall(r"^## (.+)$", FAQ, re.MULTILINE)
    listed = re.findall(r"^- \[(.+)\]\(#", FAQ, re.MULTILINE)
    assert asked == listed and len(asked) > 12


def test_the_suffixes_are_those_that_a_folder_is_searched_for() -> None:
    (sentence,) = re.findall(r"files with these suffixes are taken: ([^.]+)\.", WORDS)
    assert {f".{name.strip()}" for name in sentence.split(",")} == VIDEO_SUFFIXES


def test_the_picture_is_scaled_and_cropped_as_it_says() -> None:
    settings = FeatureConfig()
    assert f"shorter side has {settings.short_side} pixels" in WORDS
    assert f"middle square of {settings.crop} pixels" in WORDS
    # A picture of 16:9 at this size; "about half the width".
    assert settings.crop / (settings.short_side * 16 / 9) == pytest.approx(0.5, abs=0.02)


@needs_weights
@pytest.mark.usefixtures("own_cache")
def test_no_stream_no_address_no_sound_alone(jcdnet, tmp_path: Path) -> None:
    assert "It reads finished files: a URL and a pipe are refused." in WORDS
    code, _, said = jcdnet("run", "https://example.com/match.mp4")
    assert code == 2 and "https://example.com/match.mp4: jcdnet reads files: download it first" in said
    os.mkfifo(tmp_path / "live.mp4")
    code, _, said = jcdnet("run", tmp_path / "live.mp4")
    assert code == 3 and "is a pipe or a device, not a file" in said
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    code, _, said = jcdnet("run", tmp_path / "sound.wav")
    assert code == 3 and "holds no video stream" in said


def test_an_hour_takes_23_mb(tmp_path: Path) -> None:
    assert "about 23 MB" in WORDS and "5,625 snippets" in WORDS
    rows = round(3600 / 0.64)
    assert rows == 5625
    rng = np.random.default_rng(0)
    times = np.arange(rows)[:, None] * 0.64 + np.array([0.0, 0.64])
    features = Features(rng.random((rows, 1024), np.float32), None, times, 3600.0, {}, {"rgb": {"fps": 25.0}})
    save_features(features, tmp_path / "hour.npz")
    assert (tmp_path / "hour.npz").stat().st_size / 1e6 == pytest.approx(23, abs=0.5)


def readme_result() -> Result:
    """The README's video with its first segment, as docs/formats.md shows it (tools/examples.py keeps it true)."""
    (shown,) = re.findall(r"^```json\n(.*?)^```", (ROOT / "docs" / "formats.md").read_text(), re.DOTALL | re.MULTILINE)
    return Result.from_dict(json.loads(shown))


@pytest.mark.parametrize(("form", "language"), [("edl", ""), ("fcpxml", "xml")])
def test_the_files_that_are_shown_are_what_is_written(form: str, language: str) -> None:
    out = io.StringIO()
    WRITERS[form](readme_result(), out)
    written = [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    if language:
        (shown,) = re.findall(rf"^```{language}\n(.*?)^```", EDITORS, re.DOTALL | re.MULTILINE)
    else:
        shown = "\n".join(re.findall(r"^    (.*)$", EDITORS, re.MULTILINE))
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert len(lines) >= 3 and [line for line in lines if line not in written] == []


def test_time_codes_begin_where_it_says() -> None:
    """`10:00:00;00` and drop-frame at 29.97, and drop-frame without a time code there."""
    assert "`10:00:00;00`" in EDITORS and "`FCM: DROP FRAME`" in EDITORS
    for own, first in ((None, "00:00:00;00"), ("10:00:00;00", "10:00:00;00"), ("10:00:00:00", "10:00:00:00")):
        media = {"rate": "30000/1001", "start_timecode": own}
        out = io.StringIO()
        WRITERS["edl"](Result("a.mov", 4.0, media, (Segment(0, 2, 0, 1, "a"),), (), {}), out)
        assert f"FCM: {'DROP FRAME' if ';' in first else 'NON-DROP FRAME'}" in out.getvalue()
        assert f" {first} " in out.getvalue()

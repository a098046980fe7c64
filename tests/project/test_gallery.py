"""The pictures of docs/gallery.md are small, all there, and made by tools/gallery.py."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pipeline.run.results import pack
from postprocess.curves import Curves
from postprocess.segment import Result, Segment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"images/(\w+\.png)", PAGE)


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "tools" / "gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_there_small_and_described() -> None:
    folder = ROOT / "docs" / "images"
    sizes = [(folder / name).stat().st_size for name in SHOWN]
    assert len(sizes) == 6 and max(sizes) < 150_000 and sum(sizes) < 700_000
    for name in SHOWN:
        with Image.open(folder / name) as picture:
            picture.verify()
            assert picture.format == "PNG"
    described = re.findall(r"!\[([^\]]+)\]\(images/", PAGE) + re.findall(r'alt="([^"]+)"', PAGE)
    assert len(described) == len(SHOWN), "each with words for those who do not see it"


def test_the_test_picture_moves_and_shows_the_time(gallery: ModuleType, tmp_path: Path) -> None:
    gallery.draw_video(tmp_path / "footage" / "match.mp4", 2.0)
    for second in (0.0, 1.5):
        shown = gallery.frame_at(tmp_path / "footage" / "match.mp4", second).astype(int)
        assert shown.shape == (360, 640, 3)
        assert np.abs(shown - gallery.drawn(second)).mean() < 4  # as it was drawn, but for the codec
    assert np.abs(gallery.drawn(0.0).astype(int) - gallery.drawn(1.5)).max() > 100


@pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="no Chromium here: apt install chromium chromium-driver",
)
def test_the_tool_makes_all_pictures_but_the_plot(gallery: ModuleType, tmp_path: Path) -> None:
    times = np.arange(9)[:, None] * 0.64 + np.array([0.0, 0.64])
    cas = np.zeros((9, 3), np.float32)
    cas[2:5, 0] = cas[6:, 1] = 5
    found = (Segment(1.28, 3.2, 5.0, 0.9, "serve"), Segment(3.84, 5.76, 5.0, 0.95, "rally"))
    (tmp_path / "match.json").write_text(json.dumps(Result("match.mp4", 6.0, {"rate": "25"}, found, (), {}).to_dict()))
    curves = Curves(times, np.full(9, 0.9, np.float32), cas, cas, ("serve", "rally"))
    (tmp_path / "match.scores.npz").write_bytes(pack(curves))
    gallery.make(tmp_path / "match.json", tmp_path / "out")
    made = {path.name: Image.open(path).convert("RGB") for path in (tmp_path / "out").iterdir()}
    assert set(made) == set(SHOWN) - {"match.png"}
    light, dark = (np.asarray(made[f"page_{theme}.png"]) for theme in ("light", "dark"))
    assert light.shape == dark.shape == (1000, 1100, 3)
    assert light[-5, 5].min() > 240 and dark[-5, 5].max() < 40, "the ground of the page, below the player"
    assert made["page_phone.png"].size == (390, 1560)
    player = np.asarray(made["page_light.png"])[100, 300].astype(int)
    assert np.abs(player - (0x2F, 0x6B, 0x4F)).max() < 12, "the field of the test picture"
    assert np.asarray(made["reel_card.png"])[5, 5].max() < 4

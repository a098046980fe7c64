"""The whole round: a page with mistakes, corrected by hand, imported, trained on, run: the result follows."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import CHROMIUM, DRIVER, NONE_HERE, Browser, at, click, downloaded, on_canvas, press, show, started, until
from conftest import encode
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from extractors.backbones import registry
from extractors.backbones.registry import Backbone
from postprocess.segment import Result, Segment

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=NONE_HERE)]
Run = Callable[..., tuple[int, str, str]]
RED, BLUE, GREY = (200, 40, 40), (40, 40, 200), (110, 110, 110)
DURATION = 12.8  # seconds: 20 snippets


class Means(torch.nn.Module):
    """Features that are the colours of a snippet, noised by its brightness: red and blue are told apart, and grey."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4)).repeat(1, 342)[:, :1024]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with started(tmp_path) as driver:
        yield driver


def video(path: Path, red: tuple[float, float], blue: tuple[float, float], seed: int) -> Path:
    """Grey, with a red stretch and a blue one."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(round(25 * DURATION)):
        inside = [colour for (a, b), colour in ((red, RED), (blue, BLUE)) if a <= k / 25 < b]
        base = np.array(inside[0] if inside else GREY) + rng.integers(-15, 16, (48, 72, 1))
        frames.append(np.clip(base, 0, 255).astype(np.uint8))
    path.parent.mkdir(exist_ok=True)
    return encode(path, frames, options={"g": "5", "preset": "veryfast"})


def correct(browser: Browser, red: tuple[float, float], blue: tuple[float, float]) -> None:
    """Drag the end of the first segment to where the red ends, reject the second, add the blue by keys."""
    canvas = browser.find_element(By.ID, "canvas").rect["width"]

    def x(seconds: float) -> float:
        return seconds / DURATION * canvas

    hand = on_canvas(browser, x(red[0] + 0.8), 22 + 25).click_and_hold()
    hand.move_by_offset(10, 0).move_by_offset(round(x(red[1] - red[0] - 0.8)) - 10, 0).release().perform()
    browser.find_elements(By.CSS_SELECTOR, "#body .no")[1].click()
    for seconds, key in ((blue[0], "i"), (blue[1], "o")):
        on_canvas(browser, x(seconds), 10).click().perform()
        at(browser)
        press(browser, key)
    press(browser, Keys.ENTER)
    until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
    ActionChains(browser).send_keys("net", Keys.ENTER).perform()
    click(browser, "complete")


def test_the_result_follows_the_corrections(
    browser: Browser, jcdnet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BACKBONES, "i3d", lambda stream, path: Backbone(Means, 1024, "means"))
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    footage, results, marks = tmp_path / "footage", tmp_path / "results", tmp_path / "downloads"
    results.mkdir()
    spans = {"a": ((1, 4), (8, 10)), "b": ((2, 5), (9, 11)), "c": ((5, 8), (1, 3)), "d": ((6, 9), (2, 4.5))}
    for n, (name, (red, blue)) in enumerate(spans.items()):
        made = video(footage / f"{name}.mp4", red, blue, n)
        # An earlier model saw the beginning of each serve, called the grey behind it one, too, and knew no net.
        wrong = (Segment(red[0], red[0] + 0.8, 1, 0.9, "serve"), Segment(red[1] + 0.2, red[1] + 1, 1, 0.8, "serve"))
        found = Result(str(made), DURATION, {"rate": "25"}, wrong, (), {"content": name})
        (results / f"{name}.json").write_text(json.dumps(found.to_dict()))
    assert jcdnet("report", results)[0] == 0
    for name, (red, blue) in spans.items():
        show(browser, results / f"{name}.html")
        correct(browser, red, blue)
        document = json.loads(downloaded(browser, tmp_path).read_text())
        serve, net = sorted(document["segments"], key=lambda s: s["label"], reverse=True)
        assert (serve["label"], net["label"], len(document["rejected"])) == ("serve", "net", 1)
        assert (serve["start"], serve["end"]) == pytest.approx(red, abs=0.1)
        assert (net["start"], net["end"]) == pytest.approx(blue, abs=0.1)

    labels, times = tmp_path / "labels.csv", tmp_path / "times.csv"
    code, _, said = jcdnet("labels", "import", marks, "--from", "jcdnet", "--videos", footage, "-o", labels,
                        "--times", times, "--ground-truth", tmp_path / "truth.json")  # fmt: skip
    assert code == 0 and "4 videos, 8 segments" in said
    model = tmp_path / "runs" / "tennis"
    code, _, said = jcdnet("train", labels, "--times", times, "--videos", footage, "-o", model, "--steps", 200,
                        "--dim", 32, "--folds", 0, "--stride", 16)  # fmt: skip
    assert code == 0, said
    new = video(tmp_path / "new" / "match.mp4", (7, 10), (3, 5), 9)
    code, out, said = jcdnet("run", new, "--model", model, "-o", "-")
    assert code == 0, said
    drawn = sorted((s["start"], s["end"], s["label"]) for s in json.loads(out)["segments"])
    assert [label for _, _, label in drawn] == ["net", "serve"]  # nothing in the grey, which was rejected
    for (start, end, _), true in zip(drawn, ((3, 5), (7, 10)), strict=True):
        assert (start, end) == pytest.approx(true, abs=0.64)  # a snippet

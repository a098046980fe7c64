"""The index in a real browser, and what a first look at a page stumbled over: on a phone, in both themes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, DRIVER, NONE_HERE, Browser, click, press, quiet, show, started, until, visible
from conftest import coded, encode
from selenium.webdriver.common.by import By

from pipeline.run.results import Stored
from pipeline.run.views import write_page, write_pages
from postprocess.segment import Result, Segment

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=NONE_HERE)

LABELS = ("playing basketball", "playing ice hockey", "clean and jerk", "dunking")
SHOWN = (
    "return [...document.querySelectorAll('#cards li')].filter(c => !c.hidden)"
    ".map(c => c.querySelector('b').textContent)"
)

# The words of some elements that are on several lines: their own rectangle, of a range around them, is not one.
BROKEN = """
const found = [];
for (const cell of document.querySelectorAll(arguments[0])) {
  const text = cell.firstChild;
  for (const word of text.data.matchAll(/\\S+/g)) {
    const range = document.createRange();
    range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
    if (range.getClientRects().length > 1) found.push(word[0]);
  }
}
return found;
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of three videos, one of them in a folder below, one without a segment."""
    folder = tmp_path_factory.mktemp("index")
    spans = tuple(Segment(0.2 * i, 0.2 * i + 0.15, 1.0, 0.9, label) for i, label in enumerate(LABELS))
    stored = []
    for name, segments in (("final", spans), ("day 2/training", spans[:1]), ("warm up", ())):
        video = encode(folder / f"{name.replace('/', ' ')}.mp4", [coded(k) for k in range(25)])
        result = Result(str(video), 1.0, {"rate": "24000/1001"}, segments, (), {"content": name})
        stored.append(Stored(folder / "out" / f"{name}.json", result))
    assert all(wrong is None for _, wrong in write_pages(stored, folder / "out", folder / "out"))
    return folder


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with started(folder) as driver:
        yield driver


@pytest.fixture
def phone(browser: Browser) -> Iterator[None]:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_no_word_is_broken_and_no_heading_cut(browser: Browser, folder: Path, phone: None) -> None:
    show(browser, folder / "out" / "index.html", ready=False)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    cut = browser.execute_script(
        "const box = document.querySelector('.rows').getBoundingClientRect();"
        "return [...document.querySelectorAll('th')].filter(h => h.scrollWidth > h.clientWidth"
        " || h.getBoundingClientRect().right > box.right + 1).map(h => h.textContent)"
    )
    assert cut == []
    broken = browser.execute_script(BROKEN, ".pick")
    assert broken == []


@pytest.mark.parametrize("width", [1300, 1210, 1020, 780, 390])
def test_no_word_of_the_table_is_broken_at_any_width(browser: Browser, folder: Path, width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        show(browser, folder / "out" / "final.html")
        browser.execute_script("document.body.classList.add('detailed')")  # with the column of scores
        assert browser.execute_script(BROKEN, "#body td.text") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_card_leads_to_its_page_and_the_page_back(browser: Browser, folder: Path) -> None:
    index = (folder / "out" / "index.html").as_uri()
    for name, picture in (("final.mp4", True), ("day 2 training.mp4", False)):
        show(browser, folder / "out" / "index.html", ready=False)
        card = browser.find_element(By.PARTIAL_LINK_TEXT, name)
        (card.find_element(By.TAG_NAME, "img") if picture else card).click()
        until(browser, lambda: browser.execute_script("return document.getElementById('video')?.readyState >= 1"))
        assert browser.title == name
        click(browser, "back")
        until(browser, lambda: browser.current_url == index)
    show(browser, folder / "out" / "final.html")  # opened by itself, it knows of no index
    assert not browser.find_element(By.ID, "back").is_displayed()
    quiet(browser)


def test_an_address_cannot_lead_the_way_back_elsewhere(browser: Browser, folder: Path) -> None:
    for fragment in ("#up=javascript:alert(1)", "#up=1/../evil", "#up=100"):
        browser.get((folder / "out" / "final.html").as_uri() + fragment)
        browser.refresh()
        assert not browser.find_element(By.ID, "back").is_displayed()


def test_the_filter_finds_videos_and_actions(browser: Browser, folder: Path) -> None:
    show(browser, folder / "out" / "index.html", ready=False)
    assert browser.execute_script(SHOWN) == ["final.mp4", "day 2 training.mp4", "warm up.mp4"]
    for words, left in (("TRAIN", ["day 2 training.mp4"]), ("hockey", ["final.mp4"]), ("nothing of it", [])):
        field = browser.find_element(By.ID, "filter")
        field.clear()
        field.send_keys(words)
        assert browser.execute_script(SHOWN) == left
        assert browser.find_element(By.ID, "count").text == f"{len(left)} of 3 videos"
    browser.find_element(By.ID, "filter").clear()
    press(browser, " ")
    pick = browser.find_element(By.XPATH, "//button[.='playing basketball']")
    pick.click()
    assert browser.execute_script(SHOWN) == ["final.mp4", "day 2 training.mp4"]
    assert pick.get_attribute("aria-pressed") == "true"
    assert browser.find_element(By.ID, "count").text == "2 of 3 videos with “playing basketball”"
    pick.click()
    assert len(browser.execute_script(SHOWN)) == 3
    quiet(browser)


def test_the_theme_is_kept_from_page_to_page(browser: Browser, folder: Path) -> None:
    theme = "return document.documentElement.dataset.theme"
    show(browser, folder / "out" / "index.html", ready=False)
    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    click(browser, "theme")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    chosen = browser.execute_script(theme)
    show(browser, folder / "out" / "final.html", forget=False)
    assert browser.execute_script(theme) == chosen
    quiet(browser)


def test_what_an_empty_page_says(browser: Browser, folder: Path) -> None:
    """A slider beside 0 of 0 is no help; nor is the advice to move it."""
    show(browser, folder / "out" / "warm up.html")
    assert browser.find_element(By.ID, "empty").text == "Nothing was found. You can add what you see."
    assert not browser.find_element(By.ID, "sureness").is_displayed() and visible(browser) == []
    assert "23.976 frames/s" in browser.find_element(By.TAG_NAME, "footer").text


def test_the_curves_are_behind_details(browser: Browser, folder: Path, tmp_path: Path) -> None:
    from test_browser import CLASSES, DURATION, scores

    result = Result(str(folder / "final.mp4"), DURATION, {}, (Segment(0, 1, 1, 0.9, CLASSES[0]),), (), {"a": 1})
    write_page(result, scores(), folder / "final.mp4", tmp_path / "p.html")
    show(browser, tmp_path / "p.html")
    height = browser.find_element(By.ID, "canvas").rect["height"]
    browser.find_element(By.CSS_SELECTOR, "#details summary").click()
    until(browser, lambda: browser.find_element(By.ID, "canvas").rect["height"] == height + 96)
    lines = browser.find_elements(By.CSS_SELECTOR, "#lines li")
    assert [line.text.replace("\n", " ") for line in lines[:1]] == ["grey: any action at all 95 %"]
    assert [line.text.split("\n")[0] for line in lines[1:]] == [CLASSES[0]]
    words = browser.find_element(By.ID, "details").text
    assert "how sure it was at each moment" in words
    assert not any(jargon in words for jargon in ("T-CAS", "actionness", "softmax", "snippet"))
    write_page(result, None, folder / "final.mp4", tmp_path / "p.html")
    show(browser, tmp_path / "p.html")
    assert not browser.find_element(By.ID, "details").is_displayed()

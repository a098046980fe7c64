"""What a coach stumbles over who opens the page for the first time, on a phone or at a desk."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import (
    CHROMIUM,
    DRIVER,
    NONE_HERE,
    Browser,
    click,
    downloaded,
    press,
    quiet,
    said,
    show,
    started,
    until,
    visible,
)
from conftest import coded, encode
from PIL import ImageDraw
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from pipeline.clips.draw import Overlay
from pipeline.run.results import Stored
from pipeline.run.views import write_page, write_pages
from postprocess.pages.fill import short
from postprocess.pages.report import page
from postprocess.segment import UNSURE, Result, Segment

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=NONE_HERE)

DURATION = 20.0
RUN = {"content": "sha256:1", "localize": {"min_confidence": 0.5}}
LIFTS = (
    Segment(1.0, 3.0, 1.0, 0.9, "squat", "weightlifting"),
    Segment(5.0, 7.0, 1.0, 0.8, "golf", "golf"),
    Segment(9.0, 11.0, 1.0, 0.6, "dunk & run", UNSURE),
)
TOP = "return document.querySelector(arguments[0]).getBoundingClientRect().top + scrollY"
# Cells whose text does not fit, and whether the page can be scrolled sideways.
TOO_WIDE = """
const cells = [...document.querySelectorAll('#body tr:not([hidden]) td, th, .chips label, button')]
  .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent);
return [cells, document.documentElement.scrollWidth > innerWidth];
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with started(folder) as driver:
        yield driver


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    return encode(folder / "match.mp4", [coded(k) for k in range(int(25 * DURATION))], options={"g": "25"})


@pytest.fixture
def sized(browser: Browser) -> Iterator[Any]:
    """Sets the size of the screen, in CSS pixels."""

    def size(width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    yield size
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def opened(browser: Browser, film: Path, path: Path, *segments: Segment, **changes: Any) -> Path:
    """The page of a result of these segments."""
    known = {"duration": DURATION, "media": {"rate": "25"}, "warnings": (), "provenance": RUN} | changes
    write_page(Result(video=str(film), segments=segments, **known), None, film, path / "match.html")
    show(browser, path / "match.html")
    return path / "match.html"


def idle(browser: Browser, name: str) -> str:
    """Why a button has nothing to do; "" if it has."""
    button = browser.find_element(By.ID, name)
    off = button.get_attribute("aria-disabled") == "true"
    assert off == bool(button.get_attribute("title"))
    return button.get_attribute("title") or ""


def test_keys_are_named_where_there_are_keys(film: Path, tmp_path: Path) -> None:
    with started(tmp_path) as browser:  # touch emulation takes the mouse away for good
        page = opened(browser, film, tmp_path, *LIFTS)
        assert browser.find_element(By.CSS_SELECTOR, "#set-in kbd").is_displayed()
        assert browser.find_element(By.ID, "how").text.startswith("Click a row to play or change it.")
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        show(browser, page)
        assert not [k for k in browser.find_elements(By.TAG_NAME, "kbd") if k.is_displayed()]
        assert not browser.find_element(By.CSS_SELECTOR, "details.mouse").is_displayed()
        assert browser.find_element(By.ID, "how").text.startswith("Tap a row to play or change it.")
        assert "click" not in browser.find_element(By.TAG_NAME, "body").text.lower()
        click(browser, "set-in")
        assert said(browser) == "It starts at 0:00.00."
        until(browser, lambda: not browser.find_element(By.ID, "said").is_displayed())
        assert browser.find_element(By.ID, "hint").text.startswith("It starts at 0:00.00.")  # shown there, not over it
        click(browser, "name-it")  # the keyboard of a phone would cover the names: the field waits for a tap
        until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
        assert browser.execute_script("return document.activeElement.className") == "known"
        press(browser, Keys.ESCAPE)
        press(browser, "n")  # there is a keyboard, too
        assert browser.find_element(By.CSS_SELECTOR, "#set-in kbd").is_displayed()


def test_on_a_phone_the_answer_comes_before_the_marking(
    browser: Browser, film: Path, tmp_path: Path, sized: Any
) -> None:
    sized(390, 844)
    opened(browser, film, tmp_path, *LIFTS)
    order = [browser.execute_script(TOP, name) for name in ("#scroller", "#table", "#sureness", "#add", "#saving")]
    assert order == sorted(order)
    opened(browser, film, tmp_path, provenance={})  # where there is no answer, marking is why one is here
    assert browser.execute_script(TOP, "#add") < browser.execute_script(TOP, "#empty")
    assert browser.find_element(By.ID, "adding").text == "Mark an action"


def test_two_hundred_segments_do_not_hide_the_rest_of_a_phone(
    browser: Browser, film: Path, tmp_path: Path, sized: Any
) -> None:
    sized(390, 844)
    opened(browser, film, tmp_path, *(Segment(0.1 * i, 0.1 * i + 0.06, 1, 0.9, "serve") for i in range(200)))
    assert len(visible(browser)) == 200
    assert browser.execute_script("return document.documentElement.scrollHeight") < 4 * 844
    browser.find_element(By.PARTIAL_LINK_TEXT, "Something is missing?").click()
    box = "const b = document.getElementById('set-in').getBoundingClientRect(); return [b.top, b.bottom]"
    film_ends = "return document.querySelector('.film').getBoundingClientRect().bottom"
    until(browser, lambda: browser.execute_script(box)[0] > browser.execute_script(film_ends))
    assert browser.execute_script(box)[1] < 844


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (844, 390)])
def test_the_zoom_and_the_way_to_the_next_segment_have_words_on_a_phone(
    browser: Browser, film: Path, tmp_path: Path, sized: Any, width: int, height: int
) -> None:
    """A minus and a plus alone are a riddle, and "next" might be the next video."""
    sized(width, height)
    opened(browser, film, tmp_path, *LIFTS)
    zoom = browser.find_element(By.CLASS_NAME, "zoom")
    assert zoom.text.split() == ["zoom", "−", "+", "whole", "video"]
    assert zoom.find_element(By.TAG_NAME, "span").is_displayed()
    names = [browser.find_element(By.ID, name).accessible_name for name in ("out", "in", "previous", "next")]
    assert names == ["Zoom out", "Zoom in", "previous segment", "next segment"]
    assert ("segment" in browser.find_element(By.ID, "next").text) == (width == 390)  # where there is room
    assert browser.execute_script(TOO_WIDE) == [[], False]


def test_what_is_not_checked_is_explained(browser: Browser, film: Path, tmp_path: Path) -> None:
    opened(browser, film, tmp_path, *LIFTS)
    unchecked = browser.find_element(By.ID, "unchecked")
    assert unchecked.text == (
        "3 of 3 segments are not checked yet. Press ✓ (right) or ✗ (wrong) beside each of them in the table, or tick "
        "the box above. You can also save before that: nothing is learnt from what is not checked."
    )
    for button in browser.find_elements(By.CSS_SELECTOR, "#body .yes")[:2]:
        button.click()
    assert unchecked.text.startswith("1 of 3 segments is not checked yet. Press ✓ (right) or ✗ (wrong) beside it in ")
    browser.find_elements(By.CSS_SELECTOR, "#body .no")[2].click()
    assert not unchecked.is_displayed()
    click(browser, "undo")
    assert unchecked.is_displayed()
    click(browser, "complete")
    assert not unchecked.is_displayed()


def test_an_empty_page_says_how_sure_it_would_have_to_be(browser: Browser, film: Path, tmp_path: Path) -> None:
    opened(browser, film, tmp_path)
    assert browser.find_element(By.ID, "empty").text == (
        "Nothing was found of which the program is at least 50 % sure. You can add what you see."
    )
    assert not browser.find_element(By.ID, "previous").is_displayed()  # there is nothing to go to


def test_the_totals_of_an_index_are_whole_on_a_phone_held_across(
    browser: Browser, film: Path, tmp_path: Path, sized: Any
) -> None:
    sized(844, 390)
    many = tuple(Segment(i, i + 1.0, 1, 0.9, f"action {i}") for i in range(12))
    stored = [Stored(tmp_path / "a.json", Result(str(film), DURATION, {}, many, (), RUN))]
    assert all(wrong is None for _, wrong in write_pages(stored, tmp_path, tmp_path))
    show(browser, tmp_path / "index.html", ready=False)
    assert (
        browser.execute_script("const b = document.querySelector('.totals'); return b.scrollHeight - b.clientHeight")
        == 0
    )


def test_the_videos_of_an_action_come_into_sight_on_a_phone(
    browser: Browser, film: Path, tmp_path: Path, sized: Any
) -> None:
    sized(390, 640)
    found = [tuple(Segment(i, i + 1.0, 1, 0.9, f"action {i}") for i in range(n)) for n in (16, 3)]
    stored = [Stored(tmp_path / f"{len(one)}.json", Result(str(film), DURATION, {}, one, (), RUN)) for one in found]
    assert all(wrong is None for _, wrong in write_pages(stored, tmp_path, tmp_path))
    show(browser, tmp_path / "index.html", ready=False)
    in_sight = "const b = document.querySelector('#cards li').getBoundingClientRect(); return [b.top >= 0, b.top < 500]"
    assert browser.execute_script(in_sight) == [True, False]
    browser.find_element(By.XPATH, "//button[.='action 5']").click()
    until(browser, lambda: browser.execute_script(in_sight) == [True, True])
    assert browser.find_element(By.ID, "count").text == "1 of 2 videos with “action 5”"
    assert browser.find_element(By.ID, "all").is_displayed()  # the way back


def test_the_tools_of_a_segment_come_to_the_thumb(browser: Browser, film: Path, tmp_path: Path, sized: Any) -> None:
    sized(390, 844)
    opened(browser, film, tmp_path, *LIFTS)
    assert not browser.find_element(By.ID, "sheet").is_displayed()
    browser.find_elements(By.CSS_SELECTOR, "#body .no")[0].click()
    top, bottom = browser.execute_script(
        "const b = document.getElementById('sheet').getBoundingClientRect(); return [b.top, b.bottom]"
    )
    assert bottom == 844 and top > 600  # the rest of the page is seen
    until(browser, lambda: browser.find_element(By.ID, "said").rect["y"] < top + 844)
    assert browser.find_element(By.ID, "unsaved").text == "Not saved yet ↓"
    click(browser, "undo-here")
    assert said(browser).startswith("Undone: Rejected") and idle(browser, "undo-here") == "There is nothing to undo."
    assert not browser.find_element(By.ID, "unsaved").is_displayed()
    browser.find_element(By.ID, "unchoose").click()
    assert not browser.find_element(By.ID, "sheet").is_displayed()
    quiet(browser)


def test_a_phone_held_across_shows_player_and_table(browser: Browser, film: Path, tmp_path: Path, sized: Any) -> None:
    sized(844, 390)
    opened(browser, film, tmp_path, *LIFTS)
    for name in (".film", "#body tr"):
        box = browser.execute_script(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.top, b.bottom]", name
        )
        assert 0 <= box[0] < box[1] <= 390, name
    assert browser.execute_script(TOO_WIDE) == [[], False]


@pytest.mark.parametrize("changes", [{}, {"provenance": {}}])
@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (844, 390), (1000, 700), (1300, 900)])
def test_the_page_takes_the_width_that_there_is(
    browser: Browser, film: Path, tmp_path: Path, sized: Any, width: int, height: int, changes: dict[str, Any]
) -> None:
    """Whether something was found, or the page is there to mark from nothing."""
    sized(width, height)
    opened(browser, film, tmp_path, **changes)
    right = "return document.querySelector(arguments[0]).getBoundingClientRect().right"
    main, line = (browser.execute_script(right, name) for name in ("main", "#scroller"))
    assert line == pytest.approx(main, abs=1)


def test_a_button_with_nothing_to_do_says_why(browser: Browser, film: Path, tmp_path: Path, folder: Path) -> None:
    opened(browser, film, tmp_path, LIFTS[0])
    why = {
        "previous": "No segment starts before this moment.", "out": "The whole video is shown already.",
        "fit": "The whole video is shown already.", "undo": "There is nothing to undo.",
        "redo": "There is nothing to redo.", "set-out": "First say where it starts.",
        "name-it": "First say where it starts.", "save": "Nothing to save: you have not changed anything.",
    }  # fmt: skip
    for name, reason in why.items():
        assert idle(browser, name) == reason
        click(browser, name)
        assert said(browser) == reason
        browser.find_element(By.ID, name).send_keys(Keys.ENTER)  # the keyboard reaches it, and hears the same
        assert said(browser) == reason
    assert not list((folder / "downloads").glob("match.corrections*"))
    assert not idle(browser, "next") and not idle(browser, "in")
    click(browser, "next")
    assert idle(browser, "next") == "No segment starts after this moment." and idle(browser, "previous")
    press(browser, "n")
    assert said(browser) == "No segment starts after this moment."
    click(browser, "in")
    assert not idle(browser, "out") and not idle(browser, "fit")
    press(browser, "k")
    save = browser.find_element(By.ID, "save")
    assert not idle(browser, "save") and save.text.startswith("Save") and "main" in (save.get_attribute("class") or "")
    downloaded(browser, folder)
    assert save.text.startswith("Save again") and "main" not in (save.get_attribute("class") or "")
    quiet(browser)


def test_actions_are_called_as_in_the_table_of_run(browser: Browser, film: Path, tmp_path: Path, folder: Path) -> None:
    """With their sport; what is saved and trained on is the name alone."""
    page = opened(browser, film, tmp_path, *LIFTS)
    names = ["weightlifting: squat", "golf", "dunk & run? (sport not sure)"]
    assert [row[3] for row in visible(browser)] == names == [s.name for s in LIFTS]
    boxes = browser.find_elements(By.CSS_SELECTOR, "#classes .name")
    assert [box.text for box in boxes] == sorted(names)
    for button in browser.find_elements(By.CSS_SELECTOR, "#body .yes"):
        button.click()
    assert said(browser) == "Kept: dunk & run, 0:09.00 to 0:11.00."
    assert [row[3] for row in visible(browser)] == [*names[:2], "dunk & run"]  # a person is sure
    press(browser, "r")
    until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
    browser.find_element(By.XPATH, "//*[@id='known']/button[.='weightlifting: squat']").click()
    assert said(browser) == "Renamed: it is weightlifting: squat now."
    document = json.loads(downloaded(browser, folder).read_text())
    assert [s["label"] for s in document["segments"]] == ["squat", "golf", "squat"]
    show(browser, page, forget=False)
    assert [row[3] for row in visible(browser)][2].startswith("weightlifting: squat")
    quiet(browser)


def test_actions_of_one_sport_stand_together_though_the_sport_is_said_once(
    browser: Browser, film: Path, tmp_path: Path
) -> None:
    found = (("playing ice hockey", "ice hockey"), ("golf driving", "golf"), ("hockey stop", "ice hockey"))
    segments = [Segment(2.0 * i, 2 * i + 1.0, 1, 0.9, label, sport) for i, (label, sport) in enumerate(found)]
    opened(browser, film, tmp_path, *segments)
    assert [row[3] for row in visible(browser)] == [s.name for s in segments]
    boxes = browser.find_elements(By.CSS_SELECTOR, "#classes .name")
    assert [box.text for box in boxes] == ["golf driving", "ice hockey: hockey stop", "playing ice hockey"]


def test_how_sure_is_said_in_percent(browser: Browser, film: Path, tmp_path: Path) -> None:
    opened(browser, film, tmp_path, Segment(1, 2, 1, 0.9996, "serve"), Segment(3, 4, 1, 0.744, "serve"))
    assert [row[4] for row in visible(browser)] == [">99\u00a0%", "74\u00a0%"]  # never 100 %
    assert "at least 50 % sure" in browser.find_element(By.ID, "sureness").text
    assert "What is less than 50 % sure is not on this page." in browser.find_element(By.ID, "ways").text
    browser.execute_script(
        "const s = document.getElementById('threshold'); s.value = 1; s.dispatchEvent(new Event('input'))"
    )
    assert "move the slider “How sure” to the left" in browser.find_element(By.ID, "empty").text
    assert not browser.find_element(By.ID, "table").is_displayed()


def test_the_overlay_says_how_sure_it_is_as_the_page_does(
    browser: Browser, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (0.0, 0.004, 0.005, 0.125, 0.5, 0.744, 0.985, 0.9949, 0.995, 0.9996, 1.0)
    segments = [Segment(i, i + 1.0, 1, confidence, f"serve {i}") for i, confidence in enumerate(known)]
    opened(browser, film, tmp_path, *segments, provenance={})
    drawn: list[str] = []
    write = ImageDraw.ImageDraw.text

    def text(pen: Any, at: Any, said: str, *rest: Any, **more: Any) -> None:
        drawn.append(said)
        write(pen, at, said, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    overlay = Overlay(segments, DURATION)
    for s in segments:
        overlay.draw(np.zeros((360, 640, 3), np.uint8), s.start + 0.5)
    assert [f"{row[4]}  {row[3]}" for row in visible(browser)] == drawn and drawn[-1] == ">99\u00a0%  serve 10"


def test_next_also_goes_to_what_starts_at_once_or_together(browser: Browser, film: Path, tmp_path: Path) -> None:
    """The first segment of a short clip mostly starts at 0, where the player is."""
    both = (Segment(0.0, 3.0, 1.0, 0.9, "squat", "weightlifting"), Segment(0.0, 2.0, 1.0, 0.8, "golf", "golf"))
    opened(browser, film, tmp_path, *both, LIFTS[2])
    names = [s.label for s in (*both, LIFTS[2])]
    which = browser.find_element(By.ID, "which")
    assert not idle(browser, "next") and idle(browser, "previous")
    for name in names:
        click(browser, "next")
        assert name in which.text
    assert idle(browser, "next")
    for name in (names[1], names[0]):
        assert not idle(browser, "previous")
        click(browser, "previous")
        assert name in which.text
    assert idle(browser, "previous")
    quiet(browser)


def test_the_slider_promises_no_more_than_there_is(browser: Browser, film: Path, tmp_path: Path) -> None:
    for segments, told in (
        (LIFTS, "To the right: only the surest. Nothing less sure was found."),
        ((*LIFTS, Segment(12, 13, 1, 0.2, "golf")), "To the left: more segments, and more mistakes. To the right: "),
    ):
        made = page(Result(str(film), DURATION, {}, LIFTS, (), RUN), None, film.as_uri(), everything=segments)
        (tmp_path / "match.html").write_text(made)
        show(browser, tmp_path / "match.html")
        assert browser.find_element(By.ID, "ways").text.startswith(told)


def test_where_nothing_was_found_it_says_what_it_looked_for(browser: Browser, film: Path, tmp_path: Path) -> None:
    """Rugby is no sport of Kinetics, and cooking is no sport."""
    opened(browser, film, tmp_path, provenance=RUN | {"classes": "sports"})
    assert browser.find_element(By.ID, "empty").text == (
        "Nothing was found of which the program is at least 50 % sure. It looked only for the sports that it knows. "
        "You can add what you see."
    )


def test_a_name_is_known_as_the_page_shows_it(browser: Browser, film: Path, tmp_path: Path) -> None:
    names = ("Weightlifting: Squat", "DUNK & run? (sport not sure)", "golf: golf", "serve")
    made = page(Result(str(film), DURATION, {}, LIFTS, (), RUN), None, film.as_uri(), classes=names)
    (tmp_path / "match.html").write_text(made)
    show(browser, tmp_path / "match.html")
    press(browser, "n", "r")
    until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
    offered = [button.text for button in browser.find_elements(By.CSS_SELECTOR, "#known button")]
    assert sorted(offered) == ["dunk & run", "golf", "serve", "weightlifting: squat"]
    field = browser.find_element(By.ID, "name")
    field.clear()
    field.send_keys("Dunk & run? (sport not sure)")
    browser.find_element(By.ID, "ok").click()
    assert said(browser) == "Renamed: it is dunk & run now."


LONG = "an unbelievably long name of an action that somebody has typed because nobody told them to be short"
WORD = "Donaudampfschifffahrtsgesellschaftskapitänsmützenwettwerfen"


@pytest.mark.parametrize("width", [320, 390, 1300])
def test_names_of_any_length_and_script_fit(
    browser: Browser, film: Path, tmp_path: Path, sized: Any, width: int
) -> None:
    sized(width, 844)
    names = (LONG, WORD, "הגשה חזקה", "ضربة إرسال", "サーブ")
    segments = [Segment(2.0 * i, 2 * i + 1.0, 1, 0.9, name) for i, name in enumerate(names)]
    opened(browser, film, tmp_path, *segments)
    assert browser.execute_script(TOO_WIDE) == [[], False]
    browser.find_elements(By.CSS_SELECTOR, "#body .yes")[2].click()
    # Isolated, or a name from right to left would turn the times that follow it.
    assert browser.execute_script("return document.getElementById('said').textContent") == (
        "Kept: \u2068הגשה חזקה\u2069, 0:04.00 to 0:05.00."
    )
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.chips label')].map(l => l.getBoundingClientRect())"
        ".map(b => [b.top, b.bottom])"
    )
    assert all(above[1] <= below[0] for above, below in pairwise(boxes))  # none over another


@pytest.mark.parametrize("width", [320, 844])
def test_three_hours_fit(browser: Browser, film: Path, tmp_path: Path, sized: Any, width: int) -> None:
    sized(width, 640)
    late = Segment(10790.01, 10799.99, 1, 0.9, "serve", "tennis")
    opened(browser, film, tmp_path, late, duration=10800.0, warnings=("The clock of the video jumps.",))
    assert "3:00:00 long" in browser.find_element(By.TAG_NAME, "header").text
    assert browser.execute_script(TOO_WIDE) == [[], False]
    browser.find_elements(By.CSS_SELECTOR, "#body .yes")[0].click()
    assert browser.execute_script(TOO_WIDE) == [[], False]


def test_a_page_without_its_video_is_not_covered_by_that(
    browser: Browser, film: Path, tmp_path: Path, sized: Any
) -> None:
    sized(390, 844)
    page = opened(browser, film, tmp_path, LIFTS[0])
    page.write_text(page.read_text().replace('"link":"', '"link":"gone/'))
    show(browser, page, ready=False)
    until(browser, lambda: browser.find_element(By.ID, "missing").is_displayed())
    assert browser.execute_script("return getComputedStyle(document.querySelector('.film')).position") == "static"
    assert not browser.find_element(By.ID, "video").is_displayed()


def test_the_index_says_what_its_numbers_are(browser: Browser, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "day 1"
    many = tuple(Segment(i, i + 1.0, 1, 0.9, f"action {i}") for i in range(6))
    stored = [
        Stored(out / f"{name}.json", Result(str(film), DURATION, {}, segments, (), RUN))
        for name, segments in (("a", LIFTS), ("b", many))
    ]
    assert all(wrong is None for _, wrong in write_pages(stored, out, out))
    show(browser, out / "index.html", ready=False)
    header = browser.find_element(By.TAG_NAME, "header").text
    assert header.startswith("2 videos") and f"from the folder {film.parent.name} · 0:40 of video" in header
    assert browser.title == "2 videos" and "Click a video to see what happens when." in browser.page_source.replace(
        '<span class="mouse">Click</span><span class="touch">Tap</span>', "Click"
    )
    assert [h.text for h in browser.find_elements(By.TAG_NAME, "th")] == ["action", "videos", "how often", "total time"]
    cards = browser.find_elements(By.CSS_SELECTOR, "#cards li")
    assert cards[0].text.split("\n")[1:] == [
        "0:20 long", "1 × dunk & run? (sport not sure)", "1 × golf", "1 × weightlifting: squat"
    ]  # fmt: skip
    assert cards[1].text.endswith("and 2 more actions")
    browser.find_element(By.ID, "filter").send_keys("action 5")  # one that the card only counts
    assert [card.is_displayed() for card in cards] == [False, True]
    click(browser, "all")
    assert all(card.is_displayed() for card in cards)
    browser.find_element(By.XPATH, "//button[.='dunk & run? (sport not sure)']").click()
    assert [card.is_displayed() for card in cards] == [True, False]
    quiet(browser)


def test_the_time_line_keeps_its_width_when_the_page_grows(browser: Browser, film: Path, tmp_path: Path) -> None:
    opened(browser, film, tmp_path, LIFTS[0])
    wide = browser.find_element(By.ID, "canvas").rect["width"]
    browser.execute_script("document.body.style.height = '300vh'")
    scrolls = "return document.documentElement.scrollHeight > innerHeight"
    assert browser.execute_script(scrolls) and browser.find_element(By.ID, "canvas").rect["width"] == wide


def test_nothing_jumps_when_the_video_arrives(browser: Browser, film: Path, tmp_path: Path) -> None:
    opened(browser, film, tmp_path, LIFTS[0])
    wide, high = browser.execute_script(
        "const v = document.getElementById('video'); return [v.videoWidth, v.videoHeight]"
    )
    page = opened(browser, film, tmp_path, LIFTS[0], media={"width": wide, "height": high})
    after = browser.execute_script(TOP, "#scroller")
    page.write_text(page.read_text().replace('preload="metadata"', 'preload="none"'))
    show(browser, page, ready=False)
    assert browser.execute_script("return document.getElementById('video').readyState") == 0
    assert browser.execute_script(TOP, "#scroller") == pytest.approx(after, abs=1)


@pytest.mark.parametrize("width", [320, 390])
def test_the_index_fits_a_phone(browser: Browser, film: Path, tmp_path: Path, sized: Any, width: int) -> None:
    sized(width, 844)
    hours = [Segment(i, i + 3500.0, 1, 0.9, name, "weightlifting") for i, name in enumerate((LONG, WORD, "squat"))]
    stored = [Stored(tmp_path / "a.json", Result(str(film), 10800.0, {}, tuple(hours), (), RUN))]
    assert all(wrong is None for _, wrong in write_pages(stored, tmp_path, tmp_path))
    show(browser, tmp_path / "index.html", ready=False)
    beyond = "const b = document.querySelector('.totals'); return [b.scrollWidth - b.clientWidth, innerWidth]"
    assert browser.execute_script(beyond) == [0, width]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_lengths_are_short_and_never_nothing() -> None:
    assert [short(s) for s in (0, 0.4, 1.4, 75.5, 3600)] == ["0:00", "0:00.40", "0:01", "1:16", "1:00:00"]

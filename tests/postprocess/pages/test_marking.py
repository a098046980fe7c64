"""Marking and correcting on the page, in a real browser, as a person does it: mouse, keyboard, finger."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import (
    CHROMIUM,
    DRIVER,
    NONE_HERE,
    Browser,
    at,
    click,
    downloaded,
    on_canvas,
    paused,
    press,
    quiet,
    said,
    show,
    started,
    until,
    visible,
)
from conftest import coded, encode
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from pipeline.run.views import Extras, write_page
from postprocess.formats.marked import read_marked
from postprocess.segment import Result, Segment

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=NONE_HERE)

DURATION, EVIL = 20.0, "<img src=x onerror='window.hacked = 1'>"
FOUND = ((2.0, 4.0, "serve"), (6.0, 8.0, "net"), (10.0, 12.0, "serve"), (14.0, 16.0, "net"))
LANES = ("net", "serve")
AXIS, LANE = 22, 36  # pixels of the time line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marking")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with started(folder) as driver:
        yield driver


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    return encode(folder / "match.mp4", [coded(k) for k in range(int(25 * DURATION))], options={"g": "25"})


@pytest.fixture
def page(browser: Browser, film: Path, tmp_path: Path) -> Path:
    """The page of a result of four segments, open."""
    segments = tuple(Segment(a, b, 1.0, 0.9 - 0.1 * i, label) for i, (a, b, label) in enumerate(FOUND))
    result = Result(str(film), DURATION, {"rate": "25"}, segments, (), {"content": "sha256:1"})
    write_page(result, None, film, tmp_path / "match.html")
    show(browser, tmp_path / "match.html")
    return tmp_path / "match.html"


def blank(browser: Browser, film: Path, path: Path, *classes: str) -> None:
    """Open the page of a video without a result."""
    write_page(Result(str(film), DURATION, {"rate": "25"}, (), (), {}), None, film, path, Extras(classes=classes))
    show(browser, path)


def go(browser: Browser, seconds: float) -> None:
    """Put the player there, as one who drags its slider."""
    browser.execute_script("document.getElementById('video').currentTime = arguments[0]", seconds)
    assert at(browser) == pytest.approx(seconds, abs=0.01)
    until(browser, lambda: shown_time(browser) == pytest.approx(seconds, abs=0.02))


def shown_time(browser: Browser) -> float:
    minutes, seconds = browser.find_element(By.ID, "now").text.split(" of ")[0].split(":")
    return 60 * int(minutes) + float(seconds)


def place(browser: Browser, seconds: float, label: str) -> tuple[float, float]:
    """Where a moment of a lane is on the time line, in pixels."""
    wide = browser.find_element(By.ID, "canvas").rect["width"]
    return seconds / DURATION * wide, AXIS + LANE * LANES.index(label) + 25


def drag(browser: Browser, label: str, start: float, end: float) -> None:
    """With the mouse along a lane."""
    x, y = place(browser, start, label)
    far, _ = place(browser, end, label)
    hand = on_canvas(browser, x, y).click_and_hold()
    for _ in range(4):
        hand = hand.move_by_offset(round((far - x) / 4), 0)
    hand.release().perform()


def name_it(browser: Browser, name: str) -> None:
    press(browser, Keys.ENTER)
    until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
    ActionChains(browser).send_keys(name, Keys.ENTER).perform()


def row(browser: Browser, index: int, what: str) -> None:
    browser.find_elements(By.CSS_SELECTOR, f"#body .{what}")[index].click()


def saved(browser: Browser, folder: Path) -> dict[str, Any]:
    path = downloaded(browser, folder)
    (marked,) = read_marked(path)  # what the page saves is what we read
    document = json.loads(path.read_text())
    spans = [(s["start"], s["start"] if s["end"] is None else s["end"], s["label"]) for s in document["segments"]]
    assert sorted(spans) == sorted((s.start, s.end, s.label) for s in marked.video.spans)
    return document


def test_with_the_mouse(browser: Browser, page: Path, film: Path, folder: Path) -> None:
    row(browser, 0, "yes")
    assert said(browser) == "Kept: serve, 0:02.00 to 0:04.00."
    row(browser, 1, "no")
    assert said(browser) == "Rejected: net, 0:06.00 to 0:08.00."
    drag(browser, "serve", 12.0, 13.0)
    assert said(browser).startswith("Moved: serve, 0:10.00 to 0:1")
    click(browser, "rename")
    until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
    browser.find_elements(By.CSS_SELECTOR, "#known button")[0].click()
    assert said(browser) == "Renamed: it is net now."
    document = saved(browser, folder)
    assert document["video"] == str(film) and document["content"] == "sha256:1" and not document["complete"]
    assert document["rejected"] == [{"start": 6.0, "end": 8.0, "label": "net"}]
    first, second = document["segments"]  # what nobody looked at says nothing
    assert first == {"start": 2.0, "end": 4.0, "label": "serve", "origin": "kept"}
    assert second["start"] == 10.0 and second["end"] == pytest.approx(13.0, abs=0.1)
    assert (second["label"], second["origin"]) == ("net", "changed")
    quiet(browser)


def test_with_the_keyboard_alone(browser: Browser, page: Path, folder: Path) -> None:
    press(browser, "n", "k")  # the first
    assert said(browser).startswith("Kept: serve")
    press(browser, "n", Keys.DELETE)
    assert said(browser).startswith("Rejected: net")
    press(browser, "n", Keys.ARROW_RIGHT, "s")  # it starts a second later
    assert said(browser) == "Moved: serve, 0:11.00 to 0:12.00."
    press(browser, ".", ".", ".", "e")  # it ends three pictures later than it starts
    assert said(browser) == "Moved: serve, 0:11.00 to 0:11.12."
    go(browser, 17.0)
    press(browser, "i")
    assert said(browser) == "It starts at 0:17.00."
    press(browser, "o")
    assert said(browser) == "It cannot end before it starts."
    press(browser, Keys.ARROW_RIGHT, "o")
    assert said(browser) == "It ends at 0:18.00. Now name it."
    name_it(browser, "  second   serve ")
    assert said(browser) == "Added: second serve, 0:17.00 to 0:18.00."
    go(browser, 18.5)
    press(browser, "i", Keys.ENTER, Keys.ENTER)  # a moment, of the name that was used last
    assert said(browser) == "Added: second serve, 0:18.50."
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert said(browser) == "Undone: Added: second serve, 0:18.50."
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("y").key_up(Keys.CONTROL).perform()
    assert said(browser) == "Done again: Added: second serve, 0:18.50."
    document = saved(browser, folder)
    assert [(s["start"], s["end"], s["label"], s["origin"]) for s in document["segments"]] == [
        (2.0, 4.0, "serve", "kept"),
        (pytest.approx(11.0, abs=0.01), pytest.approx(11.12, abs=0.01), "serve", "changed"),
        (pytest.approx(17.0, abs=0.01), pytest.approx(18.0, abs=0.01), "second serve", "added"),
        (pytest.approx(18.5, abs=0.01), None, "second serve", "added"),
    ]
    quiet(browser)


def test_the_handles_are_sliders_for_the_keyboard_and_for_screen_readers(browser: Browser, page: Path) -> None:
    press(browser, "n")
    handle = browser.find_element(By.ID, "to")
    assert handle.aria_role == "slider" and handle.accessible_name == "End of the chosen segment"
    assert handle.get_attribute("aria-valuetext") == "0:04.00, serve, 0:02.00 long"
    handle.send_keys(Keys.ARROW_RIGHT)
    assert handle.get_attribute("aria-valuenow") == "4.04"
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    assert handle.get_attribute("aria-valuenow") == "3.04"
    assert said(browser) == "Moved: serve, 0:02.00 to 0:03.04."
    assert browser.find_element(By.ID, "said").get_attribute("aria-live") == "polite"
    buttons = browser.find_elements(By.CSS_SELECTOR, "#body tr:first-child button")
    assert [b.accessible_name for b in buttons][1:] == [
        "Keep serve, 0:02.00 to 0:03.04",
        "Reject serve, 0:02.00 to 0:03.04",
    ]
    assert buttons[1].get_attribute("aria-pressed") == "true"
    quiet(browser)


def test_with_a_finger(browser: Browser, page: Path, folder: Path) -> None:
    """On a phone: a tap chooses, a handle is dragged, buttons add. A finger on the lane itself only scrolls."""

    def touch(kind: str, x: float = 0, y: float = 0) -> None:
        points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def middle(name: str) -> tuple[float, float]:
        # A touch goes to what is drawn, so that two frames are waited for.
        box = browser.execute_async_script(
            "const e = document.getElementById(arguments[0]), done = arguments[1]; e.scrollIntoView({block: 'center'});"
            "requestAnimationFrame(() => requestAnimationFrame(() => { const b = e.getBoundingClientRect();"
            "done([b.left + b.width / 2, b.top + b.height / 2]); }))",
            name,
        )
        return box[0], box[1]

    def tap(name: str, done: Callable[[], bool]) -> None:
        # Chromium may take a tap that follows a drag at once for a part of it; a person taps again.
        def again() -> bool:
            touch("touchStart", *middle(name))
            touch("touchEnd")
            time.sleep(0.3)
            return done()

        until(browser, again)

    def pull(x: float, y: float, by: float) -> None:
        touch("touchStart", x, y)
        for k in range(1, 6):
            touch("touchMove", x + by * k / 5, y)
        touch("touchEnd")

    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        show(browser, page)
        wide = browser.find_element(By.ID, "canvas").rect["width"]
        middle("canvas")
        left, top = browser.execute_script(
            "const b = document.getElementById('canvas').getBoundingClientRect(); return [b.left, b.top]"
        )
        y = top + AXIS + LANE * LANES.index("serve") + 25
        pull(left + 12.0 / DURATION * wide, y, 40)
        assert said(browser) == ""  # nothing has moved
        touch("touchStart", left + 11.0 / DURATION * wide, y)
        touch("touchEnd")
        until(browser, lambda: browser.find_element(By.ID, "which").text == "serve")
        press(browser, " ")
        x, y = middle("to")
        pull(x, y, 2.0 / DURATION * wide)
        until(browser, lambda: said(browser).startswith("Moved: serve, 0:10.00 to 0:1"))
        go(browser, 17.0)
        tap("set-in", lambda: said(browser) == "It starts at 0:17.00.")
        go(browser, 18.0)
        tap("set-out", lambda: said(browser).startswith("It ends at 0:18.00."))
        tap("name-it", lambda: browser.find_element(By.ID, "name").is_displayed())
        for button in browser.find_elements(By.CSS_SELECTOR, "#known button"):
            assert button.rect["height"] >= 38  # of a finger
        ActionChains(browser).send_keys("ace", Keys.ENTER).perform()
        until(browser, lambda: said(browser) == "Added: ace, 0:17.00 to 0:18.00.")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        moved, added = saved(browser, folder)["segments"]
        assert moved["end"] == pytest.approx(14.0, abs=0.2) and added["label"] == "ace"
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    quiet(browser)


def leaves(browser: Browser) -> bool:
    """Whether the page lets its reader leave without a warning."""
    return browser.execute_script("return dispatchEvent(new Event('beforeunload', {cancelable: true}))")


def test_what_is_not_saved_is_warned_of_and_kept(browser: Browser, page: Path, folder: Path) -> None:
    assert leaves(browser) and "saved" not in browser.find_element(By.ID, "tally").text
    row(browser, 0, "no")
    assert not leaves(browser) and "not saved yet" in browser.find_element(By.ID, "tally").text
    show(browser, page, forget=False)
    assert browser.find_element(By.ID, "again").is_displayed()
    assert browser.find_element(By.CSS_SELECTOR, "#body tr").get_attribute("data-state") == "rejected"
    assert saved(browser, folder)["rejected"] == [{"start": 2.0, "end": 4.0, "label": "serve"}]
    assert leaves(browser) and not browser.find_element(By.ID, "again").is_displayed()
    show(browser, page, forget=False)
    assert browser.find_element(By.CSS_SELECTOR, "#body tr").get_attribute("data-state") == "rejected"
    assert leaves(browser) and not browser.find_element(By.ID, "again").is_displayed()
    go(browser, 17.0)
    press(browser, "i")
    name_it(browser, "ace")
    show(browser, page, forget=False)
    assert len(visible(browser)) == 5
    click(browser, "discard")
    assert len(visible(browser)) == 4 and browser.find_element(By.ID, "unchecked").text.startswith("4 of 4 ")
    click(browser, "undo")
    assert len(visible(browser)) == 5
    quiet(browser)


def test_another_result_of_the_video_begins_anew(browser: Browser, page: Path, film: Path) -> None:
    row(browser, 0, "no")
    other = Result(str(film), DURATION, {}, (Segment(1.0, 3.0, 1.0, 0.9, "serve"),), (), {"content": "sha256:1"})
    write_page(other, None, film, page)
    show(browser, page, forget=False)
    assert browser.find_element(By.CSS_SELECTOR, "#body tr").get_attribute("data-state") == "open"
    assert not browser.find_element(By.ID, "again").is_displayed()


def test_a_damaged_memory_of_the_browser_does_no_harm(browser: Browser, page: Path) -> None:
    row(browser, 0, "no")
    key = browser.execute_script("return Object.keys(localStorage).find(k => k.startsWith('jcdnet:page:'))")
    evil = {"complete": "x", "items": [[0, "kept", -1, "a", EVIL], [99, "added", 1, 2, EVIL], "x", None]}
    for kept in ("{", "null", json.dumps({"now": json.dumps(evil), "saved": ""})):
        browser.execute_script("localStorage.setItem(arguments[0], arguments[1])", key, kept)
        show(browser, page, forget=False)
        assert len(visible(browser)) in (4, 5)
        quiet(browser)


def test_complete_keeps_what_nobody_rejected(browser: Browser, page: Path, folder: Path) -> None:
    row(browser, 1, "no")
    browser.execute_script(
        "const s = document.getElementById('threshold'); s.value = .65; s.dispatchEvent(new Event('input'))"
    )
    click(browser, "complete")
    assert said(browser) == "You checked the whole video. 2 segments that you did not reject are kept."
    document = saved(browser, folder)
    assert document["complete"] is True and [s["start"] for s in document["segments"]] == [2.0, 10.0]
    click(browser, "undo")
    assert not browser.find_element(By.ID, "complete").is_selected()
    assert saved(browser, folder)["segments"] == []


def test_names_are_checked_and_are_text(browser: Browser, film: Path, tmp_path: Path, folder: Path) -> None:
    blank(browser, film, tmp_path / "match.html", "ace")
    press(browser, "o")
    assert said(browser) == "First say where it starts."
    go(browser, 3.0)
    press(browser, "i")
    go(browser, 4.0)
    press(browser, "o")
    for name in ("", "serve, net", "serve|net"):
        press(browser, Keys.ENTER)
        until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
        ActionChains(browser).send_keys(name or Keys.DELETE, Keys.ENTER).perform()
        assert browser.find_element(By.ID, "wrong").text
        press(browser, Keys.ESCAPE)
        until(browser, lambda: not browser.find_element(By.ID, "name").is_displayed())
    name_it(browser, EVIL)
    go(browser, 8.0)
    press(browser, "i", Keys.ARROW_RIGHT, "o")
    name_it(browser, "ACE")  # as it is called already
    assert [row[3] for row in visible(browser)] == [EVIL, "ace"]
    assert [s["label"] for s in saved(browser, folder)["segments"]] == [EVIL, "ace"]
    quiet(browser)


def test_an_action_does_not_begin_before_it_has_ended(browser: Browser, page: Path) -> None:
    row(browser, 0, "yes")
    go(browser, 3.0)
    press(browser, "i", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "o")
    name_it(browser, "serve")
    assert said(browser).startswith("That would overlap serve, 0:02.00 to 0:04.00")
    assert len(visible(browser)) == 4
    drag(browser, "serve", 10.0, 3.0)  # it stops at the one before
    assert said(browser) == "Moved: serve, 0:04.00 to 0:12.00."
    press(browser, Keys.ESCAPE)
    drag(browser, "serve", 12.0, 1.0)  # and at its own other end
    assert said(browser) == "Moved: serve, 0:04.00 to 0:04.04."
    quiet(browser)


def test_a_drag_can_be_given_up(browser: Browser, page: Path) -> None:
    x, y = place(browser, 4.0, "serve")
    on_canvas(browser, x, y).click_and_hold().move_by_offset(60, 0).send_keys(Keys.ESCAPE).release().perform()
    assert said(browser) == "" and visible(browser)[0][1] == "0:04.00"
    assert paused(browser)


def test_marking_from_nothing(browser: Browser, film: Path, tmp_path: Path, folder: Path) -> None:
    """A video without a result; there is no slider, nothing to look at, and no lane until something is marked."""
    blank(browser, film, tmp_path / "match.html", "ace", "let")
    assert not browser.find_element(By.ID, "sureness").is_displayed()
    assert browser.find_element(By.ID, "empty").text == "Nothing is marked yet."
    height = browser.find_element(By.ID, "canvas").rect["height"]
    for start, label in ((3.0, "let"), (6.0, "ace"), (9.0, "let")):
        go(browser, start)
        click(browser, "set-in")
        go(browser, start + 1)
        click(browser, "set-out")
        click(browser, "name-it")
        until(browser, lambda: browser.find_element(By.ID, "name").is_displayed())
        browser.find_element(By.XPATH, f"//*[@id='known']/button[.='{label}']").click()
    assert browser.find_element(By.ID, "canvas").rect["height"] == height + LANE  # two lanes, of which one was there
    click(browser, "complete")
    document = saved(browser, folder)
    assert document["complete"] is True and document["duration"] == DURATION
    assert [(s["start"], s["end"], s["label"]) for s in document["segments"]] == [
        (pytest.approx(a, abs=0.01), pytest.approx(a + 1, abs=0.01), label)
        for a, label in ((3, "let"), (6, "ace"), (9, "let"))
    ]
    quiet(browser)


def test_lanes_of_actions_that_are_not_shown_are_gone(browser: Browser, page: Path) -> None:
    height = browser.find_element(By.ID, "canvas").rect["height"]
    browser.execute_script(
        "const s = document.getElementById('threshold'); s.value = .85; s.dispatchEvent(new Event('input'))"
    )
    assert browser.find_element(By.ID, "canvas").rect["height"] == height - LANE


def test_two_hundred_segments(browser: Browser, film: Path, tmp_path: Path, folder: Path) -> None:
    segments = tuple(Segment(0.1 * i, 0.1 * i + 0.06, 1.0, 0.5, f"action {i % 5}") for i in range(200))
    result = Result(str(film), DURATION, {}, segments, (), {"a": 1})
    write_page(result, None, film, tmp_path / "match.html")
    show(browser, tmp_path / "match.html")
    for i in (0, 99, 199):
        row(browser, i, "no")
    click(browser, "complete")
    assert said(browser).endswith("197 segments that you did not reject are kept.")
    document = saved(browser, folder)
    assert len(document["segments"]) == 197 and len(document["rejected"]) == 3
    quiet(browser)

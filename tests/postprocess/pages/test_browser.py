"""The report in a real browser: Debian's Chromium, driven by Selenium (apt install chromium chromium-driver)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import (
    CHROMIUM,
    DRIVER,
    NONE_HERE,
    Browser,
    at,
    on_canvas,
    paused,
    press,
    quiet,
    show,
    started,
    until,
    visible,
)
from conftest import coded, encode
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmarks import report_page
from pipeline.run.views import Extras, write_page
from postprocess.config import LocalizeConfig
from postprocess.curves import Curves
from postprocess.localize import Activations, localize
from postprocess.segment import Result, Segment

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=NONE_HERE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


DURATION, CLASSES = 20.0, ("serve", "<script>window.hacked = 1</script>", "forehand & backhand")


def scores(seed: int = 3) -> Curves:
    """Thirty-one snippets in which each class has its time, more and less surely."""
    rng = np.random.default_rng(seed)
    times = np.arange(31)[:, None] * 0.64 + np.array([0.0, 0.64])
    owner = np.arange(31) // 3 % 4
    cas = rng.normal(0, 0.3, size=(31, 4))
    cas[np.arange(31), owner] += rng.uniform(1.2, 4, 31)[np.arange(31) // 3 * 3]
    cas = cas.astype(np.float32)
    return Curves(times, np.full(31, 0.95, np.float32), cas, cas, CLASSES)


def found(curves: Curves, least: float) -> list[Segment]:
    video = np.full(len(curves.classes), 0.3)
    config = LocalizeConfig(min_confidence=least)
    given = Activations(curves.cas, curves.actionness, video, curves.times, curves.classes, DURATION)
    return localize(given, config)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage <b> & #1")
    return encode(folder / "match '1' \"%.mp4", [coded(k) for k in range(500)], options={"g": "50"}, sound=DURATION)


@pytest.fixture
def opened(browser: Browser, film: Path, tmp_path: Path) -> Result:
    curves = scores()
    result = Result(str(film), DURATION, {"rate": "25"}, tuple(found(curves, 0.0)), (), {})
    assert len(result.segments) >= 6
    write_page(result, curves, film, tmp_path / "page.html")
    show(browser, tmp_path / "page.html")
    return result


def slide(browser: Browser, level: float) -> None:
    browser.execute_script(
        "const s = document.getElementById('threshold'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        level,
    )


def lane_click(browser: Browser, result: Result, segment: Segment) -> None:
    """Click on the middle of a segment in its lane."""
    size = browser.find_element(By.ID, "canvas").rect
    labels = sorted({s.label for s in result.segments})
    top = size["height"] - 6 - len(labels) * 36
    x = (segment.start + segment.end) / 2 / DURATION * size["width"]
    on_canvas(browser, x, top + labels.index(segment.label) * 36 + 25).click().perform()


def stopped_at(browser: Browser) -> float:
    """Where the player stopped by itself. On a busy machine it has done so before anybody looks."""
    until(browser, lambda: browser.execute_script("return began > 0") and paused(browser))
    browser.execute_script("began = 0")
    return at(browser)


def test_a_click_plays_the_segment_and_no_more(browser: Browser, opened: Result) -> None:
    browser.execute_script("""
        const v = document.getElementById("video");
        v.playbackRate = 4; window.began = 0; v.onplaying = () => began++;
        window.current = [];
        const note = ({target}) => { if (target.ariaCurrent) current.push(target.dataset.i); };
        new MutationObserver(all => all.forEach(note))
            .observe(document.getElementById("body"), {subtree: true, attributeFilter: ["aria-current"]});
    """)
    segment = opened.segments[1]
    lane_click(browser, opened, segment)
    assert stopped_at(browser) == pytest.approx(segment.end, abs=0.05)
    rows = browser.find_elements(By.CSS_SELECTOR, "#body tr")
    for index in (3, 0):
        segment = opened.segments[index]
        browser.execute_script("current = []")
        rows[index].find_elements(By.TAG_NAME, "td")[3].click()
        assert segment.start <= at(browser) < segment.end + 0.05
        assert stopped_at(browser) == pytest.approx(segment.end, abs=0.05)
        # The browser has noted which row was current: on a busy machine the segment is over before anybody asks.
        assert rows[index].get_attribute("data-i") in browser.execute_script("return current")
    quiet(browser)


def test_who_moves_on_is_not_stopped_at_the_end_of_a_segment(browser: Browser, opened: Result) -> None:
    lane_click(browser, opened, opened.segments[1])
    until(browser, lambda: not paused(browser))
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    end = opened.segments[1].end
    until(browser, lambda: at(browser) > end + 0.3)
    assert not paused(browser)
    press(browser, " ")


def test_clicking_beside_a_segment_goes_to_that_time(browser: Browser, opened: Result) -> None:
    wide = browser.find_element(By.ID, "canvas").rect["width"]
    on_canvas(browser, 0.75 * wide, 10).click().perform()
    assert at(browser) == pytest.approx(0.75 * DURATION, abs=0.05)
    assert paused(browser)
    quiet(browser)


def test_the_slider_decides_as_run_does(browser: Browser, opened: Result) -> None:
    counts = set()
    for level in np.arange(0, 101, 5) / 100:
        slide(browser, float(level))
        expected = found(scores(), float(level))
        assert len(visible(browser)) == len(expected)
        assert browser.find_element(By.ID, "count").text == f"{len(expected)} of {len(opened.segments)} segments"
        counts.add(len(expected))
    assert len(counts) >= 4
    assert browser.find_element(By.ID, "empty").is_displayed()
    slide(browser, 0.0)
    quiet(browser)


def test_the_slider_begins_where_run_did(browser: Browser, film: Path, tmp_path: Path) -> None:
    segments = tuple(found(scores(), 0.6))
    provenance = {"localize": {"min_confidence": 0.6}}
    write_page(Result(str(film), DURATION, {}, segments, (), provenance), None, film, tmp_path / "p.html")
    show(browser, tmp_path / "p.html")
    slider = browser.find_element(By.ID, "threshold")
    assert (slider.get_attribute("min"), slider.get_attribute("value")) == ("0.6", "0.6")
    assert len(visible(browser)) == len(segments)
    quiet(browser)


def test_the_slider_brings_back_what_run_left_out(browser: Browser, film: Path, tmp_path: Path) -> None:
    everything, level = found(scores(), 0.0), 0.6
    result = Result(str(film), DURATION, {}, tuple(found(scores(), level)), (), {"localize": {"min_confidence": level}})
    write_page(result, None, film, tmp_path / "p.html", everything=everything)
    show(browser, tmp_path / "p.html")
    assert len(visible(browser)) == len(result.segments) < len(everything)
    slide(browser, 0.0)
    assert len(visible(browser)) == len(everything)
    quiet(browser)


def test_the_keyboard(browser: Browser, opened: Result) -> None:
    starts = sorted(s.start for s in opened.segments)
    press(browser, "n")
    assert at(browser) == pytest.approx(starts[0], abs=0.05)
    press(browser, "n")
    second = starts[1]
    assert at(browser) == pytest.approx(second, abs=0.05)
    press(browser, Keys.ARROW_DOWN)
    assert at(browser) == pytest.approx(starts[2], abs=0.05)
    press(browser, "p")
    assert at(browser) == pytest.approx(second, abs=0.05)
    press(browser, Keys.ARROW_RIGHT)
    assert at(browser) == pytest.approx(second + 1, abs=0.05)
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert at(browser) == pytest.approx(second + 6, abs=0.05)
    press(browser, Keys.ARROW_LEFT)
    assert at(browser) == pytest.approx(second + 5, abs=0.05)
    press(browser, " ")
    until(browser, lambda: not paused(browser))
    until(browser, lambda: at(browser) > second + 5.2)
    press(browser, " ")
    until(browser, lambda: paused(browser))
    # On a segment's own button the space bar plays and pauses, too: one clicks, and watches.
    browser.find_elements(By.CSS_SELECTOR, "#body .seek")[1].click()
    until(browser, lambda: not paused(browser))
    press(browser, " ")
    until(browser, lambda: paused(browser))
    press(browser, " ")
    until(browser, lambda: not paused(browser))
    press(browser, " ")
    until(browser, lambda: paused(browser))
    quiet(browser)


def test_everything_is_reached_by_tab_and_has_a_name(browser: Browser, opened: Result) -> None:
    unnamed = browser.execute_script(
        """return [...document.querySelectorAll('button, input, video, canvas, [tabindex]')].filter(e => !(
        e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length))).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    reached = {}
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    browser.find_elements(By.CSS_SELECTOR, "#body td.text")[0].click()  # a chosen segment has buttons and handles
    press(browser, " ")
    for _ in range(85):
        press(browser, Keys.TAB)
        name, outline = browser.execute_script(
            "const e = document.activeElement; return [e.className || e.id, getComputedStyle(e).outlineStyle]"
        )
        reached[name] = outline
    wanted = {"theme", "threshold", "previous", "next", "in", "out", "fit", "seek", "yes", "no", "handle from"}
    wanted |= {"keep", "reject", "rename", "begin", "set-in", "set-out", "complete", "save"}
    assert wanted | {"video"} <= set(reached)
    assert {name: reached[name] for name in wanted} == dict.fromkeys(wanted, "solid")  # one sees where one is


def test_text_contrasts_in_both_themes(browser: Browser, opened: Result) -> None:
    """WCAG 2.1's AA: 4.5 for text, on both grounds."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for theme in ("dark", "light"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        colours = {
            name: browser.execute_script(
                "return getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0]).trim()", name
            )
            for name in ("ground", "raised", "here", "ink", "faint", "accent")
        }
        for text in ("ink", "faint", "accent"):
            for ground in ("ground", "raised", *(("here",) if text != "faint" else ())):
                low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (theme, text, ground)


def test_the_table_sorts_by_any_column_and_the_filter_hides_a_class(browser: Browser, opened: Result) -> None:
    heads = browser.find_elements(By.CSS_SELECTOR, "#columns button")
    assert not heads[5].is_displayed()  # the score means nothing to most people
    browser.find_element(By.CSS_SELECTOR, "#details summary").click()
    assert not heads[5].is_displayed()
    browser.find_element(By.ID, "score").click()  # but researchers can have it
    until(browser, lambda: heads[5].is_displayed())
    columns = {"start": 0, "end": 1, "length": 2, "confidence": 4, "score": 5}
    keys = {
        "start": lambda s: s.start, "end": lambda s: s.end, "length": lambda s: s.end - s.start,
        "confidence": lambda s: s.confidence, "score": lambda s: s.score,
    }  # fmt: skip
    for name, column in columns.items():
        heads[column].click()
        up = heads[column].find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
        shown = browser.execute_script(
            "return [...document.querySelectorAll('#body tr')].map(r => Number(r.dataset.i))"
        )
        values = [round(keys[name](opened.segments[i]), 3) for i in shown]
        assert values == sorted(values, reverse=not up)
    heads[3].click()
    names = [row[3] for row in visible(browser)]
    assert sorted(names, key=str.lower) == names or sorted(names) == names
    assert CLASSES[1] in names
    boxes = browser.find_elements(By.CSS_SELECTOR, "#classes label")
    assert sorted(box.text.split("\n")[0] for box in boxes) == sorted({s.label for s in opened.segments})
    boxes[0].click()
    gone = boxes[0].text.split("\n")[0]
    assert gone not in {row[3] for row in visible(browser)}
    boxes[0].click()
    assert gone in {row[3] for row in visible(browser)}
    quiet(browser)


def test_zoom_keeps_the_place_and_a_click_still_hits(browser: Browser, opened: Result) -> None:
    last = opened.segments[-1]
    lane_click(browser, opened, last)
    press(browser, " ")
    until(browser, lambda: paused(browser))
    at(browser)
    for _ in range(2):
        browser.find_element(By.ID, "in").click()
    wide, left, view = browser.execute_script(
        "const s = document.getElementById('scroller');"
        "return [document.getElementById('stage').clientWidth, s.scrollLeft, s.clientWidth]"
    )
    assert wide > 2 * view
    head = last.start / DURATION * wide
    assert left <= head <= left + view
    on_canvas(browser, head + 8 - left, 10).click().perform()
    assert at(browser) == pytest.approx((head + 8) / wide * DURATION, abs=0.05)
    browser.find_element(By.ID, "fit").click()
    quiet(browser)


def test_embedded_and_missing_videos(browser: Browser, film: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.mp4"
    shutil.copy(film, moved)
    result = Result(str(moved), DURATION, {}, (Segment(4.0, 6.0, 0, 0.9, "serve"),), (), {})
    write_page(result, None, moved, tmp_path / "inside.html", extras=Extras(embed=True))
    write_page(result, None, moved, tmp_path / "linked.html")
    moved.unlink()
    show(browser, tmp_path / "inside.html")
    press(browser, "n")
    assert at(browser) == pytest.approx(4.0, abs=0.05)
    quiet(browser)
    show(browser, tmp_path / "linked.html", ready=False)
    until(browser, lambda: browser.find_element(By.ID, "missing").is_displayed())
    assert "moved.mp4" in browser.find_element(By.ID, "place").text
    browser.find_element(By.ID, "file").send_keys(str(film))
    until(browser, lambda: browser.execute_script("return document.getElementById('video').readyState >= 1"))
    assert not browser.find_element(By.ID, "missing").is_displayed()


def test_a_phone_sees_all_of_it(browser: Browser, opened: Result) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        browser.refresh()
        until(browser, lambda: browser.execute_script("return document.getElementById('video').readyState >= 1"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        assert browser.find_element(By.ID, "canvas").rect["width"] > 300
        for head in browser.find_elements(By.CSS_SELECTOR, "#columns th:not(.wide) button"):
            head.click()  # with the arrow of the sorted column
            cut = browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", head)
            assert not cut, f"{head.text} does not fit its column"
        browser.find_element(By.CSS_SELECTOR, "#columns th:not(.wide) button").click()  # by start, as before
        browser.find_elements(By.CSS_SELECTOR, "#body .seek")[1].click()
        assert opened.segments[1].start <= at(browser) < opened.segments[1].end
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_the_benchmark_of_a_long_match(tmp_path: Path) -> None:
    result, curves, video = report_page.match(tmp_path, hours=0.05, count=60)
    write_page(result, curves, video, tmp_path / "match.html")
    found = report_page.measure(tmp_path / "match.html")
    assert [len(times) for times in found.values()] == [1, *[240] * len(report_page.MOVES), 40, 12, 60, 60]
    assert all(np.isfinite(times).all() and min(times) >= 0 for times in found.values())


def test_a_corpus_video_and_one_that_needs_a_proxy(browser: Browser, corpus: Path, tmp_path: Path) -> None:
    for video in (next((corpus / "TennisRally").glob("*.mp4")), corpus / "originals" / "Kickflip79.mov"):
        segments = (Segment(0.0, 0.6, 0, 0.5, "first"), Segment(0.64, 1.28, 0, 0.9, "second"))
        result = Result(str(video), 1.6, {}, segments, (), {"content": "sha256:1"})
        write_page(result, None, video, tmp_path / f"{video.stem}.html")
        show(browser, tmp_path / f"{video.stem}.html")
        press(browser, "n", "n")
        assert at(browser) == pytest.approx(segments[1].start, abs=0.05)
        shown = browser.execute_script(
            "const v = document.getElementById('video'); return [v.videoWidth, v.videoHeight]"
        )
        assert min(shown) > 100
        quiet(browser)
    assert shown[0] < shown[1]  # the phone held upright

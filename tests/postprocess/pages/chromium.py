"""Debian's Chromium, driven by Selenium (apt install chromium chromium-driver): what the tests of pages share."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NONE_HERE = "no Chromium here: apt install chromium chromium-driver"
Browser = webdriver.Chrome
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--window-size=1300,1400",
    # hover: hover and pointer: fine, a mouse, also without a screen. Touch emulation takes it away for good.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)  # fmt: skip


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in a folder, which also gets what it downloads."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (*SWITCHES, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(switch)
    (folder / "downloads").mkdir(parents=True, exist_ok=True)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def show(browser: Browser, path: Path, ready: bool = True, forget: bool = True) -> None:
    """Open a page; ready: and wait for its video; forget: what the browser has kept of earlier pages."""
    if forget:
        browser.execute_script("try { localStorage.clear() } catch { /* no page is open yet */ }")
    browser.get_log("browser")
    if browser.current_url == path.as_uri() and not forget:
        browser.refresh()
    else:
        browser.get(path.as_uri())
    if ready:
        until(browser, lambda: browser.execute_script("return document.getElementById('video').readyState >= 1"))


def until(browser: Browser, what: Callable[[], object]) -> None:
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: what())


def at(browser: Browser) -> float:
    """Where the player is, once it is there."""
    until(browser, lambda: not browser.execute_script("return document.getElementById('video').seeking"))
    return float(browser.execute_script("return document.getElementById('video').currentTime"))


def paused(browser: Browser) -> bool:
    return bool(browser.execute_script("return document.getElementById('video').paused"))


def visible(browser: Browser) -> list[list[str]]:
    """Rows of the table that are shown, as texts."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#body tr')].filter(r => !r.hidden)"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )


def press(browser: Browser, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def click(browser: Browser, name: str) -> None:
    """Scroll to a button, as a person does whose screen is partly covered, and press it."""
    button = browser.find_element(By.ID, name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def said(browser: Browser) -> str:
    """What a screen reader was told last, whether it is still shown or not."""
    return browser.find_element(By.ID, "said").get_attribute("textContent") or ""


def downloaded(browser: Browser, folder: Path) -> Path:
    """The newest file that a browser of `started(folder)` has saved, once it is whole."""
    # Chromium makes an empty file under that name first.
    files = lambda: [p for p in (folder / "downloads").iterdir() if p.suffix == ".json" and p.stat().st_size]  # noqa: E731
    before = len(files())
    click(browser, "save")
    until(browser, lambda: len(files()) > before)
    return max(files(), key=lambda p: p.stat().st_mtime_ns)


def quiet(browser: Browser) -> None:
    """Nothing in the browser's console, and no script of a name has run."""
    assert browser.get_log("browser") == []
    assert browser.execute_script("return typeof window.hacked") == "undefined"


def on_canvas(browser: Browser, x: float, y: float) -> ActionChains:
    """The mouse at a place of the time line, in pixels from its upper left corner."""
    canvas: WebElement = browser.find_element(By.ID, "canvas")
    rect = canvas.rect
    return ActionChains(browser).move_to_element_with_offset(canvas, x - rect["width"] / 2, y - rect["height"] / 2)

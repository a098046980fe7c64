"""Does the report of a long match scroll and seek without stutter?

A result of 3 hours with 2,000 segments (or `--segments`) and 16,875 snippets and a video of that length, in Debian's
Chromium (apt install chromium chromium-driver), headless and drawing on the CPU. Prints times between the frames that
the browser drew while the time line, the table and the slider were moved at each frame, how long seeking took, and how
long the page was busy with a segment that was kept and with an edge that was moved, its layout included.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.clips.encode import open_movie
from pipeline.run.views import write_page
from postprocess.curves import Curves
from postprocess.segment import Result, Segment

HOURS, SEGMENTS, CLASSES, SNIPPET = 3, 2000, 8, 0.64
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000",
)  # fmt: skip

# Moves something at each of 240 frames; resolves to the milliseconds from each frame to the next.
MOVE = """
const done = arguments[arguments.length - 1], step = eval(arguments[0]), gaps = [];
let before = null, k = 0;
const frame = (now) => {
  if (before !== null) gaps.push(now - before);
  before = now;
  if (k === 240) return done(gaps);
  step(k++ / 240);
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""
MOVES = {
    "nothing": "(k) => {}",
    "time line, whole": "(k) => document.getElementById('scroller').dispatchEvent(new Event('scroll'))",
    "time line, zoomed": "(k) => { const s = document.getElementById('scroller'); s.scrollLeft = k * s.scrollWidth; }",
    "table": "(k) => { const t = document.querySelector('.rows'); t.scrollTop = k * t.scrollHeight; }",
    "slider": "(k) => { const s = document.getElementById('threshold'); s.value = k; "
    "s.dispatchEvent(new Event('input')); }",
}
ALL = "const s = document.getElementById('threshold'); s.value = 0; s.dispatchEvent(new Event('input'))"
# Clicks on 40 segments, one after the other; resolves to the milliseconds until the player was there.
SEEK = """
const done = arguments[arguments.length - 1], rows = document.querySelectorAll('#body .seek'), times = [];
const video = document.getElementById('video');
let k = 0, begun = 0;
video.addEventListener('seeked', () => { times.push(performance.now() - begun); next(); });
const next = () => {
  if (k === 40) return done(times);
  begun = performance.now();
  rows[(k++ * 997) % rows.length].click();
};
next();
"""
SORT = """
const heads = document.querySelectorAll('#columns button'), times = [];
for (let k = 0; k < 12; k++) {
  const begun = performance.now();
  heads[k % heads.length].click();
  document.body.offsetHeight;
  times.push(performance.now() - begun);
}
return times;
"""
KEEP = """
const buttons = document.querySelectorAll('#body .yes').length, times = [];
for (let k = 0; k < 60; k++) {
  const begun = performance.now();
  document.querySelectorAll('#body .yes')[(k * 7) % buttons].click();
  document.body.offsetHeight;
  times.push(performance.now() - begun);
}
return times;
"""
EDGE = """
const times = [];
for (let k = 0; k < 60; k++) {
  const begun = performance.now(), key = k % 2 ? 'ArrowLeft' : 'ArrowRight';
  document.getElementById('to').dispatchEvent(new KeyboardEvent('keydown', { key }));
  document.body.offsetHeight;
  times.push(performance.now() - begun);
}
return times;
"""


def match(folder: Path, hours: float = HOURS, count: int = SEGMENTS) -> tuple[Result, Curves, Path]:
    """The result, its curves, and its video: a grey frame a second, small."""
    rng = np.random.default_rng(0)
    duration = hours * 3600
    labels = tuple(f"action {c}" for c in range(CLASSES))
    starts = np.sort(rng.uniform(0, duration - 12, count))
    segments = tuple(
        Segment(float(s), float(s + rng.uniform(1, 10)), float(rng.normal()), float(rng.random()), labels[k])
        for s, k in zip(starts, rng.integers(0, CLASSES, count), strict=True)
    )
    steps = int(duration / SNIPPET)
    times = np.arange(steps)[:, None] * SNIPPET + np.array([0.0, SNIPPET])
    cas = rng.normal(0, 2, (steps, CLASSES + 1)).astype(np.float32)
    curves = Curves(times, rng.random(steps).astype(np.float32), cas, cas, labels)
    video = folder / "match.mp4"
    with open_movie(video, (180, 320), Fraction(1), quality=35) as movie:
        image = np.zeros((180, 320, 3), np.uint8)
        for k in range(int(duration)):
            image[:, :] = 60 + k % 120
            movie.picture(image, float(k))
    return Result(str(video), duration, {"rate": "1"}, segments, (), {}), curves, video


def measure(page: Path) -> dict[str, Any]:
    """All the times, in milliseconds."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
        try:
            driver.set_script_timeout(120)
            begun = time.perf_counter()
            driver.get(page.as_uri())
            found: dict[str, Any] = {"open": [1000 * (time.perf_counter() - begun)]}
            until = time.perf_counter() + 30
            while driver.execute_script("return document.getElementById('video').readyState") < 1:
                if time.perf_counter() > until:
                    raise SystemExit("the video does not load")
            for name, move in MOVES.items():
                if name == "time line, zoomed":
                    driver.execute_script("for (let k = 0; k < 7; k++) document.getElementById('in').click()")
                found[f"frames: {name}"] = driver.execute_async_script(MOVE, move)
            driver.execute_script(ALL)
            found["click to seeked"] = driver.execute_async_script(SEEK)
            found["sort"] = driver.execute_script(SORT)
            found["keep a segment"] = driver.execute_script(KEEP)
            found["move an edge"] = driver.execute_script(EDGE)
        finally:
            driver.quit()
    return found


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=SEGMENTS)
    parser.add_argument("--json", action="store_true", help="print all times")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result, curves, video = match(Path(folder), count=asked.segments)
        page = Path(folder) / "match.html"
        write_page(result, curves, video, page)
        size = page.stat().st_size / 2**20
        found = measure(page)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{len(result.segments)} segments, {len(curves.times)} snippets, page {size:.2f} MiB; milliseconds")
    print(f"{'':28}{'median':>9}{'95 %':>9}{'longest':>9}")
    for name, times in found.items():
        middle, high = np.percentile(times, [50, 95])
        print(f"{name:28}{middle:9.1f}{high:9.1f}{max(times):9.1f}")


if __name__ == "__main__":
    main()

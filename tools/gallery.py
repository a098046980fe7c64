"""Make the pictures of docs/gallery.md: the page (light, dark, on a phone), the overlay, a reel's title card, the plot.

    python tools/gallery.py results/match.json docs/images

The result is a real one of `python cli.py run match.mp4 -o results`, its curves beside it. The footage is not real:
most of it may not be shown in a document, so a test picture, drawn here and as long as the video, stands in for it.
Needs Chromium (Debian: apt install chromium chromium-driver) and the packages of requirements-dev.txt.
"""

import argparse
import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.clips import overlay as render
from postprocess.segment import Result

ROOT = Path(__file__).resolve().parents[1]
SIZE = (360, 640)  # (H, W) of the test picture
RATE = Fraction(10)
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    # A mouse, which a machine without a screen lacks: with it the page names keys, and without it touches.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)  # fmt: skip
# name: (width, height, dark); the phone comes last, because touch emulation takes the mouse away for good
VIEWS = {"page_light": (1100, 1000, False), "page_dark": (1100, 1000, True), "page_phone": (390, 1560, False)}


def drawn(seconds: float) -> np.ndarray:
    """(H, W, 3) uint8: a playing field with a ball that moves, and the time; clearly no footage."""
    height, width = SIZE
    image = Image.new("RGB", (width, height), "#2f6b4f")
    pen = ImageDraw.Draw(image)
    goals = ((30, 110, 90, height - 110), (width - 90, 110, width - 30, height - 110))
    for box in ((30, 30, width - 30, height - 30), *goals):
        pen.rectangle(box, outline="#dfeee6", width=3)
    x = width / 2 + (width / 2 - 60) * np.sin(1.1 * seconds)
    y = height - 85 + 30 * np.sin(1.7 * seconds + 1)
    pen.ellipse((x - 11, y - 11, x + 11, y + 11), fill="#f4c542")
    time_text = f"{int(seconds) // 60}:{seconds % 60:04.1f}"
    pen.text((width / 2, 110), time_text, "white", ImageFont.load_default(48), anchor="mm")
    pen.text((width / 2, 165), "test picture, drawn in place of the footage", "white", ImageFont.load_default(18), "mm")
    return np.array(image)


def draw_video(path: Path, duration: float) -> None:
    """Write the test picture as a video of this many seconds."""
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "10", "preset": "veryfast", "g": str(int(RATE))})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for k in range(max(1, int(duration * RATE))):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(k / float(RATE)), format="rgb24")))
        out.mux(stream.encode(None))


def frame_at(video: Path, seconds: float) -> np.ndarray:
    """(H, W, 3): the picture of a video that is shown at a second."""
    shown = None
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time > seconds and shown is not None:
                break
            shown = frame
    assert shown is not None, f"{video} holds no frame"
    return shown.to_ndarray(format="rgb24")


def save(picture: Image.Image, path: Path) -> None:
    """Write a small PNG: 64 levels a colour. No palette: one of 256 colours makes two classes look alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ImageOps.posterize(picture.convert("RGB"), 6).save(path, optimize=True)
    print(f"{path}\t{picture.width}x{picture.height}\t{path.stat().st_size / 1000:.0f} kB")


def screenshots(page: Path, seconds: float) -> Iterator[tuple[str, Image.Image]]:
    """(name, picture) of the page in each of VIEWS, with the player at a second of the video."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        raise SystemExit("no Chromium here: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        driver = webdriver.Chrome(options=options, service=Service(driver_path))
        try:
            for name, (width, height, dark) in VIEWS.items():
                metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                if metrics["mobile"]:
                    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
                theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
                driver.get(page.as_uri())
                _seek(driver, seconds)
                shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
                yield name, _decoded(shot["data"])
        finally:
            driver.quit()


def _seek(driver: Any, seconds: float) -> None:
    """Show the video at a second; wait until it is drawn, and the player's sign of waiting is gone."""
    driver.set_script_timeout(60)
    driver.execute_async_script(
        "const done = arguments[1], video = document.getElementById('video');"
        "const ready = () => video.readyState === 4 && !video.seeking ? setTimeout(done, 2000) : setTimeout(ready, 50);"
        "const seek = () => { video.currentTime = arguments[0]; ready(); };"
        "video.readyState >= 1 ? seek() : video.addEventListener('loadedmetadata', seek, {once: true});",
        seconds,
    )


def _decoded(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


def jcdnet(*arguments: object) -> None:
    """Run one of our own commands."""
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def make(result_path: Path, out: Path) -> None:
    """All the pictures."""
    result = Result.from_dict(json.loads(result_path.read_text(encoding="utf-8")))
    if result.best is None:
        raise SystemExit(f"{result_path}: no segment in it, so nothing to show")
    middle = (result.best.start + result.best.end) / 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied = folder / "results" / result_path.name
        copied.parent.mkdir()
        shutil.copy(result_path, copied)
        shutil.copy(result_path.with_suffix(".scores.npz"), copied.parent)
        video = folder / "footage" / Path(result.video).name
        draw_video(video, result.duration)

        jcdnet("report", copied, "-o", folder / "pages", "--videos", video.parent)
        for view, picture in screenshots(folder / "pages" / f"{result_path.stem}.html", middle):
            save(picture, out / f"{view}.png")

        overlay = folder / "overlay.mp4"
        render.overlay(result, video, overlay)
        save(Image.fromarray(frame_at(overlay, middle)), out / "overlay.png")

        reels = folder / "reels"
        most = Counter(s.label for s in result.segments).most_common(1)[0][0]
        jcdnet("clips", copied, "-o", reels, "--videos", video.parent, "--reel", "--classes", most)
        save(Image.fromarray(frame_at(next(reels.glob("*.mp4")), 1.0)), out / "reel_card.png")


def main() -> None:
    """Parse, make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="a result of `run -o`, with its .scores.npz beside it")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    asked = parser.parse_args()
    make(asked.result, asked.out)


if __name__ == "__main__":
    main()

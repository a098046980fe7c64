"""Teach two actions on the page: what it takes in clicks, keys and machine minutes, and what is found afterwards.

    python benchmarks/teach.py DIR [--corpus DIR] [--videos 20] [--unseen 10]

Makes 20 videos of about 25 s, 256x256, that show baseball pitches or kickflips in stretches of 3 to 8 s between other
footage, cut together from labelled clips as benchmarks/sportsmini.py does, and 10 unseen ones of other clips. Nothing
is known about the 20: `report` makes their pages, and a script drives Debian's Chromium through them (apt install
chromium chromium-driver). In each video it marks the first action alone, so that ten instances of each action are
marked and the rest is unknown. It clicks where the action begins and ends on the time line, as exactly as the screen's
pixels allow, and presses the page's keys. It knows the times; a person has to watch the video, and no claim is made
about how long that takes.

Then `labels import`, `train` with its defaults, and `run` on the unseen videos. An action counts as found if a segment
of its name overlaps it with a tIoU of .5 or more; what else is drawn is false. Nothing here was tuned on the outcome.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sportsmini import FPS, STRETCH_SECONDS, Piece, clip_lengths, encode, instances

ROOT = Path(__file__).resolve().parents[1]
ACTIONS = {"BaseballPitch": "pitch", "Kickflip": "kickflip"}
BACKGROUND = ("Street", "Exercise", "Basketball", "Weightlifting")
LEAST_SECONDS = 20.0  # of a video; the last stretch goes on beyond it
SEED = 19
TIOU = 0.5
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1300,1000",
)  # fmt: skip
Truth = dict[str, list[dict[str, Any]]]  # video → its actions


class Rounds:
    """The clips of one half, handed out in shuffled rounds, so that each is used before one recurs."""

    def __init__(self, lengths: dict[str, dict[str, int]], rng: np.random.Generator) -> None:
        self.lengths, self.rng = lengths, rng
        self._rounds: dict[str, list[str]] = {label: [] for label in lengths}

    def stretch(self, label: str, shown: str) -> list[Piece]:
        """3 to 8 s of clips of a label, the last one whole."""
        left, pieces = self.rng.uniform(*STRETCH_SECONDS) * FPS, []
        while left > 0:
            waiting = self._rounds[label] or [str(n) for n in self.rng.permutation(sorted(self.lengths[label]))]
            self._rounds[label] = waiting
            clip = waiting.pop()
            frames = self.lengths[label][clip] if shown else min(self.lengths[label][clip], round(left) + 1)
            pieces.append(Piece(clip, shown, 0, frames))
            left -= frames
        return pieces

    def video(self, action: str) -> list[Piece]:
        """Other footage and the action in turn, other footage first and last."""
        pieces = self.stretch(str(self.rng.choice(BACKGROUND)), "")
        while sum(p.frames for p in pieces) < LEAST_SECONDS * FPS:
            pieces += self.stretch(action, action) + self.stretch(str(self.rng.choice(BACKGROUND)), "")
        return pieces


def plan(lengths: dict[str, dict[str, int]], counts: dict[str, int]) -> dict[str, dict[str, list[Piece]]]:
    """Folder → video → its pieces. Each video shows one action, each clip is in one folder alone."""
    rng = np.random.default_rng(SEED)
    halves: dict[str, dict[str, dict[str, int]]] = {name: {} for name in counts}
    first, second = counts
    for label in (*ACTIONS, *BACKGROUND):
        clips = [str(name) for name in rng.permutation(sorted(lengths[label]))]
        cut = min(max(1, round(counts[first] / sum(counts.values()) * len(clips))), len(clips) - 1)
        halves[first][label] = {name: lengths[label][name] for name in clips[:cut]}
        halves[second][label] = {name: lengths[label][name] for name in clips[cut:]}
    sources = {half: Rounds(halves[half], rng) for half in counts}
    names = list(ACTIONS)
    return {
        half: {f"{half}_{n:02}": source.video(names[n % len(names)]) for n in range(counts[half])}
        for half, source in sources.items()
    }


def make(folder: Path, corpus: Path, counts: dict[str, int]) -> Truth:
    """Write the videos, and return what is true of them."""
    truth: Truth = {}
    for half, videos in plan(clip_lengths(corpus, (*ACTIONS, *BACKGROUND)), counts).items():
        (folder / half).mkdir(parents=True, exist_ok=True)
        for name, pieces in videos.items():
            if not (folder / half / f"{name}.mp4").exists():
                encode(pieces, corpus, folder / half / f"{name}.mp4")
            truth[name] = [{**a, "label": ACTIONS[str(a["label"])]} for a in instances(pieces)]
    return truth


class Coach:
    """A person at the page, with a mouse and a keyboard, whose presses are counted."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.clicks = self.keys = 0

    def click(self, element: Any) -> None:
        """One click on a button or a link."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        self.clicks += 1

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        ActionChains(self.driver).send_keys(*keys).perform()
        self.keys += len(keys)

    def save(self) -> None:
        """Ctrl+S: two keys."""
        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys("s").key_up(Keys.CONTROL).perform()
        self.keys += 2

    def go(self, seconds: float, duration: float) -> None:
        """Click on the time line's axis, and wait until the player is there."""
        canvas = self.driver.find_element(By.ID, "canvas")
        rect = canvas.rect
        x = round(seconds / duration * rect["width"] - rect["width"] / 2)
        ActionChains(self.driver).move_to_element_with_offset(canvas, x, 10 - rect["height"] / 2).click().perform()
        self.clicks += 1
        self.wait("return !document.getElementById('video').seeking")

    def wait(self, what: str) -> None:
        """Until a script returns true."""
        WebDriverWait(self.driver, 30, poll_frequency=0.02).until(lambda d: d.execute_script(what))

    def mark(self, video: str, action: dict[str, Any]) -> None:
        """From the index to the video's page, mark one action there, save, and back."""
        self.click(self.driver.find_element(By.PARTIAL_LINK_TEXT, video))
        self.wait("return document.getElementById('video')?.readyState >= 1")
        duration = float(self.driver.execute_script("return document.getElementById('video').duration"))
        start, end = action["segment"]
        self.go(start, duration)
        self.press("i")
        self.go(end, duration)
        self.press("o", Keys.ENTER)
        self.click(self.driver.find_element(By.XPATH, f"//*[@id='known']/button[.='{action['label']}']"))
        self.save()
        self.wait("return document.getElementById('said').textContent.startsWith('Saved')")
        self.click(self.driver.find_element(By.ID, "back"))
        self.wait("return Boolean(document.getElementById('cards'))")


def mark_all(pages: Path, out: Path, truth: Truth) -> Coach:
    """Mark the first action of each video; the files are downloaded into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in (*SWITCHES, f"--user-data-dir={out.parent / 'profile'}"):
        options.add_argument(switch)
    options.add_experimental_option("prefs", {"download.default_directory": str(out.absolute())})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        driver.get((pages / "index.html").absolute().as_uri())
        coach = Coach(driver)
        for video, actions in truth.items():
            coach.mark(video, actions[0])
        until = time.perf_counter() + 30
        while len(list(out.glob("*.corrections.json"))) < len(truth) and time.perf_counter() < until:
            time.sleep(0.1)
        return coach
    finally:
        driver.quit()


def tiou(one: list[float], other: list[float]) -> float:
    """Intersection over union of two spans."""
    inside = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, inside) / (max(one[1], other[1]) - min(one[0], other[0]))


def score(results: Path, truth: Truth) -> dict[str, list[int]]:
    """Action → [found, true, false]."""
    counts = {name: [0, 0, 0] for name in ACTIONS.values()}
    for video, actions in truth.items():
        drawn = json.loads((results / f"{video}.json").read_text())["segments"]
        left = list(actions)
        for segment in sorted(drawn, key=lambda s: -s["confidence"]):
            span = [segment["start"], segment["end"]]
            fits = [a for a in left if a["label"] == segment["label"] and tiou(a["segment"], span) >= TIOU]
            if fits:
                left.remove(max(fits, key=lambda a: tiou(a["segment"], span)))
            counts[segment["label"]][0 if fits else 2] += 1
        for action in actions:
            counts[action["label"]][1] += 1
    return counts


def jcdnet(*arguments: object) -> float:
    """Run one of our commands; returns its minutes."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *map(str, arguments)], check=True, stdout=sys.stderr)
    return (time.perf_counter() - begun) / 60


def main() -> None:
    """Make, mark, train, run, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--unseen", type=int, default=10)
    parser.add_argument("--steps", type=int, help="of the training; default: the preset's")
    asked = parser.parse_args()
    folder: Path = asked.folder
    truth = make(folder, asked.corpus, {"footage": asked.videos, "unseen": asked.unseen})
    for name in ("pages", "marked", "profile", "runs", "found"):
        shutil.rmtree(folder / name, ignore_errors=True)
    names, labels, times = ",".join(ACTIONS.values()), folder / "labels.csv", folder / "times.csv"
    minutes = {"report": jcdnet("report", folder / "footage", "-o", folder / "pages", "--classes", names)}
    coach = mark_all(folder / "pages", folder / "marked", {v: a for v, a in truth.items() if v.startswith("footage")})
    minutes["labels import"] = jcdnet(
        "labels", "import", folder / "marked", "--from", "jcdnet", "--videos", folder / "footage",
        "-o", labels, "--times", times, "--overwrite",
    )  # fmt: skip
    steps = [] if asked.steps is None else ["--steps", asked.steps]
    minutes["train"] = jcdnet(
        "train", labels, "--times", times, "--videos", folder / "footage", "-o", folder / "runs", *steps
    )
    minutes["run"] = jcdnet("run", folder / "unseen", "--model", folder / "runs", "-o", folder / "found", "-f", "json")
    counts = score(folder / "found", {v: a for v, a in truth.items() if v.startswith("unseen")})
    print(f"{asked.videos} videos, {asked.videos} actions marked: {coach.clicks} clicks, {coach.keys} keys")
    print("minutes: " + ", ".join(f"{name} {spent:.1f}" for name, spent in minutes.items()))
    for name, (found, true, false) in counts.items():
        print(f"{name}: {found} of {true} found in {asked.unseen} unseen videos, {false} false")
    found, true, false = map(sum, zip(*counts.values(), strict=True))
    print(f"all: {found} of {true} found ({100 * found / true:.0f} %), {false} false")


if __name__ == "__main__":
    main()

"""The confidence of what `find` finds: how often such matches are right, which depends on how much is searched."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extractors.features import Features
from pipeline.query import DEFAULTS, Example, Query, Seen
from postprocess.segment import Segment

STEP, CLIP = 0.64, 6  # seconds and snippets
KINDS, DIM = 8, 64


def footage(clips: int, seed: int, kinds: int = KINDS) -> dict[str, Seen]:
    """Clips of six snippets: each shows one of several kinds, of which every clip is a variation."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(KINDS, DIM))
    found = {}
    for k in range(clips):
        rows = centres[k % kinds] + rng.normal(size=DIM) + 0.5 * rng.normal(size=(CLIP, DIM))
        times = np.arange(CLIP)[:, None] * STEP + np.array([0.0, STEP])
        settings = {"rgb": {"fps": 25.0}}
        found[f"{k}"] = Seen(f"{k}", Features(rows.astype(np.float32), None, times, CLIP * STEP, {}, settings))
    return found


def matches(folder: dict[str, Seen], name: str, least: float = 0.0) -> dict[str, list[Segment]]:
    """What is found in the other clips by one clip."""
    config = replace(DEFAULTS, min_confidence=least)
    query = Query("x", [(Example(Path(f"{name}.mp4")), folder[name])], [], list(folder.values()), config)
    return {other: list(query.result(Path(other), seen)[0].segments) for other, seen in folder.items() if other != name}


def sure(found: dict[str, list[Segment]]) -> list[float]:
    return [s.confidence for segments in found.values() for s in segments]


@pytest.mark.parametrize("clips", [16, 80])
def test_little_footage_makes_no_match_sure(clips: int) -> None:
    """In a minute or five of real clips, matches that were called .99 were wrong in more than every second case."""
    confidences = [c for k in range(8) for c in sure(matches(footage(clips, seed=1), str(k)))]
    assert confidences and max(confidences) < (0.75 if clips == 16 else 0.9)


def test_the_measured_line() -> None:
    """The confidence is the logistic curve of benchmarks/find_confidence.py over the curve's mean."""
    folder = footage(47, seed=2)  # 3 minutes
    example = Example(Path("0.mp4"))
    query = Query("x", [(example, folder["0"])], [], list(folder.values()))
    found = 0
    for seen in folder.values():
        p = np.clip(query.probability(seen.features), 1e-6, 1 - 1e-6)
        for s in query.result(Path("v"), seen)[0].segments:
            inside = p[round(s.start / STEP) : round(s.end / STEP)].mean()
            size = math.log(47 * CLIP * STEP / 60)
            odds = (0.19 + 0.09 * size) * math.log(inside / (1 - inside)) - 2.07 + 0.27 * size
            assert s.confidence == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-6)
            found += 1
    assert found > 3


def test_an_example_of_one_snippet_is_less_sure_and_more_than_half_an_hour_is_like_half_an_hour() -> None:
    folder = footage(32, seed=3)
    whole, brief = (Query("x", [(Example(Path("0.mp4"), 0.0, end), folder["0"])], [], list(folder.values()))
                    for end in (math.inf, 0.6))  # fmt: skip
    assert brief._drawn.confidence_shift == pytest.approx(whole._drawn.confidence_shift - 0.35)
    large = {f"{n}": replace(seen, features=replace(seen.features, duration=3600.0)) for n, seen in folder.items()}
    (one,) = [Query("x", [(Example(Path("0.mp4")), large["0"])], [], [large["0"]])]
    many = Query("x", [(Example(Path("0.mp4")), large["0"])], [], list(large.values()))
    assert one._drawn == many._drawn


def test_the_least_confidence_is_of_what_is_shown() -> None:
    folder = footage(80, seed=4)
    all_of_them = matches(folder, "0")
    bar = float(np.median(sure(all_of_them)))
    left = matches(folder, "0", least=bar)
    assert sorted(sure(left)) == pytest.approx(sorted(c for c in sure(all_of_them) if c >= bar))

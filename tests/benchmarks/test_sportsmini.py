"""The plan of SportsMini: halves that share no clip, truth that fits the pieces."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sportsmini.py"


@pytest.fixture(scope="module")
def sportsmini():
    spec = importlib.util.spec_from_file_location("sportsmini", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["sportsmini"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "short"])
def videos(sportsmini, request):
    rng = np.random.default_rng(1)
    lengths = {
        label: {f"{label}/{n}.mp4": int(rng.integers(24, 200)) for n in range(12)}
        for label in (*sportsmini.ACTIONS, *sportsmini.BACKGROUND)
    }
    return sportsmini.plan(lengths, {"train": 12, "test": 8}, short=request.param)


def test_no_clip_is_in_both_halves(videos):
    clips = {half: {p.clip for pieces in items.values() for p in pieces} for half, items in videos.items()}
    assert clips["train"] and clips["test"] and not clips["train"] & clips["test"]
    assert {half: len(items) for half, items in videos.items()} == {"train": 12, "test": 8}


def test_videos_are_long_enough_and_begin_and_end_with_background(sportsmini, videos):
    for items in videos.values():
        for pieces in items.values():
            assert sum(p.frames for p in pieces) >= sportsmini.VIDEO_SECONDS * sportsmini.FPS
            assert not pieces[0].label and not pieces[-1].label


def test_instances_are_exactly_the_pieces_with_a_label(sportsmini, videos):
    for items in videos.values():
        for pieces in items.values():
            truth = np.zeros(sum(p.frames for p in pieces), dtype=object)
            at = 0
            for piece in pieces:
                truth[at : at + piece.frames] = piece.label
                at += piece.frames
            drawn = np.full(len(truth), "", dtype=object)
            for instance in sportsmini.instances(pieces):
                first, last = (round(s * sportsmini.FPS) for s in instance["segment"])
                assert (drawn[first:last] == "").all()
                drawn[first:last] = instance["label"]
            assert (drawn == truth).all()


def test_every_action_is_shown_alike_often(sportsmini, videos):
    shown = [{p.label for p in pieces} - {""} for items in videos.values() for pieces in items.values()]
    counts = {action: sum(action in labels for labels in shown) for action in sportsmini.ACTIONS}
    assert min(counts.values()) >= 4
    assert any(len(labels) == 2 for labels in shown)


def test_short_actions_last_less_than_a_second(sportsmini):
    lengths = {
        label: {f"{label}/{n}.mp4": 10 + 20 * n for n in range(6)}
        for label in (*sportsmini.ACTIONS, *sportsmini.BACKGROUND)
    }
    videos = sportsmini.plan(lengths, {"train": 4, "test": 4}, short=True)
    found = [
        i["segment"] for items in videos.values() for pieces in items.values() for i in sportsmini.instances(pieces)
    ]
    assert found and all(0.4 - 1e-9 <= end - start <= 0.96 + 1e-9 for start, end in found)

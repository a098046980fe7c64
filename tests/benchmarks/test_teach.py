"""The script that teaches two actions on the page: its videos, its presses in a real browser, its counts."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import coded, encode

from benchmarks import teach
from benchmarks.sportsmini import instances
from pipeline.run.blank import blank_results
from pipeline.run.results import Stored
from pipeline.run.views import Extras, write_pages
from pipeline.training.corrections import read_corrections


def test_each_video_shows_one_action_and_no_clip_is_in_both_folders() -> None:
    lengths = {label: {f"{label}/{n}": 60 + n for n in range(12)} for label in (*teach.ACTIONS, *teach.BACKGROUND)}
    videos = teach.plan(lengths, {"footage": 20, "unseen": 10})
    shown = [{piece.clip for pieces in of.values() for piece in pieces} for of in videos.values()]
    assert not shown[0] & shown[1]
    for of in videos.values():
        actions = [{piece.label for piece in pieces} - {""} for pieces in of.values()]
        assert all(len(names) == 1 for names in actions) and len({min(names) for names in actions}) == 2
        for pieces in of.values():
            assert pieces[0].label == pieces[-1].label == "" and instances(pieces)
            assert sum(piece.frames for piece in pieces) >= 20 * 25
    assert videos == teach.plan(lengths, {"footage": 20, "unseen": 10})


def test_what_is_found_is_counted(tmp_path: Path) -> None:
    truth = {"v": [{"label": "pitch", "segment": [1, 3]}, {"label": "pitch", "segment": [5, 7]}],
             "w": [{"label": "kickflip", "segment": [1, 3]}]}  # fmt: skip
    found = {"v": [(1.2, 3.4, "pitch", 0.9), (1.0, 3.0, "pitch", 0.5), (5.0, 5.5, "pitch", 0.4)],
             "w": [(1.0, 3.0, "kickflip", 0.9)]}  # fmt: skip
    for name, spans in found.items():
        segments = [{"start": a, "end": b, "label": label, "confidence": c} for a, b, label, c in spans]
        (tmp_path / f"{name}.json").write_text(json.dumps({"segments": segments}))
    assert teach.score(tmp_path, truth) == {"pitch": [1, 2, 2], "kickflip": [1, 1, 0]}


@pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="no Chromium here: apt install chromium chromium-driver"
)
def test_it_marks_the_first_action_of_each_video(tmp_path: Path) -> None:
    truth = {}
    for n, (name, start) in enumerate((("one", 1.0), ("two", 2.0))):
        encode(tmp_path / f"{name}.mp4", [coded(k) for k in range(150)], options={"g": "25"})
        label = list(teach.ACTIONS.values())[n]
        truth[name] = [{"label": label, "segment": [start, start + 2]}, {"label": label, "segment": [5.0, 5.5]}]
    blank = [one for one in blank_results([tmp_path / f"{name}.mp4" for name in truth], tmp_path / "pages")]
    stored = [one for one in blank if isinstance(one, Stored)]
    extras = Extras(classes=tuple(teach.ACTIONS.values()))
    assert all(wrong is None for _, wrong in write_pages(stored, tmp_path / "pages", tmp_path / "pages", extras=extras))
    coach = teach.mark_all(tmp_path / "pages", tmp_path / "marked", truth)
    assert (coach.clicks, coach.keys) == (2 * 5, 2 * 5)
    for video in read_corrections([tmp_path / "marked"], "jcdnet"):
        (span,) = video.spans
        first = truth[Path(video.video).stem][0]
        assert span.label == first["label"] and video.complete is False
        assert (span.start, span.end) == pytest.approx(first["segment"], abs=0.02)

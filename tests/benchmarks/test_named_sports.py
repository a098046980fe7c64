"""named_sports and what is fitted and scored on it: halves that share no clip, known answers, what is counted."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fit_wide, named_quality, named_sports
from extractors.backbones import weights
from extractors.features import Features
from postprocess.config import LocalizeConfig
from postprocess.evaluation.annotations import Action
from postprocess.segment import Segment

pytestmark = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


@pytest.fixture(scope="module")
def planned():
    rng = np.random.default_rng(2)
    counts = {name: 9 for name in named_sports.SPORTS} | {"GolfSwing": 1, "Badminton": 3, "Street": 12}
    lengths = {
        name: {f"{name}/{n}.mp4": int(rng.integers(24, 400)) for n in range(count)} for name, count in counts.items()
    }
    return lengths, *named_sports.plan(lengths)


def test_the_halves_share_no_clip_and_rare_sports_are_scored_alone(planned):
    _, videos, clips = planned
    shown = {half: {p.clip for pieces in items.values() for p in pieces} for half, items in videos.items()}
    assert shown["fit"] and shown["score"] and not shown["fit"] & shown["score"]
    for half in named_sports.HALVES:
        assert shown[half] <= {clip for names in clips[half].values() for clip in names}
    assert not clips["fit"]["golf"] and not clips["fit"]["badminton"]
    assert len(clips["score"]["badminton"]) == 3


def test_instances_last_three_seconds_or_are_all_there_is_and_a_clip_is_shown_once(planned):
    lengths, videos, _ = planned
    frames = {clip: n for names in lengths.values() for clip, n in names.items()}
    for items in videos.values():
        seen: dict[str, int] = {}
        for pieces in items.values():
            assert not pieces[0].label and not pieces[-1].label
            for piece in pieces:
                assert piece.first >= 0 and piece.first + piece.frames <= frames[piece.clip]
                if piece.label:
                    seen[piece.clip] = seen.get(piece.clip, 0) + piece.frames
            for instance in named_sports.instances(pieces):
                start, end = instance["segment"]
                assert end - start >= 3 - 1e-9 or instance["label"] in ("golf", "badminton")
        assert all(n <= frames[clip] for clip, n in seen.items())


def test_the_files_agree_on_what_is_shown_when(planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lengths, videos, _ = planned
    monkeypatch.setattr(named_sports, "clip_lengths", lambda corpus, labels: lengths)
    monkeypatch.setattr(named_sports, "encode", lambda pieces, corpus, path: None)
    monkeypatch.setattr("sys.argv", ["named_sports.py", str(tmp_path)])
    named_sports.main()
    pieces, clips = (json.loads((tmp_path / name).read_text()) for name in ("pieces.json", "clips.json"))
    truth = json.loads((tmp_path / "ground_truth.json").read_text())["database"]
    assert set(pieces) == set(truth) == {name for items in videos.values() for name in items}
    for name, shown in pieces.items():
        assert [start for start, _, _ in shown] == [0.0, *(end for _, end, _ in shown[:-1])]
        assert shown[-1][1] == pytest.approx(truth[name]["duration"])
        here = clips[truth[name]["subset"]]
        assert {clip for _, _, clip in shown} <= {clip for names in here.values() for clip in names}
        for action in truth[name]["annotations"]:
            start, end = action["segment"]
            assert {clip for a, b, clip in shown if start <= (a + b) / 2 < end} <= set(here[action["label"]])


def test_platt_finds_the_map_that_made_the_answers():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 20000)
    z = np.log(p / (1 - p))
    right = rng.random(len(p)) < 1 / (1 + np.exp(-(0.6 * z + 0.8)))
    slope, shift = fit_wide.platt(p, right, np.ones(len(p)))
    assert slope == pytest.approx(0.6, abs=0.05) and shift == pytest.approx(0.8, abs=0.05)


def video(actions: list[Action], found: list[Segment], monkeypatch) -> named_quality.Quality:
    arm = named_quality.arms()["untuned"]
    monkeypatch.setattr(named_quality.Arm, "find", lambda self, features, keep=None: found)
    features = Features(np.zeros((1, 1024), np.float32), None, np.zeros((1, 2)), 100.0, {}, {})
    return named_quality.judge({"v": arm}, {"v": features}, {"v": actions})


def test_what_the_table_counts(monkeypatch):
    actions = [Action(10, 20, "tennis"), Action(40, 50, "golf"), Action(70, 80, "tennis")]
    found = [
        Segment(10, 20, 1.0, 0.9, "playing tennis"),  # right
        Segment(40, 43, 1.0, 0.8, "playing tennis"),  # on golf, but less of it than the next
        Segment(43, 50, 1.0, 0.7, "golf putting"),  # right, by the sport
        Segment(55, 60, 1.0, 0.6, "playing tennis"),  # on the street
    ]
    quality = video(actions, found, monkeypatch)
    assert quality.best == [True, True, False]
    assert quality.wrong == ["v 70.0-80.0 tennis: nothing"]
    assert quality.false == pytest.approx(60 / 70)
    assert quality.right.tolist() == [True, False, True, False]
    assert quality.ap["golf"][1].tolist() == [100, 100, 100]
    assert quality.ece == pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)


def test_the_plain_head_has_no_background_and_the_shipped_arm_its_own_settings():
    arms = named_quality.arms()
    x = np.random.default_rng(5).gamma(0.5, 0.6, (3, 1024)).astype(np.float32)
    scores = arms["plain head"].score(x)
    assert (scores.actionness == 1).all() and (scores.cas[:, -1] < -1e3).all()
    assert arms["kinetics400"].config == LocalizeConfig(**arms["kinetics400"].model.localize)
    assert arms["kinetics400 --all"].config.min_confidence == 0


def test_a_picture_is_drawn(monkeypatch, tmp_path: Path):
    quality = video([Action(10, 20, "golf")], [Segment(10, 20, 1.0, 0.9, "golf putting")], monkeypatch)
    named_quality.plot(quality, tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")

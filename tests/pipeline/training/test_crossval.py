"""The check on held-out videos: nobody judges what it has seen, it survives a kill, and its advice is sound."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import LossConfig, ModelConfig, TrainConfig
from model.datasets import VideoSet
from model.train import TrainError, initialise
from pipeline.training import crossval
from pipeline.training.crossval import ENOUGH, FILE_NAME, Check, ClassQuality, Quality, assign_folds, cross_validate

torch.set_num_threads(1)
patient = settings(deadline=None)

WIDTH, CLASSES = 8, ("golf", "tennis")
CONFIG = TrainConfig(steps=3, batch=4, snippets=10, lr=1e-3, sampling="pad", save_every=1)


def toy(shown: list[set[str]], seed: int = 0) -> VideoSet:
    """One video a set: each class lifts two columns of its own for a third of the snippets."""
    rng = np.random.default_rng(seed)
    rows = []
    for labels in shown:
        t = int(rng.integers(9, 13))
        x = rng.random((t, WIDTH)).astype(np.float32) * 0.2
        for c, name in enumerate(CLASSES):
            if name in labels:
                at = int(rng.integers(0, t - 4))
                x[at : at + 4, 2 * c : 2 * c + 2] += 3.0
        rows.append(x)
    labels = np.array([[name in one for name in CLASSES] for one in shown])
    return VideoSet(rows, labels, tuple(f"v{v}" for v in range(len(shown))), CLASSES)


DATA = toy([{"golf"}, {"tennis"}, {"golf"}, {"tennis"}, set(), {"golf", "tennis"}, {"golf"}, set()])
START = initialise(ModelConfig(classes=2, in_dim=WIDTH, dim=4), CLASSES, ("rgb",), {}, seed=0)


def check(folder: Path, *, data: VideoSet = DATA, start=START, config=CONFIG, folds: int = 2, **rest) -> Quality:
    return cross_validate(start, data, config, Check(folds), folder, **rest)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The videos of every training that is begun."""
    seen: list[tuple[str, ...]] = []
    real = crossval.train

    def spy(start, data, config, folder, **rest):
        seen.append(data.names)
        return real(start, data, config, folder, **rest)

    monkeypatch.setattr(crossval, "train", spy)
    return seen


@patient
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    empty=st.integers(0, 9),
    folds=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_a_class_is_spread_as_evenly_as_can_be(sizes, empty, folds, seed) -> None:
    labels = np.zeros((sum(sizes) + empty, len(sizes)), dtype=bool)
    labels[np.arange(sum(sizes)), np.repeat(np.arange(len(sizes)), sizes)] = True
    labels = labels[np.random.default_rng(seed).permutation(len(labels))]
    fold = assign_folds(labels, folds, seed)
    assert fold.shape == (len(labels),)
    held = np.array([labels[fold == k].sum(axis=0) for k in range(folds)])
    assert (held.max(axis=0) - held.min(axis=0) <= 1).all(), held
    whole = np.bincount(fold, minlength=folds)
    if not any(sizes):
        assert whole.max() - whole.min() <= 1


@patient
@given(data=st.data(), folds=st.integers(2, 4), seed=st.integers(0, 9))
def test_videos_of_several_classes(data, folds, seed) -> None:
    n, c = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=n * c, max_size=n * c))).reshape(n, c)
    fold = assign_folds(labels, folds, seed)
    assert set(fold.tolist()) <= set(range(folds))
    assert np.array_equal(fold, assign_folds(labels, folds, seed))
    total = labels.sum(axis=0)
    if total.any():  # the rarest is dealt first, so nothing keeps it from being even
        rarest = int(np.argmin(np.where(total > 0, total, n + 1)))
        held = np.bincount(fold[labels[:, rarest]], minlength=folds)
        assert held.max() - held.min() <= 1


def test_every_video_is_judged_by_a_network_that_has_not_seen_it(
    tmp_path: Path, trainings: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[int, str]] = []
    real = crossval.predict

    def spy(net, features, **rest):
        (name,) = (n for n, rows in zip(DATA.names, DATA.features, strict=True) if rows is features)
        judged.append((len(trainings) - 1, name))
        return real(net, features, **rest)

    monkeypatch.setattr(crossval, "predict", spy)
    told: list[tuple[str, int, int]] = []
    quality = check(tmp_path, folds=3, on_progress=lambda *about: told.append(about))
    assert sorted(name for _, name in judged) == sorted(DATA.names)
    for network, name in judged:
        assert name not in trainings[network]
    for k, names in enumerate(trainings):
        assert len(names) + sum(network == k for network, _ in judged) == len(DATA.names)
    assert told == [("check", done, 9) for done in range(1, 10)]
    assert (quality.folds, quality.videos, quality.empty) == (3, 8, 2)
    assert [(c.label, c.videos) for c in quality.classes] == [("golf", 4), ("tennis", 3)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE_NAME]


def test_what_is_found_and_what_is_drawn_instead() -> None:
    data = toy([{"golf"}, {"golf"}, {"golf"}, {"tennis"}, {"tennis", "golf"}, set(), set()])
    drawn = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [0, 0], [0, 0], [1, 0]], dtype=bool)
    scores = np.array([[0.9, 0], [0.8, 0], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0, 0], [0.85, 0]])
    quality = crossval._judge(data, drawn, scores, 3)
    golf, tennis = quality.classes
    assert golf == ClassQuality("golf", 4, 1, 1, golf.ap, ("tennis", 2))
    assert golf.ap == pytest.approx((1 / 1 + 2 / 3 + 3 / 4 + 4 / 6) / 4)
    assert tennis == ClassQuality("tennis", 2, 1, 2, tennis.ap, None)
    assert tennis.ap == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (quality.right, quality.empty, quality.empty_right) == (3, 2, 1)


def test_a_class_that_is_easy_is_found_in_videos_that_are_new(tmp_path: Path) -> None:
    shown = [{"golf"}, {"tennis"}] * 4 + [set()] * 2
    start = initialise(ModelConfig(classes=2, in_dim=WIDTH, dim=8), CLASSES, ("rgb",), {}, seed=1)
    config = replace(CONFIG, steps=100, lr=1e-2, batch=8, save_every=100, loss=LossConfig(topk_divisor=3))
    quality = check(tmp_path, data=toy(shown), start=start, config=config)
    assert all(c.ap > 0.9 and c.found >= 3 for c in quality.classes), quality
    assert quality.empty_right == 2


def test_a_finished_check_is_kept_for_the_same_training_alone(tmp_path: Path, trainings: list[tuple[str, ...]]) -> None:
    once = replace(CONFIG, steps=1)
    first = check(tmp_path, config=once)
    assert len(trainings) == 2
    assert check(tmp_path, config=once) == first
    assert len(trainings) == 2
    kept = (tmp_path / FILE_NAME).read_text()
    document = json.loads(kept)
    assert document["advice"] == first.advice()
    assert document["classes"][0]["label"] == "golf"

    other_start = replace(START, state={k: v + 0.01 for k, v in START.state.items()})
    other_labels = replace(DATA, labels=DATA.labels[:, ::-1].copy())
    for changed in (
        {"config": replace(once, lr=2e-3)},
        {"config": replace(once, steps=2)},
        {"folds": 3},
        {"start": other_start},
        {"data": other_labels},
        {"resume": False},
    ):
        (tmp_path / FILE_NAME).write_text(kept)
        count = len(trainings)
        check(tmp_path, **{"config": once, **changed})
        assert len(trainings) > count, changed


@pytest.mark.parametrize(
    "damage",
    ["", "[]", "null", "3", '{"identity": 1}', '{"identity": IDENTITY}', '{"identity": IDENTITY, "advice": 1}'],
)
def test_a_damaged_answer_is_made_again(tmp_path: Path, damage: str) -> None:
    first = check(tmp_path, config=replace(CONFIG, steps=1))
    identity = json.dumps(json.loads((tmp_path / FILE_NAME).read_text())["identity"])
    (tmp_path / FILE_NAME).write_text(damage.replace("IDENTITY", identity))
    assert check(tmp_path, config=replace(CONFIG, steps=1)) == first
    assert json.loads((tmp_path / FILE_NAME).read_text())["videos"] == 8


class Killed(BaseException):
    pass


def killed_at(step: int):
    def on_progress(stage: str, done: int, total: int) -> None:
        if done == step:
            raise Killed

    return on_progress


def test_a_killed_check_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = check(tmp_path / "whole", folds=3)
    for step in (1, 4, 8):  # in the first fold, and in later ones
        with pytest.raises(Killed):
            check(tmp_path / "killed", folds=3, on_progress=killed_at(step))
        assert not (tmp_path / "killed" / FILE_NAME).exists()
    told: list[int] = []
    assert check(tmp_path / "killed", folds=3, on_progress=lambda stage, done, total: told.append(done)) == whole
    assert told == [9]  # 8 of 9 were done
    texts = [(tmp_path / name / FILE_NAME).read_text() for name in ("whole", "killed")]
    assert texts[0] == texts[1]


def test_what_a_killed_check_left_does_not_stop_another_one(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        check(tmp_path, folds=4, on_progress=killed_at(5))
    (tmp_path / "fold-1-of-4" / "notes.txt").write_text("mine")
    check(tmp_path, folds=2)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "fold-1-of-4",
        "fold-1-of-4/notes.txt",
        FILE_NAME,
    ]
    with pytest.raises(Killed):
        check(tmp_path, folds=4, on_progress=killed_at(5))
    with pytest.raises(TrainError, match="belongs to another training"):
        check(tmp_path, folds=4, config=replace(CONFIG, lr=2e-3))
    check(tmp_path, folds=4, config=replace(CONFIG, lr=2e-3), resume=False)


def quality(*classes: ClassQuality, empty: int = 8, empty_right: int = 8) -> Quality:
    return Quality(4, 40, 30, empty, empty_right, classes)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (quality(ClassQuality("golf", 20, 18, 1, 0.9, None)), []),
        (
            quality(ClassQuality("golf", 20, 10, 0, 0.9, ("ski", 6))),
            ["golf: missed in 10 of 20 videos, 6 times drawn as ski; add videos that show it."],
        ),
        (
            quality(ClassQuality("golf", 20, 10, 0, 0.9, ("ski", 1))),
            ["golf: missed in 10 of 20 videos, once drawn as ski; add videos that show it."],
        ),
        (
            quality(ClassQuality("golf", 20, 14, 0, 0.9, None)),
            ["golf: missed in 6 of 20 videos; add videos that show it."],
        ),
        (
            quality(ClassQuality("golf", 20, 0, 0, 1.0, None)),
            ["golf: missed in 20 of 20 videos; its scores are right, so draw more with a lower --threshold, or train"],
        ),
        (
            quality(ClassQuality("golf", 20, 20, 6, 0.9, None)),
            ["golf: drawn in 6 videos not labelled with it; check their labels, or add videos of what it is"],
        ),
        (
            quality(ClassQuality("golf", 2, 2, 0, 1.0, None)),
            ["golf: 2 videos are few; with 10 or more"],
        ),
        (
            quality(ClassQuality("golf", 20, 20, 0, 1.0, None), empty=0),
            ["every video shows an action; add a few without any"],
        ),
        (
            quality(ClassQuality("golf", 20, 20, 0, 1.0, None), empty=8, empty_right=5),
            ["something is drawn in 3 of 8 videos without action; add more of them."],
        ),
        (
            quality(ClassQuality("golf", 20, 13, 0, 0.9, None), ClassQuality("ski", 20, 1, 0, 0.9, None)),
            ["ski: missed in 19", "golf: missed in 7"],
        ),
    ],
)
def test_advice(made: Quality, said: list[str]) -> None:
    advice = made.advice()
    assert len(advice) == len(said), advice
    for found, wanted in zip(advice, said, strict=True):
        assert found.startswith(wanted)
        assert found.endswith(".")


def test_one_class_and_videos_of_nothing(tmp_path: Path) -> None:
    data = toy([{"golf"}, {"golf"}, set(), set(), set(), set()])
    data = replace(data, labels=data.labels[:, :1].copy(), classes=("golf",))
    start = initialise(ModelConfig(classes=1, in_dim=WIDTH, dim=4), ("golf",), ("rgb",), {}, seed=0)
    found = check(tmp_path, data=data, start=start, folds=2)
    assert (found.videos, found.empty, found.classes[0].videos) == (6, 4, 2)
    assert ENOUGH > 2 and any("few" in sentence for sentence in found.advice())
    json.loads((tmp_path / FILE_NAME).read_text(), parse_constant=lambda name: pytest.fail(name))

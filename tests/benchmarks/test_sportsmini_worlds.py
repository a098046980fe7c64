"""Worlds of SportsMini's training clips: no clip on both sides, every snippet accounted for, the same each time."""

import json
from pathlib import Path

import numpy as np

from benchmarks import marks
from benchmarks import sportsmini_worlds as worlds
from benchmarks.sportsmini import ACTIONS, BACKGROUND
from extractors.featurefile import save
from extractors.features import Features

WIDTH = 6


def bank() -> worlds.Bank:
    """Of each label ten clips of 2 to 9 snippets; a snippet holds the number of its clip."""
    rng = np.random.default_rng(0)
    clips = [f"{label}/{n}.mp4" for label in (*ACTIONS, *BACKGROUND) for n in range(10)]
    return {
        clip: [np.full((int(rng.integers(2, 10)), WIDTH), number, dtype=np.float32)]
        for number, clip in enumerate(clips)
    }


def test_snippets_belong_to_the_clip_at_their_middle(tmp_path: Path) -> None:
    rgb = np.arange(4 * 1024, dtype=np.float32).reshape(4, 1024)
    starts = 0.64 * np.arange(4)
    save(Features(rgb, None, np.stack((starts, starts + 0.64), axis=1), 2.56, {}, {}), tmp_path / "v.npz")
    (tmp_path / "clips.json").write_text(json.dumps({"v": [[0.0, 1.0, "a"], [1.0, 2.56, "b"]]}))
    found = worlds.read(tmp_path, tmp_path / "clips.json")
    np.testing.assert_array_equal(found["a"][0], rgb[:2])  # the middle of the second one is at .96 s
    np.testing.assert_array_equal(found["b"][0], rgb[2:])


def test_no_clip_is_on_both_sides_and_the_truth_is_where_its_snippets_are() -> None:
    clips = bank()
    label = [clip.split("/")[0] for clip in clips]
    task = worlds.world(clips, 3)
    sides = [{int(n) for x in side.features for n in np.unique(x)} for side in (task.train, task.test)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    for v, (x, times) in enumerate(zip(task.test.features, task.times, strict=True)):
        middle = times.mean(axis=1)
        found = np.full(len(x), len(worlds.CLASSES))
        rows = task.truth.video == v
        for c, (start, end) in zip(task.truth.label[rows], task.truth.span[rows], strict=True):
            found[(start <= middle) & (middle < end)] = c
        shown = [label[int(n)] for n in x[:, 0]]
        assert [
            worlds.CLASSES.index(s) if s in worlds.CLASSES else len(worlds.CLASSES) for s in shown
        ] == found.tolist()
        assert set(np.flatnonzero(task.test.labels[v])) == set(found[found < len(worlds.CLASSES)])
    assert task.fingerprint() == worlds.world(clips, 3).fingerprint() != worlds.world(clips, 4).fingerprint()


def test_little_to_learn_from_is_cut_out_of_the_same_videos() -> None:
    whole = worlds.world(bank(), 1)
    long = [len(x) for x in whole.train.features]
    task = worlds.fewer(worlds.world(bank(), 1), 1, 12, 8)
    assert len(task.train.features) == len(task.targets) == 12
    assert all(len(x) == len(t) for x, t in zip(task.train.features, task.targets, strict=True))
    assert all(len(x) == 8 for x in task.train.features[:10])
    assert all(len(x) < n for x, n in zip(task.train.features[10:], long[10:12], strict=True))
    for labels, classes in zip(task.train.labels, task.targets, strict=True):
        assert set(np.flatnonzero(labels)) == set(classes[classes < len(worlds.CLASSES)])
    assert worlds.fewer(worlds.world(bank(), 1), 1, 45, None).fingerprint() == whole.fingerprint()


def test_what_is_marked_is_where_the_actions_are() -> None:
    """At any stride everything marked is the class at a snippet's middle; fewer marks are a part of this."""
    for stride in (16, 4):
        task = worlds.world(bank(), 2, stride)
        known = marks.learned(task, "everything", 0, 0.64).known
        assert known is not None
        for share, classes, times in zip(known, task.targets, task.train_times, strict=True):
            np.testing.assert_allclose(share.sum(axis=1), 1, atol=1e-6)
            edge = np.flatnonzero(np.diff(classes)) if stride < 16 else []
            far = np.array([all(abs(t - e) > 2 for e in edge) for t in range(len(classes))])
            assert (share.argmax(axis=1) == classes)[far].all() and len(times) == len(classes)
    one = marks.marked(task, "1", 0)
    assert sum(len(of.marks) for of in one) == len(worlds.CLASSES) and not any(of.complete for of in one)
    points = marks.marked(task, "points", 0)
    assert sum(len(of.marks) for of in points) == sum(map(len, task.spans))
    assert marks.learned(task, "labels", 0, 0.0) is task.train
    for of, spans in zip(points, task.spans, strict=True):
        assert [m.end for m in of.marks] == [None] * len(spans)
        assert all(start <= m.start <= end for m, (_, start, end) in zip(of.marks, spans, strict=True))

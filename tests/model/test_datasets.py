"""Batches: what stands in them, and that a seed and a step decide it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import TrainConfig
from model.datasets import Batch, DatasetError, VideoSet, draw, sample

torch.set_num_threads(1)


def videos(labels: list[list[int]], lengths: list[int] | None = None, width: int = 3) -> VideoSet:
    """Row i of video v is filled with v + i / 10000, so that a snippet tells where it comes from."""
    lengths = lengths or [7 + 3 * v for v in range(len(labels))]
    rows = [np.repeat((v + np.arange(n) / 1e4)[:, None], width, axis=1) for v, n in enumerate(lengths)]
    return VideoSet(
        features=[r.astype(np.float32) for r in rows],
        labels=np.array(labels, dtype=bool),
        names=tuple(f"v{v}" for v in range(len(labels))),
        classes=tuple(f"c{c}" for c in range(len(labels[0]))),
    )


# Class 0 has four videos, class 1 three, class 2 one; the last video shows nothing.
LABELS = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]
CONFIG = TrainConfig(snippets=12)


def came_from(batch: Batch) -> None:
    """Every row holds snippets of its video in order, zeros at padding, and the video's labels."""
    for row, video in enumerate(batch.videos):
        n = batch.features.shape[1] if batch.mask is None else int(batch.mask[row].sum())
        here = batch.features[row, :n, 0].numpy()
        assert (np.floor(here + 1e-6) == video).all()
        assert (np.diff(here) >= 0).all()
        assert (batch.features[row, n:] == 0).all()
        assert batch.labels[row].tolist() == LABELS[video]


@pytest.mark.parametrize("sampling", ["perturb", "pad"])
def test_a_batch(sampling: str) -> None:
    data, config = videos(LABELS), replace(CONFIG, sampling=sampling)
    for step in range(30):
        batch = draw(data, config, step)
        came_from(batch)
        assert batch.features.shape[0] == len(batch.labels) == len(batch.videos) == 20
        assert batch.features.dtype == batch.labels.dtype == torch.float32
        assert batch.pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
        for m, n in batch.pairs:
            assert batch.videos[m] != batch.videos[n]
            assert (batch.labels[m] * batch.labels[n]).any()
        if sampling == "perturb":
            assert batch.features.shape[1] == 12
            assert batch.mask is None
        else:
            lengths = [min(len(data.features[v]), 12) for v in batch.videos]
            assert batch.features.shape[1] == max(lengths)
            assert (batch.mask is None) == (min(lengths) == max(lengths))
            if batch.mask is not None:
                assert batch.mask.sum(dim=1).tolist() == lengths


def test_seed_and_step_decide() -> None:
    data = videos(LABELS)

    def bits(config: TrainConfig, step: int) -> bytes:
        return draw(data, config, step).features.numpy().tobytes()

    once = [bits(CONFIG, step) for step in range(20)]
    assert len(set(once)) == 20
    torch.manual_seed(3)
    assert once == [bits(CONFIG, step) for step in range(20)]
    assert bits(CONFIG, 5) == once[5]  # without the steps before it
    assert not {bits(replace(CONFIG, seed=1), step) for step in range(20)} & set(once)  # nor are seeds shifted steps
    # Settings of the loop's own leave the batches alone.
    assert bits(replace(CONFIG, steps=9, lr=1.0, save_every=3), 5) == once[5]


def test_all_videos_and_pairable_classes_come_up() -> None:
    data, seen, paired = videos(LABELS), Counter(), Counter()
    for step in range(400):
        batch = draw(data, CONFIG, step)
        seen.update(batch.videos[6:].tolist())
        for m, n in batch.pairs:
            paired.update(torch.nonzero(batch.labels[m] * batch.labels[n]).flatten().tolist())
    assert set(seen) == set(range(7))
    assert max(seen.values()) / min(seen.values()) < 1.25  # uniform: 800 each, sd 26
    assert set(paired) == {0, 1}  # class 2 has one video
    assert paired[0] > 400 and paired[1] > 400  # drawn by class, not by video


@pytest.mark.parametrize(
    ("labels", "batch", "expected"),
    [
        ([[1, 0], [0, 1], [0, 0]], 20, 0),  # no class has two
        ([[1, 0]], 1, 0),
        ([[1, 0]], 20, 0),
        ([[1, 0], [1, 0]], 20, 3),
        ([[1, 0], [1, 0]], 5, 2),
        ([[1, 0], [1, 0]], 1, 0),
    ],
)
def test_small_data(labels: list[list[int]], batch: int, expected: int) -> None:
    got = draw(videos(labels), TrainConfig(batch=batch, snippets=5), 0)
    assert len(got.features) == batch
    assert got.pairs.shape == (expected, 2)
    assert got.pairs.dtype == torch.int64


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 200), t=st.integers(1, 200), seed=st.integers(0, 9))
def test_random_perturb(n: int, t: int, seed: int) -> None:
    picked = sample(n, t, True, np.random.default_rng(seed))
    assert picked.shape == (t,)
    assert picked.min() >= 0 and picked.max() <= n - 1
    assert (np.diff(picked) >= 0).all()
    for i, where in enumerate(picked):  # floor(i n / T) .. floor((i+1) n / T), the last to n - 1
        last = n - 1 if i == t - 1 else int(np.floor(np.float64((i + 1) * n) / t + 1e-9))
        assert int(np.floor(np.float64(i * n) / t + 1e-9)) <= where <= last
    if n <= t:
        assert sample(n, t, False, np.random.default_rng(seed)).tolist() == list(range(n))


def test_random_perturb_uses_both_ends() -> None:
    rng = np.random.default_rng(0)
    seen = [sample(20, 4, True, rng) for _ in range(500)]
    assert [sorted({int(s[i]) for s in seen}) for i in range(4)] == [
        [0, 1, 2, 3, 4, 5],
        [5, 6, 7, 8, 9, 10],
        [10, 11, 12, 13, 14, 15],
        [15, 16, 17, 18, 19],
    ]


def test_half_precision_and_memory_maps(tmp_path: object) -> None:
    data = videos(LABELS)
    path = tmp_path / "v.npy"  # type: ignore[operator]
    np.save(path, data.features[0])
    mapped = replace(data, features=[np.load(path, mmap_mode="r"), *(r.astype(np.float16) for r in data.features[1:])])
    assert draw(mapped, CONFIG, 0).features.dtype == torch.float32
    assert mapped.fingerprint() != data.fingerprint()
    assert replace(data, features=[np.load(path, mmap_mode="r"), *data.features[1:]]).fingerprint() == (
        data.fingerprint()
    )


def test_fingerprint_sees_everything() -> None:
    data = videos(LABELS)
    changed = [r.copy() for r in data.features]
    changed[3][1, 1] += 1
    labels = data.labels.copy()
    labels[0, 2] = True
    others = [
        replace(data, features=changed),
        replace(data, labels=labels),
        replace(data, names=("x", *data.names[1:])),
        replace(data, classes=("x", "c1", "c2")),
    ]
    assert len({data.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_width_and_lengths() -> None:
    data = videos([[1], [0]], [4, 9], width=5)
    assert data.width == 5
    assert data.lengths == (4, 9)


def test_faults_are_named_together() -> None:
    data = videos(LABELS)
    bad = [r.copy() for r in data.features]
    bad[1][2, 0] = np.nan
    bad[2] = bad[2][:0]
    bad[4] = bad[4][:, :2]
    bad[5] = bad[5].astype(np.float64)
    with pytest.raises(DatasetError) as caught:
        replace(data, features=bad)
    for words in (
        "v1 has features that are not finite",
        "v2 has no snippet",
        "v4 has features 2 wide",
        "v5 has features float64",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": [np.zeros((3, 2), np.float32)]}, "1 features, 7 names and 7 rows"),
        ({"features": [], "labels": np.zeros((0, 3), bool), "names": ()}, "no videos"),
        ({"labels": np.zeros((7, 3), bool)}, "nothing to learn"),
        ({"labels": np.ones((7, 3), int)}, "must be bool"),
        ({"labels": np.ones((7, 2), bool)}, r"must be bool \(7, 3\)"),
        ({"features": [np.full((3, 2), np.nan, np.float32)] * 7}, "and 2 more videos"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        replace(videos(LABELS), **changes)

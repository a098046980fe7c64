"""What flow_part.py measures with: statistics against NumPy, cuts that share no clip, probes against plain descent."""

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks import flow_part, flow_statistics
from benchmarks.flow_part import (
    AS_IS,
    UNSEEN,
    Probed,
    balance,
    fit,
    folds,
    interval,
    motion,
    probe,
    space,
    spread_of,
    table,
)
from benchmarks.flow_statistics import CONFIG, LENGTH, Cut, choose, estimate, field, spread
from extractors.decode.grid import Frames
from extractors.inputs.host import flow_input
from extractors.snippets import snippets

torch.set_num_threads(1)


class Two(nn.Module):
    """Convolution, batch norm, ReLU, twice, as small as it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.abn = nn.Conv3d(2, 3, 1, bias=False), nn.BatchNorm3d(3, eps=1e-3)
        self.b, self.bbn = nn.Conv3d(3, 4, 1, bias=False), nn.BatchNorm3d(4, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bbn(self.b(torch.relu(self.abn(self.a(x))))))


def numpy_layer(x: np.ndarray, conv: nn.Conv3d, bn: nn.BatchNorm3d) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (N, C) through one layer that normalises by the rows themselves: output, mean, variance."""
    z = x @ conv.weight.detach().double().numpy().reshape(conv.out_channels, -1).T
    mean, var = z.mean(0), z.var(0)
    gain, shift = (p.detach().double().numpy() for p in (bn.weight, bn.bias))
    return np.maximum((z - mean) / np.sqrt(var + bn.eps) * gain + shift, 0), mean, var


def test_estimated_statistics_are_those_of_all_snippets_together() -> None:
    """In two layers and two passes the statistics are exact, however unlike the batches are."""
    torch.manual_seed(3)
    net = Two().eval()
    nn.init.uniform_(net.abn.weight, 0.5, 2), nn.init.normal_(net.abn.bias)
    batches = [[torch.randn(2, 2, 5, 4) * scale + scale for _ in range(n)] for scale, n in ((0.1, 3), (2, 1), (9, 2))]
    found = estimate(net, batches, passes=2)
    x = torch.cat([item.flatten(1).T for batch in batches for item in batch]).double().numpy()
    hidden, *first = numpy_layer(x, net.a, net.abn)
    _, *second = numpy_layer(hidden, net.b, net.bbn)
    for name, expected in (("abn", first), ("bbn", second)):
        for key, value in zip(("running_mean", "running_var"), expected, strict=True):
            np.testing.assert_allclose(found[f"{name}.{key}"].numpy(), value, rtol=1e-4, atol=1e-5)
    assert set(found) == {f"{n}.{k}" for n in ("abn", "bbn") for k in ("running_mean", "running_var")}
    assert not net.training and not net.abn.training and not net.abn._forward_pre_hooks
    assert torch.equal(net.abn.running_mean, found["abn.running_mean"])
    # One pass has the first layer right and the second only roughly: it saw each batch normalised by itself.
    once = estimate(net, batches, passes=1)
    assert torch.equal(once["abn.running_var"], found["abn.running_var"])
    assert not torch.allclose(once["bbn.running_var"], found["bbn.running_var"], rtol=1e-2)


def test_inputs_are_those_of_extraction(tmp_path: Path) -> None:
    """A clip of exactly one snippet and the frame behind it: its field is what `extract` would see, and is kept."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (32, 40, 3)).astype(np.uint8)
    path = encode(tmp_path / "a.mp4", [np.roll(still, k, axis=1) for k in range(LENGTH + 1)])
    with Frames(path, CONFIG.fps, CONFIG.short_side) as frames:
        (snippet,) = snippets(frames.grid(), length=LENGTH, stride=LENGTH)
    assert snippet.following is not None
    cut = Cut("Street", "a.mp4", 0)
    first = field(cut, tmp_path, tmp_path / "work")
    torch.testing.assert_close(first, flow_input(snippet, CONFIG, "numba", workers=1), atol=1e-5, rtol=0)
    path.unlink()
    assert torch.equal(field(cut, tmp_path, tmp_path / "work"), first)


@settings(deadline=None)
@given(st.lists(st.floats(0.7, 60), min_size=1, max_size=12), st.integers(0, 40))
def test_spread(seconds: list[float], wanted: int) -> None:
    """Cuts lie inside their clips, never overlap, and are as many as asked where there is room."""
    clips = [(f"a/{i}.mp4", s) for i, s in enumerate(seconds)]
    cuts = spread("a", clips, wanted)
    assert len(cuts) == min(wanted, sum(int(s * 25) // 17 for s in seconds))
    for clip, s in clips:
        firsts = [cut.first for cut in cuts if cut.clip == clip]
        assert all(first >= 0 and first + LENGTH + 1 <= int(s * 25) for first in firsts)
        assert all(b - a >= LENGTH + 1 for a, b in pairwise(firsts))


def test_no_clip_is_probed_and_measured(tmp_path: Path) -> None:
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "seconds"))
        for label in (*flow_statistics.PROBED, "Volleyball"):
            rows.writerows((f"{label}/{i}.mp4", label, 2.5) for i in range(40))
    probed, measured = choose(tmp_path)
    assert {cut.label for cut in measured} == {*flow_statistics.PROBED, "Volleyball"}
    assert {cut.label for cut in probed} == set(flow_statistics.PROBED)
    assert not {cut.clip for cut in probed} & {cut.clip for cut in measured}
    assert choose(tmp_path) == (probed, measured)
    assert len({cut.label for cut in measured[: flow_statistics.BATCH]}) == flow_statistics.BATCH


def test_fit_is_where_gradient_descent_ends() -> None:
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(30, 4)), (rng.random(30) > 0.4).astype(float), rng.random(30)
    free = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor(np.c_[x, np.ones(30)])
    descent = torch.optim.SGD([free], lr=4.0)
    for _ in range(800):
        descent.zero_grad()
        each = nn.functional.binary_cross_entropy_with_logits(rows @ free, torch.tensor(y), reduction="none")
        ((each * torch.tensor(weight)).mean() + 0.005 * (free[:4] ** 2).sum()).backward()
        descent.step()
    np.testing.assert_allclose(fit(x, y, weight, 0.01), free.detach().numpy(), atol=1e-3)


def test_folds_keep_clips_whole_and_space_knows_nothing_of_the_test_part() -> None:
    rng = np.random.default_rng(0)
    clip = np.repeat(np.arange(20), 3)
    target = (clip >= 10).astype(np.int64)
    fold = folds(clip, target, 5, rng)
    assert all(len(np.unique(fold[clip == one])) == 1 for one in range(20))
    assert all(np.bincount(fold[target == c], minlength=5).tolist() == [6] * 5 for c in (0, 1))
    x = rng.normal(size=(60, 100))
    other = x.copy()
    other[fold == 0] += 7
    for raw in (False, True):
        a, b = (space([rows], fold != 0, raw) for rows in (x, other))
        np.testing.assert_allclose(a[fold != 0], b[fold != 0], atol=1e-9)
        # Distances between training rows are kept: nothing that a ridge sees is lost.
        scaled = x if raw else (x - x[fold != 0].mean(0)) / x[fold != 0].std(0)
        ratio = np.linalg.norm(a[fold != 0][0] - a[fold != 0][1:], axis=1) / np.linalg.norm(
            scaled[fold != 0][0] - scaled[fold != 0][1:], axis=1
        )
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def labelled(snippets: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels of all actions and twice as many streets, one clip a snippet."""
    label = np.array([name for name in (*flow_part.ACTIONS, "Street", "Street") for _ in range(snippets)])
    return label, np.arange(len(label))


@pytest.mark.parametrize("name", ["action, street", UNSEEN])
def test_probe_finds_what_is_there_and_only_that(name: str) -> None:
    label, clip = labelled()
    target = (label != "Street").astype(np.int64)
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(len(label), 20))
    signal = noise.copy()
    signal[:, 0] += 12 * target
    task = Probed({"RGB": [noise], AS_IS: [noise], "flow, all re-estimated": [signal]}, target, clip, label)
    found, weight = probe(name, task, 2, raw=False), balance(task, name)
    lines = list(table(name, found, weight, task))
    rgb, as_is, better = (float(line.split("|")[3].split("±")[0]) for line in lines)
    assert rgb == as_is < 75 and better == 100
    gain = f"{100 - rgb:+.1f} ["
    assert [cell.strip().startswith(gain) for cell in lines[2].split("|")] == [*[False] * 4, True, True, False]
    assert lines[0].endswith("|  |  |") and "+0.0 [+0.0, +0.0] |  |" in lines[1]


def test_balance_and_interval() -> None:
    label, clip = labelled()
    target = (label != "Street").astype(np.int64)
    task = Probed({}, target, clip, label)
    for name in ("action, street", UNSEEN):
        weight = balance(task, name)
        assert weight.sum() == pytest.approx(1)
        assert weight[target == 1].sum() == pytest.approx(0.5)
    right = (label != "Ollie").astype(float)
    assert balance(task, UNSEEN) @ right == pytest.approx(1 - 0.5 / 8)
    # All clips of a label alike: drawing them again changes nothing.
    assert interval(right, balance(task, UNSEEN), task) == pytest.approx((93.75, 93.75))
    uneven = np.random.default_rng(0).random(len(label))
    low, high = interval(uneven, balance(task, UNSEEN), task)
    assert low < 100 * balance(task, UNSEEN) @ uneven < high


def test_motion_of_a_pan_is_all_camera() -> None:
    """Every pixel 5 px to the right: size 5 everywhere, nothing left once the pan is taken off."""
    fields = torch.zeros(2, 16, 8, 8)
    fields[0] = 5 / 20
    np.testing.assert_allclose(motion(fields), [5, 0, 5, 5, 0, 0, 0, 0, 0, 0], atol=1e-6)


def test_spread_of_features() -> None:
    """Two directions of equal variance count as two; a unit that never moves is dead."""
    x = np.array([[1, 0, 5, 0], [-1, 0, 5, 0], [0, 1, 5, 0], [0, -1, 5, 0]], dtype=float)
    dead, mean, variance, ratio, likeness = spread_of(x).split(" | ")
    assert (dead, mean, variance, ratio) == ("50.0 %", "1.250", "0.25000", "2.0")
    # Of the 12 ordered pairs, 4 are of opposite rows (24 / 26), 8 of rows at right angles (25 / 26).
    assert float(likeness) == pytest.approx((4 * 24 + 8 * 25) / 26 / 12, abs=1e-3)

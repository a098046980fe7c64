"""The thresholds of named sports: measured as the product finds them, without an owner who is left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import fit_named, fit_wide
from benchmarks.fit_named import NamedFit
from benchmarks.wide_sports import WideClip, report_named
from extractors.backbones import weights
from extractors.features import Features
from model import kinetics
from model.checkpoint import Checkpoint
from postprocess.config import LocalizeConfig

SCALE = 0.5  # steeper or flatter than S^coarse: the measured temperature need not be the model's
DRAWN = LocalizeConfig(threshold=0.15, edge=0.36, merge_gap=3)
SHOWN = ("golf", "soccer", "yoga", "")


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    """The embedded model of a random head."""
    generator = torch.Generator().manual_seed(3)
    head = torch.randn(400, 1024, generator=generator) * 0.2, torch.randn(400, generator=generator)
    return kinetics.build(*head, weights.kinetics400_names(), "sha256:0")


def clips(seed: int = 2) -> list[WideClip]:
    """Twelve clips of six owners, who show a sport or nothing, of one to seven snippets."""
    rng, found = np.random.default_rng(seed), []
    for n in range(12):
        count = 1 + n % 7
        times = 0.64 * np.arange(count)[:, None] + np.array([0.0, 0.64])
        x = rng.gamma(0.5, 0.3, (count, 1024)).astype(np.float32)
        sport = SHOWN[n % len(SHOWN)]
        what = ("Clip", "sport" if sport else "negative", frozenset({sport} - {""}), f"owner{n % 6}", (640, 360))
        found.append(WideClip(f"clip{n}", *what, Features(x, None, times, 0.64 * count, {}, {})))
    return found


@pytest.fixture
def measured(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> NamedFit:
    monkeypatch.setattr(fit_wide, "FOLDS", 3)
    return NamedFit(model, SCALE, clips(), DRAWN)


def test_what_is_enough_is_where_the_product_begins_to_find_it(measured: NamedFit) -> None:
    step = (fit_named.MOST_ADDED - fit_named.LEAST_ADDED) / 2**fit_named.STEPS
    checked = 0
    for sport in ("golf", "soccer", "martial arts"):
        others = [clip for clip in measured.clips if sport not in clip.accept]
        for clip, (fold, enough) in zip(others, measured.enough[sport], strict=True):
            assert fold == measured.fold[clip.owner]
            if fit_named.LEAST_ADDED + 2 * step < enough < np.inf:
                shown = [
                    bool(measured.find(clip, sport, {"added": {sport: value}, "scale": SCALE, "localize": {}}))
                    for value in (enough - 1.01 * step, enough + 1e-3)
                ]
                assert shown == [False, True]
                checked += 1
    assert checked > 10


def test_a_threshold_lies_half_way_to_the_common_one(measured: NamedFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_named, "FALSE_SHARE", 0.25)
    enough = {sport: sorted(value for _, value in values) for sport, values in measured.enough.items()}
    pooled = sorted(value for values in enough.values() for value in values)

    def most(values: list[float]) -> float:
        allowed = int(0.25 * len(values))  # so many may show it
        return min(fit_named.MOST_ADDED, values[allowed]) - fit_named.MARGIN

    for sport, added in measured.added().items():
        assert added == pytest.approx((most(enough[sport]) + most(pooled)) / 2, abs=0.006)
        alone = most(enough[sport])
        assert sum(value <= alone for value in enough[sport]) <= int(0.25 * len(enough[sport]))


def test_who_is_left_out_has_no_say(measured: NamedFit, capsys: pytest.CaptureFixture[str]) -> None:
    fold = measured.fold["owner1"]
    other = {clip.name: clip for clip in clips(seed=9)}
    changed = [other[c.name] if measured.fold[c.owner] == fold else c for c in measured.everything]
    again = dataclasses.replace(measured, everything=changed)
    assert again.settings(fold) == measured.settings(fold)
    assert again.added() != measured.added()
    report_named(measured.clips, measured.finder(), each=True)
    printed = capsys.readouterr().out
    assert "with the sport named: " in printed and " of 9 found" in printed and "ECE by name: " in printed


def test_rows_weigh_as_if_half_of_the_clips_showed_the_sport(measured: NamedFit) -> None:
    found = measured.settings()
    assert found["scale"] == SCALE and set(found["added"]) == set(measured.model.groups.values())
    assert found["localize"]["confidence_slope"] > 0 and found["localize"]["min_confidence"] == 0
    LocalizeConfig(**found["localize"])


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_the_command_changes_what_naming_does_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extractors.featurefile import save

    lines = ["path,label,kind,accept,seconds,width,height,source"]
    for clip in clips():
        (tmp_path / "wide").mkdir(exist_ok=True)
        save(clip.features, tmp_path / "wide" / f"{clip.name}.npz")
        line = (
            f"{clip.label}/{clip.name}.mp4,{clip.label},{clip.kind},{'|'.join(clip.accept)},3.2,640,360,{clip.owner}/a"
        )
        lines.append(line)
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    monkeypatch.setattr(fit_named, "STEPS", 1)
    before, tuning = kinetics.Tuning.load(), tmp_path / "tuning"
    before.save(tuning)
    monkeypatch.setattr(
        "sys.argv",
        ["fit_named.py", *map(str, (tmp_path / "wide", "--manifest", tmp_path / "manifest.csv", "--out", tuning))],
    )
    fit_named.main()
    after = kinetics.Tuning.load(tuning)
    assert set(after.named["added"]) == set(kinetics.sports_groups().values())
    assert after.named["scale"] == before.temperature
    dataclasses.replace(after, named=before.named).save(tmp_path / "back")
    before.save(tuning)
    assert (tmp_path / "back").read_bytes() == (tuning).read_bytes()

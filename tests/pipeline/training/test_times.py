"""Marked times: what is read, what is known of snippets, what goes with the labels, and every mistake said at once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.features import Features, load, save
from model.datasets import DatasetError
from pipeline.training.fit import course, gather
from pipeline.training.plan import plan
from pipeline.training.settings import Settings
from pipeline.training.snippets import EDGE, Mark, Marked, known
from pipeline.training.times import read_times
from postprocess.config import LocalizeConfig

CLASSES = ("golf", "ski")
SECONDS = 0.64
SHOWN = {"a": "golf", "b": "ski", "c": "golf", "d": "ski", "e": "", "f": "golf|ski"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """labels.csv and features/ of six videos of 25.6 s."""
    rng = np.random.default_rng(0)
    starts = np.arange(40) * SECONDS
    times = np.stack((starts, starts + SECONDS), axis=1)
    for name in SHOWN:
        about = {"rgb": {"backbone": "i3d", "fps": 25.0, "stride": 16}}
        stored = Features(rng.random((40, 8)).astype(np.float32), None, times, 25.6, {}, about)
        save(stored, tmp_path / "features" / "day1" / f"{name}.npz")
    rows = "".join(f"day1/{name}.mp4,{labels}\n" for name, labels in SHOWN.items())
    (tmp_path / "labels.csv").write_text(f"video,labels\n{rows}")
    return tmp_path


def times_csv(folder: Path, rows: str, header: str = "video,start,end,label,complete") -> Path:
    (folder / "times.csv").write_text(f"{header}\n{rows}")
    return folder / "times.csv"


def planned(folder: Path, rows: str, labels: bool = True, **more):
    wanted = Settings(times=times_csv(folder, rows), **more)
    return plan(folder / "labels.csv" if labels else None, features=folder / "features", settings=wanted)


GOOD = """\
day1/a.mp4,2,6.5,golf,yes
day1/a.mp4,0:10,0:12.5,golf,
b.mp4,3.2,5,ski,
c,7,,golf,no
day1/e.mp4,,,,yes
"""


def test_three_kinds_of_knowledge_and_points_are_mixed(folder: Path) -> None:
    wanted = planned(folder, GOOD)
    assert wanted.marked == {
        "day1/a.mp4": Marked((Mark(2, 6.5, "golf"), Mark(10, 12.5, "golf")), True),
        "day1/b.mp4": Marked((Mark(3.2, 5, "ski"),), False),
        "day1/c.mp4": Marked((Mark(7, None, "golf"),), False),
        "day1/e.mp4": Marked((), True),
    }
    gathered = gather(wanted)
    shares = dict(zip((name[5] for name in gathered.data.names), gathered.data.known or [], strict=True))
    assert np.allclose(shares["a"].sum(axis=1), 1) and np.allclose(shares["e"], [[0, 0, 1]] * 40)
    assert not shares["d"].any() and not shares["f"].any()
    assert shares["c"].sum() == 1 and shares["c"][10, 0] == 1
    # Of b the span is known, and as background what lies within a snippet of it.
    assert shares["b"][:, 1].sum() * SECONDS == pytest.approx(1.8, abs=1e-5)
    assert shares["b"][:, 2].sum() * SECONDS == pytest.approx(2 * EDGE, abs=1e-5)
    assert gathered.timed is not None and gathered.timed.durations == (25.6,) * 6
    _, training = wanted.recipe.complete(CLASSES, [40] * 6, 8)
    assert training.times is not None and course(wanted.recipe, gathered).training == training


def test_labels_may_be_left_out(folder: Path) -> None:
    wanted = planned(folder, GOOD + "day1/d.mp4,1,2,ski,\n", labels=False)
    assert [(row.video, row.labels) for row in wanted.rows] == [
        ("day1/a.mp4", ("golf",)),
        ("b.mp4", ("ski",)),
        ("c", ("golf",)),
        ("day1/e.mp4", ()),
        ("day1/d.mp4", ("ski",)),
    ]
    assert set(wanted.marked or ()) == {row.video for row in wanted.rows}


def test_labels_and_times_complete_each_other(folder: Path) -> None:
    """A video that only the times name is added; an action that the labels leave out is added; other splits wait."""
    (folder / "labels.csv").write_text(
        "video,labels,split\nday1/a.mp4,Golf,train\nday1/b.mp4,ski,train\nday1/c.mp4,Golf|ski,train\nday1/d.mp4,ski,test\n"
    )
    wanted = planned(folder, "a,1,2,golf,\nb.mp4,3,4,golf,\nd.mp4,1,2,ski,\nf.mp4,1,2,ski,\n")
    assert [(row.video, row.labels) for row in wanted.rows] == [
        ("day1/a.mp4", ("Golf",)),
        ("day1/b.mp4", ("ski", "Golf")),
        ("day1/c.mp4", ("Golf", "ski")),
        ("f.mp4", ("ski",)),
    ]
    assert {m.label for of in (wanted.marked or {}).values() for m in of.marks} == {"Golf", "ski"}
    said = " ".join(wanted.notes)
    assert "1 video is of another split" in said and "1 video is not in labels.csv" in said
    assert "in 1 video it marks actions" in said


def test_a_video_may_be_named_in_any_way_that_the_labels_allow(folder: Path) -> None:
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("day1/a.mp4", "day1\\a.mp4"))
    wanted = planned(folder, "a,1,2,golf,\n/films/day1/b.mp4,1,2,ski,\n")
    assert set(wanted.marked or ()) == {"day1\\a.mp4", "day1/b.mp4"}
    with pytest.raises(DatasetError, match=r"line 3: a\.mp4 is the video that a names, too; use one name"):
        planned(folder, "a,1,2,golf,\na.mp4,3,4,golf,\n")


WRONG = """\
day1/a.mp4,6,2,golf,
day1/a.mp4,20,90,golf,
day1/gone.mp4,1,2,golf,
day1/b.mp4,3,6,ski,
day1/b.mp4,5,8,ski,
day1/c.mp4,,,,yes
day1/d.mp4,4,,ski,yes
day1/f.mp4,soon,2,golf,
day1/f.mp4,3,4,gollf,
day1/f.mp4,5,6,,
day1/f.mp4,,6,golf,
day1/f.mp4,7,7,golf,
"""


def test_everything_wrong_is_said_at_once(folder: Path) -> None:
    with pytest.raises(DatasetError) as error:
        planned(folder, WRONG)
    text = str(error.value)
    assert text.startswith(f"{folder / 'labels.csv'}: 11 to fix before training:")
    for said in (
        "times.csv line 2: ends at 2 s, before it starts (6 s)",
        "times.csv line 3: 20 to 90 s reaches beyond the video, which ends at 25.6 s",
        "times.csv line 4: day1/gone.mp4 is not there",
        "times.csv line 5 and line 6: two marks of one label overlap in day1/b.mp4",
        "times.csv line 7: day1/c.mp4 is complete without any golf, which labels.csv names",
        "times.csv line 8: day1/d.mp4 is complete, but of 1 of its 1 actions only a point is marked",
        "times.csv line 9: start is 'soon'",
        "times.csv line 10: 'gollf' is no label of labels.csv; did you mean 'golf'?",
        "times.csv line 11: has a time but no label",
        "times.csv line 12: 'golf' has no start",
        "times.csv line 13: ends at 7 s, where it starts (7 s)",
    ):
        assert said in text, (said, text)


def test_the_json_of_activitynet(folder: Path) -> None:
    database = {
        "day1/a": {"complete": True, "annotations": [{"label": "golf", "segment": [2, "6.5"]}]},
        "day1/b": {"annotations": [{"label": "ski", "segment": [3.2]}, {"label": "ski", "segment": [8, None]}]},
        "day1/e": {"complete": True, "annotations": []},
    }
    path = folder / "truth.json"
    path.write_text(json.dumps({"database": database}))
    found = read_times(path)
    assert found.videos == {
        "day1/a": Marked((Mark(2, 6.5, "golf"),), True),
        "day1/b": Marked((Mark(3.2, None, "ski"), Mark(8, None, "ski"))),
        "day1/e": Marked((), True),
    }
    wanted = plan(folder / "labels.csv", features=folder / "features", settings=Settings(times=path))
    assert set(wanted.marked or ()) == {"day1/a.mp4", "day1/b.mp4", "day1/e.mp4"}
    database["day1/a"]["annotations"][0]["segment"] = [9, 4]  # type: ignore[index]
    path.write_text(json.dumps({"database": database}))
    assert read_times(path).problems == ("day1/a, annotation 1: ends at 4 s, before it starts (9 s)",)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("video,start,end\na,1,2\n", "lacks label"),
        ("video,start,end,label\n", "holds no video"),
        ("video,start,end,label,complete\na,1,2,golf,maybe\n", "complete is 'maybe'; write yes or no"),
    ],
)
def test_a_file_that_is_no_list_of_times(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "times.csv").write_text(text)
    with pytest.raises(DatasetError, match=r"times\.csv") as error:
        read_times(tmp_path / "times.csv")
    assert cause in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"database": 3}', '{"database": {"a": {}}}', '{"database": {"a": 1}}']
)
def test_a_json_that_is_none_of_activitynet(tmp_path: Path, text: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(DatasetError, match=r"truth\.json"):
        read_times(tmp_path / "truth.json")


def test_missing_file(tmp_path: Path) -> None:
    for name in ("times.csv", "truth.json"):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_times(tmp_path / name)


@pytest.mark.parametrize(
    ("lengths", "stride"), [([0.5, 0.7, 5], 4), ([1.2, 1.3], 8), ([1.5, 0.2, 3], None), ([], None)]
)
def test_the_stride_follows_from_the_lengths_and_is_explained(
    folder: Path, lengths: list[float], stride: int | None
) -> None:
    marks = "".join(f"a,{2 * n},{2 * n + length},golf,\n" for n, length in enumerate(lengths)) or "a,1,,golf,\n"
    wanted = planned(folder, marks)
    found, why = wanted.stride(None)
    assert found is None  # the features are there
    assert (why is None) == (stride is None) and (why is None or f"--stride {stride}" in why)
    assert wanted.stride(8) == (8, None)
    assert course(wanted.recipe, gather(wanted)).localize == {}  # the features have stride 16


@pytest.mark.parametrize(("seconds", "stride", "spread"), [(3, 4, 4), (3, 8, 2), (3, 16, 1), (1.2, 8, 1), (0.7, 4, 1)])
def test_overlapping_snippets_are_averaged_over_as_much_time_unless_actions_are_short(
    folder: Path, seconds: float, stride: int, spread: int
) -> None:
    for name in SHOWN:
        path = folder / "features" / "day1" / f"{name}.npz"
        stored = load(path)
        starts = np.arange(40) * stride / 25
        about = {"rgb": {**stored.settings["rgb"], "stride": stride}}
        save(replace(stored, times=np.stack((starts, starts + SECONDS), axis=1), settings=about), path)
    wanted = planned(folder, f"a,1,{1 + seconds},golf,\n")
    chosen = course(wanted.recipe, gather(wanted))
    assert chosen.model.smooth == 2 * spread + 1
    # What is drawn is smoothed, and is as long, as at stride 16.
    rule, usual = LocalizeConfig(**chosen.localize), LocalizeConfig()
    assert (rule.smooth - 1, rule.min_snippets, rule.merge_gap) == tuple(
        spread * n for n in (usual.smooth - 1, usual.min_snippets, usual.merge_gap)
    )
    # A file of settings wins, and labels alone are learned as ever.
    (folder / "own.toml").write_text("[model]\nsmooth = 5\n")
    wanted = planned(folder, f"a,1,{1 + seconds},golf,\n", config=folder / "own.toml")
    assert course(wanted.recipe, gather(wanted)).model.smooth == 5
    wanted = plan(folder / "labels.csv", features=folder / "features")
    assert course(wanted.recipe, gather(wanted)).model.smooth == 3


spans = st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 6), st.sampled_from(CLASSES)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(spans=spans, stride=st.sampled_from([4, 8, 16]), complete=st.booleans(), margin=st.sampled_from([0.0, 0.64]))
def test_shares_are_those_that_sampling_the_time_gives(spans, stride: int, complete: bool, margin: float) -> None:
    """An oracle that looks at 200 instants of each snippet."""
    starts = np.arange(30) * stride / 25
    times = np.stack((starts, starts + 16 / 25), axis=1)
    marked = Marked(tuple(Mark(a, a + length, label) for a, length, label in spans), complete)
    found = known(times, marked, CLASSES, margin)
    for (begin, end), row in zip(times, found, strict=True):
        at = begin + (np.arange(200) + 0.5) / 200 * (end - begin)
        inside = [np.zeros(200, bool), np.zeros(200, bool)]
        near = np.zeros(200, bool)
        for a, length, label in spans:
            inside[CLASSES.index(label)] |= (at >= a) & (at < a + length)
            near |= (at >= a - margin) & (at < a + length + margin)
        share = np.array([i.mean() for i in inside])
        share /= max(share.sum(), 1)
        np.testing.assert_allclose(row[:-1], share, atol=0.03)
        free = 1 - share.sum()
        outside = free if complete else min((near & ~(inside[0] | inside[1])).mean(), free) if margin else 0.0
        assert row[-1] == pytest.approx(outside, abs=0.04)
        assert row.sum() <= 1 + 1e-6 and (not complete or row.sum() == pytest.approx(1, abs=1e-6))

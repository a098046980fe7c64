"""What of marked actions was found: counted by hand, and in the document and the picture of a check."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_times import folder, times_csv  # noqa: F401

from model import checkpoint
from model.checkpoint import fingerprint
from pipeline.training import fit as training
from pipeline.training.crossval import FILE_NAME as QUALITY_NAME
from pipeline.training.crossval import ClassQuality, Quality
from pipeline.training.fit import gather
from pipeline.training.found import TimesQuality, judge_times
from pipeline.training.picture import FILE_NAME as PICTURE_NAME
from pipeline.training.picture import picture
from pipeline.training.plan import plan
from pipeline.training.settings import Settings
from pipeline.training.snippets import Mark, Marked
from postprocess.segment import Segment
from support.errors import UsageError

CLASSES = ("golf", "ski")


def drawn(start: float, end: float, label: str, confidence: float = 0.5) -> Segment:
    return Segment(start, end, 0.0, confidence, label)


MARKED = [
    Marked((Mark(2, 6, "golf"), Mark(10, 14, "golf"), Mark(20, 24, "ski")), complete=True),
    Marked((Mark(5, None, "golf"), Mark(9, 12, "ski"))),
    Marked((), complete=True),
    Marked(()),
]
DRAWN = [
    # Found, off by .5 and .1; missed; found, but as golf; false.
    [drawn(2.5, 6.1, "golf", 0.9), drawn(20, 25, "golf", 0.8), drawn(30, 31, "ski", 0.3)],
    # The point is found; the span is missed; what is drawn elsewhere is not called false, since nobody knows.
    [drawn(4, 7, "golf"), drawn(20, 22, "golf")],
    [drawn(1, 2, "ski")],
    [drawn(1, 2, "ski")],
]


def judged() -> TimesQuality:
    return judge_times(["a", "b", "c", "d"], [40.0] * 4, MARKED, DRAWN, CLASSES)


def test_counted_by_hand() -> None:
    found = judged()
    golf, ski = found.classes
    assert (golf.marked, golf.found, golf.false) == (3, 2, 1) and golf.off == pytest.approx(0.3)
    assert (ski.marked, ski.found, ski.false, ski.off) == (2, 0, 2, None)
    assert found.confusion == ((2, 0, 1), (1, 0, 1), (0, 2, 0))
    assert found.complete == 2 and [v.video for v in found.videos] == ["a", "b", "c"]
    assert golf.sentence() == "golf: found 2 of 3, 1 false, boundaries off by 0.3 s in the median"
    assert ski.sentence() == "ski: found 0 of 2, 2 false"
    assert found.sentence() == "found 2 of 5, 3 false, boundaries off by 0.3 s in the median"
    # Of golf one of two is found, first in the list: AP .5. Of ski none.
    assert found.mean_ap == {"0.3": 25.0, "0.5": 25.0, "0.7": 25.0}


def test_the_document_is_read_back() -> None:
    assert TimesQuality.from_dict(json.loads(json.dumps(judged().to_dict()))) == judged()


def test_one_segment_finds_one_action() -> None:
    marked = [Marked((Mark(0, 4, "golf"), Mark(4, 8, "golf")), complete=True)]
    found = judge_times(["a"], [9.0], marked, [[drawn(0, 8, "golf")]], CLASSES)
    assert (found.classes[0].found, found.classes[0].false) == (1, 0)


def test_nothing_complete_has_no_map() -> None:
    found = judge_times(["b"], [40.0], MARKED[1:2], DRAWN[1:2], CLASSES)
    assert found.mean_ap == {} and found.complete == 0 and found.classes[0].false == 0


def test_the_picture(tmp_path: Path) -> None:
    classes = tuple(ClassQuality(c, 3, 2, 1, 0.9, None) for c in CLASSES)
    with_times = Quality(2, 4, 2, 1, 1, classes, judged())
    for quality in (with_times, replace(with_times, times=None)):
        png = picture(quality)
        assert png.startswith(b"\x89PNG") and png == picture(quality)


ROWS = "day1/a.mp4,2,6,golf,yes\nday1/b.mp4,3,6,ski,\nday1/c.mp4,7,,golf,\nday1/e.mp4,,,,yes\n"


def fitted(below: Path, out: str, **more) -> training.Trained:
    settings = Settings(**{"steps": 4, "folds": 2, "times": times_csv(below, ROWS), "dim": 4} | more)
    wanted = plan(below / "labels.csv", features=below / "features", settings=settings)
    gathered = gather(wanted)
    return training.fit(gathered, training.course(wanted.recipe, gathered), below / out)


def test_a_training_with_times_leaves_them_in_quality_json_and_in_a_picture(folder: Path) -> None:  # noqa: F811
    made = fitted(folder, "run")
    assert made.quality is not None and made.quality.times is not None
    assert [c.marked for c in made.quality.times.classes] == [2, 1]
    document = json.loads((folder / "run" / QUALITY_NAME).read_text())
    assert set(document["times"]) == {"mean_ap", "complete", "off", "classes", "confusion", "videos"}
    assert set(document["times"]["mean_ap"]) == {"0.3", "0.5", "0.7"}
    assert (folder / "run" / PICTURE_NAME).read_bytes() == picture(made.quality)
    before = (folder / "run" / QUALITY_NAME).read_bytes()
    again = fitted(folder, "run")
    assert again.quality == made.quality and (folder / "run" / QUALITY_NAME).read_bytes() == before
    stored = checkpoint.load(made.path)
    assert stored.provenance["training"]["settings"]["times"]["snippet"] == made.config.times.snippet  # type: ignore[union-attr]


def test_more_starts_from_the_weights_and_the_settings_of_the_last_run(folder: Path) -> None:  # noqa: F811
    first = fitted(folder, "first", lr=3e-3, folds=0)
    again = fitted(folder, "second", more=folder / "first", dim=None, steps=None, folds=0)
    assert (again.config, again.checkpoint.config) == (first.config, first.checkpoint.config)
    assert again.config.lr == 3e-3
    about = again.checkpoint.provenance
    assert about["more"] == {"weights": fingerprint(first.checkpoint), "classes": ["golf", "ski"]}
    # After no step at all it would be the last run; one step at a tiny rate is nearly that.
    near = fitted(folder, "near", more=folder / "first", dim=None, steps=1, lr=1e-9, folds=0)
    for name, tensor in near.checkpoint.state.items():
        np.testing.assert_allclose(tensor, first.checkpoint.state[name], atol=1e-6)


def test_more_with_a_new_class_keeps_what_is_known_of_the_others(folder: Path) -> None:  # noqa: F811
    first = fitted(folder, "first", folds=0)
    (folder / "labels.csv").write_text(
        (folder / "labels.csv").read_text().replace("day1/f.mp4,golf|ski", "day1/f.mp4,golf|jump")
        .replace("day1/e.mp4,", "day1/e.mp4,").replace("day1/d.mp4,ski", "day1/d.mp4,ski|jump")
    )  # fmt: skip
    near = fitted(folder, "near", more=folder / "first", dim=None, steps=1, lr=1e-9, folds=0)
    assert near.checkpoint.classes == ("golf", "jump", "ski")
    for name in ("classifier.weight", "coarse.weight"):
        new, old = near.checkpoint.state[name], first.checkpoint.state[name]
        np.testing.assert_allclose(new[[0, 2, 3]], old, atol=1e-6)
    np.testing.assert_allclose(
        near.checkpoint.state["temp.weight"][[0, 2]], first.checkpoint.state["temp.weight"], atol=1e-6
    )


def test_what_contradicts_more_is_one_sentence(folder: Path) -> None:  # noqa: F811
    fitted(folder, "first", folds=0)
    for wrong, cause in (
        ({"init": "kinetics400"}, "leave out --init, --preset and --dim"),
        ({"preset": "long"}, "leave out --init"),
        ({}, "leave out --init, --preset and --dim"),  # `fitted` gives a width
    ):
        with pytest.raises(UsageError, match="--more") as error:
            fitted(folder, "second", more=folder / "first", **wrong)
        assert cause in str(error.value)
    made = checkpoint.load(folder / "first")
    checkpoint.save(replace(made, provenance={}), folder / "bare")
    with pytest.raises(UsageError, match="does not hold the settings of a training"):
        fitted(folder, "second", more=folder / "bare", dim=None)
    checkpoint.save(replace(made, features={"rgb": {**made.features["rgb"], "stride": 4}}), folder / "other")
    with pytest.raises(UsageError, match=r"other features \(stride 4\)"):
        fitted(folder, "second", more=folder / "other", dim=None)

"""The way back: results, corrected in another tool, as labels to train on and ground truth to score against."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extractors.features import Features
from extractors.features import save as save_features
from pipeline.annotations import read_ground_truth
from pipeline.corrections import ground_truth_json, labels_csv, read_corrections
from pipeline.errors import UsageError
from pipeline.labels import read_labels
from postprocess.exchange.annotated import Annotated, ExchangeError, Span
from postprocess.segment import Result, Segment
from postprocess.writers import SUFFIXES, WRITERS

Run = Callable[..., tuple[int, str, str]]


def saved(folder: Path, form: str, result: Result, name: str) -> Path:
    text = io.StringIO(newline="")
    WRITERS[form](result, text)
    path = folder / f"{name}{SUFFIXES[form]}"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def result(video: str, *spans: tuple[float, float, str]) -> Result:
    segments = tuple(Segment(start, end, 0.0, 0.9, label) for start, end, label in spans)
    return Result(video, 20.0, {"rate": "30000/1001"}, segments, (), {})


def corrected(path: Path, change: Callable[[list[dict[str, object]]], None] = lambda regions: None) -> None:
    """What Label Studio exports after a person took the predictions over, changed them and pressed submit."""
    tasks = json.loads(path.read_text())
    for task in tasks:
        (prediction,) = task.pop("predictions")
        regions = prediction["result"]
        change(regions)
        task["annotations"] = [{"id": 1, "result": regions, "was_cancelled": False, "updated_at": "2026-01-01"}]
    path.write_text(json.dumps(tasks))


def test_result_to_label_studio_corrected_to_csv_to_training_to_evaluation(tmp_path: Path, jcdnet: Run) -> None:
    """The whole round: the model had mistaken one label and one start; what was corrected is what is trained on."""
    rng = np.random.default_rng(0)
    classes = {"a": "kickflip", "b": "kickflip", "c": "ollie", "d": "ollie"}
    exports = []
    for name, label in classes.items():
        first = 2 if label == "kickflip" else 14
        rgb = rng.normal(0, 0.1, (30, 1024)).astype(np.float32)
        rgb[first : first + 8, : 200 if label == "kickflip" else 400] += 1
        times = np.arange(30)[:, None] * 0.64 + np.array([0.0, 0.64])
        settings = {"rgb": {"fps": 25.0, "length": 16, "stride": 16}}
        save_features(Features(rgb, None, times, 19.2, {}, settings), tmp_path / "features" / f"{name}.npz")
        found = result(f"/footage/{name}.mp4", (first * 0.64, (first + 8) * 0.64, label if name != "b" else "ollie"))
        exports.append(saved(tmp_path, "labelstudio", found, name))

    def relabel(regions: list[dict[str, object]]) -> None:
        regions[0]["value"] = {**regions[0]["value"], "timelinelabels": ["kickflip"]}  # type: ignore[dict-item]

    def later(regions: list[dict[str, object]]) -> None:
        regions[0]["value"] = {"ranges": [{"start": 301, "end": 420}], "timelinelabels": ["ollie"]}

    for path, change in zip(exports, (lambda regions: None, relabel, later, lambda regions: None), strict=True):
        corrected(path, change)
    labels, truth = tmp_path / "labels.csv", tmp_path / "truth.json"
    code, _, said = jcdnet("labels", "import", *exports, "--from", "labelstudio", "-o", labels, "--ground-truth", truth)
    assert code == 0 and "4 videos, 4 segments" in said
    assert [(row.video, row.labels) for row in read_labels(labels)] == [(f"{n}.mp4", (c,)) for n, c in classes.items()]
    (ollie,) = read_ground_truth(truth)["c.mp4"].actions
    assert (ollie.start, ollie.end) == pytest.approx((300 * 1.001 / 30, 420 * 1.001 / 30), abs=0.001)

    model = tmp_path / "runs" / "tricks"
    code, _, said = jcdnet("train", labels, "--features", tmp_path / "features", "-o", model,
                        "--steps", 30, "--dim", 16, "--folds", 0)  # fmt: skip
    assert code == 0, said
    code, out, said = jcdnet("evaluate", "--model", model, "--features", tmp_path / "features",
                          "--ground-truth", truth, "--json")  # fmt: skip
    assert code == 0, said
    scored = json.loads(out)
    assert set(scored["per_class"]) == {"kickflip", "ollie"}
    assert scored["classification_mAP"] == 100.0  # a and b are told from c and d: the correction was learned


@pytest.mark.parametrize("form", ["elan", "sportscode", "labelstudio"])
def test_each_tool_brings_back_labels_and_times(form: str, tmp_path: Path, jcdnet: Run) -> None:
    one = result("/footage/a.mp4", (1.0, 2.5, "serve"), (4.0, 5.0, 'net "ace" & ⛳'), (7.0, 8.0, "serve"))
    two = result("/footage/b.mp4")
    paths = [saved(tmp_path, form, one, "a"), saved(tmp_path, form, two, "b")]
    if form == "labelstudio":
        for path in paths:
            corrected(path)
    first, second = read_corrections(paths, form)
    suffix = "" if form == "sportscode" else ".mp4"  # which does not name its video
    assert (first.video, second.video) == (f"a{suffix}", f"b{suffix}")
    assert [s.label for s in first.spans] == [s.label for s in one.segments] and second.spans == ()
    for span, s in zip(first.spans, one.segments, strict=True):
        assert (span.start, span.end) == pytest.approx((s.start, s.end), abs=0.017)
    code, out, _ = jcdnet("labels", "import", *paths, "--from", form)
    assert code == 0
    assert list(csv.reader(io.StringIO(out)))[1:] == [[f"a{suffix}", 'serve|net "ace" & ⛳'], [f"b{suffix}", ""]]


def test_videos_are_named_as_training_will_look_for_them(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    for name in ("day 1/a.mp4", "day 2/a.mp4", "b.mp4"):
        (footage / name).parent.mkdir(parents=True, exist_ok=True)
        (footage / name).touch()
    there = saved(tmp_path, "elan", result(str(footage / "day 2" / "a.mp4"), (0, 1, "x")), "1")
    moved = saved(tmp_path, "elan", result("/gone/b.mp4", (0, 1, "x")), "2")
    tagged = saved(tmp_path, "sportscode", result("", (0, 1, "x")), "b")
    assert [v.video for v in read_corrections([there, moved], "elan", footage)] == ["day 2/a.mp4", "b.mp4"]
    assert [v.video for v in read_corrections([tagged], "sportscode", footage)] == ["b.mp4"]
    twin = saved(tmp_path, "elan", result("/gone/a.mp4", (0, 1, "x")), "3")
    with pytest.raises(UsageError, match=r"may be day 1/a\.mp4 or day 2/a\.mp4"):
        read_corrections([twin], "elan", footage)
    lost = saved(tmp_path, "elan", result("/gone/c.mp4", (0, 1, "x")), "4")
    with pytest.raises(UsageError, match=r"c\.mp4 is not there"):
        read_corrections([lost], "elan", footage)
    with pytest.raises(UsageError, match="no such folder"):
        read_corrections([lost], "elan", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="comes twice"):
        read_corrections([moved, moved], "elan", footage)
    with pytest.raises(UsageError, match=r"comes twice.*--videos"):
        read_corrections([there, twin], "elan")


def test_what_is_wrong_is_one_sentence_and_a_code(tmp_path: Path, jcdnet: Run) -> None:
    path = saved(tmp_path, "labelstudio", result("/f/a.mp4", (0, 1, "a|b")), "a")
    code, _, said = jcdnet("labels", "import", path, "--from", "labelstudio")
    assert code == 2 and "no task has a submitted annotation" in said
    corrected(path)
    code, _, said = jcdnet("labels", "import", path, "--from", "labelstudio")
    assert code == 2 and "holds a |" in said
    code, _, said = jcdnet("labels", "import", path, "--from", "premiere")
    assert code == 2 and "there are labelstudio, elan, sportscode" in said
    (tmp_path / "labels.csv").write_text("mine")
    code, _, said = jcdnet("labels", "import", path, "--from", "labelstudio", "-o", tmp_path / "labels.csv")
    assert code == 2 and "--overwrite" in said and (tmp_path / "labels.csv").read_text() == "mine"
    with pytest.raises(ExchangeError):
        read_corrections([tmp_path / "missing.eaf"], "elan")


def test_the_texts_read_back(tmp_path: Path) -> None:
    videos = [Annotated('a "b", c.mp4', (Span(0.1234, 2.0, "x, y"), Span(3.0, 4.0, "ünï"))), Annotated("n.mp4", ())]
    (tmp_path / "l.csv").write_text(labels_csv(videos), encoding="utf-8")
    assert [(r.video, r.labels) for r in read_labels(tmp_path / "l.csv")] == [
        ('a "b", c.mp4', ("x, y", "ünï")),
        ("n.mp4", ()),
    ]
    (tmp_path / "t.json").write_text(ground_truth_json(videos))
    truth = read_ground_truth(tmp_path / "t.json")
    assert [(a.start, a.end, a.label) for a in truth['a "b", c.mp4'].actions] == [
        (0.123, 2.0, "x, y"),
        (3.0, 4.0, "ünï"),
    ]
    assert truth["n.mp4"].actions == ()

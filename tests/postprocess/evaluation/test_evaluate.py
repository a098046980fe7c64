"""Evaluation from files: hand-worked protocols, every way a file can be wrong, and the counts of THUMOS14 itself."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.evaluation.annotations import Action, AnnotatedVideo, Predicted, from_results, read_ambiguous
from postprocess.evaluation.evaluate import evaluate, evaluate_files
from postprocess.evaluation.names import elsewhere, find_names, match_names, respelled, suggest
from postprocess.evaluation.protocols import (
    CONJOINT,
    EvaluateError,
    Scoring,
    averages,
    choose_subset,
    find_protocol,
    parse_tious,
    to_snippets,
)
from postprocess.evaluation.tables import tables
from postprocess.segment import Result, Segment


def video(*actions, subset="test"):
    return AnnotatedVideo(subset, tuple(Action(*a) for a in actions))


def predicted(**videos):
    return Predicted({name: [Action(*a) for a in actions] for name, actions in videos.items()})


def as_predictions(ground_truth, subset):
    """The ground truth of a subset, as its own perfect prediction."""
    return Predicted({name: list(v.actions) for name, v in ground_truth.items() if v.subset == subset})


# --- protocols by hand ---


def test_default_takes_the_subset_that_holds_the_predicted_videos():
    truth = {"a": video((0, 4, "x"), (6, 10, "y")), "b": video((0, 4, "x")), "c": video((0, 1, "z"), subset="train")}
    found = predicted(a=[(0, 4, "x", 0.9), (6, 8, "y", 0.5)])
    result = evaluate(truth, found)
    # x: one of two instances at every threshold; y: tIoU exactly .5.
    assert (result.subset, result.unit, result.overall.videos, result.overall.instances) == ("test", "seconds", 2, 3)
    assert list(result.overall.mean_ap) == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
    assert list(result.overall.mean_ap.values()) == pytest.approx([75] * 5 + [25] * 4)
    assert result.overall.average == pytest.approx(
        {"0.1:0.5": 75, "0.1:0.7": (5 * 75 + 50) / 7, "0.3:0.7": 55, "0.3:0.9": (225 + 100) / 7, "0.5:0.9": 35}
    )
    assert [c.label for c in result.per_class] == ["x", "y"]
    assert result.per_class[1].average == pytest.approx(500 / 9)
    assert any("1 of 2 videos are not predicted" in note for note in result.notes)


def test_default_keeps_videos_without_actions_and_what_is_predicted_in_them_is_wrong():
    truth = {"a": video((0, 4, "x")), "b": video()}
    found = predicted(a=[(0, 4, "x", 0.1)], b=[(0, 4, "x", 0.9)])
    assert evaluate(truth, found).overall.mean_ap["0.5"] == pytest.approx(50)


THUMOS = {
    "video_test_0000001": video((0, 4, "Diving"), (0, 4, "Diving"), (8, 12, "Diving")),
    "video_test_0000270": video((0, 4, "Diving")),
    "video_test_0001292": video((0, 4, "Ambiguous")),
    "video_test_0001496": video((0, 4, "Diving")),
    "video_test_0000002": video(),
    "video_validation_0000003": video((0, 4, "Shotput"), subset="validation"),
}
EVERYWHERE = Predicted({name: [Action(0, 4, "Diving", 1)] for name in THUMOS if "test" in name})


def test_thumos14_leaves_out_the_mislabelled_and_the_empty_videos():
    result = evaluate(THUMOS, EVERYWHERE, Scoring(protocol="thumos14"))
    assert (result.overall.videos, result.overall.instances, result.predictions) == (1, 3, 1)
    # One prediction finds one of the two equal instances.
    assert result.overall.mean_ap["0.9"] == pytest.approx(100 / 3)
    assert any("4 of 5 predicted videos do not count here" in note for note in result.notes)
    assert any("published on 210 videos; this ground truth has 1" in note for note in result.notes)


def test_thumos14_tad_keeps_1496_and_removes_duplicates():
    result = evaluate(THUMOS, EVERYWHERE, Scoring(protocol="thumos14-tad"))
    # Videos 1, 1496 and the empty one would be three, but those without annotations are not scored.
    assert (result.overall.videos, result.overall.instances, result.predictions) == (2, 3, 2)
    assert result.overall.mean_ap["0.9"] == pytest.approx(200 / 3)
    assert "1 duplicate annotations were removed." in result.notes


def test_thumos14_tad_takes_a_millisecond_for_a_duplicate_and_no_more():
    truth = {"v": video((0, 4, "Diving"), (0.001, 4, "Diving"), (0.003, 4, "Diving"), (0, 4, "Shotput"))}
    assert evaluate(truth, predicted(v=[]), Scoring(protocol="thumos14-tad")).overall.instances == 3


def test_thumos14_co2_keeps_212_and_rounds_to_snippets():
    result = evaluate(THUMOS, EVERYWHERE, Scoring(protocol="thumos14-co2"))
    assert (result.overall.videos, result.overall.instances, result.unit) == (3, 5, "snippets")
    assert any("--ambiguous" in note for note in result.notes)


def test_co2_rounding_by_hand():
    # 1.6 s is 2.5 snippets and goes to 2, 2.24 s is 3.5 and goes to 4: halves to even, as Python's round.
    assert to_snippets(np.array([[1.6, 2.24], [0.3, 0.33]])).tolist() == [[2, 4], [0, 1]]
    truth = {"v": video((0.7, 6.7, "Diving"), (10.0, 10.1, "Diving"))}  # 1.09 to 10.47 snippets; 15.6 to 15.8: none
    exact = predicted(v=[(0.64, 6.4, "Diving", 1)])  # snippets 1 to 10
    seconds = evaluate(truth, exact, Scoring(protocol="thumos14", tious=(0.9, 0.95)))
    snippets = evaluate(truth, exact, Scoring(protocol="thumos14-co2", tious=(0.9, 0.95)))
    assert list(seconds.overall.mean_ap.values()) == pytest.approx([50, 0])  # 5.7 of 6.06 s: .94
    assert list(snippets.overall.mean_ap.values()) == pytest.approx([50, 50])
    assert any("1 instances have no length in snippets" in note for note in snippets.notes)


def test_ambiguous_segments_drop_predictions_of_any_class_that_share_time_with_them(tmp_path):
    truth = {"v": video((0, 4, "Diving"), (20, 24, "Shotput")), "w": video((0, 4, "Diving"))}
    found = predicted(
        v=[(0, 4, "Diving", 1), (4.2, 7, "Diving", 3), (9, 11, "Shotput", 4), (20, 24, "Shotput", 1)],
        w=[(4, 6, "Diving", 2)],
    )
    listed = tmp_path / "Ambiguous_test.txt"
    listed.write_text("v  4.0 6.0\nv  10.9 12.0\n\nelsewhere  0.0 99.0\n")
    plain = evaluate(truth, found, Scoring(protocol="thumos14-co2"))
    assert plain.overall.mean_ap["0.5"] == pytest.approx(100 * (1 / 2 * 1 / 3 + 1 / 2) / 2)
    ambiguous = read_ambiguous(listed)
    assert ambiguous["v"] == [(4, 6), (10.9, 12)]
    result = evaluate(truth, found, Scoring(protocol="thumos14-co2", ambiguous=ambiguous))
    # (0, 4) ends at snippet 6, where (4, 6) begins, and (9, 11) at 17, where (10.9, 12) begins: to meet is not to
    # share. The one in w is another video's.
    assert "1 predictions that touch one of 2 ambiguous segments were dropped." in result.notes
    assert result.overall.mean_ap["0.5"] == pytest.approx(100 * (1 / 2 * 1 / 2 + 1 / 2) / 2)
    in_seconds = evaluate(truth, found, Scoring(protocol="thumos14", ambiguous=ambiguous))
    assert "2 predictions that touch one of 2 ambiguous segments were dropped." in in_seconds.notes
    assert in_seconds.overall.mean_ap["0.5"] == pytest.approx(100 * (1 / 2 * 1 / 2 + 1) / 2)


def test_activitynet_thresholds_and_average():
    truth = {"a": video((0, 10, "x"), subset="validation")}
    result = evaluate(truth, predicted(a=[(0, 7, "x", 1)]), Scoring(protocol="activitynet"))
    assert list(result.overall.mean_ap) == ["0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95"]
    assert list(result.overall.mean_ap.values()) == [100] * 5 + [0] * 5
    assert result.overall.average == {"0.5:0.95": 50}


def test_the_conjoint_subset_is_its_classes_in_its_videos():
    labels = CONJOINT["all"]
    truth = {f"v{i}": video((0, 4, label)) for i, label in enumerate(labels)} | {"golf": video((0, 4, "GolfSwing"))}
    found = as_predictions(truth, "test")
    found.actions["golf"].append(Action(5, 6, "Diving", 2))  # in a video that is not of the subset: not counted there
    found.actions["v0"].append(Action(5, 6, labels[0], 2))  # a false positive there, too
    result = evaluate(truth, found, Scoring(protocol="thumos14"))
    assert {name: (v.videos, v.instances) for name, v in result.conjoint.items()} == {
        "all": (11, 11),
        "without diving": (9, 9),
    }
    assert result.overall.mean_ap["0.5"] == pytest.approx(100 * (10 + 0.5 + 0.5) / 12)
    assert result.conjoint["all"].mean_ap["0.5"] == pytest.approx(100 * 10.5 / 11)
    assert result.conjoint["without diving"].average["0.3:0.9"] == pytest.approx(100 * 8.5 / 9)
    del truth["v3"]
    found.actions.pop("v3")
    assert evaluate(truth, found, Scoring(protocol="thumos14")).conjoint == {}


# --- THUMOS14 itself ---


@pytest.fixture(scope="module")
def thumos14():
    shared = Path(os.environ.get("JCDNET_SHARED", Path(__file__).parents[4] / "shared"))
    path = shared / "reference" / "thumos14_gt.json"
    if not path.is_file():
        pytest.skip(f"no THUMOS14 ground truth at {path} (JCDNET_SHARED)")
    return path


def test_thumos14_counts_and_its_own_truth_scores_100(thumos14, tmp_path):
    database = json.loads(thumos14.read_text())["database"]
    assert isinstance(next(iter(database.values()))["annotations"][0]["segment"][0], str)
    results = {
        name: [{**a, "score": "1"} for a in entry["annotations"]]
        for name, entry in database.items()
        if entry["subset"] == "test"
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"results": results}))
    for protocol in ("thumos14", "default"):
        result = evaluate_files([path], thumos14, Scoring(protocol=protocol))
        assert (result.subset, result.overall.videos, result.overall.instances) == ("test", 210, 3311)
        assert result.predictions == 3311 and len(result.per_class) == 20
        assert set(result.overall.mean_ap.values()) == {100}
        assert {name: (v.videos, v.instances) for name, v in result.conjoint.items()} == {
            "all": (127, 2074),
            "without diving": (101, 1469),
        }
        assert not any("published" in note for note in result.notes)
    # 16 of these instances are shorter than half a snippet, so under CO2's rounding even the truth misses them.
    rounded = evaluate_files([path], thumos14, Scoring(protocol="thumos14-co2"))
    assert any("16 instances have no length" in note for note in rounded.notes)
    assert 98 < rounded.overall.mean_ap["0.9"] < 100


# --- files ---


def write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


TRUTH = {
    "database": {
        "clip1": {"subset": "val", "annotations": [{"segment": ["1.0", 5], "label": "Ollie"}]},
        "clip2": {"subset": "val", "annotations": [{"segment": [2, 4], "label": "Kickflip"}]},
        "clip3": {"subset": "train", "annotations": []},
    }
}


def entry(segment=(1, 5), label="Ollie", score=0.5):
    return {"segment": list(segment), "label": label, "score": score}


def a_result(name, *segments):
    return Result(name, 9.0, {}, tuple(Segment(*s) for s in segments), (), {})


def test_results_of_this_product_are_predictions(tmp_path):
    truth = write(tmp_path / "truth.json", TRUTH)
    one = a_result("/videos/clip1.mp4", (1.0, 5.0, 2.5, 0.1, "Ollie"), (6.0, 7.0, -1.0, 0.9, "Ollie"))
    two = a_result("clip2.mkv", (2.0, 4.0, 0.5, 0.9, "Kickflip"))
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    write(folder / "clip1.json", one.to_dict())
    write(folder / "sub" / "clip2.json", two.to_dict())
    write(folder / "_run.json", {})
    lines = write(tmp_path / "all.jsonl", "\n".join(json.dumps(r.to_dict()) for r in (one, two)))
    for given_paths in ([folder], [folder / "clip1.json", folder / "sub" / "clip2.json"], [lines]):
        result = evaluate_files(given_paths, truth)
        assert (result.predictions, result.overall.mean_ap["0.9"]) == (3, 100)
    # Ranked by ψ, not by confidence: the right one comes first although it is less sure.
    database = {name: AnnotatedVideo("", ()) for name in ("clip2",)} | {"clip1": video((1, 5, "Ollie"), subset="")}
    assert evaluate(database, from_results([one])).overall.mean_ap["0.5"] == 100


def test_classification_from_the_curves_beside_the_results(tmp_path):
    truth = write(tmp_path / "truth.json", TRUTH)
    folder = tmp_path / "out"
    folder.mkdir()
    for name, logits in (("clip1", [1.0, 3.0, 0.0]), ("clip2", [2.0, 2.0, 0.0])):
        write(folder / f"{name}.json", a_result(f"{name}.mp4").to_dict())
        np.savez(folder / f"{name}.scores.npz", cas=np.array([logits] * 4), classes=np.array(["Ollie", "Kickflip"]))
    # Both classes: the wrong video ranks first, so AP is 1/2.
    result = evaluate_files([folder], truth)
    assert result.classification == pytest.approx(50)
    assert result.to_dict()["classification_mAP"] == 50
    (folder / "clip2.scores.npz").unlink()
    result = evaluate_files([folder], truth)
    assert result.classification is None and any("no classification mAP" in note for note in result.notes)
    write(folder / "clip2.scores.npz", "no archive")
    with pytest.raises(EvaluateError, match=r"clip2\.scores\.npz: not the curves"):
        evaluate_files([folder], truth)


def test_a_class_that_the_model_does_not_know_counts_0_in_classification():
    truth = {"a": video((0, 1, "x")), "b": video((0, 1, "y"))}
    found = Predicted({"a": [], "b": []}, {"a": {"x": 0.9}, "b": {"x": 0.1}})
    assert evaluate(truth, found).classification == pytest.approx(50)


def test_the_json_document_and_the_tables(tmp_path):
    truth = write(tmp_path / "truth.json", TRUTH)
    found = write(tmp_path / "p.json", {"results": {"clip1": [entry(), entry((1, 3))], "clip2": []}})
    result = evaluate_files([found], truth, Scoring(tious=parse_tious("0.3:0.7:0.2"), diagnosis=True))
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["mAP"] == {"0.3": 50, "0.5": 50, "0.7": 50}
    assert document["average"] == {"0.3:0.7": 50}
    assert document["protocol"] == "default"
    assert document["per_class"]["Ollie"] == {
        "instances": 1,
        "predictions": 2,
        "AP": {"0.3": 100, "0.5": 100, "0.7": 100},
        "average": 100,
    }
    assert document["diagnosis"]["counts"]["duplicate"] == 1
    for table in tables(result):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
        assert all(isinstance(cell, str) for row in table.rows for cell in row)


GOOD = {"results": {"clip1": [entry()]}}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{", "p.json: not JSON"),
        ("[" * 100_000, "p.json: not JSON"),
        ("[]", "neither ActivityNet's `results` nor a result of jcdnet"),
        ({"database": {}}, "neither ActivityNet's `results`"),
        ({"results": []}, "'results' must be an object"),
        ({"results": {"clip1": {}}}, "'clip1' must be a list"),
        ({"results": {"clip1": [3]}}, "video 'clip1', prediction 1 must be a JSON object"),
        ({"results": {"clip1": [entry(), {"label": "Ollie"}]}}, "prediction 2 has no 'segment'"),
        ({"results": {"clip1": [{"segment": [1, 5], "label": "Ollie"}]}}, "has no 'score'"),
        ({"results": {"clip1": [entry(score=None)]}}, "its score must be a finite number, not 'None'"),
        ({"results": {"clip1": [entry(score=float("nan"))]}}, "its score must be a finite number, not 'nan'"),
        ({"results": {"clip1": [entry(score=True)]}}, "its score must be a finite number"),
        ({"results": {"clip1": [entry(segment=(1, "x"))]}}, "its end must be a finite number, not 'x'"),
        ({"results": {"clip1": [entry(segment=("-inf", 2))]}}, "its start must be a finite number"),
        ({"results": {"clip1": [entry(segment=(1, 10**400))]}}, "its end must be a finite number"),
        ({"results": {"clip1": [entry(segment=(1,))]}}, "a segment is a start and an end, not 1 values"),
        ({"results": {"clip1": [entry(segment=(5, 4))]}}, "prediction 1: it ends at 4, before it starts at 5"),
        ({"results": {"clip1": [entry(label=4)]}}, "'label' must be text"),
        ({"results": {"clip1": [entry(label="olie")]}}, "label 'olie' is not in the ground truth; did you mean"),
        ({"results": {"clip1": [entry(label="zzz")]}}, "rename it"),
        ({"results": {"clip9": [entry()]}}, "video 'clip9' is not in the ground truth, which has 'clip"),
        ({"results": {"u": [], "w": []}}, "2 videos, 'u' first, are not in the ground truth"),
        ({"results": {"clip1": [], "x/clip1.mp4": []}}, "'clip1' and 'x/clip1.mp4' are both video 'clip1'"),
        ({"results": {"clip1": [], "clip3": []}}, "several subsets: 'val' (1 videos), 'train' (1 videos)"),
        ({"results": {}}, "nothing is predicted, and the ground truth has several subsets"),
        ({"results": {"clip3": []}}, "no annotated instance in subset 'train'"),
        ({"schema": 1, "video": "clip1"}, "nor a result of jcdnet (the result lacks"),
    ],
)
def test_wrong_predictions_are_one_clear_sentence(tmp_path, document, says):
    truth = write(tmp_path / "g.json", TRUTH)
    with pytest.raises(EvaluateError) as caught:
        evaluate_files([write(tmp_path / "p.json", document)], truth)
    assert says in str(caught.value)
    assert "p.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("nonsense", "g.json: not JSON"),
        ([], "g.json: this must be a JSON object"),
        ({"results": {}}, "g.json: this has no 'database'"),
        ({"database": {}}, "the ground truth, which is empty"),
        ({"database": {"clip1": []}}, "video 'clip1' must be a JSON object"),
        ({"database": {"clip1": {"subset": "val"}}}, "video 'clip1' has no 'annotations'"),
        ({"database": {"clip1": {"subset": 3, "annotations": []}}}, "'subset' must be text"),
        ({"database": {"clip1": {"annotations": [{"segment": ["2", "1"], "label": "a"}]}}}, "annotation 1: it ends at"),
        (
            {"database": {"clip1": {"annotations": [{"segment": ["NaN", "1"], "label": "a"}]}}},
            "its start must be a fin",
        ),
    ],
)
def test_a_wrong_ground_truth_is_one_clear_sentence(tmp_path, document, says):
    found = write(tmp_path / "p.json", GOOD)
    with pytest.raises(EvaluateError) as caught:
        evaluate_files([found], write(tmp_path / "g.json", document))
    assert says in str(caught.value)
    assert "g.json" in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_read_or_asked_for_is_said(tmp_path):
    truth, found = write(tmp_path / "g.json", TRUTH), write(tmp_path / "p.json", GOOD)
    with pytest.raises(EvaluateError, match=r"missing\.json: cannot be read"):
        evaluate_files([tmp_path / "missing.json"], truth)
    with pytest.raises(EvaluateError, match=r"cannot be read \(Is a directory\)"):
        evaluate_files([found], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluateError, match="empty: no result JSON in it"):
        evaluate_files([tmp_path / "empty"], truth)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluateError, match="is not text in UTF-8"):
        evaluate_files([tmp_path / "binary.json"], truth)
    with pytest.raises(EvaluateError, match="video 'clip1' was predicted before"):
        evaluate_files([found, found], truth)
    with pytest.raises(EvaluateError, match="unknown protocol 'thumos'; there are: default, thumos14"):
        evaluate_files([found], truth, Scoring(protocol="thumos"))
    with pytest.raises(EvaluateError, match=r"no subset 'test' in the ground truth, only 'val' \(2 videos\)"):
        evaluate_files([found], truth, Scoring(protocol="thumos14"))
    assert evaluate_files([found], truth, Scoring(protocol="thumos14", subset="VAL")).subset == "val"
    with pytest.raises(EvaluateError, match=r"a\.txt, line 2: a segment is a start and an end"):
        read_ambiguous(write(tmp_path / "a.txt", "clip1 1 2\nclip1 1\n"))
    write(tmp_path / "bom.json", "\ufeff" + json.dumps(GOOD))
    assert evaluate_files([tmp_path / "bom.json"], truth).predictions == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 6) | st.floats() | st.sampled_from(["Ollie", "1.5", "clip1", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["results", "clip1", "segment", "label", "score", "database", "annotations", "subset", "schema"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=14,
)


@settings(deadline=None, max_examples=100)
@given(
    found=json_values
    | st.fixed_dictionaries({"results": st.fixed_dictionaries({"clip1": st.lists(json_values, max_size=2)})}),
    truth=json_values | st.just(TRUTH),
)
def test_whatever_the_json_holds_only_an_evaluate_error_comes_out(tmp_path_factory, found, truth):
    folder = tmp_path_factory.getbasetemp()
    try:
        evaluate_files([write(folder / "fp.json", found)], write(folder / "fg.json", truth), Scoring(diagnosis=True))
    except EvaluateError as error:
        assert "\n" not in str(error)


# --- names, subsets, thresholds ---


def test_names_match_but_for_folder_and_suffix():
    assert match_names(["a"], ["a", "a.mp4"]) == {"a": "a"}
    assert match_names(["x/a.mp4", "x\\b.avi", "c", "v_d.mkv"], ["a", "b", "c.mp4", "d"]) == {
        "x/a.mp4": "a",
        "x\\b.avi": "b",
        "c": "c.mp4",
        "v_d.mkv": "d",
    }
    with pytest.raises(EvaluateError, match=r"'clip\.v3' is not in the ground truth, which has 'clip\.v2'"):
        match_names(["clip.v3"], ["clip.v2"])
    with pytest.raises(EvaluateError, match=r"may be 's/a' or 't/a'"):
        match_names(["a.mp4"], ["s/a", "t/a"])


def test_of_files_of_one_name_that_in_the_same_folder_is_meant():
    days = ["day1/GX01.mp4", "day2/GX01.mp4", "GX02.mp4"]
    given = ["day2/GX01", "/home/me/day1/GX01.mp4", "day3/GX02.mp4"]
    matched = match_names(given, days)
    assert list(matched.values()) == ["day2/GX01.mp4", "day1/GX01.mp4", "GX02.mp4"]
    assert elsewhere(matched) == []
    with pytest.raises(EvaluateError, match="may be"):
        match_names(["day3/GX01.mp4"], days)
    assert find_names(["GX02", "x"], days) == ({"GX02": "GX02.mp4"}, ["x"])
    nested = {"GX01": "GX01.mp4", "b/GX01": "b/GX01.mp4", "a/b/GX01": "a/b/GX01.mp4"}
    assert match_names(nested, nested.values()) == nested
    assert match_names(nested.values(), nested) == {value: key for key, value in nested.items()}
    assert find_names(["a/GX01", "b/GX01"], ["a/GX01.mp4"]) == ({"a/GX01": "a/GX01.mp4"}, ["b/GX01"])
    for both in (["a", "a.mp4"], ["s/a", "t/a"]):
        with pytest.raises(EvaluateError, match="are both video"):
            find_names(both, ["a.mp4" if both[0] == "a" else "u/a.mp4"])


def test_another_folder_is_told_of():
    result = evaluate({"day1/a.mp4": video((0, 4, "x"))}, predicted(**{"day2/a.mp4": [(0, 4, "x", 1.0)]}))
    assert "1 videos were taken for those of the same name in another folder, 'day2/a.mp4' for 'day1/a.mp4'." in (
        result.notes
    )
    assert not any("folder" in note for note in evaluate({"a": video((0, 4, "x"))}, predicted(**{"s/a.mp4": []})).notes)


def test_subsets_need_no_name_and_any_case():
    assert choose_subset({"a": "", "b": ""}, ["a"], None) == ""
    assert choose_subset({"a": "Test", "b": "train"}, [], "test") == "Test"
    with pytest.raises(EvaluateError, match="no subset 'TEST'"):
        choose_subset({"a": "Test", "b": "test"}, [], "TEST")


def test_thresholds_are_start_stop_step_or_a_list():
    assert parse_tious("0.1:0.9:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert parse_tious("0.5:0.95:0.05")[1::4] == (0.55, 0.75, 0.95)
    assert parse_tious("0.7, 0.5,0.7") == (0.5, 0.7)
    for text in (
        "",
        "a",
        "0.1:0.9",
        "0.1:0.1:0.9",
        "0.5:0.05:0.95",
        "0.1:0.9:0.3",
        "0.1:0.9:0",
        "0,0.5",
        "1.5",
        "nan",
        "0.1:inf:0.1",
        "0.1:0.9:1e-9",
        "0.1:1.1:0.5",
    ):
        with pytest.raises(EvaluateError, match="tIoU thresholds"):
            parse_tious(text)


def test_averages_are_those_of_the_tables():
    assert averages({t: 100 * t for t in parse_tious("0.3:0.7:0.1")}) == {"0.3:0.7": pytest.approx(50)}
    assert averages({0.5: 1.0, 0.75: 2.0, 0.95: 6.0}) == {"0.5:0.95": 3.0}
    assert averages({0.5: 7.0}) == {"0.5:0.5": 7.0}
    fine = averages({t: t for t in parse_tious("0.1:0.9:0.05")})
    assert fine["0.1:0.5"] == pytest.approx(0.3) and len(fine) == 5


@pytest.mark.parametrize(("rule", "ranked"), [("paper", 7.0), ("runs", 0.25)])
def test_results_are_ranked_as_people_see_them(rule, ranked):
    """ψ under the rule `paper`; the confidence that `run` prints under its own."""
    result = Result("a", 9.0, {}, (Segment(0, 1, 7.0, 0.25, "x"),), (), {"localize": {"rule": rule}})
    assert from_results([result]).actions["a"] == [Action(0, 1, "x", ranked)]


def test_ambiguous_segments_are_found_under_any_name_of_their_video():
    truth, found = {"a": video((0, 4, "x"))}, predicted(a=[(0, 4, "x", 0.9), (10, 12, "x", 0.5)])
    result = evaluate(truth, found, Scoring(ambiguous={"test/a.mp4": [(11, 11.5)], "nobody": [(0, 9)]}))
    assert "1 predictions that touch one of 1 ambiguous segments were dropped." in result.notes
    assert "1 of 2 videos of --ambiguous are not in the ground truth." in result.notes
    days = {"day1/a.mp4": video((0, 4, "x"))}
    shot = predicted(**{"day1/a.mp4": [(0, 4, "x", 0.9), (10, 12, "x", 0.5)]})
    for listed, left in (
        ({"day2/a.mp4": [(11, 11.5)]}, 2),
        ({"day1/a.mp4": [(20, 30)], "day2/a.mp4": [(0, 30)]}, 2),
        ({"a": [(0, 1)], "a.mp4": [(11, 12)]}, 0),
    ):
        assert evaluate(days, shot, Scoring(ambiguous=listed)).predictions == left
    assert result.predictions == 1


# --- one name, spelled in several ways ---

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # what a keyboard types, and what a Mac's disk keeps


def test_names_match_in_whatever_form_a_disk_stores_them():
    for one, two in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        assert match_names([f"{one}.mp4"], [two]) == {f"{one}.mp4": two}
        assert match_names([f"{one}/a.mp4"], [f"{two}/a.mp4", "b/a.mp4"]) == {f"{one}/a.mp4": f"{two}/a.mp4"}
        assert elsewhere({f"{one}/a.mp4": f"{two}/a.mp4"}) == respelled({f"{one}.mp4": two}) == []
    both = [f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4"]  # two files that differ in form alone
    assert match_names(both, both) == dict(zip(both, both, strict=True))


def test_case_counts_only_where_no_name_is_the_same():
    assert match_names(["A.MP4"], ["a.mp4", "b"]) == {"A.MP4": "a.mp4"}
    assert match_names(["A.mp4", "a.mp4"], ["a.mp4", "A.mp4"]) == {"A.mp4": "A.mp4", "a.mp4": "a.mp4"}
    assert find_names(["A", "a.mp4"], ["a.mp4"]) == ({"a.mp4": "a.mp4"}, ["A"])
    assert match_names(["heat.MP4"], ["Heat.mp4", "heat.mp4"]) == {"heat.MP4": "heat.mp4"}
    # macOS puts a narrow no-break space (U+202F) before PM into the names of recordings.
    assert match_names(["at 3.12 PM.mov"], ["at 3.12\u202fPM.mov"]) == {"at 3.12 PM.mov": "at 3.12\u202fPM.mov"}
    assert respelled({"A.MP4": "a.mp4", "x/b.mp4": "b", "heat.MP4": "heat.mp4", "v_c": "c"}) == ["A.MP4"]
    truth = {"Match.mp4": video((0, 4, "x"))}
    result = evaluate(truth, predicted(match=[(0, 4, "x", 1.0)]))
    assert result.overall.mean_ap["0.9"] == 100
    assert [n for n in result.notes if "case" in n] == [
        "1 videos were taken for those whose names differ in case or blanks only, 'match' for 'Match.mp4'."
    ]


def test_labels_match_in_form_and_in_case_where_no_label_is_the_same(tmp_path):
    def files(found: str, *true: str):
        actions = [{"label": label, "segment": [4 * k, 4 * k + 2]} for k, label in enumerate(true)]
        truth = write(tmp_path / "t.json", {"database": {"a": {"annotations": actions}}})
        return evaluate_files([write(tmp_path / "p.json", {"results": {"a": [entry((0, 2), found)]}})], truth)

    for found, true in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        result = files(found, true)
        assert result.overall.mean_ap["0.9"] == 100
        assert not any("labels" in note for note in result.notes)  # they look the same
    result = files("Golf_swing", "golf swing")
    assert result.overall.mean_ap["0.9"] == 100
    assert "labels were taken for those of the ground truth: 'Golf_swing' for 'golf swing'." in result.notes
    result = files("Golf", "golf", "Golf")  # both are there: the exact one is meant
    assert [c.average for c in result.per_class if c.label == "Golf"] == [0]


@pytest.mark.parametrize(
    ("name", "others", "meant"),
    [
        ("serv.mp4", ["serve.mp4"], "serve.mp4"),
        ("tenis", ["golf", "tennis"], "tennis"),
        ("heat_a.mp4", ["heat_b.mp4", "haet_a.mp4"], "haet_a.mp4"),
        ("heat_a.mp4", ["heat_b.mp4", "heat.mp4", "heat_10.mp4"], None),
        ("heat1", ["heat2", "Heat 3"], None),
        ("GX010034.MP4", ["GX010035.MP4", "GX020034.MP4"], None),
        ("camA.mp4", ["camB.mp4"], None),
        ("2024-05-01 match.mp4", ["2024-05-02 match.mp4"], None),
        ("day 1/serve.mp4", ["day 2/serve.mp4"], None),
        ("a.mp4", ["b.mp4"], None),
        (f"{COMPOSED}.mp4", [f"{DECOMPOSED}.mp4", "CAFE\u0301.mp4"], None),
        (f"{COMPOSED}s.mp4", [f"{DECOMPOSED}.mp4"], f"{DECOMPOSED}.mp4"),
    ],
)
def test_a_suggestion_is_a_typo_and_neither_another_take_nor_the_same_to_the_eye(name, others, meant):
    assert suggest(name, others) == meant


# --- labels that the ground truth lacks ---

FALSELY = {"a": video((0, 4, "x"), (6, 10, "y")), "b": video((0, 4, "x"))}


def test_a_label_that_nobody_annotated_is_a_false_positive():
    right = predicted(a=[(0, 4, "x", 0.9), (6, 10, "y", 0.5)], b=[(0, 4, "x", 0.8)])
    # On an instance of another class, hardly on one, and on nothing.
    wrong = predicted(
        a=[*right_of(right, "a"), (0, 4, "golf", 0.99), (9, 13, "zumba", 0.4)],
        b=[*right_of(right, "b"), (20, 24, "golf", 0.7)],
    )
    clean, result = evaluate(FALSELY, right, Scoring(diagnosis=True)), evaluate(FALSELY, wrong, Scoring(diagnosis=True))
    assert result.unannotated == {"golf": 2, "zumba": 1} and clean.unannotated == {}
    assert (clean.predictions, result.predictions) == (3, 6)
    # The mAP is over the classes of the truth: theirs alone can lower it.
    assert result.overall == clean.overall and result.per_class == clean.per_class
    assert clean.diagnosis.counts == {k: 3 if k == "true positive" else 0 for k in clean.diagnosis.counts}
    counted = {kind: n for kind, n in result.diagnosis.counts.items() if n}
    assert counted == {"true positive": 3, "class": 1, "confusion": 1, "background": 1}
    assert result.diagnosis.gains == clean.diagnosis.gains and result.diagnosis.bands == clean.diagnosis.bands
    (note,) = [n for n in result.notes if "golf" in n]
    assert "no golf (2 predictions), zumba (1 prediction): false positives" in note and "--ignore-unknown" in note
    document = json.loads(json.dumps(result.to_dict()))
    assert document["unannotated"] == {"golf": 2, "zumba": 1} and set(document["per_class"]) == {"x", "y"}
    of_classes = next(t for t in tables(result) if t.columns[0] == "class")
    assert [row[:3] for row in of_classes.rows] == [
        ("x", "2", "2"),
        ("y", "1", "1"),
        ("golf", "0", "2"),
        ("zumba", "0", "1"),
    ]
    assert all(len(row) == len(of_classes.columns) for row in of_classes.rows)


def right_of(found, name):
    return [(a.start, a.end, a.label, a.score) for a in found.actions[name]]


def test_labels_that_nobody_annotated_can_be_left_out():
    found = predicted(a=[(0, 4, "x", 0.9), (0, 4, "golf", 0.99)], b=[(20, 24, "golf", 0.7)])
    result = evaluate(FALSELY, found, Scoring(diagnosis=True, ignore_unknown=True))
    assert result.unannotated == {} and result.predictions == 1
    assert sum(result.diagnosis.counts.values()) == 1
    assert "the ground truth has no golf (2 predictions): left out." in result.notes
    assert result.overall == evaluate(FALSELY, found).overall


def test_a_label_of_another_subset_alone_is_a_false_positive_too():
    truth = FALSELY | {"c": video((0, 1, "z"), subset="train")}
    found = predicted(a=[(0, 4, "x", 0.9), (20, 24, "z", 0.3)])
    for ignore in (False, True):  # the ground truth knows it
        result = evaluate(truth, found, Scoring(diagnosis=True, ignore_unknown=ignore))
        assert result.unannotated == {"z": 1}
        assert result.diagnosis.counts["background"] == 1
        assert any("no instance of z: such predictions are false positives" in note for note in result.notes)


@pytest.mark.parametrize("protocol", ["default", "thumos14", "thumos14-co2", "thumos14-tad", "activitynet"])
def test_every_protocol_counts_them_outside_its_map(protocol):
    name = find_protocol(protocol).subset or "test"
    truth = {"v": video((0, 4, "x"), (6, 10, "y"), subset=name)}
    found = predicted(v=[(0, 4, "x", 0.9), (6, 10, "golf", 0.99)])
    result = evaluate(truth, found, Scoring(protocol=protocol))
    assert result.unannotated == {"golf": 1}
    assert set(result.overall.mean_ap.values()) == {50.0}


def test_a_misspelt_label_beside_others_is_told_of():
    result = evaluate(
        FALSELY | {"c": video((0, 4, "kickflip"))}, predicted(a=[(0, 4, "x", 1)], c=[(0, 4, "kickflp", 1)])
    )
    assert "'kickflp' is not in the ground truth; did you mean 'kickflip'?" in result.notes


def test_of_many_labels_the_note_names_some():
    labels = [f"class {k:02}" for k in range(30)]
    result = evaluate(FALSELY, predicted(a=[(0, 4, "x", 1), *((0, 4, label, 0.5) for label in labels)]))
    note = next(n for n in result.notes if "class 00" in n)
    assert "class 11 (1 prediction) and 18 more (18 predictions)" in note and "class 12" not in note
    assert len(result.unannotated) == 30

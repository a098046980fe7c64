"""An evaluation for people: counted by hand."""

import json
from collections.abc import Callable
from pathlib import Path

from postprocess.evaluation.annotations import Action, AnnotatedVideo, Predicted
from postprocess.evaluation.evaluate import evaluate

Run = Callable[..., tuple[int, str, str]]

TRUTH = {
    "a": AnnotatedVideo("test", (Action(0, 10, "serve"), Action(20, 30, "serve"), Action(40, 50, "net"))),
    "b": AnnotatedVideo("test", (Action(5, 9, "net"),)),
}


def action(start: float, end: float, label: str, score: float = 0.9) -> Action:
    return Action(start, end, label, score)


FOUND = (
    action(1.0, 10, "serve"),  # found: starts off by 1, ends right
    action(10.5, 13, "serve", 0.5),  # nothing there
    action(19.4, 29, "net"),  # fits a serve: a wrong name
    action(41.2, 48, "net", 0.8),  # found: starts off by 1.2, ends by 2
    action(48.5, 49.5, "net", 0.4),  # in an action, and fits it too little
)


def test_what_a_person_asks_first() -> None:
    seen = evaluate(TRUTH, Predicted({"a": list(FOUND), "b": []}, {}))
    assert seen.drawn is not None
    assert seen.drawn.sentence() == (
        "found 2 of 4, 1 false, 1 wrong name, 1 in the wrong place, starts off by 1.1 s, ends by 1.0 s"
    )
    assert seen.to_dict()["drawn"]["starts_off"] == 1.1


def test_nothing_found_and_candidates_for_map() -> None:
    nothing = evaluate(TRUTH, Predicted({"a": [], "b": []}, {}))
    assert nothing.drawn is not None and nothing.drawn.sentence() == "found 0 of 4, 0 false, 0 wrong name"
    candidates = [action(0, 10, "serve"), action(1, 11, "serve")]  # what the rule `paper` gives
    assert evaluate(TRUTH, Predicted({"a": candidates, "b": []}, {})).drawn is None


def test_the_line_stands_above_the_table_and_predictions_follow_one_another(jcdnet: Run, tmp_path: Path) -> None:
    """`evaluate --predictions A B`, as people type it."""

    def write(name: str, **of: dict[str, object]) -> Path:
        (tmp_path / name).write_text(json.dumps(of))
        return tmp_path / name

    annotations = [{"label": "serve", "segment": [0, 10]}]
    truth = write("truth.json", database={n: {"subset": "test", "annotations": annotations} for n in "ab"})
    paths = [write(f"{n}.json", results={n: [{"label": "serve", "segment": [1, 10], "score": 1}]}) for n in "ab"]
    for arguments in (("--predictions", *paths), ("--predictions", paths[0], "--predictions", paths[1]), paths):
        code, printed, _ = jcdnet("evaluate", "--ground-truth", truth, *arguments)
        assert code == 0
        assert printed.startswith("found 2 of 2, 0 false, 0 wrong name, starts off by 1.0 s, ends by 0.0 s\n\nprotocol")

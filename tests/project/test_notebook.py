"""docs/notebook.ipynb runs from top to bottom, and what is stored in it was printed by it."""

import base64
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import coded, encode

from extractors.backbones import weights

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


def test_every_cell_was_run_once_in_order_and_none_failed() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}
    said = "".join(line for output in outputs for line in output.get("text", []))
    assert str(ROOT) not in said and "/home" not in said and "/tmp" not in said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory from which the notebook's commands find jcdnet, and where no picture is shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.path", ["", str(ROOT)] + [p for p in sys.path if p not in ("", str(ROOT))])
    return tmp_path


def run() -> dict[str, Any]:
    """All code cells in one namespace, as Jupyter runs them."""
    import matplotlib

    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in CODE:
        exec(compile("".join(cell["source"]), f"cell {cell['execution_count']}", "exec"), names)
    return names


def test_what_is_stored_is_what_the_cells_said(examples: ModuleType, tmp_path: Path) -> None:
    """tools/examples.py stores the notebook anew if a cell prints something else than before, and only then."""
    draw = ["import matplotlib.pyplot as plt\n", "plt.plot([1, 2])\n", "print('drawn')"]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# A title"]},
        {"cell_type": "code", "execution_count": 7, "metadata": {}, "outputs": [], "source": ["x = 3\n", "print(x)"]},
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": draw},
    ]
    made = examples.with_outputs(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}), tmp_path)
    _, first, second = json.loads(made)["cells"]
    assert (first["execution_count"], second["execution_count"]) == (1, 2)
    assert first["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["3\n"]}]
    assert [output["output_type"] for output in second["outputs"]] == ["stream", "display_data"]
    assert base64.b64decode(second["outputs"][1]["data"]["image/png"]).startswith(b"\x89PNG")
    assert examples.with_outputs(made, tmp_path) == made
    assert examples.with_outputs(made.replace("x = 3", "x = 4"), tmp_path) != made.replace("x = 3", "x = 4")


@needs_weights
def test_it_runs_on_a_video_that_shows_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode(folder / "match.mp4", [coded(k) for k in range(34)])
    (folder / "truth.json").write_text(
        json.dumps({"database": {"match": {"annotations": [{"label": "golf", "segment": [0.0, 1.0]}]}}})
    )
    names = run()
    assert names["features"].rgb.shape == (2, 1024) and names["result"].segments == ()
    assert len(names["axis"].lines) == 6, "five sports and the threshold"
    assert names["evaluation"]["mAP"] == {"0.3": 0.0, "0.5": 0.0, "0.7": 0.0}
    assert "400 names, 54 sports" in capsys.readouterr().out


@needs_weights
def test_it_finds_a_swing_and_scores_it(folder: Path, corpus: Path) -> None:
    shutil.copy(corpus / "GolfSwing" / "GolfSwing_001.mp4", folder / "match.mp4")
    (folder / "truth.json").write_text(
        json.dumps({"database": {"match": {"annotations": [{"label": "golf", "segment": [0.0, 4.6]}]}}})
    )
    names = run()
    assert [names["pipe"].model.groups[s.label] for s in names["result"].segments] == ["golf"]
    assert names["evaluation"]["mAP"]["0.3"] == 100.0
    # The curve that was drawn is the one that decides: above the threshold where the segment is.
    golf = names["sports"]["golf"]
    (segment,) = names["result"].segments
    inside = (names["seconds"] > segment.start) & (names["seconds"] < segment.end)
    assert (golf[inside] > names["pipe"].config.localize.threshold).all()

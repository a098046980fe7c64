"""`models classes --sports` lists the sports of the embedded model, and docs/sports.md is that list."""

import re
import tomllib
from pathlib import Path

import pytest

from model import checkpoint
from model.config import ModelConfig
from model.train import initialise

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kinetics_names() -> list[str]:
    """The 400 names, from the file that the weights' rows are read with."""
    return (ROOT / "extractors" / "backbones" / "kinetics400_labels.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no weights are: the list needs none."""
    from extractors.backbones import weights

    monkeypatch.setattr(weights, "find", lambda name: None)
    monkeypatch.setenv("JCDNET_WEIGHTS", str(tmp_path / "none"))


def listed(printed: str) -> dict[str, list[str]]:
    """Sport -> its names, of what the command prints: a line a sport, a tab, names joined by commas."""
    rows = [line.split("\t") for line in printed.splitlines()]
    return {sport: names.split(", ") for sport, names in rows}


def test_the_sports_of_the_embedded_model(jcdnet, without_weights, kinetics_names: list[str]) -> None:
    code, printed, _ = jcdnet("models", "classes", "--sports")
    assert code == 0
    sports = listed(printed)
    table = tomllib.loads((ROOT / "model" / "kinetics_sports.toml").read_text(encoding="utf-8"))["groups"]
    assert sports == {sport: sorted(names) for sport, names in table.items()} and list(sports) == sorted(sports)
    assert sports["golf"] == ["golf chipping", "golf driving", "golf putting"]
    assert sports["tennis"] == ["playing tennis"]
    names = [name for of_sport in sports.values() for name in of_sport]
    assert len(sports) == 54 and len(names) == len(set(names)) == 110  # README and docs/models.md say so
    assert set(names) <= set(kinetics_names)


def test_a_model_that_groups_nothing_has_no_sports(jcdnet, tmp_path: Path) -> None:
    settings = {"rgb": {"fps": 25.0, "length": 16, "stride": 16}}
    model = initialise(ModelConfig(classes=2, in_dim=1024, dim=16), ("kickflip", "ollie"), ("rgb",), settings, seed=0)
    checkpoint.save(model, tmp_path / "tricks")
    code, printed, said = jcdnet("models", "classes", tmp_path / "tricks", "--sports")
    assert (code, printed) == (2, "")
    assert "tricks" in said and "no list of sports" in said and "--sports" in said


def test_the_page_is_what_the_command_prints(jcdnet) -> None:
    _, printed, _ = jcdnet("models", "classes", "--sports")
    table = "".join(f"| {sport} | {', '.join(names)} |\n" for sport, names in listed(printed).items())
    page = (ROOT / "docs" / "sports.md").read_text(encoding="utf-8")
    found = "".join(re.findall(r"^\| (?!sport \|).* \|\n", page, re.MULTILINE))
    assert found == table, f"docs/sports.md needs this table:\n{table}"

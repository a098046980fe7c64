"""docs/licences.md names every installed package and every picture, and flags copyleft licences."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(heading: str) -> dict[str, str]:
    """Package → flag, of one of the tables."""
    text = (ROOT / "docs" / "licences.md").read_text()
    table = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {row[0]: row[3] for row in re.findall(r"^\| (\S+) \| ([^|]*) \| ([^|]*) \|\s*([^|]*?)\s*\|$", table, re.M)}


@pytest.mark.parametrize(("heading", "file"), [("To run", "requirements.txt"), ("To develop", "requirements-dev.txt")])
def test_all_that_is_named_is_listed_and_nothing_unlisted_asks_for_more(
    licences: ModuleType, heading: str, file: str
) -> None:
    """The dependencies of the named packages are not pinned: a new release may need one that the list lacks."""
    named = {licences.canonicalize_name(name) for name in licences.named(file)}
    needed = set(licences.closure(licences.named(file)))
    assert named <= needed and len(needed) > len(named), "the named packages and their dependencies"
    there = listed("To run").keys() | listed(heading).keys()
    assert not named - there, "run python tools/licences.py > docs/licences.md"
    flagged = [row for row in licences.rows(sorted(needed - there)) if not row.endswith("|  |")]
    assert flagged == [], "run python tools/licences.py > docs/licences.md"


def test_the_sentences_of_the_page_are_those_of_the_tool(licences: ModuleType) -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    texts = licences.HEAD, licences.CODECS, licences.PASSING_ON, licences.WEIGHTS, licences.SAMPLE, licences.PICTURES
    for text in texts:
        assert text in page, "run python tools/licences.py > docs/licences.md"


def test_the_page_says_what_the_image_label_says(licences: ModuleType) -> None:
    """The sample's package is the one that `make run` downloads."""
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (label,) = re.findall(r'image\.licenses="([^"]+)"', dockerfile)
    assert f"`{label}`" in " ".join(licences.PASSING_ON.split())
    assert "libx264" in licences.CARRIED and licences.CARRIED["libx264"] in label
    (name,) = licences.named("requirements-sample.txt")
    assert name in licences.SAMPLE


def test_the_page_names_every_picture_of_the_documents(licences: ModuleType) -> None:
    pictures = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert pictures == set(re.findall(r"docs/images/(\w+\.\w+)", licences.PICTURES))


def test_copyleft_is_flagged(licences: ModuleType) -> None:
    flags = listed("To run")
    assert flags["av"] == "carries GPL libraries"
    assert flags["tqdm"] == "copyleft"
    assert flags["numpy"] == "carries copyleft libraries"
    assert flags["typer"] == ""
    named = [f"| {name} | {licences.licence(name)}" for name in licences.closure(licences.named("requirements.txt"))]
    for row in (row for row in named if re.search(r"\bA?L?GPL|MPL", row)):
        assert flags[row.split(" ")[1]], row


def test_the_licence_of_a_package_takes_a_few_words(licences: ModuleType) -> None:
    assert licences.licence("numpy").startswith("BSD-3-Clause")
    assert licences.licence("pympi-ling") == "MIT, by its licence file"
    assert "libx264" in dict(licences.carried("av"))
    assert "libx264" in licences.ffmpeg()

"""What a release stands on: one licence, one version, a citation, and a workflow that holds no secret."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.version import VERSION

ROOT = Path(__file__).parents[2]
LICENCE = (ROOT / "LICENSE").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
# What the Citation File Format's schema 1.2.0 requires and allows, as far as our file may need it:
# https://github.com/citation-file-format/citation-file-format/blob/1.2.0/schema.json
REQUIRED = {"cff-version", "message", "title", "authors"}
ALLOWED = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip
CITED = {"type", "title", "authors"}  # required of `preferred-citation`
PERSON = {
    "address", "affiliation", "alias", "city", "country", "email", "family-names", "fax", "given-names",
    "name-particle", "name-suffix", "orcid", "post-code", "region", "tel", "website",
}  # fmt: skip


def workflow(name: str) -> dict[Any, Any]:
    """A workflow; YAML 1.1 reads its key `on` as true."""
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def test_the_licence_is_mit_in_every_place() -> None:
    title, _, holder, *_ = LICENCE.splitlines()
    assert title == "MIT License" and holder == "Copyright (c) 2026 the jcdnet authors"
    # Three sentences that make it the MIT licence, from https://spdx.org/licenses/MIT.html.
    words = " ".join(LICENCE.split())
    assert "Permission is hereby granted, free of charge, to any person obtaining a copy" in words
    assert "The above copyright notice and this permission notice shall be included in all copies" in words
    assert 'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND' in words
    assert PROJECT["project"]["license"] == CITATION["license"] == "MIT"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Licence\n")[2].partition("\n## ")[0]
    assert "[MIT](LICENSE)" in section and "weights" in section and "(docs/licences.md)" in section


def test_the_citation_is_a_citation_file() -> None:
    assert CITATION.keys() >= REQUIRED and CITATION.keys() <= ALLOWED
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] in ("software", "dataset")
    assert CITATION["version"] == VERSION
    cited = CITATION["preferred-citation"]
    assert cited.keys() >= CITED
    for author in (*CITATION["authors"], *cited["authors"]):
        assert author.keys() == {"name"} or ({"family-names", "given-names"} <= author.keys() <= PERSON)
        assert all(isinstance(value, str) and value for value in author.values())


def test_the_citation_names_the_paper_as_the_paper_names_itself(corpus: Path) -> None:
    paper = corpus.parent / "reference" / "JCDNet_paper.md"
    if not paper.is_file():
        pytest.skip(f"no paper at {paper}")
    heading, _, authors, _, address, *_ = paper.read_text(encoding="utf-8").splitlines()
    cited = CITATION["preferred-citation"]
    assert cited["title"] == heading.removeprefix("# ")
    names = re.split(r", and |, ", re.sub(r"<sup>.*?</sup>", "", authors))
    assert [f"{author['given-names']} {author['family-names']}" for author in cited["authors"]] == names
    assert all(author["affiliation"] in address for author in cited["authors"])


def test_the_version_stands_once() -> None:
    """Where it must be written a second time, it is the same."""
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "support.version.VERSION"}
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert re.findall(r"jcdnet-([\d.]+)-py3-none-any\.whl", install) == [VERSION]


def test_a_release_is_built_checked_and_tested_before_it_is_published() -> None:
    release = workflow("release.yml")
    assert release[True]["push"]["tags"] == ["v*"]
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    done = "\n".join(step.get("run", "") for step in build["steps"])
    order = [done.index(part) for part in ("make dist", "twine check --strict dist/*", "tests/project/test_wheel.py")]
    assert order == sorted(order)
    assert publish["needs"] == "build" and publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert publish["permissions"] == {"id-token": "write"} and publish["environment"] == "release"
    assert any(step.get("uses", "").startswith("pypa/gh-action-pypi-publish@") for step in publish["steps"])


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_no_workflow_holds_a_secret_or_an_address(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    assert "secrets." not in text and "password" not in text and "://" not in text
    jobs = workflow(name)
    assert jobs["permissions"] == {"contents": "read"}
    rights = [job["permissions"] for job in jobs["jobs"].values() if "permissions" in job]
    assert rights in ([], [{"id-token": "write"}])

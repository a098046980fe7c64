"""The Dockerfile and the compose file fit the tree; docs/docker.md says how the image itself was built and run."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.licenses import canonicalize_license_expression

from extractors.backbones.weights import WEIGHTS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
LINES = [line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line and not line.startswith("#")]


def instructions(name: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in LINES if line.startswith(f"{name} ")]


COPIED = {source for words in instructions("COPY") if not words[0].startswith("--from") for source in words[:-1]}
ARGUMENTS = {name: default for (word,) in instructions("ARG") for name, _, default in [word.partition("=")]}


def test_the_copied_files_exist_and_are_let_into_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored and let_in == COPIED
    assert all((ROOT / source).exists() for source in COPIED)


def test_the_sources_of_the_wheel_are_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {name.removeprefix("jcdnet._app.").split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    files = {"cli.py", "pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert folders | files <= COPIED


def test_the_image_names_itself_and_its_licences() -> None:
    """The label covers all software inside (OCI image spec, annotations.md), not only our own code."""
    labels = dict(word.split("=", 1) for words in instructions("LABEL") for word in words)
    assert {name.rsplit(".", 1)[0] for name in labels} == {"org.opencontainers.image"}
    assert labels["org.opencontainers.image.title"] == "jcdnet"
    licences = labels["org.opencontainers.image.licenses"]
    assert canonicalize_license_expression(licences) == licences
    named = set(licences.split(" AND "))
    assert "MIT" in named, "our own code"
    assert "GPL-2.0-or-later" in named, "x264 and x265 in PyAV's wheel"
    assert "LicenseRef-jcdnet-docs-licences" in named, "everything else, by docs/licences.md"


def test_the_default_weights_exist() -> None:
    assert set(ARGUMENTS["WEIGHTS"].split()) <= WEIGHTS.keys()


@pytest.mark.parametrize("text", [DOCKERFILE, COMPOSE])
def test_no_registry_is_named(text: str) -> None:
    assert "://" not in text and "/" not in ARGUMENTS["BASE"]
    assert [words[0] for words in instructions("FROM")] == ["${BASE}", "${BASE}"]
    assert not ARGUMENTS["PIP_INDEX_URL"] and not ARGUMENTS["PIP_EXTRA_INDEX_URL"]


def test_the_image_runs_as_a_user_and_sets_the_folders_that_jcdnet_reads() -> None:
    assert instructions("USER") == [["jcdnet"]] and instructions("ENTRYPOINT") == [["[jcdnet]"]]
    ours = set(re.findall(r"JCDNET_\w+", DOCKERFILE))
    sources = [path for folder in ("extractors", "support") for path in (ROOT / folder).rglob("*.py")]
    read = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert {"JCDNET_CACHE", "JCDNET_WEIGHTS"} == ours and all(f'"{name}"' in read for name in ours)


def test_the_image_needs_no_compiler_and_no_triton() -> None:
    """Triton and torch.compile call a C compiler when they start; nothing here may use them."""
    assert "apt-get" not in DOCKERFILE
    (installing,) = (line for line in LINES if "-r requirements.txt" in line)
    assert "uninstall --yes triton " in installing.split(" if [")[0], "in both variants"
    for folder in ("commands", "extractors", "model", "pipeline", "postprocess", "support"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"\btriton\b|torch\.compile\b", path.read_text(encoding="utf-8")), path


def test_compose_builds_from_the_same_dockerfile_with_arguments_that_it_has() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    assert services.keys() == {"cpu", "gpu"}
    for service in services.values():
        context = ROOT / "docker" / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).samefile(ROOT / "docker" / "Dockerfile")
        assert service["build"].get("args", {}).keys() <= ARGUMENTS.keys()
        assert service["user"] and service["command"][0] == "run"

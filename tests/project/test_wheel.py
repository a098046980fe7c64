"""The wheel: it owns one name, and works beside folders that are named as ours are inside."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import coded, encode
from packaging.metadata import Metadata

from extractors.backbones import weights
from support.version import VERSION

ROOT = Path(__file__).parents[2]
FOLDERS = ("commands", "extractors", "model", "pipeline", "postprocess", "support")
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
RUN = ("run", "--classes", "all", "--rule", "paper", "--all", "--top", "3")  # it finds something in any video


def build(kind: str, source: Path, target: Path) -> Path:
    """An sdist or a wheel of `source`, by what is installed alone."""
    target.mkdir()
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed: building leaves things behind, and would take in those of an earlier time."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in (*FOLDERS, "jcdnet"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("cli.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / file, tree)
    return tree


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tree, tmp_path_factory.mktemp("dist") / "sdist")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `JCDNET_WHEEL` names, which is to be published; otherwise one that is built here."""
    if given := os.environ.get("JCDNET_WHEEL"):
        return Path(given).resolve(strict=True)
    return build("wheel", tree, tmp_path_factory.mktemp("dist") / "wheel")


def about(metadata: bytes) -> Metadata:
    """A package's metadata; packaging refuses what the specification does not allow."""
    return Metadata.from_email(metadata, validate=True)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with the wheel; what it needs is read from the environment of the tests."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "shared.pth").write_text("\n".join(shared))
    return home / "bin"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with two videos, and modules of our names that must not be imported."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in FOLDERS:
        (folder / name).mkdir()
    for file in ("cli.py", *(f"{name}/__init__.py" for name in FOLDERS)):
        (folder / file).write_text("raise SystemExit('the wrong ' + __file__)")
    encode(folder / "tiny.mp4", [coded(k) for k in range(34)])
    encode(folder / "other.mp4", [coded(k + 100) for k in range(34)])
    return folder


def call(*command: object, cwd: Path, cache: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in `cwd`, whose modules Python would import if ours were not in front of them."""
    environment = os.environ | {"PYTHONPATH": str(cwd), "JCDNET_CACHE": str(cache), "COLUMNS": "200"} | more
    return subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def results(said: "subprocess.CompletedProcess[str]") -> list[dict]:
    """What a `run -o -` found, by video."""
    assert said.returncode == 0, said.stderr
    one = said.stdout.startswith("{\n")  # a document of its own, not JSON Lines
    found = [json.loads(text) for text in ([said.stdout] if one else said.stdout.splitlines())]
    return sorted(({k: r[k] for k in ("video", "segments", "duration")} for r in found), key=lambda r: r["video"])


def test_the_wheel_owns_one_name_and_carries_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (owned,) = (archive.read(n).decode().split() for n in names if n.endswith("/top_level.txt"))
        (record,) = (archive.read(n).decode().splitlines() for n in names if n.endswith("/RECORD"))
    assert owned == ["jcdnet"]
    assert {line.split("/")[0].split("-")[0] for line in record} == {"jcdnet"}
    ours = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix not in (".pyc", ".nbi")]
    wanted = {f"jcdnet/_app/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "cli.py", *ours) if path.is_file()}
    assert {n for n in names if n.startswith("jcdnet/_app/")} == wanted


def test_wheel_and_sdist_carry_the_licence_and_say_which_it_is(wheel: Path, sdist: Path) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        inside = f"jcdnet-{VERSION}.dist-info"
        assert archive.read(f"{inside}/licenses/LICENSE") == text
        said = [about(archive.read(f"{inside}/METADATA"))]
    with tarfile.open(sdist) as archive:
        licence, info = (archive.extractfile(f"jcdnet-{VERSION}/{name}") for name in ("LICENSE", "PKG-INFO"))
        assert licence is not None and licence.read() == text
        assert info is not None
        said.append(about(info.read()))
    for metadata in said:
        assert metadata.license_expression == "MIT" and metadata.license_files == ["LICENSE"]
        assert str(metadata.version) == VERSION and metadata.description_content_type == "text/markdown"
        assert not [name for name in metadata.classifiers or [] if name.startswith("License ::")]  # PEP 639: instead


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = build("wheel", source, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as two:
        assert {n: one.read(n) for n in one.namelist()} == {n: two.read(n) for n in two.namelist()}


def test_help_names_the_command_that_is_installed(installed: Path, elsewhere: Path, tmp_path: Path) -> None:
    said = call(installed / "jcdnet", "run", "--help", cwd=elsewhere, cache=tmp_path)
    assert said.returncode == 0 and "Usage: jcdnet run [OPTIONS]" in said.stdout
    # Typer otherwise asks the parent processes which shell this is, and a job in the background may have none.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    said = call(installed / "jcdnet", "--show-completion", "bash", cwd=elsewhere, cache=tmp_path, **named)
    assert said.returncode == 0 and said.stdout.rstrip().endswith(" jcdnet")
    said = call(installed / "jcdnet", "models", cwd=elsewhere, cache=tmp_path, JCDNET_WEIGHTS=str(tmp_path))
    assert "jcdnet models fetch i3d-flow" in said.stdout and "python cli.py" not in said.stdout


def test_a_checkout_names_its_own_command(jcdnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("JCDNET_WEIGHTS", str(tmp_path))
    assert "Usage: python cli.py run [OPTIONS]" in jcdnet("run", "--help")[1]
    assert "python cli.py models fetch i3d-flow" in " ".join(jcdnet("models")[1].split())


def test_importing_jcdnet_is_light_and_pipeline_comes_when_asked_for(
    installed: Path, elsewhere: Path, tmp_path: Path
) -> None:
    code = """
import sys, jcdnet
assert not {"torch", "cv2", "av"} & set(sys.modules)
assert "_app" in jcdnet.Pipeline.__init__.__globals__["__file__"], jcdnet.Pipeline
try:
    jcdnet.Pipelin
except AttributeError as error:
    print(jcdnet.__version__, error)
"""
    said = call(installed / "python", "-c", code, cwd=elsewhere, cache=tmp_path)
    assert said.stdout == f"{VERSION} module 'jcdnet' has no attribute 'Pipelin'\n", said.stderr


@needs_weights
def test_run_from_a_folder_that_holds_modules_of_our_names(
    installed: Path, elsewhere: Path, tmp_path: Path, jcdnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*RUN, "tiny.mp4", "other.mp4", "-o", "-")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "checkout"))
    code, out, said = jcdnet(*asked)
    expected = results(subprocess.CompletedProcess([], code, out, said))
    assert len(expected) == 2 and all(result["segments"] for result in expected)
    workers = call(installed / "jcdnet", *asked, "--jobs", "2", cwd=elsewhere, cache=tmp_path / "cache")
    assert results(workers) == expected
    alone = (*RUN, "tiny.mp4", "-o", "-")
    module = call(installed / "python", "-m", "jcdnet", *alone, cwd=elsewhere, cache=tmp_path / "alone")
    assert results(module) == [result for result in expected if result["video"] == "tiny.mp4"]


@pytest.fixture
def dask(installed: Path, elsewhere: Path) -> Iterator[str]:
    """A scheduler and a worker that were started with the wheel installed, and know nothing of jcdnet."""
    pytest.importorskip("distributed")
    code = "from distributed.cli.dask_{0} import main; main()".format
    quiet = {"cwd": elsewhere, "stderr": subprocess.DEVNULL}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    started = [
        subprocess.Popen(
            [installed / "python", "-P", "-c", code("scheduler"), "--port", port, "--no-dashboard"], **quiet
        ),
        subprocess.Popen([installed / "python", "-P", "-c", code("worker"), address, "--nthreads", "1"], **quiet),
    ]
    yield address
    for process in reversed(started):  # a worker says goodbye to its scheduler, for as long as that answers
        process.terminate()
        process.wait()


@pytest.mark.slow
@needs_weights
def test_dask_workers_find_what_the_wheel_carries(installed: Path, elsewhere: Path, tmp_path: Path, dask: str) -> None:
    asked = (*RUN, "tiny.mp4", "other.mp4", "-o", "-")
    alone = call(installed / "jcdnet", *asked, cwd=elsewhere, cache=tmp_path / "alone")
    cluster = ("--engine", "dask", "--address", dask)
    shared = call(installed / "jcdnet", *asked, *cluster, cwd=elsewhere, cache=tmp_path / "cache")
    assert results(shared) == results(alone)


@pytest.mark.slow
def test_a_fresh_environment_with_everything_resolved(wheel: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Downloads all that the wheel asks for, some gigabytes, and the weights."""
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", f"{wheel}[train]"], check=True)
    fetched = call(programs / "jcdnet", "models", "fetch", "i3d-rgb", cwd=elsewhere, cache=tmp_path / "cache")
    assert fetched.returncode == 0, fetched.stderr
    for more in ((), ("--jobs", "2", "--overwrite")):
        said = call(programs / "jcdnet", *RUN, "tiny.mp4", "-o", "-", *more, cwd=elsewhere, cache=tmp_path / "cache")
        assert results(said)[0]["segments"]
    shutil.rmtree(tmp_path / "env")

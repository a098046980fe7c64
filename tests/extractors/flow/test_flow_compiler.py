"""A machine without a C compiler is told so at once, with the package to install, and not after hours."""

import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from extractors import flow
from extractors.config import FeatureConfig
from extractors.features import Extractor
from extractors.flow import FlowUnavailable, compiler
from pipeline.machine import doctor
from support.errors import exit_code


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any compiler, on which Triton would compile."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)


def script(folder: Path, said: str, code: int = 1) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_it_is_looked_for_where_triton_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"gcc": "/bin/gcc", "clang": "/bin/clang"}
    monkeypatch.setattr(shutil, "which", here.get)
    monkeypatch.setenv("CC", "mine")
    assert compiler.find() == "mine"
    monkeypatch.delenv("CC")
    assert compiler.find() == "/bin/gcc"
    del here["gcc"]
    assert compiler.find() == "/bin/clang"
    del here["clang"]
    assert compiler.find() is None


def test_this_machines_compiler() -> None:
    if compiler.find() is None or not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        pytest.skip("no C compiler, or no headers of Python")
    assert compiler.fault() is None
    (check,) = doctor._compiler()
    assert check.ok


@pytest.mark.parametrize(
    ("said", "code", "fix"),
    [
        ("one.c:2:10: fatal error: Python.h: No such file or directory", 1, "apt install python3-dev"),
        ("one.c:1:10: fatal error: stdint.h: No such file or directory", 1, "apt install gcc libc6-dev"),
        ("a warning", 0, None),
    ],
)
def test_a_compiler_that_lacks_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, fix: str | None
) -> None:
    monkeypatch.setenv("CC", script(tmp_path, said, code))
    found = compiler.fault()
    if fix is None:
        assert found is None
        return
    assert found is not None
    assert found[1].startswith(fix)
    (check,) = doctor._compiler()
    assert not check.ok
    assert check.fix.startswith(fix)


@pytest.mark.parametrize("name", ["", "/nowhere/cc"])
def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CC", name)
    found = compiler.fault()
    assert found is not None
    assert "does not start" in found[0]


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
@pytest.mark.parametrize("backend", ["triton", "auto"])
def test_without_a_compiler_an_extractor_is_refused_before_anything_is_read(bare: None, backend: str) -> None:
    with pytest.raises(FlowUnavailable, match=r"no C compiler here: apt install gcc libc6-dev") as caught:
        Extractor(FeatureConfig(flow=backend), ("rgb", "flow"), device="cuda")
    assert exit_code(caught.value) == 4
    flow.require("torch", "cuda")
    flow.require("numba")


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
def test_the_interpreter_compiles_nothing(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    flow.require("triton", "cpu")


def test_what_else_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    from extractors.flow import triton_tvl1

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(FlowUnavailable, match="needs a CUDA device"):
        flow.require("triton", "cpu")
    monkeypatch.setattr(triton_tvl1, "find_spec", lambda name: None)
    with pytest.raises(FlowUnavailable, match="package triton"):
        flow.require("triton", "cuda")
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(FlowUnavailable, match="opencv-contrib-python-headless"):
        flow.require("opencv")

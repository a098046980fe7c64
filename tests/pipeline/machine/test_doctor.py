"""`doctor` on machines that lack something: only what `run` needs is red."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import pytest
from conftest import coded, encode

from extractors import flow, nvrtc
from extractors.backbones import runtime, weights
from pipeline.machine import doctor
from pipeline.machine.doctor import Check, examine
from support.errors import EnvironmentMissing

ROOT = Path(__file__).parents[3]


def red(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.ok and check.needed}


def absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that these distributions and their modules are not installed."""
    modules = {module for name, module in everything().items() if name in names}
    version, find = doctor.package_version, doctor.find_spec
    monkeypatch.setattr(doctor, "package_version", lambda name: "absent" if name in names else version(name))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in modules else find(name))


def everything() -> dict[str, str]:
    return doctor.PACKAGES | {name: module for name, (module, _) in doctor.OPTIONAL.items()}


# Runs the command line where these modules cannot be imported.
BARE = """
import sys
hidden = set(sys.argv.pop(1).split(","))
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
import cli
cli.main()
"""


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_what_is_called_optional_is_what_run_does_without(tmp_path: Path) -> None:
    """Compare the rows with a `run` that cannot import these modules, and with one that lacks joblib too."""
    clip = encode(tmp_path / "a.mp4", [coded(k) for k in range(20)])
    config = tmp_path / "small.toml"
    config.write_text("[features]\ncrop = 32\nshort_side = 48\n")

    def run(modules: set[str], *options: str) -> int:
        command = [sys.executable, "-c", BARE, ",".join(modules), "run", clip, "-o", tmp_path / "out", "--overwrite"]
        done = subprocess.run([*command, "--config", config, "--cache-dir", tmp_path / "cache", *options], cwd=ROOT)
        return done.returncode

    optional = {module for module, _ in doctor.OPTIONAL.values()}
    assert run(optional) == 0
    # Without the others `run` cannot even start.
    assert run(optional | {"joblib"}, "--jobs", "2", "--cache-dir", str(tmp_path / "empty")) == 4


def test_a_machine_without_what_is_optional_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, *doctor.OPTIONAL)
    monkeypatch.delattr(cv2, "optflow")
    checks = examine()
    assert not red(checks) & {*doctor.OPTIONAL, "OpenCV", "TV-L1 of OpenCV"}
    missing = {check.name: check.fix for check in checks if not check.ok}
    assert {*doctor.OPTIONAL, "TV-L1 of OpenCV"} <= set(missing)
    for name in (*doctor.OPTIONAL, "TV-L1 of OpenCV"):
        assert "; only for " in missing[name]
    assert "--backbone i3d_r50" in missing["pytorchvideo"]
    assert "--flow opencv" in missing["TV-L1 of OpenCV"]


@pytest.mark.parametrize("name", doctor.PACKAGES)
def test_what_run_needs_is_red(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    absent(monkeypatch, name)
    assert name in red(examine())


def test_a_package_that_comes_under_another_name_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package_version", lambda name: "absent" if name in ("av", "numba") else "1")
    found = {check.name: check for check in examine()}
    assert found["av"].ok
    assert found["numba"].ok


def test_opencv_that_cannot_be_imported_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "OpenCV" in red(examine())


@pytest.mark.parametrize("what", ["gpu", "codecs", "cache", "flow weights"])
def test_what_run_does_without_is_not_red(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str) -> None:
    before = red(examine())
    if what == "gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    elif what == "codecs":
        monkeypatch.setattr(av, "codecs_available", {"h264"})
    elif what == "cache":
        (tmp_path / "file").touch()
        monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "file" / "cache"))
    else:
        real = weights.find
        monkeypatch.setattr(weights, "find", lambda name: None if name == "i3d-flow" else real(name))
    checks = examine()
    assert red(checks) == before
    row = {"codecs": "decoders", "flow weights": "i3d-flow"}.get(what, what)
    (found,) = [check for check in checks if check.name == row]
    assert not found.ok
    assert found.fix


@pytest.mark.parametrize(
    ("can", "said"),
    [
        ({"VNNI", "BF16"}, ("BF16 and VNNI", "int8 and bfloat16", "bfloat16")),
        ({"BF16"}, ("BF16", "bfloat16", "bfloat16")),
        (set(), ("neither VNNI nor BF16", "float32", "float32")),
    ],
)
@pytest.mark.skipif(not runtime.available(), reason="no OpenVINO on this machine")
def test_what_the_cpu_has_is_said(monkeypatch: pytest.MonkeyPatch, can: set[str], said: tuple[str, str, str]) -> None:
    monkeypatch.setattr(runtime, "abilities", lambda: frozenset(can))
    (found,) = [check for check in examine() if check.name == "CPU"]
    assert found.ok
    assert found.detail == "{}; `auto` runs the published RGB weights in {}, others in {}".format(*said)


def test_without_openvino_a_machine_is_well_and_a_broken_one_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "suits", lambda: True)
    monkeypatch.setattr(runtime, "available", lambda: False)
    (found,) = [check for check in examine() if check.name == "OpenVINO"]
    assert not found.ok and not found.needed and found.fix.startswith("pip install openvino; only for ")

    def broken() -> None:
        raise EnvironmentMissing("OpenVINO cannot be loaded (no libtbb); install it again.")

    monkeypatch.setattr(runtime, "available", lambda: True)
    monkeypatch.setattr(runtime, "openvino", broken)
    (found,) = [check for check in examine() if check.name == "CPU"]
    assert not found.ok and found.needed and "no libtbb" in found.detail


@pytest.mark.parametrize("bindings", [True, False])
def test_on_a_gpu_it_says_what_computes_flow(monkeypatch: pytest.MonkeyPatch, bindings: bool) -> None:
    """The device is made up; the row only asks whether the packages are here."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(name="A", total_memory=2**33))
    monkeypatch.setattr(doctor, "_nvdec", lambda: Check("NVDEC", True, "here"))
    for module in (flow, nvrtc):
        monkeypatch.setattr(module, "find_spec", lambda name: object() if bindings else None)
    checks = {check.name: check for check in examine()}
    row = checks["flow on the GPU"]
    assert checks["gpu"].detail == "A, 8 GiB"
    assert row.ok == bindings and row.name not in red(list(checks.values()))
    assert ("auto is cuda" in row.detail) if bindings else ("cuda-bindings" in row.detail and "numba" in row.fix)


def test_without_a_gpu_there_is_no_row_for_its_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    names = {check.name for check in examine()}
    assert not names & {"flow on the GPU", "C compiler"}


@pytest.mark.parametrize(
    ("value", "says"), [(None, "only when you ask for them"), ("1", "none: JCDNET_OFFLINE is set")]
)
def test_whether_anything_is_downloaded_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, value: str | None, says: str
) -> None:
    """It once said "offline no", which nobody understood."""
    monkeypatch.delenv("JCDNET_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("JCDNET_OFFLINE", value)
    (row,) = [check for check in examine() if check.name == "downloads"]
    assert row.ok and row.detail.startswith(says)
    assert "offline" not in {check.name for check in examine()}

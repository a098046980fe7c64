"""The worked examples of CONTRIBUTING.md work as they stand, and the house's own files say what there is."""

import importlib
import io
import json
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import coded, encode

from extractors import flow
from extractors.backbones import registry
from extractors.backbones.weights import WeightsError
from extractors.config import FeatureConfig
from extractors.features import Extractor
from model import checkpoint
from model.config import ModelConfig
from model.train import initialise
from postprocess.formats import writers
from postprocess.segment import Result, Segment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = {
    heading: code
    for heading, code in re.findall(r"^## A ([\w ]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", TEXT, re.M | re.S)
}


TABLES = (registry.BACKBONES, flow.FLOWS, flow.VERSIONS, writers.WRITERS, writers.SUFFIXES)


@pytest.fixture
def example() -> Iterator[Callable[[str], None]]:
    """Run an example; what it enters into the tables is gone after the test."""
    before = [dict(table) for table in TABLES]
    yield lambda heading: exec(compile(EXAMPLES[heading], heading, "exec"), {"__name__": "example"})
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(entries)  # type: ignore[attr-defined]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "match.mp4", [coded(k) for k in range(34)])


def test_an_extension_is_short() -> None:
    assert set(EXAMPLES) == {"backbone", "flow backend", "writer"}
    assert all(len(code.splitlines()) < 40 for code in EXAMPLES.values())


def test_the_backbone_gives_features(example: Callable[[str], None], video: Path) -> None:
    example("backbone")
    found = Extractor(FeatureConfig(backbone="colours"), ("rgb",)).chunk(video)
    assert found.rgb is not None and found.rgb.shape == (2, 96) and np.isfinite(found.rgb).all()
    assert found.settings["rgb"]["weights"] == "colours-1, no weights"
    # Its mean of squares is never below the square of its mean, and grey pictures are grey.
    mean, square = found.rgb[:, :48], found.rgb[:, 48:]
    assert (square >= mean**2 - 1e-5).all() and np.allclose(mean[:, :16], mean[:, 16:32], atol=0.05)
    with pytest.raises(WeightsError, match="no flow stream; use --streams rgb"):
        Extractor(FeatureConfig(backbone="colours"), ("flow",))


def test_the_flow_backend_is_used(example: Callable[[str], None], stubs: None, tmp_path: Path) -> None:
    example("flow backend")
    shifted = np.random.default_rng(0).integers(0, 255, (80, 120), np.uint8)
    shifted = np.repeat(np.repeat(shifted, 4, axis=0), 4, axis=1)  # texture that Farnebäck can follow
    fields = flow.FLOWS["farneback"](np.stack([np.roll(shifted, 3 * k, axis=1) for k in range(3)]))
    assert fields.shape == (2, 320, 480, 2) and fields.dtype == np.float32
    assert np.median(fields[..., 0]) == pytest.approx(3, abs=0.2) and np.median(fields[..., 1]) == pytest.approx(
        0, abs=0.2
    )

    path = encode(tmp_path / "moving.mp4", [coded(k) for k in range(20)])
    extractors = {n: Extractor(FeatureConfig(backbone="stub", flow=n), ("rgb", "flow")) for n in ("farneback", "stub")}
    found = {name: extractor.chunk(path) for name, extractor in extractors.items()}
    assert found["farneback"].settings["flow"]["flow"].startswith("farneback-1 opencv-")
    assert np.array_equal(found["farneback"].rgb, found["stub"].rgb)  # type: ignore[arg-type]
    assert not np.array_equal(found["farneback"].flow, found["stub"].flow)  # type: ignore[arg-type]


def test_the_writer_is_found(
    example: Callable[[str], None],
    jcdnet: Callable[..., tuple[int, str, str]],
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example("writer")
    assert len(set(writers.SUFFIXES.values())) == len(writers.SUFFIXES)
    result = Result(
        "m.mp4", 9.0, {}, (Segment(1.28, 3.2, 4.0, 0.9, "pole\tvault"), Segment(5, 6, 1, 0.5, "run")), (), {}
    )
    text = io.StringIO()
    writers.WRITERS["audacity"](result, text)
    assert text.getvalue() == "1.280\t3.200\tpole vault\n5.000\t6.000\trun\n"

    # And by `run`, with a model that reads the backbone of above and finds something everywhere.
    example("backbone")
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    config, settings = ModelConfig(classes=1, in_dim=96, dim=8), {"rgb": {"backbone": "colours"}}
    checkpoint.save(initialise(config, ("jump",), ("rgb",), settings, seed=0), tmp_path / "model")
    asked = ("run", video, "--model", tmp_path / "model", "-o", tmp_path / "out", "--threshold", 0, "--all")
    code, _, said = jcdnet(*asked, "-f", "audacity")
    assert code == 0, said
    segments = json.loads((tmp_path / "out" / "match.json").read_text())["segments"]
    expected = [f"{s['start']:.3f}\t{s['end']:.3f}\tjump" for s in segments]
    assert expected and (tmp_path / "out" / "match.audacity.txt").read_text().splitlines() == expected
    code, _, said = jcdnet("run", video, "-o", tmp_path / "out", "-f", "audacious")
    assert code == 2 and "audacity" in said


def test_templates_and_hooks_are_whole() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert form["name"] and form["description"]
            ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
            assert ids and len(set(ids)) == len(ids) and all(part["attributes"] for part in form["body"])
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": "make test"}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]


def test_every_module_can_be_documented() -> None:
    """pdoc reads each public module of the library; a name whose annotation cannot be read is a warning."""
    doc = pytest.importorskip("pdoc.doc", reason="pdoc is not installed (pip install '.[docs]')")
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for package in ("extractors", "model", "postprocess", "pipeline"):
            for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
                members = doc.Module(importlib.import_module(found.name)).flattened_own_members
                public = [m for m in members if m.kind in ("class", "function") and not m.name.startswith("_")]
                seen += len(public)
    assert seen > 300

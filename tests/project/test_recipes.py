"""The recipes of docs/workers.md: with the packages that they are for, and as Kubernetes would start them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import coded, encode

from extractors.backbones import weights
from pipeline.shards import parse

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "workers.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


RECIPES = dict(zip(("ray", "daft", "distributed"), blocks("py"), strict=True))


def test_recipes_are_short() -> None:
    assert all(len(recipe.splitlines()) <= 21 for recipe in RECIPES.values())


@pytest.mark.slow
@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
@pytest.mark.parametrize("package", RECIPES)
def test_a_recipe(package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    video = encode(tmp_path / "match.mp4", [coded(k) for k in range(20)])
    script = tmp_path / "recipe.py"
    code = RECIPES[package].replace("/shared/footage/match.mp4", str(video))
    script.write_text(code.replace("/shared/rows", str(tmp_path / "rows")))
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # Ray would otherwise join another cluster of this machine, and wait for ever when that ends.
    environment = os.environ | {"JCDNET_CACHE": str(tmp_path / "cache"), "PYTHONPATH": paths, "RAY_ADDRESS": "local"}
    done = subprocess.run([sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "rows").rglob("*") if path.suffix in (".parquet", ".jsonl")]
    if package == "distributed":
        rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = [row for path in files for row in parquet.ParquetFile(path).read().to_pylist()]
    (row,) = rows
    assert row["id"] == "match.mp4" and (row.get("found") or row)["status"] == "done"
    assert isinstance(json.loads((row.get("found") or row)["segments"]), list)


def test_the_job_of_kubernetes_starts_each_shard_once(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)["spec"]
    (container,) = job["template"]["spec"]["containers"]
    count = job["completions"]
    assert job["completionMode"] == "Indexed"
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    seen = []
    for index in range(count):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)}
        command = [*container["command"], *container["args"]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        *arguments, flag, shard = done.stdout.splitlines()
        assert arguments[:2] == ["cli.py", "run"] and flag == "--shard"
        seen.append(parse(shard))
    assert seen == [(k, count) for k in range(1, count + 1)]

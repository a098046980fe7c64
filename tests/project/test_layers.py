"""The shape of the house: siblings never import one another, nothing imports the command line, no printing below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIBLINGS = ("extractors", "model", "postprocess")
MAY_IMPORT = {name: {name} for name in SIBLINGS} | {"pipeline": {*SIBLINGS, "pipeline"}}
HOUSE = {*SIBLINGS, "pipeline", "commands", "cli"}
FILES = [path for folder in MAY_IMPORT for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert imported(ast.parse(path.read_text())) & HOUSE <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_neither_prints_nor_exits(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"print", "exit", "quit", "input", "eval", "exec"}


def test_help_and_the_torch_free_configs_import_no_torch() -> None:
    code = (
        "import sys, cli, extractors.config, model.presets, postprocess.config, pipeline.config;"
        "heavy = {'torch', 'cv2', 'av', 'numba', 'pytorchvideo'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

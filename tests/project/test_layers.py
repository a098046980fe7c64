"""The plan of the house: who may import whom, how large a folder, a file and a function may be, what a run loads."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from conftest import coded, encode

ROOT = Path(__file__).parents[2]
SIBLINGS = ("extractors", "model", "postprocess")
MAY_IMPORT = {"support": {"support"}} | {name: {name, "support"} for name in SIBLINGS}
MAY_IMPORT |= {"pipeline": {*SIBLINGS, "support", "pipeline"}}
HOUSE = {*MAY_IMPORT, "commands", "cli"}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
ALL = [*FILES, *sorted((ROOT / "commands").glob("*.py")), ROOT / "cli.py"]

MOST_MODULES = 14  # in a folder
MOST_LINES = 350  # of a file
MOST_STATEMENT_LINES = 80  # of a function
MOST_PARAMETERS = 8
MEDIAN_LINES = 200  # of the files
# Of a `run` of one clip to JSON: our modules that it imports, and our files whose functions it calls.
MOST_IMPORTED, MOST_CALLED = 55, 47

# Each with its reason.
LONG_FILES = {
    "extractors/flow/numba_kernels.py": "Numba caches by file: kernels that call one another share one",
}
SHARED = {
    "__init__",
    "bars",
    "groups",
    "options",
    "places",
    "progress",
    "refused",
    "remaining",
    "terminal",
}  # in commands/, but no command
KERNELS = {"extractors/flow/numba_kernels.py"}  # their arguments are arrays


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in ALL}


def imported(path: Path) -> set[str]:
    """Modules of the house that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (below & MODULES.keys()) or {node.module}
    return {name for name in found if name.split(".")[0] in HOUSE}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_follow_the_layers(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert {name.split(".")[0] for name in imported(path)} <= MAY_IMPORT[folder]


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count: they hide a circle, they do not open it."""
    arrows = {module: imported(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in sorted(arrows[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(arrows):
        visit(module, ())


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=name_of)
def test_a_folder_can_be_overlooked(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, modules


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES or name_of(path) in LONG_FILES, lines
    if name_of(path) in KERNELS:
        return
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MOST_STATEMENT_LINES, (function.name, length)
        if path.parent.name != "commands":
            given = function.args
            names = [
                a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")
            ]
            assert len(names) <= MOST_PARAMETERS, (function.name, names)


def test_the_list_of_long_files_is_true() -> None:
    for name in LONG_FILES:
        assert (ROOT / name).read_text(encoding="utf-8").count("\n") > MOST_LINES, name


def test_each_command_stands_in_the_file_of_its_name() -> None:
    import typer

    import cli

    group: Any = typer.main.get_command(cli.app)
    names = group.list_commands(None)
    assert names and set(names) == {path.stem for path in ALL if path.parent.name == "commands"} - SHARED
    for name in names:
        command = group.get_command(None, name)
        inner = getattr(command, "commands", None)
        callbacks = [c.callback for c in inner.values()] if inner else [command.callback]
        assert {callback.__module__ for callback in callbacks} == {f"commands.{name}"}, name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_library_neither_prints_nor_exits(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"print", "exit", "quit", "input", "eval", "exec"}


@pytest.mark.parametrize("path", [p for p in ALL if p.relative_to(ROOT).parts[0] != "support"], ids=name_of)
def test_temporary_files_and_renames_stand_in_support_alone(path: Path) -> None:
    """Whoever writes a file calls support.files: there is one way in which a file becomes whole."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"mkstemp", "NamedTemporaryFile", "rename", "renames"}, node.lineno
            # str.replace takes two arguments, dataclasses.replace keywords, Path.replace one argument.
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
            assert node.keywords or len(node.args) != 1, node.lineno


def test_help_and_the_torch_free_configs_import_no_torch() -> None:
    code = (
        "import sys, cli, extractors.config, model.presets, postprocess.config, pipeline.config;"
        "heavy = {'torch', 'cv2', 'av', 'numba', 'pytorchvideo'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


RUN = """
import json, sys, threading
sys.path.insert(0, sys.argv[1])
import cli, torch
from extractors.backbones import registry
from extractors.backbones.registry import Backbone

class Means(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3, 4)).repeat(1, 342)[:, :1024]

called = set()

def note(frame, event, _):
    # A function, not the body of a module or of a class, nor a comprehension (a frame of its own before Python 3.12).
    if event == "call" and frame.f_code.co_flags & 1 and frame.f_code.co_name not in COMPREHENSIONS:
        called.add(frame.f_code.co_filename)

COMPREHENSIONS = {"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"}
registry.BACKBONES["i3d"] = lambda stream, path: Backbone(Means, 1024, "means")
sys.argv = ["jcdnet", "run", sys.argv[2], "-o", sys.argv[3], "-f", "json", "--model", sys.argv[4]]
threading.setprofile(note)
sys.setprofile(note)
try:
    cli.main()
finally:
    sys.setprofile(None)
    print(json.dumps([sorted(sys.modules), sorted(called)]))
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """All modules that a `run` of one clip to JSON imports, and the files whose functions it calls."""
    from model import checkpoint
    from model.config import ModelConfig
    from model.train import initialise

    folder = tmp_path_factory.mktemp("traced")
    video = encode(folder / "clip.mp4", [coded(k) for k in range(40)])
    model = initialise(ModelConfig(classes=2, in_dim=1024, dim=8), ("a", "b"), ("rgb",), {}, seed=0)
    checkpoint.save(model, folder / "model.safetensors")
    command = [sys.executable, "-c", RUN, ROOT, video, folder / "out", folder / "model.safetensors"]
    environment = os.environ | {"JCDNET_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and (folder / "out" / "clip.json").exists(), done.stderr
    modules, called = json.loads(done.stdout.splitlines()[-1])
    return set(modules), set(called)


def test_a_run_to_json_imports_what_it_uses(traced: tuple[set[str], set[str]]) -> None:
    """Neither workers, nor clips, nor pictures."""
    modules, _ = traced
    assert not {name.split(".")[0] for name in modules} & {"joblib", "matplotlib", "torchvision", "pytorchvideo"}
    ours = modules & MODULES.keys()
    assert not {name for name in ours if name.startswith(("pipeline.clips", "postprocess.pages", "pipeline.training"))}
    commands = {path.stem for path in ALL if path.parent.name == "commands"} - SHARED
    assert ours & {f"commands.{name}" for name in commands} == {"commands.run"}


def test_a_run_to_json_goes_through_few_files(traced: tuple[set[str], set[str]]) -> None:
    modules, called = traced
    ours = sorted(name for name in modules & MODULES.keys() if MODULES[name].name != "__init__.py")
    assert len(ours) <= MOST_IMPORTED, "\n".join(ours)
    files = sorted(name_of(path) for path in MODULES.values() if str(path) in called and path.name != "__init__.py")
    assert len(files) <= MOST_CALLED, files


def test_the_rules_are_written_down() -> None:
    rules = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert f"at most {MOST_IMPORTED} of our modules, and it calls functions of at most {MOST_CALLED} of our" in rules
    assert f"at most {MOST_MODULES} modules, and a file at most {MOST_LINES} lines" in rules
    assert f"Half of the files have at most {MEDIAN_LINES} lines" in rules


def test_half_of_the_files_are_short() -> None:
    lengths = [path.read_text(encoding="utf-8").count("\n") for path in ALL if path.name != "__init__.py"]
    assert median(lengths) <= MEDIAN_LINES, sorted(lengths)


@pytest.mark.parametrize("name", ["pyproject.toml", ".dockerignore", "docker/Dockerfile", ".coveragerc"])
def test_lists_made_by_hand_name_every_folder(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    tops = [*MAY_IMPORT, "commands"]
    if name == "pyproject.toml":
        folders = {p.parent for top in tops for p in (ROOT / top).rglob("__init__.py")}
        for folder in folders:
            assert f'"jcdnet._app.{name_of(folder).replace("/", ".")}"' in text, folder
    else:
        assert all(top in text for top in tops)

"""Every command of the README runs, on a tiny video and a folder of them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode

import cli
from extractors import weights
from extractors.features import Features
from extractors.features import save as save_features
from model import checkpoint
from model.config import ModelConfig
from model.train import initialise
from postprocess.segment import Result, Segment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


@pytest.fixture
def footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with match.mp4 and footage/, the working directory."""
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    match = encode(tmp_path / "match.mp4", [coded(k) for k in range(34)])
    (tmp_path / "footage" / "day 1").mkdir(parents=True)
    shutil.copy(match, tmp_path / "footage" / "day 1" / "a.mp4")
    truth = {"match": {"subset": "test", "annotations": [{"label": "golf driving", "segment": ["0.0", "1.0"]}]}}
    (tmp_path / "truth.json").write_text(json.dumps({"database": truth}))
    monkeypatch.chdir(tmp_path)
    region = {"type": "timelinelabels", "value": {"ranges": [{"start": 1, "end": 25}], "timelinelabels": ["serve"]}}
    task = {"data": {"video": "match.mp4", "fps": 25}, "annotations": [{"result": [region]}]}
    (tmp_path / "corrected.json").write_text(json.dumps([task]))
    _training_data(tmp_path, match)
    return tmp_path


def _training_data(folder: Path, video: Path) -> None:
    """labels.csv with footage/ and tricks/, and the model that training on them would have given."""
    rows, names = ["video,labels"], ("a", "b", "c", "d", "nothing")
    rng = np.random.default_rng(0)
    for name, labels in zip(names, ("kickflip", "kickflip|ollie", "ollie", "ollie", ""), strict=True):
        rows.append(f"{name}.mp4,{labels}")
        shutil.copy(video, folder / "footage" / f"{name}.mp4")
        rgb, times = rng.random((3, 1024), np.float32), np.arange(3)[:, None] * 0.64 + np.array([0.0, 0.64])
        settings = {"rgb": {"fps": 25.0, "length": 16, "stride": 16}}
        save_features(Features(rgb, None, times, 1.92, {}, settings), folder / "tricks" / f"{name}.npz")
    (folder / "labels.csv").write_text("\n".join(rows))
    truth = {name: {"annotations": [{"label": "ollie", "segment": [0.0, 1.0]}]} for name in names[2:4]}
    truth |= {name: {"annotations": [{"label": "kickflip", "segment": [0.5, 1.5]}]} for name in names[:2]}
    (folder / "tricks.json").write_text(json.dumps({"database": truth | {names[4]: {"annotations": []}}}))
    model = initialise(ModelConfig(classes=2, in_dim=1024, dim=16), ("kickflip", "ollie"), ("rgb",), settings, seed=0)
    checkpoint.save(model, folder / "runs" / "tricks")


@needs_weights
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, script, *arguments = shlex.split(command)
    assert (program, script) == ("python", "cli.py")
    if arguments[0] in ("evaluate", "report", "clips", "plot"):  # what an earlier `run -o results` would have written
        found = Segment(start=0.0, end=1.0, score=1.0, confidence=1.0, label="golf driving")
        Path("results").mkdir()
        Path("results/match.json").write_text(json.dumps(Result("match.mp4", 1.36, {}, (found,), (), {}).to_dict()))
    if "--retry-failed" in arguments:  # the report of an earlier run
        Path("results").mkdir()
        row = {"video": "footage/a.mp4", "name": "a", "status": "failed", "seconds": 0.0}
        Path("results/_run.json").write_text(json.dumps({"videos": [row]}))
    if arguments[0] == "train":
        shutil.rmtree("runs")
    monkeypatch.setattr(sys, "argv", ["cli.py", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        assert stop.code in (0, None)


@needs_weights
def test_python_example(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("video", ["match.mp4", "my match.mp4"])
def test_make_run_hands_the_video_on(video: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/.ready", "run", f"VIDEO={video}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},  # not its child
        capture_output=True,
        text=True,
        check=True,
    )
    assert shlex.split(done.stdout.splitlines()[-1])[1:5] == ["cli.py", "run", video, "-o"]


def test_the_make_commands_of_the_readme_exist() -> None:
    for target in set(re.findall(r"`?\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target

"""What the documents say holds: their commands run, on tiny videos, and their links lead somewhere."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from conftest import coded, encode
from featuresets import CLASSES, rows, wtalc
from featuresets import video as published

import cli
from extractors.backbones import weights
from extractors.features import Features
from extractors.features import save as save_features
from model import checkpoint, kinetics
from model.config import ModelConfig, TimesConfig, TrainConfig
from model.train import initialise
from postprocess.formats.writers import clock
from postprocess.segment import Result, Segment

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "model/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
SHOWN = {name: text for name, text in TEXTS.items() if name == "README.md" or name.startswith("docs/")}


def blocks(language: str, *names: str) -> list[str]:
    """The code blocks of a language, of these documents or of all that are for users."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [block for name in names or SHOWN for block in fence.findall(SHOWN[name])]


def commands() -> list[str]:
    """Ours among the lines of the sh blocks, each once."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    ours = (line.split(" #")[0].strip() for line in lines)
    return list(dict.fromkeys(" ".join(line.split()) for line in ours if line.startswith("python cli.py ")))


COMMANDS = commands()
# These read what an earlier `run -o results` would have written.
OF_RESULTS = ("evaluate", "report", "clips", "export", "plot")
# A training of the documents takes its preset's steps; here it takes a few, of a small network.
SHORTER = {"--steps": "2", "--dim": "16", "--folds": "2"}
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that the documents name, made once."""
    folder = tmp_path_factory.mktemp("documents")
    match = encode(folder / "match.mp4", [coded(k) for k in range(34)])
    (folder / "footage" / "day 1").mkdir(parents=True)
    shutil.copy(match, folder / "footage" / "day 1" / "a.mp4")
    truth = {"match": {"subset": "test", "annotations": [{"label": "golf driving", "segment": ["0.0", "1.0"]}]}}
    (folder / "truth.json").write_text(json.dumps({"database": truth}))
    region = {"type": "timelinelabels", "value": {"ranges": [{"start": 1, "end": 25}], "timelinelabels": ["serve"]}}
    task = {"data": {"video": "match.mp4", "fps": 25}, "annotations": [{"result": [region]}]}
    (folder / "corrected.json").write_text(json.dumps([task]))
    mark = {"start": 0.2, "end": 1.0, "label": "ollie", "origin": "added"}
    marks = {"corrections": 1, "video": "c.mp4", "content": None, "duration": 1.36, "saved": "2026-01-01T00:00:00.000Z"}
    (folder / "marks").mkdir()
    marks |= {"complete": True, "segments": [mark], "rejected": []}
    (folder / "marks" / "c.corrections.json").write_text(json.dumps(marks))
    for name, document in (("settings.toml", "docs/wrong.md"), ("train.toml", "docs/train.md")):
        (block,) = blocks("toml", document)
        (folder / name).write_text(block)
    _training_data(folder, match)
    _published(folder / "Thumos14", folder / "runs" / "thumos")
    return folder


def _training_data(folder: Path, video: Path) -> None:
    """labels.csv with footage/ and tricks/, and the model that training on them would have given."""
    lines, names = ["video,labels"], ("a", "b", "c", "d", "nothing")
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {"rgb": {"fps": 25.0, "length": 16, "stride": 16}}
    for name, labels in zip(names, ("kickflip", "kickflip|ollie", "ollie", "ollie", ""), strict=True):
        lines.append(f"{name}.mp4,{labels}")
        shutil.copy(video, folder / "footage" / f"{name}.mp4")
        rgb, times = rng.random((3, 1024), np.float32), np.arange(3)[:, None] * 0.64 + np.array([0.0, 0.64])
        features = Features(rgb, None, times, 1.92, {}, settings)
        save_features(features, folder / "tricks" / f"{name}.npz")
    save_features(features, folder / "features" / "match.npz")
    (folder / "labels.csv").write_text("\n".join(lines))
    truth = {name: {"annotations": [{"label": "ollie", "segment": [0.0, 1.0]}]} for name in names[2:4]}
    truth |= {name: {"annotations": [{"label": "kickflip", "segment": [0.5, 1.5]}]} for name in names[:2]}
    marks = ["video,start,end,label,complete", "c.mp4,0,1,ollie,yes", "a.mp4,0.4,1.3,kickflip,", "b.mp4,0.5,,ollie,"]
    marks += ["d.mp4,0.2,1.3,ollie,", "b.mp4,0.2,,kickflip,", "nothing.mp4,,,,yes"]
    (folder / "times.csv").write_text("\n".join(marks))
    (folder / "tricks.json").write_text(json.dumps({"database": truth | {names[4]: {"annotations": []}}}))
    model = initialise(ModelConfig(classes=2, in_dim=1024, dim=16), ("kickflip", "ollie"), ("rgb",), settings, seed=0)
    trained = {"training": {"settings": TrainConfig(steps=2, times=TimesConfig()).to_dict()}}
    checkpoint.save(replace(model, provenance=trained), folder / "runs" / "tricks")


def _published(folder: Path, model: Path) -> None:
    """Published features, and the model that training on them would have given."""
    wtalc(folder, [published(i, "validation" if i < 6 else "test", rows=rows(20, i)) for i in range(9)])
    grid = {"layout": "W-TALC", "fps": 25.0, "length": 16, "stride": 16}
    config = ModelConfig(classes=len(CLASSES), in_dim=2048, dim=16)
    checkpoint.save(initialise(config, CLASSES, ("rgb", "flow"), {"rgb": grid, "flow": grid}, seed=0), model)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def footage(template: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the documents' files, the working directory; one cache for all commands, as a user has it."""
    folder = tmp_path / "work"
    shutil.copytree(template, folder)
    monkeypatch.setenv("JCDNET_CACHE", str(cache))
    monkeypatch.chdir(folder)
    return folder


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 40 and all(block for name in ("README.md", "docs/train.md") for block in blocks("sh", name))


@needs_weights
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, *arguments = shlex.split(command)
    if arguments[0] in OF_RESULTS:
        found = Segment(start=0.0, end=1.0, score=1.0, confidence=1.0, label="golf driving")
        document = json.dumps(Result("match.mp4", 1.36, {"rate": "25"}, (found,), (), {}).to_dict())
        for folder in ("results", "found"):  # of `run` and of `find`
            Path(folder).mkdir()
            Path(folder, "match.json").write_text(document)
    if arguments[0] == "find":  # the video of the documents is longer
        arguments = [re.sub(r"^match\.mp4@.*", "match.mp4@0.2-1", word) for word in arguments]
        if "features/" in arguments:  # those of the template are none that a network made
            shutil.rmtree("features")
            monkeypatch.setattr(sys, "argv", ["cli.py", "extract", "footage/", "-o", "features"])
            with contextlib.suppress(SystemExit):
                cli.main()
    if "--retry-failed" in arguments:  # the report of an earlier run
        Path("results").mkdir()
        row = {"video": "footage/a.mp4", "name": "a", "status": "failed", "seconds": 0.0}
        Path("results/_run.json").write_text(json.dumps({"videos": [row]}))
    if arguments[0] == "train":
        before = "--more" in arguments  # a model that brings its width
        if not before:
            shutil.rmtree("runs")
        for option, value in SHORTER.items():
            if before and option == "--dim":
                continue
            arguments += [] if option in arguments else [option, value]
    if arguments[0] == "extract":  # it makes the features that others find there
        shutil.rmtree("tricks")
        shutil.rmtree("features")
    monkeypatch.setattr(sys, "argv", ["cli.py", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        assert stop.code in (0, None)


@needs_weights
@pytest.mark.parametrize("code", blocks("python"))
def test_python_example(code: str, footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_json_examples_are_whole() -> None:
    (shown,) = blocks("json", "docs/formats.md")
    result = Result.from_dict(json.loads(shown))
    assert result.to_dict() == json.loads(shown) and result.segments


# --- the video of the README's picture --------------------------------------------------------------------------------


def tables(name: str) -> list[list[tuple[float, float, str, str]]]:
    """Tables of `run match.mp4` in a document: start and end (s), confidence as it is shown, name."""
    row = re.compile(r"^    +(\d+):([\d.]+) +(\d+):([\d.]+) +\d+:[\d.]+ +([\d.]+)  (?:.+: )?(.+)$", re.MULTILINE)
    return [
        [(60 * int(a) + float(b), 60 * int(c) + float(d), conf, label) for a, b, c, d, conf, label in row.findall(t)]
        for t in re.findall(r"^    match\.mp4  .*\n(?:^    .*\n)+", SHOWN[name], re.MULTILINE)
    ]


def test_examples_of_one_video_agree(examples: ModuleType) -> None:
    """A segment that several documents show is the same in all of them."""
    (readme,), (first, golf) = tables("README.md"), tables("docs/first-video.md")
    assert len(readme) > 3
    assert first == readme
    # Where one name is asked for, it is expected, and its segment may be a snippet longer on both sides.
    ((begin, end, _, label),) = golf
    (row,) = [row for row in readme if row[3] == label]
    assert 0 <= row[0] - begin < 0.65 and 0 <= end - row[1] < 0.65
    (block,) = blocks("json", "docs/formats.md")
    result = Result.from_dict(json.loads(block))
    (shown,) = result.segments
    assert (shown.start, shown.end, f"{shown.confidence:.2f}", shown.label) == readme[0]
    assert f"(shortened: {len(readme) - 1} more segments" in SHOWN["docs/formats.md"]
    assert f"match.mp4  {clock(result.duration)}\n" in SHOWN["README.md"]
    # What the text says of the tables.
    said = re.search(
        r"threshold of (\.\d+) misses a weightlifter from ([\d.]+) to ([\d.]+)\. With (\.\d+):", SHOWN["docs/wrong.md"]
    )
    assert said is not None
    assert float(said[1]) == kinetics.Tuning.load().localize["threshold"]
    assert not any(begin < float(said[3]) and end > float(said[2]) for begin, end, *_ in readme)
    (wrong,) = tables("docs/wrong.md")
    (lifted,) = [row for row in wrong if row[3].startswith("clean and jerk")]
    assert lifted[0] < float(said[3]) and lifted[1] > float(said[2])
    assert f"with a confidence of {lifted[2].lstrip('0')}," in SHOWN["docs/wrong.md"].replace("\n", " ")
    assert examples.TABLES["docs/wrong.md"] == [f"--threshold 0{said[4]} --all"]


def test_every_table_of_the_video_has_its_command(examples: ModuleType) -> None:
    shown = {name: len(tables(name)) for name in SHOWN if tables(name)}
    assert shown == {name: len(options) for name, options in examples.TABLES.items()}
    for name, runs in examples.TABLES.items():
        for options in runs:
            command = f"python cli.py run match.mp4 {options}".strip()
            assert command in SHOWN[name] or (name == "README.md" and "make run VIDEO=match.mp4" in SHOWN[name])


def test_examples_are_put_where_they_stand(
    examples: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the documents show now they stay as they are; with anything else they do not."""
    (block,) = blocks("json", "docs/formats.md")
    segments = [s.to_dict() if hasattr(s, "to_dict") else vars(s) for s in Result.from_dict(json.loads(block)).segments]
    rest = [
        {"start": a, "end": b, "score": 1.0, "confidence": 0.9, "label": n} for a, b, _, n in tables("README.md")[0]
    ]
    result = json.loads(block) | {"segments": segments + rest[1:]}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "match.json").write_text(json.dumps(result))
    shown = {
        options: found.replace("\n    ", "\n")[4:]
        for name, runs in examples.TABLES.items()
        for options, found in zip(runs, examples.TABLE.findall(SHOWN[name]), strict=True)
    }
    monkeypatch.setattr(examples, "printed", lambda folder, options: shown[options])
    assert examples.differences(SHOWN, examples.regenerated(tmp_path, SHOWN)) == []
    result["segments"][0]["confidence"] = 0.1234
    (tmp_path / "results" / "match.json").write_text(json.dumps(result))
    *_, confidence, label = tables("README.md")[0][1]
    shown["-o results"] = shown["-o results"].replace(f"{confidence}  {label}", f"0.12  {label}", 1)
    differ = "\n".join(examples.differences(SHOWN, examples.regenerated(tmp_path, SHOWN)))
    assert "0.1234" in differ and f"  0.12  {label}" in differ


@pytest.mark.slow
@needs_weights
def test_examples_are_what_the_commands_print(
    examples: ModuleType, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))
    examples.make_video(corpus, tmp_path / "match.mp4")
    assert examples.differences(SHOWN, examples.regenerated(tmp_path, SHOWN)) == []


def mentioned() -> Iterator[tuple[str, list[str]]]:
    """Every command of ours in any document, also in the midst of a sentence: (document, its words)."""
    for name, text in TEXTS.items():
        fenced = "".join(re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE))
        spans = re.findall(r"`([^`]+)`", without_fences(text))
        for code in [*fenced.splitlines(), *re.findall("^    .*", text, re.MULTILINE), *spans]:
            for words in re.findall(r"python cli\.py ([^#]*)", " ".join(code.split())):
                yield name, re.sub("[\"']", " ", words).split()


def test_commands_and_options_of_every_document_exist() -> None:
    root: Any = typer.main.get_command(cli.app)
    seen = 0
    for name, words in mentioned():
        command, names = root, {option for p in root.params for option in p.opts}
        for word in words:
            inner = command.get_command(None, word) if hasattr(command, "get_command") else None
            if inner is not None:
                command = inner
                names |= {option for p in command.params for option in p.opts} | {"--help"}
            elif re.match(r"--?[a-z]", word):
                assert word in names, f"{name}: {' '.join(words)}: no option {word}"
                seen += 1
        assert command is not root or not words or not words[0].isalpha(), f"{name}: no command {words[0]}"
    assert seen > 100


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(TEXTS[name])):
        if re.match(r"[a-z]+:", target):  # another site; nothing is fetched here
            continue
        path, _, anchor = target.partition("#")
        document = (ROOT / name).parent / path if path else ROOT / name
        assert document.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(document.read_text(encoding="utf-8")), f"{name}: {target}"


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings: lower case, no punctuation, dashes for blanks."""
    headings = re.findall(r"^#+ (.+)$", without_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


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


def test_the_make_commands_of_the_documents_exist() -> None:
    found = {
        target for text in TEXTS.values() for target in re.findall(r"(?:^    |`)make ([a-z]+)", text, re.MULTILINE)
    }
    assert {"run", "test", "setup"} <= found
    for target in found:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target

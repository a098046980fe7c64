"""The command line as a user meets it: what it prints and writes, and one clear sentence for every mistake."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer
from conftest import coded, encode

import cli
from extractors.backbones import weights
from extractors.features import Features, save
from pipeline.training import fit as training
from support.version import VERSION

ROOT = Path(__file__).parents[2]
needs_weights = pytest.mark.skipif(
    weights.find("i3d-rgb") is None, reason="the I3D weights are not installed (python cli.py models fetch i3d-rgb)"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """20 frames: one snippet and a tail."""
    return encode(tmp_path / "clip.mp4", [coded(k) for k in range(20)])


def one_sentence(stderr: str) -> str:
    """The error, which must be one line and no traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]


@needs_weights
def test_run_writes_the_result_of_the_design(jcdnet, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "my results"
    code, _, said = jcdnet("run", clip, "-o", out, "-f", "csv,srt")
    assert code == 0, said
    document = json.loads((out / "clip.json").read_text())
    assert document["schema"] == 1
    assert document["duration"] == pytest.approx(0.8)
    assert document["media"] == {"width": 72, "height": 48, "rate": "25", "start_timecode": None}
    assert document["provenance"]["model"]["name"] == "kinetics400"
    assert document["provenance"]["features"]["rgb"]["weights"].startswith("sha256:af5c50f0")
    with np.load(out / "clip.scores.npz") as scores:
        assert scores["cas"].shape == (1, 401)
        assert scores["times"].tolist() == [[0.0, 0.64]]
    assert {p.name for p in out.iterdir()} == {
        "clip.json",
        "clip.csv",
        "clip.srt",
        "clip.scores.npz",
        "segments.csv",
        "_run.json",
    }

    # The same again is kept; another model or setting needs a word.
    before = (out / "clip.json").stat().st_mtime_ns
    code, printed, _ = jcdnet("run", clip, "-o", out)
    assert code == 0
    assert "kept from before" in printed
    assert (out / "clip.json").stat().st_mtime_ns == before
    code, _, said = jcdnet("run", clip, "-o", out, "--classes", "all")
    assert code == 3
    assert "--overwrite" in one_sentence(said)
    assert jcdnet("run", clip, "-o", out, "--classes", "all", "--overwrite")[0] == 0


@needs_weights
def test_stdout_is_data(jcdnet, clip: Path, tmp_path: Path) -> None:
    code, printed, _ = jcdnet("run", clip, "-o", "-")
    assert code == 0
    assert json.loads(printed)["segments"] == []
    other = encode(tmp_path / "other.mp4", [coded(k) for k in range(17)])
    _, printed, _ = jcdnet("run", clip, other, "-o", "-")
    assert [json.loads(line)["video"] for line in printed.splitlines()] == [str(clip), str(other)]
    _, printed, _ = jcdnet("run", clip, "-o", "-", "-f", "csv")
    assert printed == "video,start,end,label,confidence,score\n"
    code, printed, _ = jcdnet("run", clip)
    assert code == 0
    assert "no action found" in printed


@needs_weights
def test_a_format_that_would_be_written_nowhere_is_refused(jcdnet, clip: Path) -> None:
    code, _, said = jcdnet("run", clip, "-f", "csv")
    assert code == 2
    assert "name a folder with -o" in one_sentence(said)


@needs_weights
def test_files_of_one_result_are_of_one_run(jcdnet, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jcdnet("run", clip, "-o", out, "-f", "csv")
    jcdnet("run", clip, "-o", out, "--classes", "tennis", "--overwrite")
    assert not (out / "clip.csv").exists()  # it would have been of other settings than clip.json
    _, printed, _ = jcdnet("run", clip, "-o", out, "-f", "csv", "--classes", "tennis")
    assert "kept from before" not in printed
    assert (out / "clip.csv").exists()


@needs_weights
def test_modules_in_the_folder_of_the_videos_are_not_imported(
    jcdnet, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    assert jcdnet("run", clip)[0] == 0


@needs_weights
def test_the_table_is_whole_in_a_terminal(clip: Path, tmp_path: Path) -> None:
    """Bars on stderr must not draw over rows on stdout: nothing is printed while they are live."""
    pty = pytest.importorskip("pty")
    keeper, terminal = pty.openpty()
    command = [sys.executable, "cli.py", "run", clip, "--classes", "all"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal, close_fds=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while block := os.read(keeper, 1 << 16):
            shown += block
    os.close(keeper)
    assert child.wait() == 0
    lines = [line.rstrip() for line in screen(shown.decode())]
    assert any(line.endswith("clip.mp4  0:00.80  no action found") for line in lines), lines
    assert not any("decode" in line for line in lines)  # the bars are gone


def screen(text: str) -> list[str]:
    """The lines that a terminal shows: carriage returns, cursor up and erased lines, the rest of ANSI ignored."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            continue  # what follows is written over the line, which is always erased or empty
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] += part
    return lines


@needs_weights
def test_a_bad_file_among_good_ones(jcdnet, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("I am text")
    out = tmp_path / "out"
    code, _, said = jcdnet("run", tmp_path / "bad.mp4", clip, "-o", out)
    assert code == 3
    assert "bad.mp4" in one_sentence(said)
    assert (out / "clip.json").exists()
    assert not (out / "bad.json").exists()
    assert leftovers(out) == []


@needs_weights
def test_what_is_left_out_of_a_folder_is_said_once(jcdnet, clip: Path) -> None:
    (clip.parent / "GL01.LRV").touch()
    clip.rename(clip.with_suffix(".MOD"))
    for command in (
        ("run", clip.parent, "--dry-run"),
        ("extract", clip.parent, "--dry-run"),
        ("labels", "propose", clip.parent),
    ):
        code, printed, said = jcdnet(*command)
        assert code == 0 and "clip" in printed + said
        assert said.count(f"note: {clip.parent}: left out what is no video by its name: 1 file (1 .lrv).") == 1


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def truncated(path: Path) -> Path:
    """An mp4 whose index, at its end, is gone."""
    whole = encode(path, [coded(k) for k in range(40)]).read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


BAD_INPUTS = {
    "empty": (lambda p: (p.write_bytes(b""), p)[1], "empty"),
    "text": (lambda p: (p.write_text("hello"), p)[1], "not a video"),
    "audio only": (audio_only, "no video stream"),
    "truncated": (truncated, "not a video that FFmpeg can open"),
}


@needs_weights
@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_input_is_one_sentence_and_exit_3(jcdnet, tmp_path: Path, kind: str) -> None:
    make, cause = BAD_INPUTS[kind]
    video = make(tmp_path / "video.mp4")
    out = tmp_path / "out"
    code, _, said = jcdnet("run", video, "-o", out)
    assert code == 3
    sentence = one_sentence(said)
    assert "video.mp4" in sentence
    assert cause in sentence
    assert {p.name for p in out.iterdir()} == {"segments.csv", "_run.json"}


@needs_weights
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("one.mp4", [coded(1)]),
        ("tiny.mp4", [coded(k, 8, 8) for k in range(20)]),
        ("huge.mp4", [coded(k, 2160, 4096) for k in range(3)]),
    ],
)
def test_odd_videos_give_a_result(jcdnet, tmp_path: Path, name: str, frames: list[np.ndarray]) -> None:
    video = encode(tmp_path / name, frames)
    code, _, said = jcdnet("run", video, "-o", tmp_path / "out")
    assert code == 0, said
    document = json.loads((tmp_path / "out" / name).with_suffix(".json").read_text())
    assert document["media"]["height"] == frames[0].shape[0]
    assert ("its last frame was repeated" in said) == (len(frames) < 16)


USAGE = {
    "unknown class": (("--classes", "golf drivin"), "did you mean 'golf driving'"),
    "unknown model": (("--model", "thumos99"), "unknown model 'thumos99'"),
    "model's folder misspelt": (("--model", "nowhere/tricks"), "the folder nowhere is not there, either."),
    "unknown format": (("-f", "xml"), "unknown format 'xml'"),
    "two formats on stdout": (("-o", "-", "-f", "json,csv"), "stdout takes one format"),
    "unknown flow": (("--streams", "both", "--flow", "magic"), "no flow backend 'magic'"),
    "unknown device": (("--device", "toaster"), "unknown device"),
    "end before start": (("--start", "5", "--end", "2"), "--end (2) must be later"),
    "unknown rule": (("--rule", "guess"), "rule must be one of"),
    "unknown streams": (("--streams", "audio"), "streams must be one of"),
    "threshold": (("--threshold", "7"), "threshold must lie between 0 and 1"),
    "no config": (("--config", "no.toml"), "no.toml: cannot be read"),
}


@needs_weights
@pytest.mark.parametrize("kind", USAGE)
def test_wrong_usage_is_one_sentence_and_exit_2(jcdnet, clip: Path, tmp_path: Path, kind: str) -> None:
    flags, cause = USAGE[kind]
    code, _, said = jcdnet("run", clip, "-o", tmp_path / "out", *flags)
    assert code == 2
    assert cause in one_sentence(said)
    assert not (tmp_path / "out" / "clip.json").exists()


def test_wrong_checkpoint(jcdnet, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    code, _, said = jcdnet("run", clip, "--model", tmp_path / "model.safetensors")
    assert code == 2
    assert "model.safetensors" in one_sentence(said)
    (tmp_path / "old.pth").write_bytes(b"\x80\x04.")
    code, _, said = jcdnet("run", clip, "--model", tmp_path / "old.pth")
    assert code == 2
    assert "old.pth" in one_sentence(said)


@needs_weights
def test_unwritable_output(jcdnet, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, said = jcdnet("run", clip, "-o", tmp_path / "file")
    assert code == 2
    assert "choose another folder" in one_sentence(said)


def test_missing_weights_are_exit_4(jcdnet, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: None)
    code, _, said = jcdnet("run", clip)
    assert code == 4
    assert "models fetch i3d-rgb" in one_sentence(said)
    monkeypatch.setenv("JCDNET_OFFLINE", "1")
    monkeypatch.setattr("pipeline.machine.weights.find", lambda name: None)
    code, _, said = jcdnet("models", "fetch", "i3d-flow")
    assert code == 4
    assert "JCDNET_OFFLINE" in one_sentence(said)


def test_no_gpu_is_exit_4(jcdnet, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, said = jcdnet("run", clip, "--device", "cuda")
    assert code == 4
    assert "no cuda device" in one_sentence(said)


def test_a_bug_is_exit_1_and_says_so(jcdnet, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.videos.find_videos", lambda paths: 1 / 0)
    code, _, said = jcdnet("run", clip)
    assert code == 1
    assert "a bug in jcdnet: ZeroDivisionError" in one_sentence(said)
    monkeypatch.setattr(sys, "argv", ["jcdnet", "--debug", "run", str(clip)])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@needs_weights
def test_config_file_and_flags(jcdnet, clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text('classes = "all"\n[localize]\nthreshold = 0.2\nmin_snippets = 3\n')
    jcdnet("run", clip, "-o", tmp_path / "out", "--config", config, "--threshold", "0.4")
    localize = json.loads((tmp_path / "out" / "clip.json").read_text())["provenance"]["localize"]
    assert (localize["threshold"], localize["min_snippets"]) == (0.4, 3)
    config.write_text("[localize]\ntreshold = 0.2\n")
    code, _, said = jcdnet("run", clip, "--config", config)
    assert code == 2
    assert "did you mean localize.threshold" in one_sentence(said)


@needs_weights
def test_extract_writes_features(jcdnet, clip: Path, tmp_path: Path) -> None:
    code, printed, said = jcdnet("extract", clip, "-o", tmp_path / "features", "--streams", "rgb")
    assert code == 0, said
    assert printed == f"{tmp_path / 'features' / 'clip.npz'}\t1 snippets\n"
    with np.load(tmp_path / "features" / "clip.npz", allow_pickle=False) as archive:
        assert archive["rgb"].shape == (1, 1024)
        assert json.loads(str(archive["settings"]))["settings"]["rgb"]["stride"] == 16


@needs_weights
def test_models_and_doctor(jcdnet) -> None:
    code, printed, _ = jcdnet("models")
    assert code == 0
    assert "kinetics400" in printed
    code, printed, _ = jcdnet("models", "classes")
    assert "golf driving\tgolf" in printed.splitlines()
    assert len(printed.splitlines()) == 400
    code, printed, _ = jcdnet("doctor")
    assert code == 0
    assert "TV-L1" in printed


def test_version_and_help_in_a_terminal() -> None:
    def terminal(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "cli.py", *arguments], cwd=ROOT, capture_output=True, text=True)

    assert terminal("--version").stdout == f"{VERSION}\n"
    helped = terminal("run", "--help")
    assert helped.returncode == 0
    assert "--min-confidence" in helped.stdout
    assert terminal("run").returncode == 2
    assert terminal("--show-completion", "bash").returncode == 2  # it would complete the word python


def test_commands_that_are_imported_late_are_listed_completed_and_suggested(jcdnet) -> None:
    code, printed, _ = jcdnet("--help")
    short = {found[1]: found[2] for found in re.finditer(r"^│ ([a-z]+) +(\S.*?) +│$", printed, re.MULTILINE)}
    assert code == 0 and set(short) == {*cli.PANEL_OF} and short["doctor"].startswith("Say what this machine has")
    group: Any = typer.main.get_command(cli.app)
    with group.make_context("jcdnet", [], resilient_parsing=True) as context:
        assert [item.value for item in group.shell_complete(context, "r")] == ["run", "report"]
        inner = group.get_command(context, "labels")
        with inner.make_context("labels", [], parent=context, resilient_parsing=True) as below:
            assert [item.value for item in inner.shell_complete(below, "")] == ["propose", "import"]
    code, _, said = jcdnet("rnu", "match.mp4")
    assert code == 2 and "No such command 'rnu'. Did you mean 'run'?" in said


# --- train ---


def footage_of_two_kinds(folder: Path) -> Path:
    """Six videos of one snippet: numbered cells, noise, and their mixture in grey; labels.csv beside them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for v, labels in enumerate(("cells", "noise", "cells", "noise", "", "cells|noise")):
        cells = [coded(40 * v + k) for k in range(17)]
        noise = [rng.integers(0, 256, (48, 72, 3), dtype=np.uint8) for _ in range(17)]
        frames = {"cells": cells, "noise": noise, "": [image // 8 + 100 for image in cells]}
        encode(folder / f"v{v}.mp4", frames.get(labels, cells[:8] + noise[8:]))
        rows.append(f"v{v}.mp4,{labels}")
    labels_file = folder.parent / "labels.csv"
    labels_file.write_text("\n".join(["video,labels", *rows]))
    return labels_file


@needs_weights
def test_train_on_footage_and_run_the_model(jcdnet, tmp_path: Path) -> None:
    videos = tmp_path / "my videos"
    labels = footage_of_two_kinds(videos)
    out = tmp_path / "runs" / "x"
    quick = ("--steps", 4, "--dim", 8, "--folds", 0, "-o", out)
    code, printed, said = jcdnet("train", labels, "--videos", videos, *quick)
    assert code == 0, said
    assert printed == f"{out / 'model.safetensors'}\n"
    assert "6 videos, 2 classes, rgb; 4 steps, D 8" in said
    assert "--model" in said
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "training.safetensors", "log.csv", "curves.png"}

    code, printed, said = jcdnet("run", videos / "v0.mp4", "--model", out, "-o", "-")
    assert code == 0, said
    provenance = json.loads(printed)["provenance"]
    assert provenance["model"]["name"] == str(out)
    assert provenance["model"]["training"]["videos"] == 6
    assert provenance["features"]["rgb"]["stride"] == 16

    # What is there is neither extracted nor trained again, and a setting it was not made for is refused.
    before = (out / "model.safetensors").read_bytes()
    (videos / "v0.mp4").rename(videos / "kept.mp4")  # a moved video is the same video
    labels.write_text(labels.read_text().replace("v0.mp4", "kept.mp4"))
    code, _, said = jcdnet("train", labels, "--videos", videos, *quick)
    assert code == 2
    assert "belongs to another training" in one_sentence(said)
    labels.write_text(labels.read_text().replace("kept.mp4", "v0"))
    (videos / "kept.mp4").rename(videos / "v0.mp4")
    assert (out / "model.safetensors").read_bytes() == before
    code, _, said = jcdnet("run", videos / "v0.mp4", "--model", out, "--stride", 8)
    assert code == 2
    assert "stride = 16, not 8" in one_sentence(said)


@pytest.fixture
def feature_set(tmp_path: Path) -> tuple[Path, Path]:
    """(labels.csv, folder of features) of six videos, 8 wide."""
    rng = np.random.default_rng(0)
    for v in range(6):
        times = np.arange(10)[:, None] * 0.64 + [0, 0.64]
        rgb = rng.random((10, 8)).astype(np.float32)
        stored = Features(rgb, None, times, 6.4, {}, {"rgb": {"backbone": "i3d", "stride": 16}})
        save(stored, tmp_path / "features" / f"v{v}.npz")
    labels = tmp_path / "labels.csv"
    labels.write_text("video,labels\nv0,golf\nv1,ski\nv2,golf\nv3,ski\nv4,\nv5,golf|ski\n")
    return labels, tmp_path / "features"


def test_train_on_features_says_how_good_it_is(jcdnet, feature_set: tuple[Path, Path], tmp_path: Path) -> None:
    labels, features = feature_set
    out = tmp_path / "runs" / "x"
    command = ("train", labels, "--features", features, "-o", out, "--steps", 4, "--dim", 4, "--folds", 2)
    code, printed, said = jcdnet(*command)
    assert code == 0, said
    first, title, header, *rows = printed.splitlines()
    assert first == str(out / "model.safetensors")
    assert title.startswith("on held-out videos (2 folds): exactly right in ")
    assert header.split() == ["class", "videos", "found", "wrongly", "AP", "%", "drawn", "instead"]
    assert [row.split()[:2] for row in rows] == [["golf", "3"], ["ski", "3"]]
    assert "golf: 3 videos are few" in said
    assert (out / "quality.json").exists() and (out / "curves.png").exists()
    assert leftovers(out) == []
    assert [said.count(f"checking on held-out videos: fold {k} of 2 is done") for k in (1, 2)] == [1, 1]
    assert "training: 4 of 4 steps" in said and "cut to the action" not in said
    # The same again is there already.
    assert jcdnet(*command)[:2] == (0, printed)
    code, _, said = jcdnet(*command, "--seed", 1)
    assert code == 2
    assert "belongs to another training" in one_sentence(said)
    assert jcdnet(*command, "--seed", 1, "--overwrite")[0] == 0


def test_training_on_clips_cut_to_the_action_says_so(jcdnet, feature_set: tuple[Path, Path], tmp_path: Path) -> None:
    labels, features = feature_set
    for v in range(4):  # of which three show an action
        times = np.arange(3)[:, None] * 0.64 + [0, 0.64]
        rgb = np.random.default_rng(v).random((3, 8)).astype(np.float32)
        stored = Features(rgb, None, times, 1.92, {}, {"rgb": {"backbone": "i3d", "stride": 16}})
        save(stored, features / f"v{v if v < 3 else 4}.npz")
    arguments = ("--features", features, "-o", tmp_path / "x", "--steps", 1, "--dim", 4, "--folds", 0)
    code, printed, said = jcdnet("train", labels, *arguments)
    assert code == 0 and printed.strip() == str(tmp_path / "x" / "model.safetensors")
    assert "3 of 5 videos with an action are under 2.5 s, cut to the action: show what is around it" in said


TRAIN_USAGE = {
    "no labels file": (("no.csv",), "no.csv: cannot be read"),
    "no such folder": (("--features", "nowhere"), "nowhere: no such folder"),
    "both": (("--videos", "."), "--videos FOLDER, or its features with --features"),
    "preset": (("--preset", "best"), "--preset best: there are own, paper"),
    "streams": (("--streams", "audio"), "--streams audio"),
    "a stream that is not there": (("--streams", "both"), "no flow stream"),
    "split": (("--split", "val"), "no split 'val'"),
    "steps": (("--steps", "0"), "steps must be"),
    "lr": (("--lr", "0"), "lr must be above 0"),
    "an lr beyond float32": (("--lr", "1e300"), "lr must be a number from 0 to 1e+18, not 1e+300"),
    "dim": (("--dim", "0"), "dim must lie in"),
    "seed": (("--seed", "-1"), "seed must be"),
    "one fold": (("--folds", "1"), "--folds 1: give 2 to 6"),
    "too many folds": (("--folds", "9"), "--folds 9: give 2 to 6"),
    "init": (("--init", "thumos"), "the embedded model is kinetics400"),
    "device": (("--device", "toaster"), "unknown device"),
    "no config": (("--config", "no.toml"), "no.toml: cannot be read"),
    "config": (("--config", "bad.toml"), "bad.toml: Unknown training setting 'step'; did you mean steps?"),
    "output": (("-o", "labels.csv"), "a model is a folder with its training beside it; name a folder, as -o runs/NAME"),
    "stride": (("--stride", "8"), "--stride is about extraction"),
    "conjoint": (("--conjoint", "all"), "leave the labels out"),
}


@pytest.mark.parametrize("kind", TRAIN_USAGE)
def test_wrong_usage_of_train_is_one_sentence_and_exit_2(
    jcdnet, feature_set: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    flags, cause = TRAIN_USAGE[kind]
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("[training]\nstep = 3\n")
    asked = {"-o": "runs/x", "--features": "features"} | dict(zip(flags[::2], flags[1::2], strict=len(flags) > 1))
    labels = flags[0] if len(flags) == 1 else "labels.csv"
    code, printed, said = jcdnet("train", labels, *(part for pair in asked.items() for part in pair))
    assert (code, printed) == (2, "")
    assert cause in one_sentence(said)
    assert not Path("runs/x/model.safetensors").exists()


def test_all_that_is_wrong_with_labels_is_one_message(jcdnet, feature_set: tuple[Path, Path], tmp_path: Path) -> None:
    labels, features = feature_set
    labels.write_text("video,labels\nv0,golf\nv1,Golf\nv9,golf\nv0,ski\n")
    code, _, said = jcdnet("train", labels, "--features", features, "-o", tmp_path / "x")
    assert code == 2
    assert one_sentence(said) == f"error: {labels}: 3 to fix before training:"
    for cause in ("v9 is not there", "v0 comes 2 times", "'ski' has 1"):
        assert cause in said
    assert not (tmp_path / "x").exists()


# --- evaluate ---


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        ((), "give --predictions, or --model with --features"),
        (("--predictions", "p.json", "--model", "m"), "give --predictions, or --model with --features"),
        (("--model", "m"), "give --predictions, or --model with --features"),
        (("--predictions", "p.json", "--rule", "runs"), "--rule and --fps are for --model"),
        (("--predictions", "p.json"), "give the ground truth"),
        (("--model", "m", "--features", ".", "--rule", "best"), "--rule best: there are runs, paper"),
    ],
)
def test_wrong_usage_of_evaluate_is_one_sentence_and_exit_2(jcdnet, flags: tuple[str, ...], cause: str) -> None:
    code, printed, said = jcdnet("evaluate", *flags)
    assert (code, printed) == (2, "")
    assert cause in one_sentence(said)


@needs_weights
def test_a_flow_setting_without_a_flow_stream_is_refused(jcdnet, tmp_path: Path) -> None:
    code, _, said = jcdnet("run", encode(tmp_path / "a.mp4", [coded(0)]), "--flow", "opencv")
    assert code == 2
    assert "only RGB is read; use --streams both" in one_sentence(said)


def test_evaluate_draws_the_diagnosis(jcdnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    annotations = [{"label": "golf", "segment": [k, k + 0.5]} for k in range(4)]
    Path("t.json").write_text(json.dumps({"database": {"a": {"subset": "test", "annotations": annotations}}}))
    found = [{"label": "golf", "segment": [k, k + 0.4], "score": 1.0 - k / 10} for k in range(6)]
    Path("p.json").write_text(json.dumps({"results": {"a": found}}))
    command = ("evaluate", "--predictions", "p.json", "--ground-truth", "t.json")
    plain = jcdnet(*command)[1]
    code, printed, said = jcdnet(*command, "--plot", "new/what went wrong.PNG")
    assert code == 0, said
    assert printed == jcdnet(*command, "--diagnose")[1]
    assert printed.startswith(plain.rstrip()) and len(printed) > len(plain)
    Path("other.json").write_text(
        json.dumps({"results": {"a": [*found, {"label": "zumba", "segment": [9, 10], "score": 0.9}]}})
    )
    other = ("evaluate", "--predictions", "other.json", "--ground-truth", "t.json")
    code, printed, said = jcdnet(*other, "--json")
    assert code == 0 and json.loads(printed)["unannotated"] == {"zumba": 1} and "no zumba (1 prediction)" in said
    code, printed, said = jcdnet(*other, "--ignore-unknown")
    assert code == 0 and printed == plain and "no zumba (1 prediction): left out" in said
    picture = Path("new/what went wrong.PNG")
    assert picture.read_bytes().startswith(b"\x89PNG") and leftovers(Path("new")) == []
    code, printed, _ = jcdnet(*command, "--plot", picture, "--json")
    assert code == 0 and json.loads(printed)["diagnosis"]["counts"]["background"] == 2
    for name, cause in (
        ("x.pdf", "the picture is a PNG; name a .png file"),
        ("t.json/x.png", "t.json/x.png: cannot be"),
    ):
        code, printed, said = jcdnet(*command, "--plot", name)
        # The numbers do not wait for their picture.
        assert (code, printed) == (2, "" if name == "x.pdf" else jcdnet(*command, "--diagnose")[1])
        assert cause in one_sentence(said)
    Path("folder.png").mkdir()
    code, _, said = jcdnet(*command, "--plot", "folder.png")
    assert code == 2
    assert "folder.png: cannot be written" in one_sentence(said)


def test_whoever_reads_the_output_may_go_and_a_full_disk_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        json.dumps({"database": {"a": {"annotations": [{"label": "golf", "segment": [0, 1]}]}}})
    )
    (tmp_path / "p.json").write_text(json.dumps({"results": {"a": []}}))
    words = [
        "cli.py",
        "evaluate",
        "--predictions",
        tmp_path / "p.json",
        "--ground-truth",
        tmp_path / "t.json",
        "--json",
    ]
    command = [sys.executable, *map(str, words)]
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
        assert ended.returncode == 4
        assert "the disk that the output goes to is full; make room" in one_sentence(ended.stderr)
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert ended.returncode == 141, ended.stderr


def test_labels_propose_knows_before_the_work_whether_it_can_write(jcdnet, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, cause in ((tmp_path / "file" / "x.csv", "cannot be written"), (tmp_path, "is a folder")):
        code, printed, said = jcdnet("labels", "propose", clip.parent, "-o", output, "--overwrite")
        assert (code, printed) == (2, "")
        assert cause in one_sentence(said)


def test_one_training_at_a_time_in_a_folder(jcdnet, feature_set: tuple[Path, Path], tmp_path: Path) -> None:
    labels, features = feature_set
    out = tmp_path / "x"
    command = ("train", labels, "--features", features, "-o", out, "--steps", 2, "--dim", 4, "--folds", 0)
    with training.exclusive(out):
        code, _, said = jcdnet(*command)
    assert code == 2
    assert "another training is at work there" in one_sentence(said)
    assert not (out / "model.safetensors").exists()
    assert jcdnet(*command)[0] == 0
    dead = subprocess.run([sys.executable, "-c", DIES, str(out)], cwd=ROOT)
    assert dead.returncode == 9 and (out / training.LOCK_NAME).exists()
    assert jcdnet(*command)[0] == 0
    assert not (out / training.LOCK_NAME).exists()


DIES = """
import os, sys
from pathlib import Path
from pipeline.training import fit as training
with training.exclusive(Path(sys.argv[1])):
    os._exit(9)
"""


def test_help_names_the_tables_of_a_settings_file(jcdnet) -> None:
    assert "training.loss" in jcdnet("train", "--help")[1]


# --- what -o names ---


@needs_weights
def test_a_file_after_o_is_that_file(jcdnet, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    code, _, said = jcdnet("run", clip, "-o", out / "my file.json", "--classes", "all")
    assert code == 0 and f"the result is in {out / 'my file.json'}" in said
    assert {p.name for p in out.iterdir()} == {"my file.json", "my file.scores.npz"}
    assert json.loads((out / "my file.json").read_text())["video"] == str(clip)
    assert "kept from before" in jcdnet("run", clip, "-o", out / "my file.json", "--classes", "all")[1]
    code, _, said = jcdnet("run", clip, "-o", out / "my file.json")
    assert code == 3 and "classes all, now sports" in one_sentence(said)
    code, _, said = jcdnet("clips", out / "my file.json", "-o", tmp_path / "clips")
    assert code == 0
    for name in ("a.csv", "a.activitynet.json", "a.html", "a.eaf"):
        assert jcdnet("run", clip, "-o", tmp_path / "alone" / name)[0] == 0
    assert {p.name for p in (tmp_path / "alone").iterdir()} == {"a.csv", "a.activitynet.json", "a.html", "a.eaf"}
    assert "results" in json.loads((tmp_path / "alone" / "a.activitynet.json").read_text())
    (tmp_path / "alone" / "a.csv").write_text("mine")
    code, _, said = jcdnet("run", clip, "-o", tmp_path / "alone" / "a.csv")
    assert code == 2 and "a.csv: is there already; use --overwrite" in one_sentence(said)
    assert jcdnet("run", clip, "-o", tmp_path / "alone" / "a.csv", "-f", "csv", "--overwrite")[0] == 0
    assert (tmp_path / "alone" / "a.csv").read_text().startswith("video,start")
    code, printed, _ = jcdnet("extract", clip, "-o", tmp_path / "alone" / "b.npz", "--streams", "rgb")
    assert code == 0 and printed == f"{tmp_path / 'alone' / 'b.npz'}\t1 snippets\n"
    assert not (tmp_path / "alone" / "_run.json").exists()
    code, printed, _ = jcdnet("report", out / "my file.json", "-o", tmp_path / "pages" / "one.html")
    assert code == 0 and printed == f"{tmp_path / 'pages' / 'one.html'}\n" and Path(printed.strip()).is_file()


@needs_weights
@pytest.mark.parametrize(
    ("command", "output", "cause"),
    [
        ("run {} {}", "r/x.json", "is one file, and there are 2 videos; name a folder, or take -o - -f json for all"),
        ("run {} {}", "x.srt", "is one file, and there are 2 videos; name a folder."),
        ("run {} -f csv", "x.json", "is a file of the format json, and --format asks for csv"),
        ("run {}", "x.mp4", "no result is such a file; name a folder, or a file that ends in .json, .jsonl, .csv"),
        ("run {}", "x.txt", "no result is such a file"),
        ("run {}", "x.JSON", "write the ending as .json"),
        ("run {}", ".activitynet.json", "is an ending without a name"),
        ("run {} --retry-failed", "x.json", "name its folder with -o"),
        ("extract {} {}", "x.npz", "is one file, and there are 2 videos; name a folder"),
        ("extract {}", "x.json", "features are written as .npz files; name a folder, as -o features"),
        ("clips {}", "x.mp4", "clips are files of their own; name a folder, as -o clips"),
        ("report .", "x.html", "several are made of a folder; name a folder, or one result"),
        ("report {}", "x.pdf", "pages are .html files; name a folder, as -o pages"),
        ("train labels.csv", "x.safetensors", "a model is a folder"),
        ("labels propose .", "x.json", "what is written is a CSV; name a .csv file"),
        ("labels import {} --from elan", "x.xlsx", "what is written is a CSV; name a .csv file"),
    ],
)
def test_a_file_after_o_where_it_cannot_be_one(
    jcdnet, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str, cause: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip2.mp4").write_bytes(clip.read_bytes())
    document = {"schema": 1, "video": "clip.mp4", "duration": 1.0, "media": {}, "partial": False}
    Path("a.json").write_text(json.dumps(document | {"warnings": [], "segments": [], "provenance": {}}))
    words = command.format(*("clip.mp4", "clip2.mp4")[: command.count("{}")]).split()
    if words[0] in ("clips", "report", "labels"):
        words = ["a.json" if word == "clip.mp4" else word for word in words]
    code, _, said = jcdnet(*words, "-o", output)
    assert code == 2 and cause in one_sentence(said)
    assert not Path(output).exists()


@needs_weights
def test_a_folder_may_be_called_like_a_file(jcdnet, clip: Path, tmp_path: Path) -> None:
    """Where it is there, or the slash says so."""
    (tmp_path / "old.json").mkdir()
    for output, folder in (
        (tmp_path / "old.json", "old.json"),
        (f"{tmp_path}/new.csv/", "new.csv"),
        (tmp_path / "v1.2", "v1.2"),
    ):
        assert jcdnet("run", clip, "-o", output)[0] == 0
        assert (tmp_path / folder / "clip.json").is_file()

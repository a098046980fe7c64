"""Many videos that fail for one reason are one sentence, with their number and their names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import coded, encode

from commands.refused import Refused
from pipeline.run.videos import Job
from support.errors import OutputError

Run = Callable[..., tuple[int, str, str]]
SETTINGS = ("--config", "small.toml")
NAMES = [f"{k:02}" for k in range(12)]


@pytest.fixture(autouse=True)
def folder(mean_colours: Path) -> Path:
    """footage/ with twelve videos of which eleven cannot be read; the working directory."""
    (mean_colours / "small.toml").write_text('[features]\ncrop = 32\nshort_side = 48\nprecision = "float32"\n')
    return mean_colours


def test_features_of_other_settings_are_one_sentence(jcdnet: Run) -> None:
    for k, name in enumerate(NAMES):
        encode(Path("footage") / f"{name}.mp4", [coded(40 * k + i) for i in range(17)])
    extract = ("extract", "footage", "-o", "features", *SETTINGS)
    assert jcdnet(*extract)[0] == 0
    code, _, said = jcdnet(*extract, "--stride", 8)
    assert code == 3 and said.count("holds features made with other settings") == 1
    assert "error: each of 12 files, features/00.npz, features/01.npz and 10 more: holds features made with" in said
    assert "All their names are in features/_run.json." in said
    rows = json.loads(Path("features/_run.json").read_text())["videos"]
    assert [row["name"] for row in rows if row["status"] == "failed" and "other settings" in row["error"]] == NAMES
    # A plan has no report, so it says all names; so does a run without a folder.
    code, _, said = jcdnet(*extract, "--stride", 8, "--dry-run")
    assert code == 3 and said.count("holds features made with other settings") == 1 and "_run.json" not in said
    assert all(f"features/{name}.npz" in said for name in NAMES)
    # --debug shows every traceback, and so every error.
    code, _, said = jcdnet("--debug", *extract, "--stride", 8)
    assert said.count("error: features/") == 12


def test_videos_among_good_ones(jcdnet: Run) -> None:
    encode(Path("footage/03.mp4"), [coded(i) for i in range(17)])
    for name in NAMES:
        if name != "03":
            (Path("footage") / f"{name}.mp4").write_bytes(bytes(range(256)) * (3 + int(name)))
    code, _, said = jcdnet("extract", "footage", "-o", "features", *SETTINGS)
    assert code == 3
    bad = [line for line in said.splitlines() if "not a video that FFmpeg can open" in line]
    assert any("11 videos, footage/00.mp4, footage/01.mp4 and 9 more: not a video" in line for line in bad), said
    assert len(bad) <= 2  # what is known before the good one, and all of them
    assert "1 of 12 videos are done" in said


def test_a_reason_is_said_when_another_video_is_worked_on(capsys: pytest.CaptureFixture[str]) -> None:
    """So a mistake is known at once, also where the rest takes all night."""

    def refuse(refused: Refused, *names: str) -> None:
        for name in names:
            refused.add(Job(Path(f"in/{name}.mp4"), Path(name)), OutputError(f"out/{name}.json: is there already."))

    refused = Refused(Path("out/_run.json"))
    refuse(refused, "a")
    assert refused.waits and capsys.readouterr().err == ""
    refused.say()
    assert not refused.waits and capsys.readouterr().err == "error: out/a.json: is there already.\n"
    refuse(refused, "b")
    refused.say()
    assert capsys.readouterr().err == ""
    refused.add(Job(Path("in/c.mp4"), Path("c")), OutputError("in/c.mp4: holds no frame."))
    refused.end(again=False)
    assert capsys.readouterr().err == (
        "error: each of 2 files, out/a.json and out/b.json: is there already.\nerror: in/c.mp4: holds no frame.\n"
    )
    refused.end(again=True)
    assert capsys.readouterr().err.splitlines()[1] == "failed: in/c.mp4: holds no frame."

"""`train --times` and `train --more` as a person types them."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import one_sentence

from extractors.features import Features, save

TIMES = """\
video,start,end,label,complete
v0,1,4,golf,yes
v1,2,5,ski,
v2,3,,golf,
v4,,,,yes
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with labels.csv, times.csv and features/ of six videos of 6.4 s."""
    rng = np.random.default_rng(0)
    for v in range(6):
        times = np.arange(10)[:, None] * 0.64 + [0, 0.64]
        about = {"rgb": {"backbone": "i3d", "stride": 16}}
        save(
            Features(rng.random((10, 8)).astype(np.float32), None, times, 6.4, {}, about),
            tmp_path / f"features/v{v}.npz",
        )
    (tmp_path / "labels.csv").write_text("video,labels\nv0,golf\nv1,ski\nv2,golf\nv3,ski\nv4,\nv5,golf|ski\n")
    (tmp_path / "times.csv").write_text(TIMES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*more: object) -> tuple[object, ...]:
    return ("train", "labels.csv", "--features", "features", "--times", "times.csv", "--steps", 4, "--folds", 2, *more)


def test_what_was_found_is_said_and_trained_on_with_more(jcdnet, work: Path) -> None:
    code, printed, said = jcdnet(*command("-o", "runs/x", "--dim", 4))
    assert code == 0, said
    first, golf, ski, mean_ap, *_ = printed.splitlines()
    assert first == "runs/x/model.safetensors"
    assert golf.startswith("golf: found ") and " of 2, " in golf and ski.startswith("ski: found ")
    assert mean_ap.startswith("mAP in 2 complete videos, by tIoU: ") and mean_ap.count(" at 0.") == 3
    assert json.loads(Path("runs/x/quality.json").read_text())["times"]["complete"] == 2
    assert Path("runs/x/quality.png").exists()

    code, _, said = jcdnet(*command("-o", "runs/y", "--more", "runs/x"))
    assert code == 0, said
    assert "4 steps, D 4" in said
    code, _, said = jcdnet(*command("-o", "runs/x", "--more", "runs/x"))
    assert code == 2 and "is --out, too; name another folder" in one_sentence(said)
    code, _, said = jcdnet(*command("-o", "runs/z", "--more", "runs/x", "--preset", "paper"))
    assert code == 2 and "leave out --init, --preset and --dim" in one_sentence(said)
    code, _, said = jcdnet(*command("-o", "runs/z", "--more", "runs/nothing"))
    assert code == 2 and "runs/nothing" in one_sentence(said)


def test_everything_wrong_with_times_is_one_message(jcdnet, work: Path) -> None:
    wrong = (
        "v0,9,3,golf,\nv1,2,60,ski,\nv7,1,2,golf,\nv3,1,4,ski,\nv3,3,5,ski,\nv5,,,,yes\nv2,4,,golf,yes\nv2,x,5,golf,\n"
    )
    Path("times.csv").write_text(TIMES.splitlines()[0] + "\n" + wrong)
    code, printed, said = jcdnet(*command("-o", "runs/x"))
    assert (code, printed) == (2, "")
    assert one_sentence(said) == "error: labels.csv: 7 to fix before training:"
    for cause in (
        "line 2: ends at 3 s, before it starts",
        "line 3: 2 to 60 s reaches beyond the video",
        "line 4: v7 is not there",
        "line 5 and line 6: two marks",
        "line 7: v5 is complete without any golf or ski",
        "line 8: v2 is complete, but of 1 of its 1 actions only a point is marked",
        "line 9: start is 'x'",
    ):
        assert f"times.csv {cause}" in said, (cause, said)
    assert not Path("runs").exists()


def test_a_table_about_times_needs_times(jcdnet, work: Path) -> None:
    Path("some.toml").write_text("[training.times]\nsnippet = 2\n")
    code, _, said = jcdnet(*command("-o", "runs/x", "--config", "some.toml", "--dim", 4))
    assert code == 0, said
    asked = ("train", "labels.csv", "--features", "features", "-o", "runs/y", "--config", "some.toml")
    code, _, said = jcdnet(*asked)
    assert code == 2 and "give them with --times" in one_sentence(said)
    Path("some.toml").write_text("[training.times]\nsnipet = 2\n")
    code, _, said = jcdnet(*command("-o", "runs/z", "--config", "some.toml"))
    assert code == 2 and "did you mean snippet?" in one_sentence(said)

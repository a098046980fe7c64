"""What was made here from other videos is left out of a folder; a stranger's file never is."""

import json
from pathlib import Path

import pytest
from conftest import coded, encode

from pipeline.clips import cut as clips
from pipeline.clips.made import LIST, made_here, remember
from pipeline.run.videos import find_videos, left_out
from postprocess.segment import Segment
from support.errors import UsageError


def names(*paths: object) -> list[str]:
    return [Path(str(job.video)).name for job in find_videos(list(map(str, paths)))]


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """footage/: a video, and clips of it in clips/."""
    folder = tmp_path / "footage"
    folder.mkdir()
    video = encode(folder / "match.mp4", [coded(k) for k in range(50)])
    segments = [Segment(0.2, 0.8, 1, 0.9, "serve"), Segment(1, 1.6, 1, 0.9, "net")]
    cuts = clips.plan(video, "match", segments, 2.0)
    assert len(list(clips.cut(cuts, folder / "clips"))) == len(list(clips.reels(cuts, folder / "clips"))) == 2
    assert len(list(clips.copy(cuts[:1], folder / "clips" / "copies"))) == 1
    return folder


def test_clips_and_reels_are_left_out_of_a_folder_and_taken_by_name(footage: Path) -> None:
    assert names(footage) == names(footage / "**" / "*.mp4") == ["match.mp4"]
    (said,) = left_out([str(footage)])
    assert said.startswith(f"{footage}: left out 5 videos, such as {footage}/clips/copies/match_001_serve.mp4, that ")
    assert "a file that you name itself is always taken" in said and "\n" not in said
    clip = footage / "clips" / "match_001_serve.mp4"
    assert names(clip, footage) == ["match_001_serve.mp4", "match.mp4"] and left_out([str(clip)]) == []
    # Where nothing else is meant, they are taken.
    assert len(names(footage / "clips")) == len(names(footage / "clips" / "**" / "*")) == 5
    assert "it is taken, since nothing else is named" in left_out([str(footage / "clips")])[0]
    (footage / "results").mkdir()
    (footage / "results" / "match.scores.npz").touch()
    with pytest.raises(UsageError, match="results: holds results and no video; name the folder of the videos"):
        find_videos([str(footage / "results")])
    both = [str(footage / "match.mp4"), str(footage / "clips")]
    assert names(*both) == ["match.mp4"] and "left out 5 videos" in left_out(both)[0]
    # A folder that moved keeps its list.
    (footage / "clips").rename(footage / "old")
    assert names(footage) == ["match.mp4"]


def test_a_strangers_file_is_never_left_out(footage: Path) -> None:
    clip = footage / "clips" / "net.mp4"
    with clip.open("ab") as file:  # somebody changed it: it is theirs now
        file.write(b"\0" * 16)
    for name in (
        "day.overlay.mp4",
        "day.proxy.mp4",
    ):  # called as ours, and with pages and JSON of a stranger beside them
        (footage / name).touch()
    (footage / "day.json").write_text("{}")
    (footage / "day.html").write_text("<html>jcdnet day.proxy.mp4</html>")
    assert set(names(footage)) == {"match.mp4", "net.mp4", "day.overlay.mp4", "day.proxy.mp4"}
    for damaged in ("", "{", "[]", '{"made": 3}', '{"made": {"net.mp4": "x"}}', '{"made": null}'):
        (footage / "clips" / LIST).write_text(damaged)
        assert len(names(footage)) == 7


def test_the_list_forgets_what_is_gone_and_earlier_versions_wrote_none(footage: Path, tmp_path: Path) -> None:
    one, other = footage / "clips" / "net.mp4", footage / "clips" / "serve.mp4"
    one.unlink()
    other.write_bytes(b"another")
    remember([other])
    listed = json.loads((footage / "clips" / LIST).read_text())["made"]
    assert "net.mp4" not in listed and listed["serve.mp4"] == 7 and made_here([other]) == {other}
    # Earlier versions: an overlay beside the curves of its result, a proxy beside these or its page.
    old = tmp_path / "old"
    old.mkdir()
    for name in ("a.overlay.mp4", "a.proxy.mp4", "a.scores.npz", "b.proxy.mp4", "b.overlay.mp4"):
        (old / name).touch()
    page = Path("postprocess/pages/assets/report.html")
    (old / "b.html").write_bytes((Path(__file__).parents[3] / page).read_bytes())
    assert {path.name for path in made_here(old.glob("*.mp4"))} == {"a.overlay.mp4", "a.proxy.mp4", "b.proxy.mp4"}

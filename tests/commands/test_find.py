"""`find` as a user runs it: examples as they are typed, results like any other, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode

from extractors.features import Features, save
from pipeline.query import Example, read_example, snippets_of
from support.errors import UsageError

Run = Callable[..., tuple[int, str, str]]
RED, GREEN, GREY = (220, 30, 30), (30, 200, 30), (120, 120, 120)


@pytest.fixture(autouse=True)
def folder(mean_colours: Path) -> Path:
    """footage/: three videos of 11 snippets, red where it counts, green and grey elsewhere; the working directory."""
    scenes = {"a": "..RRRR..GGG", "b": "GGG...RRRR.", "c": "..GGGG....."}
    for k, (name, scene) in enumerate(scenes.items()):
        frames = [
            np.clip(np.full((48, 72, 3), {"R": RED, "G": GREEN, ".": GREY}[kind]) + 3 * ((j + k) % 5), 0, 255)
            for j, kind in enumerate(scene)
            for _ in range(16)
        ]
        encode(mean_colours / "footage" / f"{name}.mp4", [frame.astype(np.uint8) for frame in frames])
    (mean_colours / "small.toml").write_text('[features]\ncrop = 32\nshort_side = 48\nprecision = "float32"\n')
    return mean_colours


FIND = ("find", "footage", "--config", "small.toml")


RED_IN = {"a": [(1.28, 3.84)], "b": [(3.84, 6.4)], "c": []}


def check(name: str, folder: str = "found") -> None:
    """What was found is where the video is red, give or take a snippet."""
    document = json.loads((Path(folder) / f"{name}.json").read_text())
    found = [(s["start"], s["end"]) for s in document["segments"]]
    assert len(found) == len(RED_IN[name])
    for one, other in zip(found, RED_IN[name], strict=True):
        assert one == pytest.approx(other, abs=0.65)


def test_more_like_this_and_everything_that_works_on_results(jcdnet: Run) -> None:
    code, printed, said = jcdnet(*FIND, "--like", "footage/a.mp4@1.3-3.8", "-o", "found", "-f", "json,html,edl")
    assert code == 0, said
    for name in RED_IN:
        check(name)
    assert [line.split(maxsplit=4)[4].strip() for line in printed.splitlines()[1:]] == [
        "footage/b.mp4",
        "footage/a.mp4 (the example itself)",
    ]
    assert said.count("note: only 21 s of video are searched") == 1 and "none is sure" in said
    assert "1 match beside the example in 1 of 3 videos, 0:0" in said
    document = json.loads(Path("found/b.json").read_text())
    assert document["segments"][0]["label"] == "like a.mp4@1.3" and document["provenance"]["model"]["name"] == "find"
    assert "to look at the results, open found/index.html in a browser" in said
    assert Path("found/index.html").exists() and "like a.mp4@1.3" in Path("found/b.html").read_text()
    assert jcdnet("report", "found", "-o", "pages")[0] == 0
    code, printed, _ = jcdnet("clips", "found", "-o", "clips")
    assert code == 0 and [Path(line).name for line in printed.splitlines()] == [
        "a_001_like a.mp4@1.3.mp4",
        "b_001_like a.mp4@1.3.mp4",
    ]
    assert jcdnet("export", "found/b.json", "-f", "sportscode")[0] == 0
    code, printed, _ = jcdnet("labels", "import", "found/b.sportscode.xml", "--from", "sportscode")
    assert code == 0 and printed == "video,labels\nb,like a.mp4@1.3\n"
    # The same again is kept; another example needs a word, another threshold does not.
    assert "there before" in jcdnet(*FIND, "--like", "footage/a.mp4@1.3-3.8", "-o", "found")[2]
    code, printed, said = jcdnet(*FIND, "--like", "footage/c.mp4@1.3-3.8", "-o", "found")
    assert code == 3 and said.count("was made from another file, model or settings (--like") == 1 and printed == ""
    assert "(--like a.mp4@1.3-3.8, now c.mp4@1.3-3.8; --name" in said and "each of 3 files, " in said
    code, _, said = jcdnet(*FIND, "--like", "footage/a.mp4@1.3-3.8", "-o", "found", "--threshold", "0.99999")
    assert code == 0 and said.count("made anew, as other segments are asked for") == 1


def test_matches_that_are_too_short_are_counted(jcdnet: Run) -> None:
    code, printed, said = jcdnet(*FIND, "--like", "footage/a.mp4@1.3-3.8", "--min-length", "0:05")
    assert code == 0 and printed == "nothing like it was found; a lower --threshold finds more\n"
    assert "note: footage/b.mp4: 1 segment shorter than 5 s is left out (--min-length)." in said


def test_several_examples_counter_examples_and_a_name(jcdnet: Run) -> None:
    code, printed, said = jcdnet(
        *FIND, "--like", "footage/a.mp4@0:01.3-0:03.8", "--like", "footage/b.mp4@3.9-6.3", "--not",
        "footage/c.mp4@1.3-3.8", "--name", "try", "-o", "-",
    )  # fmt: skip
    assert code == 0, said
    found = [json.loads(line) for line in printed.splitlines()]
    assert {s["label"] for document in found for s in document["segments"]} == {"try"}
    assert [len(document["segments"]) for document in found] == [1, 1, 0]


def test_a_name_in_the_folder_is_enough_and_a_mistake_is_said_before_the_work(jcdnet: Run, folder: Path) -> None:
    code, printed, said = jcdnet(*FIND, "--like", "a.mp4@1.3-3.8")
    assert code == 0 and "footage/b.mp4" in printed, said
    (folder / "footage" / "more").mkdir()
    (folder / "footage" / "a.mp4").rename(folder / "footage" / "more" / "b.mp4")
    code, _, said = jcdnet(*FIND, "--like", "b.mp4@1.3-3.8")
    assert code == 2 and "b.mp4: may be footage/b.mp4 or footage/more/b.mp4; give its path" in said
    for path in (folder / "cache" / "features").rglob("*.npz"):
        path.unlink()
    assert jcdnet(*FIND, "--like", "footage/b.mp4@20-30")[0] == 2
    assert len(list((folder / "cache" / "features").rglob("*.npz"))) == 1  # of the example's video alone


def test_an_example_from_elsewhere_and_a_folder_that_grows(jcdnet: Run, folder: Path) -> None:
    (folder / "footage" / "a.mp4").rename(folder / "a@home.mp4")
    like = ("--like", "a@home.mp4@1.3-3.8")
    assert jcdnet(*FIND, *like, "-o", "found")[0] == 0
    assert not Path("found/a@home.json").exists()
    check("b")
    encode(folder / "footage" / "d.mp4", [coded(k) for k in range(40)])
    code, _, said = jcdnet(*FIND, *like, "-o", "found")
    assert code == 0 and "found/b.json: is made anew: it was compared with other videos of its folder" in said


def test_features_of_extract_and_features_of_other_settings(jcdnet: Run, folder: Path) -> None:
    assert jcdnet("extract", "footage", "-o", "features", "--config", "small.toml")[0] == 0
    like = ("--like", "footage/a.mp4@1.3-3.8", "--config", "small.toml")
    code, printed, said = jcdnet("find", "features", *like)
    assert code == 0 and "footage/b.mp4" in printed, said
    rgb, times = np.ones((3, 1024), np.float32), np.arange(3)[:, None] * 0.16 + np.array([0, 0.16])
    (folder / "other").mkdir()
    settings = json.loads(json.dumps({"rgb": {"stride": 4, "fps": 25.0}}))
    save(Features(rgb, None, times, 0.48, {}, settings), folder / "other" / "x.npz", {"video": "x.mp4"})
    code, _, said = jcdnet("find", "other", "features", *like)
    assert code == 2 and "other/x.npz: its rgb features were made with" in said


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ((), 2, "say what is meant by an example: --like VIDEO@START-END"),
        (("--like", "footage/a.mp4@2-1"), 2, "ends before it starts"),
        (("--like", "footage/a.mp4@soon"), 2, "Write VIDEO@START-END, such as match.mp4@12.3-14.8"),
        (("--like", "footage/a.mp4@1:30-1:40"), 2, "a.mp4@90-100: the video ends at 7.04 s"),
        (("--like", "footage/a.mp4@0:30"), 2, "a.mp4@30: the video ends at 7.04 s"),
        (("--like", "footage/aa.mp4@1-2"), 2, "footage/aa.mp4: no such file; check the path"),
        (("--like", "aa.mp4@1-2"), 2, "aa.mp4: no such file; is footage/a.mp4 meant?"),
        (("--like", "footage/a.mp4@1-2", "-o", "x.json"), 2, "name a folder"),
        (("--like", "footage/a.mp4@1-2", "-f", "csv"), 2, "name a folder with -o"),
        (("--like", "footage/a.mp4@1-2", "-o", "-", "-f", "csv"), 2, "stdout takes JSON"),
        (("--like", "footage/a.mp4@1-2", "-o", "x", "-f", "avi"), 2, "unknown format 'avi'"),
        (("--like", "footage/a.mp4@1-2", "--threshold", "2"), 2, "--threshold must lie between 0 and 1"),
    ],
)
def test_what_is_refused(jcdnet: Run, given: tuple[str, ...], code: int, says: str) -> None:
    found, _, said = jcdnet(*FIND, *given)
    assert found == code and says in said and "Traceback" not in said


def test_examples_as_they_are_typed(tmp_path: Path) -> None:
    (tmp_path / "me@home.mp4").touch()
    whole = read_example("--like", str(tmp_path / "me@home.mp4"))
    assert whole == Example(tmp_path / "me@home.mp4") and whole.label == "like me@home.mp4"
    named = read_example("--like", "x/match.mp4@1:02:03.5-1:02:05")
    assert (named.start, named.end, named.label) == (3723.5, 3725, "like match.mp4@3723.5")
    assert read_example("--like", "match.mp4@12.3").label == "like match.mp4@12.3"
    dashed = read_example("--like", "day-1.mp4@12.3-14.8")
    assert dashed.label == "like day-1.mp4@12.3" and dashed.text == "day-1.mp4@12.3-14.8"
    assert read_example("--like", "day-1.mp4").label == "like day-1.mp4"


def test_the_snippets_of_an_example() -> None:
    times = np.arange(8)[:, None] * 0.64 + np.array([0.0, 0.64])
    features = Features(np.zeros((8, 4), np.float32), None, times, 5.3, {}, {})
    for start, end, expected in (
        (0.7, 2.5, [1, 2, 3]),
        (1.3, 1.3, [2]),
        (0.65, 0.9, [1]),
        (5.2, 5.3, [7]),
        (0, 9, list(range(8))),
    ):
        assert snippets_of(Example(Path("a.mp4"), start, end), features).tolist() == expected
    with pytest.raises(UsageError, match=r"the video ends at 5\.30 s"):
        snippets_of(Example(Path("a.mp4"), 6, 7), features)

"""Labels per video as people write them: spreadsheets' dialects, misspellings, and everything wrong said at once."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.features import Features, save
from model.datasets import DatasetError
from pipeline.training.labels import (
    LabelledVideo,
    classes_of,
    find_videos,
    in_split,
    label_problems,
    load_labels,
    one_spelling,
    other_case,
)
from pipeline.training.plan import plan
from pipeline.training.settings import Settings
from support.errors import UsageError

patient = settings(deadline=None, max_examples=50)


def rows(tmp_path: Path, text: str | bytes) -> list[tuple[str, tuple[str, ...], str]]:
    return [(row.video, row.labels, row.split) for row in read(tmp_path, text)]


def read(tmp_path: Path, text: str | bytes):
    file = tmp_path / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_labels(file)[0]


PLAIN = [("a.mp4", ("golf", "tennis"), ""), ("b.mp4", (), "")]


@pytest.mark.parametrize(
    "text",
    [
        "video,labels\na.mp4,golf|tennis\nb.mp4,\n",
        "video,labels\r\na.mp4,golf|tennis\r\nb.mp4,\r\n",
        "video,labels\ra.mp4,golf|tennis\rb.mp4,",
        "\ufeffvideo,labels\na.mp4,golf|tennis\nb.mp4,\n",
        "video;labels\na.mp4;golf|tennis\nb.mp4;\n",
        '"Video" , "Labels"\n a.mp4 , golf | tennis |golf\n\nb.mp4,|\n,\n   \n',
        "labels,note,video\ngolf|tennis,x,a.mp4\n,,b.mp4\n",
        "video,labels,\na.mp4,golf|tennis,\nb.mp4,,\n",
        "video,labels\na.mp4,golf|tennis,,\nb.mp4\n",
        "sep=;\r\nvideo;labels\r\na.mp4;golf|tennis\r\nb.mp4;\r\n",
        '\ufeff"sep=,"\nvideo,labels\na.mp4,golf|tennis\nb.mp4,\n',
        "sep=\t\nvideo\tlabels\na.mp4\tgolf|tennis\nb.mp4\t\n",
        "video\tlabels\na.mp4\tgolf|tennis\nb.mp4\n",
        "note, of whom;video;labels\n;a.mp4;golf|tennis\n;b.mp4;\n",
        "\n \n,,\nvideo,labels\n\na.mp4,golf|tennis\n\nb.mp4,\n\x1a",
        "video\tlabels\r\na.mp4\tgolf|tennis\r\nb.mp4\t\r\n".encode("utf-16"),
        "\ufeffvideo\tlabels\na.mp4\tgolf|tennis\nb.mp4\t\n".encode("utf-16-be"),
        "video,labels\na.mp4,golf|tennis\nb.mp4,\n".encode("utf-16-le"),
        "video,labels\na.mp4,golf|tennis\nb.mp4,\n".encode("utf-16-be"),
    ],
    ids=["plain", "CRLF", "CR", "BOM", "semicolons", "blanks", "order", "nameless column", "empty cells beyond",
         "sep=;", "sep=,", "sep=tab", "tabs", "a comma before semicolons", "blank lines first", "Unicode text",
         "UTF-16 BE", "UTF-16 LE without a mark", "UTF-16 BE without a mark"],
)  # fmt: skip
def test_dialects(tmp_path: Path, text: str) -> None:
    assert rows(tmp_path, text) == PLAIN


def test_letters_of_an_older_windows_are_read_and_said(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("video;labels\r\ncaf\u00e9.mp4;\u20ac|entr\u00e9e\r\n".encode("cp1252"))
    (row,), notes = load_labels(file)
    assert (row.video, row.labels) == ("caf\u00e9.mp4", ("\u20ac", "entr\u00e9e"))
    assert notes == [
        f"{file}: is not UTF-8 and was read as Windows-1252; where letters are wrong, save it as CSV in UTF-8."
    ]
    file.write_text("video,labels\na,caf\u00e9\n", encoding="utf-8")
    assert load_labels(file)[1] == []


def test_lines_are_counted_from_the_first_of_the_file(tmp_path: Path) -> None:
    assert [row.line for row in read(tmp_path, "sep=;\n\nvideo;labels\n\na.mp4;x\nb.mp4;y\n")] == [5, 6]
    assert [row.line for row in read(tmp_path, "video,labels\r\r\ra.mp4,x\r")] == [4]


def test_names_in_quotes_and_lines(tmp_path: Path) -> None:
    text = 'video,labels,split\n"day 1/serve, slow.mp4",tennis,Train\n\n"a\nb.mp4",tennis,test\nc.mp4,x\n'
    assert [(row.video, row.line, row.split) for row in read(tmp_path, text)] == [
        ("day 1/serve, slow.mp4", 2, "train"),
        ("a\nb.mp4", 5, "test"),
        ("c.mp4", 6, ""),
    ]


def test_a_nameless_column_is_not_the_split(tmp_path: Path) -> None:
    assert rows(tmp_path, "video,labels,\na.mp4,golf,checked\n") == [("a.mp4", ("golf",), "")]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "lacks video and labels"),
        ("video,label\na.mp4,golf\n", "lacks labels; it must name the columns"),
        ("a.mp4,golf\nb.mp4,tennis\n", "lacks video and labels"),
        ("video,labels\n", "holds no video"),
        ("video,labels\n,\n\n", "holds no video"),
        (
            "video,labels\na.mp4,golf,tennis\nb.mp4,x\nmy, clip.mp4,golf\n",
            "more cells than columns in lines 2, 4; join",
        ),
        ("video,labels,Labels\na.mp4,golf,tennis\n", "names labels twice"),
        ("sep=;\nvideo;label\n", "lacks labels"),
        ('video,labels\na.mp4,golf\n"b.mp4,golf\nc.mp4,golf\n', "quote that begins in line 3 is never closed"),
        ('video,labels\na.mp4,"golf\n', "quote that begins in line 2 is never closed"),
        (b"video,labels\ncaf\x81.mp4,golf\n", "not text in UTF-8"),
        (b"video,labels\ncaf\xe9\x00.mp4,golf\n", "not text in UTF-8"),
        (b"PK\x03\x04\xff\xfe\x00", "is a spreadsheet's own file"),
        (b"\xff\xfev\xd8,\0\n\0", "not text in UTF-8"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        ('video,labels\n"a.mp4,' + "golf\n" * 40_000, "is not CSV (field larger"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, text: str | bytes, cause: str) -> None:
    with pytest.raises(DatasetError) as error:
        read(tmp_path, text)
    assert cause in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'labels.csv'}: ")
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(DatasetError, match="cannot be read"):
            load_labels(path)[0]


cells = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="|\ufeff"), min_size=1, max_size=8
)
words = cells.map(str.strip).filter(bool)
table = st.lists(
    st.tuples(words, st.lists(words, max_size=3, unique=True), st.sampled_from(["", "train", "test"])),
    min_size=1,
    max_size=6,
)


@patient
@given(
    table=table, mark=st.booleans(), separator=st.sampled_from([",", ";", "\t"]), end=st.sampled_from(["\n", "\r\n"])
)
def test_what_a_csv_writer_writes_is_read(tmp_path_factory, table, mark, separator, end) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end)
    writer.writerow(["video", "labels", "split"])
    writer.writerows([video, "|".join(labels), split] for video, labels, split in table)
    found = rows(tmp_path_factory.getbasetemp(), ("\ufeff" if mark else "") + text.getvalue())
    assert found == [(video, tuple(labels), split) for video, labels, split in table]


def test_splits(tmp_path: Path) -> None:
    def videos(text: str, split: str | None = None) -> list[str]:
        return [row.video for row in in_split(read(tmp_path, text), split, Path("x.csv"))]

    split = "video,labels,split\na,x,train\nb,x,Test\nc,x,train \nd,x,\n"
    assert videos("video,labels\na,x\nb,x\n") == ["a", "b"]
    assert videos(split) == ["a", "c"]
    assert videos(split, "TEST") == ["b"]
    with pytest.raises(DatasetError, match=r"no split 'val'; it has test, train\."):
        videos(split, "val")
    with pytest.raises(DatasetError, match=r"no split 'train'; it has none\."):
        videos("video,labels\na,x\n", "train")
    with pytest.raises(DatasetError, match=r"its splits are test, val; choose one with --split"):
        videos("video,labels,split\na,x,val\nb,x,test\n")
    kept = "video,labels,split\na,x,test\nb,x,\nc,x,\n"
    with pytest.raises(
        DatasetError, match=r"test, and 2 rows have none: write train there to train on them, or choose"
    ):
        videos(kept)


def found(tmp_path: Path, names: str, *available: str, **rest) -> tuple[dict[str, str], list[str]]:
    csv_rows = read(tmp_path, "video,labels\n" + "".join(f"{name},x\n" for name in names.split("/ ")))
    files, problems = find_videos(csv_rows, {name: Path("v") / name for name in available}, **rest)
    return {name: file.relative_to("v").as_posix() for name, file in files.items()}, problems


def test_a_row_names_a_file_by_path_name_or_stem(tmp_path: Path) -> None:
    there = ("a.mp4", "day 1/b.mov", "day 1/c.v2.mkv")
    for name, file in [
        ("a.mp4", "a.mp4"),
        ("a", "a.mp4"),
        ("./a.mp4", "a.mp4"),
        ("day 1/b.mov", "day 1/b.mov"),
        ("day 1/b", "day 1/b.mov"),
        ("b.mov", "day 1/b.mov"),
        ("b", "day 1/b.mov"),
        ("c.v2", "day 1/c.v2.mkv"),
        ("day 1\\b.mov", "day 1/b.mov"),
        (".\\a.mp4", "a.mp4"),
        ("A.MP4", "a.mp4"),
        ("day 1/B.MOV", "day 1/b.mov"),
    ]:
        assert found(tmp_path, name, *there) == ({name: file}, [])
    # A path wins over another file's name.
    assert found(tmp_path, "x.mp4", "x.mp4", "sub/x.mp4") == ({"x.mp4": "x.mp4"}, [])


@pytest.mark.parametrize(
    ("name", "there", "problem"),
    [
        ("x", ("x.mp4", "x.mov"), "line 2: x may be x.mov or x.mp4; give the path"),
        ("x.mp4", ("a/x.mp4", "b/x.mp4"), "line 2: x.mp4 may be a/x.mp4 or b/x.mp4; give the path"),
        ("serv.mp4", ("serve.mp4",), "line 2: serv.mp4 is not there; did you mean serve.mp4?"),
        ("A.MP4", ("a.mp4", "a.Mp4"), "line 2: A.MP4 may be a.Mp4 or a.mp4; give the path"),
        ("heat_a.mp4", ("heat_b.mp4",), "line 2: heat_a.mp4 is not there"),
        ("day 1/x.mp4", ("day 2/x.mp4",), "line 2: day 1/x.mp4 is not there"),
        ("day 1/x.mp4", ("x.mp4",), "line 2: day 1/x.mp4 is not there; did you mean x.mp4?"),
        ("/elsewhere/x.mp4", ("x.mp4",), "line 2: /elsewhere/x.mp4 is not there"),
        ("serve.mov", ("serve.mp4",), "line 2: serve.mov is not there; did you mean serve.mp4?"),
        ("qqq", ("serve.mp4",), "line 2: qqq is not there"),
    ],
)
def test_a_file_that_is_not_sure(tmp_path: Path, name: str, there: tuple[str, ...], problem: str) -> None:
    files, problems = found(tmp_path, name, *there)
    assert files == {}
    assert len(problems) == 1 and problems[0].startswith(problem)
    assert ("did you mean" in problems[0]) == ("did you mean" in problem)


def test_two_names_of_one_file_are_a_duplicate(tmp_path: Path) -> None:
    _, problems = found(tmp_path, "a/ b/ a.mp4", "a.mp4", "b.mp4")
    assert problems == ["lines 2, 4: a and a.mp4 are one video; give it one line"]


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # what a keyboard types, and what a Mac's disk keeps


def test_a_file_is_found_in_whatever_form_the_disk_stores_its_name(tmp_path: Path) -> None:
    for one, two in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        for row in (f"{one}/{one}.mp4", f"{one}.mp4", one, f"v/{one}/{one}.MP4"):
            assert found(tmp_path, row, f"{two}/{two}.mp4") == ({row: f"{two}/{two}.mp4"}, [])
        assert found(tmp_path, f"{one}.mp4", two, suffixes={".mp4"})[0] == {f"{one}.mp4": two}
    both = [f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4"]
    assert found(tmp_path, "/ ".join(both), *both) == (dict(zip(both, both, strict=True)), [])
    assert found(tmp_path, "/ ".join(both), both[0])[1] == [
        f"lines 2, 3: {COMPOSED}.mp4 comes 2 times; give it one line"
    ]


def test_a_row_may_be_a_path_that_leads_through_the_folder(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    available = {}
    for name in ("a.mp4", "day 1/a.mp4", "day 2/b.mp4"):
        available[name] = footage / name
        available[name].parent.mkdir(parents=True, exist_ok=True)
        available[name].touch()

    def find(row: str, suffixes: tuple[str, ...] = (), there: dict[str, Path] = available) -> str | None:
        files, problems = find_videos([LabelledVideo(row, ("x",), "", 2)], there, suffixes)
        assert bool(files) != bool(problems)
        return next((name for name in there if there[name] in files.values()), None)

    windows = r"C:\Users\me\footage"
    for folder in (
        footage,
        "footage",
        f"../{tmp_path.name}/footage",
        windows,
        f'"{windows}',
        r"\\server\share\footage",
    ):
        end = '"' if str(folder).startswith('"') else ""
        assert find(f"{folder}/a.mp4{end}") == "a.mp4"
        assert find(f"{folder}/day 1/a.mp4{end}") == "day 1/a.mp4"
        assert find(f"{folder}/day 2/B.MP4{end}") == "day 2/b.mp4"
        assert find(f"{folder}/day 1/b.mp4{end}") is None
    assert find("other/a.mp4") is find(r"D:\other\a.mp4") is find("/day 3/b.mp4") is None
    (tmp_path / "link").symlink_to(footage)
    assert find(str(footage / "a.mp4"), there={n: tmp_path / "link" / n for n in available}) == "a.mp4"
    features = {name.removesuffix(".mp4"): Path(name.removesuffix(".mp4")) for name in available}
    assert find(str(footage / "day 2/b.mp4"), (".mp4",), features) == "day 2/b"
    assert find(windows + r"\day 1\a.mp4", (".mp4",), features) == "day 1/a"


def test_another_case_is_said_once() -> None:
    there = {"heat.MP4": Path("v/heat.mp4"), "A": Path("v/a.mp4"), "b": Path("v/b.mp4"), "C.mp4": Path("v/c.mp4")}
    assert other_case(there) == ["2 videos are found only in another case or with other blanks: A as a.mp4."]
    assert other_case({"b": Path("v/b.mp4")}) == []


def test_features_are_found_by_the_names_of_their_videos(tmp_path: Path) -> None:
    assert found(tmp_path, "a.mp4", "a")[0] == {}
    assert found(tmp_path, "a.mp4", "a", suffixes={".mp4"}) == ({"a.mp4": "a"}, [])
    assert found(tmp_path, "day 1/b.MP4", "day 1/b", suffixes={".mp4"})[0] == {"day 1/b.MP4": "day 1/b"}
    # Two files of one stem keep their suffix in the name (`extract` does that).
    assert found(tmp_path, "a.mp4/ a.mov", "a.mp4", "a.mov", suffixes={".mp4", ".mov"})[1] == []
    assert found(tmp_path, "video.01", "video", suffixes={".mp4"})[0] == {}


def test_problems_of_labels(tmp_path: Path) -> None:
    text = (
        'video,labels\na,golf|tennis\nb,golf\nc,golf|tenis\nd,tennis\na,\ne,"jump, shot"\nf,"jump, shot"\n'
        "g,ski|x;y\nh,take 1\ni,take 2\n,golf\n"
    )
    csv_rows = read(tmp_path, text)
    assert label_problems(csv_rows) == [
        "lines 2, 6: a comes 2 times; give it one line",
        "line 7: 'jump, shot' holds a comma or a semicolon; use | between labels, as in tennis|golf",
        "line 8: 'jump, shot' holds a comma or a semicolon; use | between labels, as in tennis|golf",
        "line 9: 'x;y' holds a comma or a semicolon; use | between labels, as in tennis|golf",
        "label 'ski' has 1 video; give it 2 or more, or leave the label out",
        "label 'take 1' has 1 video; give it 2 or more, or leave the label out",
        "label 'take 2' has 1 video; give it 2 or more, or leave the label out",
        "label 'tenis' has 1 video; did you mean 'tennis'?",
    ]
    assert find_videos(csv_rows[-1:], {})[1] == ["line 12: names no video"]
    assert classes_of(csv_rows) == ("golf", "jump, shot", "ski", "take 1", "take 2", "tenis", "tennis", "x;y")
    assert label_problems(read(tmp_path, "video,labels\na,\nb,\n")) == [
        "no video has a label, so there is nothing to learn"
    ]


def test_a_class_in_two_spellings_is_one_and_said_once(tmp_path: Path) -> None:
    text = f"video,labels\na,Pitch|{COMPOSED}\nb,pitch|{DECOMPOSED}\nc,pitch|ice_hockey|PITCH\nd,ice  hockey\ne,golf\n"
    csv_rows, notes = one_spelling(read(tmp_path, text))
    assert [row.labels for row in csv_rows] == [
        ("pitch", COMPOSED),
        ("pitch", COMPOSED),
        ("pitch", "ice_hockey"),
        ("ice_hockey",),
        ("golf",),
    ]
    assert notes == [
        "labels 'pitch' and 'Pitch' and 'PITCH' are one class, 'pitch'.",
        "labels 'ice_hockey' and 'ice  hockey' are one class, 'ice_hockey'.",
    ]


# --- a plan: all that is wrong with a request, in one message ---


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Five videos of one snippet, one of them in a folder below."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    encode(folder / "a.mp4", [coded(k) for k in range(3)])
    for name in ("b.mp4", "c.mp4", "d.mp4", "more/e.mp4"):
        (folder / name).write_bytes((folder / "a.mp4").read_bytes())
    return folder


def labels(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "labels.csv"
    file.write_text("video,labels\n" + text)
    return file


def test_a_good_plan(tmp_path: Path, footage: Path) -> None:
    file = labels(tmp_path, "a.mp4,golf|ski\nb,golf\ne,ski\nc.mp4,\n")
    made = plan(file, videos=footage, settings=Settings(folds=2))
    assert made.classes == ("golf", "ski")
    assert made.videos == {
        "a.mp4": footage / "a.mp4",
        "b": footage / "b.mp4",
        "e": footage / "more/e.mp4",
        "c.mp4": footage / "c.mp4",
    }
    assert made.features is None


def test_everything_wrong_is_said_at_once(tmp_path: Path, footage: Path) -> None:
    (footage / "empty.mp4").write_bytes(b"")
    (footage / "text.mp4").write_text("I am text")
    (footage / "notes.txt").write_text("I am no video")
    file = labels(
        tmp_path,
        "a.mp4,golf|ski\nb.mp4,golf\nempty.mp4,Golf\ntext.mp4,golf\nnotes.txt,golf\nbb.mp4,\nb,golf\nb.mp4,\n",
    )
    with pytest.raises(DatasetError) as error:
        plan(file, videos=footage)
    first, *sentences = str(error.value).splitlines()
    assert first == f"{file}: {len(sentences)} to fix before training:"
    for wanted in (
        "line 6: notes.txt is not there",
        "line 7: bb.mp4 is not there; did you mean b.mp4?",
        "b.mp4 and b are one video",
        "empty.mp4: the file is empty",
        "text.mp4: ",
        "lines 3, 9: b.mp4 comes 2 times",
        "label 'ski' has 1 video",
    ):
        assert sum(wanted in sentence for sentence in sentences) == 1, (wanted, sentences)
    assert len(sentences) == 7


def test_what_was_taken_for_something_else_is_said_beside_the_plan(tmp_path: Path, footage: Path) -> None:
    file = tmp_path / "labels.csv"
    lines = ["sep=;", "video;labels", r"A.MP4;Pitch", f"{footage}/b.mp4;pitch", r"videos\more\e.mp4;pitch"]
    file.write_bytes("\r\n".join([*lines, "c;caf\u00e9", "d.MP4;caf\u00e9"]).encode("cp1252"))
    made = plan(file, videos=footage)
    assert sorted(made.videos.values()) == sorted(footage.rglob("*.mp4"))
    assert made.classes == ("caf\u00e9", "pitch")
    assert [note.removeprefix(f"{file}: ") for note in made.notes] == [
        "is not UTF-8 and was read as Windows-1252; where letters are wrong, save it as CSV in UTF-8.",
        "labels 'pitch' and 'Pitch' are one class, 'pitch'.",
        "1 video is found only in another case or with other blanks: A.MP4 as a.mp4.",
    ]


def test_letters_that_were_guessed_are_said_beside_what_is_not_there(tmp_path: Path, footage: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("video,labels\na,x\nb,x\n\u017elut\u00fd.mp4,x\n".encode("cp1250"))
    with pytest.raises(DatasetError, match=r"line 4: .*is not there\n.*is not UTF-8 and was read as Windows-1252"):
        plan(file, videos=footage)


def test_of_very_many_problems_some_are_shown(tmp_path: Path, footage: Path) -> None:
    file = labels(tmp_path, "a.mp4,golf\nb.mp4,golf\n" + "".join(f"none{k}q.avi,golf\n" for k in range(50)))
    with pytest.raises(DatasetError) as error:
        plan(file, videos=footage)
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "and 30 more"


def test_footage_or_features(tmp_path: Path, footage: Path) -> None:
    file = labels(tmp_path, "a.mp4,golf\nb.mp4,golf\n")
    for asked in ({}, {"videos": footage, "features": footage}):
        with pytest.raises(UsageError, match="--videos FOLDER, or its features with --features"):
            plan(file, **asked)
    with pytest.raises(UsageError, match="nowhere: no such folder; give the one that holds the videos"):
        plan(file, videos=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no such folder; give the one that holds the features"):
        plan(file, features=file)


def test_features_by_the_csv_that_was_made_for_the_videos(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    times = np.arange(3)[:, None] * 0.64 + [0, 0.64]
    about = {"rgb": {"backbone": "i3d", "stride": 16}}
    for name in ("a", "b", "day 1/c"):
        save(Features(np.ones((3, 8), np.float32), None, times, 1.92, {}, about), folder / f"{name}.npz")
    made = plan(labels(tmp_path, "a.mp4,golf\nb,golf\nday 1/c.mov,\n"), features=folder)
    assert made.found == {"a.mp4": "a", "b": "b", "day 1/c.mov": "day 1/c"}
    assert made.features is not None and made.features.streams == ("rgb",)
    with pytest.raises(DatasetError, match="line 3: x is not there"):
        plan(labels(tmp_path, "a.mp4,golf\nx,golf\n"), features=folder)
    with pytest.raises(DatasetError, match="no flow stream"):
        plan(labels(tmp_path, "a.mp4,golf\nb,golf\n"), features=folder, streams=("rgb", "flow"))


def test_a_dot_in_the_name_of_features_is_no_suffix() -> None:
    """clip.v2 is another video than clip, and match.2024-05-01 another than match.2024-05-02."""
    wanted = [LabelledVideo("clip.mp4", ("a",), "", 2)]
    found, problems = find_videos(wanted, {"clip.v2": Path("clip.v2")}, suffixes=(".mp4",))
    assert not found and "is not there" in problems[0]
    found, problems = find_videos(wanted, {"clip.v2": Path("clip.v2"), "clip": Path("clip")}, suffixes=(".mp4",))
    assert found == {"clip.mp4": Path("clip")} and not problems

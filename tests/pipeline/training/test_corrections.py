"""The way back: results, corrected in another tool, as labels to train on and ground truth to score against."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.features import Features
from extractors.features import save as save_features
from pipeline.training.corrections import ground_truth_json, labels_csv, read_corrections
from pipeline.training.labels import load_labels
from postprocess.evaluation.annotations import read_ground_truth
from postprocess.formats.annotated import Annotated, ExchangeError, Span
from postprocess.formats.writers import SUFFIXES, WRITERS
from postprocess.segment import Result, Segment
from support.errors import UsageError

Run = Callable[..., tuple[int, str, str]]


def saved(folder: Path, form: str, result: Result, name: str) -> Path:
    text = io.StringIO(newline="")
    WRITERS[form](result, text)
    path = folder / f"{name}{SUFFIXES[form]}"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def result(video: str, *spans: tuple[float, float, str]) -> Result:
    segments = tuple(Segment(start, end, 0.0, 0.9, label) for start, end, label in spans)
    return Result(video, 20.0, {"rate": "30000/1001"}, segments, (), {})


def corrected(path: Path, change: Callable[[list[dict[str, object]]], None] = lambda regions: None) -> None:
    """What Label Studio exports after a person took the predictions over, changed them and pressed submit."""
    tasks = json.loads(path.read_text())
    for task in tasks:
        (prediction,) = task.pop("predictions")
        regions = prediction["result"]
        change(regions)
        task["annotations"] = [{"id": 1, "result": regions, "was_cancelled": False, "updated_at": "2026-01-01"}]
    path.write_text(json.dumps(tasks))


def test_result_to_label_studio_corrected_to_csv_to_training_to_evaluation(tmp_path: Path, jcdnet: Run) -> None:
    """The whole round: the model had mistaken one label and one start; what was corrected is what is trained on."""
    rng = np.random.default_rng(0)
    classes = {"a": "kickflip", "b": "kickflip", "c": "ollie", "d": "ollie"}
    exports = []
    for name, label in classes.items():
        first = 2 if label == "kickflip" else 14
        rgb = rng.normal(0, 0.1, (30, 1024)).astype(np.float32)
        rgb[first : first + 8, : 200 if label == "kickflip" else 400] += 1
        times = np.arange(30)[:, None] * 0.64 + np.array([0.0, 0.64])
        settings = {"rgb": {"fps": 25.0, "length": 16, "stride": 16}}
        save_features(Features(rgb, None, times, 19.2, {}, settings), tmp_path / "features" / f"{name}.npz")
        found = result(f"/footage/{name}.mp4", (first * 0.64, (first + 8) * 0.64, label if name != "b" else "ollie"))
        exports.append(saved(tmp_path, "labelstudio", found, name))

    def relabel(regions: list[dict[str, object]]) -> None:
        regions[0]["value"] = {**regions[0]["value"], "timelinelabels": ["kickflip"]}  # type: ignore[dict-item]

    def later(regions: list[dict[str, object]]) -> None:
        regions[0]["value"] = {"ranges": [{"start": 301, "end": 420}], "timelinelabels": ["ollie"]}

    for path, change in zip(exports, (lambda regions: None, relabel, later, lambda regions: None), strict=True):
        corrected(path, change)
    labels, truth = tmp_path / "labels.csv", tmp_path / "truth.json"
    code, _, said = jcdnet("labels", "import", *exports, "--from", "labelstudio", "-o", labels, "--ground-truth", truth)
    assert code == 0 and "4 videos, 4 segments" in said
    assert [(row.video, row.labels) for row in load_labels(labels)[0]] == [
        (f"{n}.mp4", (c,)) for n, c in classes.items()
    ]
    (ollie,) = read_ground_truth(truth)["c.mp4"].actions
    assert (ollie.start, ollie.end) == pytest.approx((300 * 1.001 / 30, 420 * 1.001 / 30), abs=0.001)

    model = tmp_path / "runs" / "tricks"
    code, _, said = jcdnet("train", labels, "--features", tmp_path / "features", "-o", model,
                        "--steps", 30, "--dim", 16, "--folds", 0)  # fmt: skip
    assert code == 0, said
    code, out, said = jcdnet("evaluate", "--model", model, "--features", tmp_path / "features",
                          "--ground-truth", truth, "--json")  # fmt: skip
    assert code == 0, said
    scored = json.loads(out)
    assert set(scored["per_class"]) == {"kickflip", "ollie"}
    assert scored["classification_mAP"] == 100.0  # a and b are told from c and d: the correction was learned


@pytest.mark.parametrize("form", ["elan", "sportscode", "labelstudio"])
def test_each_tool_brings_back_labels_and_times(form: str, tmp_path: Path, jcdnet: Run) -> None:
    one = result("/footage/a.mp4", (1.0, 2.5, "serve"), (4.0, 5.0, 'net "ace" & ⛳'), (7.0, 8.0, "serve"))
    two = result("/footage/b.mp4")
    paths = [saved(tmp_path, form, one, "a"), saved(tmp_path, form, two, "b")]
    if form == "labelstudio":
        for path in paths:
            corrected(path)
    first, second = read_corrections(paths, form)
    suffix = "" if form == "sportscode" else ".mp4"  # which does not name its video
    assert (first.video, second.video) == (f"a{suffix}", f"b{suffix}")
    assert [s.label for s in first.spans] == [s.label for s in one.segments] and second.spans == ()
    for span, s in zip(first.spans, one.segments, strict=True):
        assert (span.start, span.end) == pytest.approx((s.start, s.end), abs=0.017)
    code, out, _ = jcdnet("labels", "import", *paths, "--from", form)
    assert code == 0
    assert list(csv.reader(io.StringIO(out)))[1:] == [[f"a{suffix}", 'serve|net "ace" & ⛳'], [f"b{suffix}", ""]]


def test_videos_are_named_as_training_will_look_for_them(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    for name in ("day 1/a.mp4", "day 2/a.mp4", "b.mp4"):
        (footage / name).parent.mkdir(parents=True, exist_ok=True)
        (footage / name).touch()
    there = saved(tmp_path, "elan", result(str(footage / "day 2" / "a.mp4"), (0, 1, "x")), "1")
    moved = saved(tmp_path, "elan", result("/gone/b.mp4", (0, 1, "x")), "2")
    tagged = saved(tmp_path, "sportscode", result("", (0, 1, "x")), "b")
    assert [v.video for v in read_corrections([there, moved], "elan", footage)] == ["day 2/a.mp4", "b.mp4"]
    assert [v.video for v in read_corrections([tagged], "sportscode", footage)] == ["b.mp4"]
    twin = saved(tmp_path, "elan", result("/gone/a.mp4", (0, 1, "x")), "3")
    with pytest.raises(UsageError, match=r"may be day 1/a\.mp4 or day 2/a\.mp4"):
        read_corrections([twin], "elan", footage)
    lost = saved(tmp_path, "elan", result("/gone/c.mp4", (0, 1, "x")), "4")
    with pytest.raises(UsageError, match=r"c\.mp4 is not there"):
        read_corrections([lost], "elan", footage)
    with pytest.raises(UsageError, match="no such folder"):
        read_corrections([lost], "elan", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="comes twice"):
        read_corrections([moved, moved], "elan", footage)
    with pytest.raises(UsageError, match=r"comes twice.*--videos"):
        read_corrections([there, twin], "elan")


def test_what_is_wrong_is_one_sentence_and_a_code(tmp_path: Path, jcdnet: Run) -> None:
    path = saved(tmp_path, "labelstudio", result("/f/a.mp4", (0, 1, "a|b")), "a")
    code, _, said = jcdnet("labels", "import", path, "--from", "labelstudio")
    assert code == 2 and "a program's predictions alone" in said
    corrected(path)
    code, _, said = jcdnet("labels", "import", path, "--from", "labelstudio")
    assert code == 2 and "holds a |" in said
    code, _, said = jcdnet("labels", "import", path, "--from", "premiere")
    assert code == 2 and "there are jcdnet, labelstudio, elan, sportscode" in said
    (tmp_path / "labels.csv").write_text("mine")
    code, _, said = jcdnet("labels", "import", path, "--from", "labelstudio", "-o", tmp_path / "labels.csv")
    assert code == 2 and "--overwrite" in said and (tmp_path / "labels.csv").read_text() == "mine"
    with pytest.raises(ExchangeError):
        read_corrections([tmp_path / "missing.eaf"], "elan")


def test_a_label_with_a_comma_is_brought_back_and_said(tmp_path: Path, jcdnet: Run) -> None:
    path = saved(tmp_path, "elan", result("/f/a.mp4", (0, 1, "serve, slow"), (2, 3, "serve, slow"), (3, 4, "net")), "a")
    code, out, said = jcdnet("labels", "import", path, "--from", "elan")
    assert code == 0 and list(csv.reader(io.StringIO(out)))[1] == ["a.mp4", "serve, slow|net"]
    assert " ".join(said.split()).count("a.mp4: 'serve, slow' holds a comma, which `train` refuses in a CSV") == 1


def test_the_texts_read_back(tmp_path: Path) -> None:
    videos = [Annotated('a "b", c.mp4', (Span(0.1234, 2.0, "x, y"), Span(3.0, 4.0, "ünï"))), Annotated("n.mp4", ())]
    (tmp_path / "l.csv").write_text(labels_csv(videos), encoding="utf-8")
    assert [(r.video, r.labels) for r in load_labels(tmp_path / "l.csv")[0]] == [
        ('a "b", c.mp4', ("x, y", "ünï")),
        ("n.mp4", ()),
    ]
    (tmp_path / "t.json").write_text(ground_truth_json(videos))
    truth = read_ground_truth(tmp_path / "t.json")
    assert [(a.start, a.end, a.label) for a in truth['a "b", c.mp4'].actions] == [
        (0.123, 2.0, "x, y"),
        (3.0, 4.0, "ünï"),
    ]
    assert truth["n.mp4"].actions == ()


# --- what people's own files hold ---


@pytest.mark.parametrize(
    ("name", "video", "spans"),
    [
        ("elan_blank_in_second_tier", "clip.mp4", [(1, 3, "tennis"), (4, 6, "tennis")]),
        ("elan_wav_first", "clip.mp4", [(1, 3, "tennis")]),
        # ELAN spreads slots without a time evenly between 1 and 6 s.
        ("elan_unaligned_subdivision", "clip.mp4", [(1, 3.5, "serve"), (1, 6, "rally"), (3.5, 6, "return")]),
        # ELAN's 0 is 5 s after the start of the video.
        ("elan_origin", "clip.mp4", [(6, 8, "tennis")]),
        ("elan_hash_unescaped", "heat #3.mp4", [(1, 3, "tennis")]),
    ],
)
def test_elan_files_that_failed_once(
    cases: Path, tmp_path: Path, jcdnet: Run, name: str, video: str, spans: list[tuple[float, float, str]]
) -> None:
    truth = tmp_path / "truth.json"
    code, out, said = jcdnet("labels", "import", cases / f"{name}.eaf", "--from", "elan", "--ground-truth", truth)
    assert code == 0, said
    ((found, labels),) = list(csv.reader(io.StringIO(out)))[1:]
    assert (found, set(labels.split("|"))) == (video, {label for *_, label in spans})
    (annotated,) = read_ground_truth(truth).items()
    assert annotated[0] == video
    assert [(a.start, a.end, a.label) for a in annotated[1].actions] == spans
    assert ("no times of their own" in said) == (name == "elan_unaligned_subdivision")


def test_json_min_is_called_by_its_name(cases: Path, jcdnet: Run) -> None:
    code, out, said = jcdnet("labels", "import", cases / "ls_min.json", "--from", "labelstudio")
    assert (code, out) == (2, "")
    assert "is Label Studio's JSON-MIN export, which leaves things out; export as JSON." in " ".join(said.split())


MP4 = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///d/clip.mp4" MIME_TYPE="video/mp4"/>'
STEREOTYPES = ("Time_Subdivision", "Symbolic_Subdivision", "Symbolic_Association", "Included_In")


def eaf(folder: Path, tiers: str, slots: dict[str, int | None], media: str = MP4, units: str = "milliseconds") -> Path:
    """An ELAN file; in `tiers` `(tier type parent)` opens a tier, and `a1 ts1 ts2 value` or `a1 >a2 value` fill it."""
    text = [
        '<?xml version="1.0" encoding="UTF-8"?><ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T10:00:00+01:00" '
        'FORMAT="3.0" VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">'
        f'<HEADER MEDIA_FILE="" TIME_UNITS="{units}">{media}</HEADER><TIME_ORDER>'
    ]
    for slot, time in slots.items():
        text.append(f'<TIME_SLOT TIME_SLOT_ID="{slot}"' + (f' TIME_VALUE="{time}"/>' if time is not None else "/>"))
    text.append("</TIME_ORDER>")
    close = ""
    for line in filter(None, map(str.strip, tiers.split(";"))):
        if line.startswith("("):
            name, kind, *parent = line.strip("()").split(",")
            above = f' PARENT_REF="{parent[0]}"' if parent else ""
            text.append(f'{close}<TIER LINGUISTIC_TYPE_REF="{kind}" TIER_ID="{name}"{above}>')
            close = "</TIER>"
            continue
        i, *refs, value = line.split(" ")
        if refs[0].startswith(">"):
            before = f' PREVIOUS_ANNOTATION="{refs[1]}"' if refs[1:] else ""
            tag, at = "REF_ANNOTATION", f'ANNOTATION_REF="{refs[0][1:]}"{before}'
        else:
            tag, at = "ALIGNABLE_ANNOTATION", f'TIME_SLOT_REF1="{refs[0]}" TIME_SLOT_REF2="{refs[1]}"'
        value = f"<ANNOTATION_VALUE>{value.replace('-', '')}</ANNOTATION_VALUE>"
        text.append(f'<ANNOTATION><{tag} ANNOTATION_ID="{i}" {at}>{value}</{tag}></ANNOTATION>')
    text.append(f'{close}<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="d" TIME_ALIGNABLE="true"/>')
    text += [f'<LINGUISTIC_TYPE CONSTRAINTS="{k}" LINGUISTIC_TYPE_ID="{k}"/>' for k in STEREOTYPES]
    path = folder / "a.eaf"
    path.write_text("".join(text) + "</ANNOTATION_DOCUMENT>", encoding="utf-8")
    return path


def drawn(path: Path) -> tuple[list[tuple[str, float, float]], tuple[str, ...]]:
    (video,) = read_corrections([path], "elan")
    return sorted((s.label, s.start, s.end) for s in video.spans), video.notes


def test_elan_annotations_without_times_have_those_that_elan_shows(tmp_path: Path) -> None:
    slots = {"ts1": 1000, "ts2": None, "ts3": None, "ts4": 2000, "ts5": 2000, "ts6": None, "ts7": 5001}
    slots |= {"ts8": None}
    tiers = (
        # Below `half` lies a subdivision of an annotation that has no time itself; ELAN cuts milliseconds off.
        "(quarter,Time_Subdivision,half); a9 ts1 ts8 q1; a10 ts8 ts2 q2;"
        "(point,d); a1 ts1 ts4 p; a2 ts5 ts7 q;"
        "(half,Time_Subdivision,point); a3 ts1 ts2 h1; a4 ts2 ts3 h2; a5 ts3 ts4 h3; a6 ts5 ts6 h4; a7 ts6 ts7 h5;"
        "(word,Symbolic_Subdivision,point); b2 >a2 b1 w2; b1 >a2 w1; b3 >a2 b2 w3;"
        "(by,Symbolic_Association,word); c1 >b3 player;"
        "(in,Included_In,point); d1 ts1 ts4 -;"
    )
    spans, notes = drawn(eaf(tmp_path, tiers, slots))
    assert spans == [
        ("h1", 1.0, 1.333),
        ("h2", 1.333, 1.666),
        ("h3", 1.666, 2.0),
        ("h4", 2.0, 3.5),
        ("h5", 3.5, 5.001),
        ("in", 1.0, 2.0),
        ("p", 1.0, 2.0),
        ("player", 4.0, 5.001),
        ("q", 2.0, 5.001),
        ("q1", 1.0, 1.166),
        ("q2", 1.166, 1.333),
        ("w1", 2.0, 3.0),
        ("w2", 3.0, 4.0),
        ("w3", 4.0, 5.001),
    ]
    assert [note.removeprefix(f"{tmp_path / 'a.eaf'}: ") for note in notes] == [
        "tier 'quarter': 2 annotations have no times of their own, and got those that ELAN shows.",
        "tier 'half': 5 annotations have no times of their own, and got those that ELAN shows.",
        "tier 'word': 3 annotations have no times of their own, and got those of the annotations that they refer to.",
        "tier 'by': 1 annotation has no times of their own, and got those of the annotations that they refer to.",
    ]


def test_elan_annotations_that_can_have_no_times_are_left_out_and_said(tmp_path: Path) -> None:
    slots: dict[str, int | None] = {"ts1": 1000, "ts2": None, "ts3": None, "ts4": 2000}
    tiers = (
        "(a,d); a1 ts1 ts4 x; (b,Time_Subdivision,a); a2 ts1 ts2 y; a3 ts3 ts3 z; a6 ts9 ts4 w;"
        "(c,Symbolic_Association,c); a4 >a5 r; a5 >a4 s; (d,Symbolic_Subdivision,a); a7 >a8 t;"
    )
    spans, notes = drawn(eaf(tmp_path, tiers, slots))
    assert spans == [("x", 1.0, 2.0)]
    assert [note.removeprefix(f"{tmp_path / 'a.eaf'}: ") for note in notes] == [
        "tier 'b': 3 annotations have no times and nothing to take times from: left out.",
        "tier 'c': 2 annotations have no times and nothing to take times from: left out.",
        "tier 'd': 1 annotation has no times and nothing to take times from: left out.",
    ]


def test_elan_times_are_those_of_the_video_whose_origin_they_count_from(tmp_path: Path) -> None:
    slots: dict[str, int | None] = {"ts1": 1000, "ts2": 3000, "ts3": 4000}
    tiers = "(a,d); a1 ts1 ts2 x; a2 ts2 ts3 y;"

    def media(kind: str, name: str, origin: object = None) -> str:
        at = "" if origin is None else f' TIME_ORIGIN="{origin}"'
        return f'<MEDIA_DESCRIPTOR MEDIA_URL="file:///d/{name}" MIME_TYPE="{kind}"{at}/>'

    sound, video = media("audio/x-wav", "a.wav", 700), media("video/mp4", "a.mp4", 250)
    assert drawn(eaf(tmp_path, tiers, slots, sound + video))[0] == [("x", 1.25, 3.25), ("y", 3.25, 4.25)]
    assert drawn(eaf(tmp_path, tiers, slots, sound))[0] == [("x", 1.7, 3.7), ("y", 3.7, 4.7)]
    spans, notes = drawn(eaf(tmp_path, tiers, slots, media("video/mp4", "a.mp4", -3500)))
    assert spans == [("y", 0, 0.5)]
    assert notes == (f"{tmp_path / 'a.eaf'}: 1 annotation has times before the video begins: left out.",)
    with pytest.raises(ExchangeError, match="counts in PAL-frames"):
        read_corrections([eaf(tmp_path, tiers, slots, units="PAL-frames")], "elan")


@pytest.mark.parametrize(
    ("media", "name", "said"),
    [
        ('MEDIA_URL="file:///D:/V/heat%20%233.mp4" MIME_TYPE="video/mp4"', "heat #3.mp4", ""),
        ('MEDIA_URL="file:///D:/V/heat #3?.mp4" MIME_TYPE="video/mp4"', "heat #3?.mp4", ""),
        ('MEDIA_URL="file:///D:\\V\\90% up.mp4" MIME_TYPE="unknown"', "90% up.mp4", ""),
        ('MEDIA_URL="file://server/share/\u00e9 [1].mov" MIME_TYPE="video/quicktime"', "\u00e9 [1].mov", ""),
        ('MEDIA_URL="https://host/v/a%20b.mp4?t=1#x" MIME_TYPE="video/mp4"', "a b.mp4", ""),
        ('MEDIA_URL="" RELATIVE_MEDIA_URL="../v/./a.mp4" MIME_TYPE="video/mp4"', "a.mp4", ""),
        ('MEDIA_URL="file:///d/a.3gp" MIME_TYPE="audio/3gpp"', "a.3gp", ""),
        ('MEDIA_URL="file:///d/a.WAV" MIME_TYPE="unknown"', "a", "links only sound"),
        (
            'MEDIA_URL="file:///d/x.wav" EXTRACTED_FROM="file:///d/a.mpg" MIME_TYPE="audio/x-wav"',
            "a.mpg",
            "only sound",
        ),
        (
            'MEDIA_URL="file:///d/a.mp4" MIME_TYPE="video/mp4"/>'
            '<MEDIA_DESCRIPTOR MEDIA_URL="file:///d/b.mp4" MIME_TYPE="x/y"',
            "a.mp4",
            "links 2 videos, and was taken to belong to the first",
        ),
    ],
)
def test_which_video_an_elan_file_is_of(tmp_path: Path, media: str, name: str, said: str) -> None:
    path = eaf(tmp_path, "(a,d); a1 ts1 ts2 x;", {"ts1": 0, "ts2": 1}, f"<MEDIA_DESCRIPTOR {media}/>")
    (video,) = read_corrections([path], "elan")
    assert video.video == name
    assert len(video.notes) == bool(said) and all(said in note for note in video.notes)


def test_an_elan_file_names_its_video_from_where_it_lies(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    for name in ("day 1/a%20b.mp4", "day 2/a%20b.mp4"):
        (footage / name).parent.mkdir(parents=True, exist_ok=True)
        (footage / name).touch()
    marks = tmp_path / "marks"
    marks.mkdir()
    relative = (
        'MEDIA_URL="file:///gone/a%20b.mp4" RELATIVE_MEDIA_URL="../footage/day 2/a%20b.mp4" MIME_TYPE="video/mp4"'
    )
    path = eaf(marks, "(a,d); a1 ts1 ts2 x;", {"ts1": 0, "ts2": 1}, f"<MEDIA_DESCRIPTOR {relative}/>")
    (video,) = read_corrections([path], "elan", footage)
    assert video.video == "day 2/a%20b.mp4"


def test_a_video_is_found_in_whatever_form_the_disk_stores_its_name(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    (footage / "cafe\u0301.mp4").touch()
    composed = saved(tmp_path, "elan", result("/gone/caf\u00e9.mp4", (0, 1, "x")), "1")
    decomposed = saved(tmp_path, "elan", result("/gone/cafe\u0301.mp4", (0, 1, "x")), "2")
    assert [v.video for v in read_corrections([composed], "elan", footage)] == ["cafe\u0301.mp4"]
    for folder in (None, footage):
        with pytest.raises(UsageError, match="comes twice"):
            read_corrections([composed, decomposed], "elan", folder)


# --- and what is no export at all ---

words = st.sampled_from(["data", "annotations", "result", "type", "value", "labels", "start", "end", "ranges", "video"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def task(**changes: object) -> list[dict[str, object]]:
    region = {"type": "labels", "value": {"start": 1.0, "end": 2.0, "labels": ["x"]}}
    ranges = {"type": "timelinelabels", "value": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["x"]}}
    given = {"id": 1, "updated_at": "2026-01-01", "result": [region, ranges]}
    return [{"data": {"video": "v.mp4", "fps": 25, "source": "v.mp4"}, "annotations": [given]} | changes]


def mutated(value: object, draw: st.DrawFn) -> object:
    """The value with one place of it, chosen at random, replaced by anything."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(anything)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    copy = value.copy()
    copy[key] = mutated(value[key], draw)
    return copy


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_json_is_given_only_an_exchange_error_comes_out(tmp_path_factory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "export.json"
    value = data.draw(anything) if data.draw(st.booleans()) else mutated(task(), data.draw)
    path.write_text(json.dumps(value))
    try:
        read_corrections([path], "labelstudio")
    except (ExchangeError, UsageError) as error:
        assert "\n" not in str(error).strip() and "Error" not in str(error)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_xml_is_given_only_an_exchange_error_comes_out(tmp_path_factory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    slots: dict[str, int | None] = {"ts1": 1000, "ts2": None, "ts3": 2000}
    path = eaf(folder, "(a,d); a1 ts1 ts3 x; (b,Time_Subdivision,a); a2 ts1 ts2 y; a3 ts2 ts3 z;", slots)
    sport = folder / "a.xml"
    one = "<instance><start>1</start><end>2</end><code>x</code></instance>"
    sport.write_text(f"<file><ALL_INSTANCES>{one}</ALL_INSTANCES></file>")
    for file, source in ((path, "elan"), (sport, "sportscode")):
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=4))
        file.write_bytes(bytes(content))
        with contextlib.suppress(ExchangeError, UsageError):
            read_corrections([file], source)

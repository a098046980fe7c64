"""The report as a text: what is in it, what is escaped, and what a folder's index says."""

import base64
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, encode

from pipeline.run import views
from pipeline.run.results import Stored, curves_of, read_results, truth_of, video_of
from pipeline.run.views import Extras, link, thumbnail, write_page, write_pages
from postprocess.curves import Curves
from postprocess.formats.annotated import Annotated, Span
from postprocess.pages.index import Entry, index
from postprocess.pages.report import page
from postprocess.segment import Result, ResultError, Segment
from support.errors import OutputError, UsageError

EVIL = "<script>alert(1)</script>"
NAMES = (EVIL, '"><img src=x onerror=alert(2)>', "</script><b>", "$title ${data} $", "&amp; 💥", "a\udce9")


def result(video: str = "/footage/match.mp4", **provenance: object) -> Result:
    segments = tuple(Segment(2.0 * i, 2.0 * i + 1.5, -1.0 * i, 0.9 - 0.1 * i, name) for i, name in enumerate(NAMES))
    media = {"width": 640, "height": 360, "rate": "30000/1001", "start_timecode": None}
    return Result(video, 20.0, media, segments, (f"damaged {EVIL}",), provenance, partial=True)


def curves(classes: tuple[str, ...] = NAMES, steps: int = 31) -> Curves:
    rng = np.random.default_rng(0)
    times = np.arange(steps)[:, None] * 0.64 + np.array([0.0, 0.64])
    cas, coarse = rng.normal(size=(2, steps, len(classes) + 1)).astype(np.float32)
    return Curves(times, rng.random(steps).astype(np.float32), cas, coarse, classes)


class Seen(HTMLParser):
    """Tags, attributes, and what stands in script elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self.open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.open = dict(attrs).get("id")

    def handle_endtag(self, tag: str) -> None:
        self.open = None

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and text.strip():
            self.scripts[self.open] = text


def seen(text: str) -> Seen:
    parser = Seen()
    parser.feed(text)
    return parser


def test_names_are_text_whatever_they_hold() -> None:
    text = page(result(video=f"/footage/{EVIL}.mp4"), curves(), "video.mp4")
    text.encode("utf-8")
    found = seen(text)
    assert [attributes.get("id") for tag, attributes in found.tags if tag == "script"] == ["data", "film", None]
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    data = json.loads(found.scripts["data"])
    assert set(data["labels"]) == {n.encode("utf-8", "backslashreplace").decode() for n in NAMES}
    assert html.escape(EVIL) in text and EVIL not in text


def test_the_page_loads_nothing_from_anywhere() -> None:
    for text in (page(result(), curves(), "video.mp4"), index([Entry(result(), "a.html", b"jpeg")])):
        found = seen(text)
        addresses = [a.get(name) for _, a in found.tags for name in ("src", "href") if a.get(name)]
        assert all(
            a in ("a.html#up=0", "index.html", "#add", "#saving") or a.startswith("data:image/jpeg;base64,")
            for a in addresses
        )
        assert not re.search(r"https?:|url\(|@import|//cdn", text)
        assert "default-src 'none'" in text


def test_the_data_is_the_results() -> None:
    what = result(localize={"min_confidence": 0.25})
    data = json.loads(seen(page(what, curves(), "my%20video.mp4")).scripts["data"])
    assert data["least"] == data["level"] == 0.25 and data["duration"] == 20.0 and data["link"] == "my%20video.mp4"
    for row, s in zip(data["segments"], what.segments, strict=True):
        assert row[:4] == pytest.approx([s.start, s.end, s.confidence, s.score], abs=1e-4)
        assert data["labels"][row[4]] == s.label.encode("utf-8", "backslashreplace").decode()
    times = np.frombuffer(base64.b64decode(data["curves"]["times"]), "<f4").reshape(-1, 2)
    np.testing.assert_allclose(times, curves().times, atol=1e-5)
    first, *rest = data["curves"]["lines"]
    unpack = [np.frombuffer(base64.b64decode(line["values"]), "<u2") / 65535 for line in (first, *rest)]
    np.testing.assert_allclose(unpack[0], curves().actionness, atol=1e-5)
    assert first["label"] is None and len(rest) == len(NAMES)
    probability = curves().probability()
    for line, values in zip(rest, unpack[1:], strict=True):
        column = [n.encode("utf-8", "backslashreplace").decode() for n in NAMES].index(data["labels"][line["label"]])
        np.testing.assert_allclose(values, probability[:, column], atol=1e-5)


def test_no_grey_line_says_that_something_happens_where_a_named_sport_is_read_without_actionness() -> None:
    c = curves()
    sure = replace(c, actionness=np.ones_like(c.actionness))
    for shown, labels in ((c, [None, *range(len(NAMES))]), (sure, list(range(len(NAMES))))):
        lines = json.loads(seen(page(result(), shown, "x")).scripts["data"])["curves"]["lines"]
        assert sorted((line["label"] for line in lines), key=str) == sorted(labels, key=str)


def test_probability_is_that_of_localisation() -> None:
    c = curves()
    shifted = np.exp(c.cas.astype(np.float64))
    np.testing.assert_allclose(
        c.probability(), c.actionness[:, None] * shifted[:, :-1] / shifted.sum(axis=1, keepdims=True), rtol=1e-5
    )
    assert curves(steps=0).probability().shape == (0, len(NAMES))


def test_a_page_without_curves_without_segments_and_with_the_video_inside() -> None:
    empty = Result("street.mp4", 10.0, {}, (), (), {})
    found = seen(page(empty, None, "street.mp4", b"film"))
    assert json.loads(found.scripts["data"])["curves"] is None
    assert base64.b64decode(found.scripts["film"]) == b"film"
    assert json.loads(seen(page(empty, curves(()), "x")).scripts["data"])["curves"]["lines"][0]["label"] is None


def test_the_index_has_totals_per_class_and_a_card_a_video() -> None:
    a = Result("/f/a.mp4", 60.0, {}, (Segment(0, 10, 0, 1, "serve"), Segment(20, 25, 0, 1, "serve")), (), {})
    b = Result(f"/f/{EVIL}.mp4", 30.0, {}, (Segment(0, 1.5, 0, 1, EVIL), Segment(2, 3, 0, 1, "serve")), (), {})
    c = Result("/f/c.mp4", 30.0, {}, (), (), {})
    text = index([Entry(a, "a.html", b"jpeg"), Entry(b, "sub/b%3F.html", None), Entry(c, "", None)])
    cells = r"</td><td>(.*?)"
    rows = re.findall(rf"<button.*?>(.*?)</button>{cells * 3}</td></tr>", text)
    assert rows == [("serve", "2", "3", "0:16"), (html.escape(EVIL), "1", "1", "0:02")]
    assert "<h1>3 videos</h1>" in text and "2:00 of video" in text and "not marked yet" in text and EVIL not in text
    assert "mark the actions that you see." in text and "A program watched" not in text  # nobody ran it
    assert text.count("<li") == 3 and "nothing found" in (
        ran := index([Entry(replace(c, provenance={"a": 1}), "", None)])
    )
    assert "see what happens when. A program watched them and may be wrong." in ran
    links = [attributes["href"] for tag, attributes in seen(text).tags if tag == "a"]
    assert links == ["a.html#up=0", "sub/b%3F.html#up=1"]


@pytest.mark.parametrize(
    ("videos", "origin"),
    [
        (("/f/day 1/a.mp4", "/f/day 1/b.mp4"), "from the folder <bdi>day 1</bdi> · "),
        (("footage/a.mp4", "footage/sub/b.mp4"), "from the folder <bdi>footage</bdi> and the folders in it · "),
        (("C:\\cup\\<i>\\a.mp4",), "from the folder <bdi>&lt;i&gt;</bdi> · "),
        (("s3://bucket/day/a.mp4", "s3://bucket/b.mp4"), "from the folder <bdi>bucket</bdi> and the folders in it · "),
        (("a.mp4", "b.mp4"), ""),
        (("../a.mp4",), ""),
        (("one/a.mp4", "two/b.mp4"), ""),
        (("C:\\a.mp4",), ""),
        ((), ""),
    ],
)
def test_the_index_says_how_many_videos_and_where_they_come_from(videos: tuple[str, ...], origin: str) -> None:
    """Not the name of the folder that the pages are in."""
    text = index([Entry(Result(video, 30.0, {}, (), (), {}), "", None) for video in videos])
    count = f"{len(videos)} video{'s' * (len(videos) != 1)}"
    assert f"<title>{count}</title>" in text and f"<h1>{count}</h1>" in text
    assert f"<p>{origin}0:{30 * len(videos) % 60:02}" in text or f"<p>{origin}1:00 of video</p>" in text


def test_rates_are_said_as_people_say_them() -> None:
    for rate, told in (("24000/1001", "23.976"), ("30000/1001", "29.97"), ("25", "25"), ("25/2", "12.5")):
        text = page(replace(result(), media={"rate": rate}), None, "x")
        assert f"{told} frames/s" in text and (f"{rate} frames/s" not in text or rate == told)
    assert "frames/s" not in page(replace(result(), media={"rate": "nonsense"}), None, "x")


def test_what_was_marked_before_takes_the_place_of_what_was_found_there() -> None:
    marked = Annotated("match.mp4", (Span(2.5, 3.0, NAMES[1]), Span(9.0, 9.0, "new")), (), True)
    data = json.loads(seen(page(result(), None, "x", classes=("ace", NAMES[0]), marked=marked)).scripts["data"])
    assert data["labels"][-3:] == ["ace", NAMES[1], "new"] and data["complete"] is True
    assert [row[0] for row in data["segments"]] == [2.0 * i for i in range(len(NAMES)) if i != 1]
    assert [row[:2] for row in data["marked"]] == [[2.5, 3.0], [9.0, 9.0]]
    assert data["key"] != json.loads(seen(page(result(), None, "x")).scripts["data"])["key"]


# --- on disk ---


def saved(folder: Path, name: str, what: Result, with_curves: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(what.to_dict()))
    if with_curves:
        c = curves()
        np.savez(
            folder / f"{name}.scores.npz",
            times=c.times,
            actionness=c.actionness,
            cas=c.cas,
            coarse_cas=c.coarse_cas,
            classes=np.array([n.encode("utf-8", "replace").decode() for n in NAMES]),
        )
    return path


def test_results_and_curves_are_read_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "out", "clip.v2", result())
    saved(tmp_path / "out" / "sub", "b", result(), with_curves=False)
    (tmp_path / "out" / "_run.json").write_text("{}")
    (tmp_path / "out" / "x.activitynet.json").write_text("{}")
    first, second = read_results([tmp_path / "out"])
    assert (first.stem, second.stem) == ("clip.v2", "b")
    found = curves_of(first)
    assert found is not None and found.cas.shape == (31, len(NAMES) + 1)
    assert curves_of(second) is None
    with pytest.raises(UsageError, match="no such file"):
        read_results([tmp_path / "missing.json"])
    with pytest.raises(UsageError, match="no result in it"):
        read_results([_folder(tmp_path / "empty")])
    path.write_text("{")
    with pytest.raises(ResultError, match="is not JSON"):
        read_results([path])
    path.write_text("{}")
    with pytest.raises(ResultError, match="not a result document"):
        read_results([path])
    (tmp_path / "out" / "clip.v2.scores.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ResultError, match="not the curves of a result"):
        curves_of(first)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_video_that_moved_is_found(tmp_path: Path) -> None:
    name = "my [best] *.mp4"
    stored = Stored(tmp_path / "out" / "a.json", result(video=f"/gone/{name}"))
    with pytest.raises(Exception, match="name its folder with --videos"):
        video_of(stored)
    deep = tmp_path / "footage" / "day 1" / name
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"")
    assert video_of(stored, tmp_path / "footage") == deep
    beside = tmp_path / "out" / name
    beside.parent.mkdir()
    beside.write_bytes(b"")
    assert video_of(stored) == beside


def test_links_are_relative_and_encoded(tmp_path: Path) -> None:
    assert link(tmp_path / "f" / "a b#?%.mp4", tmp_path / "out") == "../f/a%20b%23%3F%25.mp4"
    assert link(tmp_path / "javascript:alert(1).mp4", tmp_path) == "javascript%3Aalert%281%29.mp4"


def test_embed_and_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = encode(tmp_path / "v.mp4", [coded(k) for k in range(5)])
    write_page(result(), None, video, tmp_path / "v.html", extras=Extras(embed=True))
    inside = seen((tmp_path / "v.html").read_text()).scripts["film"]
    assert base64.b64decode(inside) == video.read_bytes()
    monkeypatch.setattr(views, "LARGEST_EMBEDDED", 10)
    with pytest.raises(OutputError, match="leave --embed out"):
        write_page(result(), None, video, tmp_path / "v.html", extras=Extras(embed=True))


def test_a_folder_gets_pages_an_index_and_what_failed(tmp_path: Path) -> None:
    video = encode(_folder(tmp_path / "footage") / "a.mp4", [coded(k) for k in range(60)])
    saved(tmp_path / "out" / "day 1", "a", result(video=str(video)))
    saved(tmp_path / "out", "b", result(video="/gone/b.mp4"))
    done = list(write_pages(read_results([tmp_path / "out"]), tmp_path / "out", tmp_path / "out"))
    assert [(path.name, error is None) for path, error in done] == [
        ("b.html", False),
        ("a.html", True),
        ("index.html", True),
    ]
    text = (tmp_path / "out" / "index.html").read_text()
    assert 'href="day%201/a.html#up=1"' in text and text.count("data:image/jpeg") == 1
    assert '"link":"../../footage/a.mp4"' in (tmp_path / "out" / "day 1" / "a.html").read_text()
    picture = thumbnail(result(), video)
    assert picture is not None and picture[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "broken",
    [{"times": np.zeros((3, 2))}, {"actionness": np.full(31, np.nan)}, {"cas": np.zeros((31, 2))},
     {"coarse_cas": np.array([["a"]])}],
)  # fmt: skip
def test_curves_that_do_not_fit_are_refused(broken: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken))):
        Curves(**{**vars(curves()), **broken})


def test_a_video_is_found_in_whatever_way_the_disk_spells_it(tmp_path: Path) -> None:
    """A Mac's disk stores é as e and an accent; other systems change the case of a suffix."""
    composed, decomposed = "caf\u00e9.mp4", "cafe\u0301.mp4"
    for there, said in ((decomposed, composed), (composed, decomposed), ("serve.MP4", "serve.mp4")):
        folder = _folder(tmp_path / f"footage {there!a}")
        (folder / there).touch()
        stored = Stored(tmp_path / "out" / "a.json", result(video=f"/gone/{said}"))
        assert video_of(stored, folder) == folder / there
        assert video_of(Stored(folder / "a.json", result(video=f"/gone/{said}"))) == folder / there
        assert video_of(Stored(tmp_path / "a.json", result(video=str(folder / said)))) == folder / there
    both = _folder(tmp_path / "both")
    (both / composed).touch()
    (both / decomposed).touch()
    for name in (composed, decomposed):  # one that is called just so wins
        assert video_of(Stored(tmp_path / "a.json", result(video=f"/gone/{name}")), both) == both / name


def test_the_truth_of_a_result_is_found_and_spelled_as_in_it(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    actions = [{"label": "cafe\u0301", "segment": [1, 2]}, {"label": "Golf Swing", "segment": [3, 4]}]
    truth.write_text(json.dumps({"database": {"cafe\u0301.mp4": {"annotations": actions}}}))
    found = replace(
        result(video="/v/caf\u00e9.mp4"),
        segments=(Segment(0, 1, 1, 1, "caf\u00e9"), Segment(0, 1, 1, 1, "golf_swing")),
    )
    assert truth_of(Stored(tmp_path / "a.json", found), truth) == [(1, 2, "caf\u00e9"), (3, 4, "golf_swing")]

"""Files of corrections are a stranger's: whatever is in them is said, all at once, and nothing else happens."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.formats import marked
from postprocess.formats.annotated import ExchangeError, Span
from postprocess.formats.marked import read_marked
from postprocess.formats.writers import is_result

GOOD: dict[str, Any] = {
    "corrections": 1, "video": "/footage/day 1/match.mp4", "content": None, "duration": 20.0,
    "saved": "2026-01-02T03:04:05.678Z", "complete": True,
    "segments": [
        {"start": 5.0, "end": None, "label": "net", "origin": "added"},
        {"start": 1.25, "end": 2.5, "label": " serve ", "origin": "kept"},
        {"start": 2.5, "end": 4, "label": "serve"},
    ],
    "rejected": [{"start": 1.0, "end": 3.0, "label": "net"}],
}  # fmt: skip


def written(folder: Path, document: object) -> Path:
    path = folder / "match.corrections.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def faults(folder: Path, **changes: object) -> str:
    with pytest.raises(ExchangeError) as caught:
        read_marked(written(folder, GOOD | changes))
    said = str(caught.value)
    assert (
        said.startswith(str(folder)) and said.endswith("save the corrections in the page again.") and "\n" not in said
    )
    return said


def test_spans_moments_and_what_is_complete(tmp_path: Path) -> None:
    (found,) = read_marked(written(tmp_path, GOOD))
    assert found.video.video == "/footage/day 1/match.mp4" and found.video.complete is True
    assert found.video.spans == (Span(1.25, 2.5, "serve"), Span(2.5, 4.0, "serve"), Span(5.0, 5.0, "net"))
    assert found.saved == GOOD["saved"]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    bad = [
        {"start": 3, "end": 1, "label": "serve"},
        {"start": -1, "end": 2, "label": "serve"},
        {"start": 1, "end": 200, "label": "serve"},
        {"start": "1", "end": 2, "label": "serve"},
        {"start": True, "end": 2, "label": "serve"},
        {"start": 1, "end": 2, "label": " "},
        {"start": 1, "end": 2, "label": "a|b"},
        {"start": 1, "end": 2, "label": "a\nb"},
        {"start": 1, "end": 2, "label": "x" * 300},
        {"start": 1, "end": 2},
        {"start": 1, "end": 2, "label": "serve", "evil": 1},
        "serve",
        {"start": 6, "end": 8, "label": "serve"},
        {"start": 7, "end": 9, "label": " serve"},
    ]
    said = faults(tmp_path, segments=bad, video="..", complete="yes", duration=0, saved=3, content=4, more=1)
    for expected in (
        "segments 1 lasts from 3 to 1 s", "segments 2 lasts from -1 to 2 s", "segments 4 lasts from '1' to '2'",
        "segments 5 lasts", "segments 6 has no label", "segments 7 has the label 'a|b'", "names no video, but '..'",
        "'yes' as `complete`", "'0' as `duration`", "does not say when it was saved", "'4' as `content`",
        "unknown field 'more'",
    ):  # fmt: skip
        assert expected in said
    assert "; and 10 more; " in faults(tmp_path, segments=bad[9:10] * 30)
    said = faults(tmp_path, segments=bad[2:3] + bad[7:])
    for expected in (
        "segments 1 ends at 200 s, and the video is over at 20 s", "segments 2 has the label 'a b'", "segments 3",
        "segments 4 needs start, end and label", "segments 5 has the unknown field 'evil'", "segments 6 needs",
        "two segments of 'serve' overlap, at 0:06.00 and at 0:07.00",
    ):  # fmt: skip
        assert expected in said


@pytest.mark.parametrize("name", list(GOOD))
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExchangeError, match="no file of corrections" if name == "corrections" else f"has no '{name}'"):
        read_marked(written(tmp_path, {key: value for key, value in GOOD.items() if key != name}))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps(GOOD).replace("20.0", "NaN"), "NaN is no number"),
        ("[]", "no file of corrections"),
        (GOOD | {"corrections": 2}, "version '2', and this jcdnet reads version 1"),
        (GOOD | {"corrections": True}, "version 'true'"),
        (GOOD | {"segments": {}}, "which must be a list"),
        (GOOD | {"video": "a\u0007b.mp4"}, "names no video"),
        (GOOD | {"video": "/footage/"}, None),
    ],
)
def test_other_files(tmp_path: Path, document: object, says: str | None) -> None:
    path = written(tmp_path, document)
    if says is None:
        assert read_marked(path)[0].video.video == "/footage/"  # a name that no file has, as the import will say
        return
    with pytest.raises(ExchangeError, match=says):
        read_marked(path)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExchangeError, match="cannot be read"):
        read_marked(tmp_path / "gone.corrections.json")
    path = written(tmp_path, GOOD)
    monkeypatch.setattr(marked, "LARGEST", 10)
    with pytest.raises(ExchangeError, match="no file of corrections has"):
        read_marked(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "start", "end"]), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD]), json_values))
def test_whatever_is_given_only_an_exchange_error_comes_out(tmp_path_factory: Any, changes: dict[str, Any]) -> None:
    path = written(tmp_path_factory.getbasetemp(), GOOD | changes)
    try:
        read_marked(path)
    except ExchangeError as error:
        assert str(path) in str(error)


def test_corrections_are_no_results() -> None:
    """They may lie among the results; a browser counts the downloads of one name."""
    for name in ("match.corrections.json", "match.corrections (1).json", "match.corrections(2).json"):
        assert not is_result(Path("out", name))
    assert is_result(Path("out/my.corrections.v2.json")) and is_result(Path("out/corrections.json"))

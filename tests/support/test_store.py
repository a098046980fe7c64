"""A store that works, and one that fails in every way that stores have."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import Flaky, changing, cut_short, memory

from support import store
from support.errors import EnvironmentMissing


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Flaky]]:
    with memory(monkeypatch) as found:
        found().pipe_file("/b/day/a.mp4", b"the bytes of a")
        found().pipe_file("/b/day/later/c.mp4", b"c")
        yield found


def fetched(tmp_path: Path, url: str = "memory://b/day/a.mp4") -> bytes:
    file = tmp_path / "copy"
    found, digest = store.fetch(url, file)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest() and found.size == file.stat().st_size
    return file.read_bytes()


def test_what_a_store_has(flaky: type[Flaky], tmp_path: Path) -> None:
    found = store.look("memory://b/day/a.mp4")
    assert (found.size, found.folder) == (14, False) and found.tag.startswith("created:")
    assert store.look("memory://b/day").folder
    assert [one.url for one in store.below("memory://b")] == ["memory://b/day/a.mp4", "memory://b/day/later/c.mp4"]
    assert [one.url for one in store.matching("memory://b/*/a.*")] == ["memory://b/day/a.mp4"]
    assert store.beside("memory://b/day") == ["a.mp4"]
    assert store.below("memory://nowhere") == store.beside("memory://nowhere") == []
    assert fetched(tmp_path) == b"the bytes of a"
    (tmp_path / "new").write_bytes(b"new")
    store.put(tmp_path / "new", "memory://b/out/new")
    assert fetched(tmp_path, "memory://b/out/new") == b"new"
    store.remove("memory://b/out/new")
    store.remove("memory://b/out/new")
    with pytest.raises(store.NotThere, match=r"memory://b/out/new: the store has nothing there"):
        store.look("memory://b/out/new")


def test_a_failure_that_passes_is_not_noticed(flaky: type[Flaky], tmp_path: Path) -> None:
    flaky.orders["info"] = [TimeoutError("slow"), OSError("503 Slow Down")]
    assert store.look("memory://b/day/a.mp4").size == 14
    flaky.orders["open"] = [ConnectionResetError(), cut_short]
    assert fetched(tmp_path) == b"the bytes of a"
    flaky.orders["find"] = [TimeoutError(), lambda found: ["not a dict"]]
    assert len(store.below("memory://b")) == 2
    flaky.orders["put"] = [OSError("503"), OSError("503"), OSError("503")]
    (tmp_path / "new").write_bytes(b"new")
    store.put(tmp_path / "new", "memory://b/new")
    assert fetched(tmp_path, "memory://b/new") == b"new"


def test_tries_are_bounded_and_the_pauses_grow(flaky: type[Flaky], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(store, "PAUSES", (0.5, 1.0, 2.0))
    monkeypatch.setattr(store.time, "sleep", slept.append)
    flaky.orders["info"] = [OSError("503 Slow Down")] * 99
    with pytest.raises(store.StoreError) as failed:
        store.look("memory://b/day/a.mp4")
    assert len([call for call in flaky.calls if call[0] == "info"]) == 4
    assert [0.5 <= slept[0] <= 0.75, 1 <= slept[1] <= 1.5, 2 <= slept[2] <= 3] == [True] * 3 and len(slept) == 3
    assert str(failed.value) == (
        "memory://b/day/a.mp4: could not be read in 4 tries (OSError: 503 Slow Down); see whether the store works, "
        "then run again."
    )


def test_what_will_not_change_is_not_tried_again(flaky: type[Flaky], tmp_path: Path) -> None:
    for error, said in (
        (FileNotFoundError("gone"), "nothing there, or no longer; check the address"),
        (PermissionError("Access Denied"), "refuses .*Access Denied.* check the credentials"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "check the credentials"),
        (ValueError("Invalid bucket name"), "cannot be read .*Invalid bucket name.*; check the address"),
    ):
        flaky.calls.clear()
        flaky.orders["open"] = [error] * 9
        with pytest.raises(store.StoreError, match=said):
            fetched(tmp_path)
        assert len([call for call in flaky.calls if call[0] == "open"]) == 1


def test_a_file_that_vanishes_after_the_listing(flaky: type[Flaky], tmp_path: Path) -> None:
    (one, _) = store.below("memory://b")
    flaky().rm_file("/b/day/a.mp4")
    with pytest.raises(store.NotThere):
        fetched(tmp_path, one.url)


def test_a_read_that_always_ends_early(flaky: type[Flaky], tmp_path: Path) -> None:
    flaky.orders["open"] = [cut_short] * 9
    with pytest.raises(store.StoreError, match="it gave 11 bytes, and says that there are 14"):
        fetched(tmp_path)


def test_an_object_that_changes_while_it_is_read(flaky: type[Flaky], tmp_path: Path) -> None:
    fs = flaky()
    flaky.orders["open"] = [changing(lambda: fs.pipe_file("/b/day/a.mp4", b"other bytes..."))]
    assert fetched(tmp_path) == b"other bytes..."  # the second try reads one version
    flaky.orders["open"] = [changing(lambda: fs.pipe_file("/b/day/a.mp4", b"other bytes..."))] * 9
    with pytest.raises(store.StoreError, match="changed while it was read"):
        fetched(tmp_path)


def test_a_listing_that_lies(flaky: type[Flaky]) -> None:
    def lies(found: dict) -> dict:
        honest = found["/b/day/a.mp4"]
        return {
            "/b/day/a.mp4": honest,
            "/elsewhere/x.mp4": honest,
            "/b/day/": honest | {"size": 0},
            "/b/folder": {"type": "directory", "size": 0},
        }

    flaky.orders["find"] = [lies]
    assert [one.url for one in store.below("memory://b")] == ["memory://b/day/a.mp4"]
    flaky.orders["find"] = [lambda found: {n: i | {"size": None} for n, i in found.items()}] * 9
    with pytest.raises(store.StoreError, match="does not say how large"):
        store.below("memory://b")


def test_an_object_that_is_too_large_is_not_read(flaky: type[Flaky], tmp_path: Path) -> None:
    with pytest.raises(store.TooLarge):
        store.fetch("memory://b/day/a.mp4", tmp_path / "copy", most=13)
    assert not any(what == "open" for what, _ in flaky.calls)


def test_credentials_stay_out_of_errors_and_tracebacks(flaky: type[Flaky], tmp_path: Path) -> None:
    import traceback

    flaky.orders["open"] = [
        OSError("GET https://x/?X-Amz-Signature=abcdef0123456789 with key='AKIAIOSFODNN7ZZZZZZZ', secret='wJalrXUt'")
    ] * 9
    with pytest.raises(store.StoreError) as failed:
        fetched(tmp_path)
    whole = "".join(traceback.format_exception(failed.value))
    assert not any(secret in whole for secret in ("abcdef0123456789", "AKIA", "wJalrXUt"))


def test_offline_means_no_store_on_the_network(monkeypatch: pytest.MonkeyPatch, flaky: type[Flaky]) -> None:
    monkeypatch.setenv("JCDNET_OFFLINE", "1")
    with pytest.raises(EnvironmentMissing, match="JCDNET_OFFLINE is set"):
        store.look("s3://bucket/a.mp4")
    assert store.look("memory://b/day/a.mp4").size == 14


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(EnvironmentMissing) as missing:
        store.look("gs://bucket/a.mp4")
    assert str(missing.value) == "gs://bucket/a.mp4: gs:// needs fsspec and gcsfs: pip install '.[cloud]'."
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(EnvironmentMissing, match="memory:// needs fsspec: pip install"):
        store.look("memory://bucket/a.mp4")

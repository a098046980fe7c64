"""Reads and writes what lies in a store, through fsspec: bounded retries, and errors that hold no credentials.

Every error of the store's package becomes a StoreError here, raised `from None`: their own texts and tracebacks may
show signed addresses, keys and tokens. A put is one call, after which the object is there whole (S3, Google Cloud
Storage and fsspec's memory promise that), so neither temporary names nor locks are needed.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from support.errors import FULL, INPUT_FAILED, EnvironmentMissing, Stopped, UserError
from support.paths import program
from support.progress import Progress, silent
from support.urls import name_of, package_of, redacted

# Seconds before the second, third and fourth try, up to half as long again. The packages have retries of their own.
PAUSES = (0.5, 1.0, 2.0)
BLOCK = 8 << 20  # bytes that one request reads
TAGS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "updated", "mtime", "modified", "created")
LONGEST = 200  # characters of an error of the store's package

T = TypeVar("T")


class StoreError(UserError):
    """A store does not do what was asked for; the message names the address, the cause and the next step."""

    exit_code = INPUT_FAILED


class NotThere(StoreError):
    """An address at which the store has nothing."""


class _Again(Exception):
    """A read that may succeed when it is repeated."""


@dataclass(frozen=True)
class Found:
    """What a store says about an address. tag: its ETag, or else another sign that changes with the bytes."""

    url: str
    size: int
    tag: str
    folder: bool = False


def look(url: str) -> Found:
    """Ask the store about an address.

    Raises:
        NotThere: it has nothing there.
        StoreError: it does not answer, or not sensibly.
        EnvironmentMissing: the store's package is missing.
    """
    fs = _filesystem(url)
    return _tried(url, lambda: _found(url, fs.info(_path(fs, url))))


def below(url: str) -> list[Found]:
    """List the files in a folder of a store and below it, by name. An empty list: there is no such folder.

    What the store lists beside them is left out: markers of folders, and names that are not below the folder.

    Raises:
        StoreError, EnvironmentMissing: as `look`.
    """
    fs = _filesystem(url)

    def listed() -> list[Found]:
        try:
            return _listing(url, fs.find(_path(fs, url), detail=True), f"{url}/")
        except FileNotFoundError:
            return []

    return _tried(url, listed)


def matching(pattern: str) -> list[Found]:
    """List the files of a store whose addresses fit a pattern with *, ? and [], by name.

    Raises:
        StoreError, EnvironmentMissing: as `look`.
    """
    fs = _filesystem(pattern)
    fixed = pattern[: min(pattern.find(sign) for sign in "*?[" if sign in pattern)].rpartition("/")[0]
    return _tried(pattern, lambda: _listing(pattern, fs.glob(_path(fs, pattern), detail=True), f"{fixed}/"))


def beside(folder: str) -> list[str]:
    """The names in a folder of a store, without those in the folders below it.

    Raises:
        StoreError, EnvironmentMissing: as `look`.
    """
    fs = _filesystem(folder)

    def names() -> list[str]:
        try:
            entries = fs.ls(_path(fs, folder), detail=True)
        except FileNotFoundError:
            return []
        return [name_of(str(entry["name"])) for entry in entries if entry.get("type") == "file"]

    return _tried(folder, names)


def fetch(url: str, file: Path, on_progress: Progress = silent, most: int | None = None) -> tuple[Found, str]:
    """Copy an object into a file that exists; returns what the store says about it, and the SHA-256 of its bytes.

    The object must be the same before and after, and as long as the store says.

    Args:
        most: the largest size that is taken; a larger object is not read.

    Raises:
        TooLarge: the object is larger than `most`.
        Stopped: `on_progress` raised it.
        StoreError, EnvironmentMissing: as `look`.
        OSError: the file cannot be written.
    """
    fs = _filesystem(url)
    path = _path(fs, url)

    def once() -> tuple[Found, str]:
        before = _found(url, fs.info(path))
        if before.folder:
            raise StoreError(f"{url}: is a folder, not a file; give a file in it.")
        if most is not None and before.size > most:
            raise TooLarge(before)
        digest, done = hashlib.sha256(), 0
        with fs.open(path, "rb", block_size=BLOCK, cache_type="none") as source, file.open("wb") as target:
            for block in _blocks(source, before.size):
                digest.update(block)
                _write(target, block)
                done += len(block)
                on_progress("fetch", done, before.size)
        if done != before.size:
            raise _Again(f"it gave {done} bytes, and says that there are {before.size}")
        if _found(url, fs.info(path)) != before:
            raise _Again("the object changed while it was read")
        return before, digest.hexdigest()

    return _tried(url, once)


def put(file: Path, url: str) -> None:
    """Store a file under an address, in one step; it replaces what was there.

    Raises:
        StoreError, EnvironmentMissing: as `look`.
    """
    fs = _filesystem(url)
    _tried(url, lambda: fs.put_file(str(file), _path(fs, url)), "written")


def remove(url: str) -> None:
    """Remove an object; it is no error if it is not there.

    Raises:
        StoreError, EnvironmentMissing: as `look`.
    """
    fs = _filesystem(url)

    def once() -> None:
        try:
            fs.rm_file(_path(fs, url))
        except FileNotFoundError:
            return

    _tried(url, once, "removed")


class TooLarge(Exception):
    """An object is larger than the caller takes."""

    def __init__(self, found: Found) -> None:
        super().__init__(found)
        self.found = found


class _Disk(Exception):
    """The local file cannot be written; the cause is an OSError."""


def _blocks(source: Any, size: int) -> Iterator[bytes]:
    """The object's bytes, and at most one more than it says that it has."""
    left = size + 1
    while left > 0 and (block := source.read(min(BLOCK, left))):
        left -= len(block)
        yield block


def _write(target: BinaryIO, block: bytes) -> None:
    try:
        target.write(block)
    except OSError as error:
        raise _Disk from error


def _found(url: str, info: dict[str, Any]) -> Found:
    if info.get("type") == "directory":
        return Found(url, 0, "", folder=True)
    if not isinstance(info.get("size"), int) or info["size"] < 0:
        raise _Again("it does not say how large the object is")
    name = next((name for name in TAGS if info.get(name)), "")
    sign = info.get(name, "")
    if isinstance(sign, datetime):  # a listing may give the same moment in seconds
        sign = sign.timestamp()
    return Found(url, info["size"], f"{name}:{sign}" if name else "")


def _listing(url: str, entries: Any, prefix: str) -> list[Found]:
    if not isinstance(entries, dict):
        raise _Again("its listing has another form than it should")
    scheme = url.partition("://")[0]
    found = {}
    for name, info in entries.items():
        one = f"{scheme}://{str(name).lstrip('/')}"
        if info.get("type") == "file" and one.startswith(prefix) and not one.endswith("/"):
            found[one] = _found(one, info)
    return [found[one] for one in sorted(found)]


def _path(fs: Any, url: str) -> str:
    """The address as the store's package names it."""
    return str(fs._strip_protocol(url))


def _filesystem(url: str) -> Any:
    """The file system of an address.

    Raises:
        EnvironmentMissing: fsspec or the store's package is missing, or JCDNET_OFFLINE is set.
        StoreError: the package cannot be started.
    """
    scheme, package = url.partition("://")[0], package_of(url)
    if package and os.environ.get("JCDNET_OFFLINE", "0") not in ("", "0"):
        raise EnvironmentMissing(
            f"{url}: JCDNET_OFFLINE is set, and the store is on the network; copy it here yourself."
        )
    try:
        import fsspec

        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError:
        needs = " and ".join(filter(None, ("fsspec", package)))
        extra = "'jcdnet[cloud]'" if program() == "jcdnet" else "'.[cloud]'"
        raise EnvironmentMissing(f"{url}: {scheme}:// needs {needs}: pip install {extra}.") from None
    except Exception as error:
        raise StoreError(f"{url}: the store cannot be reached ({_cause(error)}); check its settings.") from None


def _tried(url: str, call: Callable[[], T], what: str = "read") -> T:
    """What `call` returns, tried again after a pause where that may help.

    Raises:
        UserError: it does not help, or did not.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except (UserError, MemoryError, TooLarge, Stopped):
            raise
        except _Disk as error:
            assert error.__cause__ is not None
            raise error.__cause__ from None
        except Exception as error:  # of any library; its text and its traceback may hold credentials
            final, cause = _final(url, error, what), _cause(error)
        if final is not None:
            raise final
        if pause is None:
            break
        time.sleep(pause * random.uniform(1.0, 1.5))
    raise StoreError(
        f"{url}: could not be {what} in {len(PAUSES) + 1} tries ({cause}); see whether the store works, then run again."
    )


def _final(url: str, error: Exception, what: str) -> Exception | None:
    """The error to raise for one that will not go away by itself; None for any other."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in str(error):
        where = "the store has nothing there" if what == "read" else "there is no such bucket"
        return NotThere(f"{url}: {where}, or no longer; check the address.")
    if isinstance(error, PermissionError) or kinds & {"NoCredentialsError", "CredentialRetrievalError", "RefreshError"}:
        return StoreError(
            f"{url}: the store refuses ({_cause(error)}); check the credentials that its package finds, and what they "
            "allow."
        )
    if isinstance(error, ImportError):
        return EnvironmentMissing(f"{url}: a package is missing ({_cause(error)}); pip install '.[cloud]'.")
    if isinstance(error, OSError) and error.errno in FULL:
        return StoreError(f"{url}: the store is full ({_cause(error)}); make room there.")
    if isinstance(error, TypeError | ValueError | NotImplementedError | IsADirectoryError | NotADirectoryError):
        return StoreError(f"{url}: cannot be {what} ({_cause(error)}); check the address.")
    return None


def _cause(error: Exception) -> str:
    """An error of any library in a few words, on one line and without credentials."""
    if isinstance(error, _Again):
        return str(error)
    text = " ".join(redacted(str(error)[: 10 * LONGEST]).split()) or "no further words"
    return f"{type(error).__name__}: {text if len(text) <= LONGEST else text[:LONGEST] + '…'}"

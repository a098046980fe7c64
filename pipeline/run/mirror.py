"""An output folder in a store: a folder on the temporary disk that has its names, and what is written there is put.

Whatever reads and writes results works on files. Here a store's folder becomes one: every name of the store is there
as an empty file, its bytes are fetched when they are asked for, and files that were written, changed or removed are
put into the store, or removed from it. The JSON of a result is put last, as in a folder: where it is, all of its files
are there.

There are no locks. An object appears whole or not at all; who writes last, wins. So one run at a time must be
responsible for a video (`--shard`, or a cluster), and only `_run.json` and `segments.csv` are shared: they are read
anew before they are written, and a row that another run wrote in that moment is lost until its next writing.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.run.results import CURVES
from postprocess.formats.writers import PROXY, SUFFIXES, is_result
from support.files import scratch_folder, write_temporary, writing
from support.paths import cache_dir, call
from support.progress import Progress
from support.store import Found, NotThere, StoreError, below, fetch, look, put, remove
from support.urls import address, name_of

ENDS = (*dict.fromkeys((*SUFFIXES.values(), CURVES, ".npz", PROXY)),)
"""what follows the name of a result or of features in the names of its files"""

OFTEN = 60.0  # seconds between two writings of work that is not done
_Stamp = tuple[int, int, int]


class Mirror:
    """A store's folder, and the local folder that stands for it. Messages name files in it by their addresses."""

    def __init__(self, url: str, only: Sequence[str] | None = None, keep: bool = False) -> None:
        """List the folder.

        Args:
            only: names that matter; the store is asked about these alone.
            keep: whether files stay here after they are put, since they are read again.

        Raises:
            UsageError: the address holds credentials, or names nothing.
            StoreError, EnvironmentMissing: the store cannot be listed, or its package is missing.
        """
        self.url, self.keep = address(url), keep
        found = below(self.url) if only is None else list(self._looked_up(only))
        top = scratch_folder("results")
        atexit.register(shutil.rmtree, top, ignore_errors=True)
        self.folder = top / (name_of(self.url) or "results")
        self.folder.mkdir()
        call(self.folder, self.url)
        self._stored: dict[str, _Stamp] = {}
        """by name, the state of each local file in which it is the store's"""
        self._empty: set[str] = set()
        """names of files whose bytes were not fetched, or are not needed here any more"""
        for one in found:
            name = one.url[len(self.url) + 1 :]
            if PurePosixPath(name).is_absolute() or {"..", ""} & set(name.split("/")):
                continue  # no file below the folder can have this name
            with contextlib.suppress(OSError):  # too long, or the store has files below a name that is a file
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._hollow(name)

    def _looked_up(self, names: Iterable[str]) -> Iterable[Found]:
        for name in names:
            with contextlib.suppress(NotThere):
                yield look(f"{self.url}/{name}")

    def pull(self, name: Path, ends: Sequence[str] = ENDS) -> None:
        """Fetch the files of one result or of its features, where that has not happened yet.

        ends: what follows the name in the names of those that are wanted.

        Raises:
            StoreError: one cannot be fetched.
        """
        for end in ends:
            if f"{name.as_posix()}{end}" in self._empty:
                self._fetch(f"{name.as_posix()}{end}")

    def pull_all(self) -> None:
        """Fetch every file whose bytes are not here yet.

        Raises:
            StoreError: one cannot be fetched.
        """
        for name in sorted(self._empty):
            self._fetch(name)

    def pull_results(self, curves: bool = False) -> None:
        """Fetch every result in the folder. `curves`: the curves beside them, too.

        Raises:
            StoreError: one cannot be fetched.
        """
        for name in sorted(self._empty):
            if (name.endswith(".json") and is_result(Path(name))) or (curves and name.endswith(CURVES)):
                self._fetch(name)

    def pull_below(self, folder: str) -> None:
        """Fetch the files in a folder of this one whose bytes are not here yet.

        Raises:
            StoreError: one cannot be fetched.
        """
        for name in sorted(self._empty):
            if name.startswith(f"{folder}/"):
                self._fetch(name)

    def pull_file(self, name: str) -> None:
        """Fetch one file, if its bytes are not here yet.

        Raises:
            StoreError: it cannot be fetched.
        """
        if name in self._empty:
            self._fetch(name)

    def prove(self) -> None:
        """Put a small file into the store and remove it, before any work.

        Raises:
            StoreError: the store refuses, or does not answer.
        """
        name = f"write-test-{uuid.uuid4().hex}"
        probe = write_temporary(self.folder, name, b"jcdnet")
        try:
            put(probe, f"{self.url}/{name}")
            remove(f"{self.url}/{name}")
        finally:
            probe.unlink(missing_ok=True)

    def refresh(self, name: str) -> None:
        """Fetch one file, whether or not it is here already, since others may have written it.

        Raises:
            StoreError: it cannot be fetched.
        """
        self._fetch(name)

    def push(self, name: Path) -> None:
        """Put the files of one result or of its features into the store, as they are here now.

        Raises:
            StoreError: one cannot be written.
        """
        names = [f"{name.as_posix()}{end}" for end in ENDS]
        for base in list(names):
            number = 1
            while (self.folder / (backup := f"{base}.bak{'' if number == 1 else number}")).exists():
                names.append(backup)
                number += 1
        self._put(names)

    def publish(self) -> None:
        """Put everything that is new or changed here into the store, and remove from it what was removed here.

        Raises:
            StoreError: a file cannot be written.
        """
        here = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        self._put([*here, *self._stored])

    def while_working(self, show: Progress) -> Progress:
        """A progress function that also publishes: when a stage begins, and then once in OFTEN seconds.

        A store that does not answer does not stop the work; `publish_or_rescue` at its end says so.
        """
        last: list[Any] = ["", time.monotonic()]

        def on_progress(stage: str, done: int, total: int) -> None:
            show(stage, done, total)
            if stage != last[0] or time.monotonic() - last[1] > OFTEN:
                with contextlib.suppress(StoreError):
                    self.publish()
                last[:] = stage, time.monotonic()

        return on_progress

    def publish_or_rescue(self) -> None:
        """Publish; if that fails, copy everything into the cache's folder, which the error names.

        Raises:
            StoreError: a file cannot be written.
        """
        try:
            self.publish()
        except StoreError as error:
            place = cache_dir() / "rescued" / f"{self.folder.name}-{uuid.uuid4().hex[:8]}"
            with writing(place):
                shutil.copytree(self.folder, place, ignore=shutil.ignore_patterns(".*"))
            raise StoreError(f"{error} What was made is in {place}; copy it there then.") from None

    def push_file(self, name: str) -> None:
        """Put one file into the store.

        Raises:
            StoreError: it cannot be written.
        """
        self._put([name])

    def _put(self, names: Iterable[str]) -> None:
        for name in sorted(dict.fromkeys(names), key=_order):
            path = self.folder / name
            if path.name.startswith(".") or path.name.endswith(".lock"):
                continue
            if not path.exists():
                if name in self._stored:
                    remove(f"{self.url}/{name}")
                    del self._stored[name]
                    self._empty.discard(name)
            elif _stamp(path) != self._stored.get(name):
                put(path, f"{self.url}/{name}")
                if self.keep or name.endswith(".json"):  # the tables are made from these
                    self._stored[name] = _stamp(path)
                    self._empty.discard(name)
                else:
                    self._hollow(name)

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch(f"{self.url}/{name}", path)
        except NotThere:  # it was removed since the listing, or the listing is wrong
            path.unlink(missing_ok=True)
            self._stored.pop(name, None)
        else:
            self._stored[name] = _stamp(path)
        self._empty.discard(name)

    def _hollow(self, name: str) -> None:
        """Let an empty file stand for the one in the store."""
        path = self.folder / name
        path.write_bytes(b"")
        self._stored[name] = _stamp(path)
        self._empty.add(name)


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _order(name: str) -> tuple[bool, bool, str]:
    """Backups before what replaces the edited file, and the JSON of a result last."""
    return (name.endswith(".json"), ".bak" not in name.rpartition("/")[2], name)

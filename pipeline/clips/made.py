"""Which videos were made here from other ones: clips, reels, overlays, proxies. A run over a folder leaves them out.

A hidden list beside them names them with their sizes. A marker in the files themselves would not do: a film that
somebody makes of our clips with FFmpeg inherits what their headers say, and MPEG-TS and VOB take no such text.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from postprocess.formats.writers import PROXY, SUFFIXES
from support.files import write_atomically, writing
from support.locks import Lock

LIST, LOCK = ".jcdnet.json", ".jcdnet.lock"
LARGEST = 16 << 20  # bytes of a list that is read; 100,000 clips take 6 MB
PAGE_HEAD = 1024  # bytes at the beginning of a page
OUR_PAGE = b"default-src 'none'; style-src 'unsafe-inline'"  # what the head of each of our pages says
CURVES = ".scores.npz"


def remember(paths: Iterable[Path] | Mapping[Path, Path]) -> None:
    """Put videos that were made here on the lists of their folders.

    Args:
        paths: the videos; or for each the temporary file that will be renamed to it.

    Raises:
        OutputError, DiskFull: a list cannot be written.
    """
    by_folder: dict[Path, dict[str, int]] = defaultdict(dict)
    for path in paths:
        written = paths[path] if isinstance(paths, Mapping) else path
        by_folder[path.parent][path.name] = written.stat().st_size
    for folder, new in by_folder.items():
        if new.items() <= _listed(folder).items():
            continue
        with writing(folder / LIST):
            (lock := Lock(folder / LOCK)).wait()
            with lock.held():
                there = {name: size for name, size in _listed(folder).items() if (folder / name).exists()}
                # A file that is not there any more is not ours if it comes back.
                document = {"made": dict(sorted((there | new).items()))}
                write_atomically(folder / LIST, json.dumps(document, indent=1).encode())


def made_here(paths: Iterable[Path]) -> set[Path]:
    """Those of these files that were made here from other videos.

    A file is one of them if the list beside it has its name and its size. Earlier versions wrote no lists: an overlay
    lies beside the curves of its result, and a proxy beside these or its page.
    """
    lists: dict[Path, Mapping[str, int]] = {}
    found = set()
    for path in paths:
        folder = path.parent
        if folder not in lists:
            lists[folder] = _listed(folder)
        if (size := lists[folder].get(path.name)) is not None:
            if size == path.stat().st_size:
                found.add(path)
        elif _beside_its_result(path):
            found.add(path)
    return found


def _beside_its_result(path: Path) -> bool:
    for end in (SUFFIXES["overlay"], PROXY):
        if path.name.endswith(end):
            stem = path.name.removesuffix(end)
            curves, page = path.with_name(stem + CURVES), path.with_name(stem + SUFFIXES["html"])
            return os.path.exists(curves) or (end == PROXY and _is_page(page))  # noqa: PTH110  names may be too long
    return False


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return OUR_PAGE in file.read(PAGE_HEAD)
    except OSError:
        return False


def _listed(folder: Path) -> dict[str, int]:
    """The names and sizes on the list of a folder; none if there is no list, or it is not ours."""
    path = folder / LIST
    try:
        if path.stat().st_size > LARGEST:
            return {}
        made = json.loads(path.read_bytes())["made"]
        return {str(name): int(size) for name, size in made.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}

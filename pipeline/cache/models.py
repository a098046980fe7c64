"""Models that lie in a store: a checkpoint is copied into the cache's folder, once for each version of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath

from model import checkpoint
from model.checkpoint import FILE_NAME, Checkpoint, CheckpointError
from support.errors import UsageError
from support.files import replacing, writing
from support.paths import cache_dir, call, called
from support.store import TooLarge, fetch, look
from support.urls import address, is_file_url, local_file

SUFFIX = ".safetensors"
MOST = 1 << 30  # bytes; our largest models have some 50 MB


def load(given: str) -> Checkpoint:
    """Load a checkpoint by its address, as `model.checkpoint.load` does.

    Raises:
        CheckpointError: the file is not a checkpoint.
        UsageError, StoreError, EnvironmentMissing, OutputError, DiskFull: as `fetched`.
    """
    path = fetched(given)
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        raise CheckpointError(called(str(error))) from error


def fetched(given: str) -> Path:
    """The local copy of a checkpoint, given the address of its file, or of the folder that a training wrote.

    Messages name the copy by its address.

    Raises:
        UsageError: the address holds credentials or names nothing, or the file is far too large for a model.
        StoreError, EnvironmentMissing: the store has nothing there, or does not answer.
        OutputError, DiskFull: the cache cannot be written.
    """
    if is_file_url(given):
        return local_file(given)
    url = address(given)
    if PurePosixPath(url).suffix.lower() != SUFFIX:
        url = f"{url}/{FILE_NAME}"
    found = look(url)
    version = hashlib.sha256(json.dumps([found.size, found.tag]).encode()).hexdigest()[:32]
    folder = cache_dir() / "models" / hashlib.sha256(url.encode()).hexdigest()[:32]
    path = folder / f"{version}{SUFFIX}"
    if not (found.tag and path.exists()):
        try:
            with writing(path, "set JCDNET_CACHE to another folder"), replacing(path) as temporary:
                fetch(url, temporary, most=MOST)
        except TooLarge as error:
            raise UsageError(f"{url}: has {error.found.size / 1e9:.1f} GB, and is no model of jcdnet.") from None
    for other in folder.glob(f"*{SUFFIX}"):
        if other != path:  # an earlier version
            other.unlink(missing_ok=True)
    call(path, url)
    return path

"""The folder of the feature cache: where the features of a video are kept, and who may write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from extractors.config import Stretch
from extractors.features import PART
from support.locks import Lock
from support.paths import cache_dir

LOCK = ".lock"


class CacheFolder:
    """One file for each stream of a video, named by the video's content and by every setting that changes it."""

    def __init__(self, folder: Path | None = None, part: int = PART) -> None:
        """`part`: the number of snippets in a part."""
        self.folder, self.part = folder or cache_dir() / "features", part

    def entry(self, content: str, settings: Mapping[str, object], stretch: Stretch) -> Path:
        """The file for the features of one stream."""
        key = json.dumps({"settings": settings, "range": [stretch.start, stretch.end]}, sort_keys=True)
        return self.folder / content[:2] / f"{content}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def lock(self, content: str) -> Lock:
        """The lock that a process holds while it extracts a video, so that no other process extracts it too."""
        return Lock(self.folder / content[:2] / f"{content}{LOCK}")

"""Features on disk, keyed by the file's content and by every setting that changes them."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from extractors.config import cache_dir
from extractors.features import Extractor, Features, FeaturesError, Progress, load, save
from extractors.video import VideoError

CONTENT_BLOCK = 1 << 20


def content_hash(path: Path, on_progress: Progress = lambda stage, done, total: None) -> str:
    """SHA-256 of a file's bytes: a renamed or moved video is still the same video.

    Raises:
        VideoError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            while block := file.read(CONTENT_BLOCK):
                digest.update(block)
                done += len(block)
                on_progress("hash", done, total)
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file; check the path.") from error
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    return digest.hexdigest()


class FeatureCache:
    """One file a stream of a video; a stream that was extracted before is never extracted again."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "features"

    def entry(self, content: str, settings: dict[str, object], start: float, end: float) -> Path:
        """Where the features of one stream stand."""
        key = json.dumps({"settings": settings, "range": [start, end]}, sort_keys=True)
        return self.folder / content[:2] / f"{content}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def features(
        self,
        path: Path,
        content: str,
        extractor: Extractor,
        start: float = 0.0,
        end: float = math.inf,
        on_progress: Progress = lambda stage, done, total: None,
        on_damage: Callable[[str], None] = lambda message: None,
    ) -> Features:
        """Features of a video, from the cache where it has them, else extracted and put there.

        Args:
            content: `content_hash(path)`.
            on_damage: told about entries that are there but damaged (they are extracted again), and about a folder
                that cannot be written: the features are given all the same.

        Raises:
            VideoError: what is missing cannot be extracted.
        """
        found: dict[str, Features] = {}
        entries = {n: self.entry(content, s, start, end) for n, s in extractor.settings().items()}
        for name, entry in entries.items():
            try:
                if entry.exists():
                    found[name] = load(entry)
            except (FeaturesError, OSError) as error:
                on_damage(f"damaged cache entry: {error}")
        missing = tuple(name for name in entries if name not in found)
        if missing:
            fresh = extractor.chunk(path, start, end, missing, on_progress)
            found |= {name: _only(fresh, name) for name in missing}
            try:
                for name in missing:
                    save(found[name], entries[name])
            except OSError as error:
                on_damage(
                    f"{self.folder}: features cannot be kept there ({error.strerror}), the next run will extract "
                    "them again; set JCDNET_CACHE to another folder."
                )
        return merge(list(found.values()))


def _only(features: Features, stream: str) -> Features:
    return dataclasses.replace(
        features,
        rgb=features.rgb if stream == "rgb" else None,
        flow=features.flow if stream == "flow" else None,
        settings={stream: features.settings[stream]},
    )


def merge(parts: list[Features]) -> Features:
    """Streams of one video as one Features.

    Raises:
        FeaturesError: they do not share their time axis.
    """
    first, *rest = parts
    for other in rest:
        if not np.array_equal(first.times, other.times):
            raise FeaturesError("the streams of this video were cut differently; delete its cache entries.")
        first = dataclasses.replace(
            first,
            rgb=first.rgb if other.rgb is None else other.rgb,
            flow=first.flow if other.flow is None else other.flow,
            settings=first.settings | other.settings,
        )
    return first

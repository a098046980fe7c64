"""Features on disk, keyed by the file's content and by every setting that changes them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from extractors.config import WHOLE, Stretch
from extractors.decode.container import VideoError
from extractors.features import PART, Extractor, Features
from pipeline.cache.content import content_hash
from pipeline.cache.extraction import Extraction, Told, merge
from support.errors import Busy, Stopped
from support.locks import Lock
from support.paths import cache_dir
from support.progress import Progress, silent

__all__ = ["FeatureCache", "content_hash", "merge"]

LOCK = ".lock"


class FeatureCache:
    """One file a stream of a video; a stream that was extracted before is never extracted again.

    While a video is extracted its parts stand in a folder beside the file, so that a run that is killed goes on
    where it was.
    """

    def __init__(self, folder: Path | None = None, part: int = PART) -> None:
        """`part`: snippets in a part."""
        self.folder, self.part = folder or cache_dir() / "features", part

    def entry(self, content: str, settings: Mapping[str, object], stretch: Stretch) -> Path:
        """Where the features of one stream stand."""
        key = json.dumps({"settings": settings, "range": [stretch.start, stretch.end]}, sort_keys=True)
        return self.folder / content[:2] / f"{content}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def lock(self, content: str) -> Lock:
        """What a process holds while it extracts a video: no other one extracts it at the same time."""
        return Lock(self.folder / content[:2] / f"{content}{LOCK}")

    def features(
        self,
        path: Path,
        content: str,
        extractor: Extractor,
        stretch: Stretch = WHOLE,
        on_progress: Progress = silent,
        on_damage: Told = lambda message: None,
        stop: Callable[[], bool] = lambda: False,
        wait: bool = True,
    ) -> Features:
        """Features of a video, from the cache where it has them, else extracted and put there.

        Args:
            content: `content_hash(path)`.
            on_damage: told about entries that are there but damaged (they are extracted again), and about a folder
                that cannot be written: the features are given all the same.
            stop: asked now and then; once it is true, what is there is kept and the rest is left.
            wait: for another process that is at work on the video.

        Raises:
            VideoError: what is missing cannot be extracted; ReadError: the file cannot be read, or is written to.
            Stopped: `stop` said so.
            Busy: another process is at work on it, and there was to be no waiting.
        """
        state = Extraction(self, path, content, extractor, stretch, on_damage)
        if (found := state.found()) is not None:
            return found
        lock = self.lock(content)
        try:
            if not lock.take():
                if not wait:
                    raise Busy(f"{path}: another process is at work on it.")
                on_progress("wait", 0, 1)
                if not lock.wait(stop):
                    raise Stopped
        except OSError as error:
            state.unwritable(error)
        with lock.held():
            if (found := state.found()) is not None:  # the other process has it
                return found
            state.look()
            while (chunk := state.next_chunk()) is not None:
                before = len(state)
                state.extract(chunk, on_progress, stop)
                if stop() and state.next_chunk() is not None:
                    raise Stopped
                if len(state) == before:
                    raise VideoError(f"{path}: its frames cannot be numbered; convert it to MP4.")
            return state.finish()

"""Features of videos, kept by the file's content and by every setting that changes them."""

from __future__ import annotations

from collections.abc import Callable

from extractors.config import WHOLE, Stretch
from extractors.decode.video import VideoError
from extractors.features import Extractor, Features
from pipeline.cache.content import CacheFolder, Video
from pipeline.cache.extraction import Extraction, Notify, parts_folder
from support.errors import Busy, Stopped
from support.progress import Progress, silent


class FeatureCache(CacheFolder):
    """The feature cache: a stream that was extracted before is never extracted again.

    While a video is being extracted, its parts are in a folder beside the file, so that a run that was killed continues
    where it was.
    """

    def untouched(self, content: str, extractor: Extractor, stretch: Stretch = WHOLE) -> bool:
        """Whether the cache has nothing of a video's features, so that it will be read from its beginning."""
        entries = [self.entry(content, settings, stretch) for settings in extractor.settings().values()]
        return not any(entry.exists() or parts_folder(entry).exists() for entry in entries)

    def features(
        self,
        path: Video,
        content: str,
        extractor: Extractor,
        stretch: Stretch = WHOLE,
        on_progress: Progress = silent,
        on_damage: Notify = lambda message: None,
        stop: Callable[[], bool] = lambda: False,
        wait: bool = True,
    ) -> Features:
        """Features of a video: from the cache, or else extracted and put there.

        Args:
            content: `content_hash(path)`.
            on_damage: gets a message about a damaged entry, which is extracted again, and about a folder that cannot
                be written. The features are returned all the same.
            stop: called from time to time; once it returns true, finished parts stay and the rest is left.
            wait: whether to wait for another process that is working on the video.

        Raises:
            VideoError: what is missing cannot be extracted.
            ReadError: the file cannot be read, or was written to meanwhile.
            Stopped: `stop` returned true.
            Busy: another process is working on it, and `wait` is false.
        """
        state = Extraction(self, path, content, extractor, stretch, on_damage)
        if (found := state.found()) is not None:
            return found
        lock = self.lock(content)
        try:
            if not lock.take():
                if not wait:
                    raise Busy(f"{path}: another process is working on it.")
                on_progress("wait", 0, 1)
                if not lock.wait(stop):
                    raise Stopped
        except OSError as error:
            state.unwritable(error)
        with lock.held():
            if (found := state.found()) is not None:  # another process has just extracted it
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

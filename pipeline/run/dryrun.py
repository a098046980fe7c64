"""What a run would do: which videos it would extract, how long they are, and how much disk they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.config import NOTHING
from extractors.decode.video import VideoError
from pipeline.cache.content import at_hand, content_hash, known_version
from pipeline.cache.extraction import Extraction
from pipeline.run.outcome import Existing
from pipeline.run.remaking import Redo
from pipeline.run.videos import Job
from pipeline.workers.engine import Request
from support.errors import UserError, as_bug
from support.progress import Progress

ROW_BYTES = 4 * 1024 + 16  # of a snippet in one stream, and its times


@dataclass(frozen=True)
class Planned:
    """What a run would do with a video."""

    job: Job
    what: str
    """extract, go on, from cache, keep, duplicate, or fail"""
    seconds: float = 0.0
    """seconds of video that would be extracted"""
    disk: int = 0
    """bytes that its features would take"""
    error: Exception | None = None
    message: str = ""
    """why the output that is there would be made again"""
    mute: bool = False
    """whether it would be extracted, but its header does not say how long it is"""


def plan(
    request: Request,
    jobs: Sequence[Job],
    existing: Existing = lambda job, content: None,
    on_progress: Callable[[Job], Progress] = lambda job: lambda s, d, t: None,
) -> Iterator[Planned]:
    """What a run would do with each video. Each file is read to its end, and one frame of it is decoded.

    A video in a store is not fetched for that: if no earlier run has read it, its length stays unknown.
    """
    seen: set[str] = set()
    extractor, config = request.extractor, request.extractor.config
    for job in jobs:
        try:
            if not isinstance(job.video, Path) and not known_version(job.video):
                yield Planned(job, "extract", mute=True)
                continue
            content = content_hash(job.video, on_progress(job))
            if content in seen:
                yield Planned(job, "duplicate")
                continue
            seen.add(content)
            there = existing(job, content)
            if there is not None and not isinstance(there, Redo):
                yield Planned(job, "keep")
                continue
            message = "" if there is None else there.why
            state = Extraction(request.cache, job.video, content, extractor, request.stretch)
            if all(entry.exists() for entry in state.entries.values()):
                yield Planned(job, "from cache", message=message)
                continue
            with (
                at_hand(job.video, content, on_progress(job)) as path,
                extractor.decoder.open(path, config, NOTHING) as (clip, frames),
            ):
                for _ in frames:
                    pass
            seconds = max(min(clip.info.duration or 0.0, request.stretch.end) - request.stretch.start, 0.0)
            rows = seconds * config.fps / config.stride
            state.look()
            done = max((sum(len(p.times) for p in parts) for parts in state.parts.values()), default=0)
            left = max(rows - done, 0.0) * config.stride / config.fps
            disk = round(rows * ROW_BYTES * len(extractor.streams))
            what, mute = "go on" if done else "extract", not clip.info.duration
            yield Planned(job, what, left, disk, message=message, mute=mute)
        except UserError as error:
            yield Planned(job, "fail", error=error)
        except OSError as error:
            yield Planned(job, "fail", error=VideoError(f"{job.video}: cannot be read ({error.strerror})."))
        except Exception as error:
            yield Planned(job, "fail", error=as_bug(error, job.video))

"""What a run would do: which videos, for how long, and how much disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from extractors.decode.container import VideoError
from pipeline.cache.entries import content_hash
from pipeline.cache.extraction import Extraction
from pipeline.run.batch import Kept
from pipeline.run.remaking import Redo
from pipeline.run.videos import Job
from pipeline.workers.engine import Request
from support.errors import UserError, as_bug
from support.progress import Progress

ROW_BYTES = 4 * 1024 + 16  # of a snippet in one stream, and its times


@dataclass(frozen=True)
class Planned:
    """What would become of a video."""

    job: Job
    what: str
    """extract, go on, from cache, keep, duplicate, or fail"""
    seconds: float = 0.0
    """of video that would have to be extracted"""
    disk: int = 0
    """bytes that its features would take"""
    error: Exception | None = None
    said: str = ""
    """why what stands there would be made anew"""
    mute: bool = False
    """whether it would be extracted, and its header does not say how long it is"""


def plan(
    request: Request,
    jobs: Sequence[Job],
    kept: Kept = lambda job, content: None,
    on_progress: Callable[[Job], Progress] = lambda job: lambda s, d, t: None,
) -> Iterator[Planned]:
    """What would be done with each video. Files are read to their end, and one frame of each is decoded."""
    seen: set[str] = set()
    extractor, config = request.extractor, request.extractor.config
    for job in jobs:
        try:
            content = content_hash(job.video, on_progress(job))
            if content in seen:
                yield Planned(job, "duplicate")
                continue
            seen.add(content)
            there = kept(job, content)
            if there is not None and not isinstance(there, Redo):
                yield Planned(job, "keep")
                continue
            said = "" if there is None else there.why
            state = Extraction(request.cache, job.video, content, extractor, request.start, request.end)
            if all(entry.exists() for entry in state.entries.values()):
                yield Planned(job, "from cache", said=said)
                continue
            opened = extractor.decoder.open(job.video, config, 0.0, 0.0)
            with opened as (clip, frames):
                for _ in frames:
                    pass
            seconds = max(min(clip.info.duration or 0.0, request.end) - request.start, 0.0)
            rows = seconds * config.fps / config.stride
            state.look()
            done = max((sum(len(p.times) for p in parts) for parts in state.parts.values()), default=0)
            left = max(rows - done, 0.0) * config.stride / config.fps
            disk = round(rows * ROW_BYTES * len(extractor.streams))
            what, mute = "go on" if done else "extract", not clip.info.duration
            yield Planned(job, what, left, disk, said=said, mute=mute)
        except UserError as error:
            yield Planned(job, "fail", error=error)
        except OSError as error:
            yield Planned(job, "fail", error=VideoError(f"{job.video}: cannot be read ({error.strerror})."))
        except Exception as error:
            yield Planned(job, "fail", error=as_bug(error, job.video))

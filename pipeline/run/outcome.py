"""The outcome of a video: its result or features, or the error that it failed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from extractors.decode.container import VideoError
from extractors.featurefile import Features
from pipeline.run.remaking import Redo
from pipeline.run.videos import Job
from postprocess.segment import Result
from support.errors import BUG, ENVIRONMENT, FULL, MEMORY, DiskFull, Stopped, as_bug, exit_code


@dataclass(frozen=True)
class Outcome:
    """What became of a video: `result` (or `features`) is there unless it failed."""

    job: Job
    result: Result | None = None
    features: Features | None = None
    skipped: bool = False
    """whether the result was there already"""
    cached: bool = False
    """whether the features were there already"""
    duplicate_of: Job | None = None
    """an earlier video of the run with the same content"""
    error: Exception | None = None
    messages: tuple[str, ...] = ()
    """which earlier files were replaced, why, and which of them were saved under another name"""

    @property
    def seconds(self) -> float:
        """Seconds of video in this result; 0 if it failed."""
        found = self.result or self.features
        return 0.0 if found is None else found.duration


Existing = Callable[[Job, str], Outcome | Redo | None]
"""(video, hash of its content) -> the outcome that is there already, or why it is made again, or None"""


def failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a video that failed.

    Raises:
        Exception: the error itself, where this machine lacks something and the next video would fail too.
    """
    if isinstance(error, MemoryError):  # another video may take less
        full = VideoError(f"{job.video}: {MEMORY}.")
        full.__cause__ = error
        return Outcome(job, error=full)
    if isinstance(error, Stopped) or exit_code(error) == ENVIRONMENT:
        raise error
    if isinstance(error, OSError) and error.errno in FULL:
        raise DiskFull(f"{job.video}: the disk became full while it was processed; make room and run again.") from error
    return Outcome(job, error=as_bug(error, job.video) if exit_code(error) == BUG else error)

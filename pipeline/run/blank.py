"""Videos without a result, for pages on which marking starts from nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from extractors.decode.grid import Frames
from pipeline.run.results import Stored
from pipeline.run.videos import VIDEO_SUFFIXES, find_videos
from postprocess.formats.writers import is_result
from postprocess.segment import Result
from support.errors import UserError


def has_results(path: Path) -> bool:
    """Whether this is a result or a folder with results; else it is taken for a video or a folder of videos."""
    if path.is_dir():
        return any(is_result(p) for p in path.rglob("*.json")) or not any(_are_videos(path))
    return path.suffix.lower() not in VIDEO_SUFFIXES


def _are_videos(folder: Path) -> Iterator[bool]:
    return (True for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())


def blank_results(paths: Sequence[Path], out: Path | None) -> Iterator[Stored | UserError]:
    """A result without segments and provenance for each video, with the place where its result would be.

    Args:
        paths: videos, and folders of videos.
        out: the folder of the pages; None: each video's own folder.

    Yields:
        What stands for a video, or why it cannot be read.

    Raises:
        UsageError: a path does not exist, or a folder holds no video.
    """
    for job in find_videos([str(path) for path in paths]):
        assert isinstance(job.video, Path)  # as the paths are
        place = job.video.with_name(job.name.name) if out is None else out / job.name
        try:
            with Frames(job.video) as frames:
                info = frames.info
        except UserError as error:
            yield error
            continue
        media = {"width": info.width, "height": info.height, "rate": info.rate, "start_timecode": info.start_timecode}
        video = Result(str(job.video), info.duration, media, (), (), {})
        yield Stored(place.with_name(f"{place.name}.json"), video)

"""Pages and overlays, which show a result together with its video, for `run -f` and `report`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2

from extractors.decode.video import VideoError
from pipeline.cache.content import Video, at_hand, video_at
from pipeline.clips import overlay as render
from pipeline.clips.encode import Image
from pipeline.clips.made import remember
from pipeline.clips.read import pictures
from pipeline.run.results import Stored, curves_of, note_page, video_of
from postprocess.curves import Curves
from postprocess.formats.annotated import Annotated
from postprocess.formats.writers import PROXY
from postprocess.pages.index import Entry, index
from postprocess.pages.report import page
from postprocess.segment import Result, Segment
from support.errors import OutputError, UserError
from support.files import write_atomically, writing
from support.progress import Progress, silent

# A larger page takes long to open, and browsers refuse data: addresses above 512 MB.
LARGEST_EMBEDDED = 256 * 2**20


@dataclass(frozen=True)
class Extras:
    """What a page may have beside its result."""

    embed: bool = False
    """put the video or its proxy into the page"""
    classes: tuple[str, ...] = ()
    """names to choose from when something is marked"""
    marked: Callable[[Result], Annotated | None] = lambda result: None
    """gives what a person marked in a video on an earlier page"""


NONE = Extras()


def write(
    name: str,
    result: Result,
    curves: Curves,
    path: Path,
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = silent,
    place: Path | None = None,
) -> None:
    """Make one of `writers.VIEWS` of a result that was just computed.

    Args:
        everything: segments of any confidence.
        place: the file to write now, which is renamed to `path` later; None: `path` itself.

    Raises:
        VideoError: the video cannot be read.
        OutputError: the file cannot be written.
    """
    video = video_at(result.video)
    if name == "overlay":
        with at_hand(video, None, on_progress) as file:
            render.overlay(result, file, place or path, on_progress)
        remember({path: place or path})
    else:
        write_page(result, curves, video, path, everything=everything, on_progress=on_progress, place=place)


def write_page(
    result: Result,
    curves: Curves | None,
    video: Video,
    path: Path,
    extras: Extras = NONE,
    everything: Sequence[Segment] | None = None,
    on_progress: Progress = silent,
    place: Path | None = None,
) -> None:
    """Write the page of one result. A video that browsers do not play gets a proxy, `<name>.proxy.mp4`, beside it.

    So does a video in a store, which a browser cannot reach.

    Args:
        everything: as in `report.page`.
        place: as in `write`.

    Raises:
        VideoError: the video cannot be read.
        OutputError: the page cannot be written, or the video is too large to be embedded.
    """
    with at_hand(video, None, on_progress) as file:
        shown = file
        if not isinstance(video, Path) or not render.playable(file):
            shown = path.with_name(path.name.removesuffix(".html") + PROXY)
            content = result.provenance.get("content")
            render.proxy(file, shown, content if isinstance(content, str) else "", on_progress)
            remember([shown])
    with writing(path):
        if extras.embed and shown.stat().st_size > LARGEST_EMBEDDED:
            raise OutputError(
                f"{shown}: {shown.stat().st_size / 2**20:.0f} MiB do not fit into a page; leave --embed out."
            )
        inside, address = shown.read_bytes() if extras.embed else None, link(shown, path.parent)
        marked = extras.marked(result)
        text = page(result, curves, address, inside, everything, extras.classes, marked)
        write_atomically(place or path, text.encode())
        if place is None:  # else it becomes part of a result, which knows its files
            note_page(path)


def link(to: Path, folder: Path) -> str:
    """Return a file's address relative to the page's folder, percent-encoded; absolute if it is on another drive."""
    try:
        relative = os.path.relpath(to.absolute(), folder.absolute())
    except ValueError:  # another drive of Windows
        return to.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def write_pages(
    stored: Sequence[Stored],
    root: Path,
    out: Path,
    videos: str | Path | None = None,
    extras: Extras = NONE,
    on_progress: Callable[[Video], Progress] = lambda video: silent,
) -> Iterator[tuple[Path, Exception | None]]:
    """Write a page for each result, and `index.html` over them.

    If a video cannot be read, it has no page, and no link on the index.

    Args:
        root: the folder below which the results are.
        out: the folder of the index; the pages are in the same folders below it as the results are below `root`.
        videos: the folder of the videos, if they are not where the results say.
        on_progress: gives the progress to call for a video.

    Yields:
        Each file with its error, or None; the index comes last.
    """
    shown: list[tuple[Result, Path | None, Video | None]] = []
    for one in stored:
        path = out / one.path.absolute().parent.relative_to(root.absolute()) / f"{one.stem}.html"
        try:
            video = video_of(one, videos)
            write_page(one.result, curves_of(one), video, path, extras, on_progress=on_progress(video))
            shown.append((one.result, path, video))
            yield path, None
        except UserError as error:
            shown.append((one.result, None, None))
            yield path, error
    yield write_index(shown, out), None


def write_index(shown: Sequence[tuple[Result, Path | None, Video | None]], out: Path) -> Path:
    """Write `index.html` over results, each with its page and its video if there are any; returns its path.

    A video that can no longer be read has no picture there.

    Raises:
        OutputError: the index cannot be written.
    """
    entries = [
        Entry(result, "" if page is None else link(page, out), None if video is None else _thumbnail(result, video))
        for result, page, video in shown
    ]
    with writing(out / "index.html"):
        write_atomically(out / "index.html", index(entries).encode())
    return out / "index.html"


def stills(video: Video, duration: float, count: int, short_side: int = 180) -> list[Image]:
    """Return the frames in the middle of each of `count` equal parts of a video, where there are any.

    Raises:
        VideoError: the video cannot be read.
    """
    times = [(k + 0.5) * duration / count for k in range(count)]
    with at_hand(video) as file:
        shown = [next(iter(pictures(file, time, time + 0.01, short_side)), None) for time in times]
    return [found[1] for found in shown if found is not None]


def _thumbnail(result: Result, video: Video) -> bytes | None:
    try:
        return thumbnail(result, video)
    except VideoError:
        return None


def thumbnail(result: Result, video: Video) -> bytes | None:
    """Return a JPEG from the middle of the best segment, or else of the video; None if there is no frame."""
    best = result.best
    middle = (best.start + best.end) / 2 if best else result.duration / 2
    with at_hand(video) as file:
        shown = next(iter(pictures(file, middle, middle + 0.01, short_side=180)), None)
    if shown is None:
        return None
    _, encoded = cv2.imencode(".jpg", shown[1][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return encoded.tobytes()

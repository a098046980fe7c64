"""Cuts segments out of their videos: exactly or at keyframes, into one file each or one highlight reel per class."""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.decode.video import VideoError
from pipeline.cache.content import Video, at_hand
from pipeline.clips.draw import card
from pipeline.clips.encode import open_movie
from pipeline.clips.made import remember
from pipeline.clips.names import NAME, formatted, named, reel_names, safe
from pipeline.clips.read import Shape, shape_of, shoot
from pipeline.clips.remux import Uncopyable, remux
from postprocess.formats.writers import clock
from postprocess.segment import Segment
from support.errors import FULL, OutputError, UsageError, cannot_write
from support.files import replacing
from support.progress import Progress, silent

CARD_SECONDS = 2.0


@dataclass(frozen=True)
class Cut:
    """A clip to make. start, end: seconds of the video, with the padding; name: the file's name without suffix."""

    video: Video
    start: float
    end: float
    segment: Segment
    name: str


OnError = Callable[["Cut", Exception], None]


@dataclass(frozen=True)
class Made:
    """A file, and the second of the video that it begins with; for a reel, that of its first clip."""

    path: Path
    begins: float


def plan(
    video: Video,
    stem: str,
    segments: Sequence[Segment],
    duration: float,
    before: float = 0.0,
    after: float = 0.0,
    template: str = NAME,
) -> list[Cut]:
    """Plan the cuts of one video, in order of time.

    Args:
        before: seconds of padding before each segment.
        after: seconds of padding after each segment.
        template: the clips' names, with the fields stem, index (from 1), name (the sport and the label), label, sport,
            start, end, confidence, and clock (the start as h-mm-ss); a / makes folders.

    Raises:
        UsageError: the template has another field, leads out of the folder, or gives two clips one name.
    """
    cuts: dict[str, Cut] = {}
    for index, s in enumerate(sorted(segments, key=lambda s: (s.start, s.end)), start=1):
        fields: dict[str, str | int | float] = {
            "stem": safe(stem),
            "index": index,
            "name": named(s),
            "label": safe(s.label),
            "sport": safe(s.sport),
            "start": round(s.start, 3),
            "end": round(s.end, 3),
            "confidence": round(s.confidence, 4),
            "clock": clock(s.start).replace(":", "-"),
        }
        name = formatted(template, fields)
        if name in cuts:
            raise UsageError(f"--name {template!r} gives two clips the name {name}; put {{index}} in it.")
        start, end = max(0.0, s.start - before), min(max(duration, s.end), s.end + after)
        cuts[name] = Cut(video, start, end, s, name)
    return list(cuts.values())


def check_names(cuts: Sequence[Cut], out: Path, *, reel: bool, copied: bool, overwrite: bool) -> None:
    """Check, before any work, that no two clips have one name and that no file is there already.

    Raises:
        UsageError: two clips would have one name.
        OutputError: a file would be overwritten.
    """
    if reel:
        names = [f"{name}.mp4" for name, _ in reel_names([c.segment for c in cuts]).values()]
    else:
        names = [f"{c.name}{c.video.suffix.lower() if copied else '.mp4'}" for c in cuts]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UsageError(f"two clips would be called {twice}; put {{stem}} and {{index}} in --name.")
    if not overwrite and (there := next((out / name for name in names if (out / name).exists()), None)):
        raise OutputError(f"{there}: is there already; use --overwrite or another -o.")


def cut(
    cuts: Sequence[Cut],
    out: Path,
    on_progress: Progress = silent,
    on_error: OnError | None = None,
) -> Iterator[Made]:
    """Encode each clip again, exact to the frame, as `<name>.mp4`.

    on_error: called for each clip that cannot be made, while the others are made. None: the first error is raised.

    Raises:
        VideoError: a video cannot be read.
        OutputError: a clip cannot be written.
        DiskFull: the disk is full. This is always raised.
    """

    def make(one: Cut) -> Made:
        path = out / f"{one.name}.mp4"
        begins = None
        with at_hand(one.video) as video:
            shape = shape_of(video)
            with open_movie(path, shape.size, shape.rate) as movie:
                if shape.channels:
                    movie.add_sound(shape.channels)
                for at, time, image in shoot(movie, video, shape, one.start, one.end, at=0.0):
                    begins = time if begins is None else begins
                    movie.picture(image, at)
                if begins is None:
                    raise VideoError(_no_frame(one))
        return Made(path, begins)

    return _each(cuts, make, on_progress, on_error)


def copy(
    cuts: Sequence[Cut],
    out: Path,
    on_progress: Progress = silent,
    on_error: OnError | None = None,
) -> Iterator[Made]:
    """Copy the packets of each clip, from the keyframe at or before its start: fast and lossless, but seldom exact.

    on_error: as for `cut`.

    Raises:
        VideoError: a video cannot be read.
        OutputError: a clip cannot be written, or its container cannot hold the video's packets.
        DiskFull: the disk is full. This is always raised.
    """

    def make(one: Cut) -> Made:
        path = out / f"{one.name}{one.video.suffix.lower()}"
        try:
            with at_hand(one.video) as video, replacing(path) as temporary:
                begins = remux(video, one.start, one.end, temporary)
        except Uncopyable as error:
            code = getattr(error.__cause__, "errno", None)
            if code in FULL:
                raise cannot_write(path, OSError(code, str(error))) from error
            raise OutputError(f"{one.video}: cannot be copied ({error}); leave --copy out.") from error
        except OSError as error:
            raise cannot_write(path, error) from error
        return Made(path, begins)

    return _each(cuts, make, on_progress, on_error)


def _each(
    cuts: Sequence[Cut], make: Callable[[Cut], Made], on_progress: Progress, on_error: OnError | None
) -> Iterator[Made]:
    paths = []
    try:
        for done, one in enumerate(cuts):
            on_progress("clips", done, len(cuts))
            try:
                made = make(one)
            except (VideoError, OutputError) as error:
                if on_error is None:
                    raise
                on_error(one, error)
                continue
            paths.append(made.path)
            yield made
        on_progress("clips", len(cuts), len(cuts))
    finally:
        remember(paths)


def _no_frame(one: Cut) -> str:
    return f"{one.video}: no frame of it at {clock(one.start)}; the file may be damaged."


def size_of(text: str) -> tuple[int, int]:
    """(H, W) of a text such as 1280x720.

    Raises:
        UsageError: it is no size of a picture, or an odd one, which players do not take.
    """
    found = re.fullmatch(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})", text.strip())
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise UsageError(f"--size {text}: write WIDTHxHEIGHT in pixels, such as 1280x720.")
    if width % 2 or height % 2:
        raise UsageError(f"--size {text}: both sides must be even, or players do not show the film.")
    return height, width


def reels(
    cuts: Sequence[Cut],
    out: Path,
    on_progress: Progress = silent,
    on_error: OnError | None = None,
    size: tuple[int, int] | None = None,
) -> Iterator[Made]:
    """Make one highlight reel for each class, called as it: a title card, then the clips one after the other.

    A reel has the size that most of its clips have; of several, the largest. Videos of another shape are fitted
    between black borders. Videos without sound are silent.

    size: (H, W) of all reels instead.
    on_error: called for each clip that is missing in its reel, and for all clips of a reel that cannot be written.
        None: the first error is raised.

    Raises:
        VideoError: a video cannot be read.
        OutputError: a reel cannot be written.
        DiskFull: the disk is full. This is always raised.
    """

    def failed(one: Cut, error: Exception) -> None:
        if on_error is None:
            raise error
        on_error(one, error)

    shapes: dict[Video, Shape | VideoError] = {}
    for video in dict.fromkeys(one.video for one in cuts):
        try:
            with at_hand(video) as path:
                shapes[video] = shape_of(path)
        except VideoError as error:
            shapes[video] = error
    by_label: dict[str, list[Cut]] = {}
    for one in cuts:
        by_label.setdefault(one.segment.label, []).append(one)
    names = reel_names([one.segment for one in cuts])
    steps = itertools.count()
    for label, own in sorted(by_label.items()):
        fit: list[tuple[Cut, Shape]] = []
        for one in own:
            shape = shapes[one.video]
            if isinstance(shape, VideoError):
                failed(one, shape)
            else:
                fit.append((one, shape))
        if fit:
            name, title = names[label]
            path = out / f"{name}.mp4"
            try:
                shape = _common([shape for _, shape in fit])
                shape = shape if size is None else dataclasses.replace(shape, size=size)
                empty = _reel(path, title, fit, shape, lambda: on_progress("clips", next(steps), len(cuts)))
            except (VideoError, OutputError) as error:
                for one, _ in fit:
                    failed(one, error)
            else:
                remember([path])
                for one in empty:
                    failed(one, VideoError(_no_frame(one)))
                yield Made(path, fit[0][0].start)
    on_progress("clips", len(cuts), len(cuts))


def _common(shapes: Sequence[Shape]) -> Shape:
    """The shape whose size most of the clips have, the largest of several, with the rate that most of those have."""
    sizes = Counter(shape.size for shape in shapes)
    size = max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))
    rates = Counter(shape.rate for shape in shapes if shape.size == size)
    rate = max(rates, key=lambda rate: (rates[rate], rate))
    return next(shape for shape in shapes if (shape.size, shape.rate) == (size, rate))


def _reel(
    path: Path, title: str, own: Sequence[tuple[Cut, Shape]], frame: Shape, tick: Callable[[], None]
) -> list[Cut]:
    """Write one reel with the size and the rate of `frame`; returns the clips that have no frame."""
    empty = []
    with open_movie(path, frame.size, frame.rate) as movie:
        if channels := max(shape.channels for _, shape in own):
            movie.add_sound(channels)
        shown = sum(one.end - one.start for one, _ in own)
        below = f"{len(own)} clip{'s' if len(own) > 1 else ''} · {clock(shown)}"
        movie.picture(card((movie.height, movie.width), title, below), 0.0)
        at = CARD_SECONDS
        for one, shape in own:
            tick()
            shape = dataclasses.replace(shape, channels=channels if shape.channels else 0)
            last, step, shown_any = at, float(1 / frame.rate), False
            with at_hand(one.video) as video:
                for time, _, image in shoot(movie, video, shape, one.start, one.end, at=at):
                    movie.picture(image, time)
                    last, step, shown_any = time, time - last or step, True
            if shown_any:
                at = max(last + step, at + one.end - one.start)
            else:
                empty.append(one)
        if len(empty) == len(own):
            raise VideoError(_no_frame(own[0][0]))
    return empty

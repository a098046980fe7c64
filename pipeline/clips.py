"""Segments cut out of their videos: exact or by keyframes, one file each or one highlight reel per class."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.features import Progress
from extractors.video import VideoError
from pipeline.cut import shape_of, shoot
from pipeline.draw import card
from pipeline.errors import FULL, OutputError, UsageError, cannot_write
from pipeline.film import film, temporary
from pipeline.remux import Uncopyable, remux
from postprocess.segment import Segment
from postprocess.writers import clock

NAME = "{stem}_{index:03d}_{label}"
CARD_SECONDS = 2.0
_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*\ud800-\udfff]+')
LONGEST_NAME = 180  # bytes; file systems take 255, with a suffix and a temporary name's letters


@dataclass(frozen=True)
class Cut:
    """A clip to make. start, end: seconds with the padding, inside the video; name: of the file, without suffix."""

    video: Path
    start: float
    end: float
    segment: Segment
    name: str


@dataclass(frozen=True)
class Made:
    """A file, and the second of the video that it begins with (of a reel: of its first clip)."""

    path: Path
    begins: float


def plan(
    video: Path,
    stem: str,
    segments: Sequence[Segment],
    duration: float,
    before: float = 0.0,
    after: float = 0.0,
    template: str = NAME,
) -> list[Cut]:
    """The cuts of one video, in order of time.

    template: fields stem, index (from 1), label, start, end, confidence, and clock (of the start); / makes folders.

    Raises:
        UsageError: a template with another field, that leads out of the folder, or gives two clips one name.
    """
    cuts: dict[str, Cut] = {}
    for index, s in enumerate(sorted(segments, key=lambda s: (s.start, s.end)), start=1):
        fields: dict[str, str | int | float] = {
            "stem": _safe(stem),
            "index": index,
            "label": _safe(s.label),
            "start": round(s.start, 3),
            "end": round(s.end, 3),
            "confidence": round(s.confidence, 4),
            "clock": clock(s.start).replace(":", "-"),
        }
        name = _formatted(template, fields)
        if name in cuts:
            raise UsageError(f"--name {template!r} gives two clips the name {name}; put {{index}} in it.")
        start, end = max(0.0, s.start - before), min(max(duration, s.end), s.end + after)
        cuts[name] = Cut(video, start, end, s, name)
    return list(cuts.values())


def _formatted(template: str, fields: dict[str, str | int | float]) -> str:
    if re.search(r"\{[^}]*[.\[]", re.sub(r":[^}]*", "", template)):  # attributes and items are not for names
        raise UsageError(f"--name {template!r}: write fields as {{label}} or {{start:.1f}}.")
    try:
        name = template.format(**fields)
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(fields)
        raise UsageError(f"--name {template!r} cannot be filled in ({error}); its fields are {known}.") from error
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or name.endswith("/"):
        raise UsageError(f"--name {template!r} gives {name!r}, which is no file name below the output folder.")
    return "/".join(part.encode()[:LONGEST_NAME].decode(errors="ignore") for part in parts)


def _safe(text: str) -> str:
    """Text as a part of a file name on any system."""
    return _UNSAFE.sub("_", text).strip(" .") or "_"


def check_names(cuts: Sequence[Cut], out: Path, *, reel: bool, copied: bool, overwrite: bool) -> None:
    """Before any work: no two clips of one name, and none that is there already.

    Raises:
        UsageError: two results give clips one name.
        OutputError: a file would be overwritten.
    """
    if reel:
        names = [f"{name}.mp4" for name in _file_names(list({c.segment.label for c in cuts})).values()]
    else:
        names = [f"{c.name}{c.video.suffix.lower() if copied else '.mp4'}" for c in cuts]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UsageError(f"two clips would be called {twice}; put {{stem}} and {{index}} in --name.")
    if not overwrite and (there := next((out / name for name in names if (out / name).exists()), None)):
        raise OutputError(f"{there}: is there already; use --overwrite or another -o.")


def cut(cuts: Sequence[Cut], out: Path, on_progress: Progress = lambda stage, done, total: None) -> Iterator[Made]:
    """Encode each clip anew, exact to the frame, as `<name>.mp4`.

    Raises:
        VideoError: a video cannot be read.
        OutputError: a clip cannot be written.
    """
    for done, one in enumerate(cuts):
        on_progress("clips", done, len(cuts))
        path = out / f"{one.name}.mp4"
        shape = shape_of(one.video)
        begins = None
        with film(path, shape.size, shape.rate) as reel:
            if shape.channels:
                reel.add_sound(shape.channels)
            for at, time, image in shoot(reel, one.video, shape, one.start, one.end, at=0.0):
                begins = time if begins is None else begins
                reel.picture(image, at)
            if begins is None:
                raise VideoError(f"{one.video}: no frame of it at {clock(one.start)}; the file may be damaged.")
        yield Made(path, begins)
    on_progress("clips", len(cuts), len(cuts))


def copy(cuts: Sequence[Cut], out: Path, on_progress: Progress = lambda stage, done, total: None) -> Iterator[Made]:
    """Copy the packets of each clip, from the keyframe at or before its start: quick, lossless, and seldom exact.

    Raises:
        VideoError: a video cannot be read.
        OutputError: a clip cannot be written, or the container does not take what the video holds.
    """
    for done, one in enumerate(cuts):
        on_progress("clips", done, len(cuts))
        path = out / f"{one.name}{one.video.suffix.lower()}"
        with temporary(path) as beside:
            try:
                begins = remux(one.video, one.start, one.end, beside)
            except Uncopyable as error:
                code = getattr(error.__cause__, "errno", None)
                if code in FULL:
                    raise cannot_write(path, OSError(code, str(error))) from error
                raise OutputError(f"{one.video}: cannot be copied ({error}); leave --copy out.") from error
        yield Made(path, begins)
    on_progress("clips", len(cuts), len(cuts))


def reels(cuts: Sequence[Cut], out: Path, on_progress: Progress = lambda stage, done, total: None) -> Iterator[Made]:
    """One highlight reel a class as `<label>.mp4`: a title card, then its clips one behind the other.

    Videos of another shape than the first are fitted between black borders; silence where one has no sound.

    Raises:
        VideoError: a video cannot be read.
        OutputError: a reel cannot be written.
    """
    by_label: dict[str, list[Cut]] = {}
    for one in cuts:
        by_label.setdefault(one.segment.label, []).append(one)
    names = _file_names(list(by_label))
    done = 0
    for label, own in sorted(by_label.items()):
        shapes = {video: shape_of(video) for video in dict.fromkeys(c.video for c in own)}
        first = shapes[own[0].video]
        path = out / f"{names[label]}.mp4"
        with film(path, first.size, first.rate) as reel:
            if channels := max(shape.channels for shape in shapes.values()):
                reel.add_sound(channels)
            shown = sum(c.end - c.start for c in own)
            below = f"{len(own)} clip{'s' if len(own) > 1 else ''} · {clock(shown)}"
            reel.picture(card((reel.height, reel.width), label, below), 0.0)
            at = CARD_SECONDS
            for one in own:
                on_progress("clips", done, len(cuts))
                shape = shapes[one.video]
                shape = dataclasses.replace(shape, channels=channels if shape.channels else 0)
                last, step = at, float(1 / first.rate)
                for time, _, image in shoot(reel, one.video, shape, one.start, one.end, at=at):
                    reel.picture(image, time)
                    last, step = time, time - last or step
                at = max(last + step, at + one.end - one.start)
                done += 1
        yield Made(path, own[0].start)
    on_progress("clips", len(cuts), len(cuts))


def _file_names(labels: Sequence[str]) -> dict[str, str]:
    """Label → file name; labels that would share one are numbered."""
    names: dict[str, str] = {}
    for label in sorted(labels):
        name, number = _safe(label).encode()[:LONGEST_NAME].decode(errors="ignore"), 2
        while name.lower() in {n.lower() for n in names.values()}:
            name, number = f"{_safe(label)} ({number})", number + 1
        names[label] = name
    return names

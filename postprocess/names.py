"""Which video of the ground truth a name means: tools name one file by its path, its name or its stem."""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from postprocess.protocols import EvaluateError


def match_names(predicted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Predicted video → video of the ground truth, all of them; see `find_names`.

    Raises:
        EvaluateError: a video that the ground truth does not have, or two that are one.
    """
    known = list(known)
    matched, lost = find_names(predicted, known)
    if lost:
        raise EvaluateError(not_there(lost, known))
    return matched


def find_names(
    given: Iterable[str], known: Iterable[str], *, several: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Given video → video of the ground truth: the same name, or the same but for folder and suffix; and those lost.

    Only one side may lose its suffix: clip.v2 is not clip.v3. ActivityNet's files are called v_<id>. Of several that
    fit, the one in the same folder is meant: cameras call the first file of every day GX01.mp4. several: two names
    may mean one video.

    Raises:
        EvaluateError: a name that may be several videos, or two that are one.
    """
    known = list(known)
    exact, by_name, by_stem = set(known), _index(known, lambda p: p.name), _index(known, lambda p: p.stem)
    matched: dict[str, str] = {}
    lost: list[str] = []
    for name in given:
        path = as_path(name)
        ways = (
            [name] if name in exact else None,
            by_name.get(path.name),
            by_name.get(path.stem),
            by_stem.get(path.name),
            by_name.get(path.stem.removeprefix("v_")),
        )
        options = next((way for way in ways if way), [])
        if len(options) > 1:
            same = [option for option in options if _folders(name) == _folders(option)]
            options = same or [option for option in options if _beside(name, option)] or options
        if len(options) > 1:
            raise EvaluateError(f"video {name!r} may be {options[0]!r} or {options[1]!r} of the ground truth.")
        if options:
            matched[name] = options[0]
        else:
            lost.append(name)
    for video in [video for video, count in Counter(matched.values()).items() if count > 1]:
        both = {name: video for name, of in matched.items() if of == video}
        others = elsewhere(both)
        if len(both) - len(others) == 1:  # the ground truth has one day's GX01.mp4 and not the other's
            lost += others
            matched = {name: of for name, of in matched.items() if name not in others}
        elif not several:
            one, two, *_ = both
            raise EvaluateError(f"{one!r} and {two!r} are both video {video!r} of the ground truth; give one.")
    return matched, lost


def not_there(lost: Collection[str], known: Collection[str]) -> str:
    """A sentence about videos that the ground truth does not have."""
    first = next(iter(lost))
    example = difflib.get_close_matches(first, known, n=1) or list(known)[:1]
    has = f"has {example[0]!r}" if example else "is empty"
    count = f"video {first!r} is" if len(lost) == 1 else f"{len(lost)} videos, {first!r} first, are"
    return f"{count} not in the ground truth, which {has}; names must agree but for folder and suffix."


def elsewhere(matched: Mapping[str, str]) -> list[str]:
    """The given names that were matched although both sides name a folder, and not the same one."""
    return [name for name, video in matched.items() if not _beside(name, video) and _folders(name) and _folders(video)]


def as_path(name: str) -> PurePosixPath:
    """A video's name as a path, whichever system wrote it."""
    return PurePosixPath(name.replace("\\", "/"))


def _folders(name: str) -> tuple[str, ...]:
    return as_path(name).parent.parts


def _beside(name: str, other: str) -> bool:
    """Whether the folders that both name, counted from the file, are the same."""
    a, b = _folders(name), _folders(other)
    n = min(len(a), len(b))
    return n > 0 and a[-n:] == b[-n:]


def _index(names: Iterable[str], key: Callable[[PurePosixPath], str]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name in names:
        index.setdefault(key(as_path(name)), []).append(name)
    return index


def told_apart(videos: Sequence[str]) -> list[str]:
    """The file names of videos; where two are alike, with as many of the folders above as tell them apart."""
    parts = [[part for part in video.replace("\\", "/").split("/") if part] or [video] for video in videos]
    depth = [1] * len(parts)
    while True:
        names = ["/".join(own[-n:]) for own, n in zip(parts, depth, strict=True)]
        counts = Counter(names)
        wider = [i for i, name in enumerate(names) if counts[name] > 1 and depth[i] < len(parts[i])]
        if not wider:
            return names
        for i in wider:
            depth[i] += 1

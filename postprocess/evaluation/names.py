"""Matching of names: tools and people spell the name of one video or label in several ways."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from postprocess.evaluation.protocols import EvaluateError

LOOKED_AT = 20  # how many close names are compared; some of them may be other takes of a recording


def nfc(name: str) -> str:
    """The name in composed letters (NFC): Mac disks store é as two characters, keyboards type it as one."""
    return unicodedata.normalize("NFC", name)


def loose(name: str) -> str:
    """The name without what nobody sees or some disks ignore: case, kinds of blanks, zero-width characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(c for c in folded if unicodedata.category(c) != "Cf").split())


def _any_suffix_case(name: str) -> str:
    path = PurePosixPath(nfc(name))
    return str(path.with_suffix(path.suffix.lower()) if path.suffix else path)


FORMS: tuple[Callable[[str], str], ...] = (str, nfc, _any_suffix_case, loose)
"""The forms in which names are compared, strictest first. A looser form is used only if no stricter one matches."""


class Index:
    """Names by key, in each of FORMS; a form is computed when it is first needed."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = list(dict.fromkeys(pairs))  # of key, name
        self._made: dict[Callable[[str], str], dict[str, list[str]]] = {}

    def find(self, form: Callable[[str], str], key: str) -> list[str]:
        """The names whose keys are equal in this form, in their original order."""
        if form not in self._made:
            index: dict[str, list[str]] = {}
            for known, name in self._pairs:
                names = index.setdefault(form(known), [])
                if name not in names:
                    names.append(name)
            self._made[form] = index
        return self._made[form].get(form(key), [])


def lookup(*ways: tuple[Index, str]) -> list[str]:
    """The names that the first successful way finds; all ways are tried in one form before the next form."""
    found = (index.find(form, key) for form in FORMS for index, key in ways)
    return next((names for names in found if names), [])


def match_names(predicted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Predicted video → video of the ground truth, for all predicted videos; see `find_names`.

    Raises:
        EvaluateError: the ground truth lacks a video, or two predicted videos are the same one.
    """
    known = list(known)
    matched, lost = find_names(predicted, known)
    if lost:
        raise EvaluateError(not_there(lost, known))
    return matched


def find_names(
    given: Iterable[str], known: Iterable[str], *, several: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Match given videos with videos of the ground truth; names may differ in folder and suffix.

    A suffix may be missing on one side only, since clip.v2 is not clip.v3. ActivityNet's files are called v_<id>. If
    several videos match, the one in the same folder is meant: cameras call the first file of every day GX01.mp4. Names
    are compared in FORMS, so that é equals é however a disk stores it.

    Args:
        given: names to match.
        known: names in the ground truth.
        several: whether two given names may mean the same video.

    Returns:
        Given video → video of the ground truth, and the given videos without a match.

    Raises:
        EvaluateError: a name may mean several videos, or two names mean the same one.
    """
    known = list(known)
    exact = Index((as_path(name).as_posix(), name) for name in known)
    by_name, by_stem = (Index((getattr(as_path(n), part), n) for n in known) for part in ("name", "stem"))
    matched: dict[str, str] = {}
    lost: list[str] = []
    for name in given:
        path = as_path(name)
        options = lookup(
            (exact, path.as_posix()),
            (by_name, path.name),
            (by_name, path.stem),
            (by_stem, path.name),
            (by_name, path.stem.removeprefix("v_")),
        )
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
        others = {*elsewhere(both), *respelled(both)}
        if len(both) - len(others) == 1:  # the ground truth has the GX01.mp4 of one day only
            lost += [name for name in both if name in others]
            matched = {name: of for name, of in matched.items() if name not in others}
        elif not several:
            one, two, *_ = both
            raise EvaluateError(f"{one!r} and {two!r} are both video {video!r} of the ground truth; give one.")
    return matched, lost


def not_there(lost: Collection[str], known: Collection[str]) -> str:
    """A sentence about videos that the ground truth lacks."""
    first = next(iter(lost))
    example = suggest(first, known) or next(iter(known), None)
    has = "is empty" if example is None else f"has {example!r}"
    count = f"video {first!r} is" if len(lost) == 1 else f"{len(lost)} videos, {first!r} first, are"
    return f"{count} not in the ground truth, which {has}; names may differ in folder and suffix only."


def elsewhere(matched: Mapping[str, str]) -> list[str]:
    """The given names that were matched although they and their match name different folders."""
    return [name for name, video in matched.items() if not _beside(name, video) and _folders(name) and _folders(video)]


def respelled(matched: Mapping[str, str]) -> list[str]:
    """The given names whose match is spelled differently apart from folder and suffix, usually in case."""
    return [name for name, video in matched.items() if not _spellings(name) & _spellings(video)]


def match_labels(given: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Given label → known label, for given labels that are spelled differently.

    The two differ only in form, case, blanks or underscores. A known label that is also given means itself, and a given
    label that may mean several known ones is left as it is.
    """
    given, known = dict.fromkeys(given), dict.fromkeys(known)
    index = Index((label, label) for label in known), Index((_unscored(label), label) for label in known)
    meant = {}
    for label in given:
        options = [] if label in known else lookup((index[0], label), (index[1], _unscored(label)))
        if len(options) == 1 and options[0] not in given:
            meant[label] = options[0]
    return meant


def label_key(label: str) -> str:
    """A key that is equal for all spellings of a label."""
    return loose(_unscored(label))


def suggest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that `name` may be a misspelling of, if there is one.

    Names that look the same are not suggested, since nobody could see what to change. Other takes are not suggested,
    either: heat_b is not a misspelling of heat_a.
    """
    composed = {nfc(other): other for other in known}
    close = difflib.get_close_matches(nfc(name), list(composed), n=LOOKED_AT, cutoff=cutoff)
    return next((composed[c] for c in close if loose(c) != loose(name) and not _takes(c, nfc(name))), None)


def as_path(name: str) -> PurePosixPath:
    """The name of a video as a path, with / or \\ between folders."""
    return PurePosixPath(name.replace("\\", "/"))


def _folders(name: str) -> tuple[str, ...]:
    return tuple(map(loose, as_path(name).parent.parts))


def _beside(name: str, other: str) -> bool:
    """Whether the folders agree, counted from the file, as far as both names have them."""
    a, b = _folders(name), _folders(other)
    n = min(len(a), len(b))
    return n > 0 and a[-n:] == b[-n:]


def _spellings(name: str) -> set[str]:
    """The file name in composed letters, with and without what may be a suffix."""
    path = as_path(nfc(name))
    return {path.name, path.stem, path.stem.removeprefix("v_")}


def _unscored(label: str) -> str:
    return label.replace("_", " ")


def _takes(one: str, two: str) -> bool:
    """Whether two names differ only in counters: numbers, single letters, or a capital at the end of a word."""
    bare = [str(path.with_suffix("") if path.suffix else path) for path in map(as_path, (one, two))]
    return _uncounted(one) == _uncounted(two) or (bare[0] != bare[1] and _uncounted(bare[0]) == _uncounted(bare[1]))


def _uncounted(name: str) -> tuple[str, ...]:
    """The words of a name, with `*` for each counter. Counters at the end are dropped: the first take may have none."""
    words: list[str] = []
    for word in re.findall(r"\d+|[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z](?![a-z]))", " ", name)):
        words.append("*" if word.isdigit() or len(word) == 1 else word.casefold())
    while words and words[-1] == "*":
        words.pop()
    return tuple(words)


def told_apart(videos: Sequence[str]) -> list[str]:
    """The file names of videos; equal names get as many parent folders as are needed to tell them apart."""
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

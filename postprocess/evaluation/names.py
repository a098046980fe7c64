"""Which video or label a name means: tools and people spell one name in several ways."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from postprocess.evaluation.protocols import EvaluateError

LOOKED_AT = 20  # close names, of which some may be other takes


def nfc(name: str) -> str:
    """The name in composed letters: a Mac's disk stores é as two characters, and keyboards type it as one."""
    return unicodedata.normalize("NFC", name)


def loose(name: str) -> str:
    """The name without what looks the same or what some disks ignore: case, kinds of blanks, characters of no width."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(c for c in folded if unicodedata.category(c) != "Cf").split())


def _any_suffix_case(name: str) -> str:
    path = PurePosixPath(nfc(name))
    return str(path.with_suffix(path.suffix.lower()) if path.suffix else path)


FORMS: tuple[Callable[[str], str], ...] = (str, nfc, _any_suffix_case, loose)
"""Forms in which names are compared, the strictest first: a looser one counts only where no stricter one fits."""


class Index:
    """Names by a key, in each of FORMS; a form is worked out when it is first asked for."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = list(dict.fromkeys(pairs))  # of key, name
        self._made: dict[Callable[[str], str], dict[str, list[str]]] = {}

    def find(self, form: Callable[[str], str], key: str) -> list[str]:
        """The names whose key is the same in that form, in their order."""
        if form not in self._made:
            index: dict[str, list[str]] = {}
            for known, name in self._pairs:
                names = index.setdefault(form(known), [])
                if name not in names:
                    names.append(name)
            self._made[form] = index
        return self._made[form].get(form(key), [])


def lookup(*ways: tuple[Index, str]) -> list[str]:
    """The names that one of the ways finds, the first that finds any; all ways are tried in a form before the next."""
    found = (index.find(form, key) for form in FORMS for index, key in ways)
    return next((names for names in found if names), [])


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
    fit, the one in the same folder is meant: cameras call the first file of every day GX01.mp4. Names are compared in
    FORMS, so that é is é in whatever way a disk stores it. several: two names may mean one video.

    Raises:
        EvaluateError: a name that may be several videos, or two that are one.
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
        if len(both) - len(others) == 1:  # the ground truth has one day's GX01.mp4 and not the other's
            lost += [name for name in both if name in others]
            matched = {name: of for name, of in matched.items() if name not in others}
        elif not several:
            one, two, *_ = both
            raise EvaluateError(f"{one!r} and {two!r} are both video {video!r} of the ground truth; give one.")
    return matched, lost


def not_there(lost: Collection[str], known: Collection[str]) -> str:
    """A sentence about videos that the ground truth does not have."""
    first = next(iter(lost))
    example = suggest(first, known) or next(iter(known), None)
    has = "is empty" if example is None else f"has {example!r}"
    count = f"video {first!r} is" if len(lost) == 1 else f"{len(lost)} videos, {first!r} first, are"
    return f"{count} not in the ground truth, which {has}; names must agree but for folder and suffix."


def elsewhere(matched: Mapping[str, str]) -> list[str]:
    """The given names that were matched although both sides name a folder, and not the same one."""
    return [name for name, video in matched.items() if not _beside(name, video) and _folders(name) and _folders(video)]


def respelled(matched: Mapping[str, str]) -> list[str]:
    """The given names that were matched although they differ in more than form, folder and suffix: in case, mostly."""
    return [name for name, video in matched.items() if not _spellings(name) & _spellings(video)]


def match_labels(given: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Given label → the known one that is meant, of those that are not known as they are.

    They differ in form, case, blanks or underscores alone. A known label that is given too means itself, and what may
    be several known labels is left as it is.
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
    """What is the same for all spellings of a label."""
    return loose(_unscored(label))


def suggest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that `name` may be a misspelling of.

    None that looks the same, since nobody could tell what to change; and no other take: heat_b is no typo of heat_a.
    """
    composed = {nfc(other): other for other in known}
    close = difflib.get_close_matches(nfc(name), list(composed), n=LOOKED_AT, cutoff=cutoff)
    return next((composed[c] for c in close if loose(c) != loose(name) and not _takes(c, nfc(name))), None)


def as_path(name: str) -> PurePosixPath:
    """A video's name as a path, whichever system wrote it."""
    return PurePosixPath(name.replace("\\", "/"))


def _folders(name: str) -> tuple[str, ...]:
    return tuple(map(loose, as_path(name).parent.parts))


def _beside(name: str, other: str) -> bool:
    """Whether the folders that both name, counted from the file, are the same."""
    a, b = _folders(name), _folders(other)
    n = min(len(a), len(b))
    return n > 0 and a[-n:] == b[-n:]


def _spellings(name: str) -> set[str]:
    """The name alone, with and without what may be its suffix, composed."""
    path = as_path(nfc(name))
    return {path.name, path.stem, path.stem.removeprefix("v_")}


def _unscored(label: str) -> str:
    return label.replace("_", " ")


def _takes(one: str, two: str) -> bool:
    """Whether names differ in counters alone: numbers, letters that stand alone, or a capital at the end of a word."""
    bare = [str(path.with_suffix("") if path.suffix else path) for path in map(as_path, (one, two))]
    return _uncounted(one) == _uncounted(two) or (bare[0] != bare[1] and _uncounted(bare[0]) == _uncounted(bare[1]))


def _uncounted(name: str) -> tuple[str, ...]:
    """The words of a name, `*` for each counter; without those at its end, since the first take may have none."""
    words: list[str] = []
    for word in re.findall(r"\d+|[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z](?![a-z]))", " ", name)):
        words.append("*" if word.isdigit() or len(word) == 1 else word.casefold())
    while words and words[-1] == "*":
        words.pop()
    return tuple(words)


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

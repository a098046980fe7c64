"""Labels per video, read from a CSV or from a ground truth in ActivityNet's JSON.

The CSV has the columns `video` and `labels`, and may have `split`; several labels are joined by `|`. Of a ground truth
only the classes of each video are used, not the times.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from model.datasets import DatasetError
from pipeline.datasets.wtalc import labels_from_ground_truth
from pipeline.training.tables import SHOWN, read_table
from postprocess.evaluation.annotations import read_ground_truth
from postprocess.evaluation.names import FORMS, Index, as_path, label_key, nfc, respelled, suggest

TRAIN = "train"
FEWEST = 2  # videos that each class must have: the pairs of L_cas and the check on held-out videos need two
EXAMPLE = "video,labels"
COMMAS = re.compile("[,;，；、]")  # some people write these between labels


@dataclass(frozen=True)
class LabelledVideo:
    """A row of the labels: the video as the CSV names it, its labels (none if it shows no action), and its line."""

    video: str
    labels: tuple[str, ...]
    split: str
    line: int
    at: str = "line"
    """what `line` counts: lines of a CSV, or videos of a JSON"""


def load_labels(path: Path) -> tuple[tuple[LabelledVideo, ...], list[str]]:
    """All rows of a CSV, or all videos of an ActivityNet JSON, in the order of the file; and notes about the file.

    Raises:
        DatasetError: the file cannot be read, lacks a column, has cells beyond its columns, or has no row.
        EvaluateError: the file is JSON, but not a ground truth.
    """
    if path.suffix.lower() == ".json":
        found = labels_from_ground_truth(read_ground_truth(path)).items()
        videos = (LabelledVideo(n, v.labels, v.subset.lower(), i, "video") for i, (n, v) in enumerate(found, 1))
        return tuple(videos), []
    table, notes = read_table(path, ("video", "labels"), EXAMPLE)
    rows = []
    for row in table:
        video, labels, split = (row.cells.get(column, "") for column in ("video", "labels", "split"))
        if video or labels:
            names = tuple(dict.fromkeys(name.strip() for name in labels.split("|") if name.strip()))
            rows.append(LabelledVideo(video, names, nfc(split).lower(), row.line))
    if not rows:
        raise DatasetError(f"{path}: holds no video; write one on each line, as in `match.mp4,tennis|golf`.")
    return tuple(rows), notes


def one_spelling(rows: Sequence[LabelledVideo]) -> tuple[tuple[LabelledVideo, ...], list[str]]:
    """Give each class one spelling, its most frequent one; and notes about the classes that have several.

    Spellings of one class differ in case, blanks and underscores, as in Pitch and pitch. If two are equally frequent,
    the first one is used. Letters are also composed (NFC), which does not change how they look.
    """
    rows = [replace(row, labels=tuple(dict.fromkeys(map(nfc, row.labels)))) for row in rows]
    counts = Counter(label for row in rows for label in row.labels)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        spellings[label_key(label)].append(label)
    meant = {label: all_of[0] for all_of in spellings.values() for label in all_of}
    notes = [
        f"labels {' and '.join(map(repr, all_of))} are one class, {all_of[0]!r}."
        for all_of in spellings.values()
        if len(all_of) > 1
    ]
    return tuple(replace(row, labels=tuple(dict.fromkeys(meant[x] for x in row.labels))) for row in rows), notes


def in_split(rows: Sequence[LabelledVideo], split: str | None, path: object) -> tuple[LabelledVideo, ...]:
    """The rows to train on: those of `split`. If it is None, those of the split "train" if there is one, else all.

    Raises:
        DatasetError: there is no such split.
    """
    known = sorted({row.split for row in rows})
    wanted = split or (TRAIN if TRAIN in known else None)
    if wanted is None:
        if known != [""]:
            without = sum(not row.split for row in rows)
            rest = f", and {count_rows(without)} none: write {TRAIN} there to train on them, or" if without else ";"
            raise DatasetError(
                f"{path}: its splits are {', '.join(filter(None, known))}{rest} choose one with --split."
            )
        return tuple(rows)
    wanted = nfc(wanted)
    if wanted.lower() not in known:
        raise DatasetError(f"{path}: has no split {wanted!r}; it has {', '.join(filter(None, known)) or 'none'}.")
    return tuple(row for row in rows if row.split == wanted.lower())


def count_rows(rows: int) -> str:
    """The beginning of a sentence: "1 row has", "2 rows have"."""
    return "1 row has" if rows == 1 else f"{rows} rows have"


def find_videos(
    rows: Sequence[LabelledVideo], available: Mapping[str, Path], suffixes: Collection[str] = ()
) -> tuple[dict[str, Path], list[str]]:
    """Find the file of each row.

    A row may name a file in three ways: by its path relative to the folder; by its name alone, with or without the
    suffix, if only one file has it; or by a longer path that leads through the folder, such as `footage/day 1/a.mp4` or
    an absolute path of any system. If no file has exactly this name, names with composed letters are compared, and last
    names in any case.

    Args:
        rows: rows of the CSV.
        available: relative path with suffix → file, for every file of the folder.
        suffixes: suffixes that a row may have although the file does not; a CSV made for videos then names features.

    Returns:
        CSV name → file, and a sentence for each row without a file and for rows that name one file in several ways.
    """
    files = _Files(available, suffixes)
    found: dict[str, Path] = {}
    named: dict[Path, dict[str, int]] = defaultdict(dict)
    problems = []
    for row in rows:
        matches = files.find(row.video)
        bare = row.video.strip("\"'")  # Windows copies paths with quotes around them
        if not matches and bare != row.video:
            matches = files.find(bare)
        if len(matches) == 1:
            found[row.video] = available[matches[0]]
            named[found[row.video]][row.video] = row.line
        elif "://" in row.video:
            problems.append(
                f"{row.at} {row.line}: {row.video} is an address, and jcdnet reads files: download it first"
            )
        elif not row.video:
            problems.append(f"{row.at} {row.line}: names no video")
        elif matches:
            problems.append(f"{row.at} {row.line}: {row.video} may be {' or '.join(sorted(matches))}; give the path")
        else:
            # With a wrong folder every row fails, so only as many names are compared as are shown.
            close = suggest(as_path(row.video).as_posix(), files.alike(row.video)) if len(problems) < SHOWN else None
            hint = f"; did you mean {close}?" if close else ""
            problems.append(f"{row.at} {row.line}: {row.video} is not there{hint}")
    for names in named.values():
        if len(names) > 1:
            lines = ", ".join(map(str, names.values()))
            looks = list(dict.fromkeys(map(nfc, names)))
            are = f"{' and '.join(names)} are one video" if len(looks) > 1 else f"{looks[0]} comes {len(names)} times"
            problems.append(f"{rows[0].at}s {lines}: {are}; give it one line")
    return found, problems


def other_case(found: Mapping[str, Path]) -> list[str]:
    """A note about rows whose files were found only in another case; empty if there are none."""
    if not (names := respelled({row: path.name for row, path in found.items()})):
        return []
    are = "1 video is" if len(names) == 1 else f"{len(names)} videos are"
    return [f"{are} found only in another case or with other blanks: {names[0]} as {found[names[0]].name}."]


class _Files:
    """The files of a folder, by every name that a row may use for them."""

    def __init__(self, available: Mapping[str, Path], suffixes: Collection[str]) -> None:
        self._available, self._suffixes = available, suffixes
        pairs: list[tuple[str, str]] = []
        for name in available:
            path = PurePosixPath(name)
            # Features have no suffix, so clip.v2 must not be shortened to clip.
            bare = path.with_suffix("") if not suffixes or path.suffix.lower() in suffixes else path
            pairs += [(short, name) for short in (path.as_posix(), path.name, bare.as_posix(), bare.name)]
        self._shorts = list(dict.fromkeys(short for short, _ in pairs))
        self._whole, self._short = Index((name, name) for name in available), Index(pairs)

    def alike(self, row: str) -> list[str]:
        """The names that a row may be a misspelling of; a row with a folder is compared with whole paths only."""
        return list(self._available) if len(as_path(row).parts) > 1 else self._shorts

    def find(self, row: str) -> list[str]:
        """The files that a row may mean; several only if nothing tells which one is meant."""
        if not row.strip("/\\. "):
            return []
        path = as_path(row)
        paths = [path, path.with_suffix("")] if path.suffix.lower() in self._suffixes else [path]
        for form in FORMS:
            for key in paths:
                # An exact relative path wins over another file's shorter name.
                if names := self._whole.find(form, str(key)) or self._short.find(form, str(key)):
                    return names
            for key in paths:
                if names := [n for n in self._short.find(form, key.name) if self._leads_to(path, n, form)]:
                    deepest = max(map(_depth, names))
                    return [name for name in names if _depth(name) == deepest]
        return []

    def _leads_to(self, row: PurePosixPath, name: str, form: Callable[[str], str]) -> bool:
        """Whether the folders of a row are the last folders of the file.

        An absolute path need match only from the given folder downwards, since it may come from another machine, and
        since the folders that features were made from are not known.
        """
        whole = row.is_absolute() or row.parts[0].endswith(":")
        folders = [form(part) for part in row.parts[:-1] if part not in ("..", "/", "//")]
        file = self._available[name]
        stored = str(file) == name and not file.exists()
        wanted = _depth(name) + (not stored) if whole else max(len(folders), 1)
        for place in (file.absolute(), file.resolve()):
            there = [form(part) for part in place.parts[:-1]]
            if len(folders) >= wanted and folders[len(folders) - wanted :] == there[len(there) - wanted :]:
                return True
        return False


def _depth(name: str) -> int:
    return len(PurePosixPath(name).parts) - 1


def label_problems(rows: Sequence[LabelledVideo]) -> list[str]:
    """A sentence for each repeated video, each label that may be several labels, and each class with too few videos."""
    problems = []
    lines: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        lines[row.video].append(row.line)
    for video, where in lines.items():
        if video and len(where) > 1:
            problems.append(f"lines {', '.join(map(str, where))}: {video} comes {len(where)} times; give it one line")
    counts = Counter(label for row in rows for label in row.labels)
    joined: set[str] = set()
    for row in rows if rows and rows[0].at == "line" else ():
        doubtful = [label for label in row.labels if COMMAS.search(label)]
        joined.update(doubtful)
        problems += [
            f"line {row.line}: {label!r} holds a comma or a semicolon; use | between labels, as in tennis|golf"
            for label in doubtful
        ]
    for label, count in sorted(counts.items()):
        if count < FEWEST and label not in joined:
            # With a wrong column every label fails, so only as many are compared as are shown.
            others = [name for name in counts if name != label] if len(problems) < SHOWN else []
            close = suggest(label, others, cutoff=0.8) if others else None
            hint = f"; did you mean {close!r}?" if close else f"; give it {FEWEST} or more, or leave the label out"
            problems.append(f"label {label!r} has {count} video{hint}")
    if not counts:
        problems.append("no video has a label, so there is nothing to learn")
    return problems


def classes_of(rows: Collection[LabelledVideo]) -> tuple[str, ...]:
    """The C class names, sorted."""
    return tuple(sorted({label for row in rows for label in row.labels}))

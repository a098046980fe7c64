"""Labels per video, from a CSV: `video,labels` and, where there is one, `split`; several labels joined by `|`.

Or from a ground truth in ActivityNet's JSON: of each video its classes, and not when they happen.
"""

import csv
import difflib
import io
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.datasets import DatasetError
from pipeline.annotations import read_ground_truth
from pipeline.published import labels_from_ground_truth

TRAIN = "train"
FEWEST = 2  # videos of a class; the pairs of L_cas, and any check on held-out videos, need two
COLUMNS = 1000  # that a CSV may have
SHOWN = 20  # lines or problems named in one message


@dataclass(frozen=True)
class LabelledVideo:
    """A row: the video as the CSV names it, its labels (none: no action is shown), and its line."""

    video: str
    labels: tuple[str, ...]
    split: str
    line: int
    at: str = "line"
    """what `line` counts: lines of a CSV, videos of a JSON"""


def read_labels(path: Path) -> tuple[LabelledVideo, ...]:
    """All rows of the CSV, or all videos of an ActivityNet JSON, in its order.

    Raises:
        DatasetError: the file cannot be read, lacks a column, has cells beyond its columns, or has no row.
        EvaluateError: it is JSON, but no ground truth.
    """
    if path.suffix.lower() == ".json":
        found = labels_from_ground_truth(read_ground_truth(path)).items()
        return tuple(LabelledVideo(n, v.labels, v.subset.lower(), i, "video") for i, (n, v) in enumerate(found, 1))
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not text in UTF-8; save it as CSV in UTF-8.") from error
    # Spreadsheets of half the world separate by semicolons.
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        if len(reader.fieldnames or ()) > COLUMNS:  # a row would be a table of all of them
            raise DatasetError(f"{path}: its first line has more than {COLUMNS} columns; save the two that are read.")
        columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}: is not CSV ({error}, line {reader.line_num}); save it as CSV again.") from error
    if missing := [name for name in ("video", "labels") if name not in columns]:
        raise DatasetError(
            f"{path}: its first line lacks {' and '.join(missing)}; it must name the columns, as in `video,labels`."
        )

    # What stands beyond the columns (under None) would be lost: a label after a comma, half of a name with one.
    if beyond := [line for line, row in lines if any(map(str.strip, row.get(None) or ()))]:
        raise DatasetError(
            f"{path}: more cells than columns in {'lines' if len(beyond) > 1 else 'line'} "
            f"{', '.join(map(str, beyond[:SHOWN]))}; join labels by |, and put names that hold a comma in quotes."
        )

    def cell(row: Mapping[str, str | None], column: str) -> str:
        return ((row.get(columns[column]) if column in columns else None) or "").strip()

    rows = []
    for line, row in lines:
        if not cell(row, "video") and not cell(row, "labels"):
            continue
        labels = tuple(dict.fromkeys(name.strip() for name in cell(row, "labels").split("|") if name.strip()))
        rows.append(LabelledVideo(cell(row, "video"), labels, cell(row, "split").lower(), line))
    if not rows:
        raise DatasetError(f"{path}: holds no video; give one a line, as in `match.mp4,tennis|golf`.")
    return tuple(rows)


def in_split(rows: Sequence[LabelledVideo], split: str | None, path: Path) -> tuple[LabelledVideo, ...]:
    """The rows to train on: those of `split`; without one the split "train" where the CSV has it, else all.

    Raises:
        DatasetError: there is no such split.
    """
    known = sorted({row.split for row in rows})
    wanted = split or (TRAIN if TRAIN in known else None)
    if wanted is None:
        if known != [""]:
            without = sum(not row.split for row in rows)
            rest = f", and {have(without)} none: write {TRAIN} there to train on them, or" if without else ";"
            raise DatasetError(
                f"{path}: its splits are {', '.join(filter(None, known))}{rest} choose one with --split."
            )
        return tuple(rows)
    if wanted.lower() not in known:
        raise DatasetError(f"{path}: has no split {wanted!r}; it has {', '.join(filter(None, known)) or 'none'}.")
    return tuple(row for row in rows if row.split == wanted.lower())


def have(rows: int) -> str:
    """1 row has, 2 rows have."""
    return "1 row has" if rows == 1 else f"{rows} rows have"


def find_videos(
    rows: Sequence[LabelledVideo], available: Mapping[str, Path], suffixes: Collection[str] = ()
) -> tuple[dict[str, Path], list[str]]:
    """CSV name → file, and a sentence for each row that has none, and for rows that name one file in several ways.

    Args:
        rows: of the CSV.
        available: relative path with suffix → file, of a folder. A row may name a file by its relative path, or by
            its name alone, with or without the suffix, where that means one file.
        suffixes: endings that a row may have although the file has not: a CSV made for videos names their features.
    """
    by_short: dict[str, set[str]] = defaultdict(set)
    for name in available:
        path = Path(name)
        # Features have no suffix, and clip.v2 is not clip.
        bare = path.with_suffix("") if not suffixes or path.suffix.lower() in suffixes else path
        for short in (path.as_posix(), path.name, bare.as_posix(), bare.name):
            by_short[short].add(name)
    found: dict[str, Path] = {}
    said: dict[Path, dict[str, int]] = defaultdict(dict)
    problems = []
    for row in rows:
        name = Path(row.video).as_posix()
        # An exact relative path wins over another file's shorter name.
        matches = {name} if name in available else by_short.get(name, set())
        if not matches and Path(name).suffix.lower() in suffixes:
            name = Path(name).with_suffix("").as_posix()
            matches = {name} if name in available else by_short.get(name, set())
        if len(matches) == 1:
            found[row.video] = available[next(iter(matches))]
            said[found[row.video]][row.video] = row.line
        elif "://" in row.video:
            problems.append(
                f"{row.at} {row.line}: {row.video} is an address, and jcdnet reads files: download it first"
            )
        elif not row.video:
            problems.append(f"{row.at} {row.line}: names no video")
        elif matches:
            problems.append(f"{row.at} {row.line}: {row.video} may be {' or '.join(sorted(matches))}; give the path")
        else:
            # A wrong folder misses every row: no more are compared than are shown.
            close = difflib.get_close_matches(name, by_short, n=1) if len(problems) < SHOWN else []
            problems.append(
                f"{row.at} {row.line}: {row.video} is not there{f'; did you mean {close[0]}?' if close else ''}"
            )
    for names in said.values():
        if len(names) > 1:
            lines = ", ".join(map(str, names.values()))
            problems.append(f"{rows[0].at}s {lines}: {' and '.join(names)} are one video; give it one line")
    return found, problems


def label_problems(rows: Sequence[LabelledVideo]) -> list[str]:
    """A sentence for each video that comes twice, each spelling that looks like another, each class with too few."""
    problems = []
    lines: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        lines[row.video].append(row.line)
    for video, where in lines.items():
        if video and len(where) > 1:
            problems.append(f"lines {', '.join(map(str, where))}: {video} comes {len(where)} times; give it one line")
    counts = Counter(label for row in rows for label in row.labels)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        spellings[" ".join(label.lower().replace("_", " ").split())].append(label)
    for variants in spellings.values():
        if len(variants) > 1:
            problems.append(f"labels {' and '.join(map(repr, variants))} differ in spelling alone; choose one")
    for label, count in sorted(counts.items()):
        if count < FEWEST:
            # The wrong column misses every label: no more are compared than are shown.
            others = [name for name in counts if name != label] if len(problems) < SHOWN else []
            close = difflib.get_close_matches(label, others, n=1, cutoff=0.8)
            hint = f"; did you mean {close[0]!r}?" if close else f"; give it {FEWEST} or more, or leave the label out"
            problems.append(f"label {label!r} has {count} video{hint}")
    if not counts:
        problems.append("no video has a label, so there is nothing to learn")
    return problems


def classes_of(rows: Collection[LabelledVideo]) -> tuple[str, ...]:
    """C names, sorted."""
    return tuple(sorted({label for row in rows for label in row.labels}))

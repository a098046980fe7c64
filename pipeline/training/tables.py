"""A reader for CSV files as people and spreadsheets save them, in several encodings and with several separators."""

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.datasets import DatasetError

COLUMNS = 1000  # a table may not have more
SHOWN = 20  # one message names at most this many lines or problems
SEPARATORS = (",", ";", "\t")  # spreadsheets write semicolons in many countries, and tabs in "Unicode text"
END = "\x1eend"  # no text that we accept holds this character

_ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_BINARY = re.compile("[\0-\x08\x0e-\x1f]")
_SEP = re.compile(r'"?sep=([,;|\t])"?', re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A line of a table: its number, and its cells by column name in lower case."""

    line: int
    cells: dict[str, str]


def read_table(path: Path, needed: Sequence[str], example: str) -> tuple[list[Row], list[str]]:
    """The rows of a CSV that are not blank, and notes about the file.

    The file may be UTF-8 or UTF-16, with or without a byte order mark; any other file is read as Windows-1252, and a
    note says so. Lines may end in any way. Cells may be separated by commas, semicolons or tabs, and Excel's first line
    `sep=;` is understood.

    Args:
        path: the file.
        needed: columns that the file must have.
        example: a good first line, for messages.

    Raises:
        DatasetError: the file cannot be read, is not a table, lacks a column or names one twice, has rows with more
            cells than columns, or has a quote that is never closed.
    """
    text, notes = _text(path)
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    separators: Sequence[str] = SEPARATORS
    if given := _SEP.fullmatch(lines[first].strip(" ")):
        lines[first], separators = "", (given[1],)
    header = max((_header(lines, s, path) for s in separators), key=lambda h: (set(needed) <= set(h[1]), len(h[1])))
    separator, columns = header
    if len(columns) > COLUMNS:  # each row becomes a dictionary of all columns
        raise DatasetError(
            f"{path}: its first line has more than {COLUMNS} columns; save only those that jcdnet reads."
        )
    if missing := [name for name in needed if name not in columns]:
        raise DatasetError(
            f"{path}: its first line lacks {' and '.join(missing)}; it must name the columns, as in `{example}`."
        )
    if twice := [name for name in needed if columns.count(name) > 1]:
        raise DatasetError(f"{path}: its first line names {twice[0]} twice; one of these columns would be lost.")

    rows, beyond = [], []
    _, *below = _parsed(lines, separator, path)
    for line, cells in below:
        if any(cells[len(columns) :]):  # labels were separated by commas, or a name holds a comma
            beyond.append(line)
        rows.append(Row(line, dict(zip(columns, cells, strict=False))))
    if beyond:
        raise DatasetError(
            f"{path}: more cells than columns in {'lines' if len(beyond) > 1 else 'line'} "
            f"{', '.join(map(str, beyond[:SHOWN]))}; join labels by |, and put names that hold a comma in quotes."
        )
    return rows, notes


def _header(lines: Sequence[str], separator: str, path: Path) -> tuple[str, list[str]]:
    """The separator, and the column names that it gives."""
    row = next(iter(_parsed(lines[:COLUMNS], separator, path, whole=False)), None)
    return separator, [] if row is None else [name.lower() for name in row[1]]


def _parsed(lines: Sequence[str], separator: str, path: Path, whole: bool = True) -> list[tuple[int, list[str]]]:
    """(line, cells) of each row that is not blank; only of the first such row if `whole` is false."""
    found = []
    reader = csv.reader([f"{line}\n" for line in [*lines, END]], delimiter=separator, skipinitialspace=True)
    before = 0
    try:
        for row in reader:
            if row != [END] and END in "".join(row):
                if not whole:
                    break
                raise DatasetError(f"{path}: a quote that begins in line {before + 1} is never closed; close it.")
            cells = [cell.strip() for cell in row]
            if row != [END] and any(cells):
                found.append((reader.line_num, cells))
                if not whole:
                    break
            before = reader.line_num
    except csv.Error as error:
        raise DatasetError(f"{path}: is not CSV ({error}, line {reader.line_num}); save it as CSV again.") from error
    return found


def _text(path: Path) -> tuple[str, list[str]]:
    """The text with plain newlines, and a note if the encoding was guessed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    if data.startswith(_ARCHIVES):
        raise DatasetError(f"{path}: is a spreadsheet's own file, or an archive; save it as CSV in UTF-8.")
    notes = []
    try:
        encoding = _encoding(data)
        text = data.decode(encoding)
        if encoding == "cp1252":
            notes.append(
                f"{path}: is not UTF-8 and was read as Windows-1252; where letters are wrong, save it as CSV in UTF-8."
            )
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not text in UTF-8; save it as CSV in UTF-8.") from error
    text = text.removeprefix("\ufeff").rstrip("\x1a")
    if _BINARY.search(text):
        raise DatasetError(f"{path}: is not text in UTF-8 (it holds control characters); save it as CSV in UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n"), notes


def _encoding(data: bytes) -> str:
    """The encoding of a file. UTF-16 has a mark; without one, every second byte of ASCII letters is 0."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(data) > 3 and data[1] == data[3] == 0 < data[0]:
        return "utf-16-le"
    if len(data) > 3 and data[0] == data[2] == 0 < data[1]:
        return "utf-16-be"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"

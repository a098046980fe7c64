"""What users name as a place: files and folders of this machine or of a store, and what `-o` may name."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from commands.groups import at_end, here
from postprocess.formats.writers import SEVERAL, SUFFIXES
from support.errors import UsageError
from support.paths import is_url

if TYPE_CHECKING:
    from pipeline.run.mirror import Mirror

# What nobody calls a folder, beside the endings of videos and of our own formats.
FILES = frozenset({".htm", ".jpg", ".npz", ".pdf", ".png", ".safetensors", ".svg", ".toml", ".tsv", ".txt", ".xlsx",
                   ".xml", ".zip"})  # fmt: skip


def opened(given: str | Path) -> Path:
    """Return the path of what a user names, for reading or for writing; for a URL, that of a folder that stands for it.

    What is written there reaches the store when the command ends, or earlier through `mirror_at`.

    Raises:
        UsageError, StoreError, EnvironmentMissing: the address is wrong, or its store cannot be reached.
    """
    if not is_url(given) or str(given)[:7].lower() == "file://":
        return here(given)
    from pipeline.run import mirror  # here and below: only for addresses
    from support.urls import address, split

    url, only, name = address(str(given)), None, ""
    if is_file_name(str(given)):
        url, name = split(url)
        stem = next((name.removesuffix(end) for end in mirror.ENDS if name.endswith(end)), name)
        only = list(dict.fromkeys((name, f"{stem}.json", f"{stem}{mirror.CURVES}")))
    made = mirror.Mirror(url, only)
    _mirrors[made.folder] = made
    at_end.append(made.publish)
    return made.folder / name


def worked_in(given: str | Path) -> Path:
    """As `opened`, for a folder in which work goes on: what is there is fetched when it is wanted (`mirror_at`).

    Raises:
        As `opened`.
    """
    if not is_url(given) or str(given)[:7].lower() == "file://" or is_file_name(str(given)):
        return opened(given)
    from pipeline.run import mirror

    made = mirror.Mirror(str(given), keep=True)
    _mirrors[made.folder] = made
    at_end.append(made.publish_or_rescue)
    return made.folder


def read_from(given: str | Path) -> Path:
    """As `opened`, with the results that are there, and their curves.

    Raises:
        As `opened`.
    """
    path = opened(given)
    if (found := mirror_at(path)) is not None:
        found.pull_all() if path != found.folder else found.pull_results(curves=True)
    return path


_mirrors: "dict[Path, Mirror]" = {}


def mirror_at(path: Path | None) -> "Mirror | None":
    """Return the mirror of a store that a path belongs to; None for a plain path."""
    return next((made for folder, made in _mirrors.items() if path is not None and path.is_relative_to(folder)), None)


def is_file_name(output: str | Path) -> bool:
    """Whether this names a file: its ending says so, no folder of that name exists, and it does not end in /."""
    from pipeline.run.videos import VIDEO_SUFFIXES

    if str(output).endswith((os.sep, "/")) or Path(output).is_dir():
        return False
    end = Path(output).suffix.lower()
    ours = {f".{suffix.rpartition('.')[2]}" for suffix in SUFFIXES.values()}
    return end in ours or end in FILES or end in VIDEO_SUFFIXES


def one_result(output: str | None, formats: list[str] | None, videos: int) -> tuple[Path, Path, str] | None:
    """(folder, name, format) of the one file that `run -o` names; None if it names a folder or nothing.

    Raises:
        UsageError: a file that `run` does not write, or cannot write of so many videos in so many formats.
    """
    if output in (None, "-") or not is_file_name(str(output)):
        return None
    path = Path(str(output))
    fitting = [name for name, suffix in SUFFIXES.items() if path.name.lower().endswith(suffix)]
    if not fitting:
        known = ", ".join(SUFFIXES.values())
        raise UsageError(f"-o {output}: no result is such a file; name a folder, or a file that ends in {known}.")
    name = max(fitting, key=lambda name: len(SUFFIXES[name]))  # .activitynet.json is no .json
    if formats is not None and formats != [name]:
        raise UsageError(
            f"-o {output}: is a file of the format {name}, and --format asks for {','.join(formats)}; leave --format "
            "out, or name a folder."
        )
    if videos != 1:
        stream = f", or take -o - -f {name} for all in one" if name in SEVERAL else ""
        raise UsageError(f"-o {output}: is one file, and there are {videos} videos; name a folder{stream}.")
    stem = path.name[: -len(SUFFIXES[name])]
    if not stem:
        raise UsageError(f"-o {output}: is an ending without a name; give the file one.")
    if path.name != stem + SUFFIXES[name]:
        raise UsageError(f"-o {output}: write the ending as {SUFFIXES[name]}.")
    return path.parent, Path(stem), name


def folder_only(output: Path | None, what: str, example: str) -> None:
    """Refuse the name of a file if a folder is needed.

    Raises:
        UsageError: it is one.
    """
    if output is not None and is_file_name(output):
        raise UsageError(f"-o {output}: {what}; name a folder, as -o {example}.")


def csv_only(output: Path | None) -> None:
    """Refuse the name of another kind of file if a CSV is written.

    Raises:
        UsageError: it is one.
    """
    if output is not None and is_file_name(output) and output.suffix.lower() not in (".csv", ".txt"):
        raise UsageError(f"-o {output}: what is written is a CSV; name a .csv file.")

"""`cache`: how large the feature cache is, what it holds, and how to remove what is old or damaged."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import Command, Group, grouped
from commands.options import CacheDir, choose_cache
from commands.terminal import complain, err, table
from support.errors import INPUT_FAILED, EnvironmentMissing, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cache.care import Entry

cache_app = typer.Typer(
    cls=Group, help="The feature cache: its size, list, prune, verify.", invoke_without_command=True
)


@cache_app.callback()
def size(context: typer.Context, cache_dir: CacheDir = None) -> None:
    """Show where the cache is and how large it is."""
    from support.paths import cache_dir as folder

    choose_cache(cache_dir)
    for place in (folder(), folder() / "features"):
        if place.is_file():
            raise EnvironmentMissing(f"{place}: is a file, and the cache needs a folder; set JCDNET_CACHE to another.")
    if context.invoked_subcommand is not None:
        return
    from pipeline.cache.care import scan

    entries = scan()
    whole = [entry for entry in entries if not entry.unfinished]
    print(f"{folder()}\t{len(whole)} features of {len({e.content for e in whole})} videos\t{_bytes(whole)}")
    if unfinished := [entry for entry in entries if entry.unfinished]:
        print(f"unfinished\t{len(unfinished)}\t{_bytes(unfinished)}")


@cache_app.command("list", cls=Command)
@grouped
def list_entries() -> None:
    """List the videos whose features the cache holds, last used first."""
    from pipeline.cache.care import scan
    from support.paths import program

    entries = sorted(scan(), key=lambda entry: entry.age)
    known = {entry.content: video for entry in entries if (video := entry.video)}  # another stream may say it
    rows = [
        (
            Path(known[entry.content]).name if entry.content in known else "(name not noted)",
            _ago(entry.age),
            _bytes([entry]),
            "unfinished" if entry.unfinished else "complete",
            entry.content[:16],
        )
        for entry in entries
    ]
    if not rows:
        err.print("[dim]the cache is empty[/]")
        return
    table(("video", "last used", "size", "features", "file's SHA-256"), rows)
    err.print(f"[dim]videos and results are elsewhere; `{program()} cache prune` removes features[/]", soft_wrap=True)


@cache_app.command(cls=Command)
@grouped
def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Take out what was not used for so long: 30d, 12h.", show_default="any age")
    ] = None,
    larger_than: Annotated[
        str | None,
        typer.Option(help="Take out what was used longest ago, down to this size: 10GB, 500MB.", show_default="any"),
    ] = None,
) -> None:
    """Remove features that are old, or more than you want to keep. Results stay."""
    from pipeline.cache import care

    if older_than is None and larger_than is None:
        raise UsageError("say what is to go: --older-than 30d, or --larger-than 10GB.")
    age = None if older_than is None else _amount(older_than, {"d": 86400, "h": 3600, "m": 60}, "--older-than")
    most = (
        None
        if larger_than is None
        else _amount(larger_than, {"GB": 10**9, "MB": 10**6, "KB": 10**3, "TB": 10**12}, "--larger-than")
    )
    gone, stuck = care.prune(age, most)
    print(f"{len(gone)} taken out\t{_bytes(gone)}")
    for entry in stuck:
        complain(ValueError(f"{entry.path}: may not be taken out; it is somebody else's."))
    if stuck:
        raise typer.Exit(INPUT_FAILED)


@cache_app.command(cls=Command)
@grouped
def verify() -> None:
    """Read everything and remove what is damaged. It is extracted again when it is needed."""
    from pipeline.cache import care

    damaged = 0
    entries = care.scan()
    for path, cause in care.verify(entries):
        damaged += 1
        complain(ValueError(f"{cause} It was taken out: {path}"))
    print(f"{len(entries)} read, {damaged} damaged")
    if damaged:
        raise typer.Exit(INPUT_FAILED)


def _amount(text: str, units: dict[str, int], option: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
    found = {name.lower(): size for name, size in units.items()}
    if match is None or match[2].lower() not in found:
        *others, last = units
        raise UsageError(
            f"{option} {text}: write a number with its unit, {', '.join(others)} or {last}, such as 30{others[0]}."
        )
    return float(match[1]) * found[match[2].lower()]


def _ago(seconds: float) -> str:
    """How long ago something was, as people say it."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if (count := int(seconds // unit)) > 0:
            return f"{count} {name}{'s' * (count != 1)} ago"
    return "just now"


def _bytes(entries: "Sequence[Entry]") -> str:
    size = sum(entry.size for entry in entries)
    return f"{size / 1e6:.1f} MB" if size >= 1e6 or not size else f"{max(size / 1e3, 1):.0f} kB"

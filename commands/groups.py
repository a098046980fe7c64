"""Options in groups: a command takes a dataclass for each group, and Typer sees one parameter for each field.

A field is `Annotated[type, typer.Option(...), Setting("section.name")]`. The setting says where the value belongs in
the configuration. A field without a setting belongs to the command alone. The first line of the dataclass's docstring
is the title of its panel in `--help`.
"""

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from support.errors import UsageError
from support.paths import is_url

at_end: list[Callable[[], None]] = []
"""what remains to be done when a command ends, also with an error: files that belong into a store are put there"""


@dataclass(frozen=True)
class Setting:
    """The name of a setting, such as `features.stride`, that an option gives."""

    name: str


class Command(TyperCommand):
    """A command whose help shows no type beside flags: a user reads `--help`, not `--help <bool>`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            UsageError: an option has a value that it cannot have, or a file whose name begins with a dash is taken for
                an option.
        """
        words = args[: args.index("--")] if "--" in args else list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "format_message") and (file := next(filter(_is_file_with_a_dash, words), None)):
                raise UsageError(f"{file}: begins with a dash, as options do; write the file as ./{file}") from error
            if isinstance(error, typer.BadParameter) and (option := error.param) is not None:
                name = max(option.opts, key=len) if option.opts[0].startswith("-") else option.opts[0].upper()
                needed = f"{name} is missing: {getattr(option, 'help', None) or 'see --help'}"
                raise UsageError(_about(name, error.message) if error.message else needed) from error
            raise

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`, shown without a type."""
        return _without_type(super().get_help_option(ctx))


class Group(TyperGroup):
    """The same for a group of commands."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`, shown without a type."""
        return _without_type(super().get_help_option(ctx))


def _about(option: str, message: str) -> str:
    """A sentence about the value of an option, from the words of a type checker or from ours."""
    checked = message.removeprefix("Input should be ")
    return f"{option}: {message}" if checked == message else f"{option} must be {checked.partition(',')[0]}."


def _is_file_with_a_dash(word: str) -> bool:
    if not word.startswith("-") or word == "-":
        return False
    from pipeline.run.videos import VIDEO_SUFFIXES  # only for a command line that is wrong

    return Path(word).suffix.lower() in VIDEO_SUFFIXES or Path(word).exists()


def _without_type(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Give Typer a command whose parameters are the fields of the groups that `function` takes."""
    taken = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {n: p.annotation for n, p in taken.items() if dataclasses.is_dataclass(p.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in taken.items():
        if name in groups:
            parameters += _fields(groups[name])
        else:
            parameters.append(parameter.replace(annotation=_shown(parameter.annotation)))
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @functools.wraps(function)
    def command(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        try:
            function(**given)
        finally:
            while at_end:
                at_end.pop()()

    del command.__wrapped__  # or `inspect` would look through it
    command.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in keyword_only}
    return command


def _fields(group: type) -> list[inspect.Parameter]:
    title = (inspect.getdoc(group) or "").splitlines()[0].rstrip(".")
    hints = typing.get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(f.name, keyword, default=f.default, annotation=_shown(hints[f.name], title))
        for f in dataclasses.fields(group)
    ]


def _shown(annotation: Any, panel: str | None = None) -> Any:
    """The annotation of an option in its panel, where a flag is shown without its type."""
    kind, *extras = typing.get_args(annotation) or (annotation,)
    if not extras:
        return annotation
    options = [copy.copy(extra) for extra in extras if isinstance(extra, typer.models.ParameterInfo)]
    for option in options:
        option.rich_help_panel = option.rich_help_panel or panel
        option.metavar = "" if kind is bool else option.metavar
        if option.parser is None and kind in (Path, Path | None, list[Path], list[Path] | None):
            option.parser, option.metavar = here, option.metavar or "<path>"
    return Annotated[kind, *options]


def here(given: str | Path) -> Path:
    """Return the path of something on this machine.

    Raises:
        UsageError: it is the address of something in a store.
    """
    if not is_url(given):
        return Path(given)
    from support.urls import is_file_url, local_file, redacted  # only for addresses

    if not is_file_url(str(given)):
        raise UsageError(
            f"{redacted(str(given))}: this has to be on this machine's disks; name a path here, and copy what lies "
            "there from the store, or into it."
        )
    return local_file(str(given))


def place(given: str | Path) -> str | Path:
    """Return the path of something on this machine, or the address of something in a store as it is.

    Raises:
        UsageError: the address holds credentials, or names nothing.
    """
    from support.urls import address, is_file_url  # only for addresses

    return address(str(given)) if is_url(given) and not is_file_url(str(given)) else here(given)


def settings_of(*groups: Any) -> dict[str, Any]:
    """By its name in the configuration, every setting that the groups give; None where the user gave nothing."""
    found: dict[str, Any] = {}
    for group in groups:
        hints = typing.get_type_hints(type(group), include_extras=True)
        for field in dataclasses.fields(group):
            for extra in typing.get_args(hints[field.name])[1:]:
                if isinstance(extra, Setting):
                    found[extra.name] = getattr(group, field.name)
    return found

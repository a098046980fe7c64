"""The command line: joins the commands, and turns every user error into one sentence and an exit code."""

import importlib
import io
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.groups import Command, Group
from commands.terminal import complain, debugging, err, without_closed_streams
from support.errors import BUG, FULL, DiskFull, EnvironmentMissing, circumstance, exit_code
from support.paths import program

INSTALLED = program() == "jcdnet"  # shells complete the word jcdnet; in a checkout that word would be python
PANELS = {
    "Find actions": ("run", "find", "extract", "report", "clips", "export", "plot"),
    "Teach and score": ("train", "evaluate", "labels"),
    "This machine": ("doctor", "bench", "models", "cache"),
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}


class Commands(Group):
    """The commands by name. Each is in the file of its name in commands/, which is imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of `--help`."""
        return list(PANEL_OF)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None if there is none."""
        for name in (cmd_name,) if cmd_name in PANEL_OF else PANEL_OF:  # all, for Typer's "did you mean"
            if name not in self.commands:
                self.add_command(_load(name), name)
        return self.commands.get(cmd_name)


def _load(name: str) -> Any:
    module, made = importlib.import_module(f"commands.{name}"), typer.Typer(**LOOKS)
    if (inner := getattr(module, f"{name}_app", None)) is not None:
        made.add_typer(inner, name=name, rich_help_panel=PANEL_OF[name])
    else:
        made.command(name, cls=Command, rich_help_panel=PANEL_OF[name])(getattr(module, name))
    return typer.main.get_group(made).commands[name]


LOOKS: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": "rich"}
HELP = {"help_option_names": ["-h", "--help"]}  # commands inherit it
app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=INSTALLED, context_settings=HELP, **LOOKS)


def _version(asked: bool) -> None:
    if asked:
        from support.version import package_version

        print(package_version("jcdnet"))
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="No progress, no notes; only errors.")
    ] = False,
) -> None:
    """Find what happens when in a video: timestamped actions from raw footage."""
    err.quiet = quiet
    try:
        Path.cwd()
    except FileNotFoundError as error:  # libraries that are loaded later would end the process over it
        raise EnvironmentMissing("the folder that this is run in is gone; change into another one.") from error


def main() -> None:
    """Run the command line; every user error is one sentence on stderr and an exit code."""
    without_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name=program())
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # `| head`: what shells say of such a writer
            raise SystemExit(128 + signal.SIGPIPE) from None
        raise
    except Exception as error:
        if debugging():
            raise
        if isinstance(error, OSError) and error.errno in FULL:  # writes of files say so themselves
            error = DiskFull("the disk that the output goes to is full; make room and run again.")
        error = circumstance(error) or error
        code = exit_code(error)
        if code == BUG:
            complain(
                RuntimeError(
                    f"a bug in jcdnet: {type(error).__name__}: {error}; please report it with the output of --debug."
                )
            )
        else:
            complain(error)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()

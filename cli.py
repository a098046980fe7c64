"""The command line: joins the commands, and turns every user error into one sentence and an exit code."""

import io
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

# torch and the siblings are imported inside the commands: `--help` answers in under a second.
from commands.bench import bench
from commands.cache import cache_app
from commands.clips import clips
from commands.doctor import doctor
from commands.evaluate import evaluate
from commands.extract import extract
from commands.groups import Command, Group
from commands.labels import labels_app
from commands.models import models_app
from commands.plot import plot
from commands.report import report
from commands.run import run
from commands.terminal import complain, debugging, err, without_closed_streams
from commands.train import train
from support.errors import BUG, FULL, DiskFull, EnvironmentMissing, circumstance, exit_code
from support.paths import program

INSTALLED = program() == "jcdnet"  # shells complete the word jcdnet; in a checkout that word would be python
app = typer.Typer(
    cls=Group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=INSTALLED
)
PANELS = {
    "Find actions": (run, extract, report, clips, plot),
    "Teach and score": (train, evaluate),
    "This machine": (doctor, bench),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=panel)(command)
app.add_typer(labels_app, name="labels", rich_help_panel="Teach and score")
app.add_typer(models_app, name="models", rich_help_panel="This machine")
app.add_typer(cache_app, name="cache", rich_help_panel="This machine")


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

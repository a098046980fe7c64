"""The command line: joins the commands, and turns every user error into one sentence and an exit code."""

import io
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

# torch and the siblings are imported inside the commands: `--help` answers in under a second.
from commands import cache as cachecare
from commands import models as machine
from commands import report as view
from commands import run as footage
from commands import train as research
from commands.terminal import complain, debugging, err, without_closed_streams
from support.errors import BUG, FULL, DiskFull, EnvironmentMissing, circumstance, exit_code
from support.paths import program

INSTALLED = program() == "jcdnet"  # shells complete the word jcdnet; in a checkout that word would be python
app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=INSTALLED
)
for command in (
    footage.run,
    footage.extract,
    view.report,
    view.clips,
    view.plot,
    research.train,
    research.evaluate,
    machine.bench,
    machine.doctor,
):
    app.command()(command)
app.add_typer(research.labels_app, name="labels")
app.add_typer(machine.models_app, name="models")
app.add_typer(cachecare.cache_app, name="cache")


def _version(asked: bool) -> None:
    if asked:
        from support.version import package_version

        print(package_version("jcdnet"))
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes; only errors.")] = False,
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

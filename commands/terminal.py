"""What the command line shows (bars, tables, notes), and Ctrl-C. Only data goes to standard output."""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from rich import markup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from postprocess.formats.writers import clock
from support.errors import BUG, INPUT_FAILED, EnvironmentMissing, circumstance, exit_code, traceback_of
from support.paths import called, program

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

STAGES = {
    "hash": "reading",
    "fetch": "fetching",
    "wait": "waiting for another process",
    "begin": "starting",
    "compile": "compiling TV-L1 for this CPU, once",
    "decode": "decode",
    "flow": "flow",
    "i3d": "I3D",
    "download": "download",
    "train": "training",
    "predict": "videos",
    "check": "checking on held-out videos",
    "clips": "clips",
    "render": "drawing, seconds",
    "proxy": "proxy for browsers, seconds",
}


# C0 without tab and line feed, DEL, C1: some terminals take these for orders.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Make text safe for a terminal: control characters in a label or a name are shown, not obeyed.

    Files that stand for those in a store are named by their addresses, which show no credentials.
    """
    if "://" in text and ("@" in text or "=" in text):
        from support.urls import redacted  # only for addresses

        text = redacted(text)
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", called(text))


def escape(text: str) -> str:
    """Make text safe within rich's markup, and printable."""
    return markup.escape(printable(text))


def drawn(*columns: ProgressColumn) -> Progress:
    """Bars on standard error, each with its description in front and these columns behind it."""
    # stdout carries data: rich must not lead it to stderr. A file would get blank lines, so it gets no bars.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=err,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not err.is_terminal,
    )


class Bars:
    """Progress of one video at a time on standard error, with a bar for each stage."""

    def __init__(self) -> None:
        self.live: Progress | None = None

    def video(self, path: Any) -> Any:
        """The progress function of a video, which has a name. It removes the bars of the video before."""
        self.clear()
        self.live = live = drawn(MofNCompleteColumn(), TimeRemainingColumn())
        tasks: dict[str, Any] = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage == "compile" and done < total:  # said also where bars are not drawn
                err.print(f"[dim]{STAGES[stage]}[/]")
            if stage not in tasks:
                label = f"{escape(path.name)} {STAGES.get(stage, stage)}"
                tasks[stage] = live.add_task(label, total=total)
            live.update(tasks[stage], completed=done, total=max(total, done))

        live.start()
        return on_progress

    def clear(self) -> None:
        """Remove the bars, so that something can be printed; otherwise they would be drawn over it."""
        if self.live is not None:
            self.live.stop()
            self.live = None


@contextlib.contextmanager
def progress() -> Iterator[Bars]:
    """Give the block bars, and remove them when it ends, also after an error."""
    bars = Bars()
    try:
        yield bars
    finally:
        bars.clear()


class TrainingTold:
    """Progress of a training: bars, the model's path as soon as it is on the disk, and in a file a line a fold."""

    def __init__(self, bars: Bars, folder: Path, model: Path, steps: int) -> None:
        """`steps`: of one training; the check on held-out videos does as many for each fold."""
        self.bars, self.folder, self.model, self.steps = bars, folder, model, steps
        self.show = bars.video(folder)
        self._printed = False
        self._passed: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """The progress function."""
        if stage == "check" and not self._printed:  # the check begins when the model is there
            self.say_where()
            self.show = self.bars.video(self.folder)
        self.show(stage, done, total)
        if err.is_terminal:
            return
        part = self.steps if stage == "check" else max(total // 4, 1)
        if (passed := done // part) > self._passed.get(stage, 0):
            self._passed[stage] = passed
            fold = f"fold {passed} of {max(total // self.steps, 1)} is done"
            err.print(f"{STAGES.get(stage, stage)}: {fold if stage == 'check' else f'{done} of {total} steps'}")

    def say_where(self) -> None:
        """Print the model's path, once."""
        if not self._printed:
            self._printed = True
            self.bars.clear()
            print(called(str(self.model)), flush=True)


def result_table(result: Any, remark: str) -> None:
    """Print the segments of a video and how much there is of each action, or that there is none."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("start", "end", "length", "conf"):
        shown.add_column(column, justify="right")
    shown.add_column("action")
    totals: dict[str, list[float]] = {}
    for segment in result.segments:
        length = segment.end - segment.start
        totals.setdefault(segment.name, []).append(length)
        shown.add_row(
            clock(segment.start),
            clock(segment.end),
            clock(length),
            f"{segment.confidence:.2f}",
            escape(segment.name),
        )
    found = "" if result.segments else "  no action found"
    partial = "  [yellow]partial[/]" if result.partial else ""
    out.print(f"[bold]{escape(result.video)}[/]  {clock(result.duration)}{partial}{remark}{found}", soft_wrap=True)
    if result.segments:
        out.print(shown)
    if len(result.segments) > len(totals):  # else it would say the same again
        summed = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("times", "in all"):
            summed.add_column(column, justify="right")
        summed.add_column("action")
        for label, lengths in sorted(totals.items(), key=lambda item: (-sum(item[1]), item[0])):
            summed.add_row(str(len(lengths)), clock(sum(lengths)), escape(label))
        out.print(summed)


def note(text: str) -> None:
    """Print a remark on standard error."""
    err.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def say_choices(extractor: Any) -> None:
    """Say which precision and engine `auto` chose for each stream, which flow backend, and with which weights."""
    ways = ", ".join(f"{stream} in {way}" for stream, way in extractor.ways.items())
    err.print(f"[dim]{escape(ways)}[/]")
    if extractor.flow_backend is None:
        return
    err.print(f"[dim]flow {extractor.flow_backend}[/]")
    if extractor.backbones["flow"].weights.startswith("inflated"):
        note(
            "no published flow weights here; the flow network starts from the RGB one "
            f"(`{program()} models fetch i3d-flow`, or --flow-weights)."
        )


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return "--debug" in sys.argv


def complain(error: Exception) -> None:
    """Print an error, even with --quiet. With --debug, print its traceback too."""
    said = f"[red]error:[/] {escape(str(circumstance(error) or error))}"
    if debugging():
        said = f"{escape(traceback_of(error))}\n{said}"
    try:
        Console(stderr=True, highlight=False).print(said, soft_wrap=True)
    except MemoryError:  # rich loads more of itself first
        sys.stderr.write(f"error: {printable(str(circumstance(error) or error))}\n")
    except OSError:  # nobody can be told; the exit code stays
        pass


_closed: set[int] = set()  # of 0, 1 and 2


def without_closed_streams() -> None:
    """Connect standard streams that the caller closed (`>&-`) to the null device.

    Else the next file that is opened gets such a stream's number, and what a C library prints goes into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            _closed.add(number)
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115


def need_stdout() -> None:
    """Check that standard output is open, before work whose results all go there.

    Raises:
        EnvironmentMissing: the caller closed it.
    """
    if 1 in _closed:
        raise EnvironmentMissing("standard output is closed, and -o - writes to it; name a folder with -o.")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table on standard output. The first column holds names, the others numbers."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for i, column in enumerate(columns):
        drawn.add_column(escape(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    if title:
        out.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    out.print(drawn)


def finish(done: int, errors: Sequence[Exception], jobs: Sequence[Any]) -> None:
    """Say how many are done. Exit with code 1 if one failed because of a bug, else with 3 if one failed."""
    if len(jobs) > 1:
        err.print(f"{done} done, {len(errors)} failed")
    if errors:
        raise typer.Exit(failure(errors))


def failure(errors: Sequence[Exception]) -> int:
    """The exit code if some inputs failed: that of a bug if there was one, else that of failed inputs."""
    return BUG if any(exit_code(error) == BUG for error in errors) else INPUT_FAILED


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Give the block a function that says whether the user asked to stop, by Ctrl-C or SIGTERM.

    The first signal finishes what is in progress and then stops; the second one stops at once.
    """
    asked = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        err.print("[yellow]stopping:[/] what is at hand is finished and kept; once more stops at once")

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

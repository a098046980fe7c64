"""What `run` and `extract` share: choosing workers, bars over many videos, the report and its table."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from commands.options import WorkOptions
from commands.places import mirror_at
from commands.remaining import Remaining
from commands.terminal import err, escape, failure, note, out, progress, stopping
from commands.terminal import table as draw
from extractors.config import Stretch
from postprocess.formats.writers import clock
from support.errors import INTERRUPTED, EnvironmentMissing, Stopped, UsageError, UserError
from support.paths import is_url

if TYPE_CHECKING:
    from commands.refused import Refused
    from pipeline.cache.content import Video
    from pipeline.run.outcome import Existing, Outcome
    from pipeline.run.videos import Job

MANY = 20  # videos, after which nobody sees the first errors any more
TELLING = 10.0  # seconds of video from which on a speed is remembered


class Running:
    """A run of a command over videos."""

    def __init__(
        self,
        command: str,
        videos: "Sequence[Job]",
        out: Path | None,
        work: WorkOptions,
        retry_failed: bool = False,
    ) -> None:
        from pipeline.run import summary
        from pipeline.run.results import video_in
        from pipeline.run.store import in_their_places, prepare_output
        from pipeline.workers.engine import Engine, check_engine

        self.command, self.jobs, self.out, self.asked = command, list(videos), out, work.jobs
        mirror = mirror_at(out)
        if out is not None and mirror is None:
            self.jobs, said = in_their_places(videos, out, ".npz" if command == "extract" else ".json", video_in)
            for sentence in said:
                note(sentence)
        if retry_failed:
            if out is None:
                raise UsageError(
                    "--retry-failed reads the report among the results of earlier runs; name its folder with -o."
                )
            if mirror is not None:
                mirror.refresh(summary.NAME)
            self.jobs = summary.failed_before(out, self.jobs)
            if not self.jobs:
                note("nothing had failed when it was last run into this folder.")
        self.engine = Engine(work.engine, address=work.address, gpus_per_worker=work.gpus_per_worker)
        check_engine(self.engine)
        self.report = summary.RunReport(command, self.jobs, out, mirror)
        self._first = out is None or not (out / summary.NAME).exists()
        self._said: set[str] = set()
        self._refused: Refused | None = None
        self._prepare = prepare_output

    def leave_out(self, videos: "set[Video]") -> None:
        """Run and report none of these videos."""
        gone = {job.name.as_posix() for job in self.jobs if job.video in videos}
        self.jobs = [job for job in self.jobs if job.video not in videos]
        self.report.rows = {name: row for name, row in self.report.rows.items() if name not in gone}

    def choose_engine(self, extractor: Any) -> None:
        """Choose the number of workers, by what there is to do and by the device."""
        import dataclasses

        from pipeline.workers.engine import choose_jobs

        c = extractor.config
        self._step = c.stride / c.fps
        ways = " ".join(f"{stream}:{way.engine}:{way.dtype}" for stream, way in extractor.ways.items())
        self._work = f"{extractor.device} {ways} {c.backbone} {c.fps:g}/{c.stride} {c.short_side}/{c.crop}"
        jobs = choose_jobs(self.asked, self.engine.kind, extractor.device, [job.video for job in self.jobs])
        self.engine = dataclasses.replace(self.engine, jobs=jobs)
        if self.engine.here:
            return
        workers = f"{jobs} worker{'s' * (jobs != 1)}" if jobs > 0 else "all workers"
        where = "here" if self.engine.kind == "local" else f"of {self.engine.kind} at {self.engine.address or 'here'}"
        err.print(f"[dim]{workers} {escape(where)}[/]")

    @property
    def speed_key(self) -> str:
        """The name under which a speed is remembered: the workers, and what they have to do."""
        return f"{self.engine.kind} {self.engine.jobs} {self._work}"

    @contextlib.contextmanager
    def started(self, stretch: Stretch) -> "Iterator[tuple[Any, Callable[[], bool]]]":
        """Give the block its bars and a function that says whether to stop; write the report however it ends."""
        from pipeline.cache.content import size_of
        from pipeline.run import summary

        if self.out is not None:
            self._prepare(self.out, self.jobs)
            if mirror_at(self.out) is not None:
                self.report.write()  # before any work: the store may refuse it
        remaining = Remaining(
            {job.name: size_of(job.video) for job in self.jobs}, self._step, stretch.start, stretch.end
        )
        if len(self.jobs) == 1:
            bars: Any = single(remaining)
        else:
            from commands.bars import Bars

            bars = Bars(self.jobs, remaining, self._say_refused)
        interrupted, refused = True, False
        try:
            with stopping() as stop, bars as shown:
                self._bars = shown
                try:
                    yield shown, stop
                    interrupted = False
                except (Stopped, KeyboardInterrupt):
                    pass
                except UserError as error:
                    refused = not (isinstance(error, EnvironmentMissing) or self.report.finished or self.report.errors)
                    shown.clear()
                    raise
        finally:
            if (speed := remaining.speed(time.monotonic())) is not None and remaining.worked > TELLING:
                summary.remember_speed(self.speed_key, speed)
            if not refused:  # before any work: there is nothing to report
                self._report(interrupted)
        if interrupted:
            raise typer.Exit(INTERRUPTED)

    def each(self, outcomes: "Iterable[Outcome]") -> "Iterator[Outcome]":
        """The outcomes of videos that did not fail. The errors of the others are printed."""
        for outcome in outcomes:
            self._bars.done(outcome)
            with self._bars.away():
                self.report.add(outcome)
                for message in outcome.messages:
                    self._note_once(message)
                if outcome.error is not None:
                    self._refuse(outcome.job, outcome.error)
                else:
                    self._say_refused()
                    yield outcome

    def _refuse(self, job: "Job", error: Exception, planned: bool = False) -> None:
        """Take note of a video's error; of a run that is only `planned`, no report lists them."""
        if self._refused is None:
            from commands.refused import Refused
            from pipeline.run import summary

            self._refused = Refused(None if self.out is None or planned else self.out / summary.NAME)
        self._refused.add(job, error)

    def _say_refused(self) -> None:
        """Say the errors that were not said yet: another video is worked on, or done."""
        if self._refused is not None and self._refused.waits:
            self._bars.clear()
            self._refused.say()

    def _note_once(self, message: str) -> None:
        """Print a remark, unless it was printed before: of a folder, one may be true of every video."""
        if message not in self._said:
            self._said.add(message)
            note(message)

    def say_next(self) -> None:
        """Say, after the first run into a folder or a run without one, how to look at the results."""
        if self._first:
            folder = "" if self.out is not None else "-o results "
            err.print(f"[dim]next: the same with {folder}-f html, to look at it in a browser[/]", soft_wrap=True)

    def write_index(self, folder: Path, output: str | None) -> None:
        """Write the page over the pages of several videos, and say which page to open.

        output: what -o names; what is in a store is not opened from here.
        """
        from pipeline.run.store import SUFFIXES, write_index

        standing = self.report.results()
        page = folder / "index.html"
        if len(standing) > 1:
            write_index(standing, folder)
        elif standing:
            page = standing[0].path.with_name(standing[0].stem + SUFFIXES["html"])
        if page.is_file() and not is_url(output or ""):
            err.print(f"[dim]to look at the results, open {escape(str(page))} in a browser[/]", soft_wrap=True)

    def _report(self, interrupted: bool) -> None:
        """Write the report, and print a summary if there was more than one video."""
        from pipeline.run import summary

        if self._refused is not None:  # first: the report may be impossible to write
            self._refused.end(again=len(self.report.rows) > MANY)
        self.report.write(interrupted)
        if self.command != "extract":
            self.report.write_segments()
        for said in self.report.messages:
            note(said)
        if self.out is not None and self.report.finished:
            err.print(f"[dim]results are in {escape(str(self.out))}[/]", soft_wrap=True)
        if len(self.report.rows) > 1:
            seconds, elapsed = self.report.seconds, self.report.elapsed
            speed = f", {self.report.computed / elapsed:.2f} × real time" if self.report.computed else ""
            said = summary.summed_up(self.report.counts)
            err.print(f"{said}; {clock(seconds)} of video in {clock(elapsed)}{speed}", soft_wrap=True)

    def finish(self) -> None:
        """Exit with code 1 if a video failed because of a bug, else with 3 if a video failed."""
        if errors := self.report.errors:
            raise typer.Exit(failure(errors))

    def dry_run(self, extractor: Any, cache: Any, existing: "Existing", stretch: Stretch) -> None:
        """Print what a run would do."""
        from pipeline.run import summary
        from pipeline.run.dryrun import plan
        from pipeline.workers.engine import Request

        rows, seconds, disk, mute = [], 0.0, 0, 0
        errors: list[Exception] = []
        with progress() as bars:
            request = Request(extractor, cache, stretch)
            for planned in plan(request, self.jobs, existing, lambda job: bars.video(job.video)):
                bars.clear()
                if planned.error is not None:
                    errors.append(planned.error)
                    self._refuse(planned.job, planned.error, planned=True)
                if planned.message:
                    self._note_once(f"{planned.message}.")
                seconds, disk = seconds + planned.seconds, disk + planned.disk
                mute += planned.mute
                rows.append((str(planned.job.video), planned.what, clock(planned.seconds) if planned.seconds else ""))
        if self._refused is not None:
            self._refused.end(again=False)
        draw(("video", "would", "video time"), rows)
        speed = summary.speeds().get(self.speed_key)
        took = (
            f"about {clock(seconds / speed)} at {speed:.2f} × real time" if speed else "at a speed not yet known here"
        )
        out.print(f"{clock(seconds)} of video to extract, {took}; {disk / 1e6:.1f} MB of cache")
        if mute:
            note(f"{mute} of the videos do not say how long they are, and are not in these figures.")
        if errors:
            raise typer.Exit(failure(errors))


@contextlib.contextmanager
def single(remaining: Remaining) -> Iterator[Any]:
    """Show bars for the stages of one video."""
    with progress() as bars:
        yield _One(bars, remaining)


class _One:
    def __init__(self, bars: Any, remaining: Remaining) -> None:
        self.bars, self.remaining = bars, remaining

    def video(self, job: "Job") -> Any:
        show = self.bars.video(job.video)

        def on_progress(stage: str, done: int, total: int) -> None:
            self.remaining.told(job.name, stage, done, total, time.monotonic())
            show(stage, done, total)

        return on_progress

    def done(self, outcome: "Outcome") -> None:
        pass

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.clear()
        yield

    def clear(self) -> None:
        self.bars.clear()

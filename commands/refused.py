"""What is said of videos that fail: each reason once, with the number of the videos and the first of their names."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from commands.terminal import complain, debugging, err, escape, printable
from support.errors import circumstance

if TYPE_CHECKING:
    from pipeline.run.videos import Job

NAMED = 2  # files that a sentence names, where there are more than one more


@dataclass
class _Reason:
    """Why videos failed."""

    first: Exception
    text: str
    """without the file's name"""
    noun: str
    """what the names are of: videos, or files such as results"""
    names: list[str] = field(default_factory=list)
    said: int = 0
    """how many of the names a sentence has counted"""


class Refused:
    """The errors of a run's videos, by reason.

    Of a folder, one reason may hold for every video. It is said as soon as a video is done or worked on that has
    another fate, and at the end once more if it held for further videos.
    """

    def __init__(self, report: Path | None) -> None:
        """`report`: the file that lists every video with its error, where there is one."""
        self._report = report
        self._reasons: dict[tuple[str, str], _Reason] = {}
        self._lock = threading.Lock()  # workers' progress comes from a thread of its own

    def add(self, job: "Job", error: Exception) -> None:
        """Add the error of a video, which is said later; with --debug at once, with its traceback."""
        if debugging():
            complain(error)
        name, noun, text = _parted(job, str(circumstance(error) or error))
        with self._lock:
            reason = self._reasons.setdefault((noun, text), _Reason(error, text, noun))
            reason.names.append(name)
            reason.said += debugging()

    @property
    def waits(self) -> bool:
        """Whether there is a reason that was not said yet."""
        return any(not reason.said for reason in self._reasons.values())

    def say(self) -> None:
        """Say the reasons that were not said yet."""
        with self._lock:
            for reason in self._reasons.values():
                if not reason.said:
                    self._complain(reason)

    def end(self, again: bool) -> None:
        """Say what was not said yet. `again`: also repeat the rest, since nobody sees any more what was said first."""
        with self._lock:
            for reason in self._reasons.values():
                if reason.said < len(reason.names):
                    self._complain(reason)
                elif again:
                    err.print(f"[red]failed:[/] {escape(self._sentence(reason))}", soft_wrap=True)

    def _complain(self, reason: _Reason) -> None:
        complain(reason.first if len(reason.names) == 1 else RuntimeError(self._sentence(reason)))
        reason.said = len(reason.names)

    def _sentence(self, reason: _Reason) -> str:
        if len(reason.names) == 1:
            return str(circumstance(reason.first) or reason.first)
        few = self._report is not None
        more = f" All their names are in {self._report}." if few and len(reason.names) > NAMED + 1 else ""
        return f"each of {len(reason.names)} {reason.noun}, {listed(reason.names, few)}: {reason.text}{more}"


def _parted(job: "Job", text: str) -> tuple[str, str, str]:
    """(name of the file, what it is, the rest) of an error's sentence, which begins with a file's name."""
    head, colon, rest = text.partition(": ")
    if head == str(job.video):
        return head, "videos", rest
    # Of a result or its features: results/match.json.
    if colon and (Path(head).name.startswith(job.name.name) or Path(head).stem == Path(str(job.video)).stem):
        return head, "files", rest
    return str(job.video), "videos", text


def listed(names: Sequence[str], few: bool) -> str:
    """Names in a sentence: all of them, or the first and the number of the others."""
    if few and len(names) > NAMED + 1:
        return f"{', '.join(map(printable, names[:NAMED]))} and {len(names) - NAMED} more"
    return f"{', '.join(map(printable, names[:-1]))} and {printable(names[-1])}"

"""Which mistakes the user can mend, and the exit code of each; every other exception is a bug."""

import errno
import os
import traceback
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
OURS = frozenset({"cli", "commands", "extractors", "jcdnet", "model", "pipeline", "postprocess", "support"})  # packages
MEMORY = "there is not enough memory; end other programs, or raise the limit (`ulimit -v`, or the container's)"
# What a system refuses, whatever program asks: the cause and the next step. Other errors of it may be bugs of ours.
REFUSALS = {
    errno.EACCES: "permission is denied; check who may read and write it and the folders above it, or name another one",
    errno.EPERM: "this is not permitted; check who may read and write it, or name another one",
    errno.EROFS: "the file system is read-only; name a folder on another one",
    errno.EFBIG: "a file would be larger than this process may write; raise the limit (`ulimit -f`)",
    errno.EMFILE: "this process has too many files open; raise the limit (`ulimit -n`)",
    errno.ENFILE: "this machine has too many files open; end other programs",
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: "no further process or thread may be started; raise the limit (`ulimit -u`, or the container's)",
    errno.EIO: "the disk or the share does not answer; see whether it is still there",
    errno.ESTALE: "the share has changed or is gone; mount it again",
    errno.ENOTCONN: "the share is not connected any more; mount it again",
    errno.ELOOP: "its links lead in a circle; name the file that is meant",
}
BUG, USAGE, INPUT_FAILED, ENVIRONMENT, INTERRUPTED = 1, 2, 3, 4, 130


class UserError(Exception):
    """Something that the user can mend; the message names the file, the cause and the next step."""

    exit_code = USAGE


class UsageError(UserError):
    """What was asked for does not make sense."""


class OutputError(UserError):
    """A result cannot be written, or would overwrite another one."""


class EnvironmentMissing(UserError):
    """This machine lacks something: a GPU, a network, weights."""

    exit_code = ENVIRONMENT


class DiskFull(EnvironmentMissing):
    """There is no room for what is to be written; what is complete stays."""


class Stopped(Exception):
    """The user asked to stop; what is complete is kept."""


class Busy(Exception):
    """Another process is at work on this video."""


class Bug(Exception):
    """A mistake of this program, met over one video: that video fails, and the others go on.

    `traceback` is text. A traceback itself does not survive the way from a worker, and it keeps the frames' memory.
    """

    def __init__(self, told: str, traceback: str) -> None:
        super().__init__(told, traceback)
        self.told, self.traceback = told, traceback

    def __str__(self) -> str:
        return self.told


def as_bug(error: Exception, video: Path) -> Bug:
    """An error that is nobody's mistake but ours, with its traceback; one that is a `Bug` already stays as it is."""
    if isinstance(error, Bug):
        return error
    told = f"{video}: a bug in jcdnet: {type(error).__name__}: {error}; please report it, with the file."
    return Bug(told, traceback_of(error))


def traceback_of(error: Exception) -> str:
    """Where an error comes from, as Python shows it."""
    return error.traceback if isinstance(error, Bug) else "".join(traceback.format_exception(error))


def cannot_write(path: Path, error: OSError, otherwise: str = "choose another folder") -> Exception:
    """The user's error for a write that failed."""
    if error.errno in FULL:
        return DiskFull(f"{path}: the disk is full; make room and run again, what is complete is kept.")
    if error.errno in (errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO):  # in another folder it would be the same
        return EnvironmentMissing(f"{path}: {REFUSALS[error.errno]}.")
    return OutputError(f"{path}: cannot be written ({error.strerror}); {otherwise}.")


def circumstance(error: BaseException) -> Exception | None:
    """The user's error for what the machine refused, in one sentence; None for what may be a bug.

    For what comes up from anywhere: where a file is read or written on the user's behalf, that place knows better what
    to say.
    """
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError)
        and any(sign in text for sign in ("out of memory", "can't allocate memory", "failed to map segment"))
    ):
        return EnvironmentMissing(f"{MEMORY}.")
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return EnvironmentMissing(f"{REFUSALS[errno.EAGAIN]}.")
    if not isinstance(error, OSError):
        return None
    if "No usable temporary directory" in text:  # of tempfile
        return EnvironmentMissing("no folder for temporary files can be written; set TMPDIR to one that can.")
    if "MPLCONFIGDIR" in text:  # matplotlib's own sentence
        return EnvironmentMissing(
            "matplotlib, which draws the picture, has no folder to write to; set MPLCONFIGDIR to one."
        )
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{where}this name is longer than the file system takes; shorten it.")
    if (said := REFUSALS.get(error.errno or 0)) is None:
        return None
    return EnvironmentMissing(f"{where}{said}.")


def exit_code(error: Exception) -> int:
    """Exit code of a user's mistake, 1 for anything else."""
    if isinstance(error, ImportError):  # a package is missing or broken, unless it is one of ours
        return BUG if (error.name or "").partition(".")[0] in OURS else ENVIRONMENT
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
        return ENVIRONMENT
    known = circumstance(error) or error
    return known.exit_code if isinstance(known, UserError) else BUG

"""Errors that the user can mend, with their exit codes. Every other exception is a bug."""

import errno
import os
import traceback
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
OURS = frozenset({"cli", "commands", "extractors", "jcdnet", "model", "pipeline", "postprocess", "support"})  # packages
MEMORY = "there is not enough memory; end other programs, or raise the limit (`ulimit -v`, or the container's)"
# What the system refuses to any program: the cause and the next step. Other errors of the system may be our bugs.
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
    """An error that the user can mend; the message names the file, the cause and the next step."""

    exit_code = USAGE


class UsageError(UserError):
    """The user asked for something that makes no sense."""


class OutputError(UserError):
    """A result cannot be written, or would overwrite another one."""


class EnvironmentMissing(UserError):
    """This machine lacks something: a GPU, a network, weights."""

    exit_code = ENVIRONMENT


class DiskFull(EnvironmentMissing):
    """The disk has no room for a file; files that are complete stay."""


class Stopped(Exception):
    """The user asked to stop; files that are complete stay."""


class Busy(Exception):
    """Another process is working on this video."""


class Bug(Exception):
    """A bug of this program that one video met. That video fails, and the others go on.

    `traceback` is text, because a traceback cannot be sent from a worker, and would keep the frames' memory.
    """

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message, traceback)
        self.message, self.traceback = message, traceback

    def __str__(self) -> str:
        return self.message


def as_bug(error: Exception, video: object) -> Bug:
    """Return an error as a `Bug` of a video, with its traceback; a `Bug` is returned as it is."""
    if isinstance(error, Bug):
        return error
    message = f"{video}: a bug in jcdnet: {type(error).__name__}: {error}; please report it, with the file."
    return Bug(message, traceback_of(error))


def traceback_of(error: Exception) -> str:
    """Return an error's traceback as Python prints it."""
    return error.traceback if isinstance(error, Bug) else "".join(traceback.format_exception(error))


def cannot_write(path: Path, error: OSError, otherwise: str = "choose another folder") -> Exception:
    """Return the error to raise for a write that failed."""
    if error.errno in FULL:
        return DiskFull(f"{path}: the disk is full; make room and run again, what is complete is kept.")
    if error.errno in (errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO):  # another folder would not help
        return EnvironmentMissing(f"{path}: {REFUSALS[error.errno]}.")
    return OutputError(f"{path}: cannot be written ({error.strerror}); {otherwise}.")


def circumstance(error: BaseException) -> Exception | None:
    """Return the user's error for something that the machine refused; None if it may be a bug.

    This is for errors from anywhere. Code that reads or writes a file of the user's raises a better error itself.
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
    if "No usable temporary directory" in text:  # from tempfile
        return EnvironmentMissing("no folder for temporary files can be written; set TMPDIR to one that can.")
    if "MPLCONFIGDIR" in text:  # matplotlib's own sentence
        return EnvironmentMissing(
            "matplotlib, which draws the picture, has no folder to write to; set MPLCONFIGDIR to one."
        )
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{where}this name is longer than the file system takes; shorten it.")
    if (refusal := REFUSALS.get(error.errno or 0)) is None:
        return None
    return EnvironmentMissing(f"{where}{refusal}.")


def exit_code(error: Exception) -> int:
    """Return the exit code of an error: that of a user's error, 1 for anything else."""
    if isinstance(error, ImportError):  # a package is missing or broken; if it is one of ours, that is a bug
        return BUG if (error.name or "").partition(".")[0] in OURS else ENVIRONMENT
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
        return ENVIRONMENT
    known = circumstance(error) or error
    return known.exit_code if isinstance(known, UserError) else BUG

"""The durations of videos by their headers, for estimates before any video is decoded.

A process of its own reads the headers, since a bad file can crash or hang the process that opens it. Such a file counts
as one without a duration.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START = 120.0  # seconds for the process to start
PATIENCE = 10.0  # seconds for one header
MEMORY = 1 << 30  # bytes that the process may take
_ARGUMENTS = ("-P", "-m", "extractors.decode.headers")  # -P: import no module from the current folder


def durations(
    paths: Sequence[Path], stop: Callable[[], bool] = lambda: False, patience: float = PATIENCE
) -> Iterator[tuple[Path, float]]:
    """Each path with the seconds that its header declares; 0 if it declares none or cannot be opened."""
    left = list(paths)
    while left and not stop():
        try:
            child = _child()
        except OSError:  # no process can be started: go on without estimates
            yield from ((path, 0.0) for path in left)
            return
        answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_listen, args=(child, answers), daemon=True).start()
        try:
            if _answer(answers, START) is None:  # it does not even start, and the next one would not either
                yield from ((path, 0.0) for path in left)
                return
            while left and not stop():
                seconds = _ask(child, left[0], answers, patience)
                yield left.pop(0), seconds or 0.0
                if seconds is None:  # it crashed or hangs: another process reads the rest
                    break
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def serve() -> None:
    """The child: it reads a path per line from stdin, and writes the seconds by its header to stdout."""
    import signal

    from extractors.decode.child import limit_memory

    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them
        signal.signal(number, signal.SIG_IGN)
    limit_memory(MEMORY)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # FFmpeg's own messages are not answers
    answers.write("0\n")  # ready
    answers.flush()
    for line in sys.stdin:
        answers.write(f"{json.dumps(_read(Path(json.loads(line))))}\n")
        answers.flush()


def _read(path: Path) -> float:
    from extractors.decode.container import open_video, stated_duration

    try:
        with open_video(path, threads=1) as (container, stream):
            return max(stated_duration(container, stream), 0.0)
    except Exception:  # the error is reported when the video is decoded
        return 0.0


def _child() -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, *_ARGUMENTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )


def _listen(child: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    assert child.stdout is not None
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        for line in child.stdout:
            answers.put(line)
    answers.put("")


def _ask(child: subprocess.Popen[str], path: Path, answers: queue.Queue[str], patience: float) -> float | None:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(str(path.absolute())) + "\n")
        child.stdin.flush()
    except OSError:
        return None
    return _answer(answers, patience)


def _answer(answers: queue.Queue[str], patience: float) -> float | None:
    try:
        return float(answers.get(timeout=patience))
    except (ValueError, queue.Empty):
        return None


if __name__ == "__main__":
    serve()

"""Ctrl-C and SIGTERM: the first one finishes what is in progress and then stops, the second one stops at once."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from commands.terminal import err


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Give the block a function that says whether the user asked to stop."""
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

"""Items made in a thread of their own, a bounded number of them in advance."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], most: int) -> Iterator[Item]:
    """The same items, made by a thread that is at most `most` of them in advance; its errors are raised here.

    When the caller wants no more, the thread ends after the item that it is making. Nobody waits for that, since the
    thread may itself be waiting for a decoder that is about to be closed.
    """
    made: SimpleQueue[tuple[str, Item | BaseException | None]] = SimpleQueue()
    room = threading.Semaphore(most - 1)  # one item is being made
    unwanted = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put(("item", item))
                room.acquire()
                if unwanted.is_set():
                    return
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))

    threading.Thread(target=make, name="frames", daemon=True).start()
    try:
        while (message := made.get())[0] == "item":
            room.release()
            yield message[1]  # type: ignore[misc]
        if isinstance(message[1], BaseException):
            raise message[1]
    finally:
        unwanted.set()
        room.release()

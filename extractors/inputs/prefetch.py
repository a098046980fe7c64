"""Making things in a thread of its own, a bounded number of them ahead of whoever uses them."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], most: int) -> Iterator[Item]:
    """The same items, made by a thread that is at most `most` of them ahead; what it raises is raised here.

    When no more are wanted the thread ends with the item it is at. Nobody waits for that: it may itself be waiting
    for a decoder that is about to be closed.
    """
    made: SimpleQueue[tuple[str, Item | BaseException | None]] = SimpleQueue()
    room = threading.Semaphore(most - 1)  # one is in the making
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
        while (said := made.get())[0] == "item":
            room.release()
            yield said[1]  # type: ignore[misc]
        if isinstance(said[1], BaseException):
            raise said[1]
    finally:
        unwanted.set()
        room.release()

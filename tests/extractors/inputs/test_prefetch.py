"""Items made in a thread: the same ones, a bounded number ahead, whatever goes wrong."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import until

from extractors.inputs.prefetch import prefetch


def threads() -> int:
    return sum(thread.name == "frames" for thread in threading.enumerate())


@pytest.mark.parametrize("most", [1, 2, 7, 100])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_same_items_in_order(most: int, count: int) -> None:
    assert list(prefetch(iter(range(count)), most)) == list(range(count))


@pytest.mark.parametrize("most", [1, 5])
def test_never_more_than_that_many_ahead(most: int) -> None:
    made: list[int] = []
    items = prefetch((made.append(k) or k for k in itertools.count()), most)  # type: ignore[func-returns-value]
    for used in range(1, 6):
        next(items)
        until(lambda used=used: len(made) >= used + most)  # type: ignore[misc]
        time.sleep(0.02)
        assert len(made) == used + most
    items.close()  # type: ignore[attr-defined]


def test_what_the_thread_raises_comes_in_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("here")

    items = prefetch(broken(), 10)
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError, match="here"):
        next(items)


def test_the_thread_ends_when_no_more_are_wanted() -> None:
    before = threads()
    items = prefetch(itertools.count(), 3)
    assert next(items) == 0
    assert threads() == before + 1
    items.close()  # type: ignore[attr-defined]
    until(lambda: threads() == before)

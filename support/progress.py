"""How far something has come: a function that long work calls, and that the command line draws as bars."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""(stage, done, total); features count snippets, of an estimated total"""


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""

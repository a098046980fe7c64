"""Progress: a function that long work calls and that the command line draws as bars."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""(stage, done, total); the stage "features" counts snippets, and its total is an estimate"""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""

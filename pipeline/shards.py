"""A share of the videos for each of several machines that do not talk to one another."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from pipeline.run.videos import Job
from postprocess.formats.text import encodable
from support.errors import UsageError


def id_of(job: Job) -> str:
    """The id of a video in tables and shards: its path below the folder that was given, with its suffix.

    It is the same on every machine, wherever the folder is mounted.
    """
    return encodable((job.name.parent / job.video.name).as_posix())


def parse(text: str) -> tuple[int, int]:
    """(number, count) of a shard such as "3/10"; the first is 1/10.

    Raises:
        UsageError: it is no such text, or the number is not from 1 to the count.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if found is None:
        raise UsageError(f"--shard takes a number and how many shards there are, such as 3/10, not {text!r}.")
    number, count = int(found[1]), int(found[2])
    if not 1 <= number <= count:
        raise UsageError(f"--shard {text}: the shards of {count} are 1/{count} to {count}/{count}.")
    return number, count


def shard_of(name: str, count: int) -> int:
    """The shard, from 1 to `count`, of a video by its id; every machine and every version finds the same.

    Names are compared in NFC: macOS spells accents otherwise.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def share(jobs: Sequence[Job], text: str) -> list[Job]:
    """The videos of a shard such as "3/10", in order.

    Raises:
        UsageError: as `parse`.
    """
    number, count = parse(text)
    return [job for job in jobs if shard_of(id_of(job), count) == number]

"""Names, labels and times as text: on one line, in UTF-8, without characters that XML forbids; and 1:30 as seconds."""

import os
import re
from pathlib import Path

# Everything but XML 1.0, production [2] Char. Lone surrogates stand for bytes of a file name that is not UTF-8.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_CLOCK = re.compile(r"(?:(?:(\d{1,4}):)?(\d{1,4}):)?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})")


def seconds_of(text: str) -> float:
    """The seconds of a time as people write it: 90, 90.5, 0:30, 1:02:03.5.

    Raises:
        ValueError: the text is no such time, or has 60 or more seconds behind a colon.
    """
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a time; write seconds (90.5), or a clock (1:30 or 1:02:03.5).")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    if (found[2] is not None and seconds >= 60) or (found[1] is not None and minutes >= 60):
        raise ValueError(f"{text!r} is not a time: behind a colon, minutes and seconds are below 60.")
    return 3600 * hours + 60 * minutes + seconds


def encodable(text: str) -> str:
    """`text` in a form that UTF-8 can hold: a lone surrogate becomes a backslash and its number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """`text` on one line; each run of blanks becomes one blank."""
    return encodable(" ".join(text.split()))


def xml_text(text: str) -> str:
    """`text` on one line; U+FFFD replaces each character that an XML document may not hold."""
    return _NOT_XML.sub("\ufffd", one_line(text))


def file_name(video: str) -> str:
    """The last part of a video's path, whichever system wrote the path."""
    return video.replace("\\", "/").rpartition("/")[2] or video


def file_url(video: str) -> str:
    """The file: address of a video, absolute, without `..` and percent-encoded."""
    return Path(os.path.abspath(video)).as_uri()  # noqa: PTH100  abspath follows no links

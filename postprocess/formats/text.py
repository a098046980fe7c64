"""Names and labels as the formats can hold them: on one line, in UTF-8, without characters that XML forbids."""

import re
from pathlib import Path

# Everything but XML 1.0, production [2] Char. Lone surrogates stand for bytes of a file name that is not UTF-8.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
    """The file: address of a video, absolute and percent-encoded."""
    return Path(video).absolute().as_uri()

"""Names and labels as the formats can hold them: on one line, in UTF-8, without what XML forbids."""

import re
from pathlib import Path

# XML 1.0, production [2] Char; lone surrogates stand for the bytes of a file name that is not UTF-8.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def encodable(text: str) -> str:
    """`text` as UTF-8 can hold it: a lone surrogate becomes a backslash and its number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """`text` on one line: each run of blanks is one blank."""
    return encodable(" ".join(text.split()))


def xml_text(text: str) -> str:
    """`text` on one line without the characters that no XML document may hold; U+FFFD stands for each."""
    return _NOT_XML.sub("\ufffd", one_line(text))


def file_url(video: str) -> str:
    """The file: address of a video, absolute and percent-encoded."""
    return Path(video).absolute().as_uri()

"""Fills the pages' templates: texts are escaped, data cannot end its element, scripts and styles are put inside.

Everything that comes from files (names, labels, warnings) is escaped here or set as text by the script, never as
markup.
"""

import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from postprocess.formats.text import encodable
from postprocess.formats.writers import clock


def text(text: str) -> str:
    """Text as HTML."""
    return escape(encodable(text))


def as_json(data: Any) -> str:
    """Data for a script element."""
    # "<" could end the script element, whatever its type. Escaped, it is the same JSON.
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def script(*names: str) -> str:
    """One script of several files, which share a scope of their own."""
    return '"use strict";\n(() => {\n' + "\n".join(map(asset, names)) + "\n})();"


def filled(name: str, **fields: str) -> str:
    """A template with its fields."""
    return Template(asset(name)).substitute(fields)


def asset(name: str) -> str:
    """A file of assets/."""
    return files("postprocess.pages").joinpath("assets", name).read_text(encoding="utf-8")


def short(seconds: float) -> str:
    """A length as people say it, without hundredths: 75.5 → "1:16"; but 0.4 is not 0:00."""
    return clock(seconds if 0 < seconds < 1 else float(round(seconds))).removesuffix(".00")

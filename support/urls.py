"""Addresses of what lies in a store (s3://, gs://, memory://) or in a folder (file://), and how secrets are left out.

`pathlib` makes "s3:/bucket" of "s3://bucket", so an address stays text until it is a local file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from support.errors import UsageError
from support.paths import STORES

# name=value, name: value, 'name': 'value', as in addresses, headers, and the arguments that libraries print
_PAIR = re.compile(r"""(?<![\w-])([\w-]+)(["']?\s*(?:=|:(?!//))\s*["']?)([^\s"'&,;)}<>]+)""")
_IN_QUERY = re.compile(r"[?&;]([\w-]+)=")
_SECRET_NAME = re.compile(
    r"token|secret|passw|credential|signature|authorization|^sig$|^key$|accessid|(?:access|account|private|api)[_-]?key",
    re.IGNORECASE,
)
# A secret may hold a slash. Lengths are bounded, and each name has one beginning, so that long texts take no long time.
_USER = re.compile(
    r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{1,30}://)(?:[^/\s@]{1,300}|[^/\s@:]{0,300}:[^\s@]{0,300})@",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"  # AWS's key ids
    r"|\bya29\.[\w.-]+|\bGOOG1?[A-Z0-9]{20,}\b"  # Google's tokens and key ids
    r"|\bBearer\s+[\w.~+/=-]+|\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]+)?"  # JSON web tokens
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSW|ACCESS_KEY|CREDENTIAL|_KEY$", re.IGNORECASE)
SHORTEST = 6  # characters of a variable's value that is left out; shorter ones are words


def redacted(text: str) -> str:
    """Return a text without what looks like a credential, and without the values of variables that hold one."""
    text = _PAIR.sub(_without_value, _SHAPES.sub("…", _USER.sub(r"\1…@", text)))
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and _SECRET_VARIABLE.search(name):
            text = text.replace(value, "…")
    return text


def _without_value(found: re.Match[str]) -> str:
    # "Key: day1/a.mp4" is how S3 names an object.
    return f"{found[1]}{found[2]}…" if _SECRET_NAME.search(found[1]) and found[1] != "Key" else found[0]


def address(given: str) -> str:
    """Return an address in the form in which it is kept and shown, without / at its end.

    Raises:
        UsageError: it holds credentials, which would get into results and into the shell's history, or names nothing.
    """
    scheme, _, rest = given.partition("://")
    scheme = scheme.lower()
    bucket = rest.partition("/")[0]  # of an access point: arn:aws:s3:REGION:ACCOUNT:accesspoint
    named = "@" in bucket or (":" in bucket and "@" in rest and not bucket.startswith("arn:"))
    if named or any(map(_SECRET_NAME.search, _IN_QUERY.findall(rest))):
        raise UsageError(
            f"{redacted(given)}: leave the credentials out of the address; the store's package finds them in the "
            "environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS) and its own files."
        )
    rest = rest.rstrip("/") if scheme != "memory" else rest.strip("/")
    if not rest or rest.startswith("/"):
        raise UsageError(f"{given}: names no bucket; write {scheme}://BUCKET/NAME.")
    return f"{scheme}://{rest}"


def local_file(given: str) -> Path:
    """Return the path that file:// names; %20 and the like are decoded if no file has that very name.

    Raises:
        UsageError: it names another machine.
    """
    rest = given.partition("://")[2]
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f"{redacted(given)}: names no file of this machine; write file:///FOLDER/NAME.")
    plain = Path(f"/{path}")
    return plain if plain.exists() else Path(unquote(f"/{path}"))


def is_file_url(given: str) -> bool:
    """Return whether an address is one of this machine's files, to which `local_file` gives the path."""
    return given[:7].lower() == "file://"


def package_of(url: str) -> str:
    """Return the package that reads a store, beside fsspec; "" for none."""
    return STORES[url.partition("://")[0].lower()]


def virtual(url: str) -> Path:
    """Return an absolute path that has the parts of an address, to derive names from; no file is there.

    Parts such as ".." are resolved, so that no name derived from it leads out of a folder.
    """
    scheme, _, rest = url.partition("://")
    return Path(os.path.normpath(f"/{scheme}:/{rest.lstrip('/')}"))


def name_of(url: str) -> str:
    """Return the last part of an address."""
    return PurePosixPath(url).name


def split(url: str) -> tuple[str, str]:
    """Return an address's folder and its last part.

    Raises:
        UsageError: it is a bucket.
    """
    folder, _, name = url.rpartition("/")
    if folder.endswith("/") or not name:
        raise UsageError(f"{url}: is a bucket, not a file in it; write {url}/NAME.")
    return folder, name

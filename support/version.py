"""Versions of installed packages, without importing them."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

VERSION = "0.2.0"


@cache  # a run asks twice for each video, and reading a package's metadata takes milliseconds
def package_version(name: str) -> str:
    """Return the version of an installed package, or "absent"; jcdnet has its own in a checkout, too."""
    try:
        return version(name)
    except PackageNotFoundError:
        return VERSION if name == "jcdnet" else "absent"

"""Versions of what is installed, without importing any of it."""

from importlib.metadata import PackageNotFoundError, version

VERSION = "0.2.0"


def package_version(name: str) -> str:
    """Version of an installed package, "absent" where there is none; jcdnet's own also in a checkout."""
    try:
        return version(name)
    except PackageNotFoundError:
        return VERSION if name == "jcdnet" else "absent"

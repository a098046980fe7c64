"""Full float32 arithmetic, on a GPU too: by default PyTorch lets cuDNN round float32 to TF32."""

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

    PyTorch has these settings for the whole process, so threads that are inside at the same time share them. The first
    thread sets them, and the last one restores the previous values.
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
    # Every parameter is given, since `flags` has its own defaults and does not keep the current values. Its `enabled`
    # is False by default, and without cuDNN I3D is 24 times slower (260 instead of 6,300 frames/s, H200).
    # (`depthwise_kernel`, which torch 2.11 does not have, keeps PyTorch's own default.)
    cudnn = torch.backends.cudnn.flags(
        enabled=True,
        benchmark=False,  # the search for the fastest algorithm may choose another one in another process
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

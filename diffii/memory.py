"""Errors that mean a full memory, on a card or beside it: only some of them have a class of their own."""

from __future__ import annotations

import torch

_SAID = (
    "DefaultCPUAllocator",  # the CPU's allocator raises a plain RuntimeError
    # CUDA's libraries ask for room beside torch's own, and say so as any other error.
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


def no_memory(error: BaseException) -> bool:
    """Whether memory was short, and not something wrong with what was asked for."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(said in str(error) for said in _SAID)

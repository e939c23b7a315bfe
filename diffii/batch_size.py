"""How many rows a model call should have on this device: measured, because no table knows the next card.

A larger call is faster a row, up to where the device is full, and takes more memory.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffii.backbone import Backbone
from diffii.errors import ModelError
from diffii.memory import no_memory

SIZES = (1, 2, 4, 8, 16, 32, 64)
ENOUGH = 0.95
"""Of the best rate: a smaller call that reaches it is taken, so that noise does not decide between equals, and a bad
row costs fewer mates a second try."""
ROOM = 0.8
"""Of a card's memory: the embedder has to go in, and an allocator that worked for hours has gaps."""
CALLS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls of one size: `rate` in rows a second, `memory` in bytes at most (0 on the CPU, where nobody counts)."""

    rows: int
    rate: float
    memory: int = 0


def best(measured: Sequence[Measured]) -> int:
    """The smallest size that is about as fast as the fastest. Raises ModelError where not even one row fits."""
    if not measured:
        raise ModelError(
            "backbone: not even one image at a time fits into this device's memory; choose a card with more of it, "
            "more of the card per actor (actors.gpus), or a smaller model"
        )
    fastest = max(one.rate for one in measured)
    return min(one.rows for one in measured if one.rate >= ENOUGH * fastest)


def generating(backbone: Backbone, guided: bool, share: float = 1.0, sizes: Sequence[int] = SIZES) -> list[Measured]:
    """Denoising calls at each of the sizes that fit, in images; `share` of the card's memory is ours.

    A guided call has two rows an image. Decoding is not timed (it is one call against the many of denoising), but has
    to fit.
    """
    return _measured(
        backbone, sizes, share, 2 if guided else 1, lambda rows: lambda: backbone.decode(_noise(backbone, rows))
    )


def inverting(backbone: Backbone, share: float = 1.0, sizes: Sequence[int] = SIZES) -> list[Measured]:
    """The same for inversion, with encoding in the place of decoding."""
    size = backbone.image_size
    return _measured(backbone, sizes, share, 1, lambda rows: backbone.encode(np.zeros((rows, size, size, 3), np.uint8)))


def _measured(
    backbone: Backbone,
    sizes: Sequence[int],
    share: float,
    rows_each: int,
    beside: Callable[[int], object],
) -> list[Measured]:
    device, found = backbone.device, list[Measured]()
    limit = ROOM * share * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0.0
    for size in sizes:
        _free(device)
        try:
            x = _noise(backbone, size * rows_each)
            seconds = _seconds(backbone, x)
            beside(size)
        except RuntimeError as error:
            if not no_memory(error):
                raise
            break
        memory = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
        if memory > limit:
            break  # a larger one needs more
        found.append(Measured(size, size / seconds, memory))
    _free(device)
    return found


def _noise(backbone: Backbone, rows: int) -> torch.Tensor:
    return torch.randn(rows, *backbone.latent_shape, generator=torch.Generator().manual_seed(0)).to(backbone.device)


def _seconds(backbone: Backbone, x: torch.Tensor) -> float:
    """Of a call of the U-Net, the median of some after the first."""
    taken: list[float] = []
    grid, text = backbone.grid(1, "matched"), backbone.prompts([""] * len(x))
    for _ in range(CALLS + 1):
        began = time.perf_counter()
        backbone.epsilon(x, grid.timesteps[0], grid.alphas[0], text)
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

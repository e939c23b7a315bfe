"""A generator for which some things go wrong, always the same ones: rows that raise, and a card without memory."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch

from actors.generator import Generator
from diffii.dataset import layout

POISON = frozenset({(0, 3), (1, 2), (1, 7)})
"""(label, ordinal) of rows that raise in the model, in every run: the quiet one has them too."""
PAUSE = "CHAOS_PAUSE"
"""Environment: seconds that a call of the model takes longer, so that there is time to be killed in."""
NO_MEMORY = "CHAOS_NO_MEMORY"
"""Environment: calls, counted over all processes, that end with CUDA out of memory."""


class Troubled(Generator):
    def _model(self, rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        time.sleep(float(os.environ.get(PAUSE, "0")))
        if self._takes_memory():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if POISON & {(rows[index]["label"], rows[index]["ordinal"]) for index in batch}:
            raise RuntimeError("a kernel asserts")
        return super()._model(rows, starts, batch)

    def _takes_memory(self) -> bool:
        calls = range(int(os.environ.get(NO_MEMORY, "0")))
        return any(self._storage.put_once(memory_mark(call), b"") for call in calls)


def memory_mark(call: int) -> str:
    """A file in the output that says that this call ended so."""
    return f"{layout.OWN}/no-memory/{call:04d}"

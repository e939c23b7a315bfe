"""An actor whose GPU is a sleep: what it reads, stages and tells is what a generator does. Imports no torch.

So many of them fit on a small machine, and what is measured is the engine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from actors.board import COMPUTING, ENCODING, READING, STAGING, WAITING
from actors.gpu_clock import GpuClock
from diffii.dataset import layout, staged
from diffii.dataset.patience import Meter
from diffii.dataset.storage import Storage
from diffii.hashing import sha256
from diffii.signatures import DIMENSIONS, LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSpec:
    output_url: str
    image_seconds: float
    image_bytes: int


class Simulated:
    """A callable for Ray Data, as `actors.generator.Generator` is."""

    def __init__(self, spec: SimulatedSpec) -> None:
        self._spec, self._storage = spec, Storage(spec.output_url)
        self._gpu, self._calls = GpuClock(), Meter()
        # Encoded images do not compress.
        self._image = np.random.default_rng(0).bytes(spec.image_bytes)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._make(chunk) for chunk in table.to_pylist()])

    def _make(self, chunk: dict[str, Any]) -> dict[str, Any]:
        seconds, turned = dict[str, float](), time.monotonic()

        def spent(phase: str) -> None:
            nonlocal turned
            now = time.monotonic()
            seconds[f"{phase}_seconds"], turned = now - turned, now

        rows = len(chunk["sample_id"])
        attempt = layout.attempt(layout.chunk_journal(chunk["wave"], chunk["chunk"]), 0)
        self._storage.read_or_none(attempt)
        spent(READING)
        with self._gpu:
            spent(WAITING)
            self._storage.put_once(attempt, b"{}")
            time.sleep(rows * self._spec.image_seconds)
            spent(COMPUTING)
        made = [self._row(chunk, number) for number in range(rows)]
        spent(ENCODING)
        self._storage.put_once(layout.staged_chunk(chunk["wave"], chunk["chunk"]), staged.encode(made, "simulated"))
        self._storage.remove(attempt)
        spent(STAGING)
        calls = self._calls.read()
        told = {"chunk": chunk["chunk"], "rows": rows, "lost": 0, "storage_calls": calls.calls}
        return {**told, "storage_retries": calls.retries, **self._gpu.read(), **seconds}

    def _row(self, chunk: dict[str, Any], number: int) -> dict[str, Any]:
        columns = ("sample_id", "label", "ordinal", "phi", "seed", "parent_a", "parent_b", "suffix", "recipe")
        row = {name: chunk[name][number] for name in columns}
        draw = np.random.default_rng(int(row["sample_id"][:16], 16))
        embedding = np.clip(np.rint(16.0 * draw.standard_normal(DIMENSIONS)), -LIMIT, LIMIT).astype(np.int8)
        image = row["sample_id"].encode() + self._image[len(row["sample_id"]) :]
        return row | {
            "outcome": staged.KEPT,
            "reason": "",
            "theta": 1.5,
            "image": image,
            "image_sha256": sha256(image),
            "phash": draw.bytes(8),
            "embedding": embedding.tobytes(),
        }

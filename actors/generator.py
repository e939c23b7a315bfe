"""The generator: a chunk of plan rows in, one staged file out.

Two calls run at once in an actor: while one chunk is denoised under the lock, the other reads its inversions and the
images of the one before are encoded and signed in threads. So the GPU waits for neither storage nor encoder.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actors.inverter import read_inversion
from actors.model import ModelSpec, fingerprint, load
from diffii.circle import Norm, angle, circle_point, gaussian
from diffii.dataset import layout, staged
from diffii.dataset.storage import Storage
from diffii.denoise import denoise
from diffii.features import perceptual_hash
from diffii.hashing import seed64, sha256
from diffii.images import Encoding, encode
from diffii.invert import fixed_batches
from diffii.schedule import Spacing

ENCODE_THREADS = 2
CACHED_INVERSIONS = 2_000
"""Inversions kept in memory: 2000 of SD-1.5's are 260 MB, and a chunk of many classes shares few parents."""

RowFault = (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError, OSError)
"""What one row's data can raise while it is made. Such a row is set aside with the reason; its mates go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    model: ModelSpec
    output_url: str
    steps: int
    spacing: Spacing
    split: float
    guidance: float
    norm: Norm
    micro_batch: int
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a row's denoising begins, or why it cannot."""

    noise: np.ndarray
    theta: float
    fault: str | None


class Generator:
    """A callable for Ray Data: a table with one chunk per row (see `engine.plan.CHUNK_SCHEMA`)."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._spec = spec
        self._storage = Storage(spec.output_url)
        self._backbone = load(spec.model)
        self._grid = self._backbone.grid(spec.steps, spec.spacing)
        self._fingerprint = f"{fingerprint(self._backbone)} batch-{spec.micro_batch}"
        self._gpu = threading.Lock()
        self._encoders = ThreadPoolExecutor(ENCODE_THREADS)
        self._inversions: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.make_chunk(chunk) for chunk in table.to_pylist()])

    def make_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Generate and stage one chunk; what it returns is for progress alone, the staged file is the truth."""
        name = layout.staged_chunk(chunk["wave"], chunk["chunk"])
        rows = _rows_of(chunk)
        starts = [self._start(row) for row in rows]
        with self._gpu:
            # Held for the whole chunk: the lock is not fair, and two half-made chunks help nobody.
            began = time.monotonic()
            finished = self._denoise(rows, starts)
            busy = time.monotonic() - began
        staged_rows = [future.result() for future in finished]
        first = self._storage.put_once(name, staged.encode(staged_rows, self._fingerprint))
        outcomes = [row["outcome"] for row in staged_rows]
        return {
            "chunk": chunk["chunk"],
            "rows": len(rows),
            "lost": len(rows) - outcomes.count(staged.KEPT),
            "busy_seconds": busy,
            "first": first,
        }

    # -- the start of each row: geometry on the CPU, float32 --------------------------------------------------------

    def _start(self, row: dict[str, Any]) -> _Start:
        try:
            latent, a = self._inversion(row["inversion_a"])
            if row["inversion_a"] == row["inversion_b"]:
                b = self._forward_diffused(latent, row["seed"])
            else:
                b = self._inversion(row["inversion_b"])[1]
            spare = gaussian(row["seed"], a.shape)
            return _Start(circle_point(a, b, row["phi"], spare, self._spec.norm), angle(a, b), None)
        except RowFault as error:
            return _Start(np.empty(0), 0.0, f"{type(error).__name__}: {error}")

    def _forward_diffused(self, latent: np.ndarray, seed: int) -> np.ndarray:
        """The partner of a class's only image: its own latent, noised to the top of the grid by a seed of the row."""
        alpha = self._grid.alphas[-1]
        noise = gaussian(seed64(seed, "partner"), latent.shape)
        return (np.float32(alpha**0.5) * latent + np.float32((1 - alpha) ** 0.5) * noise).astype(np.float32)

    def _inversion(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        found = self._inversions.get(key)
        if found is None:
            found = self._inversions[key] = read_inversion(self._storage, key)
            if len(self._inversions) > CACHED_INVERSIONS:
                self._inversions.popitem(last=False)
        return found

    # -- denoising at one fixed shape -------------------------------------------------------------------------------

    def _denoise(self, rows: list[dict[str, Any]], starts: list[_Start]) -> list[Future[dict[str, Any]]]:
        futures: dict[int, Future[dict[str, Any]]] = {}
        good = [i for i, start in enumerate(starts) if start.fault is None]
        for places, real in fixed_batches(len(good), self._spec.micro_batch):
            batch = [good[place] for place in places]
            for index, outcome in zip(batch[:real], self._make(rows, starts, batch)[:real], strict=True):
                futures[index] = self._encoders.submit(self._finish, rows[index], starts[index], outcome)
        for index, start in enumerate(starts):
            if start.fault is not None:
                futures[index] = self._encoders.submit(self._finish, rows[index], start, start.fault)
        return [futures[index] for index in range(len(rows))]

    def _make(self, rows: list[dict[str, Any]], starts: list[_Start], batch: list[int]) -> list[np.ndarray | str]:
        """One image, or one reason, per place of a full batch. A batch that fails is taken apart row by row."""
        try:
            return list(self._model(rows, starts, batch))
        except torch.OutOfMemoryError:
            raise
        except RowFault as error:
            if len(set(batch)) == 1:
                return [f"{type(error).__name__}: {error}"] * len(batch)
            alone = {i: self._make(rows, starts, [i] * len(batch))[0] for i in dict.fromkeys(batch)}
            return [alone[i] for i in batch]

    def _model(self, rows: list[dict[str, Any]], starts: list[_Start], batch: list[int]) -> np.ndarray:
        spec = self._spec
        noise = torch.from_numpy(np.stack([starts[i].noise for i in batch]))
        plain = [rows[i]["plain_prompt"] for i in batch]
        suffixed = [rows[i]["suffix_prompt"] for i in batch]
        latents = denoise(self._backbone, noise, plain, suffixed, self._grid, spec.split, spec.guidance)
        return self._backbone.decode(latents)

    # -- finishing in threads ---------------------------------------------------------------------------------------

    def _finish(self, row: dict[str, Any], start: _Start, outcome: np.ndarray | str) -> dict[str, Any]:
        columns = ("sample_id", "label", "ordinal", "phi", "seed", "parent_a", "parent_b", "suffix", "recipe")
        record: dict[str, Any] = {name: row[name] for name in columns}
        record |= {"theta": start.theta, "reason": "", "image_sha256": "", "phash": bytes(8), "image": b""}
        if isinstance(outcome, str):
            return record | {"outcome": staged.POISONED, "reason": outcome}
        if not np.isfinite(outcome).all():
            return record | {"outcome": staged.REJECTED, "reason": "non-finite"}
        pixels = (np.clip(outcome, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        data = encode(pixels, self._spec.encoding)
        return record | {
            "outcome": staged.KEPT,
            "image": data,
            "image_sha256": sha256(data),
            "phash": perceptual_hash(pixels),
        }


def _rows_of(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    lists = {name: values for name, values in chunk.items() if isinstance(values, list)}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]

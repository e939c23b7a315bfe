"""The generator: a chunk of plan rows in, one staged file out.

Two calls run at once in an actor: while one chunk is denoised under the lock, the other reads its inversions and the
images of the one before are encoded and signed in threads. So the GPU waits for neither storage nor encoder. What a
bad row, a dead process or failing storage means for a chunk is decided in `actors.failures`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actors.attempts import Journal, Process
from actors.failures import MAX_KILLERS, SILENT_DEATHS, RowFault, describe, patiently
from actors.inverter import read_inversion
from actors.model import ModelSpec, fingerprint, load
from actors.preemption import gone_nodes, ray_node
from actors.shield import Outcome, Shield
from diffii.circle import Norm, angle, circle_point, gaussian
from diffii.dataset import layout, staged
from diffii.dataset.storage import Storage
from diffii.denoise import denoise
from diffii.embedding import Embedder
from diffii.features import perceptual_hash
from diffii.hashing import seed64, sha256
from diffii.image_checks import fault
from diffii.images import Encoding, encode
from diffii.schedule import Spacing

ENCODE_THREADS = 2
CACHED_INVERSIONS = 2_000
"""Inversions kept in memory: 2000 of SD-1.5's are 260 MB, and a chunk of many classes shares few parents."""


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
    embedder: str | None = None
    """What near-copies are recognised by; each kept row is then staged with its embedding."""
    stall_timeout: float = 900.0
    """Seconds without an answer of the model (one call, not a micro-batch) after which it counts as hung. Compiling
    kernels in the first call takes minutes; a hang that costs a quarter of an hour costs less than a wrong verdict."""
    attempts: int = SILENT_DEATHS
    """Deaths until a row is blamed for them."""
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names one execution by one driver: made with the spec, on the driver, and the same in all its actors."""


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
        self._embedder = Embedder.load(spec.embedder, spec.micro_batch) if spec.embedder else None
        recognised = f" embedder-{self._embedder.name}" if self._embedder else ""
        self._fingerprint = f"{fingerprint(self._backbone)} batch-{spec.micro_batch}{recognised}"
        self._process = Process(spec.run, ray_node())
        self._shield = Shield(spec.micro_batch, self._backbone.device, spec.stall_timeout)
        self._backbone.epsilon = self._shield.watchdog.beating(self._backbone.epsilon)
        self._gpu = threading.Lock()
        self._encoders = ThreadPoolExecutor(ENCODE_THREADS)
        self._inversions: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.make_chunk(chunk) for chunk in table.to_pylist()])

    def make_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Generate and stage one chunk; what it returns is for progress alone, the staged file is the truth."""
        name = layout.staged_chunk(chunk["wave"], chunk["chunk"])
        journal = Journal(self._storage, chunk["wave"], chunk["chunk"], self._process, gone_nodes)
        journal.check_memory(self._spec.micro_batch)
        rows = _rows_of(chunk)
        starts = [self._start(row) for row in rows]
        for index, reason in journal.blamed(self._spec.attempts).items():
            starts[index] = replace(starts[index], fault=reason)
        with self._gpu:
            # Held for the whole chunk: the lock is not fair, and two half-made chunks help nobody.
            began = time.monotonic()
            finished = self._denoise(rows, starts, journal)
            busy = time.monotonic() - began
        staged_rows = [future.result() for future in finished]
        self._embed(staged_rows)
        data = staged.encode(staged_rows, self._fingerprint)
        first = patiently(f"{self._storage.url}/{name}", lambda: self._storage.put_once(name, data))
        journal.clear()
        outcomes = [row["outcome"] for row in staged_rows]
        return {
            "chunk": chunk["chunk"],
            "rows": len(rows),
            "lost": len(rows) - outcomes.count(staged.KEPT),
            "busy_seconds": busy,
            "first": first,
        }

    def make_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """One row alone, at the shape it was made in: the record that would be staged for it."""
        start = self._start(row)
        if start.fault is not None:
            return self._finish(row, start, None)
        with self._gpu:
            image = self._model([row], [start], [0] * self._spec.micro_batch)[0]
        return self._finish(row, start, image)

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
            return _Start(np.empty(0), 0.0, describe(error))

    def _forward_diffused(self, latent: np.ndarray, seed: int) -> np.ndarray:
        """The partner of a class's only image: its own latent, noised to the top of the grid by a seed of the row."""
        alpha = self._grid.alphas[-1]
        noise = gaussian(seed64(seed, "partner"), latent.shape)
        return (np.float32(alpha**0.5) * latent + np.float32((1 - alpha) ** 0.5) * noise).astype(np.float32)

    def _inversion(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        found = self._inversions.get(key)
        if found is None:
            found = patiently(f"{self._storage.url}", lambda: read_inversion(self._storage, key))
            self._inversions[key] = found
            if len(self._inversions) > CACHED_INVERSIONS:
                self._inversions.popitem(last=False)
        return found

    # -- denoising at one fixed shape -------------------------------------------------------------------------------

    def _denoise(
        self, rows: list[dict[str, Any]], starts: list[_Start], journal: Journal
    ) -> list[Future[dict[str, Any]]]:
        futures: dict[int, Future[dict[str, Any]]] = {}
        errors: list[Exception] = []
        good = [start.fault is None for start in starts]
        for index, outcome in self._shield.make(journal, good, lambda batch: self._model(rows, starts, batch)):
            if isinstance(outcome, Exception):
                errors.append(outcome)
            futures[index] = self._encoders.submit(self._finish, rows[index], starts[index], outcome)
        if len(errors) == len(futures) > MAX_KILLERS:
            raise RuntimeError(
                f"all {len(errors)} rows of a chunk fail in the model, each alone, so it is not the rows: "
                f"{describe(errors[0])}; the first row's recipe: {rows[min(futures)]['recipe']}"
            ) from errors[0]
        for index, start in enumerate(starts):
            if start.fault is not None:
                futures[index] = self._encoders.submit(self._finish, rows[index], start, None)
        return [futures[index] for index in range(len(rows))]

    def _model(self, rows: list[dict[str, Any]], starts: list[_Start], batch: list[int]) -> np.ndarray:
        spec = self._spec
        noise = torch.from_numpy(np.stack([starts[i].noise for i in batch]))
        plain = [rows[i]["plain_prompt"] for i in batch]
        suffixed = [rows[i]["suffix_prompt"] for i in batch]
        latents = denoise(self._backbone, noise, plain, suffixed, self._grid, spec.split, spec.guidance)
        return self._backbone.decode(latents)

    # -- finishing in threads ---------------------------------------------------------------------------------------

    def _finish(self, row: dict[str, Any], start: _Start, outcome: Outcome | None) -> dict[str, Any]:
        """A row of the staged file; without an outcome the fault of its start is the reason."""
        columns = ("sample_id", "label", "ordinal", "phi", "seed", "parent_a", "parent_b", "suffix", "recipe")
        record: dict[str, Any] = {name: row[name] for name in columns}
        record |= {"theta": start.theta, "reason": "", "image_sha256": "", "phash": bytes(8), "image": b""}
        if not isinstance(outcome, np.ndarray):
            reason = start.fault if outcome is None else describe(outcome)
            return record | {"outcome": staged.POISONED, "reason": reason}
        trouble = fault(outcome)
        if trouble is not None:
            return record | {"outcome": staged.REJECTED, "reason": trouble}
        pixels = (np.clip(outcome, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        data = encode(pixels, self._spec.encoding)
        return record | {
            "outcome": staged.KEPT,
            "image": data,
            "image_sha256": sha256(data),
            "phash": perceptual_hash(pixels),
            "pixels": pixels,
        }

    def _embed(self, rows: list[dict[str, Any]]) -> None:
        kept = [row for row in rows if row["outcome"] == staged.KEPT]
        if self._embedder is None or not kept:
            return
        with self._gpu:
            embeddings = self._embedder.signatures(np.stack([row["pixels"] for row in kept]))
        for row, embedding in zip(kept, embeddings, strict=True):
            row["embedding"] = embedding.tobytes()


def _rows_of(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    lists = {name: values for name, values in chunk.items() if isinstance(values, list)}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]

"""The generator: a chunk of plan rows in, one staged file out.

Two calls run at once in an actor: while one chunk is denoised under the lock, the other reads its inversions and the
images of the one before are encoded and signed in threads. So the GPU waits for neither storage nor encoder. What a
bad row, a dead process or failing storage means for a chunk is decided in `actors.failures`.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actors.attempts import Journal, Process, of_chunk
from actors.board import COMPUTING, ENCODING, STAGING, WAITING
from actors.desk import Desk
from actors.failures import refuse_if_all
from actors.gpu_clock import GpuClock
from actors.model import ActorSpec, embedder_name, fingerprint, load, load_embedder
from actors.preemption import gone_nodes, ray_node
from actors.row_record import row_record
from actors.shield import Shield
from actors.small_cards import fitting, make_smaller
from actors.starts import RowStart, Starts
from actors.unet_rows import UnetRows
from diffii.arms import ARMS, DIFF_II
from diffii.circle import Norm
from diffii.dataset import layout, staged
from diffii.dataset.patience import Meter
from diffii.dataset.storage import Storage
from diffii.denoise import denoise
from diffii.images import Encoding
from diffii.kinds import Solver
from diffii.schedule import Spacing

ENCODE_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec(ActorSpec):
    """With an `embedder` each kept row is staged with its embedding."""

    steps: int
    spacing: Spacing
    split: float
    guidance: float
    interval: tuple[float, float] = (0.0, 1.0)
    """Shares of the path between which there is guidance."""
    solver: Solver = "ddim"
    norm: Norm
    encoding: Encoding
    quality: int | None = None
    mark: bool = False
    arm: str = DIFF_II
    allow_smaller: bool = False
    """A card that runs out of memory takes fewer rows a call; see `actors.small_cards`."""
    begun_with: str = ""
    """Digest of the concepts that the run was begun with; see `actors.model.fingerprint`."""


class Generator:
    """A callable for Ray Data: a table with one chunk per row (see `engine.row.CHUNK_SCHEMA`)."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._spec = spec
        self._process = Process(spec.run, ray_node())
        self._desk = Desk(spec, self._process)
        self._storage = Storage(spec.output_url)
        self._backbone = load(spec.model)
        self._grid = self._backbone.grid(spec.steps, spec.spacing)
        self._arm = ARMS[spec.arm]
        card = self._card()
        self._rows = fitting(self._storage, card, spec.micro_batch) if spec.allow_smaller else spec.micro_batch
        self._embedder = load_embedder(spec, self._rows)
        recognised = f" embedder-{embedder_name(spec)}" if self._embedder else ""
        self._fingerprint = f"{fingerprint(self._backbone, spec.begun_with)} batch-{self._rows}{recognised}"
        self._shield = Shield(
            self._rows,
            self._backbone.device,
            spec.stall_timeout,
            self._desk.last_words,
            lambda: spec.allow_smaller and make_smaller(self._storage, card, self._rows),
        )
        self._gpu, self._embedding = GpuClock(), threading.Lock()
        self._calls, self._unet_rows = Meter(), UnetRows()
        self._backbone.epsilon = self._unet_rows.counting(self._shield.watchdog.beating(self._backbone.epsilon))
        self._encoders = ThreadPoolExecutor(ENCODE_THREADS)
        self._starts = Starts(self._storage, self._arm, self._backbone.latent_shape, self._grid.alphas, spec.norm)
        self._desk.open(self._shield.watchdog)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.make_chunk(chunk) for chunk in table.to_pylist()])

    def _card(self) -> str:
        return self._backbone.record.device

    def make_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Generate and stage one chunk; what it returns is for progress alone, the staged file is the truth."""
        subject = of_chunk(chunk["wave"], chunk["chunk"])
        rows = _rows_of(chunk)
        with self._desk.holding(subject.words) as hold:
            journal = Journal(self._storage, subject, self._process, gone_nodes, hold.excused)
            journal.check_memory(self._rows)
            starts: list[RowStart] = []
            for row in rows:
                starts.append(self._start(row))
                hold.moved()
            for index, reason in journal.blamed(self._spec.attempts).items():
                starts[index] = replace(starts[index], fault=reason)
            hold.at(WAITING)
            with self._gpu:
                # Held for the whole chunk: the lock is not fair, and two half-made chunks help nobody.
                hold.at(COMPUTING)
                finished = self._denoise(rows, starts, journal)
            hold.at(ENCODING)
            staged_rows = [future.result() for future in finished]
            self._embed(staged_rows, journal)
            hold.at(STAGING)
            name = layout.staged_chunk(chunk["wave"], chunk["chunk"])
            first = self._storage.put_once(name, staged.encode(staged_rows, self._fingerprint))
            journal.clear()
            seconds = hold.seconds()
        outcomes = [row["outcome"] for row in staged_rows]
        storage = self._calls.read()
        return {
            "chunk": chunk["chunk"],
            "rows": len(rows),
            "lost": len(rows) - outcomes.count(staged.KEPT),
            "first": first,
            "unet_rows": self._unet_rows.read(),
            "storage_calls": storage.calls,
            "storage_retries": storage.retries,
            **self._gpu.read(),
            **seconds,
        }

    def make_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """One row alone, at the shape it was made in: the record that would be staged for it."""
        start = self._start(row)
        if start.fault is not None:
            return self._finish(row, start, None)
        with self._gpu:
            image = self._model([row], [start], [0] * self._rows)[0]
        return self._finish(row, start, image)

    def _start(self, row: dict[str, Any]) -> RowStart:
        return self._starts.of(row)

    # -- denoising at one fixed shape -------------------------------------------------------------------------------

    def _denoise(
        self, rows: list[dict[str, Any]], starts: list[RowStart], journal: Journal
    ) -> list[Future[dict[str, Any]]]:
        futures: dict[int, Future[dict[str, Any]]] = {}
        errors: list[Exception] = []
        good = [start.fault is None for start in starts]
        for index, outcome in self._shield.make(journal, good, lambda batch: self._model(rows, starts, batch)):
            if isinstance(outcome, Exception):
                errors.append(outcome)
            futures[index] = self._encoders.submit(self._finish, rows[index], starts[index], outcome)
        if futures:
            refuse_if_all(errors, len(futures), rows[min(futures)]["recipe"])
        for index, start in enumerate(starts):
            if start.fault is not None:
                futures[index] = self._encoders.submit(self._finish, rows[index], start, None)
        return [futures[index] for index in range(len(rows))]

    def _model(self, rows: list[dict[str, Any]], starts: list[RowStart], batch: list[int]) -> np.ndarray:
        spec = self._spec
        noise = torch.from_numpy(np.stack([starts[i].at.noise for i in batch]))
        steps = [starts[i].at.steps for i in batch]
        plain = [rows[i]["plain_prompt"] for i in batch]
        suffixed = [rows[i]["suffix_prompt"] for i in batch]
        latents = denoise(
            self._backbone,
            noise,
            plain,
            suffixed,
            self._grid,
            spec.split,
            spec.guidance,
            steps,
            interval=spec.interval,
            solver=spec.solver,
        )
        return self._backbone.decode(latents)

    # -- finishing in threads ---------------------------------------------------------------------------------------

    def _finish(self, row: dict[str, Any], start: RowStart, outcome: np.ndarray | Exception | None) -> dict[str, Any]:
        spec = self._spec
        return row_record(
            row,
            start,
            outcome,
            edited=self._arm.takes == "latents",
            encoding=spec.encoding,
            quality=spec.quality,
            mark=spec.mark,
        )

    def _embed(self, rows: list[dict[str, Any]], journal: Journal) -> None:
        kept = [row for row in rows if row["outcome"] == staged.KEPT]
        embedder = self._embedder
        if embedder is None or not kept:
            return
        pixels = np.stack([row["pixels"] for row in kept])
        # A lock of its own: under the model's a finished chunk would wait for the whole of the next one.
        with self._embedding:
            embeddings = self._shield.beside(journal, lambda: embedder.signatures(pixels))
        for row, embedding in zip(kept, embeddings, strict=True):
            row["embedding"] = embedding.tobytes()


def _rows_of(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    lists = {name: values for name, values in chunk.items() if isinstance(values, list)}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]

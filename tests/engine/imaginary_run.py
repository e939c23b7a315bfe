"""A run without Ray and without a model: everything else is real. Chunks are made up from their plan rows' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import lru_cache
from typing import Any

import numpy as np

from diffii.dataset import layout, log, staged
from diffii.dataset.history import read_log
from diffii.dataset.storage import Storage
from diffii.hashing import sha256
from diffii.signatures import DIMENSIONS, Signatures
from engine.near_copies import NearCopies, Threshold
from engine.pack import PackOrder, pack
from engine.plan import Plan
from engine.row import Row
from engine.run import Run
from engine.settings import from_flat
from tests.engine.sources import imaginary

SETTINGS: dict[str, Any] = {
    "backbone.model": "garments",
    "commit.chunk_size": 3,
    "output.shard_rows": 5,
    "expansion.factor": 3.0,
    "expansion.max_attempts": 3.0,
    "dedup.embedder": "off",
    "captions.method": "off",
    "learn.concepts": "off",
    "prompts.suffixes": ["on grass", "at night"],
}
SIZES = (2, 3, 1)


def a_run(url: str, sizes: tuple[int, ...] = SIZES, names: tuple[str, ...] = (), **more: Any) -> Run:
    """A run of three small classes over whatever lies at `url`."""
    plan, storage = _plan(url, sizes, names, tuple(sorted(more.items()))), Storage(url)
    run = Run(storage, plan.config, plan.source, plan, read_log(storage))
    run.follow_log(plan.source)
    return run


@lru_cache(100)
def _plan(url: str, sizes: tuple[int, ...], names: tuple[str, ...], more: tuple[tuple[str, Any], ...]) -> Plan:
    values = {key.replace("__", "."): value for key, value in more}
    return Plan(from_flat({**SETTINGS, "output.url": url, **values}), imaginary(list(sizes), list(names)), "00" * 32)


def make_row(row: Row, copies: bool = True) -> dict[str, Any]:
    """A staged row, a function of its plan row alone: some poisoned, some rejected, some like another of its class."""
    digest = sha256(row.sample_id.encode())
    draw = int(digest[:4], 16) % 10
    outcome, reason = staged.KEPT, ""
    if draw == 0:
        outcome, reason = staged.POISONED, "RuntimeError: as planned"
    elif draw == 1:
        outcome, reason = staged.REJECTED, "constant"
    # Four looks a class: later rows are near-copies of earlier ones.
    look = int(digest[4:8], 16) % 12 if copies else int(digest[4:12], 16)
    image = digest.encode() if outcome == staged.KEPT else b""
    return {
        "sample_id": row.sample_id,
        "outcome": outcome,
        "reason": reason,
        "label": row.label,
        "ordinal": row.ordinal,
        "image_sha256": sha256(image) if image else "",
        "phash": bytes(8),
        "embedding": embedding(row.label, look).tobytes() if image else None,
        "phi": row.phi,
        "theta": 1.5,
        "seed": row.seed,
        "parent_a": row.parent_a,
        "parent_b": row.parent_b,
        "suffix": row.suffix,
        "recipe": row.recipe,
        "image": image,
    }


@lru_cache(1000)
def embedding(label: int, look: int) -> np.ndarray:
    return np.random.default_rng([label, look]).integers(-60, 61, DIMENSIONS).astype(np.int8)


def stage(run: Run, wave: log.WaveEntry, chunk: int) -> dict[str, Any]:
    """What an actor does with a chunk."""
    data, rows, lost = make_chunk(tuple(run.plan.chunk(wave, chunk)))
    run.storage.put_once(layout.staged_chunk(wave.wave, chunk), data)
    return {"chunk": chunk, "rows": rows, "lost": lost}


def make_chunk(planned: tuple[Row, ...]) -> tuple[bytes, int, int]:
    """A chunk's bytes, its rows, and those that are not kept."""
    rows = [make_row(row) for row in planned]
    return staged.encode(rows, "imaginary"), len(rows), sum(row["outcome"] != staged.KEPT for row in rows)


def maker(run: Run, shuffle: Callable[[list[int]], list[int]] = list) -> Callable[..., Iterator[dict[str, Any]]]:
    def make(wave: log.WaveEntry, chunks: list[int]) -> Iterator[dict[str, Any]]:
        for chunk in shuffle(chunks):
            yield stage(run, wave, chunk)

    return make


def packed_here(order: PackOrder) -> Future[log.Shard]:
    future: Future[log.Shard] = Future()
    future.set_result(pack(order))
    return future


def index(run: Run) -> NearCopies:
    """Near-copies as a run that goes on finds them again: nothing but what is in the sidecars."""
    from engine.near_copy_index import table_signatures

    none = Signatures(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty((0, DIMENSIONS), np.int8))
    found = NearCopies([Threshold(100, 100)] * len(run.source.classes), 4, none)
    for table in run.sidecars(["label", "phash", "embedding"]):
        found.add(table_signatures(table))
    return found

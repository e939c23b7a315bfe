"""Rows made where they are used: the driver hands out chunk numbers, and each actor makes its chunks' rows itself.

The plan is a pure function, so it travels once per actor instead of its rows once each. Rows made on the driver
took 3 KB of its memory an image, all before the first actor started; a stage of Ray Data that makes them would cost a
task, a place on a CPU and a copy through the object store per chunk. A plan over 10^5 source images is 35 MiB in an
actor, and a chunk's rows are made in 3 ms while the GPU works on the chunk before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from diffii.dataset.log import WaveEntry
from engine.plan import Plan

TASKS = pa.schema([("chunk", pa.int64())])
"""What travels per chunk."""


def tasks(chunks: Iterable[int]) -> pa.Table:
    """One task per chunk: its number."""
    return pa.table({"chunk": pa.array(chunks, pa.int64())}, schema=TASKS)


class ChunkRows:
    """Tasks of `tasks` in, the rows of their chunks out (see `engine.row.CHUNK_SCHEMA`). Travels to the actors."""

    def __init__(self, plan: Plan, wave: WaveEntry) -> None:
        self._plan, self._wave = plan, wave

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._plan.table(self._wave, table["chunk"].to_pylist())


class Prepared:
    """An actor and what makes its input, in one process: a callable for Ray Data."""

    def __init__(self, actor: type, spec: Any, prepare: ChunkRows) -> None:
        self._actor, self._prepare = actor(spec), prepare

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._actor(self._prepare(table))

"""Rows made in the actors are those of the plan, and the driver holds a number per chunk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.lazy_rows import ChunkRows, Prepared, tasks
from engine.progress import Silent
from engine.run import begin
from engine.waves import run_waves
from tests.engine.imaginary_run import a_run, maker, packed_here


class Recorder:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.given = spec, list[pa.Table]()

    def __call__(self, table: pa.Table) -> pa.Table:
        self.given.append(table)
        return table.select(["chunk"])


def test_an_actor_is_given_the_rows_of_the_plan(tmp_path: Path) -> None:
    run = a_run(str(tmp_path / "out"))
    begin(run)
    (wave,) = run.waves
    # As the plan that travelled: nothing in it may depend on the process it was made in.
    prepare = pickle.loads(pickle.dumps(ChunkRows(run.plan, wave)))  # noqa: S301
    actor = Prepared(Recorder, {"a": 1}, prepare)
    for chunk in (2, 0, run.plan.chunk_count(wave) - 1):
        assert actor(tasks([chunk])).to_pylist() == [{"chunk": chunk}]
        assert actor._actor.given[-1].equals(run.plan.table(wave, [chunk]))
    assert actor._actor.spec == {"a": 1}


def test_a_task_is_eight_bytes() -> None:
    assert tasks(range(1_562_500)).nbytes == 8 * 1_562_500


class Watched(Silent):
    def __init__(self) -> None:
        self.stages: list[tuple[int, int]] = []

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        self.stages.append((total, done))


@pytest.mark.parametrize("there", [[], [1, 4], [0, 1, 2], [4]])
def test_what_an_earlier_driver_staged_is_counted_as_done(tmp_path: Path, there: list[int]) -> None:
    run = a_run(str(tmp_path / "out"), expansion__max_attempts=1.0, commit__chunk_size=4)
    begin(run)
    (wave,) = run.waves
    sizes = [len(run.plan.chunk(wave, chunk)) for chunk in range(run.plan.chunk_count(wave))]
    assert sizes == [4, 4, 4, 4, 2]
    list(maker(run)(wave, there))
    watched = Watched()
    run_waves(run, maker(run), packed_here, watched, None)
    assert watched.stages == [(sum(sizes), sum(sizes[chunk] for chunk in there))]

"""Rows that raise, kill and hang, in a real Ray: each ends poisoned, its chunk mates keep their bytes, the run ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.generator import Generator, GeneratorSpec
from diffii.dataset import layout, log
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, SourceError
from engine import expand as expansion
from engine.formats.parquet import read_kept
from engine.run import Run
from engine.settings import from_flat
from engine.stream import Pool, stream
from tests.engine.sources import PLAIN, garments

pytestmark = pytest.mark.slow

SETTINGS = {
    **PLAIN,
    "inversion.steps": 2,
    "inversion.micro_batch": 4,
    "generation.steps": 2,
    "generation.micro_batch": 4,
    "commit.chunk_size": 8,
    "expansion.factor": 4,
    "actors.max": 2,
}
STALL_SECONDS = 5.0

RAISES, KILLS, HANGS = (0, 1), (1, 0), (2, 1)
"""(label, ordinal) of the rows; the last two fall into one chunk."""


TOLD, HEARD = f"{layout.OWN}/told", f"{layout.OWN}/heard"


class Hazardous(Generator):
    """The generator, with a model that some rows do harm to."""

    def _model(self, rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        present = {(rows[index]["label"], rows[index]["ordinal"]) for index in batch}
        if KILLS in present:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGS in present:
            time.sleep(3600)
        if RAISES in present:
            raise RuntimeError("a kernel asserts")
        return super()._model(rows, starts, batch)


class Leaving(Generator):
    """The generator, on a node that is told to go: the first process to reach the model gets a SIGTERM there."""

    def _model(self, rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        if self._storage.put_once(TOLD, b""):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(3600)
        journal = self._shield._journal
        if journal is not None and journal._entries:
            self._storage.put_once(HEARD, json.dumps([entry.kind for entry in journal._entries]).encode())
        return super()._model(rows, starts, batch)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=2)


def expanded(source: Path, out: Path) -> Run:
    run = expansion.expand(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(out)}))
    assert run.complete
    assert list((out / layout.ATTEMPTS).rglob("*.json")) == []
    return run


@pytest.fixture(scope="module")
def quiet(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Run:
    return expanded(source, tmp_path_factory.mktemp("quiet") / "out")


def images(run: Run) -> dict[str, bytes]:
    storage: Storage = run.storage
    shards = [entry.shard.name for entry in run.commits() if entry.shard]
    return {sample: image for name in shards for sample, image in read_kept(storage.read(name))}


def poisoned(run: Run) -> Iterator[tuple[tuple[int, int], str]]:
    """((label, ordinal), reason) of every poisoned row in the log."""
    wave = run.waves[0]
    assert isinstance(wave, log.WaveEntry)
    for entry in run.commits():
        first = entry.first * run.config.commit.chunk_size
        for number, reason in entry.lost.get("poisoned", {}).items():
            (row,) = run.plan.rows(wave, first + int(number), first + int(number) + 1)
            yield (row.label, row.ordinal), reason


def sample_ids(run: Run, places: set[tuple[int, int]]) -> set[str]:
    return {run.plan.row(label, ordinal).sample_id for label, ordinal in places}


def test_rows_that_raise_kill_and_hang_cost_only_themselves(
    source: Path, quiet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = expansion.generator_spec

    def hasty(*arguments: Any) -> GeneratorSpec:
        return replace(real(*arguments), stall_timeout=STALL_SECONDS)

    monkeypatch.setattr(expansion, "generator_spec", hasty)
    monkeypatch.setattr(expansion, "Generator", Hazardous)
    run = expanded(source, tmp_path / "out")
    reasons = dict(poisoned(run))
    assert set(reasons) == {RAISES, KILLS, HANGS}
    assert reasons[RAISES] == "RuntimeError: a kernel asserts"
    assert "ended its process 4 times without a word" in reasons[KILLS]
    assert reasons[HANGS] == "the model did not answer for 5 s"
    expected = images(quiet)
    for sample_id in sample_ids(run, {RAISES, KILLS, HANGS}):
        del expected[sample_id]
    made = images(run)
    assert {sample_id: made[sample_id] for sample_id in expected} == expected
    assert len(made) == len(expected) + 3, "a further wave takes the place of the three"


def test_an_actor_that_is_told_to_leave_blames_nobody(
    source: Path, quiet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "Generator", Leaving)
    run = expanded(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / HEARD).read_text()) == ["try", "preempted"]
    assert images(run) == images(quiet)


class Doomed:
    """An actor that dies outside of what the journal covers."""

    def __init__(self, spec: None) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        os._exit(1)


def test_a_task_that_kills_beside_the_model_stops_the_run(ray_here: None) -> None:
    tasks = pa.table({"chunk": [0, 1]})
    with pytest.raises(ModelError, match=r"ended 3 times over one task, outside of the model's calls"):
        list(stream(tasks, Doomed, None, Pool(min=1, max=1, gpus=0.0), retries=2))


class Complaining:
    """An actor that finds what a user can mend."""

    def __init__(self, spec: None) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        raise SourceError("a.png has changed; restore it")


def test_an_error_that_a_user_can_mend_arrives_as_it_was_raised(ray_here: None) -> None:
    with pytest.raises(SourceError) as raised:
        list(stream(pa.table({"chunk": [0]}), Complaining, None, Pool(min=1, max=1, gpus=0.0)))
    assert str(raised.value) == "a.png has changed; restore it"


class Unable:
    """An actor whose model does not load."""

    def __init__(self, spec: None) -> None:
        raise ModelError("backbone.model: the weights are damaged")


def test_an_actor_that_cannot_start_says_why(ray_here: None) -> None:
    with pytest.raises(ModelError, match=r"an actor does not start.*: ModelError: backbone\.model: the weights are"):
        list(stream(pa.table({"chunk": [0]}), Unable, None, Pool(min=1, max=1, gpus=0.0)))

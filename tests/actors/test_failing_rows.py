"""What goes wrong while a chunk is made, in one process: what it costs, and what it does not."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors import failures
from actors.attempts import OUT_OF_MEMORY, Journal, Process, of_chunk
from actors.failures import OUT_OF_MEMORY_TRIES, deaths_to_isolate
from actors.generator import Generator
from diffii.dataset import layout, staged
from diffii.dataset.log import WaveEntry
from diffii.dataset.patience import patiently
from diffii.errors import ModelError, OutputError
from engine.row import CHUNK_SCHEMA
from engine.run import Run
from tests.actors.generating import generate, read, vars_of

pytest_plugins = ["tests.actors.generating"]


def test_a_row_whose_inversion_is_gone_costs_only_itself(run: tuple[Run, WaveEntry], generator: Generator) -> None:
    plan, wave = run[0].plan, run[1]
    task = plan.table(wave, [0]).to_pylist()
    task[0]["inversion_a"][2] = "00" * 20
    generator(pa.Table.from_pylist(task, schema=CHUNK_SCHEMA))
    rows = read(generator)
    assert [row["outcome"] for row in rows] == ["kept", "kept", "poisoned", "kept", "kept", "kept"]
    assert "FileNotFoundError" in rows[2]["reason"]


@pytest.mark.parametrize("call", ["read", "put_once"])
def test_storage_that_fails_stops_the_run_and_poisons_no_row(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    storage = generator._storage
    name = layout.INVERSIONS if call == "read" else layout.STAGING

    def fails(wanted: str, action: Callable[[], Any]) -> Any:
        def no_room() -> Any:
            raise OSError(errno.ENOSPC, "no room")

        return patiently(f"{storage.url}/{wanted}", False, no_room if wanted.startswith(name) else action)

    monkeypatch.setattr(storage, "patiently", fails)
    with pytest.raises(OutputError, match=rf"{name}/.*: storage fails: no room; nothing is lost"):
        generate(generator, run[0].plan, run[1])
    assert not Path(storage.path(layout.STAGING)).exists()


def test_a_row_that_breaks_the_model_costs_only_itself(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its mates have the bits they have without it: the batch keeps its shape."""
    plan, wave = run[0].plan, run[1]
    healthy = generate(generator, plan, wave)
    generator._storage.remove(layout.staged_chunk(0, 0))
    backbone = generator._backbone
    real = backbone.epsilon
    start = torch.from_numpy(generator._start(vars_of(plan.chunk(wave, 0)[1])).at.noise)

    def breaks(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        if any(torch.equal(row, start) for row in x):
            raise RuntimeError("a kernel asserts")
        return real(x, *rest)

    monkeypatch.setattr(backbone, "epsilon", breaks)
    rows = generate(generator, plan, wave)
    assert [row["outcome"] for row in rows] == ["kept", "poisoned", "kept", "kept", "kept", "kept"]
    assert rows[1]["reason"] == "RuntimeError: a kernel asserts"
    assert [row for k, row in enumerate(rows) if k != 1] == [row for k, row in enumerate(healthy) if k != 1]


def test_an_image_that_is_not_finite_is_rejected(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = generator._backbone
    real = backbone.decode

    def nan_first(latents: torch.Tensor) -> np.ndarray:
        images = real(latents)
        images[0, 0, 0, 0] = np.nan
        return images

    monkeypatch.setattr(backbone, "decode", nan_first)
    rows = generate(generator, run[0].plan, run[1])
    assert [row["outcome"] for row in rows] == ["rejected", "kept", "kept", "kept", "rejected", "kept"]
    assert rows[0]["reason"] == "non-finite"


class Ended(BaseException):
    """Stands for the end of a process."""


class Mortal:
    """Processes of one actor, one after another: rows of a chunk end it, and the next one starts where it left."""

    def __init__(self, generator: Generator, killers: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.generator, self.deaths, self.calls = generator, 0, 0
        model = generator._model

        def ends(rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
            self.calls += 1
            if any(rows[index]["sample_id"] in killers for index in batch):
                raise Ended
            return model(rows, starts, batch)

        monkeypatch.setattr(generator, "_model", ends)

    def live(self, task: pa.Table) -> None:
        while True:
            self.generator._process = Process(self.generator._spec.run)
            try:
                self.generator(task)
            except Ended:
                self.deaths += 1
            else:
                return


def test_rows_that_end_their_process_cost_only_themselves(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, wave = run[0].plan, run[1]
    healthy = generate(generator, plan, wave)
    generator._storage.remove(layout.staged_chunk(0, 0))
    killers = {healthy[2]["sample_id"], healthy[5]["sample_id"]}
    mortal = Mortal(generator, killers, monkeypatch)
    mortal.live(plan.table(wave, [0]))
    rows = read(generator)
    assert [row["outcome"] for row in rows] == ["kept", "kept", "poisoned", "kept", "kept", "poisoned"]
    assert "ended its process 4 times without a word" in rows[2]["reason"]
    assert [row for row in rows if row["outcome"] == "kept"] == [
        row for row in healthy if row["sample_id"] not in killers
    ]
    assert mortal.deaths <= 2 * deaths_to_isolate(6, 4)
    assert generator._storage.names(layout.attempts_wave(0)) == []


def test_a_batch_is_bisected_not_taken_apart_row_by_row(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, wave = run[0].plan, run[1]
    bad = plan.chunk(wave, 0)[1].sample_id
    sizes: list[int] = []
    model = generator._model

    def raises(rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        sizes.append(len(batch))
        if any(rows[index]["sample_id"] == bad for index in batch):
            raise RuntimeError("a kernel asserts")
        return model(rows, starts, batch)

    monkeypatch.setattr(generator, "_model", raises)
    rows = generate(generator, plan, wave)
    assert [row["outcome"] for row in rows].count("poisoned") == 1
    assert sizes == [4] * 6, "two batches, and 2 + 2 calls for the halves of the first; always the same shape"


def test_an_error_of_every_row_is_a_bug_and_shows_a_recipe(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(generator._backbone, "epsilon", broken)
    with pytest.raises(RuntimeError, match=r'all 6 rows .* TypeError: unexpected keyword.*"kind": "diff-ii"'):
        generator(run[0].plan.table(run[1], [0]))
    assert generator._storage.names(layout.staged_wave(0)) == []


class TestOutOfMemory:
    """Not a row's fault: once more, then the actor ends; when all do, the key is named."""

    @pytest.fixture(autouse=True)
    def no_exit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def end() -> None:
            raise Ended

        monkeypatch.setattr(failures, "leave", end)

    @staticmethod
    def fill(generator: Generator, monkeypatch: pytest.MonkeyPatch, times: float) -> list[int]:
        model, calls = generator._model, [0]

        def full(rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
            calls[0] += 1
            if calls[0] <= times:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return model(rows, starts, batch)

        monkeypatch.setattr(generator, "_model", full)
        return calls

    def test_once_is_overcome(
        self, run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fill(generator, monkeypatch, 1)
        rows = generate(generator, run[0].plan, run[1])
        assert {row["outcome"] for row in rows} == {"kept"}

    def test_for_ever_names_the_key(
        self, run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = self.fill(generator, monkeypatch, float("inf"))
        task = run[0].plan.table(run[1], [0])
        for actor in range(failures.OUT_OF_MEMORY_TRIES):
            generator._process = Process(generator._spec.run)
            with pytest.raises(Ended):
                generator(task)
            assert calls[0] == 2 * (actor + 1)
        with pytest.raises(ModelError, match=r"generation\.micro_batch: 4 images at a time"):
            generator(task)
        assert generator._storage.names(layout.staged_wave(0)) == []


def test_a_lost_cuda_context_ends_the_process_with_the_reason(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bisecting in a process that can compute nothing any more would poison every row."""

    def end() -> None:
        raise Ended

    def asserts(*_: Any) -> np.ndarray:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(failures, "leave", end)
    monkeypatch.setattr(failures, "device_lost", lambda device: True)
    monkeypatch.setattr(generator, "_model", asserts)
    with pytest.raises(Ended):
        generator(run[0].plan.table(run[1], [0]))
    journal = Journal(generator._storage, of_chunk(0, 0), Process(generator._spec.run), set)
    (death,) = journal.deaths
    assert (death.rows, death.cause) == (set(range(6)), "RuntimeError: CUDA error: device-side assert triggered")


class Recogniser:
    """An embedder on a card that is full for its first calls."""

    def __init__(self, full: int) -> None:
        self.calls, self._full = 0, full

    def signatures(self, pixels: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls <= self._full:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return np.full((len(pixels), 4), self.calls, np.int8)


def test_recognising_copies_is_tried_once_more_without_memory(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "_embedder", Recogniser(full=1))
    rows = generate(generator, run[0].plan, run[1])
    assert {row["embedding"] for row in rows} == {bytes([2] * 4)}


def test_where_there_is_no_room_to_recognise_copies_the_actor_ends_and_no_row_is_blamed(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        raise Ended

    monkeypatch.setattr(failures, "leave", end)
    for tried in range(OUT_OF_MEMORY_TRIES):
        monkeypatch.setattr(generator, "_embedder", Recogniser(full=2))
        with pytest.raises(Ended):
            generator(run[0].plan.table(run[1], [0]))
        journal = Journal(generator._storage, of_chunk(0, 0), Process(generator._spec.run), set)
        assert [entry.kind for entry in journal._entries].count(OUT_OF_MEMORY) == tried + 1
        assert journal.deaths == []
    with pytest.raises(ModelError, match=r"generation\.micro_batch: 4 images at a time do not fit"):
        generator(run[0].plan.table(run[1], [0]))
    rows = generate(generator, run[0].plan, run[1])
    assert {row["outcome"] for row in rows} == {staged.KEPT}, "on a larger card"


def test_a_finished_chunk_does_not_wait_for_the_model(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another chunk holds it for as long as it takes to denoise."""
    recogniser = Recogniser(full=0)
    monkeypatch.setattr(generator, "_embedder", recogniser)
    finished = [{"outcome": staged.KEPT, "pixels": np.zeros((32, 32, 3), np.uint8)}]
    journal = Journal(generator._storage, of_chunk(0, 0), Process(generator._spec.run), set)
    with generator._gpu:
        other = threading.Thread(target=generator._embed, args=(finished, journal), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive() and recogniser.calls == 1

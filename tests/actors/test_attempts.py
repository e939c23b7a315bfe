"""The journal of a chunk: which of its tries count as deaths, and what remains of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from actors.attempts import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    PASSED,
    PREEMPTED,
    STALLED,
    TOO_LARGE,
    Journal,
    Process,
    of_chunk,
)
from actors.failures import MAX_KILLERS, OUT_OF_MEMORY_TRIES, SILENT_DEATHS
from actors.isolation import Death
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import ModelError

HERE = Process("run", "node")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def journal(
    storage: Storage, process: Process = HERE, gone: set[str] | None = None, excused: Collection[str] = ()
) -> Journal:
    return Journal(storage, of_chunk(0, 3), process, lambda: gone or set(), excused)


def files(storage: Storage) -> list[str]:
    return storage.names(layout.attempts_wave(0))


def died(
    storage: Storage, rows: list[int], run: str = "run", node: str = "node", end: str = "", cause: str = ""
) -> None:
    """A process tried `rows`; nothing, or what it could still say, follows."""
    mine = journal(storage, Process(run, node))
    mine.begin(rows)
    if end:
        mine.end(end, cause)


def test_a_try_without_an_end_is_a_death(storage: Storage) -> None:
    died(storage, [0, 1])
    assert journal(storage).deaths == [Death(frozenset({0, 1}))]


def test_only_the_last_try_of_a_process_was_fatal(storage: Storage) -> None:
    mine = journal(storage)
    mine.begin([0])
    mine.begin([1, 2])
    assert journal(storage, Process("run")).deaths == [Death(frozenset({1, 2}))]


@pytest.mark.parametrize("end", [STALLED, DEVICE_LOST])
def test_a_death_with_last_words_has_a_cause(storage: Storage, end: str) -> None:
    died(storage, [4], end=end, cause="because")
    assert journal(storage).deaths == [Death(frozenset({4}), "because")]


@pytest.mark.parametrize("end", [PREEMPTED, OUT_OF_MEMORY, TOO_LARGE, PASSED])
def test_these_ends_are_no_rows_fault(storage: Storage, end: str) -> None:
    died(storage, [4], end=end)
    assert journal(storage).deaths == []


def test_a_node_that_is_gone_took_its_processes_along(storage: Storage) -> None:
    died(storage, [4], node="spot")
    assert journal(storage, gone={"spot"}).deaths == []
    assert len(journal(storage, gone={"another"}).deaths) == 1


def test_what_the_driver_ended_itself_blames_nobody(storage: Storage) -> None:
    frozen = Process("run", "node")
    journal(storage, frozen).begin([4])
    assert journal(storage, excused={frozen.name}).deaths == []
    assert len(journal(storage, excused={"another"}).deaths) == 1


def test_the_last_try_of_a_dead_driver_does_not_count_those_before_do(storage: Storage) -> None:
    died(storage, [0, 1], run="yesterday")
    died(storage, [0], run="yesterday")
    assert journal(storage).deaths == [Death(frozenset({0, 1}))]


def test_a_row_is_not_blamed_for_drivers_that_die_over_and_over(storage: Storage) -> None:
    for run in range(20):
        died(storage, [0], run=str(run))
    assert journal(storage).blamed(SILENT_DEATHS) == {}


def test_a_process_thought_dead_loses_no_entry(storage: Storage) -> None:
    one, other = journal(storage), journal(storage, Process("run"))
    one.begin([0])
    other.begin([1])
    one.begin([2])
    assert len(files(storage)) == 3
    assert [death.rows for death in journal(storage, Process("run")).deaths] == [{2}, {1}]


def test_a_healthy_chunk_leaves_nothing(storage: Storage) -> None:
    mine = journal(storage)
    mine.begin([0, 1])
    assert files(storage) == ["chunk-0000000003-0000.json"]
    mine.passed()
    assert files(storage) == []


def test_what_was_found_out_outlives_a_death_after_the_model(storage: Storage) -> None:
    died(storage, [0, 1])
    mine = journal(storage)
    mine.begin([0])
    mine.begin([1])
    mine.passed()
    assert journal(storage, Process("run")).deaths == [Death(frozenset({0, 1}))]
    mine.clear()
    assert files(storage) == []


def test_too_many_killers_are_the_machines_fault_and_forgotten(storage: Storage) -> None:
    for row in range(MAX_KILLERS + 1):
        for _ in range(SILENT_DEATHS):
            died(storage, [row])
    with pytest.raises(ModelError, match="chunk 3 of wave 0 has ended its process over 4 rows"):
        journal(storage).blamed(SILENT_DEATHS)
    assert journal(storage).blamed(SILENT_DEATHS) == {}, "mended, the same run goes on"


def test_out_of_memory_everywhere_names_the_key(storage: Storage) -> None:
    for _ in range(OUT_OF_MEMORY_TRIES):
        journal(storage).check_memory(16)
        died(storage, [0], end=OUT_OF_MEMORY)
    journal(storage, Process("a later run")).check_memory(16)
    with pytest.raises(ModelError, match=r"generation\.micro_batch: 16 images at a time do not fit.* actors\.allow_s"):
        journal(storage).check_memory(16)
    journal(storage).check_memory(16)


def test_a_journal_is_found_by_its_chunk() -> None:
    name = layout.attempt(layout.chunk_journal(0, 12), 3).rsplit("/", 1)[-1]
    assert layout.attempt_chunk(name) == 12
    assert layout.attempt_chunk(".tmp-0123") is None

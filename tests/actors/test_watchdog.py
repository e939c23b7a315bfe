"""The stall clock and what storage may do: time matters here, so the waits are short and the margins wide."""

from __future__ import annotations

import threading
import time

import pytest

from actors import failures
from actors.failures import out_of_memory, patiently
from actors.watchdog import SLACK, Watchdog
from diffii.errors import OutputError


@pytest.fixture
def stalled() -> threading.Event:
    return threading.Event()


@pytest.fixture
def watchdog(stalled: threading.Event) -> Watchdog:
    return Watchdog(1.0, lambda seconds: stalled.set())


def test_a_model_that_does_not_answer_is_noticed(watchdog: Watchdog, stalled: threading.Event) -> None:
    with watchdog.watching():
        assert stalled.wait(9)


def test_a_slow_micro_batch_of_answering_calls_is_not(watchdog: Watchdog, stalled: threading.Event) -> None:
    call = watchdog.beating(lambda: time.sleep(0.05))
    with watchdog.watching():
        for _ in range(30):
            call()
    assert not stalled.is_set()


def test_waiting_is_not_watched(watchdog: Watchdog, stalled: threading.Event) -> None:
    with watchdog.watching():
        pass
    assert not stalled.wait(1.5)


def test_a_slow_machine_gets_more_time(watchdog: Watchdog) -> None:
    assert watchdog.limit == 1.0
    with watchdog.watching():
        watchdog.beating(lambda: time.sleep(0.5))()
    assert watchdog.limit >= 0.5 * SLACK


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: OSError) -> None:
        self.left, self.error, self.calls = failures, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error
        return 7


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "STORAGE_PAUSES", (0.0, 0.0))


def test_storage_that_recovers_costs_nothing(impatient: None) -> None:
    assert patiently("s3://b/x", Flaky(2, ConnectionResetError("reset"))) == 7


def test_storage_that_does_not_stops_the_run_naming_the_file(impatient: None) -> None:
    with pytest.raises(OutputError, match=r"s3://b/x: storage failed 3 times over, last with OSError: slow down"):
        patiently("s3://b/x", Flaky(9, OSError("slow down")))


def test_a_file_that_is_not_there_is_an_answer(impatient: None) -> None:
    gone = Flaky(9, FileNotFoundError("gone"))
    with pytest.raises(FileNotFoundError):
        patiently("s3://b/x", gone)
    assert gone.calls == 1


def test_the_cpus_allocator_is_memory_too() -> None:
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(RuntimeError("shapes do not match"))

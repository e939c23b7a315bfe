"""The stall clock and what is a lack of memory: time matters here, so the waits are short and the margins wide."""

from __future__ import annotations

import threading
import time

import pytest

from actors.failures import out_of_memory
from actors.watchdog import SLACK, Watchdog


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


def test_the_cpus_allocator_is_memory_too() -> None:
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(RuntimeError("shapes do not match"))

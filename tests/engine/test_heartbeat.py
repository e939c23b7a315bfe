"""A second driver waits while the first lives, takes over at once when it is dead, and never ends in an error."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine import heartbeat
from engine.heartbeat import Driver, driving, this_driver, working


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds as tests have them; what follows from them does not depend on how long they are."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.8)
    monkeypatch.setattr(heartbeat, "_LOOK_SECONDS", 0.05)


@pytest.fixture
def another() -> Iterator[Driver]:
    """A driver of this host, alive in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    import psutil

    started = psutil.Process(process.pid).create_time()
    yield replace(this_driver(), pid=process.pid, started=started, token="other")
    process.communicate(b"\n")


def left(storage: Storage, driver: Driver) -> None:
    storage.put(layout.HEARTBEAT, json.dumps(asdict(driver)).encode())


def test_alone_it_does_not_wait_and_leaves_nothing(storage: Storage) -> None:
    notes: list[str] = []
    with driving(storage, notes.append) as waited:
        assert not waited
        # The thread's first beat comes at once.
        while storage.read_or_none(layout.HEARTBEAT) is None:
            pass
        assert str(working(storage)) == str(this_driver())
    assert notes == []
    assert storage.read_or_none(layout.HEARTBEAT) is None
    assert working(storage) is None


def test_a_dead_process_of_this_host_is_taken_over_from_at_once(storage: Storage, another: Driver) -> None:
    for dead in (replace(another, pid=2**22 + 1), replace(another, started=another.started - 5)):
        left(storage, dead)
        notes: list[str] = []
        with driving(storage, notes.append) as waited:
            assert waited, "the log may have gone on"
        assert notes == [f"{dead} is gone: taking over"]
        assert working(storage) is None


def test_a_living_one_of_this_host_is_waited_for_however_silent(storage: Storage, another: Driver) -> None:
    left(storage, another)
    notes: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with driving(storage, notes.append) as waited:
            assert waited
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(2.0), "longer than the silence that another host's driver is granted"
    assert notes == [
        f"process {another.pid} on {another.host} works on {storage.url}; waiting for its end, to go on from there "
        "(Ctrl-C leaves it be)"
    ]
    storage.remove(layout.HEARTBEAT)
    thread.join(10)
    assert entered.is_set()


def test_one_of_another_host_is_waited_for_while_it_beats(storage: Storage, another: Driver) -> None:
    elsewhere = replace(another, host="elsewhere", machine="another boot", pid=1)
    left(storage, elsewhere)
    stop, entered = threading.Event(), threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.05):
            count += 1
            left(storage, replace(elsewhere, beat=count))

    notes: list[str] = []

    def second() -> None:
        with driving(storage, notes.append) as waited:
            assert waited
            entered.set()

    threads = [threading.Thread(target=beat), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    assert not entered.wait(2.0)
    assert working(storage) is not None
    stop.set()
    assert entered.wait(10), "silent, it is taken over from"
    for thread in threads:
        thread.join(10)
    assert "has been silent for" in notes[-1]


def test_a_damaged_heartbeat_is_no_heartbeat(storage: Storage) -> None:
    for data in (b"", b"{", b'{"host": 1}', b"[]"):
        storage.put(layout.HEARTBEAT, data)
        assert working(storage) is None
        with driving(storage, lambda text: pytest.fail(text)) as waited:
            assert not waited


def test_storage_that_refuses_heartbeats_ends_nothing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, data: bytes) -> None:
        raise PermissionError(name)

    monkeypatch.setattr(storage, "put", refuse)
    with driving(storage, lambda text: pytest.fail(text)):
        pass


def test_storage_that_does_not_answer_keeps_no_run_from_its_end(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr("engine.heartbeat._LEAVE_SECONDS", 0.1)
    monkeypatch.setattr(storage, "put", lambda name, data: answered.wait(60))
    with driving(storage, lambda text: pytest.fail(text)):
        pass
    assert not answered.is_set()
    answered.set()

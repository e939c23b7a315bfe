"""What a driver says of itself follows from what its progress hears, and its speed is that of the last minutes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from diffii.dataset import layout
from diffii.dataset.driver import Doing, read_driver
from diffii.dataset.storage import Storage
from engine.heartbeat import driving, this_driver
from engine.progress import STARTING_SECONDS, Actors, Silent
from engine.pulse import WINDOW_SECONDS, Pulse


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("engine.pulse.time.monotonic", lambda: now[0])
    return now


def test_speed_is_that_of_the_last_minutes(clock: list[float]) -> None:
    pulse = Pulse(Silent())
    assert pulse.doing() == Doing()
    pulse.stage("generate", 10_000, 400)
    for _ in range(60):  # ten minutes at one a second
        clock[0] += 10
        pulse.advance(10)
    assert pulse.doing().per_second == pytest.approx(1.0)
    for _ in range(60):  # and ten at four
        clock[0] += 10
        pulse.advance(40)
    doing = pulse.doing()
    assert (doing.stage, doing.wanted, doing.done) == ("generate", 10_000, 3400)
    assert doing.per_second == pytest.approx(4.0)
    assert doing.seconds_left == pytest.approx(6600 / 4)
    clock[0] += WINDOW_SECONDS
    assert pulse.doing().per_second == 0.0
    assert pulse.doing().seconds_left is None


def test_a_stage_that_was_there_already_has_no_speed_of_its_own(clock: list[float]) -> None:
    pulse = Pulse(Silent())
    pulse.stage("invert", 100, 90)
    clock[0] += 20
    assert pulse.doing().per_second == 0.0
    pulse.advance(5)
    assert pulse.doing().per_second == pytest.approx(0.25)
    pulse.stage("generate", 50, 0)
    assert (pulse.doing().done, pulse.doing().per_second) == (0, 0.0)


def test_waiting_is_said_once_an_actor_would_have_started() -> None:
    pulse = Pulse(Silent())
    pulse.stage("generate", 50, 0)
    pulse.actors(Actors(wanted=4, alone=STARTING_SECONDS / 2))
    assert pulse.doing().waiting_seconds == 0.0
    pulse.actors(Actors(wanted=4, alone=STARTING_SECONDS + 70))
    assert pulse.doing().waiting_seconds == STARTING_SECONDS + 70
    pulse.actors(Actors(wanted=4, here=3, ready=3, busy=2))
    doing = pulse.doing()
    assert (doing.waiting_seconds, doing.actors_wanted, doing.actors_held, doing.actors_busy) == (0.0, 4, 3, 2)


def test_it_goes_with_the_heartbeat(tmp_path: Path) -> None:
    storage, doing = Storage(str(tmp_path / "out")), Doing(stage="generate", wanted=8, done=3, per_second=0.5)
    with driving(storage, lambda text: pytest.fail(text), lambda: doing):
        while (driver := read_driver(storage)) is None:
            pass
        assert driver.doing == doing


def test_a_heartbeat_that_says_no_more_is_read_too(tmp_path: Path) -> None:
    storage, driver = Storage(str(tmp_path / "out")), asdict(this_driver())
    del driver["doing"]
    storage.put(layout.HEARTBEAT, json.dumps(driver).encode())
    found = read_driver(storage)
    assert found is not None and found.doing == Doing()
    storage.put(layout.HEARTBEAT, b"[1]")
    assert read_driver(storage) is None

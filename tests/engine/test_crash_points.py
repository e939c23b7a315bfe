"""A driver may die before or after any of its calls of storage: the next one ends with the same rows and no litter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine.leftovers import orphans
from engine.prepare import refresh
from engine.progress import Silent
from engine.run import begin
from engine.season import begin_season
from engine.stream import Pool
from engine.verify import verify
from engine.waves import run_waves
from tests.engine.imaginary_run import a_run, index, maker, packed_here
from tests.simulation.parquet import remembered

CALLS = ("put_once", "put", "remove", "read", "names", "find")


class Crash(BaseException):
    """Not an Exception: nothing on the way may swallow it, as nothing swallows a SIGKILL."""


def drive(url: str, shuffle: Callable[[list[int]], list[int]] = list, **more: Any) -> None:
    run = a_run(url, **more)
    begin(run)
    run_waves(run, maker(run, shuffle), packed_here, Silent(), index(run))
    begin(run)
    if run.grown is not None:
        begin_season(run, Pool(min=1, max=1, gpus=0.0), Silent())
        begin(run)
        run_waves(run, maker(run, shuffle), packed_here, Silent(), index(run))
        begin(run)


class CountDown:
    """Storage whose n-th call ends the process: before it does anything, or just after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left, self.before, self.calls = -1, True, 0
        self.where: dict[str, int] = {}
        for name in CALLS:
            patch.setattr(Storage, name, self._counted(name, getattr(Storage, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(storage: Storage, *arguments: Any) -> Any:
            mine = self.calls == self.left
            self.calls += 1
            if mine:
                self.where[name] = self.where.get(name, 0) + 1
            if mine and self.before:
                raise Crash
            result = call(storage, *arguments)
            if mine:
                raise Crash
            return result

        return counted


@pytest.fixture
def countdown(monkeypatch: pytest.MonkeyPatch) -> CountDown:
    return CountDown(monkeypatch)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is processes that die, not power that fails."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def same_tables() -> Iterator[None]:
    """Each of some hundred lives writes and reads the tables of the quiet one."""
    with remembered():
        yield


def facts(url: str) -> tuple[str, str, int, int, list[str]]:
    found = verify(url)
    assert (found.problems, found.orphans) == ([], [])
    return found.digest, found.shards_digest, found.kept, found.rejected, [str(found.poisoned)]


def each(step: int) -> Any:
    """Deaths at every `step`-th call when all tests run; at a quarter of them in the quick suite, where the simulation
    of many lives meets most places in the code."""
    return pytest.mark.parametrize("step", [4 * step, pytest.param(step, marks=pytest.mark.slow)])


@each(1)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_driver_that_dies_at_any_call_is_gone_on_from(
    tmp_path: Path, countdown: CountDown, before: bool, step: int
) -> None:
    drive(str(tmp_path / "quiet"))
    calls, countdown.before = countdown.calls, before
    quiet = facts(str(tmp_path / "quiet"))
    assert quiet[2] >= 10 and quiet[3] >= 5, "there is something to lose, and there are near-copies among it"
    for number in range(0, calls, step):
        url = str(tmp_path / f"at-{number}")
        countdown.calls, countdown.left = 0, number
        with pytest.raises(Crash):
            drive(url)
        countdown.left = -1
        drive(url)
        assert facts(url) == quiet, f"died {'before' if before else 'after'} call {number}"
    assert set(countdown.where) >= set(CALLS)
    assert sum(countdown.where.values()) == len(range(0, calls, step))


def test_chunks_in_reversed_order_and_drivers_that_die_again_and_again(tmp_path: Path, countdown: CountDown) -> None:
    drive(str(tmp_path / "quiet"))
    url = str(tmp_path / "troubled")
    deaths = 0
    while True:
        countdown.calls, countdown.left, countdown.before = 0, 35 + deaths % 7, bool(deaths % 2)
        try:
            drive(url, lambda chunks: chunks[::-1])
            break
        except Crash:
            deaths += 1
            assert deaths < 300, "it goes on with each try"
    countdown.left = -1
    assert deaths > 2
    assert facts(url) == facts(str(tmp_path / "quiet"))


def test_growth_after_deaths_equals_the_straight_way(tmp_path: Path, countdown: CountDown) -> None:
    drive(str(tmp_path / "straight"), expansion__factor=6.0)
    straight = verify(str(tmp_path / "straight"))
    for number in (5, 20, 60):
        url = str(tmp_path / f"grown-{number}")
        drive(url)
        countdown.calls, countdown.left = 0, number
        with pytest.raises(Crash):
            drive(url, expansion__factor=6.0)
        countdown.left = -1
        drive(url, expansion__factor=6.0)
        assert verify(url).digest == straight.digest


GROWN: dict[str, Any] = {"sizes": (3, 3, 3, 2), "names": ("class 0", "class 1", "class 2", "a new one")}


@each(3)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_source_grows_while_drivers_die(tmp_path: Path, countdown: CountDown, before: bool, step: int) -> None:
    """However far the first season was, and wherever a driver dies in it or in the next, the end is the same."""
    drive(str(tmp_path / "quiet"))
    begun = facts(str(tmp_path / "quiet"))
    countdown.calls = 0
    drive(str(tmp_path / "quiet"), **GROWN)
    calls, quiet = countdown.calls, facts(str(tmp_path / "quiet"))
    assert quiet[2] > begun[2] + 5
    countdown.before = before
    for number in range(0, calls, step):
        url = str(tmp_path / f"at-{number}")
        countdown.calls, countdown.left = 0, 20 + number
        with suppress(Crash):
            drive(url)
        countdown.left = -1
        assert a_run(url).history.opening is not None, "else it would begin with all images, as one season"
        countdown.calls, countdown.left = 0, number
        with pytest.raises(Crash):
            drive(url, **GROWN)
        countdown.left = -1
        drive(url, **GROWN)
        assert facts(url) == quiet, f"died {'before' if before else 'after'} call {number}"


def test_what_came_too_late_is_named_and_removed(tmp_path: Path) -> None:
    url = str(tmp_path / "out")
    drive(url)
    run = a_run(url)
    late = [
        layout.staged_chunk(0, 0),
        layout.attempt(layout.chunk_journal(0, 1), 0),
        layout.shard(77),
        layout.sidecar(77),
    ]
    for name in late:
        run.storage.put_once(name, b"late")
    assert orphans(run.storage, run.history, complete=True) == sorted(late)
    found = verify(url, mend=True)
    assert found.repaired == [f"removed {name}" for name in sorted(late)]
    assert (found.problems, found.orphans) == ([], [])


def test_an_incomplete_run_keeps_what_it_will_adopt(tmp_path: Path, countdown: CountDown) -> None:
    url = str(tmp_path / "out")
    drive(url)
    run = a_run(url)
    last = max(int(path.stem) for path in (tmp_path / "out" / layout.LOG).rglob("*.json"))
    run.storage.remove(layout.log_entry(last))  # as if the driver had died before it
    refresh(run)
    ahead = [layout.shard(len(run.history.shards)), layout.sidecar(len(run.history.shards))]
    assert all(run.storage.read_or_none(name) for name in ahead)
    assert orphans(run.storage, run.history, complete=False) == []
    assert verify(url, mend=True).repaired == []
    assert all(run.storage.read_or_none(name) for name in ahead)

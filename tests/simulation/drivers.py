"""Processes of a simulated world: drivers that come, die and come again, two at a time if need be, and readers.

Each driver is a thread, but only one runs at any time: at every call of storage the world's draw says who goes on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

from diffii.dataset import layout, log
from diffii.errors import FencedError, OutputError
from engine.progress import Silent
from engine.run import Run, begin
from engine.waves import run_waves
from tests.engine.imaginary_run import a_run, index, packed_here, stage
from tests.simulation.world import Crash, World, calm

URL = "sim://out"


def drive(world: World, settings: dict[str, Any], alone: bool) -> None:
    """What `expand` does once Ray is there. Ends as a process does: done, dead, or fenced by another driver."""
    run = a_run(URL, **settings)
    begin(run)
    run_waves(run, _maker(world, run, alone), packed_here, Silent(), index(run))
    begin(run)


def _maker(world: World, run: Run, alone: bool) -> Callable[[log.WaveEntry, list[int]], Iterator[dict[str, Any]]]:
    """Actors: chunks in any order, some told twice, some staged once more by a process that was thought dead."""

    def make(wave: log.WaveEntry, chunks: list[int]) -> Iterator[dict[str, Any]]:
        order = world.draw.sample(chunks, len(chunks))
        for chunk in order:
            if alone:
                decided = [e for e in world.committed if isinstance(e, log.CommitEntry) and e.wave == wave.wave]
                assert chunk > (decided[-1].last if decided else -1), f"chunk {chunk} is made after its outcome"
            if world.draw.random() < world.faults.zombie:
                with calm():
                    rows = run.plan.chunk(wave, chunk)
                assert rows
                world.later(lambda wave=wave, chunk=chunk: _stage_late(run, wave, chunk))
            result = stage(run, wave, chunk)
            yield result
            if world.draw.random() < world.faults.duplicate:
                yield result

    return make


def _stage_late(run: Run, wave: log.WaveEntry, chunk: int) -> None:
    stage(run, wave, chunk)


class Duel:
    """Several drivers on one output at once, though their heartbeats should have kept them apart."""

    def __init__(self, world: World, settings: dict[str, Any], drivers: int) -> None:
        self._world, self._settings = world, settings
        self._turns = [threading.Semaphore(0) for _ in range(drivers)]
        self._alive = set(range(drivers))
        self._mine = threading.local()
        self.ends: list[str] = []
        self.errors: list[BaseException] = []
        self._all_done = threading.Event()

    def fight(self) -> None:
        """Until each has ended in its way; what is a fault of ours is raised."""
        threads = [threading.Thread(target=self._live, args=(number,)) for number in self._alive]
        self._world.turn = self._switch
        for thread in threads:
            thread.start()
        self._turns[0].release()
        self._all_done.wait()
        for thread in threads:
            thread.join()
        self._world.turn = lambda: None
        if self.errors:
            raise self.errors[0]

    def _live(self, number: int) -> None:
        self._mine.number = number
        self._turns[number].acquire()
        try:
            drive(self._world, self._settings, alone=False)
            self.ends.append("done")
        except Crash:
            self.ends.append("dead")
        except (FencedError, OutputError) as error:
            self.ends.append(type(error).__name__)
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)
        self._alive.discard(number)
        if self._alive:
            self._turns[self._world.draw.choice(sorted(self._alive))].release()
        else:
            self._all_done.set()

    def _switch(self) -> None:
        number = self._mine.number
        chosen = self._world.draw.choice(sorted(self._alive))
        if chosen != number:
            self._turns[chosen].release()
            self._turns[number].acquire()


class Reader:
    """Opens the data set now and then through the public door, and follows it over its own deaths."""

    def __init__(self, world: World) -> None:
        self._world, self.version, self.rows = world, -1, list[str]()
        self._place: dict[str, Any] | None = None
        self._followed: list[str] = []
        # Its own, so that lives are what they are without a follower.
        self._draw = random.Random(world.seed)
        self.looks = 0

    def look(self) -> None:
        import diffii

        with calm():
            if not any(name.startswith(f"out/{layout.LOG}") for name in self._world.files):
                return
            snapshot = diffii.open(URL)
            self.looks += 1
            rows = snapshot.column("sample_id").to_pylist() if len(snapshot) else []
            expected = sum(entry.kept for entry in self._world.committed if isinstance(entry, log.CommitEntry))
            assert len(rows) == expected, f"a reader sees {len(rows)} rows, {expected} are committed"
            assert snapshot.version == len(self._world.committed) - 1
            assert rows[: len(self.rows)] == self.rows, "what a reader saw has changed"
            if self.version >= 0:
                assert len(diffii.open(URL, self.version)) == len(self.rows)
            self.version, self.rows = snapshot.version, rows
            if self._draw.random() < 0.3:
                self._follow()
                assert self._followed == rows, "a follower lost a row, or was given one twice"

    def _follow(self) -> None:
        """A follower that is born anew each time, and dies now and then with what it was given not kept."""
        import diffii

        while True:
            follower = diffii.follow(URL, timeout=0)
            if self._place is not None:
                follower.load_state_dict(self._place)
            for part in follower.batches():
                if self._draw.random() < 0.2:
                    break
                self._followed += part.column("sample_id").to_pylist()
                self._place = follower.state_dict()
            else:
                return

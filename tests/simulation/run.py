"""One simulated life of a data set, from one seed: what goes wrong is drawn, what must hold is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

from diffii.errors import FencedError, OutputError
from engine.plan import Plan
from engine.verify import verify
from tests.engine.imaginary_run import make_chunk
from tests.simulation.drivers import URL, Duel, Reader, drive
from tests.simulation.parquet import remembered
from tests.simulation.world import Crash, Faults, World, calm, sleep

SHORT, LONG = (1.0, 2.0), (2.0, 3.0, 5.0)
"""Growth of a life: each a prefix of these factors. Most lives are short, so that there can be many."""
SHAPES = ((3, 5), (2, 3), (5, 4), (1, 7))
"""(chunk_size, shard_rows)."""
PATIENCE = 400


@dataclass
class Life:
    """What happened in one run."""

    seed: int
    deaths: int = 0
    fenced: int = 0
    gave_up: int = 0
    """Drivers that storage failed too often; the next one goes on."""
    looks: int = 0
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    crash_points: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def live(seed: int) -> Life:
    """One life. Raises AssertionError when something that must hold does not."""
    world = World(seed)
    draw = world.draw
    settings = _settings(*draw.choice(SHAPES))
    course = LONG if draw.random() < 0.05 else SHORT
    targets = course[: draw.randint(1, len(course))]
    reader, life = Reader(world), Life(seed)
    for factor in targets:
        world.faults = _faults(world)
        now = {**settings, "expansion__factor": factor}
        for attempt in range(PATIENCE):
            if attempt > PATIENCE // 2:
                world.faults.crash = 0.0  # a run that dies at every turn of the world is not what is asked
            if _one_driver(world, now, life):
                break
            if draw.random() < 0.3:
                reader.look()
        else:
            raise AssertionError("it does not come to an end")
        reader.look()
    with calm():
        zombies, world.late = world.late, []
        for _, act in zombies:
            act()
        found = verify(URL, mend=True)
    assert (found.problems, found.orphans) == ([], []), (found.problems, found.orphans)
    digest, kept = quiet(tuple(sorted({**settings, "expansion__factor": targets[-1]}.items())))
    assert (found.digest, found.kept) == (digest, kept), "the data set is another than the quiet run's"
    life.looks, life.calls, life.crash_points = reader.looks, world.calls, world.crash_points
    return life


def _one_driver(world: World, settings: dict[str, Any], life: Life) -> bool:
    """One driver's life, or that of several at once; whether one came to the end."""
    if world.draw.random() < 0.15:
        duel = Duel(world, settings, 2)
        duel.fight()
        life.deaths += duel.ends.count("dead")
        life.fenced += duel.ends.count("FencedError")
        life.gave_up += duel.ends.count("OutputError")
        return "done" in duel.ends
    try:
        drive(world, settings, alone=True)
        return True
    except Crash:
        life.deaths += 1
    except FencedError:
        raise AssertionError("alone, and fenced") from None
    except OutputError:
        life.gave_up += 1
    return False


def _settings(chunk_size: int, shard_rows: int) -> dict[str, Any]:
    return {"commit__chunk_size": chunk_size, "output__shard_rows": shard_rows}


def _faults(world: World) -> Faults:
    """What goes wrong in this part of a life: a quiet one, a bad day of one kind, or everything at once."""
    draw = world.draw
    bad = Faults(
        crash=draw.choice([0.002, 0.008, 0.02]),
        throttle=draw.choice([0.01, 0.1, 0.3]),
        lost_answer=draw.choice([0.01, 0.1]),
        duplicate=0.3,
        zombie=0.3,
    )
    kind = draw.randrange(6)
    if kind == 0:
        return Faults()
    if kind < 3:
        return bad
    names = ("crash", "throttle", "lost_answer", "duplicate", "zombie")
    chosen = draw.sample(names, 2)
    return Faults(**{name: getattr(bad, name) for name in chosen})


@cache
def quiet(settings: tuple[tuple[str, Any], ...]) -> tuple[str, int]:
    """(digest, kept rows) of a straight run in which nothing goes wrong."""
    before = World.current
    world = World(0)
    with calm():
        drive(world, dict(settings), alone=True)
        found = verify(URL)
    World.current = before
    return found.digest, found.kept


class _Inline:
    """Threads would make the order of calls a matter of chance."""

    def __init__(self, *_: Any) -> None: ...
    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None: ...
    def map(self, call: Any, *values: Any) -> Iterator[Any]:
        return map(call, *values)

    def submit(self, call: Any, *values: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*values))
        return future


@contextmanager
def simulated() -> Iterator[None]:
    """No threads, no sleep."""
    with (
        remembered(),
        mock.patch("tests.engine.imaginary_run.make_chunk", lru_cache(10_000)(make_chunk)),
        mock.patch("engine.plan.Plan.row", lru_cache(10_000)(Plan.row)),
        mock.patch("diffii.dataset.checkpoints.ThreadPoolExecutor", _Inline),
        mock.patch("engine.commit.ThreadPoolExecutor", _Inline),
        mock.patch("tenacity.nap.time", SimpleNamespace(sleep=sleep)),
        mock.patch("diffii.dataset.checkpoints.LOG_PAGE", 4),
        mock.patch("diffii.dataset.history.LOG_PAGE", 4),
        mock.patch("diffii.dataset.layout.LOG_PAGE", 4),
        mock.patch("diffii.dataset.checkpoints.LOG_FOLDER", 12),
        mock.patch("diffii.dataset.history.LOG_FOLDER", 12),
        mock.patch("diffii.dataset.layout.LOG_FOLDER", 12),
    ):
        yield

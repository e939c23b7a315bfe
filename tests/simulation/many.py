"""The sums of many simulated lives, and the table of the places where drivers died."""

from __future__ import annotations

import gc
import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Iterable

from tests.simulation.run import Life, live, simulated


def many(seeds: Iterable[int]) -> tuple[Life, list[str]]:
    """The sums of many lives, and what failed."""
    total, failures = Life(-1), list[str]()
    gc.set_threshold(100_000, 50, 100)  # what is remembered is looked through by every collection
    with simulated():
        for seed in seeds:
            try:
                life = live(seed)
            except Exception:  # noqa: BLE001
                failures.append(f"seed {seed}\n{traceback.format_exc()}")
                continue
            add(total, life)
    return total, failures


def in_processes(seeds: range) -> tuple[Life, list[str]]:
    """The same with a process per core; ends early after some failures."""
    processes = len(os.sched_getaffinity(0))
    step = max(1, min(100, len(seeds) // processes))
    total, failures = Life(-1), list[str]()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for life, failed in pool.imap_unordered(many, [seeds[start:][:step] for start in range(0, len(seeds), step)]):
            add(total, life)
            failures += failed
            if len(failures) > 5:
                break
    return total, failures


def unhit(total: Life) -> list[tuple[str, str]]:
    """Places that call storage and that no driver died at, before or after the call."""
    points = {(place, operation, when) for place, operation, when in total.crash_points}
    return [key for key in sorted(total.calls) if not {(*key, "before"), (*key, "after")} <= points]


def add(total: Life, life: Life) -> None:
    for name in ("deaths", "fenced", "gave_up", "looks"):
        setattr(total, name, getattr(total, name) + getattr(life, name))
    total.calls.update(life.calls)
    total.crash_points.update(life.crash_points)


def table(total: Life) -> str:
    """Crash points: every place in our code that calls storage, and how often a driver died before and after it."""
    deaths: dict[tuple[str, str], Counter[str]] = {}
    for (place, operation, when), count in total.crash_points.items():
        deaths.setdefault((place, operation), Counter())[when] += count
    lines = [f"{'place':58} {'call':9} {'calls':>9} {'died before':>12} {'after':>7}"]
    for (place, operation), calls in sorted(total.calls.items()):
        died = deaths.get((place, operation), Counter())
        lines.append(f"{place:58} {operation:9} {calls:9} {died['before']:12} {died['after']:7}")
    return "\n".join(lines)

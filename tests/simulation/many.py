"""The sums of many simulated lives, and the table of the places where drivers died."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable

from tests.simulation.run import Life, live, simulated


def many(seeds: Iterable[int]) -> tuple[Life, list[str]]:
    """The sums of many lives, and what failed."""
    total, failures = Life(-1), list[str]()
    with simulated():
        for seed in seeds:
            try:
                life = live(seed)
            except Exception:  # noqa: BLE001
                failures.append(f"seed {seed}\n{traceback.format_exc()}")
                continue
            add(total, life)
    return total, failures


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

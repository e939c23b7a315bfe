"""Many simulated lives: `python -m tests.simulation --runs 10000 --seed 0`. A failure prints the seed that shows it."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.simulation.many import add, many, table
from tests.simulation.run import Life


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others follow")
    given = parser.parse_args()
    processes = len(os.sched_getaffinity(0))
    step = max(1, min(100, given.runs // processes))
    parts = [
        range(start, min(start + step, given.seed + given.runs))
        for start in range(given.seed, given.seed + given.runs, step)
    ]
    began, total, failures = time.monotonic(), Life(-1), list[str]()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for life, failed in pool.imap_unordered(many, parts):
            add(total, life)
            failures += failed
            if len(failures) > 5:
                break
    print(table(total))
    unhit = [key for key in total.calls if not any(key == point[:2] for point in total.crash_points)]
    print(
        f"{given.runs} runs in {time.monotonic() - began:.0f} s: {total.deaths} deaths, {total.fenced} fenced, "
        f"{total.gave_up} given up by storage, {total.looks} looks of readers, {len(unhit)} places without a death, "
        f"{len(failures)} failures"
    )
    for failure in failures[:5]:
        print(f"\n{failure}\nagain: python -m tests.simulation --runs 1 --seed {failure.split()[1]}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

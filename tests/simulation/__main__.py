"""Many simulated lives: `python -m tests.simulation --runs 10000 --seed 0`. A failure prints the seed that shows it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.many import in_processes, table, unhit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others follow")
    given = parser.parse_args()
    began = time.monotonic()
    total, failures = in_processes(range(given.seed, given.seed + given.runs))
    print(table(total))
    print(
        f"{given.runs} runs in {time.monotonic() - began:.0f} s: {total.deaths} deaths, {total.fenced} fenced, "
        f"{total.gave_up} given up by storage, {total.looks} looks of readers, "
        f"{len(unhit(total))} places without a death before and after, {len(failures)} failures"
    )
    for failure in failures[:5]:
        print(f"\n{failure}\nagain: python -m tests.simulation --runs 1 --seed {failure.split()[1]}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

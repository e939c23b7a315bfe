"""Near-copy decisions per second in a large class: `python -m tests.bench.dedup [--accepted 100000]`; JSON out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource

# Before numpy is imported: another number of threads is another benchmark.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import time

import numpy as np

from diffii.signatures import DIMENSIONS, LIMIT, Signatures
from engine.near_copies import NearCopies, Threshold

ALLOWED = 5_000
"""Decisions a second, at least."""


def decisions_per_second(accepted: int, rows: int, seconds: float = 5.0) -> float:
    """Rows decided per second in calls of `rows`, all of one class, against `accepted` accepted rows of that class."""
    rng = np.random.default_rng(0)

    def random(count: int) -> Signatures:
        values = np.clip(np.rint(16.0 * rng.standard_normal((count, DIMENSIONS))), -LIMIT, LIMIT).astype(np.int8)
        return Signatures(np.zeros(count, np.int64), rng.integers(0, 2**64, count, dtype=np.uint64), values)

    index = NearCopies([Threshold(2600, 4500)], 4, random(5))
    index.add(random(accepted))
    calls = [random(rows) for _ in range(20)]
    index.decide(calls[0])
    times: list[float] = []
    while sum(times) < seconds:
        began = time.perf_counter()
        index.decide(calls[len(times) % len(calls)])
        times.append(time.perf_counter() - began)
    return round(rows / float(np.median(times)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accepted", type=int, default=100_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256], help="rows per call")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    found = {
        "machine": f"{platform.machine()}, one thread, load {os.getloadavg()[0]:.1f}",
        "accepted": given.accepted,
        "decisions_per_second": {
            f"calls of {rows}": decisions_per_second(given.accepted, rows, given.seconds) for rows in given.rows
        },
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "allowed": ALLOWED,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

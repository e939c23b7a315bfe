"""Any chunk of a plan of 10^8 rows: `python -m tests.bench.plan`; JSON out, with what is allowed beside it."""

from __future__ import annotations

import argparse
import importlib
import json
import pickle
import resource
import time

import numpy as np

from engine.lazy_rows import ChunkRows
from engine.next_wave import next_wave
from engine.plan import Plan
from engine.settings import from_flat
from tests.engine.sources import imaginary

ALLOWED_MS, ALLOWED_MIB = 10.0, 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=20, help="source images per class")
    parser.add_argument("--chunks", type=int, default=1000, help="chunks to be made, drawn at random")
    given = parser.parse_args()
    settings = {
        "backbone.model": "garments",
        "expansion.per_class": given.rows // given.classes,
        "prompts.suffixes": [f"in context {number}" for number in range(10)],
    }
    began = time.perf_counter()
    plan = Plan(from_flat(settings), imaginary([given.photos] * given.classes), "00" * 32)
    wave = next_wave(plan, [], [0] * given.classes, plan.targets(), plan.limits())
    assert wave is not None
    chunks = plan.chunk_count(wave)
    made = time.perf_counter() - began
    drawn = np.random.default_rng(0).integers(0, chunks, given.chunks).tolist()
    prepare = ChunkRows(plan, wave)
    importlib.import_module("pandas")  # PyArrow does so at its first conversion: 0.3 s that are not the plan's
    seconds: list[tuple[float, float]] = []
    for chunk in [0, chunks - 1, *drawn]:
        start, used = time.perf_counter(), time.thread_time()
        rows = plan.table(wave, [chunk])
        seconds.append((time.perf_counter() - start, time.thread_time() - used))
        assert rows["chunk"][0].as_py() == chunk
    ms, cpu_ms = 1000 * np.array(seconds).T
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "rows": plan.row_count(wave),
        "chunks": chunks,
        "chunk_rows": plan.config.commit.chunk_size,
        "classes": given.classes,
        "source_images": given.photos * given.classes,
        "plan_seconds": round(made, 3),
        "first_chunk_ms": round(float(ms[0]), 2),
        "chunk_ms": _spread(ms[1:]),
        "chunk_cpu_ms": _spread(cpu_ms[1:]),
        "peak_mib": round(peak, 1),
        "travels_bytes": len(pickle.dumps(prepare)),
        "allowed": {"chunk_ms": ALLOWED_MS, "peak_mib": ALLOWED_MIB},
        "reached": bool(cpu_ms.max() < ALLOWED_MS and peak < ALLOWED_MIB),
    }
    print(json.dumps(found, indent=1))


def _spread(ms: np.ndarray) -> dict[str, float]:
    return {
        "median": round(float(np.median(ms)), 2),
        "p99": round(float(np.quantile(ms, 0.99)), 2),
        "worst": round(float(ms.max()), 2),
    }


if __name__ == "__main__":
    main()

"""A pool of simulated GPU actors under the real engine: `python -m tests.bench.engine_pool --actors 64`; JSON out.

Plan, Ray Data, staging, near-copies, packing and the log are real; the GPU is a sleep, and images are made up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

from cluster.local import local_ray
from diffii.dataset.history import read_log
from diffii.dataset.storage import Storage
from diffii.signatures import DIMENSIONS, Signatures
from engine.counters import Counters
from engine.expand import packed_in_ray
from engine.lazy_rows import ChunkRows, tasks
from engine.near_copies import NearCopies, Threshold
from engine.plan import Plan
from engine.progress import Silent
from engine.run import Run, begin
from engine.settings import from_flat
from engine.stream import Pool, stream
from engine.waves import Maker, run_waves
from tests.bench.simulated_actor import Simulated, SimulatedSpec
from tests.engine.sources import imaginary

CLASSES, PHOTOS = 100, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    actors: int
    rounds: int
    """Chunks per actor."""
    chunk: int
    image_ms: float
    image_bytes: int
    shard_rows: int


class Sampler:
    """Driver memory and what waits at the head of the line, every so often, from a thread."""

    def __init__(self, counters: Counters, workers_after: int, every: float = 0.5) -> None:
        self._counters, self._workers_after, self._every = counters, workers_after, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, ...]] = []
        """(images made, MiB resident, chunks waiting, busy seconds, idle seconds)."""
        self.worker_mib: list[float] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        me = psutil.Process()
        while not self._over.wait(self._every):
            images = self._counters.value("diffii_images_total")
            waiting = self._counters.value("diffii_chunks_waiting")
            spent = (self._counters.value("diffii_actor_seconds_total", state=state) for state in ("busy", "idle"))
            self.samples.append((images, me.memory_info().rss / 2**20, waiting, *spent))
            if images > self._workers_after and not self.worker_mib:
                self.worker_mib = _worker_memory(me)

    def memory(self) -> dict[str, Any]:
        """MiB of the driver when the first image came, half-way and at the end, and per 10^5 images of the second half.

        The first half is left out of the slope: caches and pools of memory fill up in it, whatever comes after.
        """
        made = np.array([sample[0] for sample in self.samples])
        mib = np.array([sample[1] for sample in self.samples])
        later = made >= made[-1] / 2
        slope = np.polyfit(made[later], mib[later], 1)[0] if np.ptp(made[later]) else float("nan")
        first, half = int(np.argmax(made > 0)), int(np.argmax(later))
        return {
            "at_first_image": round(mib[first], 1),
            "at_half": round(mib[half], 1),
            "at_end": round(mib[-1], 1),
            "most": round(float(mib.max()), 1),
            "per_100_000_images": round(1e5 * float(slope), 1),
        }

    def busy_later(self) -> float:
        """Busy share of the actors in the second half: all of them are there by then."""
        half = next(sample for sample in self.samples if sample[0] >= self.samples[-1][0] / 2)
        busy, idle = (self.samples[-1][k] - half[k] for k in (3, 4))
        return busy / (busy + idle) if busy else float("nan")

    def waiting(self) -> dict[str, float]:
        waiting = np.array([sample[2] for sample in self.samples if sample[0]])
        return {"mean": round(float(waiting.mean()), 1), "most": float(waiting.max())}


def measure(options: Options, folder: str) -> dict[str, Any]:
    counters, run = Counters(), _run(options, folder)
    none = Signatures(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty((0, DIMENSIONS), np.int8))
    index = NearCopies([Threshold(2600, 4500)] * CLASSES, 4, none)
    began, cpu = time.monotonic(), psutil.Process().cpu_times()
    with local_ray(actors=options.actors):
        started = time.monotonic()
        begin(run)
        with Sampler(counters, run.plan.row_count(run.waves[0]) // 2) as sampler:
            run_waves(run, _maker(run, options), packed_in_ray(counters), Silent(), index, counters)
        ended, used = time.monotonic(), psutil.Process().cpu_times()
    images = int(counters.value("diffii_images_total"))
    assert images == run.history.kept == options.actors * options.rounds * options.chunk
    chunk_seconds = options.chunk * options.image_ms / 1000
    driver_cpu = used.user + used.system - cpu.user - cpu.system
    stages = ("reading", "waiting", "computing", "encoding", "staging", "deciding", "packing", "appending")
    return {
        **asdict(options),
        "images": images,
        "busy": round(counters.busy, 4),
        "busy_in_second_half": round(sampler.busy_later(), 4),
        "busy_with_start_and_end": round(options.rounds * chunk_seconds / (ended - started), 4),
        "seconds": {"ray": round(started - began, 1), "wave": round(ended - started, 1)},
        "chunks_waiting": sampler.waiting(),
        "driver_mib": sampler.memory(),
        "worker_unique_mib": {
            "each": round(float(np.median(sampler.worker_mib)), 1),
            "all": round(sum(sampler.worker_mib)),
        },
        "driver_cpu_ms_per_chunk": round(1000 * driver_cpu / (options.actors * options.rounds), 2),
        "stage_ms": {stage: _mean_ms(counters, stage) for stage in stages},
        "storage_calls_per_chunk": {
            by: round(counters.value("diffii_storage_calls_total", by=by) * options.chunk / images, 2)
            for by in ("actors", "packers", "driver")
        },
    }


def _run(options: Options, folder: str) -> Run:
    images = options.actors * options.rounds * options.chunk
    if images % CLASSES:
        raise SystemExit(f"actors x rounds x chunk is {images}; make it a multiple of {CLASSES}")
    settings = {
        "backbone.model": "garments",
        "output.url": folder,
        "output.shard_rows": options.shard_rows,
        "commit.chunk_size": options.chunk,
        "expansion.per_class": images // CLASSES,
        "expansion.max_attempts": 1.0,
        "captions.method": "off",
        "learn.concepts": "off",
        "prompts.suffixes": [f"in context {number}" for number in range(10)],
    }
    plan, storage = Plan(from_flat(settings), imaginary([PHOTOS] * CLASSES), "00" * 32), Storage(folder)
    return Run(storage, plan.config, plan.source, plan, read_log(storage))


def _maker(run: Run, options: Options) -> Maker:
    pool = Pool(min=options.actors, max=options.actors, gpus=0.0)
    spec = SimulatedSpec(
        output_url=run.storage.url, image_seconds=options.image_ms / 1000, image_bytes=options.image_bytes
    )
    return lambda wave, chunks: stream(tasks(chunks), Simulated, spec, pool, prepare=ChunkRows(run.plan, wave))


def _worker_memory(me: psutil.Process) -> list[float]:
    """MiB that each actor holds for itself."""
    found = []
    for child in me.children(recursive=True):
        try:
            if "MapWorker" in " ".join(child.cmdline()):
                found.append(child.memory_full_info().uss / 2**20)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _mean_ms(counters: Counters, stage: str) -> float:
    total = counters.value("diffii_stage_seconds_sum", stage=stage)
    return round(1000 * total / max(1.0, counters.value("diffii_stage_seconds_count", stage=stage)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=25, help="chunks per actor")
    parser.add_argument("--chunk", type=int, default=64, help="images")
    parser.add_argument("--image-ms", type=float, default=100.0)
    parser.add_argument("--image-bytes", type=int, default=4096)
    parser.add_argument("--shard-rows", type=int, default=1000)
    options = Options(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, folder)))


if __name__ == "__main__":
    main()

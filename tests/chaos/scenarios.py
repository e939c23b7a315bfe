"""The troubles that a real run is put through, each against one quiet run with the same settings."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import boto3
import fsspec
from fsspec.config import conf

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from tests.chaos.processes import Driver
from tests.chaos.server import CLIENT, troubled_s3
from tests.chaos.tally import Reader, Tally
from tests.chaos.troubled import NO_MEMORY, PAUSE, memory_mark
from tests.engine.sources import PLAIN, garments

SETTINGS = [
    "inversion.steps=4",
    "inversion.micro_batch=4",
    "generation.steps=3",
    "generation.micro_batch=4",
    "commit.chunk_size=4",
    "output.shard_rows=8",
    "expansion.factor=24",
    # One wave: each begins with loading the model, and refilling is what the simulation does thousands of times.
    "expansion.max_attempts=1",
    *(f"{key}={json.dumps(value)}" for key, value in PLAIN.items() if key != "dedup.embedder"),
]
"""Three steps give smears, many of them near-copies: what is rejected is part of what must come out alike."""
ACTORS = 2


@dataclass
class Place:
    """A folder with one source and what all runs of it share. `drivers` and `actors` are to be killed in each."""

    folder: Path
    drivers: int = 2
    actors: int = 2

    @cached_property
    def source(self) -> Path:
        return garments(self.folder / "source", shots=2)

    @cached_property
    def quiet(self) -> Path:
        out = self.folder / "quiet"
        Driver(self.source, str(out), ACTORS, SETTINGS, {}).finished()
        return out

    def output(self, name: str) -> str:
        """A new output that has its inversions already, so that trouble falls into generation and commit."""
        out = self.folder / name
        for part in (layout.INVERSIONS, layout.SIGNATURES):
            shutil.copytree(self.quiet / part, out / part)
        return str(out)

    def start(self, out: str, **environment: str) -> Driver:
        return Driver(self.source, out, ACTORS, SETTINGS, {PAUSE: "0.2", **environment})


def kills(place: Place, seed: int) -> Tally:
    """SIGKILL of actors and of drivers at random moments."""
    tally, draw, out = Tally(trouble="kills", seed=seed), random.Random(seed), place.output(f"kills-{seed}")
    with Reader(out) as reader:
        _killed(place, out, tally, draw)
    tally.judge(out, str(place.quiet), reader)
    return tally


def memory(place: Place, seed: int) -> Tally:
    """CUDA out of memory by name, in the first calls of several actors."""
    tally, calls, out = Tally(trouble="memory", seed=seed), 2 + seed % 3, place.output(f"memory-{seed}")
    with Reader(out) as reader:
        place.start(out, **{NO_MEMORY: str(calls)}).finished()
    tally.starts, storage = 1, Storage(out)
    tally.out_of_memory = sum(storage.read_or_none(memory_mark(call)) is not None for call in range(calls))
    tally.judge(out, str(place.quiet), reader)
    return tally


def disk(place: Place, seed: int) -> Tally:
    """A disk that runs full, again and again, and is given some more room each time. Needs the right to mount."""
    tally, out, room = Tally(trouble="disk", seed=seed), place.folder / f"disk-{seed}", 400 + 20 * (seed % 10)
    with _small_disk(out, room) as resize, Reader(str(out)) as reader:
        for part in (layout.INVERSIONS, layout.SIGNATURES):
            shutil.copytree(place.quiet / part, out / part)
        while True:
            tally.starts += 1
            code, errors = place.start(str(out)).ended()
            if not code:
                break
            assert code == 2 and "No space left on device" in errors and "nothing is lost" in errors, errors[-2000:]
            tally.disk_full += 1
            assert tally.disk_full < 20
            resize(room := room + 250)
        tally.judge(str(out), str(place.quiet), reader)
    return tally


def nodes(place: Place, seed: int) -> Tally:
    """A node that vanishes and one that is drained, in a cluster of two."""
    tally, out = Tally(trouble="nodes", seed=seed), place.output(f"nodes-{seed}")
    command = [sys.executable, "-m", "tests.chaos.nodes", str(place.source), out, str(seed), *SETTINGS]
    # Without the token of a Ray that may run in this process.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with Reader(out) as reader:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=900, check=False, env={**environment, PAUSE: "0.4"}
        )
    assert done.returncode == 0, done.stderr[-3000:]
    happened = json.loads(done.stdout.splitlines()[-1])
    tally.starts = 1
    tally.nodes_removed, tally.nodes_drained = happened["nodes_removed"], happened["nodes_drained"]
    tally.judge(out, str(place.quiet), reader)
    return tally


def storage(place: Place, seed: int) -> Tally:
    """S3 that throttles, loses answers and answers too late, and a driver that is killed meanwhile."""
    tally, draw = Tally(trouble="storage", seed=seed), random.Random(seed)
    before = dict(conf)
    with troubled_s3(seed, share=0.0) as server:
        conf["s3"] = CLIENT
        bucket = f"bucket-{secrets.token_hex(4)}"
        boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=bucket)
        out = f"s3://{bucket}/set"
        for part in (layout.INVERSIONS, layout.SIGNATURES):
            fsspec.filesystem("s3").put(f"{place.quiet / part}/", f"{out}/{part}/", recursive=True)
        server.share = 0.02
        with Reader(out) as reader:
            _killed(place, out, tally, draw, drivers=1, actors=1)
        tally.storage_failures, server.share = server.failures, 0.0
        tally.judge(out, str(place.quiet), reader)
    conf.clear()
    conf.update(before)
    return tally


TROUBLES: dict[str, Callable[[Place, int], Tally]] = {
    trouble.__name__: trouble for trouble in (kills, memory, disk, nodes, storage)
}


def endure(place: Place, trouble: str, seed: int) -> Tally:
    """One run with one trouble. Raises AssertionError when it does not end well by itself."""
    assert place.quiet.is_dir()
    began = time.monotonic()
    tally = TROUBLES[trouble](place, seed)
    tally.seconds = time.monotonic() - began
    return tally


def _killed(
    place: Place, out: str, tally: Tally, draw: random.Random, drivers: int | None = None, actors: int | None = None
) -> None:
    """Run to the end over the deaths of so many drivers and actors."""
    drivers = place.drivers if drivers is None else drivers
    actors = place.actors if actors is None else actors
    while True:
        driver = place.start(out)
        tally.starts += 1
        left = drivers - tally.driver_kills, actors - tally.actor_kills
        if left == (0, 0) or not driver.generating():
            driver.finished()
            return
        # As many actors as are due before this driver's own end, then the driver.
        for _ in range(-(-left[1] // (left[0] + 1))):
            time.sleep(draw.uniform(0.2, 1.5))
            tally.actor_kills += driver.kill_an_actor(draw)
        if left[0]:
            time.sleep(draw.uniform(0.1, 2.0))
            tally.driver_kills += driver.kill()
        else:
            driver.finished()
            return


@contextmanager
def _small_disk(folder: Path, kibibytes: int) -> Iterator[Callable[[int], None]]:
    """A file system in memory of that size at `folder`; gives what makes it larger."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)], check=True)

    def resize(kibibytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

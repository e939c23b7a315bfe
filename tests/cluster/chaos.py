"""Kill real actors and real drivers at random moments, and see whether the data set is that of a quiet run.

    python -m tests.cluster.chaos --drivers 20 --actors 20 --seed 1       one JSON object on standard output

Inversions are made beforehand, so that kills fall into generation and commit. While processes die, a reader opens the
data set again and again: every version must hold what it held before, and a beginning of what comes after.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

import diffii
from diffii.dataset import layout
from diffii.errors import OutputError
from engine.verify import verify
from tests.cluster.commands import SMALL
from tests.cluster.commands import diffii as command
from tests.engine.sources import garments

GENERATOR = "Generator"
"""Part of the process title of Ray's workers that hold one."""


@dataclass(kw_only=True)
class Tally:
    """What happened, and what came of it."""

    driver_kills: int = 0
    actor_kills: int = 0
    starts: int = 0
    versions_read: int = 0
    kept: int = 0
    rejected: int = 0
    poisoned: int = 0
    digest_equal: bool = False
    shards_digest_equal: bool = False
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Reader(threading.Thread):
    """Opens what is committed, over and over, and remembers the rows of every version it saw."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.done = url, threading.Event()
        self.seen: dict[int, list[str]] = {}

    def run(self) -> None:
        while not self.done.wait(0.3):
            try:
                snapshot = diffii.open(self._url)
            except OutputError:
                continue  # not begun yet
            self.seen[snapshot.version] = snapshot.column("sample_id").to_pylist() if len(snapshot) else []


def chaos(folder: Path, *, drivers: int, actors: int, seed: int, pool: int, factor: int, extra: list[str]) -> Tally:
    """Expand once in peace, then again with `drivers` and `actors` SIGKILLs. Takes seconds per kill of an actor and a
    start of Ray per kill of a driver."""
    source = garments(folder / "source", shots=2)
    settings = [*SMALL, f"--set=expansion.factor={factor}", *extra]
    quiet, out = folder / "quiet", folder / "out"
    subprocess.run(command("expand", source, quiet, *settings, "--actors", "2"), check=True, capture_output=True)
    # What both share is made once: with the inversions there, the first kill finds the run generating.
    for part in (layout.INVERSIONS, layout.SIGNATURES):
        if (quiet / part).is_dir():
            shutil.copytree(quiet / part, out / part)
    draw, tally, began = random.Random(seed), Tally(), time.monotonic()
    reader = Reader(str(out))
    reader.start()
    start = command("expand", source, out, *settings, "--actors", str(pool))
    while True:
        tally.starts += 1
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        kills_left = (drivers - tally.driver_kills) + (actors - tally.actor_kills)
        if not kills_left:
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
            break
        if not _generating(process, out):
            continue
        # As many actors as are due before this driver's own end, then the driver.
        rounds = max(1, drivers - tally.driver_kills + 1)
        for _ in range(-(-(actors - tally.actor_kills) // rounds)):
            time.sleep(draw.uniform(0.2, 1.5))
            tally.actor_kills += _kill_an_actor(process, draw)
        if tally.driver_kills < drivers:
            time.sleep(draw.uniform(0.1, 2.0))
            tally.driver_kills += _kill(process)
        if process.poll() is None and tally.driver_kills == drivers and tally.actor_kills == actors:
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
            break
    tally.seconds = time.monotonic() - began
    reader.done.set()
    reader.join()
    found, expected = verify(str(out)), verify(str(quiet))
    tally.kept, tally.rejected, tally.poisoned = found.kept, found.rejected, found.poisoned
    tally.digest_equal = found.digest == expected.digest
    tally.shards_digest_equal = found.shards_digest == expected.shards_digest
    tally.problems += [*found.problems, *(f"orphan {name}" for name in found.orphans)]
    tally.versions_read = len(reader.seen)
    final = diffii.open(str(out)).column("sample_id").to_pylist()
    for version, ids in reader.seen.items():
        again = diffii.open(str(out), version)
        if ids != final[: len(ids)] or len(again) != len(ids):
            tally.problems.append(f"a reader saw other rows at version {version}")
    return tally


def _generating(process: subprocess.Popen[str], out: Path) -> bool:
    """Wait until this driver's actors have begun to stage; False when it ended first, with everything done."""
    before = _staged(out)
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline
        if _generators(process) and _staged(out) != before:
            return True
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()[1]
    return False


def _staged(out: Path) -> tuple[int, int]:
    names = list((out / layout.STAGING).rglob("chunk-*")) if (out / layout.STAGING).is_dir() else []
    return len(names), len(list((out / layout.LOG).rglob("*.json")))


def _generators(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    try:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if GENERATOR in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.Error:
                continue
    except psutil.NoSuchProcess:
        return []
    return found


def _kill_an_actor(process: subprocess.Popen[str], draw: random.Random) -> int:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        alive = _generators(process)
        if alive:
            victim = draw.choice(alive)
            try:
                victim.kill()
                return 1
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.1)
    return 0


def _kill(process: subprocess.Popen[str]) -> int:
    if process.poll() is not None:
        return 0
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    workers = [child for child in family if _is_worker(child)]
    psutil.wait_procs(workers, timeout=30)
    return 1


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "ray::" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--drivers", type=int, default=5)
    parser.add_argument("--actors", type=int, default=5)
    parser.add_argument("--pool", type=int, default=2)
    parser.add_argument("--factor", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = chaos(
            Path(folder),
            drivers=given.drivers,
            actors=given.actors,
            seed=given.seed,
            pool=given.pool,
            factor=given.factor,
            extra=[f"--set={item}" for item in given.set],
        )
    print(json.dumps(asdict(tally)))


if __name__ == "__main__":
    main()

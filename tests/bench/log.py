"""How long a long log takes to open, and to append to: `python -m tests.bench.log [--entries 1000000]`; JSON out.

The log is written as a driver leaves it: every folder of 10 000 entries with its checkpoint, the last one with single
entries. Only what opening reads is written: the entries behind a folder's checkpoint are left out, since no reader
lists or reads them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from diffii.dataset import layout, log
from diffii.dataset.checkpoints import with_sums
from diffii.dataset.history import newest_version, read_log
from diffii.dataset.layout import LOG_FOLDER, LOG_PAGE
from diffii.dataset.log_table import to_table
from diffii.dataset.snapshot import open_snapshot
from diffii.dataset.storage import Storage
from diffii.dataset.tables import write_table
from engine.append import LogWriter

CLASSES = 100


def entry(number: int) -> log.CommitEntry:
    """One shard of a thousand rows over a hundred classes, one row in a hundred rejected."""
    shard = log.Shard(
        name=layout.shard(number),
        rows=1000,
        bytes=400_000_000 + number,
        sha256=f"{number:064x}",
        sidecar=layout.sidecar(number),
        sidecar_sha256=f"{number + 1:064x}",
    )
    return log.CommitEntry(
        wave=0,
        first=16 * number,
        last=16 * number + 15,
        rows=1010,
        lost={"rejected": {str(row): "near-copy" for row in range(0, 1010, 101)}},
        kept_per_class={str(label): 10 for label in range(CLASSES)},
        shard=shard,
        fingerprints=["NVIDIA H100 float16 xformers torch-2.11 diffusers-0.42"],
    )


def write(folder: Path, entries: int) -> None:
    storage = Storage(str(folder))
    opening: list[log.Entry] = [
        log.OpenEntry(identity={}, source="", classes=[f"class {k}" for k in range(CLASSES)], model="m"),
        log.WaveEntry(wave=0, starts=[0], stops=[10**9], targets=[10**9], limits=[10**9]),
    ]
    for first in range(0, entries - entries % LOG_FOLDER, LOG_FOLDER):
        numbers = range(max(0, first - 2), first - 2 + LOG_FOLDER)
        made = [*(opening if first == 0 else []), *map(entry, numbers)]
        storage.put(layout.log_folder_checkpoint(first), write_table(with_sums(to_table(made))))
    start = entries - entries % LOG_FOLDER
    for first in range(start, entries, LOG_PAGE):
        made = [entry(number - 2) for number in range(first, min(first + LOG_PAGE, entries))]
        if len(made) == LOG_PAGE:
            storage.put(layout.log_checkpoint(first), write_table(to_table(made)))
        for number, item in enumerate(made, start=first):
            path = folder / layout.log_entry(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(log.encode(item))


def measure(folder: Path) -> dict[str, float]:
    """In a process of its own, so that its peak memory is that of opening."""
    storage = Storage(str(folder))
    began = time.perf_counter()
    newest = newest_version(storage)
    looked = time.perf_counter()
    history = read_log(storage)
    opened = time.perf_counter()
    assert history.version == newest
    writer = LogWriter(storage, history, "bench")
    appends: list[float] = []
    for number in range(200):
        start = time.perf_counter()
        writer.append(replace(entry(newest - 1 + number), wave=0))
        appends.append(time.perf_counter() - start)
    appends.sort()
    return {
        "entries": newest + 1,
        "newest_version_seconds": looked - began,
        "open_seconds": opened - looked,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "append_median_ms": 1000 * appends[len(appends) // 2],
        "append_worst_ms": 1000 * appends[-1],
    }


def follow(folder: Path, looks: int, entries: int) -> dict[str, float]:
    """A reader that opens version after version while a driver appends `entries` between its looks.

    In a process of its own. `look` asks for the newest version, as a waiting reader does all the time; `open` is
    opening it as anybody does, by its URL alone.
    """
    storage = Storage(str(folder))
    writer = LogWriter(storage, read_log(storage), "bench")
    shards = len(writer.history.shards)
    look: list[float] = []
    opened: list[float] = []
    for number in _grow(writer, shards, looks, entries):
        began = time.perf_counter()
        newest = newest_version(storage)
        looked = time.perf_counter()
        snapshot = open_snapshot(str(folder))
        look.append(looked - began)
        opened.append(time.perf_counter() - looked)
        assert (snapshot.version, len(snapshot.shards)) == (newest, number)
    return {
        "follow_looks": looks,
        "follow_look_median_ms": 1000 * sorted(look)[looks // 2],
        "follow_open_median_seconds": sorted(opened)[looks // 2],
        "follow_open_worst_seconds": max(opened),
    }


def _grow(writer: LogWriter, shards: int, looks: int, entries: int) -> Iterator[int]:
    """Append entries, and say after every `entries` how many shards there are."""
    for number in range(shards, shards + looks * entries):
        writer.append(entry(number))
        if (number + 1 - shards) % entries == 0:
            yield number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_150)
    parser.add_argument("--looks", type=int, default=10, help="of the reader that follows")
    parser.add_argument("--folder", type=Path, help="measure the log that lies there; used by the command itself")
    parser.add_argument("--follow", action="store_true", help="as a reader; used by the command itself")
    given = parser.parse_args()
    if given.folder is not None:
        print(json.dumps(follow(given.folder, given.looks, 20) if given.follow else measure(given.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), given.entries)
        command = [sys.executable, "-m", "tests.bench.log", "--folder", folder, "--looks", str(given.looks)]
        found: dict[str, float] = {}
        for part in ([], ["--follow"]):
            made = subprocess.run([*command, *part], check=True, stdout=subprocess.PIPE, text=True)
            found |= json.loads(made.stdout)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

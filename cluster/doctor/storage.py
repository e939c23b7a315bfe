"""Checks of the storage that a run writes to: what `put_once` and the log rely on, tried for real.

Exclusive creation is what keeps two drivers apart and what makes a retry harmless. Storage that does not have it does
not say so: it overwrites.
"""

from __future__ import annotations

import contextlib
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.doctor.finding import Finding
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import DiffiiError

TRIES = 5
RACERS = 8
SLOW_SECONDS = 1.0
"""Median time of a small write or read. A log entry waits for one, and every chunk for several."""
CALL_SECONDS = 20
BACKENDS = (OSError, DiffiiError, RuntimeError, ValueError)
"""What fsspec's backends raise when storage refuses or does not answer."""


def check_storage(url: str, node: str = "") -> list[Finding]:
    """Write, read and race below `url`, and take it all away again."""
    try:
        storage = Storage(url)
    except DiffiiError as error:
        return [Finding("output", str(error), "install what opens it on every machine", node)]
    folder = f"{layout.OWN}/doctor-{secrets.token_hex(6)}"
    there = storage.is_local and Path(storage.path(layout.OWN)).exists()
    try:
        return _try(storage, folder, node)
    except BACKENDS as error:
        mend = (
            "let the role of this machine read, write, list and delete there; for a bucket, check its name and region"
        )
        return [Finding("output", f"{url}: {_line(error)}", mend, node)]
    finally:
        with contextlib.suppress(*BACKENDS):
            storage.fs.rm(storage.path(folder), recursive=True)
        if storage.is_local and not there:
            # Nothing is left of a place that was not there before.
            for path in (Path(storage.path(layout.OWN)), Path(storage.root)):
                with contextlib.suppress(OSError):
                    path.rmdir()


def _try(storage: Storage, folder: str, node: str) -> list[Finding]:
    writes: list[float] = []
    reads: list[float] = []
    for index in range(TRIES):
        name, data = f"{folder}/{index}", f"{index} {secrets.token_hex(8)}".encode()
        began = time.monotonic()
        if not _create(storage, name, data):
            return [Finding("output", f"a new name was refused at {storage.url}", "use another place", node)]
        written = time.monotonic()
        if storage.fs.cat_file(storage.path(name)) != data or str(index) not in storage.names(folder):
            mend = (
                "use storage that shows a write at once; S3, GCS, Azure and POSIX disks do, some caches in front do not"
            )
            return [Finding("output", f"a file at {storage.url} is not read as it was written", mend, node)]
        writes.append(written - began)
        reads.append(time.monotonic() - written)
    return [_latency(storage.url, writes, reads, node), _exclusive(storage, folder, node)]


def _latency(url: str, writes: list[float], reads: list[float], node: str) -> Finding:
    write, read = statistics.median(writes), statistics.median(reads)
    said = f"{url}: a write takes {write * 1000:.0f} ms, a read {read * 1000:.0f} ms"
    slow = max(write, read) > SLOW_SECONDS
    mend = "put the bucket into the region of the machines, or look at what lies between them" if slow else ""
    return Finding("output", said, mend, node)


def _exclusive(storage: Storage, folder: str, node: str) -> Finding:
    """Of several who create a name at once one must win, and a later one must change nothing."""
    name = f"{folder}/race"
    with ThreadPoolExecutor(RACERS) as threads:
        won = list(threads.map(lambda racer: _create(storage, name, f"racer {racer}".encode()), range(RACERS)))
    kept = storage.fs.cat_file(storage.path(name)).decode()
    late = _create(storage, name, b"late")
    if won.count(True) == 1 and not late and kept == f"racer {won.index(True)}" == storage.read(name).decode():
        return Finding("exclusive create", "one of eight writers wins", "", node)
    mend = (
        "two drivers would overwrite each other: use storage that knows conditional writes (S3's If-None-Match, GCS's "
        "generation match, Azure, or a disk with hard links)"
    )
    return Finding("exclusive create", f"{won.count(True) + late} of {RACERS + 1} writers of one name won", mend, node)


def _create(storage: Storage, name: str, data: bytes) -> bool:
    """`Storage.put_once` without its patience: a doctor wants to hear of a failure, not to outlast it."""
    if storage.is_local:
        return storage.put_once(name, data)
    try:
        storage.fs.pipe_file(storage.path(name), data, mode="create", timeout=CALL_SECONDS)
    except FileExistsError:
        return False
    return True


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

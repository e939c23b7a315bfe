"""What happened in one run with trouble, and whether its data set is that of a quiet one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import diffii
from diffii.errors import OutputError
from engine.verify import verify


@dataclass(kw_only=True)
class Tally:
    """Counts are of what really happened, not of what was meant to."""

    trouble: str
    seed: int
    starts: int = 0
    driver_kills: int = 0
    actor_kills: int = 0
    nodes_removed: int = 0
    nodes_drained: int = 0
    out_of_memory: int = 0
    disk_full: int = 0
    storage_failures: int = 0
    versions_read: int = 0
    kept: int = 0
    rejected: int = 0
    poisoned: int = 0
    digest_equal: bool = False
    shards_digest_equal: bool = False
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.digest_equal and self.shards_digest_equal and not self.problems

    def judge(self, out: str, quiet: str, reader: Reader) -> None:
        """Compare with the quiet run, and what a reader saw on the way with what there is now."""
        found, expected = verify(out), verify(quiet)
        self.kept, self.rejected, self.poisoned = found.kept, found.rejected, found.poisoned
        self.digest_equal = found.digest == expected.digest
        self.shards_digest_equal = found.shards_digest == expected.shards_digest
        self.problems += [*found.problems, *(f"orphan {name}" for name in found.orphans)]
        self.problems += reader.problems
        self.versions_read = len(reader.seen)
        final = diffii.open(out).column("sample_id").to_pylist()
        if len(set(final)) != len(final):
            self.problems.append("a row is there twice")
        for version, ids in reader.seen.items():
            if ids != final[: len(ids)] or len(diffii.open(out, version)) != len(ids):
                self.problems.append(f"a reader saw other rows at version {version}")


class Reader(threading.Thread):
    """Opens what is committed, over and over, and remembers the rows of every version it saw."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._done = url, threading.Event()
        self.seen: dict[int, list[str]] = {}
        self.problems: list[str] = []

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(0.5):
            try:
                snapshot = diffii.open(self._url)
                self.seen[snapshot.version] = snapshot.column("sample_id").to_pylist() if len(snapshot) else []
            except (OutputError, FileNotFoundError):
                continue  # not begun yet, or storage does not answer
            except Exception as error:  # noqa: BLE001
                # Raised in a thread, it would end the looking and fail nothing.
                self.problems.append(f"a reader failed: {error!r}")

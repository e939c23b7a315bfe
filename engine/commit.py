"""The committer: chunks come in any order, the log goes on in plan order (law 2).

It holds indices only. When the next chunks in order are staged it reads their signatures, decides every row, and once
`output.shard_rows` kept rows are decided hands the stretch of chunks to a packer, which writes the shard. Shards may be
packed in parallel, so a file may stand in `data/` before its entry; entries are appended one after another. A shard's
name and bytes follow from the plan, so a crash anywhere leaves files that the next run adopts.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from diffii.dataset import layout, log, staged
from diffii.dataset.storage import Storage
from diffii.errors import OutputError
from diffii.signatures import Signatures
from engine.append import LogWriter
from engine.counters import APPEND, DECIDE, PACK, Counters
from engine.near_copies import NearCopies
from engine.pack import PackOrder, published_already

Packer = Callable[[PackOrder], "Future[log.Shard]"]

_TOGETHER = 16
"""Chunks decided at once where so many are ready: one call for many rows costs less than many for few (a sixth less
at 10^5 accepted rows), and on an object store their signatures are read side by side."""


@dataclass(slots=True)
class _Stretch:
    """Decided chunks that are not in a shard yet."""

    first: int
    rows: int = 0
    lost: dict[str, dict[str, str]] = field(default_factory=dict)
    kept_per_class: Counter[str] = field(default_factory=Counter)
    fingerprints: set[str] = field(default_factory=set)

    @property
    def kept(self) -> int:
        return self.kept_per_class.total()


class Committer:
    """Commits one wave. `writer.history` says where the log stands."""

    def __init__(
        self,
        storage: Storage,
        writer: LogWriter,
        wave: int,
        chunks: int,
        *,
        shard_rows: int,
        classes: Sequence[str],
        extension: str,
        packer: Packer,
        near_copies: NearCopies | None = None,
        on_commit: Callable[[log.CommitEntry], None] = lambda entry: None,
        counters: Counters | None = None,
    ) -> None:
        self._storage, self._writer, self._wave, self._chunks = storage, writer, wave, chunks
        self._next, self._shards = writer.history.next_chunk(wave), len(writer.history.shards)
        self._shard_rows, self._classes, self._extension = shard_rows, tuple(classes), extension
        self._packer, self._on_commit = packer, on_commit
        self._near_copies, self._counters = near_copies, counters or Counters()
        self._waiting: list[int] = []
        self._stretch = _Stretch(self._next)
        self._packing: deque[tuple[log.CommitEntry, Future[log.Shard] | None]] = deque()

    @property
    def waiting(self) -> int:
        """Chunks that are staged and wait for an earlier one: the backlog behind the head of the line."""
        return len(self._waiting)

    def staged(self, *chunks: int) -> None:
        """Chunks are staged, each told once or again: decide what is decidable, append what has been packed."""
        for chunk in chunks:
            if chunk >= self._next:
                heapq.heappush(self._waiting, chunk)
        while ready := self._ready():
            with self._counters.timed(DECIDE):
                self._decide(ready)
        self._counters.chunks_waiting.set(self.waiting)
        while self._packing and _done(self._packing[0][1]):
            self._append()

    def finish(self) -> None:
        """Append everything; the wave's chunks must all have been staged. Raises OutputError when one is missing."""
        if self._next != self._chunks:
            raise OutputError(f"{self._storage.url}: chunk {self._next} of wave {self._wave} was never staged")
        if self._stretch.rows:
            self._close(self._next - 1)
        while self._packing:
            self._append()

    def _ready(self) -> list[int]:
        """The next chunks in order, if they are staged; a chunk told twice counts once."""
        ready: list[int] = []
        while self._waiting and len(ready) < _TOGETHER and self._waiting[0] <= self._next:
            if heapq.heappop(self._waiting) == self._next:
                ready.append(self._next)
                self._next += 1
        return ready

    def _decide(self, chunks: list[int]) -> None:
        read = [self._read(chunks[0])] if len(chunks) == 1 else self._read_together(chunks)
        copies = self._copies([row for rows, _ in read for row in rows])
        number = 0
        for chunk, (rows, fingerprint) in zip(chunks, read, strict=True):
            stretch = self._stretch
            stretch.fingerprints.add(fingerprint)
            for row in rows:
                outcome, reason = row["outcome"], row["reason"]
                if number in copies:
                    outcome, reason = staged.REJECTED, copies[number]
                if outcome == staged.KEPT:
                    stretch.kept_per_class[str(row["label"])] += 1
                else:
                    stretch.lost.setdefault(outcome, {})[str(stretch.rows)] = reason
                stretch.rows += 1
                number += 1
            if stretch.kept >= self._shard_rows:
                self._close(chunk)

    def _read_together(self, chunks: list[int]) -> list[tuple[list[dict[str, Any]], str]]:
        with ThreadPoolExecutor(len(chunks)) as pool:
            return list(pool.map(self._read, chunks))

    def _read(self, chunk: int) -> tuple[list[dict[str, Any]], str]:
        name = layout.staged_chunk(self._wave, chunk)
        try:
            table, fingerprint = self._storage.patiently(name, lambda: staged.read_signature(self._storage, name))
        except FileNotFoundError:
            raise published_already(self._storage.url, chunk) from None
        return table.to_pylist(), fingerprint

    def _copies(self, rows: list[dict[str, Any]]) -> dict[int, str]:
        """The rows that are near-copies, with the reason; the others join the index."""
        kept = [number for number, row in enumerate(rows) if row["outcome"] == staged.KEPT]
        if self._near_copies is None or not kept:
            return {}
        reasons = self._near_copies.decide(Signatures.from_rows(rows[number] for number in kept))
        return {number: reason for number, reason in zip(kept, reasons, strict=True) if reason is not None}

    def _close(self, last: int) -> None:
        stretch, self._stretch = self._stretch, _Stretch(last + 1)
        entry = log.CommitEntry(
            wave=self._wave,
            first=stretch.first,
            last=last,
            rows=stretch.rows,
            lost=stretch.lost,
            kept_per_class=dict(sorted(stretch.kept_per_class.items(), key=lambda item: int(item[0]))),
            fingerprints=sorted(stretch.fingerprints),
        )
        if not stretch.kept:
            self._packing.append((entry, None))
            return
        order = PackOrder(
            url=self._storage.url,
            index=self._shards,
            wave=self._wave,
            first=stretch.first,
            last=last,
            lost_rows=tuple(int(row) for rows in stretch.lost.values() for row in rows),
            classes=self._classes,
            extension=self._extension,
        )
        self._shards += 1
        began, packing = time.perf_counter(), self._packer(order)
        packing.add_done_callback(lambda done: self._counters.took(PACK, time.perf_counter() - began))
        self._packing.append((entry, packing))

    def _append(self) -> None:
        entry, future = self._packing.popleft()
        if future is not None:
            entry = log.with_shard(entry, future.result())
        with self._counters.timed(APPEND):
            self._writer.append(entry)
        self._counters.committed(entry, self._writer.history.version)
        for chunk in range(entry.first, entry.last + 1):
            self._storage.remove(layout.staged_chunk(self._wave, chunk))
        self._on_commit(entry)


def _done(future: Future[log.Shard] | None) -> bool:
    return future is None or future.done()

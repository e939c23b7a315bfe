"""The committer: chunks come in any order, the log goes on in plan order (law 2).

It holds indices only. When the next chunk in order is staged it reads that chunk's signatures, decides every row, and
once `output.shard_rows` kept rows are decided hands the stretch of chunks to a packer, which writes the shard. Shards
may be packed in parallel, so a file may stand in `data/` before its entry; entries are appended one after another. A
shard's name and bytes follow from the plan, so a crash anywhere leaves files that the next run adopts.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from diffii.dataset import layout, log, staged
from diffii.dataset.storage import Storage
from diffii.errors import FencedError, OutputError
from diffii.hashing import sha256
from diffii.signatures import Signatures
from engine.formats.parquet import write_shard
from engine.near_copies import NearCopies


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOrder:
    """Which rows of which staged chunks become which shard."""

    url: str
    name: str
    wave: int
    first: int
    last: int
    lost_rows: tuple[int, ...]
    classes: tuple[str, ...]
    extension: str


def pack(order: PackOrder) -> log.Shard:
    """Write one shard, or find it written. Raises OutputError when a different file has its name."""
    import pyarrow as pa

    storage = Storage(order.url)
    chunks = range(order.first, order.last + 1)
    rows = pa.concat_tables([staged.read_rows(storage, layout.staged_chunk(order.wave, k)) for k in chunks])
    lost = set(order.lost_rows)
    kept = rows.take([row for row in range(rows.num_rows) if row not in lost])
    data = write_shard(kept, order.classes, order.extension)
    if not storage.put_once(order.name, data) and storage.read(order.name) != data:
        raise OutputError(
            f"{order.url}/{order.name} exists and is not what this run would write there: "
            "it was made by another version, or by hand. Move it away and run the same command again"
        )
    return log.Shard(name=order.name, rows=kept.num_rows, bytes=len(data), sha256=sha256(data))


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


Packer = Callable[[PackOrder], "Future[log.Shard]"]


class Committer:
    """Commits one wave. `next_chunk`, `version` and `shards` say where the log stands."""

    def __init__(
        self,
        storage: Storage,
        wave: int,
        chunks: int,
        *,
        next_chunk: int,
        version: int,
        shards: int,
        shard_rows: int,
        classes: Sequence[str],
        extension: str,
        packer: Packer,
        near_copies: NearCopies | None = None,
        on_commit: Callable[[log.CommitEntry], None] = lambda entry: None,
    ) -> None:
        self._storage, self._wave, self._chunks = storage, wave, chunks
        self._next, self._version, self._shards = next_chunk, version, shards
        self._shard_rows, self._classes, self._extension = shard_rows, tuple(classes), extension
        self._packer, self._on_commit = packer, on_commit
        self._near_copies = near_copies
        self._waiting: list[int] = []
        self._stretch = _Stretch(next_chunk)
        self._packing: deque[tuple[log.CommitEntry, Future[log.Shard] | None]] = deque()

    def staged(self, chunk: int) -> None:
        """A chunk is staged: decide what has become decidable and append what has been packed."""
        if chunk >= self._next:
            heapq.heappush(self._waiting, chunk)
        while self._waiting and self._waiting[0] <= self._next:
            if heapq.heappop(self._waiting) == self._next:
                self._decide(self._next)
                self._next += 1
        while self._packing and _ready(self._packing[0][1]):
            self._append()

    def finish(self) -> None:
        """Append everything; the wave's chunks must all have been staged. Raises OutputError when one is missing."""
        if self._next != self._chunks:
            raise OutputError(f"{self._storage.url}: chunk {self._next} of wave {self._wave} was never staged")
        if self._stretch.rows:
            self._close(self._next - 1)
        while self._packing:
            self._append()

    def _decide(self, chunk: int) -> None:
        try:
            table, fingerprint = staged.read_signature(self._storage, layout.staged_chunk(self._wave, chunk))
        except FileNotFoundError:
            # Staged chunks go only when their entry is in the log, and this driver wrote none.
            raise FencedError(
                f"{self._storage.url}: another process commits this run and has published chunk {chunk} already; "
                "this one stops and has lost nothing"
            ) from None
        stretch = self._stretch
        stretch.fingerprints.add(fingerprint)
        rows = table.to_pylist()
        copies = self._copies(rows)
        for number, row in enumerate(rows):
            outcome, reason = (staged.REJECTED, copies[number]) if number in copies else (row["outcome"], row["reason"])
            if outcome == staged.KEPT:
                stretch.kept_per_class[str(row["label"])] += 1
            else:
                stretch.lost.setdefault(outcome, {})[str(stretch.rows)] = reason
            stretch.rows += 1
        if stretch.kept >= self._shard_rows:
            self._close(chunk)

    def _copies(self, rows: list[dict[str, Any]]) -> dict[int, str]:
        """The rows of a chunk that are near-copies, with the reason; the others join the index."""
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
            name=layout.shard(self._shards),
            wave=self._wave,
            first=stretch.first,
            last=last,
            lost_rows=tuple(int(row) for rows in stretch.lost.values() for row in rows),
            classes=self._classes,
            extension=self._extension,
        )
        self._shards += 1
        self._packing.append((entry, self._packer(order)))

    def _append(self) -> None:
        entry, future = self._packing.popleft()
        if future is not None:
            entry = log.with_shard(entry, future.result())
        append(self._storage, self._version, entry)
        self._version += 1
        for chunk in range(entry.first, entry.last + 1):
            self._storage.remove(layout.staged_chunk(self._wave, chunk))
        self._on_commit(entry)


def append(storage: Storage, version: int, entry: log.Entry) -> None:
    """Write log entry `version`. Raises FencedError when another driver has: from there on it owns the run."""
    if not storage.put_once(layout.log_entry(version), log.encode(entry)):
        raise FencedError(
            f"{storage.url}: another process wrote log entry {version} first and goes on with this run; "
            "this one stops and has lost nothing"
        )


def _ready(future: Future[log.Shard] | None) -> bool:
    return future is None or future.done()

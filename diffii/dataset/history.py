"""What a log adds up to: small whatever its length, and the same whether it was read at once or grew entry by entry.

Of a commit only its sums and its shard are kept here; what became of each row is read again where it is asked for
(`iter_entries`): a run of 10^8 rows has a log of gigabytes.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from diffii.dataset import layout, log
from diffii.dataset.checkpoints import read_checkpoint, read_entries, read_summed
from diffii.dataset.layout import LOG_FOLDER, LOG_PAGE
from diffii.dataset.log_table import Sums, from_table, sums_of
from diffii.dataset.shards import COLUMNS, Shards
from diffii.dataset.storage import Storage
from diffii.errors import OutputError


class History:
    """A log up to `version`; empty, with version -1, when there is none."""

    def __init__(self) -> None:
        self.version = -1
        self.opening: log.OpenEntry | None = None
        self.waves: list[log.WaveEntry] = []
        self.growths: list[log.GrowthEntry] = []
        self.calibration: log.CalibrationEntry | None = None
        self.shards = Shards()
        self.rows = self.bytes = self.commits = 0
        self.kept_per_class: Counter[int] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()
        """(outcome, reason) -> rows."""
        self.fingerprints: set[str] = set()
        self.in_checkpoints = 0
        """Entries that were read from checkpoints; the ones after them had to be read one by one."""
        self._decided: dict[int, int] = {}

    def add(self, entry: log.Entry) -> None:
        """The log has grown by this entry."""
        self.version += 1
        if isinstance(entry, log.OpenEntry):
            self.opening = entry
        elif isinstance(entry, log.WaveEntry):
            self.waves.append(entry)
        elif isinstance(entry, log.GrowthEntry):
            self.growths.append(entry)
        elif isinstance(entry, log.CalibrationEntry):
            self.calibration = entry
        else:
            self.rows += entry.rows
            self.commits += 1
            self.kept_per_class.update({int(label): kept for label, kept in entry.kept_per_class.items()})
            for outcome, rows in entry.lost.items():
                self.lost.update((outcome, reason) for reason in rows.values())
            self.fingerprints.update(entry.fingerprints)
            self._decided[entry.wave] = entry.last + 1
            if entry.shard is not None:
                self.shards.append(entry.shard)
                self.bytes += entry.shard.bytes

    def add_table(self, table: pa.Table, sums: Sums | None = None) -> None:
        """The log has grown by the entries of a checkpoint, whose sums may be known."""
        sums = sums or sums_of(table)
        for text in table["other"].drop_null().to_pylist():
            self.add(log.decode(text.encode(), "an entry of a checkpoint"))
        self.version += sums.commits
        self.commits += sums.commits
        self.rows += sums.rows
        self.kept_per_class.update({int(label): kept for label, kept in sums.kept.items()})
        self.lost.update({(outcome, reason): rows for outcome, reason, rows in sums.lost})
        self.fingerprints.update(sums.fingerprints)
        self._decided.update({int(wave): chunk for wave, chunk in sums.decided.items()})
        published = table.select(COLUMNS).filter(table["shard"].is_valid())
        if published.num_rows:
            self.bytes += int(published["shard_bytes"].to_numpy().sum())
            self.shards.append_table(published)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names behind the labels; those of a class that came later come last."""
        return self.classes_of_shard(len(self.shards))

    def classes_of_shard(self, number: int) -> tuple[str, ...]:
        """The classes as of the time when a shard was written."""
        season = bisect.bisect_right([growth.shards for growth in self.growths], number)
        newest = self.growths[season - 1] if season else self.opening
        return tuple(newest.classes) if newest is not None else ()

    def season(self, wave: int) -> int:
        """How often the source had grown when a wave began."""
        return bisect.bisect_right([growth.waves for growth in self.growths], wave)

    @property
    def kept(self) -> int:
        return self.kept_per_class.total()

    def count(self, outcome: str) -> int:
        """Rows that ended `rejected` or `poisoned`."""
        return sum(rows for (kind, _), rows in self.lost.items() if kind == outcome)

    @property
    def complete(self) -> bool:
        """Whether everything that the last wave's targets call for is decided, within its limits: the log is at rest
        until somebody asks for more."""
        if not self.waves or any(growth.waves == len(self.waves) for growth in self.growths[-1:]):
            return False  # a growth of the source is followed by a wave in any case
        last, planned = self.waves[-1], sum(sum(wave.stops) - sum(wave.starts) for wave in self.waves)
        ends = enumerate(zip(last.targets, last.stops, last.limits, strict=True))
        refill = any(self.kept_per_class[label] < wanted and stop < limit for label, (wanted, stop, limit) in ends)
        return self.rows == planned and not refill

    def next_chunk(self, wave: int) -> int:
        """The first chunk of a wave that no entry decides."""
        return self._decided.get(wave, 0)


def read_log(storage: Storage, version: int | None = None) -> History:
    """The log up to `version` (the newest by default).

    Raises OutputError when an entry is damaged, or missing below a later one, or when there is no such version.
    """
    history = History()
    for part in _parts(storage, version, summed=True):
        if isinstance(part, list):
            for entry in part:
                history.add(entry)
        else:
            history.add_table(*(part if isinstance(part, tuple) else (part,)))
            history.in_checkpoints = history.version + 1
    return history


def iter_entries(storage: Storage, version: int | None = None) -> Iterator[log.Entry]:
    """Every entry up to `version`, oldest first, a few thousand in memory at a time. Raises as `read_log` does."""
    for part in _parts(storage, version):
        if isinstance(part, list):
            yield from part
        elif isinstance(part, pa.Table):
            yield from from_table(part)


def newest_version(storage: Storage, version: int | None = None) -> int:
    """The newest version, -1 without a log: two listings.

    Raises OutputError when an entry is missing below a later one; below `version` only, if given.
    """
    folders = sorted(int(name) for name in storage.names(layout.LOG) if name.isdigit())
    if not folders:
        return -1
    first = folders[-1] * LOG_FOLDER
    names = storage.names(layout.log_folder(first))
    numbers = [int(name.removesuffix(".json")) for name in names if name.endswith(".json") and name[0].isdigit()]
    listed = set(numbers)
    for expected in range(first, max(numbers, default=first)):
        if expected in listed or (version is not None and version < expected):
            continue
        # A listing of a disk may pass over an entry that was written during it, and yet show the next one.
        if storage.read_or_none(layout.log_entry(expected)) is None:
            raise OutputError(f"{storage.url}: log entry {expected} is missing; restore it from a copy")
    return max(numbers, default=first - 1)


_Part = pa.Table | tuple[pa.Table, Sums] | list[log.Entry]


def _parts(storage: Storage, version: int | None, summed: bool = False) -> Iterator[_Part]:
    """The log up to a version in parts: of checkpoints the entries, or if `summed` narrow columns and sums."""
    newest = newest_version(storage, version)
    if version is None:
        version = newest
    elif not 0 <= version <= newest:
        raise OutputError(f"{storage.url} has no version {version}; its versions are 0 to {newest}")
    for first in range(0, version + 1, LOG_FOLDER):
        stop = min(first + LOG_FOLDER, version + 1)
        name, closed = layout.log_folder_checkpoint(first), first + LOG_FOLDER <= newest + 1
        if closed and summed and stop - first == LOG_FOLDER and (sums := read_summed(storage, name, LOG_FOLDER)):
            yield sums
        elif closed and (whole := read_checkpoint(storage, name, LOG_FOLDER)) is not None:
            yield whole.slice(0, stop - first)
        else:
            yield from _pages(storage, first, stop)


def _pages(storage: Storage, first: int, stop: int) -> Iterator[_Part]:
    there = set(storage.names(layout.log_folder(first)))
    for start in range(first, stop, LOG_PAGE):
        end = min(start + LOG_PAGE, stop)
        name = layout.log_checkpoint(start)
        page = read_checkpoint(storage, name, LOG_PAGE) if name.rsplit("/", 1)[-1] in there else None
        if page is None:
            yield read_entries(storage, range(start, end))
        else:
            yield page.slice(0, end - start)

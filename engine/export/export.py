"""`export`: a finished or growing data set in another format, as of the newest log version; again: only what is new.

A copy has no state but its files: which parts are there is told by their records, and what their bytes are by the
committed shards they are made of. So it may be killed anywhere, go on from another machine, or run beside the driver.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffii.dataset import layout
from diffii.dataset.storage import TEMPORARY, Storage
from diffii.errors import ConfigError, OutputError
from diffii.images import extension
from engine.export.card import copy_card
from engine.export.orders import Orders
from engine.export.parts import PartOrder, make_part, part_of, read_records
from engine.export.settings import PARTS, Settings, open_copy, settings_of
from engine.formats.catalog import FORMATS
from engine.formats.part import Origin, Records
from engine.prepare import load_run
from engine.progress import Progress, Silent
from engine.run import Run

WORKERS = 2
"""Parts made at once: each holds one shard's images twice, which may be a gigabyte."""
STALE_SECONDS = 3600.0
"""No file takes so long to write."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has done, and what the copy is now."""

    url: str
    version: int
    """Log version of the data set that it holds."""
    rows: int
    new_rows: int
    parts: int
    new_parts: int
    usage: str


class Export:
    """One copy of a run at `url`, with the `settings` it is made by; `source` says where the real images are."""

    def __init__(self, run: Run, url: str, settings: Settings, source: str = "") -> None:
        self._run, self._settings, self._storage = run, settings, Storage(url)
        self._format, self._orders = FORMATS[settings.format], Orders(run, self._storage.url, settings, source)

    @property
    def url(self) -> str:
        return self._storage.url

    def begin(self) -> None:
        """Open the copy, or find it opened; its card stands before its first part. Raises OutputError."""
        open_copy(self._storage, self._run, self._settings)
        self._sweep()
        if layout.CARD not in self._storage.names():
            self._put_card([])

    def _sweep(self) -> None:
        """Remove what an export that died was writing; what is younger may be the work of one that is alive."""
        if not self._storage.is_local:
            return
        for name, _ in self._storage.find(""):
            if name.rpartition("/")[2].startswith(TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - Path(self._storage.path(name)).stat().st_mtime > STALE_SECONDS:
                        self._storage.remove(name)

    def missing(self, origins: Sequence[Origin] = ("real", "data")) -> list[PartOrder]:
        """What is to be made for the log as it stands, in order."""
        there = self._there()
        counts = {"real": self._orders.real, "data": self._orders.data}
        return [
            self._orders.of(origin, number)
            for origin in origins
            for number in range(counts[origin])
            if (origin, number) not in there
        ]

    def order(self, number: int) -> PartOrder:
        """To make the part of one published shard."""
        return self._orders.of("data", number)

    def finish(self) -> Exported:
        """Bring the index and the card up to the parts that are there, up to the first that is missing.

        Raises OutputError when a part was made of other rows than the log names.
        """
        records: list[dict[str, Any]] = []
        # Another export may write a newer index meanwhile, and this one an older over it; so look again afterwards.
        while len(parts := self._whole()) > len(records) or not records:
            records = read_records(self._storage, parts)
            self._refuse_other_rows(records)
            facts = [record["facts"] for record in records]
            found = Records(storage=self._storage, facts=facts, classes=self._run.source.classes)
            for name, data in self._format.index(found):
                self._storage.put(name, data)
            self._put_card(records)
            if not parts:
                break
        return Exported(
            url=self.url,
            version=self._run.history.version,
            rows=sum(record["rows"] for record in records),
            new_rows=0,
            parts=len(records),
            new_parts=0,
            usage=self._format.usage(self.url, extension(self._settings.encoding)),
        )

    # -- parts ------------------------------------------------------------------------------------------------------

    def _there(self) -> set[tuple[Origin, int]]:
        names = self._storage.names(PARTS)
        return {part for name in names if (part := part_of(name)) is not None}

    def _whole(self) -> list[tuple[Origin, int]]:
        """The parts that are there, up to the first that is missing, whatever version wrote them."""
        there, found = self._there(), []
        for number in range(self._orders.real):
            if ("real", number) not in there:
                return found
            found.append(("real", number))
        while ("data", len(found) - self._orders.real) in there:
            found.append(("data", len(found) - self._orders.real))
        return found

    def _refuse_other_rows(self, records: list[dict[str, Any]]) -> None:
        shards = self._run.history.shards
        for record in records:
            number = record["number"]
            if record["origin"] == "data" and number < len(shards) and record["of"] != shards[number].sha256:
                raise OutputError(
                    f"{self.url} was exported from another making of {self._run.storage.url}: its part {number} holds "
                    "other rows. Export to a new place"
                )

    def _put_card(self, records: list[dict[str, Any]]) -> None:
        self._storage.put(layout.CARD, copy_card(self._run, self.url, self._settings, records).encode())


def export(
    url: str,
    destination: str,
    format: str,
    encoding: str = "",
    quality: int | None = None,
    include_real: bool = False,
    source: str = "",
    progress: Progress | None = None,
) -> Exported:
    """Write what `destination` lacks of the data set at `url`, as of its newest version.

    `encoding` and `quality` default to what the images have. `source` says where the real images are, if not where they
    were. Raises OutputError, ConfigError, or SourceError where a real image has changed.
    """
    progress = progress or Silent()
    run = load_run(url)
    copy = Export(run, destination, settings_of(run.config.output, format, encoding, quality, include_real), source)
    if copy.url == run.storage.url:
        raise ConfigError(f"{destination} is the data set itself; export to another place")
    copy.begin()
    orders, new = copy.missing(), 0
    if orders:
        progress.stage("export", len(orders), 0, "shards")
    with ThreadPoolExecutor(WORKERS) as pool:
        for record in pool.map(make_part, orders):
            new += record["rows"]
            progress.advance(1)
    return replace(copy.finish(), new_rows=new, new_parts=len(orders))

"""`export`: a finished or growing data set in another format, as of the newest log version; again: only what is new.

A copy has no state but its files: which parts are there is told by their records, and what their bytes are by the
committed shards they are made of. So it may be killed anywhere, go on from another machine, or run beside the driver.
"""

from __future__ import annotations

import bisect
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffii.dataset import layout
from diffii.dataset.storage import TEMPORARY, Storage
from diffii.errors import ConfigError, OutputError
from diffii.images import extension
from engine.card import Shape, data_set_card
from engine.card_of_run import counts, features_of, origin_of
from engine.export.parts import PartOrder, make_part, part_of, read_records
from engine.export.settings import PARTS, Settings, open_copy, settings_of
from engine.formats.catalog import FORMATS
from engine.formats.parquet import Parquet
from engine.formats.part import Origin, Records
from engine.licences import stated_licences
from engine.origin import source_url
from engine.prepare import load_run
from engine.progress import Progress, Silent
from engine.prompts import plain_prompt
from engine.run import Run
from engine.seasons import source_of

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
        self._format = FORMATS[settings.format]
        self._source_url = source_url(run, source) if settings.include_real else ""
        self._captions = tuple(plain_prompt(run.config, name) for name in run.source.classes)

    @property
    def url(self) -> str:
        return self._storage.url

    def begin(self) -> None:
        """Open the copy, or find it opened; its card stands before its first part. Raises OutputError."""
        open_copy(self._storage, self._run, self._settings)
        self._sweep()
        if layout.CARD not in self._storage.names():
            self._write_card([])

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
        counts = {"real": self._real_parts, "data": len(self._run.history.shards)}
        return [
            self._order(origin, number)
            for origin in origins
            for number in range(counts[origin])
            if (origin, number) not in there
        ]

    def order(self, number: int) -> PartOrder:
        """To make the part of one published shard."""
        return self._order("data", number)

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
            self._write_card(records)
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

    @property
    def _real_parts(self) -> int:
        return len(self._stretches) if self._settings.include_real else 0

    def _there(self) -> set[tuple[Origin, int]]:
        names = self._storage.names(PARTS)
        return {part for name in names if (part := part_of(name)) is not None}

    def _whole(self) -> list[tuple[Origin, int]]:
        """The parts that are there, up to the first that is missing, whatever version wrote them."""
        there, found = self._there(), []
        for number in range(self._real_parts):
            if ("real", number) not in there:
                return found
            found.append(("real", number))
        while ("data", len(found) - self._real_parts) in there:
            found.append(("data", len(found) - self._real_parts))
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

    @property
    def _size(self) -> int:
        return self._run.config.output.shard_rows

    @cached_property
    def _stretches(self) -> list[slice]:
        """The real images of each part. What a source has gained begins a part: those that are there stay."""
        ends = [*(growth.before for growth in self._run.history.growths), len(self._run.source.images)]
        starts = [0, *ends[:-1]]
        return [
            slice(first, min(first + self._size, end))
            for start, end in zip(starts, ends, strict=True)
            for first in range(start, end, self._size)
        ]

    @cached_property
    def _ordinals(self) -> list[int]:
        """Of each real image its number within its class."""
        seen = Counter[int]()
        found: list[int] = []
        for image in self._run.source.images:
            found.append(seen[image.label])
            seen[image.label] += 1
        return found

    def _order(self, origin: Origin, number: int) -> PartOrder:
        run = self._run
        order = PartOrder(
            url=run.storage.url,
            destination=self.url,
            settings=self._settings,
            origin=origin,
            number=number,
            classes=run.source.classes,
            captions=self._captions,
        )
        if origin == "data":
            # As the shard names them: whether a part is made at once or later, its bytes are the same.
            shard, classes = run.history.shards[number], run.history.classes_of_shard(number)
            return replace(order, classes=classes, shard=shard.name, sha256=shard.sha256)
        stretch = self._stretches[number]
        season = bisect.bisect_right([growth.before for growth in run.history.growths], stretch.start)
        order = replace(order, classes=source_of(run.history, run.source, season).classes)
        return replace(
            order,
            source_url=self._source_url,
            images=run.source.images[stretch],
            ordinals=tuple(self._ordinals[stretch]),
            soft=run.plan.arm.takes == "latents",
        )

    # -- the card ---------------------------------------------------------------------------------------------------

    def _write_card(self, records: list[dict[str, Any]]) -> None:
        run, settings = self._run, self._settings
        told, origin = counts(run), origin_of(run)
        stated = stated_licences(run.storage.read_or_none(layout.CARD))
        origin = replace(origin, licences=stated or origin.licences)
        rows = sum(record["rows"] for record in records if record["origin"] == "data")
        shards = sum(record["origin"] == "data" for record in records)
        whole = shards == told.shards
        told = replace(
            told,
            rows=rows,
            shards=shards,
            content=f"{told.content} {shards}",
            complete=run.history.complete and whole,
            per_class=told.per_class if whole else {},
        )
        patterns = self._format.patterns
        real = settings.include_real and any(record["origin"] == "real" for record in records)
        shape = Shape(
            format=settings.format,
            patterns=[patterns[part] for part in ("data", "real") if part in patterns and (part == "data" or real)],
            settings={
                "output.format": settings.format,
                "output.encoding": settings.encoding,
                "output.quality": settings.quality,
            },
            features=features_of(run) if settings.format == Parquet.name else (),
            include_real=settings.include_real,
            usage=self._format.usage(self.url, extension(settings.encoding)),
            contact_sheet=False,
        )
        card = data_set_card(
            run.source.classes, run.config, told, replace(origin, licences=stated or origin.licences), shape
        )
        self._storage.put(layout.CARD, card.encode())


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

"""The card of a copy: what the data set's own card says, of the parts that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diffii.dataset import layout
from diffii.images import extension
from engine.card import Shape, data_set_card
from engine.card_of_run import counts, features_of, origin_of
from engine.export.settings import Settings
from engine.formats.catalog import FORMATS
from engine.formats.parquet import Parquet
from engine.licences import stated_licences
from engine.run import Run


def copy_card(run: Run, url: str, settings: Settings, records: Sequence[dict[str, Any]]) -> str:
    """The README of the copy of a run at `url`, whose parts have such records."""
    made = FORMATS[settings.format]
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
    patterns = made.patterns
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
        usage=made.usage(url, extension(settings.encoding)),
        contact_sheet=False,
    )
    return data_set_card(run.source.classes, run.config, told, origin, shape)

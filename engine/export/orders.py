"""The parts of a copy: how many there are to be, and what each is made of.

A part holds one published shard, or a stretch of the real images. What it is made of follows from the log and the
source alone, so that whoever makes it, and whenever, makes the same bytes.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import replace
from functools import cached_property

from engine.export.parts import PartOrder
from engine.export.settings import Settings
from engine.formats.part import Origin
from engine.origin import source_url
from engine.prompts import plain_prompt
from engine.run import Run
from engine.seasons import source_of


class Orders:
    """Of one copy of a run at `url`; `source` says where the real images are."""

    def __init__(self, run: Run, url: str, settings: Settings, source: str = "") -> None:
        self._run, self._url, self._settings = run, url, settings
        self._source_url = source_url(run, source) if settings.include_real else ""
        self._captions = tuple(plain_prompt(run.config, name) for name in run.source.classes)

    @property
    def real(self) -> int:
        """Parts of real images."""
        return len(self._stretches) if self._settings.include_real else 0

    @property
    def data(self) -> int:
        """Parts of synthetic ones, for the log as it stands."""
        return len(self._run.history.shards)

    def of(self, origin: Origin, number: int) -> PartOrder:
        """What one part is made of."""
        run = self._run
        order = PartOrder(
            url=run.storage.url,
            destination=self._url,
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

    @cached_property
    def _stretches(self) -> list[slice]:
        """The real images of each part. What a source has gained begins a part: those that are there stay."""
        ends = [*(growth.before for growth in self._run.history.growths), len(self._run.source.images)]
        starts, size = [0, *ends[:-1]], self._run.config.output.shard_rows
        return [
            slice(first, min(first + size, end))
            for start, end in zip(starts, ends, strict=True)
            for first in range(start, end, size)
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

"""The plan: every sample exists as a row before a model loads (law 1).

Rows of a class are numbered by `ordinal`, without end. A *wave* is a stretch of ordinals per class, whose rows stand in
the order of `engine.wave_order` and are cut into chunks. Everything here is a pure function of configuration and
source: any chunk of any plan is computed alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from diffii import strata
from diffii.arms import ARMS, Knobs
from diffii.dataset.log import WaveEntry
from diffii.hashing import digest, seed64
from diffii.images import named
from engine.cache_keys import LATENTS_STORED, CacheKeys
from engine.config import Config
from engine.growth import Growth, Turn, last_turn
from engine.learned import Learned
from engine.prompts import plain_prompt
from engine.row import CHUNK_SCHEMA, Inversion, Row, chunk_record
from engine.source import Source, SourceImage
from engine.targets import limits, targets
from engine.wave_order import WaveOrder


class Plan:
    """All rows that a configuration (resolved), a source and a model's weights stand for.

    `weights` and `embedder` are digests: what the two models are, wherever they lie; `embedder` is "" without one.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        weights: str,
        embedder: str = "",
        learned: Learned | None = None,
        growths: Sequence[Growth] = (),
    ) -> None:
        self.config, self.source, self.weights, self.embedder = config, source, weights, embedder
        self.learned = learned or Learned(suffixes=tuple(config.prompts.suffixes))
        self.growths = tuple(growths)
        self.arm = ARMS[config.arm.name]
        self._knobs = Knobs(strengths=tuple(config.arm.strength), gamma=config.arm.gamma)
        self._keys = CacheKeys(config, weights, embedder)
        self._sizes = tuple(len(images) for images in source.by_class)
        self._order = WaveOrder(self._sizes)

    def targets(self) -> list[int]:
        """Synthetic rows wanted per class (`engine.targets`). Raises ConfigError when that is none at all."""
        return targets(self.config.expansion, self._sizes, [growth.images for growth in self.growths])

    def limits(self) -> list[int]:
        """Ordinals per class that may be tried for them. Raises ConfigError as `targets` does."""
        return limits(self.config.expansion, self.targets())

    def beyond(self, targets: Sequence[int]) -> WaveEntry:
        """A wave of what is wanted beyond some targets, to be counted: which ordinals it will have the log decides."""
        wanted = self.targets()
        before = [*targets, *[0] * (len(wanted) - len(targets))]
        return WaveEntry(wave=0, starts=before, stops=wanted, targets=wanted, limits=self.limits())

    # -- rows and chunks of a wave --------------------------------------------------------------------------------

    def row_count(self, wave: WaveEntry) -> int:
        return sum(stop - start for start, stop in zip(wave.starts, wave.stops, strict=True))

    def chunk_count(self, wave: WaveEntry) -> int:
        return -(-self.row_count(wave) // self.config.commit.chunk_size)

    def chunk(self, wave: WaveEntry, index: int) -> list[Row]:
        """The rows of one chunk, in plan order. Raises IndexError outside the wave."""
        size = self.config.commit.chunk_size
        return self.rows(wave, index * size, min((index + 1) * size, self.row_count(wave)))

    def rows(self, wave: WaveEntry, first: int, last: int) -> list[Row]:
        """Rows [first, last) of a wave. Raises IndexError outside the wave."""
        runs = self._order.runs(wave, first, last)
        return [self.row(label, ordinal) for label, ordinals in runs for ordinal in ordinals]

    def labels(self, wave: WaveEntry, first: int, last: int) -> np.ndarray:
        """The classes of rows [first, last) of a wave, without making the rows: int64. Raises IndexError."""
        runs = [(label, len(ordinals)) for label, ordinals in self._order.runs(wave, first, last)]
        return np.repeat(*np.array(runs, dtype=np.int64).T)

    def table(self, wave: WaveEntry, chunks: Iterable[int]) -> pa.Table:
        """What the stream carries: one Arrow row per chunk."""
        records = [chunk_record(wave.wave, index, self.chunk(wave, index)) for index in chunks]
        return pa.Table.from_pylist(records, schema=CHUNK_SCHEMA)

    # -- one row --------------------------------------------------------------------------------------------------

    def row(self, label: int, ordinal: int) -> Row:
        """The row of a class with a given ordinal, from 0 without end."""
        name = self.source.classes[label]
        seed = self.config.expansion.seed
        spread = seed64(seed, name, "strata")
        number, old = self._turn(label).place(ordinal)
        draw = self.arm.draw(self._sizes, label, number, spread, self._knobs, old)
        parents = [self.source.by_class[of][index] for of, index in draw.parents]
        parent_a, parent_b = ([image.sha256 for image in parents] + ["", ""])[:2]
        inversion_a, inversion_b = ([self.inversion_key(image) for image in parents] + ["", ""])[:2]
        suffixes = self.learned.suffixes if self.arm.prompts != "plain" else ()
        suffix = suffixes[strata.choice(len(suffixes), ordinal, spread)] if suffixes else ""
        plain = self._prompts[label]
        with_suffix = f"{plain} {suffix}".strip()
        recipe = {
            **self._shared_recipe,
            "class": name,
            "concepts": self.learned.concepts_of(name),
            "ordinal": ordinal,
            "parent_a": parent_a,
            "parent_b": parent_b,
            "phi": draw.phi,
            "seed": seed64(seed, name, ordinal, "noise"),
            "prompt": plain,
            "suffix": suffix,
        }
        if len(parents) == 2:
            recipe["partner"] = "diffused" if parent_a == parent_b else "image"
        source_label = draw.parents[0][0] if len(parents) == 1 else label
        if self.arm.takes == "latents":
            source = self.source.classes[source_label]
            recipe |= {"strength": draw.strength, "source_class": source, "label_weight": draw.label_weight}
        return Row(
            sample_id=digest(recipe)[:32],
            label=label,
            ordinal=ordinal,
            parent_a=parent_a,
            parent_b=parent_b,
            phi=draw.phi,
            suffix=suffix,
            seed=recipe["seed"],
            plain_prompt=with_suffix if self.arm.prompts == "suffix" else plain,
            suffix_prompt=with_suffix,
            inversion_a=inversion_a,
            inversion_b=inversion_b,
            recipe=json.dumps(recipe, sort_keys=True, ensure_ascii=False),
            strength=draw.strength,
            source_label=source_label,
            label_weight=draw.label_weight,
        )

    def _turn(self, label: int) -> Turn:
        if label not in self._turns:
            self._turns[label] = last_turn(self.growths, self._sizes, label)
        return self._turns[label]

    @cached_property
    def _turns(self) -> dict[int, Turn]:
        return {}

    @cached_property
    def _shared_recipe(self) -> dict[str, Any]:
        config = self.config
        inversion = config.inversion.named() if self.arm.takes == "inversions" else None
        return {
            **named(config.source.fit),
            **({} if self.arm.takes == "nothing" else {"latents": LATENTS_STORED}),
            "kind": self.arm.name,
            "weights": self.weights,
            "dtype": config.backbone.dtype,
            **({"compiled": True} if config.backbone.compile else {}),
            "inversion": inversion,
            "generation": config.generation.named(),
        }

    @cached_property
    def _prompts(self) -> list[str]:
        return [plain_prompt(self.config, name, self.learned.names.get(name)) for name in self.source.classes]

    # -- what is taken of the source's images ---------------------------------------------------------------------

    def inversion_key(self, image: SourceImage) -> str:
        """Where what the arm takes of an image is stored; "" if it takes nothing."""
        if self.arm.takes == "nothing":
            return ""
        if self.arm.takes == "latents":
            return self._keys.latent(image)
        return self._keys.inversion(
            image, self._prompts[image.label], self.learned.concepts_of(self.source.classes[image.label])
        )

    def signature_key(self, image: SourceImage) -> str:
        """Where a real image's signature is stored, held-out images included; "" when no embedder is configured."""
        return self._keys.signature(image)

    def inversions(self) -> list[Inversion]:
        """Every image of the source, to be inverted once; or encoded, or neither, as the arm wants it."""
        return [
            Inversion(self.inversion_key(image), image.where, image.sha256, self._prompts[image.label])
            for image in self.source.images
        ]

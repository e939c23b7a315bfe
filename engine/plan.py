"""The plan: every sample exists as a row before a model loads (law 1).

Rows of a class are numbered by `ordinal`, without end. A *wave* is a stretch of ordinals per class; its rows stand in
the order (pass, class, ordinal), pass = ordinal // images of the class, and are cut into chunks. Everything here is a
pure function of configuration and source: any chunk of any plan is computed alone, by binary search over the passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from diffii import strata
from diffii.arms import ARMS, Knobs
from diffii.dataset.log import WaveEntry
from diffii.hashing import digest, seed64
from diffii.images import named
from engine.config import OFF, Config
from engine.growth import Growth, Turn, last_turn
from engine.learned import Learned
from engine.prompts import plain_prompt
from engine.source import Source, SourceImage
from engine.targets import limits, targets

LATENTS_STORED = 2
"""How latents and inversions lie in their files: 2, in their order. Until then a model that computes with channels
last, as the autoencoder does, had them stored in the order of its memory, and rows began from scattered numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image to be."""

    sample_id: str
    label: int
    ordinal: int
    parent_a: str
    parent_b: str
    phi: float
    suffix: str
    seed: int
    plain_prompt: str
    suffix_prompt: str
    inversion_a: str
    inversion_b: str
    recipe: str
    strength: float = 1.0
    source_label: int
    """Class of the image that is edited, where one is; else the row's own."""
    label_weight: float = 1.0
    """Weight of `label`; the rest is `source_label`'s."""


@dataclass(frozen=True, slots=True)
class Inversion:
    """One image to invert: where it is, the prompt to invert under, and the cache key of the result.

    An empty key asks for nothing. Where the arm takes latents alone, the image is encoded and the prompt is not used.
    """

    key: str
    where: str
    sha256: str
    prompt: str


CHUNK_SCHEMA = pa.schema(
    [("wave", pa.int32()), ("chunk", pa.int64())]
    + [(name, pa.list_(pa.string())) for name in ("sample_id", "parent_a", "parent_b", "suffix", "plain_prompt")]
    + [(name, pa.list_(pa.string())) for name in ("suffix_prompt", "inversion_a", "inversion_b", "recipe")]
    + [("label", pa.list_(pa.int64())), ("ordinal", pa.list_(pa.int64()))]
    + [("phi", pa.list_(pa.float64())), ("seed", pa.list_(pa.uint64()))]
    + [("strength", pa.list_(pa.float64())), ("source_label", pa.list_(pa.int64()))]
    + [("label_weight", pa.list_(pa.float64()))]
)  # fmt: skip


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
        self._sizes = tuple(len(images) for images in source.by_class)
        self._images = np.array([len(images) for images in source.by_class], dtype=np.int64)

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
        return [self.row(label, ordinal) for label, ordinals in self._runs(wave, first, last) for ordinal in ordinals]

    def labels(self, wave: WaveEntry, first: int, last: int) -> np.ndarray:
        """The classes of rows [first, last) of a wave, without making the rows: int64. Raises IndexError."""
        runs = [(label, len(ordinals)) for label, ordinals in self._runs(wave, first, last)]
        return np.repeat(*np.array(runs, dtype=np.int64).T)

    def _runs(self, wave: WaveEntry, first: int, last: int) -> Iterator[tuple[int, range]]:
        """Rows [first, last) of a wave as (label, consecutive ordinals), in plan order."""
        starts, stops = np.array(wave.starts), np.array(wave.stops)
        total = int((stops - starts).sum())
        if not 0 <= first < last <= total:
            raise IndexError(f"rows {first}..{last} of a wave of {total}")
        left = last - first
        turn, position = self._find_pass(starts, stops, first)
        while True:
            low = np.clip(turn * self._images, starts, stops)
            counts = np.clip((turn + 1) * self._images, starts, stops) - low
            for label in np.flatnonzero(counts):
                if position >= counts[label]:
                    position -= int(counts[label])
                    continue
                take = min(int(counts[label]) - position, left)
                begin = int(low[label]) + position
                yield int(label), range(begin, begin + take)
                position, left = 0, left - take
                if not left:
                    return
            turn += 1

    def _find_pass(self, starts: np.ndarray, stops: np.ndarray, row: int) -> tuple[int, int]:
        """The pass that holds a row of the wave, and how many rows of that pass come before it."""

        def before(turn: int) -> int:
            return int((np.clip(turn * self._images, starts, stops) - starts).sum())

        last_pass = -(-stops // np.maximum(self._images, 1))
        low, high = 0, int(last_pass.max())
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if before(middle) <= row else (low, middle)
        return low, row - before(low)

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

    # -- inversions -----------------------------------------------------------------------------------------------

    def inversion_key(self, image: SourceImage) -> str:
        """The cache key: everything that shapes what the arm takes of an image, and nothing else; "" for nothing."""
        if self.arm.takes == "nothing":
            return ""
        if self.arm.takes == "latents":
            config = self.config
            base = [LATENTS_STORED, self.weights, config.backbone.dtype, config.inversion.micro_batch]
            return digest("latent", base, image.sha256, *named(config.source.fit).items())[:40]
        base = self._inversion_base(self.learned.concepts_of(self.source.classes[image.label]))
        return digest(base, image.sha256, self._prompts[image.label])[:40]

    def _inversion_base(self, concepts: str) -> list[Any]:
        inversion, dtype = self.config.inversion, self.config.backbone.dtype
        base = [LATENTS_STORED, self.weights, dtype, inversion.preset, inversion.steps, inversion.micro_batch]
        base += [["diffuse", inversion.diffuse]] if inversion.diffuse else []
        base += [["solver", inversion.solver]] if inversion.solver != "ddim" else []
        base += ["compiled"] if self.config.backbone.compile else []
        base += [concepts] if concepts else []
        return [*base, *named(self.config.source.fit).items()]

    def signature_key(self, image: SourceImage) -> str:
        """Where a real image's signature is stored, held-out images included; "" when no embedder is configured.

        The image is fitted to the model's size before it is signed, which the model's weights stand for, and the
        embedder's last bits may follow from its micro-batch.
        """
        embedder = self.config.dedup.embedder
        if embedder == OFF:
            return ""
        how = [self.config.inversion.micro_batch, *named(self.config.source.fit).items()]
        return digest("signature", image.sha256, embedder, self.embedder, self.weights, *how)[:40]

    def inversions(self) -> list[Inversion]:
        """Every image of the source, to be inverted once; or encoded, or neither, as the arm wants it."""
        return [
            Inversion(self.inversion_key(image), image.where, image.sha256, self._prompts[image.label])
            for image in self.source.images
        ]

    # -- for the stream -------------------------------------------------------------------------------------------

    def table(self, wave: WaveEntry, chunks: Iterable[int]) -> pa.Table:
        """One Arrow row per chunk, the pair table in its list columns."""
        rows = []
        for index in chunks:
            chunk = self.chunk(wave, index)
            lists = {name: [getattr(row, name) for row in chunk] for name in CHUNK_SCHEMA.names[2:]}
            rows.append({"wave": wave.wave, "chunk": index, **lists})
        return pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)

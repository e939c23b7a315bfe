"""One image to be, one image to invert, and in what form they travel to the actors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


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


def chunk_record(wave: int, chunk: int, rows: Sequence[Row]) -> dict[str, Any]:
    """A chunk as one row of `CHUNK_SCHEMA`, its pair table in the list columns."""
    lists = {name: [getattr(row, name) for row in rows] for name in CHUNK_SCHEMA.names[2:]}
    return {"wave": wave, "chunk": chunk, **lists}

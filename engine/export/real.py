"""Real images as rows of a shard: what made them is empty, and `is_synthetic` is false."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

from diffii.features import perceptual_hash
from diffii.images import Encoding, decode, encode, extension
from engine.formats.parquet import SCHEMA, SOFT
from engine.source import Source, iter_bytes

_FORMATS = {"PNG": "png", "WEBP": "webp", "JPEG": "jpeg"}
_ORIENTATION = 0x0112


def real_table(
    source: Source, ordinals: Sequence[int], encoding: Encoding, quality: int | None, soft: bool
) -> pa.Table:
    """The images of a source, each with its number in its class, as rows of a shard; `soft`: of one with soft labels.

    An upright RGB file of the wanted encoding keeps its bytes, so that a photo is not compressed twice. Every other is
    decoded and encoded at its own size. Raises SourceError when an image has changed or gone.
    """
    rows = []
    for image, ordinal, data in zip(source.images, ordinals, iter_bytes(source, source.images), strict=True):
        pixels = np.asarray(decode(data), dtype=np.uint8)
        stored = data if quality is None and _fits(data, encoding) else encode(pixels, encoding, quality)
        sample_id = image.sha256[:32]
        row = {
            "image": {"bytes": stored, "path": f"{sample_id}.{extension(encoding)}"},
            "label": image.label,
            "sample_id": sample_id,
            "class_name": source.classes[image.label],
            "ordinal": ordinal,
            "parent_a": "",
            "parent_b": "",
            "suffix": "",
            "phash": perceptual_hash(pixels),
            "is_synthetic": False,
            "recipe": json.dumps({"kind": "real", "sha256": image.sha256}, sort_keys=True),
        }
        if soft:
            row |= {"source_label": image.label, "label_weight": 1.0}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, *SOFT]) if soft else SCHEMA)


def _fits(data: bytes, encoding: Encoding) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return (
            _FORMATS.get(image.format or "") == encoding
            and image.mode == "RGB"
            and "transparency" not in image.info
            and getattr(image, "n_frames", 1) == 1
            and image.getexif().get(_ORIENTATION, 1) == 1
        )

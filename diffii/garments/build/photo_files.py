"""Write the photos that ship with the package as Parquet that any tool opens."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from diffii.garments.build.photos import Photos
from diffii.garments.catalog import CLASSES


def write_photos(photos: Photos, path: Path) -> None:
    """`image` (PNG, grey 28x28), `label`, and `source_index` in the Fashion-MNIST file it came from."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "source_index": {"dtype": "int32", "_type": "Value"},
    }
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [
        {"bytes": _png(pixels), "path": f"{index:05d}.png"}
        for pixels, index in zip(photos.pixels, photos.index, strict=True)
    ]
    columns = {
        "image": pa.array(images, image_type),
        "label": pa.array(photos.labels, pa.int64()),
        "source_index": pa.array(photos.index, pa.int32()),
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, compression="zstd")


def _png(pixels: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()

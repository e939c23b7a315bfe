"""Shards as Hugging Face Parquet: `datasets.load_dataset` sees an Image and a ClassLabel, SQL sees flat columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from diffii.dataset.tables import read_table
from engine.formats.part import Origin, Part, Records, Written

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("sample_id", pa.string()),
        ("class_name", pa.string()),
        ("ordinal", pa.int64()),
        ("seed", pa.uint64()),
        ("phi", pa.float64()),
        ("theta", pa.float64()),
        ("parent_a", pa.string()),
        ("parent_b", pa.string()),
        ("suffix", pa.string()),
        ("strength", pa.float64()),
        ("phash", pa.binary(8)),
        ("is_synthetic", pa.bool_()),
        ("recipe", pa.string()),
    ]
)
SOFT = pa.schema([("source_label", pa.int64()), ("label_weight", pa.float64())])
"""Further columns where rows were made by editing an image of a class that may be another: it has 1 - `label_weight` of
the label."""
FULL_STRENGTH = 1.0
"""Share of the noise path that is denoised. Diff-II starts at its noisy end."""
ROW_GROUP_BYTES = 100 * 2**20

_AS_IN_SHARD = ("label", "sample_id", "ordinal", "seed", "phi", "theta", "parent_a", "parent_b", "suffix", "recipe")


def write_shard(staged: pa.Table, classes: Sequence[str], extension: str) -> bytes:
    """One shard from kept staged rows, in their order; the same rows give the same bytes for one pyarrow version."""
    rows = staged.num_rows
    columns: dict[str, Any] = {name: staged[name] for name in _AS_IN_SHARD}
    names = [f"{sample_id}.{extension}" for sample_id in staged["sample_id"].to_pylist()]
    image = pa.StructArray.from_arrays(
        [staged["image"].combine_chunks(), pa.array(names)],
        fields=list(SCHEMA.field("image").type),
    )
    columns |= {
        "image": image,
        "class_name": [classes[label] for label in staged["label"].to_pylist()],
        "strength": [FULL_STRENGTH] * rows,
        "phash": staged["phash"],
        "is_synthetic": [True] * rows,
    }
    schema = SCHEMA
    if SOFT.names[0] in staged.column_names:
        schema = pa.schema([*SCHEMA, *SOFT])
        columns |= {name: staged[name] for name in ("strength", *SOFT.names)}
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    return encode_table(table, classes, staged["image"].nbytes)


def encode_table(table: pa.Table, classes: Sequence[str], image_bytes: int) -> bytes:
    """Rows with the columns of a shard as its bytes; the same rows give the same bytes for one pyarrow version.

    `image_bytes`, what the images take, decides how many rows are in a row group.
    """
    rows, schema = table.num_rows, table.schema
    table = table.replace_schema_metadata({"huggingface": features(classes, schema)})
    buffer = io.BytesIO()
    rest = [name for name in schema.names if name != "image"]
    pq.write_table(
        table,
        buffer,
        row_group_size=max(1, min(rows, ROW_GROUP_BYTES * rows // max(1, image_bytes))),
        # Images are compressed already, and a dictionary would hash every one of them.
        compression={"image.bytes": "none", "image.path": "none", **dict.fromkeys(rest, "zstd")},  # pyright: ignore
        use_dictionary=["class_name", "suffix"],  # pyright: ignore[reportArgumentType]
        write_page_index=True,
        store_schema=True,
    )
    return buffer.getvalue()


_KINDS: dict[pa.DataType, str] = {
    pa.int64(): "int64",
    pa.uint64(): "uint64",
    pa.float64(): "float64",
    pa.string(): "string",
    pa.bool_(): "bool",
    pa.binary(8): "binary",
}
_CLASSES = ("label", "source_label")


def card_features(classes: Sequence[str], soft: bool) -> list[dict[str, Any]]:
    """The same as a card's `dataset_info` tells it, which `datasets` believes more than any one file.

    Files from before a source gained classes name fewer of them.
    """
    found: list[dict[str, Any]] = []
    for column in [*SCHEMA, *(SOFT if soft else [])]:
        if column.name == "image":
            dtype: Any = "image"
        elif column.name in _CLASSES:
            dtype = {"class_label": {"names": {str(label): name for label, name in enumerate(classes)}}}
        else:
            dtype = _KINDS[column.type]
        found.append({"name": column.name, "dtype": dtype})
    return found


def features(classes: Sequence[str], schema: pa.Schema) -> str:
    """What `datasets` is told of the columns: the value of the schema's metadata key `huggingface`."""
    features: dict[str, Any] = {}
    for column in schema:
        if column.name == "image":
            features[column.name] = {"_type": "Image"}
        elif column.name in _CLASSES:
            features[column.name] = {"names": list(classes), "_type": "ClassLabel"}
        else:
            features[column.name] = {"dtype": _KINDS[column.type], "_type": "Value"}
    return json.dumps({"info": {"features": features}})


def read_kept(data: bytes) -> list[tuple[str, bytes]]:
    """(sample id, image bytes) of every row of a shard."""
    table = read_table(data, ["sample_id", "image"])
    return [(row["sample_id"], row["image"]["bytes"]) for row in table.to_pylist()]


class Parquet:
    """The data set's own format again: with other encodings, or with the real images, which have no recipe."""

    name: ClassVar[str] = "parquet"
    patterns: ClassVar[Mapping[Origin, str]] = {"data": "data/train-*.parquet", "real": "real/train-*.parquet"}

    def write(self, part: Part) -> Written:
        images = sum(chunk.field("bytes").nbytes for chunk in part.table["image"].chunks)
        name = f"{part.origin}/train-{part.number:05d}.parquet"
        return Written(files=[(name, encode_table(part.table, part.classes, images))])

    def index(self, records: Records) -> Iterator[tuple[str, bytes]]:
        return iter(())

    def usage(self, url: str, extension: str) -> str:
        return f'datasets.load_dataset("{url}")'

"""Shards that `datasets` opens as images and labels, and SQL as flat columns; the same rows give the same bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, IterableDataset, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from diffii.dataset import layout, staged
from diffii.hashing import sha256
from diffii.images import Encoding, encode, extension
from engine.card import Counts, data_set_card
from engine.config import Config
from engine.formats.parquet import SCHEMA, read_kept, write_shard

CLASSES = ["a/b", ".", "été"]


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def kept(count: int, encoding: Encoding = "png", first: int = 0) -> pa.Table:
    """Staged rows whose every column differs from row to row."""
    rows: list[dict[str, Any]] = []
    for number in range(first, first + count):
        image = encode(pixels(number), encoding)
        rows.append(
            {
                "sample_id": sha256(str(number).encode()),
                "outcome": staged.KEPT,
                "reason": "",
                "label": number % len(CLASSES),
                "ordinal": number // len(CLASSES),
                "image_sha256": sha256(image),
                "phash": number.to_bytes(8, "big"),
                "phi": number / 7,
                "theta": number / 11,
                "seed": 2**64 - 1 - number,
                "parent_a": f"a{number}",
                "parent_b": f"b{number}",
                "suffix": ["", "dans le pré"][number % 2],
                "recipe": json.dumps({"steps": number}),
                "image": image,
            }
        )
    return pa.Table.from_pylist(rows, schema=staged.SCHEMA)


def shard(count: int = 7, encoding: Encoding = "png") -> bytes:
    return write_shard(kept(count, encoding), CLASSES, extension(encoding))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(place: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


# --- the file itself


def test_columns_have_the_types_of_the_convention() -> None:
    schema = pq.ParquetFile(io.BytesIO(shard())).schema_arrow
    assert schema.names == SCHEMA.names
    expected = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "label": pa.int64(),
        "ordinal": pa.int64(),
        "seed": pa.uint64(),
        "phi": pa.float64(),
        "theta": pa.float64(),
        "strength": pa.float64(),
        "phash": pa.binary(8),
        "is_synthetic": pa.bool_(),
    }
    assert {field.name: field.type for field in schema} == dict.fromkeys(SCHEMA.names, pa.string()) | expected


def test_features_are_in_column_order_and_alike_in_all_shards() -> None:
    texts = {
        (pq.ParquetFile(io.BytesIO(data)).schema_arrow.metadata or {})[b"huggingface"]
        for data in (shard(1), shard(7), shard(2, "webp"))
    }
    assert len(texts) == 1
    features = json.loads(texts.pop())["info"]["features"]
    assert list(features) == SCHEMA.names
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "ClassLabel", "names": CLASSES}
    assert features["seed"] == {"_type": "Value", "dtype": "uint64"}


def test_images_are_stored_as_they_are_and_other_columns_compressed() -> None:
    file = pq.ParquetFile(io.BytesIO(shard()))
    columns = [file.metadata.row_group(0).column(k) for k in range(file.metadata.num_columns)]
    kinds = {column.path_in_schema: column.compression for column in columns}
    assert {name for name, kind in kinds.items() if kind == "UNCOMPRESSED"} == {"image.bytes", "image.path"}
    assert set(kinds.values()) == {"UNCOMPRESSED", "ZSTD"}
    assert not any("DICTIONARY" in encoding for column in columns[:2] for encoding in column.encodings)
    assert all(
        column.has_offset_index and column.has_column_index for column in columns if "." not in column.path_in_schema
    )


def test_row_groups_stay_below_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = kept(20)
    monkeypatch.setattr("engine.formats.parquet.ROW_GROUP_BYTES", table["image"].nbytes // 4)
    file = pq.ParquetFile(io.BytesIO(write_shard(table, CLASSES, "png")))
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [5, 5, 5, 5]
    assert file.read()["sample_id"].to_pylist() == table["sample_id"].to_pylist()


def test_the_same_rows_give_the_same_bytes() -> None:
    assert shard() == shard()
    in_two_pieces = pa.concat_tables([kept(3), kept(4, first=3)])
    assert in_two_pieces["image"].num_chunks == 2
    assert write_shard(in_two_pieces, CLASSES, "png") == shard()
    assert write_shard(kept(7, first=1), CLASSES, "png") != shard()


def test_every_column_is_carried_over() -> None:
    rows, table = pq.read_table(io.BytesIO(shard())).to_pylist(), kept(7).to_pylist()
    for row, stage in zip(rows, table, strict=True):
        assert row["image"] == {"bytes": stage["image"], "path": f"{stage['sample_id']}.png"}
        assert row["class_name"] == CLASSES[stage["label"]]
        assert (row["strength"], row["is_synthetic"]) == (1.0, True)
        same = set(SCHEMA.names) - {"image", "class_name", "strength", "is_synthetic"}
        assert {name: row[name] for name in same} == {name: stage[name] for name in same}


def test_kept_rows_are_read_back() -> None:
    assert read_kept(shard()) == [(row["sample_id"], row["image"]) for row in kept(7).to_pylist()]


# --- opened by `datasets`


def _check(rows: Dataset | IterableDataset, count: int) -> None:
    features = rows.features
    assert features is not None
    assert isinstance(features["image"], ImageFeature)
    assert isinstance(features["label"], ClassLabel) and features["label"].names == CLASSES
    found = list(rows)
    assert len(found) == count
    for number, row in enumerate(found):
        assert isinstance(row["image"], Image.Image)
        assert np.array_equal(np.asarray(row["image"]), pixels(number))
        assert (row["label"], row["class_name"]) == (number % 3, CLASSES[number % 3])
        assert row["seed"] == 2**64 - 1 - number and row["phash"] == number.to_bytes(8, "big")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("encoding", ["png", "webp"])
def test_datasets_opens_a_shard(tmp_path: Path, streaming: bool, encoding: Encoding) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(shard(7, encoding))
    _check(load_dataset("parquet", data_files=str(file), split="train", streaming=streaming), 7)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("complete", [False, True])
def test_datasets_sees_data_alone(tmp_path: Path, streaming: bool, complete: bool) -> None:
    place = tmp_path / "set"
    decoy = io.BytesIO()
    pq.write_table(pa.table({"decoy": ["x"]}), decoy)
    config = Config.model_validate({"prompts": {"class_names": {"a/b": "a | b", "été": "sum\nmer: --- x"}}})
    counts = Counts(rows=7, real=3, shards=2, content="abc", complete=complete)
    files = {
        layout.CARD: data_set_card(CLASSES, config, counts).encode(),
        layout.shard(0): write_shard(kept(4), CLASSES, "png"),
        layout.shard(1): write_shard(kept(3, first=4), CLASSES, "png"),
        layout.source_manifest("0" * 64): decoy.getvalue(),
        layout.staged_chunk(0, 0): decoy.getvalue(),
        f"{layout.OWN}/train-00000.parquet": decoy.getvalue(),
        f"{layout.OWN}/test/a.parquet": decoy.getvalue(),
        layout.log_entry(0): b"{}",
        layout.CONTACT_SHEET: encode(pixels(0), "png"),
    }
    write(place, files)
    splits = load_dataset(str(place), streaming=streaming)
    assert list(splits) == ["train"]
    _check(splits["train"], 7)


def test_datasets_sees_what_is_committed_later(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for shards in (0, 1, 2):
        counts = Counts(rows=3 * shards, real=3, shards=shards, content=str(shards), complete=False)
        write(place, {layout.CARD: data_set_card(CLASSES, Config(), counts).encode()})
        if shards:
            write(place, {layout.shard(shards - 1): write_shard(kept(3, first=3 * (shards - 1)), CLASSES, "png")})
            _check(load_dataset(str(place))["train"], 3 * shards)

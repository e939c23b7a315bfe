"""Hugging Face `datasets` opens every format that it has a reader for, by the folder's name alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, load_dataset

from engine.run import Run
from tests.readers.made import CLASSES, Seen, expected, rgb

pytestmark = pytest.mark.parametrize("streaming", [False, True])
REAL = pytest.mark.parametrize("real", [False, True])


def opened(place: Path, streaming: bool) -> Any:
    splits = load_dataset(str(place), streaming=streaming)
    assert list(splits) == ["train"]
    return splits["train"]


@REAL
@pytest.mark.parametrize("format", ["parquet", "imagefolder"])
def test_rows_images_labels_and_names(
    made: Run, copies: dict[str, Path], format: str, real: bool, streaming: bool
) -> None:
    rows = opened(copies[f"{format}-real" if real else format], streaming)
    label = rows.features["label"]
    assert isinstance(label, ClassLabel) and label.names == CLASSES
    seen = [
        Seen(row["sample_id"], row["label"], row["class_name"], row["is_synthetic"], rgb(row["image"])) for row in rows
    ]
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made, real)


@REAL
def test_webdataset(made: Run, copies: dict[str, Path], real: bool, streaming: bool) -> None:
    rows = opened(copies["webdataset-real" if real else "webdataset"], streaming)
    seen = []
    for row in rows:
        facts = row["json"]
        assert (row["__key__"], row["cls"]) == (facts["sample_id"], facts["label"])
        assert row["txt"].startswith("a photo of a")
        synthetic = facts["is_synthetic"]
        seen.append(Seen(row["__key__"], row["cls"], facts["class_name"], synthetic, rgb(row["png"])))
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made, real)


def test_the_output_itself(made: Run, streaming: bool) -> None:
    rows = opened(Path(made.storage.url), streaming)
    assert sorted(row["sample_id"] for row in rows) == [row.sample_id for row in expected(made)]

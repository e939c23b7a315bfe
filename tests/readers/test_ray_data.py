"""Ray Data reads Parquet, tars and image folders as any user's pipeline would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray.data
from ray.data.datasource.partitioning import Partitioning, PartitionStyle

from engine.run import Run
from tests.readers.made import Seen, expected, rgb

pytestmark = pytest.mark.usefixtures("ray_here")


def test_parquet(made: Run, copies: dict[str, Path]) -> None:
    rows = ray.data.read_parquet(str(copies["parquet"] / "data")).take_all()
    seen = [
        Seen(r["sample_id"], r["label"], r["class_name"], r["is_synthetic"], rgb(r["image"]["bytes"])) for r in rows
    ]
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made)


def test_webdataset(made: Run, copies: dict[str, Path]) -> None:
    place = copies["webdataset-real"]
    paths = [str(path) for path in sorted(place.glob("*/*.tar"))]
    seen = []
    for row in ray.data.read_webdataset(paths, decoder=None).take_all():
        facts = json.loads(row["json"])
        label = int(row["cls"])
        seen.append(Seen(row["__key__"], label, facts["class_name"], facts["is_synthetic"], rgb(row["png"])))
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made, real=True)


def test_images(made: Run, copies: dict[str, Path]) -> None:
    place = copies["imagefolder"]
    by_folder = json.loads((place / "classes.json").read_text())
    found = ray.data.read_images(
        str(place / "train"),
        partitioning=Partitioning(PartitionStyle.DIRECTORY, field_names=["folder"], base_dir=str(place / "train")),
        include_paths=True,
        mode="RGB",
    )
    seen = []
    for row in found.take_all():
        name = by_folder[row["folder"]]
        label = made.source.classes.index(name)
        seen.append(Seen(Path(row["path"]).stem, label, name, True, row["image"].tobytes()))
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made)

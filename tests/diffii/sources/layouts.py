"""The same labelled images in every layout that a user may bring, written by the programs that write such layouts."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Rows = Sequence[tuple[bytes, int]]
"""(bytes of an image, label)."""


def png(seed: int, size: int = 6) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, classes: Sequence[str], rows: Rows) -> str:
    for name in classes:
        (root / name).mkdir(parents=True)
    for number, (data, label) in enumerate(rows):
        (root / classes[label] / f"{number}.png").write_bytes(data)
    return str(root)


def hub_parquet(root: Path, classes: Sequence[str], rows: Rows, split: str = "train") -> str:
    """A repository of the hub, as `Dataset.push_to_hub` lays it out."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    saved(classes, rows).to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    return str(root)


def saved(classes: Sequence[str], rows: Rows) -> Any:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    columns = {"image": [{"bytes": data, "path": None} for data, _ in rows], "label": [label for _, label in rows]}
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(classes))})
    return Dataset.from_dict(columns, features=features)


def save_to_disk(root: Path, classes: Sequence[str], rows: Rows) -> str:
    saved(classes, rows).save_to_disk(str(root))
    return str(root)


def save_splits(root: Path, classes: Sequence[str], rows: Rows) -> str:
    from datasets import DatasetDict

    other = [(png(10**6), 0)]
    DatasetDict({"train": saved(classes, rows), "test": saved(classes, other)}).save_to_disk(str(root))
    return str(root)


def tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def webdataset(root: Path, classes: Sequence[str], rows: Rows) -> str:
    root.mkdir(parents=True)
    # Every class has its name somewhere: one that no sample shows could not keep it.
    for shard in range(2):
        members: list[tuple[str, bytes]] = []
        for number, (data, label) in list(enumerate(rows))[shard::2]:
            about = json.dumps({"class_name": classes[label]}, ensure_ascii=False).encode()
            key = f"{number:09d}"
            members += [(f"{key}.cls", str(label).encode()), (f"{key}.json", about), (f"{key}.png", data)]
        (root / f"train-{shard:06d}.tar").write_bytes(tar(members))
    return str(root)


def path_list(root: Path, classes: Sequence[str], rows: Rows, kind: str = "csv") -> str:
    (root / "images").mkdir(parents=True)
    table = []
    for number, (data, label) in enumerate(rows):
        (root / "images" / f"{number}.png").write_bytes(data)
        table.append({"file_name": f"images/{number}.png", "label": label, "class_name": classes[label]})
    place = root / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), place)
    elif kind == "jsonl":
        place.write_text("".join(f"{json.dumps(row)}\n" for row in table))
    else:
        with place.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(table)
    return str(place)


LAYOUTS: dict[str, Any] = {
    "hub Parquet": hub_parquet,
    "save_to_disk": save_to_disk,
    "save_to_disk with splits": save_splits,
    "WebDataset": webdataset,
    **{
        f"{kind} of paths": lambda root, classes, rows, kind=kind: path_list(root, classes, rows, kind)
        for kind in ("csv", "tsv", "jsonl", "parquet")
    },
}

"""The whole way with the embedded model: any layout in, any format out, read by the programs that people use."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from PIL import Image
from webdataset.compat import WebDataset

import diffii
from diffii.garments.data import export_pool
from diffii.hashing import sha256
from engine.config import Config
from engine.expand import expand
from engine.prepare import prepare
from engine.settings import from_flat
from engine.verify import verify
from tests.diffii.sources.layouts import LAYOUTS
from tests.engine.sources import PLAIN
from tests.readers.made import rgb

pytestmark = pytest.mark.slow

NAMES = ["bugatti_veyron_16.4", "a/b", "été", "."]
Seen = dict[str, tuple[int, str, str]]
"""Sample id -> label, class name, hash of the pixels."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, int]]:
    folder = tmp_path_factory.mktemp("pool")
    export_pool(folder, 2)
    classes = sorted(folder.iterdir())[: len(NAMES)]
    return [(file.read_bytes(), label) for label, place in enumerate(classes) for file in sorted(place.iterdir())]


def config(source: str, out: Path) -> Config:
    few = {"inversion.steps": 3, "generation.steps": 3, "inversion.micro_batch": 4, "generation.micro_batch": 4}
    sizes = {"commit.chunk_size": 4, "output.shard_rows": 6, "expansion.factor": 2.0}
    formats = {"output.format": ["webdataset", "mds", "imagefolder"]}
    where = {"source.url": source, "output.url": str(out), "backbone.model": "garments"}
    return from_flat({**PLAIN, **few, **sizes, **formats, **where})


@pytest.fixture(scope="module")
def expanded(photos: list[tuple[bytes, int]], tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    place = tmp_path_factory.mktemp("expanded")
    source = LAYOUTS["hub Parquet"](place / "source", NAMES, photos)
    assert expand(config(source, place / "out")).complete
    return place / "out"


@pytest.fixture(scope="module")
def ours(expanded: Path) -> Seen:
    snapshot = diffii.open(str(expanded))
    rows = [snapshot.row(index) for index in range(len(snapshot))]
    assert len(rows) == 16 and snapshot.classes == tuple(NAMES)
    return {
        row["sample_id"]: seen(row["label"], row["class_name"], Image.open(io.BytesIO(row["image"]["bytes"])))
        for row in rows
    }


def seen(label: int, name: str, image: Any) -> tuple[int, str, str]:
    return label, name, sha256(rgb(image))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_source_of_this_data_set(
    photos: list[tuple[bytes, int]], expanded: Path, tmp_path: Path, layout: str
) -> None:
    run = prepare(config(LAYOUTS[layout](tmp_path / "source", NAMES, photos), expanded))
    assert run.complete and run.grown is None


@pytest.mark.parametrize("layout", ["WebDataset", "save_to_disk", "csv of paths"])
def test_another_layout_gives_the_same_bytes(
    photos: list[tuple[bytes, int]], expanded: Path, tmp_path: Path, layout: str, ray_here: None
) -> None:
    source = LAYOUTS[layout](tmp_path / "source", NAMES, photos)
    assert expand(config(source, tmp_path / "out")).complete
    found, expected = verify(str(tmp_path / "out")), verify(str(expanded))
    assert found.ok and (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)
    for name in ("webdataset", "mds", "imagefolder"):
        made, other = (
            {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
            for root in (expanded / name, tmp_path / "out" / name)
        )
        # The card says from where the images came.
        assert made.keys() == other.keys()
        assert {path for path in made if made[path] != other[path]} <= {Path("README.md")}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("place", [".", "imagefolder"])
def test_datasets(expanded: Path, ours: Seen, place: str, streaming: bool) -> None:
    rows: Any = load_dataset(str(expanded / place), split="train", streaming=streaming)
    assert rows.features["label"].names == NAMES
    assert {row["sample_id"]: seen(row["label"], row["class_name"], row["image"]) for row in rows} == ours


def test_webdataset(expanded: Path, ours: Seen) -> None:
    shards = [str(path) for path in sorted((expanded / "webdataset" / "data").glob("*.tar"))]
    rows: Any = WebDataset(shards, shardshuffle=False).decode("pil")
    assert {row["__key__"]: seen(row["cls"], row["json"]["class_name"], row["png"]) for row in rows} == ours


def test_mds_names_its_shards(expanded: Path) -> None:
    """Its reader needs an environment of its own: `make readers`."""
    index = json.loads((expanded / "mds" / "index.json").read_text())
    assert sum(shard["samples"] for shard in index["shards"]) == 16
    for shard in index["shards"]:
        place = next((expanded / "mds").rglob(Path(shard["raw_data"]["basename"]).name))
        assert place.stat().st_size == shard["raw_data"]["bytes"]

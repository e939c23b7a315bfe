"""The whole way from a source that is no folder: words, splits and shapes arrive where they count."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import diffii
from diffii.dataset import layout
from diffii.garments.data import export_pool
from engine.expand import expand
from engine.settings import from_flat
from engine.verify import verify
from tests.diffii.sources.layouts import tar
from tests.engine.sources import PLAIN

pytestmark = pytest.mark.usefixtures("ray_here")

SETTINGS = {key: value for key, value in PLAIN.items() if key not in ("captions.method", "prompts.suffixes")} | {
    "backbone.model": "garments",
    "source.holdout_split": "check",
    "source.fit": "stretch",
    "inversion.steps": 3,
    "inversion.micro_batch": 4,
    "generation.steps": 3,
    "generation.micro_batch": 4,
    "expansion.factor": 1.0,
}


def photos(folder: Path) -> list[tuple[str, bytes]]:
    """(class, bytes) of two classes' photos, higher than wide."""
    export_pool(folder, 3)
    found = []
    for name in sorted(path.name for path in folder.iterdir())[:2]:
        for file in sorted((folder / name).iterdir()):
            buffer = io.BytesIO()
            Image.open(file).resize((32, 48)).save(buffer, "PNG")
            found.append((name, buffer.getvalue()))
    return found


def run(source: Path, out: Path, **more: Any) -> Any:
    return expand(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(out), **more}))


@pytest.mark.slow
def test_tars_and_the_folder_of_the_same_bytes_give_the_same_data_set(tmp_path: Path) -> None:
    made = photos(tmp_path / "pool")
    classes = sorted({name for name, _ in made})
    captions = ["a thing on a table", "a thing in the snow"]
    members: dict[str, list[tuple[str, bytes]]] = {"train": [], "check": []}
    rows = []
    for number, (name, data) in enumerate(made):
        # Of each class one photo is kept apart.
        split, caption = "check" if number % 3 == 2 else "train", captions[number % 2]
        about = json.dumps({"label": classes.index(name), "class_name": name}).encode()
        parts = [(f"{number}.json", about), (f"{number}.png", data), (f"{number}.txt", caption.encode())]
        members[split] += parts
        place = tmp_path / "folder" / split / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        rows.append(f"{name}/{number}.png,{caption}")
    members["train"].append(("broken.png", b"<html>"))
    (tmp_path / "folder" / "train" / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    (tmp_path / "tars").mkdir()
    for split, content in members.items():
        (tmp_path / "tars" / f"{split}-0.tar").write_bytes(tar(content))

    of_tars, of_folder = (run(tmp_path / kind, tmp_path / f"{kind}-out") for kind in ("tars", "folder"))
    found, expected = verify(of_tars.storage.url), verify(of_folder.storage.url)
    assert found.ok and found.kept == 4 and found.digest == expected.digest
    table = [diffii.open(of_tars.storage.url).row(row) for row in range(4)]
    assert {row["suffix"] for row in table} <= {"on a table", "in the snow"} and table[0]["suffix"]
    assert {json.loads(row["recipe"])["fit"] for row in table} == {"stretch"}
    assert not {row["parent_a"] for row in table} & {image.sha256 for image in held(of_tars)}
    listed = [json.loads(line) for line in of_tars.storage.read(layout.SKIPPED).splitlines()]
    assert [(row["where"].partition("@")[0], row["used"]) for row in listed] == [("train-0.tar#broken.png", False)]
    assert of_tars.storage.read_or_none(layout.LEAKS) is not None


def held(of: Any) -> Any:
    from engine.holdout import read_holdout

    found = read_holdout(of)
    assert found is not None and len(found.images) == 2
    return found.images

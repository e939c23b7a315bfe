"""The photos that ship with the package: 1000 for few-shot experiments, 300 to choose settings on, 2000 to measure on.

They share no photo, and come from parts of Fashion-MNIST that neither the model nor the judge was trained on.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from diffii.dataset.tables import read_table
from diffii.garments.catalog import CLASSES, CONTEXTS
from diffii.garments.scene import compose

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class PhotoSet:
    """Grey photos (N, 28, 28) uint8 and labels (N,) into CLASSES, in a fixed order."""

    pixels: np.ndarray
    labels: np.ndarray


@cache
def pool() -> PhotoSet:
    """100 photos per class to draw few-shot sets from."""
    return _read("pool.parquet")


@cache
def validation() -> PhotoSet:
    """30 photos per class to choose settings on."""
    return _read("validation.parquet")


@cache
def heldout() -> PhotoSet:
    """200 photos per class to measure on; nothing may learn from them."""
    return _read("heldout.parquet")


def export_pool(folder: Path, shots: int, seed: int = 0) -> int:
    """Write `shots` composed 32x32 images per class as `<class>/<name>.png`; returns how many.

    Contexts are dealt evenly within a class. Raises ValueError when the pool has fewer photos than asked for.
    """
    scenes = draw_scenes([shots] * len(CLASSES), np.random.default_rng([seed, shots]))
    for scene in scenes:
        (folder / CLASSES[scene.label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.pixels).save(folder / CLASSES[scene.label] / f"{scene.photo:04d}-{scene.context}.png")
    return len(scenes)


@dataclass(frozen=True)
class Scene:
    """A photo of the pool before a background: uint8 (32, 32, 3)."""

    label: int
    photo: int
    context: str
    pixels: np.ndarray


def draw_scenes(counts: Sequence[int], rng: np.random.Generator, contexts: Sequence[str] = ()) -> list[Scene]:
    """`counts[label]` scenes of every class from the pool, each photo once.

    Contexts are dealt evenly within a class, unless `contexts[label]` gives all of a class's scenes one. Raises
    ValueError when the pool has fewer photos than asked for.
    """
    photos, names = pool(), list(CONTEXTS)
    scenes: list[Scene] = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(photos.labels == label)
        if not 1 <= count <= len(rows):
            raise ValueError(f"the pool has {len(rows)} photos per class, so shots must be 1 to {len(rows)}")
        deal = rng.permutation(np.resize(rng.permutation(len(names)), count))
        for row, context in zip(rng.permutation(rows)[:count], deal, strict=True):
            name = contexts[label] if contexts else names[context]
            scenes.append(Scene(label, int(row), name, compose(photos.pixels[row], name, int(rng.integers(2**31)))))
    return scenes


def _read(name: str) -> PhotoSet:
    table = read_table((WEIGHTS / name).read_bytes())
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
    return PhotoSet(np.stack(images), np.asarray(table["label"].to_pylist(), dtype=np.int64))

"""The photos that ship with the package: 1000 for few-shot experiments, 2000 to measure on.

The pool and the heldout photos come from parts of Fashion-MNIST that neither the model nor the judge was trained on.
"""

from __future__ import annotations

import io
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
def heldout() -> PhotoSet:
    """200 photos per class to measure on; nothing may learn from them."""
    return _read("heldout.parquet")


def export_pool(folder: Path, shots: int, seed: int = 0) -> int:
    """Write `shots` composed 32x32 images per class as `<class>/<name>.png`; returns how many.

    Contexts are dealt evenly within a class. Raises ValueError when the pool has fewer photos than asked for.
    """
    photos, names = pool(), list(CONTEXTS)
    rng = np.random.default_rng([seed, shots])
    count = 0
    for label, name in enumerate(CLASSES):
        rows = np.flatnonzero(photos.labels == label)
        if not 1 <= shots <= len(rows):
            raise ValueError(f"the pool has {len(rows)} photos per class, so shots must be 1 to {len(rows)}")
        (folder / name).mkdir(parents=True, exist_ok=True)
        deal = rng.permutation(np.resize(rng.permutation(len(names)), shots))
        for row, context in zip(rng.permutation(rows)[:shots], deal, strict=True):
            image = compose(photos.pixels[row], names[context], int(rng.integers(2**31)))
            Image.fromarray(image).save(folder / name / f"{row:04d}-{names[context]}.png")
            count += 1
    return count


def _read(name: str) -> PhotoSet:
    table = read_table((WEIGHTS / name).read_bytes())
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
    return PhotoSet(np.stack(images), np.asarray(table["label"].to_pylist(), dtype=np.int64))

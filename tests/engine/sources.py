"""Sources for tests: made of hashes where no image is read, and of real little PNG files where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffii.garments.catalog import CONTEXTS
from diffii.garments.data import export_pool
from diffii.hashing import sha256
from engine.source import Source, SourceImage

PLAIN: dict[str, Any] = {
    "captions.method": "off",
    "prompts.suffixes": list(CONTEXTS.values()),
    "learn.concepts": "off",
    # Few steps give smears, which are near-copies of one another.
    "dedup.embedder": "off",
}
"""What is not under test in a test of something else: nothing is learned, nothing rejected for its looks."""


def imaginary(sizes: list[int], names: list[str] | None = None) -> Source:
    """A source with `sizes[label]` images per class that exist only as hashes."""
    images = [
        SourceImage(sha256(f"{label}/{k}".encode()), label, f"{label}/{k}.png")
        for label, size in enumerate(sizes)
        for k in range(size)
    ]
    images.sort(key=lambda image: (image.label, image.sha256))
    return Source("nowhere", tuple(names or [f"class {k}" for k in range(len(sizes))]), tuple(images))


def garments(folder: Path, shots: int = 2, classes: int = 4) -> Path:
    """A real image folder of the embedded data set, with the first few classes only."""
    export_pool(folder, shots)
    for extra in sorted(folder.iterdir())[classes:]:
        for file in extra.iterdir():
            file.unlink()
        extra.rmdir()
    return folder

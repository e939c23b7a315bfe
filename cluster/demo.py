"""`diffii demo`: five images a class of the embedded data set become thirty, on a laptop, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffii.dataset import layout
from diffii.errors import OutputError
from diffii.garments.data import export_pool

SHOTS = 5
DEMO: dict[str, Any] = {
    "backbone.model": "garments",
    "expansion.factor": 5,
    "commit.chunk_size": 32,
    "output.shard_rows": 100,
}
"""Small chunks and shards, so that something is there to see within a minute."""


def demo_source(out: Path) -> Path:
    """Write the demo's labelled images as PNG files below `out`, unless they are there; returns their folder.

    Raises OutputError when `out` is a file.
    """
    folder = out / layout.DEMO_SOURCE
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out {out} is a file; give a folder")
    if not folder.exists():
        export_pool(folder, SHOTS)
    return folder

"""The pictures of the page: for some classes real images and what came of them, small, inside the page itself."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffii.dataset.snapshot import Snapshot
from engine.report.sample import Sample, real_images, synthetic_images
from engine.run import Run

CLASSES = 48
"""Classes shown with pictures, at most; the others have figures only."""
OPEN = 12
"""Of these so many unfolded."""
REAL, SYNTHETIC = 5, 10
EDGE = 112
"""Pixels a thumbnail is at most wide."""
BUDGET = 3_000_000
"""Bytes of pictures: the page stays below five megabytes and opens at once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture with what is said below it. `phi` is None for a real one."""

    data: str
    """A data URI."""
    caption: str
    title: str
    phi: float | None = None
    parents: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    label: int
    name: str
    real: list[Tile]
    synthetic: list[Tile]


def sheets(run: Run, sample: Sample) -> list[Sheet]:
    """A sheet for each of the first classes that have synthetic images, as many as `CLASSES` and `BUDGET` allow.

    Raises SourceError when a real image cannot be read.
    """
    snapshot = Snapshot(run.storage, run.history)
    labels = sample.rows["label"].to_numpy()
    ordinals = sample.rows["ordinal"].to_numpy()
    found: list[Sheet] = []
    spent = 0
    for label in np.unique(labels)[:CLASSES]:
        of_class = np.flatnonzero(labels == label)
        of_class = of_class[np.argsort(ordinals[of_class], kind="stable")]
        step = max(1.0, len(of_class) / SYNTHETIC)
        rows = sorted(int(of_class[math.floor(k * step)]) for k in range(min(SYNTHETIC, len(of_class))))
        sheet = _sheet(run, snapshot, sample, int(label), rows)
        spent += sum(len(tile.data) for tile in sheet.real + sheet.synthetic)
        if spent > BUDGET and found:
            break
        found.append(sheet)
    return found


def _sheet(run: Run, snapshot: Snapshot, sample: Sample, label: int, rows: Sequence[int]) -> Sheet:
    images = run.source.by_class[label]
    numbers = {image.sha256: number for number, image in enumerate(images, start=1)}
    shown = images[:REAL]
    real = [
        Tile(thumbnail(picture), str(number), image.where)
        for number, (image, picture) in enumerate(zip(shown, real_images(run.source, shown), strict=True), start=1)
    ]
    made: list[Tile] = []
    for row, picture in zip(rows, synthetic_images(snapshot, sample, rows), strict=True):
        about = sample.rows.slice(row, 1).to_pylist()[0]
        a, b = (numbers.get(about[key], "?") for key in ("parent_a", "parent_b"))
        parents = f"{a}+{b}" if a != b else f"{a}"
        degrees = f"{math.degrees(about['phi']):.0f}°"
        title = f"{about['sample_id']}: parents {parents}, {degrees}, seed {about['seed']}"
        made.append(Tile(thumbnail(picture), about["suffix"], title, about["phi"], parents))
    return Sheet(label, run.source.classes[label], real, made)


def thumbnail(image: Image.Image) -> str:
    """A data URI: small images as they are, without loss; larger ones scaled down, in WebP."""
    buffer = io.BytesIO()
    if max(image.size) <= EDGE // 2:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
        image.save(buffer, "WEBP", quality=78, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

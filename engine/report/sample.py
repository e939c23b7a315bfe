"""Which images a report looks at: a seeded sample, the same number of every class, from a few shards.

A data set may have 10^8 rows in shards of a gigabyte: shards are what it costs to open, so few are, spread evenly over
the log. Consecutive rows of the plan go round the classes, so that few shards hold them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from diffii.dataset.snapshot import Snapshot
from diffii.dataset.tables import read_table
from diffii.errors import OutputError, SourceError
from diffii.images import ACCEPTED, decode
from engine.run import Run
from engine.source import Source, SourceImage, iter_bytes

IMAGES = 1000
"""Images of each kind that are measured by default: distances between them are quadratic."""
_SHARDS = 16
"""Shards opened; more where they are so small that these do not hold the sample twice over."""
COLUMNS = ["label", "ordinal", "sample_id", "parent_a", "parent_b", "phi", "theta", "suffix", "seed"]


@dataclass(frozen=True)
class Sample:
    """`rows` are all rows of the opened shards, in commit order; the rest says which of them are looked at."""

    rows: pa.Table
    """`COLUMNS`, and `index`: the row's place in the snapshot."""
    synthetic: np.ndarray
    """int64 (M,): rows of the table to measure, ascending."""
    real: tuple[SourceImage, ...]
    shards: int
    """How many were opened."""

    @property
    def labels(self) -> np.ndarray:
        return self.rows["label"].to_numpy()[self.synthetic]

    @property
    def real_labels(self) -> np.ndarray:
        return np.array([image.label for image in self.real], dtype=np.int64)


def draw(run: Run, images: int = IMAGES, seed: int = 0) -> Sample:
    """Up to `images` synthetic and as many real ones, evenly over the classes. Raises OutputError when none is kept."""
    rows, shards = _rows(run, images, seed)
    if not rows.num_rows:
        raise OutputError(f"{run.storage.url} holds no image yet; a report needs some")
    rng = np.random.default_rng([seed, images])
    labels = rows["label"].to_numpy()
    chosen = _evenly(labels, images, rng)
    real_labels = np.array([image.label for image in run.source.images])
    real = tuple(run.source.images[row] for row in _evenly(real_labels, images, rng))
    return Sample(rows, chosen, real, shards)


def synthetic_images(snapshot: Snapshot, sample: Sample, rows: Sequence[int]) -> Iterator[Image.Image]:
    """RGB images of rows of the sample's table; ascending rows open each part of a shard once."""
    index = sample.rows["index"]
    for row in rows:
        yield snapshot.image(index[int(row)].as_py()).convert("RGB")


def real_images(source: Source, images: Sequence[SourceImage]) -> Iterator[Image.Image]:
    """RGB images of the source. Raises SourceError when a file has changed or gone."""
    try:
        yield from (decode(data, ACCEPTED) for data in iter_bytes(source, images))
    except SourceError as error:
        raise SourceError(f"{error}, or say where the real images are now: --source URL") from error


def _rows(run: Run, images: int, seed: int) -> tuple[pa.Table, int]:
    ends = run.history.shards.ends() if len(run.history.shards) else np.empty(0, np.int64)
    count = len(ends)
    typical = max(1, int(np.median(np.diff(ends, prepend=0)))) if count else 1
    wanted = min(count, max(_SHARDS, -(-2 * images // typical)))
    offset = np.random.default_rng(seed).random()
    numbers = sorted({int((k + offset) * count / wanted) for k in range(wanted)}) if wanted else []
    tables = []
    for number in numbers:
        with run.storage.open(run.history.shards[number].name) as file:
            table = read_table(file, COLUMNS)
        first = int(ends[number]) - table.num_rows
        tables.append(table.append_column("index", pa.array(np.arange(first, first + table.num_rows))))
    return (pa.concat_tables(tables) if tables else pa.table({"index": pa.array([], pa.int64())})), len(numbers)


def _evenly(labels: np.ndarray, images: int, rng: np.random.Generator) -> np.ndarray:
    """Rows, ascending: the same number of every class as far as it has them, `images` in all or a little less.

    One of every class at least, so that more classes than `images` are as many rows.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quota = int(counts.max(initial=0))
    if len(labels) > images:
        low, high = 1, quota
        while low < high:  # the largest quota whose sum fits
            middle = (low + high + 1) // 2
            low, high = (middle, high) if np.minimum(counts, middle).sum() <= images else (low, middle - 1)
        quota = low
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:quota] for label in classes]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)

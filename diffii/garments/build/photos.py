"""Fashion-MNIST as Debian's package `dataset-fashion-mnist` installs it, and the fixed split of its photos."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
SPLIT_SEED = 20260101
PRETRAINING_PHOTOS = 50_000


@dataclass(frozen=True)
class Photos:
    """Grey photos (N, 28, 28) uint8 with labels (N,) 0..9 and their index in the file they came from."""

    pixels: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def take(self, where: np.ndarray) -> Photos:
        return Photos(self.pixels[where], self.labels[where], self.index[where])


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file of unsigned bytes. Raises ValueError when it is not one."""
    with gzip.open(path, "rb") as file:
        data = file.read()
    zeros, kind, rank = struct.unpack(">HBB", data[:4])
    if zeros != 0 or kind != 8:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(name: str, directory: Path = DEBIAN_DIR) -> Photos:
    """`train` (60 000) or `t10k` (10 000). Raises FileNotFoundError naming the package to install."""
    images = directory / f"{name}-images-idx3-ubyte.gz"
    if not images.exists():
        raise FileNotFoundError(f"{images} is missing: apt-get install dataset-fashion-mnist")
    labels = read_idx(directory / f"{name}-labels-idx1-ubyte.gz").astype(np.int64)
    return Photos(read_idx(images), labels, np.arange(len(labels)))


def split(train: Photos) -> tuple[Photos, Photos]:
    """The 60 000 training photos -> (50 000 for pretraining and the judge, 10 000 for the few-shot pool)."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train.labels))
    return train.take(order[:PRETRAINING_PHOTOS]), train.take(order[PRETRAINING_PHOTOS:])


def first_per_class(photos: Photos, count: int) -> Photos:
    """The first `count` photos of every class, ordered by class."""
    return next_per_class(photos, 0, count)


def next_per_class(photos: Photos, skip: int, count: int) -> Photos:
    """`count` photos of every class after the first `skip`, ordered by class."""
    return photos.take(np.concatenate([np.flatnonzero(photos.labels == c)[skip : skip + count] for c in range(10)]))

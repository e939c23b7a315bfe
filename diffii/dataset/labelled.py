"""Labelled images of any origin, by number: what `mix` puts together. Images are opened when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diffii.dataset.snapshot import Snapshot
from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.image_files import ParquetImages, is_parquet
from diffii.images import SUFFIXES, UnreadableImage, decode


@dataclass(frozen=True, slots=True)
class Labelled:
    """`labels` int64 (N,), into `classes` where these are known; `image(k)` is image k, a PIL image in most cases."""

    labels: np.ndarray
    classes: tuple[str, ...]
    image: Callable[[int], Any]
    other_labels: np.ndarray
    """The label that has the rest of an image's weight, int64 (N,); its own where it has all."""
    weights: np.ndarray
    """Weight of `labels`, float64 (N,), in [0, 1]."""

    @property
    def soft(self) -> bool:
        return bool((self.weights < 1.0).any())


def labelled(images: Snapshot | str | Path | Sequence[tuple[Any, int]]) -> Labelled:
    """A snapshot of `diffii.open`; a folder of class folders or Parquet, by path or fsspec URL; or a sequence.

    A sequence gives (image, label) for a number; its labels are taken from `labels` or `targets`, as torchvision's data
    sets have them, or else by looking at each item once. Raises SourceError.
    """
    if isinstance(images, Snapshot):
        return _of_snapshot(images)
    if isinstance(images, (str, Path)):
        return _of_files(str(images))
    known = getattr(images, "labels", getattr(images, "targets", None))
    labels = known if known is not None else [images[number][1] for number in range(len(images))]
    classes = tuple(getattr(images, "classes", ()))
    return _hard(np.asarray(labels, dtype=np.int64), classes, lambda number: images[number][0])


def _of_snapshot(snapshot: Snapshot) -> Labelled:
    labels = snapshot.labels
    try:
        soft = snapshot.table(["source_label", "label_weight"])
    except KeyError:
        return _hard(labels, snapshot.classes, snapshot.image)
    if not len(snapshot):
        return _hard(labels, snapshot.classes, snapshot.image)
    others, weights = soft["source_label"].to_numpy(), soft["label_weight"].to_numpy()
    return Labelled(labels, snapshot.classes, snapshot.image, others, weights)


def _of_files(url: str) -> Labelled:
    storage = Storage(url)
    if not storage.fs.exists(storage.root):
        raise SourceError(f"{url}: there is nothing there")
    if is_parquet(storage):
        reader = ParquetImages(storage)
        rows, read = reader.labels(), reader.read
        classes = tuple(reader.classes)
    else:
        classes = tuple(
            name for name in storage.names() if not name.startswith((".", "_")) and _is_folder(storage, name)
        )
        found = [(name, label) for label, folder in enumerate(classes) for name, _ in storage.find(folder)]
        rows = [(name, label) for name, label in found if _is_image(name)]
        read = storage.read
    if not rows:
        raise SourceError(f"{url} holds no labelled image; give a folder of class folders, or Parquet")

    def image(number: int) -> Any:
        try:
            return decode(read(rows[number][0]))
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{url}/{rows[number][0]} is not a usable image ({error})") from error

    return _hard(np.array([label for _, label in rows], np.int64), classes, image)


def _hard(labels: np.ndarray, classes: tuple[str, ...], image: Callable[[int], Any]) -> Labelled:
    return Labelled(labels, classes, image, labels, np.ones(len(labels)))


def _is_folder(storage: Storage, name: str) -> bool:
    return bool(storage.fs.isdir(storage.path(name)))


def _is_image(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES

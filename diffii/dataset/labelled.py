"""Labelled images of any origin, by number: what `mix` puts together. Images are opened when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffii.dataset.snapshot import Snapshot
from diffii.errors import SourceError
from diffii.images import ACCEPTED, UnreadableImage, decode
from diffii.sources import open_source


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
    """A snapshot of `diffii.open`; labelled images in any layout that `diffii.sources` reads, by path or fsspec URL; or
    a sequence.

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
    reader = open_source(url)
    listing = reader.listing()
    entries = listing.entries
    if not entries:
        raise SourceError(f"{url} holds no labelled image; give a folder of class folders, or Parquet")

    def image(number: int) -> Any:
        where = entries[number].where
        try:
            return decode(reader.read(where), ACCEPTED)
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{url}/{where} is not a usable image ({error})") from error

    return _hard(np.array([entry.label for entry in entries], np.int64), listing.classes, image)


def _hard(labels: np.ndarray, classes: tuple[str, ...], image: Callable[[int], Any]) -> Labelled:
    return Labelled(labels, classes, image, labels, np.ones(len(labels)))

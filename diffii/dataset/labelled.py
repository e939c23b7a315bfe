"""Labelled images of any origin, by number: what `mix` puts together. Images are opened when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffii.dataset.snapshot import Snapshot
from diffii.errors import SourceError
from diffii.images import ACCEPTED, UnreadableImage, decode
from diffii.sources import open_source, opener


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
    return _hard(np.asarray(labels, dtype=np.int64), classes, _OfSequence(images))


def soft_label(classes: int, label: int, other: int, weight: float) -> np.ndarray:
    """A distribution over the classes, float32 (classes,): `weight` of it is `label`'s, the rest `other`'s."""
    soft = np.zeros(classes, np.float32)
    soft[other] += np.float32(1.0 - weight)
    soft[label] += np.float32(weight)
    return soft


def _of_snapshot(snapshot: Snapshot) -> Labelled:
    labels = snapshot.labels
    try:
        soft = snapshot.table(["source_label", "label_weight"]) if len(snapshot) else None
    except KeyError:
        soft = None
    if soft is None:
        return _hard(labels, snapshot.classes, snapshot.image)
    others, weights = soft["source_label"].to_numpy(), soft["label_weight"].to_numpy()
    return Labelled(labels, snapshot.classes, snapshot.image, others, weights)


def _of_files(url: str) -> Labelled:
    listing = open_source(url).listing()
    entries = listing.entries
    if not entries:
        raise SourceError(f"{url} holds no labelled image; give a folder of class folders, or Parquet")
    images = _OfFiles(url, tuple(entry.where for entry in entries))
    return _hard(np.array([entry.label for entry in entries], np.int64), listing.classes, images)


# Classes, not functions within functions: where processes are spawned, a DataLoader pickles what its workers read.


class _OfSequence:
    def __init__(self, images: Sequence[tuple[Any, int]]) -> None:
        self._images = images

    def __call__(self, number: int) -> Any:
        return self._images[number][0]


class _OfFiles:
    def __init__(self, url: str, places: tuple[str, ...]) -> None:
        self._url, self._places = url, places

    def __call__(self, number: int) -> Any:
        where = self._places[number]
        try:
            return decode(self._read(where), ACCEPTED)
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{self._url}/{where} is not a usable image ({error})") from error

    @cached_property
    def _read(self) -> Callable[[str], bytes]:
        return opener(self._url)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: another process opens its own."""
        return {"_url": self._url, "_places": self._places}


def _hard(labels: np.ndarray, classes: tuple[str, ...], image: Callable[[int], Any]) -> Labelled:
    return Labelled(labels, classes, image, labels, np.ones(len(labels)))

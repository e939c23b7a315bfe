"""`diffii.mix`: real and synthetic images as one torch data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffii.dataset.labelled import Labelled, labelled, soft_label
from diffii.dataset.mixing import Mixing, Places
from diffii.dataset.snapshot import Snapshot
from diffii.errors import SourceError

Images = Snapshot | str | Path | Sequence[tuple[Any, int]]


class Mixed:
    """A map data set for torch's DataLoader, as long as the real images are. Make one with `diffii.mix`.

    Call `set_epoch` before every epoch: it reaches worker processes that persist, too.
    """

    def __init__(
        self,
        real: Labelled,
        synthetic: Labelled,
        classes: tuple[str, ...],
        mixing: Mixing,
        transform: Callable[[Any], Any] | None,
        rank: int,
    ) -> None:
        import torch

        self.classes, self.soft = classes, synthetic.soft
        self._real, self._synthetic, self._mixing = real, synthetic, mixing
        self._transform, self._rank = transform, rank
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._places: tuple[int, Places] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: another epoch has other synthetic images at other places, the same epoch the same ones."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self._real.labels)

    def __getitem__(self, index: int) -> tuple[Any, int | np.ndarray]:
        """(image, label) of one place of the epoch; `transform` is applied. Raises IndexError outside the data set.

        The label is an int, or, where any synthetic image's is soft, a distribution over the classes, float32 (K,).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"place {index} of an epoch of {len(self)}")
        places = self.places
        images = self._synthetic if places.synthetic[index] else self._real
        number = int(places.index[index])
        image = images.image(number)
        return (self._transform(image) if self._transform else image), self._label(images, number)

    @property
    def places(self) -> Places:
        """Which image stands where in the present epoch."""
        epoch = int(self._epoch[0])
        if self._places is None or self._places[0] != epoch:
            self._places = (epoch, self._mixing.epoch(epoch, self._rank))
        return self._places[1]

    def _label(self, images: Labelled, number: int) -> int | np.ndarray:
        if not self.soft:
            return int(images.labels[number])
        label, other, weight = images.labels[number], images.other_labels[number], images.weights[number]
        return soft_label(len(self.classes), label, other, weight)


def mix(
    real: Images,
    synthetic: Images,
    p: float = 0.5,
    balanced: bool = True,
    *,
    seed: int = 0,
    rank: int = 0,
    transform: Callable[[Any], Any] | None = None,
) -> Mixed:
    """The real images, each replaced with probability `p` by a synthetic one (method.md section 1).

    `balanced` draws the class of a synthetic image with weight 1 / (n_c + 1), so that a long tail is levelled; without
    it the class is that of the image replaced. `real` and `synthetic` are each what `diffii.open` gives, a folder of
    class folders or Parquet by path or URL, or a sequence of (image, label). Classes are matched by name where both
    sides have names. Processes that train together give each its `rank`.

    Images are PIL's, of whatever size they have; `transform` makes of each what a DataLoader can put into a batch.
    Synthetic images come in any order, and a shard is read by row groups (100 MB): a data set of many gigabytes is
    mixed faster from a local `imagefolder` copy of it (`diffii export`).
    Raises SourceError when the classes do not fit, ValueError for a p outside [0, 1].
    """
    originals, made = labelled(real), labelled(synthetic)
    classes, made = _in_classes_of(originals, made)
    mixing = Mixing(originals.labels, made.labels, len(classes), p, balanced, seed)
    return Mixed(originals, made, classes, mixing, transform, rank)


def _in_classes_of(real: Labelled, synthetic: Labelled) -> tuple[tuple[str, ...], Labelled]:
    """The classes of both, and the synthetic images with the labels that the real ones have."""
    if not real.classes or not synthetic.classes:
        most = 1 + max(int(part.max(initial=-1)) for part in (real.labels, synthetic.labels, synthetic.other_labels))
        named = real.classes or synthetic.classes
        if named and most > len(named):
            raise SourceError(f"a label is {most - 1}, and there are {len(named)} classes: {', '.join(named[:5])}, ...")
        return named or tuple(map(str, range(most))), synthetic
    unknown = [name for name in synthetic.classes if name not in real.classes]
    if unknown:
        raise SourceError(f"synthetic images have the class {unknown[0]!r}, which the real ones do not have")
    place = np.array([real.classes.index(name) for name in synthetic.classes], np.int64)
    moved = Labelled(
        place[synthetic.labels], real.classes, synthetic.image, place[synthetic.other_labels], synthetic.weights
    )
    return real.classes, moved

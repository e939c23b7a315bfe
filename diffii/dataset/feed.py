"""Torch data sets over a snapshot: one by number, and one that reads a bucket from end to end; both can be resumed.

Torch is imported where it is needed: reading a data set does without it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from PIL import Image

from diffii.dataset.labelled import soft_label
from diffii.dataset.order import Epoch, Window
from diffii.dataset.share import Options, Share
from diffii.dataset.snapshot import Snapshot

if TYPE_CHECKING:
    from torch.utils.data import Dataset, IterableDataset, Sampler

    _Map, _Rows, _Batches = Dataset[Any], IterableDataset[Any], Sampler[list[int]]
else:
    # Torch may be missing, and a DataLoader asks for less than these.
    _Map = _Rows = _Batches = object

_SOFT = ("source_label", "label_weight")
Transform = Callable[[Image.Image], Any]


class Images(_Map):
    """A map data set for torch's DataLoader; made by `Snapshot.to_torch`.

    An item is (image, label): what `transform` makes of the image, without one a uint8 tensor (3, H, W), and an int, or
    a distribution over the classes, float32 (K,), where labels are soft. With `columns` it is a dict of these columns.

    Any sampler will do, but reading one row reads its row group. `batches` is a batch sampler that asks for rows that
    lie together, `stream` a data set that gives the same batches and reads each row group once or twice an epoch.
    """

    def __init__(self, snapshot: Snapshot, transform: Transform | None = None, columns: Sequence[str] = ()) -> None:
        self.snapshot, self.classes = snapshot, snapshot.classes
        self._transform, self._columns = transform or _as_tensor, tuple(columns)

    def __len__(self) -> int:
        return len(self.snapshot)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The items of a batch, as torch's DataLoader asks for them. Raises IndexError, KeyError."""
        return [self.item(row) for row in self.read(np.asarray(indices))]

    def batches(self, batch_size: int, **options: Unpack[Options]) -> Batches:
        """A batch sampler: `DataLoader(images, batch_sampler=images.batches(64), num_workers=4)`."""
        return Batches(self.snapshot, batch_size, **options)

    def stream(
        self, batch_size: int, collate: Callable[[list[Any]], Any] | None = None, **options: Unpack[Options]
    ) -> Stream:
        """An iterable data set of whole batches: `DataLoader(images.stream(64), batch_size=None, num_workers=4)`."""
        return Stream(self, batch_size, collate, options)

    def read(self, indices: np.ndarray) -> list[dict[str, Any]]:
        """Rows as they are stored, with the columns that an item is made of."""
        return self.snapshot.rows(indices, self._needed)

    def item(self, row: dict[str, Any]) -> Any:
        """What a row that was read becomes."""
        if self._columns:
            return {name: self._image(row) if name == "image" else row[name] for name in self._columns}
        if _SOFT[0] not in row:
            return self._image(row), row["label"]
        return self._image(row), soft_label(len(self.classes), row["label"], *(row[name] for name in _SOFT))

    def _image(self, row: dict[str, Any]) -> Any:
        return self._transform(Image.open(io.BytesIO(row["image"]["bytes"])))

    @cached_property
    def _needed(self) -> tuple[str, ...]:
        soft = tuple(name for name in _SOFT if name in self.snapshot.columns)
        return self._columns or ("image", "label", *soft)


class Batches(Share, _Batches):
    """A batch sampler for `Images`, one rank's. Its state is for plain DataLoaders: the loop counts its batches."""

    def __iter__(self) -> Iterator[list[int]]:
        epoch, places = self._begin()
        for start, stop in places:
            parts = [epoch.positions(window)[part] for window, part in epoch.windows(start, stop)]
            yield np.concatenate(parts).tolist()

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """As `Share.state_dict`, but `batches` must be given: a DataLoader asks for some before they are wanted."""
        if batches is None:
            raise ValueError(
                "say how many batches the loop has taken; StatefulDataLoader, which cannot, needs a stream"
            )
        return super().state_dict(batches)


class Stream(Share, _Rows):
    """An iterable data set whose items are batches, one rank's and in each worker that worker's.

    A worker holds one window of encoded images for each lane that it reads: one, with as many lanes as workers of all
    ranks, or more after a resume with other numbers.
    """

    def __init__(
        self, images: Images, batch_size: int, collate: Callable[[list[Any]], Any] | None, options: Options
    ) -> None:
        from torch.utils.data import IterableDataset, default_collate

        # A DataLoader asks whether it is one.
        IterableDataset.register(Stream)  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(images.snapshot, batch_size, **options)
        self._images, self._collate = images, collate or default_collate

    def __iter__(self) -> Iterator[Any]:
        return self._read(*self._begin())

    def _read(self, epoch: Epoch, places: Iterator[tuple[int, int]]) -> Iterator[Any]:
        held: dict[int, tuple[Window, list[dict[str, Any]]]] = {}
        for start, stop in places:
            rows: list[dict[str, Any]] = []
            for window, part in epoch.windows(start, stop):
                lane = window[0]
                if lane not in held or held[lane][0] != window:
                    held.pop(lane, None)  # gone before the next is read
                    held[lane] = (window, self._images.read(epoch.positions(window)))
                rows += held[lane][1][part]
            yield self._collate([self._images.item(row) for row in rows])


def _as_tensor(image: Image.Image) -> Any:
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

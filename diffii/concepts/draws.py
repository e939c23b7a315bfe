"""What each row of each learning step shows: a pure function of (seed, step, row), so that any step can be made again.

However many workers share a batch, its rows are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffii.circle import gaussian
from diffii.hashing import seed64, uniform


@dataclass(frozen=True, slots=True)
class Draw:
    """One row: an image, whether mirrored, a timestep, and the seed of its noise."""

    image: int
    flip: bool
    timestep: int
    noise_seed: int

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal float32 of `shape`."""
        return gaussian(self.noise_seed, shape)


class Draws:
    """The rows of one data set. `stream` keeps apart what is learned from and what is only measured on."""

    def __init__(
        self,
        labels: Sequence[int],
        seed: int,
        timesteps: int,
        *,
        balanced: bool,
        flip: bool,
        skew: float = 0.0,
        stream: str = "learn",
    ) -> None:
        self._groups = _by_class(labels) if balanced else [np.arange(len(labels))]
        self._seed, self._stream, self._timesteps, self._flip = seed, stream, timesteps, flip
        self._power = 1.0 / (1.0 + skew)
        # Passes repeat for batch after batch; a pass over many classes is worth keeping, one per image set is not.
        self._pass = lru_cache(maxsize=8)(self._permutation)

    def batch(self, step: int, size: int) -> list[Draw]:
        """The `size` rows of a step.

        Classes come in shuffled passes, each class once a pass, and so do the images of a class. Timesteps are spread
        evenly over the batch: one random offset, one timestep in each of `size` equal parts (less variance). Their
        density grows as t^skew.
        """
        offset = uniform(self._seed, self._stream, "offset", step)
        return [self._draw(step, size, row, offset) for row in range(size)]

    def _draw(self, step: int, size: int, row: int, offset: float) -> Draw:
        number = step * size + row
        turn, place = divmod(number, len(self._groups))
        group = int(self._pass(len(self._groups), "group", turn)[place])
        images = self._groups[group]
        visit, position = divmod(turn, len(images))
        image = int(images[self._pass(len(images), group, visit)[position]])
        flip = self._flip and uniform(self._seed, self._stream, "flip", number) < 0.5
        part = (row + uniform(self._seed, self._stream, "part", step, row)) / size
        timestep = min(int(((part + offset) % 1.0) ** self._power * self._timesteps), self._timesteps - 1)
        return Draw(image, flip, timestep, seed64(self._seed, self._stream, "noise", step, row))

    def _permutation(self, count: int, *key: str | int) -> np.ndarray:
        seed = seed64(self._seed, self._stream, *key)
        return np.random.Generator(np.random.Philox(seed)).permutation(count)


def _by_class(labels: Sequence[int]) -> list[np.ndarray]:
    array = np.asarray(labels)
    return [np.flatnonzero(array == label) for label in np.unique(array)]

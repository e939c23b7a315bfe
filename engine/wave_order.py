"""In which order the rows of a wave stand: any stretch of any wave is found alone, by binary search over the passes.

A wave is a stretch of ordinals per class. Its rows stand in the order (pass, class, ordinal), where pass = ordinal //
images of the class: each pass makes as many rows of a class as the class has images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from diffii.dataset.log import WaveEntry


class WaveOrder:
    """The order of every wave of a source with so many images in each class."""

    def __init__(self, images: Sequence[int]) -> None:
        self._images = np.array(images, dtype=np.int64)

    def runs(self, wave: WaveEntry, first: int, last: int) -> Iterator[tuple[int, range]]:
        """Rows [first, last) of a wave as (label, consecutive ordinals), in plan order."""
        starts, stops = np.array(wave.starts), np.array(wave.stops)
        total = int((stops - starts).sum())
        if not 0 <= first < last <= total:
            raise IndexError(f"rows {first}..{last} of a wave of {total}")
        left = last - first
        turn, position = self._find_pass(starts, stops, first)
        while True:
            low = np.clip(turn * self._images, starts, stops)
            counts = np.clip((turn + 1) * self._images, starts, stops) - low
            for label in np.flatnonzero(counts):
                if position >= counts[label]:
                    position -= int(counts[label])
                    continue
                take = min(int(counts[label]) - position, left)
                begin = int(low[label]) + position
                yield int(label), range(begin, begin + take)
                position, left = 0, left - take
                if not left:
                    return
            turn += 1

    def _find_pass(self, starts: np.ndarray, stops: np.ndarray, row: int) -> tuple[int, int]:
        """The pass that holds a row of the wave, and how many rows of that pass come before it."""

        def before(turn: int) -> int:
            return int((np.clip(turn * self._images, starts, stops) - starts).sum())

        last_pass = -(-stops // np.maximum(self._images, 1))
        low, high = 0, int(last_pass.max())
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if before(middle) <= row else (low, middle)
        return low, row - before(low)

"""Which pair and which angle the k-th image of a class gets: spread out before any GPU works.

Independent draws repeat themselves: some pairs never come up while others come twice at nearly one angle. Here every
pair of a class is used before any is reused, and the angles follow an additive low-discrepancy sequence, so that two
plan rows are near-copies of one another as rarely as possible. Both are functions of k alone: a longer sequence
keeps the beginning of a shorter one, and any k is reached at once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from diffii.hashing import uniform

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Step between the angles of one pair's successive uses: no other step keeps any number of them as far apart."""
SILVER = math.sqrt(2.0) - 1.0
"""Step between the angles of successive pairs; another irrational, so that the two steps never fall in line."""


def pair_count(images: int, old: int = 0) -> int:
    """Rows of a class of `images` images until a pair is used again; a single image counts as its own pair.

    With `old`, of the rows that begin with an image from number `old` on (see `pair`).
    """
    if old:
        return (images // 2) * (images - old)
    return max(1, images * (images - 1) // 2)


def pair(images: int, ordinal: int, seed: int, old: int = 0) -> tuple[int, int]:
    """The two image indices, each in [0, images), of the row number `ordinal` of a class.

    Pairs come in rounds by distance on a shuffled ring: (i, i+1) for every i, then (i, i+2), ... so that every image
    is a parent equally often from the start. A class of one image gives (0, 0): its partner is made by forward
    diffusion. With `old`, 0 to images - 1, the first image is one from number `old` on, each equally often, and the
    second any: what a class can have only since those images came. Raises ValueError for a class without images.
    """
    if images < 1:
        raise ValueError("a class without images has no pairs")
    if images == 1:
        return 0, 0
    ring = _ring(images, seed)
    index = ordinal % pair_count(images, old)
    if old:
        starts = _places_from(images, seed, old)
        distance, start = index // len(starts) + 1, int(starts[index % len(starts)])
    else:
        distance, start = index // images + 1, index % images
    return int(ring[start]), int(ring[(start + distance) % images])


def phi(images: int, ordinal: int, seed: int, old: int = 0) -> float:
    """The angle in [0, 2 pi) of the row number `ordinal` of a class; `old` as for `pair`."""
    use, index = divmod(ordinal, pair_count(images, old))
    if images == 1:
        # Every row of a one-image class has a partner of its own, so plain golden steps spread best.
        use, index = ordinal, 0
    fraction = math.modf(uniform("phi", seed) + use * GOLDEN + index * SILVER)[0]
    return 2.0 * math.pi * fraction


def choice(options: int, ordinal: int, seed: int) -> int:
    """An option in [0, options), each used once per round in an order of the round's own."""
    turn, position = divmod(ordinal, options)
    return int(_ring(options, (seed + turn) & (2**64 - 1))[position])


@lru_cache(maxsize=65_536)
def _places_from(images: int, seed: int, old: int) -> np.ndarray:
    """Where on the ring the images from number `old` on stand."""
    return np.flatnonzero(_ring(images, seed) >= old)


@lru_cache(maxsize=65_536)
def _ring(count: int, seed: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).permutation(count)

"""How near is too near: thresholds for near-copies, from the user's own real images.

How far apart the embeddings of *different* photos lie depends on the data set and on the model. So the measure is
each real image's squared distance to its nearest neighbour of the same class; the class's threshold is a fixed share
of the median. A class of one or two images tells nothing about itself and takes the median of all others.

All of it is integers: the same embeddings give the same thresholds on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from diffii.errors import OutputError
from diffii.signatures import DIMENSIONS, STEP, Signatures
from engine.near_copies import FARTHEST, Threshold

ALONE = Fraction(7, 40)
"""Share of the median at which the embedding alone decides.

The three values here were chosen together on 1400 rows of the embedded model, 420 of them a row made again with its
angle shifted by 1 to 5 degrees; shares from 0.15 to 0.2 do as well within the error. `tests.bench.near_copies` measures
them again, perhaps on some of the same photos: 99 % of the planted are found, and 99 % of the rows called copies are
copies by its label (7 rows per photo). With `--worlds 1 --factor 28` that second figure is 91 %: the plan's own rows
come close to one another there. Of 1000 rows at 20 per photo 63 were rejected; to the eye each showed what its match
did, though most started 5 to 20 degrees apart and the judge's label would call only a third of them copies.
"""
WITH_HASH = Fraction(3, 10)
"""Share of the median at which the embedding confirms what the hash proposed."""
HASH_RADIUS = 4
"""Bits in which two perceptual hashes may differ to propose a copy; at 8 the hash pairs a third of distinct boots."""

_FEW_SHOT = Fraction(4, 25)
"""The neighbour looked at is the nearest of up to 7 images, and of more the one that leaves this share of the class
nearer: the nearest of four others, the 5-shot case, lies there. Else every photo added would tighten the threshold,
although near-copies among generated rows stay as near as they are."""
_SMALLEST_CLASS = 3
_SAMPLE = 512
"""Images of a class that are compared: beyond, the median stands still and the cost is quadratic."""
_UNKNOWN = int(DIMENSIONS * STEP**2)
"""Taken when no class has two images: the squared distance of features at a cosine of one half, which is what the
classes of the embedded data set have at five images (10 500 to 19 500)."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`thresholds` per class; `nearest` the median squared distance of each class that has one, `pooled` of all.

    `across` is the threshold that follows from `pooled`: for images whose class is not asked, such as held-out ones.
    """

    thresholds: tuple[Threshold, ...]
    nearest: dict[int, int]
    pooled: int
    across: Threshold

    def to_record(self) -> dict[str, Any]:
        """Plain JSON: `thresholds` and `across` as [alone, with_hash], medians by label."""
        return {
            "thresholds": [[threshold.alone, threshold.with_hash] for threshold in self.thresholds],
            "across": [self.across.alone, self.across.with_hash],
            "medians": {str(label): median for label, median in sorted(self.nearest.items())},
            "pooled_median": self.pooled,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Calibration:
        """What `to_record` gave. Raises OutputError when it is something else."""
        try:
            return cls(
                tuple(Threshold(alone, with_hash) for alone, with_hash in record["thresholds"]),
                {int(label): median for label, median in record["medians"].items()},
                record["pooled_median"],
                Threshold(*record["across"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"the log's entry on near-copies is damaged ({error!r}): restore it from a copy"
            ) from error


def calibrate(
    real: Signatures, classes: int, alone: Fraction | float = ALONE, with_hash: Fraction | float = WITH_HASH
) -> Calibration:
    """Thresholds for classes 0..classes-1 from signatures of the real training images, in any order.

    `alone` and `with_hash` are shares of the median, 0 or more; overriding them is how a user makes the decision
    stricter or looser. Raises ValueError for a negative share.
    """
    if alone < 0 or with_hash < 0:
        raise ValueError(f"shares of the median are 0 or more, got {alone} and {with_hash}")
    spread = {label: _neighbours(real.embeddings[real.labels == label]) for label in range(classes)}
    informed = {label: values for label, values in spread.items() if len(values) >= _SMALLEST_CLASS}
    # Pairs say less than triples: they count only where there is nothing else.
    pool = np.concatenate(list((informed or spread).values()) or [np.empty(0, np.int64)])
    nearest = {label: _median(values) for label, values in informed.items()}
    pooled = _median(pool) if len(pool) else _UNKNOWN
    shares = (Fraction(alone), Fraction(with_hash))
    thresholds = tuple(_threshold(nearest.get(label, pooled), *shares) for label in range(classes))
    return Calibration(thresholds, nearest, pooled, _threshold(pooled, *shares))


def _threshold(median: int, alone: Fraction, with_hash: Fraction) -> Threshold:
    return Threshold(min(FARTHEST, int(median * alone)), min(FARTHEST, int(median * with_hash)))


def _neighbours(embeddings: np.ndarray) -> np.ndarray:
    """For each image of a class (n, 64) the squared distance to the neighbour that counts: int64 (n,), or (0,)."""
    if len(embeddings) > _SAMPLE:
        # By content, so that the order in which a source lists its images does not matter.
        order = np.lexsort(embeddings.T)
        embeddings = embeddings[order[:: -(-len(order) // _SAMPLE)]]
    count = len(embeddings)
    if count < 2:
        return np.empty(0, dtype=np.int64)
    values = embeddings.astype(np.int64)
    squares = (values * values).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * values @ values.T
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    rank = -(-(count - 1) * _FEW_SHOT.numerator // _FEW_SHOT.denominator)
    return np.sort(distances, axis=1)[:, rank - 1]


def _median(values: np.ndarray) -> int:
    """The lower median: always one of the values, so nothing is rounded."""
    return int(np.sort(values)[(len(values) - 1) // 2])

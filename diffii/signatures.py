"""What rows are compared by: a perceptual hash and 64 small integers, stored beside every row.

    N  rows   D  features of an embedding model

Near-copies are decided on these bytes alone, so the same bytes give the same decision on any machine; only the
rounding to integers follows a float computation, and it is done once, where the image is made. Needs no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

DIMENSIONS = 64
LIMIT = 63
"""Quantised values lie in [-63, 63]: the largest squared distance, 64 * 126^2, is far below 2^24, where float32 ends
to count exactly."""
STEP = 16.0
"""A projected unit vector has components of variance 1, so +-63 is four standard deviations: one in 10^4 is cut."""
_SIGNS_KEY = 20240816
"""Key of the Philox stream that fixes the projection. Another key is another embedding space."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """Rows to compare: labels int64 (N,), perceptual hashes uint64 (N,), embeddings int8 (N, 64) within +-63."""

    labels: np.ndarray
    hashes: np.ndarray
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.labels)
        if self.hashes.shape != (rows,) or self.hashes.dtype != np.uint64:
            raise ValueError(f"hashes are uint64 ({rows},), got {self.hashes.dtype} {self.hashes.shape}")
        if self.embeddings.shape != (rows, DIMENSIONS) or self.embeddings.dtype != np.int8:
            raise ValueError(
                f"embeddings are int8 ({rows}, {DIMENSIONS}), got {self.embeddings.dtype} {self.embeddings.shape}"
            )
        if rows and int(np.abs(self.embeddings.astype(np.int16)).max()) > LIMIT:
            raise ValueError(f"embeddings are within +-{LIMIT}; beyond that float32 sums would not be exact")

    @classmethod
    def from_columns(cls, labels: Sequence[int], phashes: Sequence[bytes], embeddings: Sequence[bytes]) -> Signatures:
        """From stored columns: 8 bytes of hash and 64 of embedding a row. Raises ValueError for other lengths."""
        return cls(
            np.array(labels, dtype=np.int64),
            np.frombuffer(b"".join(phashes), dtype=">u8").astype(np.uint64),
            np.frombuffer(b"".join(embeddings), dtype=np.int8).reshape(-1, DIMENSIONS),
        )

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Signatures:
        """From rows with `label`, `phash` and `embedding`, as they are staged and published."""
        rows = list(rows)
        return cls.from_columns(*([row[name] for row in rows] for name in ("label", "phash", "embedding")))

    def take(self, rows: np.ndarray) -> Signatures:
        return Signatures(self.labels[rows], self.hashes[rows], self.embeddings[rows])

    def __len__(self) -> int:
        return len(self.labels)


def quantise(features: np.ndarray) -> np.ndarray:
    """Features (N, D) -> int8 (N, 64) in [-63, 63]: unit length, fixed random signs, 1/16 of a deviation per step.

    A squared distance between two results is about 2 * 64 * 16^2 * (1 - cosine) of the features. Sums are float64, so
    that their order could matter only to a value within 1e-12 of a half. Raises ValueError for values that are not
    finite and for a row of zeros, which has no direction.
    """
    x = np.asarray(features, dtype=np.float64)
    norms = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise ValueError("features are not finite or all zero")
    return np.clip(np.rint((x / norms) @ _signs(x.shape[1]) * STEP), -LIMIT, LIMIT).astype(np.int8)


@lru_cache(maxsize=4)
def _signs(features: int) -> np.ndarray:
    """The projection (D, 64) of +1 and -1.

    From the generator's raw bits: numpy promises that stream for ever, but not how it makes normal numbers of it.
    """
    words = np.random.Philox(key=_SIGNS_KEY).random_raw(features).astype("<u8")
    return 1.0 - 2.0 * np.unpackbits(words.view(np.uint8)).reshape(features, DIMENSIONS)

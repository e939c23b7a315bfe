"""Which image stands at which place of an epoch: the paper's replacement mixing, and its draw for a long tail.

    N  real images   M  synthetic images   K  classes

Every real image keeps its place in the epoch, so that an epoch is as long as without synthetic images. At each place it
is replaced with probability p: by a random synthetic image of its class, or, balanced, by one of a class drawn with
weight 1 / (n_c + 1), n_c being the real images of class c (method.md section 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffii.hashing import seed64


@dataclass(frozen=True, slots=True)
class Places:
    """One epoch: `synthetic[i]` says from which set place i is filled, `index[i]` which image of that set it is."""

    synthetic: np.ndarray
    index: np.ndarray


class Mixing:
    """A pure function of epoch and rank. `real` (N,) and `synthetic` (M,) are labels in [0, K)."""

    def __init__(
        self, real: np.ndarray, synthetic: np.ndarray, classes: int, p: float, balanced: bool, seed: int = 0
    ) -> None:
        """Raises ValueError when p is outside [0, 1], there is no real image, or a label is out of range."""
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p is a probability, got {p}")
        if not len(real):
            raise ValueError("there is no real image to mix with")
        for labels in (real, synthetic):
            if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
                raise ValueError(f"a label is outside the {classes} classes")
        self._real, self._p, self._balanced, self._seed = np.asarray(real), p, balanced, seed
        self._order = np.argsort(synthetic, kind="stable")
        self._counts = np.bincount(synthetic, minlength=classes) if len(synthetic) else np.zeros(classes, np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        weights = np.where(self._counts > 0, 1.0 / (np.bincount(self._real, minlength=classes) + 1.0), 0.0)
        self._bounds = np.cumsum(weights / weights.sum()) if weights.any() else np.ones(classes)

    def epoch(self, epoch: int, rank: int = 0) -> Places:
        """Every epoch and every rank has draws of its own; a class without synthetic images keeps its real ones."""
        rng = np.random.Generator(np.random.Philox(seed64(self._seed, "mix", epoch, rank)))
        places = len(self._real)
        # All are drawn whatever p is, so that runs with another p share what they can.
        replace, which, wanted = rng.random(places), rng.random(places), rng.random(places)
        label = np.searchsorted(self._bounds, wanted, side="right") if self._balanced else self._real
        label = np.minimum(label, len(self._counts) - 1)
        there = self._counts[label]
        synthetic = (replace < self._p) & (there > 0)
        index = np.arange(places)
        chosen = self._starts[label] + np.floor(which * there).astype(np.int64)
        index[synthetic] = self._order[chosen[synthetic]]
        return Places(synthetic, index)

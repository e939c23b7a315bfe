"""Whether an image shows its class (prototypes), and whether it merely repeats a training image (memorisation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffii.metrics.features import directions, distances, neighbour_radii, paired


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Per synthetic row, in their order."""

    cosine: np.ndarray
    """To the prototype of its own class, from -1 to 1; NaN when that class has no real row."""
    nearest: np.ndarray
    """Label of the nearest prototype: its own, if the image shows its class."""


def prototypes(features: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Label -> the direction of the mean of its rows' directions. Raises ValueError for a row of zeros."""
    u = directions(features, "real features")
    means = {int(label): u[labels == label].mean(axis=0) for label in np.unique(labels)}
    return {label: directions(mean[None])[0] for label, mean in means.items()}


def faithfulness(real: np.ndarray, real_labels: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> Faithfulness:
    """Cosines of rows (M, D) with labels (M,) to the prototypes of the real ones' classes.

    Raises ValueError for a row of zeros or for labels of another length.
    """
    paired(real, rows)
    if len(real_labels) != len(real) or len(labels) != len(rows):
        raise ValueError("each row has one label")
    found = prototypes(real, np.asarray(real_labels))
    names = np.array(sorted(found))
    cosines = directions(rows, "synthetic features") @ np.stack([found[int(label)] for label in names]).T
    column = {int(label): number for number, label in enumerate(names)}
    own = [cosines[row, column[int(label)]] if int(label) in column else np.nan for row, label in enumerate(labels)]
    return Faithfulness(np.array(own), names[cosines.argmax(axis=1)])


def held_out_faithfulness(features: np.ndarray, labels: np.ndarray) -> Faithfulness:
    """What real rows score themselves, each against prototypes made without it: the figure to compare with.

    A row that is alone in its class has no prototype left: its cosine is NaN.
    """
    u, labels = directions(features, "real features"), np.asarray(labels)
    names, column = np.unique(labels, return_inverse=True)
    sums = np.stack([u[labels == label].sum(axis=0) for label in names])
    cosines = u @ directions(sums, "the classes' sums").T
    rest = sums[column] - u
    lengths = np.linalg.norm(rest, axis=1)
    there = (np.bincount(column)[column] > 1) & (lengths > 0)
    own = np.full(len(u), np.nan)
    own[there] = np.sum(u[there] * rest[there], axis=1) / lengths[there]
    cosines[np.arange(len(u)), column] = np.where(there, own, -np.inf)
    return Faithfulness(own, names[cosines.argmax(axis=1)])


@dataclass(frozen=True, slots=True)
class Memorisation:
    """`close` of `rows` synthetic images, and `real_close` of `real_rows` real ones by the same rule."""

    close: int
    rows: int
    real_close: int
    real_rows: int

    def __add__(self, other: Memorisation) -> Memorisation:
        return Memorisation(
            self.close + other.close,
            self.rows + other.rows,
            self.real_close + other.real_close,
            self.real_rows + other.real_rows,
        )

    @property
    def share(self) -> float | None:
        return self.close / self.rows if self.rows else None

    @property
    def real_share(self) -> float | None:
        """What fresh photos of the same kind score: more than this among synthetic ones is memorisation."""
        return self.real_close / self.real_rows if self.real_rows else None


def memorisation(real: np.ndarray, synthetic: np.ndarray) -> Memorisation:
    """How many images lie closer to a real image than any other real image does (1 - authenticity, Alaa et al. 2022).

    With i the real row nearest to a synthetic row s: s counts when `|s - i| < min over j != i of |i - j|`. The same is
    asked of every real row h in turn, with h left out of the real set: `|h - i| < min over j not in {h, i} of |i - j|`,
    which is what an image that nobody has copied scores. Of one class at a time: classes are nearer to themselves.
    The first figure needs two real rows, the second three; with fewer nothing is counted.
    """
    x, y = paired(real, synthetic)
    if len(x) < 2:
        return Memorisation(0, 0, 0, 0)
    within, across = distances(x, x), distances(y, x)
    nearest = across.argmin(axis=1)
    close = across[np.arange(len(y)), nearest] < neighbour_radii(within, 1)[nearest]
    if len(x) < 3:
        return Memorisation(int(close.sum()), len(y), 0, 0)
    real_close = 0
    np.fill_diagonal(within, np.inf)
    for row in range(len(x)):
        i = int(within[row].argmin())
        others = within[i].copy()
        others[row] = np.inf
        real_close += bool(within[row, i] < others.min())
    return Memorisation(int(close.sum()), len(y), real_close, len(x))

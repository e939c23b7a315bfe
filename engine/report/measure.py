"""What is measured of a sample: each figure for every class and for all, beside what real images score themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffii.metrics.diversity import mean_distance, vendi_score
from diffii.metrics.kernel import kernel_distance
from diffii.metrics.likeness import Faithfulness, Memorisation, faithfulness, held_out_faithfulness, memorisation
from diffii.metrics.manifold import manifold

KID_ROWS = 20
"""Images of each kind below which KID is not said: of five its error is larger than any distance there is to tell."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one class or of all; None where there are too few images to say. Shares are 0 to 1."""

    real: int
    """Images measured."""
    synthetic: int
    judged: float | None = None
    """Share that the judge gives its own class."""
    judged_real: float | None = None
    nearest: float | None = None
    """Share whose nearest class prototype is their own."""
    nearest_real: float | None = None
    cosine: float | None = None
    """Mean cosine to the own class's prototype."""
    cosine_real: float | None = None
    distance: float | None = None
    """Mean cosine distance within a class."""
    distance_real: float | None = None
    vendi: float | None = None
    """Effective number of different images in a class."""
    vendi_of: float | None = None
    """Images that this is of."""
    kid: float | None = None
    kid_std: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    memorised: float | None = None
    memorised_real: float | None = None
    clip: float | None = None
    """CLIPScore, 0 to 100."""
    clip_real: float | None = None


@dataclass(frozen=True)
class Measured:
    """Features (N, D) of real and synthetic images with labels; the judge's labels and CLIPScores if there are any."""

    real: np.ndarray
    real_labels: np.ndarray
    synthetic: np.ndarray
    labels: np.ndarray
    judged_real: np.ndarray | None = None
    judged: np.ndarray | None = None
    clip_real: np.ndarray | None = None
    clip: np.ndarray | None = None


def figures(found: Measured, classes: int) -> tuple[Figures, list[Figures]]:
    """For all, and for every class in the order of labels.

    Distributions (KID, precision and recall, density and coverage) are compared whole for all; diversity is the mean
    over classes, because images of two classes differ whatever is done; memorisation is summed over classes.
    """
    own = faithfulness(found.real, found.real_labels, found.synthetic, found.labels)
    held = held_out_faithfulness(found.real, found.real_labels)
    copied: list[Memorisation] = []
    each: list[Figures] = []
    for label in range(classes):
        rows, real_rows = found.labels == label, found.real_labels == label
        copy = _memorised(found.real[real_rows], found.synthetic[rows])
        copied.append(copy)
        each.append(_figures(found, rows, real_rows, own, held, copy))
    every, every_real = np.ones(len(found.labels), bool), np.ones(len(found.real_labels), bool)
    total = sum(copied, Memorisation(0, 0, 0, 0))
    means = {
        name: _mean([getattr(one, name) for one in each]) for name in ("distance", "distance_real", "vendi", "vendi_of")
    }
    return _figures(found, every, every_real, own, held, total, means), each


def _figures(
    found: Measured,
    rows: np.ndarray,
    real_rows: np.ndarray,
    own: Faithfulness,
    held: Faithfulness,
    copied: Memorisation,
    diversity: dict[str, float | None] | None = None,
) -> Figures:
    real, made = found.real[real_rows], found.synthetic[rows]
    labels, real_labels = found.labels[rows], found.real_labels[real_rows]
    if diversity is None:
        diversity = {
            "distance": mean_distance(made) if len(made) > 1 else None,
            "distance_real": mean_distance(real) if len(real) > 1 else None,
            "vendi": vendi_score(made) if len(made) else None,
            "vendi_of": float(len(made)) if len(made) else None,
        }
    compared: dict[str, float] = {}
    if min(len(real), len(made)) >= KID_ROWS:
        kid = kernel_distance(real, made)
        compared = {"kid": kid.mean, "kid_std": kid.std}
    if min(len(real), len(made)) > 1:
        lies = manifold(real, made)
        compared |= {
            "precision": lies.precision,
            "recall": lies.recall,
            "density": lies.density,
            "coverage": lies.coverage,
        }
    return Figures(
        real=len(real),
        synthetic=len(made),
        judged=None if found.judged is None else _share(found.judged[rows] == labels),
        judged_real=None if found.judged_real is None else _share(found.judged_real[real_rows] == real_labels),
        nearest=_share(own.nearest[rows] == labels),
        nearest_real=_share((held.nearest[real_rows] == real_labels)[~np.isnan(held.cosine[real_rows])]),
        cosine=_mean(own.cosine[rows]),
        cosine_real=_mean(held.cosine[real_rows]),
        memorised=copied.share,
        memorised_real=copied.real_share,
        clip=None if found.clip is None else _mean(found.clip[rows]),
        clip_real=None if found.clip_real is None else _mean(found.clip_real[real_rows]),
        **diversity,
        **compared,
    )


def _memorised(real: np.ndarray, made: np.ndarray) -> Memorisation:
    return memorisation(real, made) if len(real) and len(made) else Memorisation(0, 0, 0, 0)


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _mean(values: np.ndarray | list[float | None]) -> float | None:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None

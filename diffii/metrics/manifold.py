"""Whether synthetic images lie where real ones do, and reach everywhere real ones are.

Both pairs of figures describe a set by balls around its members, each reaching to the member's k-th nearest other.
Balls are closed: a point on the rim is inside, so that a set of one repeated image holds itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffii.metrics.features import distances, neighbour_radii, paired


@dataclass(frozen=True, slots=True)
class Manifold:
    """All from 0 to 1 but density, which has no upper end; 1 is what real images reach against themselves."""

    precision: float
    """Share of synthetic rows inside some ball of the real rows."""
    recall: float
    """Share of real rows inside some ball of the synthetic rows."""
    density: float
    """In how many real balls a synthetic row lies, over k: as many as a real row on average would be 1."""
    coverage: float
    """Share of real balls that hold a synthetic row."""
    k_ball: int
    """Neighbours that the balls of precision and recall reach to, cut to what the smaller set has."""
    k_density: int
    """The same for density and coverage."""


def manifold(real: np.ndarray, synthetic: np.ndarray, k_ball: int = 3, k_density: int = 5) -> Manifold:
    """Precision and recall of Kynkaanniemi et al. (NeurIPS 2019), density and coverage of Naeem et al. (ICML 2020).

    The defaults of k are those papers' own. Raises ValueError when a side has fewer than two rows.
    """
    x, y = paired(real, synthetic, rows=2)
    k_ball, k_density = min(k_ball, len(x) - 1, len(y) - 1), min(k_density, len(x) - 1)
    across = distances(x, y)
    among_real = distances(x, x)
    in_real = across <= neighbour_radii(among_real, k_ball)[:, None]
    in_synthetic = across <= neighbour_radii(distances(y, y), k_ball)[None, :]
    in_wide = across <= neighbour_radii(among_real, k_density)[:, None]
    return Manifold(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_synthetic.any(axis=1).mean()),
        density=float(in_wide.sum(axis=0).mean() / k_density),
        coverage=float(in_wide.any(axis=1).mean()),
        k_ball=k_ball,
        k_density=k_density,
    )

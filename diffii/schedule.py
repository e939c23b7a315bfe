"""Noise levels: which timesteps an inversion climbs and a sampling descends, and where the prompt changes.

A DDIM path is a list of timesteps; the clean end is not in it. Both directions evaluate the model at the upper end of
each segment, so that on a *matched* grid inversion and sampling cross the same segments at the same timesteps and
both meet at the same top level, T-1. (The reference climbs to t = 996 and descends from t = 961.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from torch import Tensor

Spacing = Literal["matched", "leading"]


@dataclass(frozen=True)
class Grid:
    """Ascending timesteps with the cumulative alpha at each, and below the first."""

    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]
    clean_alpha: float
    train_timesteps: int

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def below(self, index: int) -> float:
        """The cumulative alpha at the lower end of segment `index`."""
        return self.alphas[index - 1] if index > 0 else self.clean_alpha


def make_grid(alphas_cumprod: np.ndarray, clean_alpha: float, steps: int, spacing: Spacing, offset: int = 1) -> Grid:
    """A grid of `steps` timesteps over alphas_cumprod (T,).

    `matched` ends at T-1 for any number of steps; `leading` is diffusers' spacing of that name with its `steps_offset`.
    Raises ValueError when steps is not in 1..T.
    """
    total = len(alphas_cumprod)
    if not 1 <= steps <= total:
        raise ValueError(f"a grid has between 1 and {total} steps, got {steps}")
    if spacing == "matched":
        timesteps = tuple(round(Fraction(total * (index + 1), steps)) - 1 for index in range(steps))
    else:
        timesteps = tuple(min(index * (total // steps) + offset, total - 1) for index in range(steps))
    return Grid(timesteps, tuple(float(alphas_cumprod[t]) for t in timesteps), clean_alpha, total)


def steps_within(grid: Grid, share: float) -> int:
    """How many steps of the grid, from the clean end, end within this share of the path, in [0, 1]."""
    boundary = grid.train_timesteps * Fraction(repr(float(share)))
    return sum(t + 1 <= boundary for t in grid.timesteps)


def first_stage(grid: Grid, share: float) -> tuple[bool, ...]:
    """For each timestep of the grid: is it in the first `share` of the path, in [0, 1], counted from the noise end?

    That is t >= T (1 - share), as of the stage whose prompt has the suffix (section 3.3; the text of the paper states
    it backwards). Compared as exact fractions: 1000 x (1 - 0.3) in floats may miss t = 700.
    """
    boundary = grid.train_timesteps * (1 - Fraction(repr(float(share))))
    return tuple(t >= boundary for t in grid.timesteps)


def to_epsilon(prediction: Tensor, x: Tensor, alpha: float, kind: str) -> Tensor:
    """The noise that a model's output stands for, at cumulative alpha `alpha`; kind `epsilon` or `v_prediction`."""
    if kind == "epsilon":
        return prediction
    if kind == "v_prediction":
        return alpha**0.5 * prediction + (1.0 - alpha) ** 0.5 * x
    raise ValueError(f"prediction type {kind!r} is neither epsilon nor v_prediction")


def ddim_move(x: Tensor, epsilon: Tensor, alpha_from: float, alpha_to: float) -> Tensor:
    """One deterministic DDIM step between two levels, in either direction (Eq. 4, whose coefficient is misprinted).

    The clean image implied by (x, epsilon) at `alpha_from` is noised again, with the same epsilon, to `alpha_to`.
    """
    ratio = (alpha_to / alpha_from) ** 0.5
    return ratio * x + ((1.0 - alpha_to) ** 0.5 - ratio * (1.0 - alpha_from) ** 0.5) * epsilon

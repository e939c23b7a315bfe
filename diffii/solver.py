"""How a latent moves from one noise level to the next: DDIM, or DPM-Solver++ 2M in half as many steps.

    abar  cumulative alpha of a level   alpha = sqrt(abar), sigma = sqrt(1 - abar)   lambda = log(alpha / sigma)

DPM-Solver++ (Lu et al. 2022, algorithm 2) keeps the clean image x0 that the step before saw. Over h = lambda_to -
lambda_from it moves

    x_to = (sigma_to / sigma_from) x - alpha_to (exp(-h) - 1) D,     D = x0 + h / (2 h_before) (x0 - x0_before)

Without a step before, D = x0, and the move is DDIM's. It works in both directions: h is negative on the way up.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from diffii.kinds import Solver
from diffii.schedule import ddim_move


class Path(Protocol):
    """One batch on its way through the noise levels."""

    def move(
        self, x: Tensor, epsilon: Tensor, alpha_from: float, alpha_to: float, first: Tensor | None = None
    ) -> Tensor:
        """`x` (B, C, H, W) at cumulative alpha `alpha_from`, brought to `alpha_to` by the noise `epsilon` seen in it.

        `first` (B, 1, 1, 1) marks rows whose way begins with this step.
        """
        ...


def path(solver: Solver) -> Path:
    """A new path; one that has been used belongs to its batch."""
    return _DPM() if solver == "dpm++" else _DDIM()


class _DDIM:
    def move(
        self, x: Tensor, epsilon: Tensor, alpha_from: float, alpha_to: float, first: Tensor | None = None
    ) -> Tensor:
        return ddim_move(x, epsilon, alpha_from, alpha_to)


class _DPM:
    def __init__(self) -> None:
        self._clean: Tensor | None = None
        self._h = math.inf

    def move(
        self, x: Tensor, epsilon: Tensor, alpha_from: float, alpha_to: float, first: Tensor | None = None
    ) -> Tensor:
        clean = (x - (1.0 - alpha_from) ** 0.5 * epsilon) / alpha_from**0.5
        before, h_before = self._clean, self._h
        self._clean, self._h = clean, math.inf
        if max(alpha_from, alpha_to) >= 1.0:
            # lambda is infinite at the clean end: there the first order alone is defined, and it is DDIM's.
            return ddim_move(x, epsilon, alpha_from, alpha_to)
        self._h = h = _log_snr(alpha_to) - _log_snr(alpha_from)
        wanted = clean
        if before is not None:
            wanted = clean + h / (2.0 * h_before) * (clean - before)
            wanted = wanted if first is None else torch.where(first, clean, wanted)
        ratio = ((1.0 - alpha_to) / (1.0 - alpha_from)) ** 0.5
        return ratio * x - alpha_to**0.5 * math.expm1(-h) * wanted


def _log_snr(alpha: float) -> float:
    return 0.5 * math.log(alpha / (1.0 - alpha))

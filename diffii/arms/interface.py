"""What an arm is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from diffii.circle import Norm

Takes = Literal["nothing", "latents", "inversions"]
"""What of its parents an arm wants: nobody pays for more."""
Prompts = Literal["two-stage", "plain", "suffix"]
"""`two-stage`: with the suffix in the first stage and plain after it; `plain`: never with it; `suffix`: always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """Settings of the arms that begin from a noised real image."""

    strengths: tuple[float, ...]
    """Shares of the noise path, each in (0, 1], that rows take in turn."""
    gamma: float
    """The label's weight is the strength to this power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a row begins from: decided in the plan."""

    parents: tuple[tuple[int, int], ...] = ()
    """(label, index among the label's images), at most two."""
    phi: float = 0.0
    """Angle on the circle, in radians; for `slerp` the share in [0, 1) of the angle between the parents."""
    strength: float = 1.0
    """Share of the noise path that is denoised."""
    label_weight: float = 1.0
    """Weight of the row's own class in its label; the rest is that of the first parent's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A real image as the model sees it, float32 (C, H, W). The inversion is empty where only latents are taken."""

    latent: np.ndarray
    inversion: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the actor knows of a row when it begins."""

    shape: tuple[int, ...]
    """Of a latent: (C, H, W)."""
    seed: int
    phi: float
    strength: float
    alphas: tuple[float, ...]
    """Cumulative alphas of the sampling grid, ascending in noise."""
    norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a row's denoising begins."""

    noise: np.ndarray
    """float32 (C, H, W)."""
    theta: float = 0.0
    """Angle between the parents in radians; 0 where there are not two."""
    phi: float = 0.0
    """Angle on their circle in radians."""
    steps: int
    """Steps of the grid that are left from there, 1 to all."""


class Arm(Protocol):
    """One way to begin. Both calls are pure: the same arguments give the same answer on every machine."""

    name: ClassVar[str]
    takes: ClassVar[Takes]
    prompts: ClassVar[Prompts]

    def draw(self, sizes: Sequence[int], label: int, ordinal: int, seed: int, knobs: Knobs, old: int = 0) -> Draw:
        """Parents and parameters of row `ordinal` (from 0 without end) of class `label`, which has images.

        `sizes` are the real images per class; `seed` is the class's own. With `old`, a row begins with one of the
        class's images from that number on, where it begins with one of the class's at all.
        """
        ...

    def start(self, parents: Sequence[Parent], moment: Moment) -> Start:
        """Where to begin; `parents` are those of the draw, one where both are the same image.

        Raises ValueError when a parent is not finite.
        """
        ...

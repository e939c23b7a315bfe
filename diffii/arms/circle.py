"""The arms that begin between two inversions of a class: Diff-II, and what its paper takes away from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from diffii import strata
from diffii.arms.interface import Draw, Knobs, Moment, Parent, Prompts, Start, Takes
from diffii.circle import angle, circle_point, gaussian
from diffii.hashing import seed64


class DiffII:
    """A uniform angle on the great circle through two inversions, then two stages (method.md section 1)."""

    name: ClassVar[str] = "diff-ii"
    takes: ClassVar[Takes] = "inversions"
    prompts: ClassVar[Prompts] = "two-stage"

    def draw(self, sizes: Sequence[int], label: int, ordinal: int, seed: int, knobs: Knobs, old: int = 0) -> Draw:
        images = sizes[label]
        a, b = strata.pair(images, ordinal, seed, old)
        return Draw(parents=((label, a), (label, b)), phi=strata.phi(images, ordinal, seed, old))

    def start(self, parents: Sequence[Parent], moment: Moment) -> Start:
        a, b = _pair(parents, moment)
        return self._at(a, b, moment.phi, moment)

    def _at(self, a: np.ndarray, b: np.ndarray, phi: float, moment: Moment) -> Start:
        spare = gaussian(moment.seed, a.shape)
        point = circle_point(a, b, phi, spare, moment.norm)
        return Start(noise=point, theta=angle(a, b), phi=phi, steps=len(moment.alphas))


class Circle(DiffII):
    """The circle without the suffix: the paper's ablation of two-stage denoising."""

    name: ClassVar[str] = "circle"
    prompts: ClassVar[Prompts] = "plain"


class Slerp(DiffII):
    """The arc between the parents alone, without the suffix: the paper's ablation of the circle.

    The share of the arc is uniform on [0, 1), by the sequence that gives Diff-II its angles.
    """

    name: ClassVar[str] = "slerp"
    prompts: ClassVar[Prompts] = "plain"

    def draw(self, sizes: Sequence[int], label: int, ordinal: int, seed: int, knobs: Knobs, old: int = 0) -> Draw:
        drawn = super().draw(sizes, label, ordinal, seed, knobs, old)
        return Draw(parents=drawn.parents, phi=drawn.phi / (2 * np.pi))

    def start(self, parents: Sequence[Parent], moment: Moment) -> Start:
        a, b = _pair(parents, moment)
        return self._at(a, b, moment.phi * angle(a, b), moment)


def _pair(parents: Sequence[Parent], moment: Moment) -> tuple[np.ndarray, np.ndarray]:
    """Two inversions. The partner of a class's only image: its own latent, noised to the top by a seed of the row."""
    if len(parents) == 2:
        return parents[0].inversion, parents[1].inversion
    latent = parents[0].latent
    noise = gaussian(seed64(moment.seed, "partner"), latent.shape)
    return parents[0].inversion, diffuse(latent, moment.alphas[-1], noise)


def diffuse(latent: np.ndarray, alpha: float, noise: np.ndarray) -> np.ndarray:
    """Forward diffusion to the cumulative alpha `alpha`: sqrt(alpha) latent + sqrt(1 - alpha) noise; float32."""
    return (np.float32(alpha**0.5) * latent + np.float32((1 - alpha) ** 0.5) * noise).astype(np.float32)

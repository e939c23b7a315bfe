"""The arms that edit a real image (SDEdit): its latent is noised part of the way, and denoised under a prompt.

Both are those of "Enhance Image Classification via Inter-Class Image Mixup with Diffusion Model" (Diff-Mix, CVPR 2024).
Neither inverts an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from diffii import strata
from diffii.arms.circle import diffuse
from diffii.arms.interface import Draw, Knobs, Moment, Parent, Prompts, Start, Takes
from diffii.circle import gaussian
from diffii.hashing import seed64


class DiffAug:
    """An image of the class itself, edited towards its own concept with a suffix all the way."""

    name: ClassVar[str] = "diff-aug"
    takes: ClassVar[Takes] = "latents"
    prompts: ClassVar[Prompts] = "suffix"

    def draw(self, sizes: Sequence[int], label: int, ordinal: int, seed: int, knobs: Knobs, old: int = 0) -> Draw:
        image = old + strata.choice(sizes[label] - old, ordinal, seed)
        return Draw(parents=((label, image),), strength=_strength(knobs, ordinal, seed))

    def start(self, parents: Sequence[Parent], moment: Moment) -> Start:
        steps = steps_of(moment.strength, len(moment.alphas))
        noise = gaussian(moment.seed, parents[0].latent.shape)
        return Start(noise=diffuse(parents[0].latent, moment.alphas[steps - 1], noise), steps=steps)


class DiffMix(DiffAug):
    """An image of another class, edited towards this one; context comes with the image, so there is no suffix.

    The label is soft: strength^gamma of it is this class, the rest the image's. Every other class is taken equally
    often. A class without others edits its own images.
    """

    name: ClassVar[str] = "diff-mix"
    prompts: ClassVar[Prompts] = "plain"

    def draw(self, sizes: Sequence[int], label: int, ordinal: int, seed: int, knobs: Knobs, old: int = 0) -> Draw:
        others = [other for other, images in enumerate(sizes) if images and other != label]
        if not others:
            return super().draw(sizes, label, ordinal, seed, knobs, old)
        other = others[strata.choice(len(others), ordinal, seed64(seed, "class"))]
        image = seed64(seed, "image", ordinal) % sizes[other]
        strength = _strength(knobs, ordinal, seed)
        return Draw(parents=((other, image),), strength=strength, label_weight=strength**knobs.gamma)


def steps_of(strength: float, steps: int) -> int:
    """Steps of a grid of `steps` that an edit of this strength, in (0, 1], takes: at least one."""
    return max(1, round(strength * steps))


def _strength(knobs: Knobs, ordinal: int, seed: int) -> float:
    return knobs.strengths[strata.choice(len(knobs.strengths), ordinal, seed64(seed, "strength"))]

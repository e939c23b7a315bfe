"""The control that costs least: fresh Gaussian noise, with the concept and the suffix of Diff-II's row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from diffii.arms.interface import Draw, Knobs, Moment, Parent, Prompts, Start, Takes
from diffii.circle import gaussian


class Noise:
    """Nothing of the real images but what concepts and suffixes know of them: no image is inverted."""

    name: ClassVar[str] = "noise"
    takes: ClassVar[Takes] = "nothing"
    prompts: ClassVar[Prompts] = "two-stage"

    def draw(self, sizes: Sequence[int], label: int, ordinal: int, seed: int, knobs: Knobs, old: int = 0) -> Draw:
        return Draw()

    def start(self, parents: Sequence[Parent], moment: Moment) -> Start:
        return Start(noise=gaussian(moment.seed, moment.shape), steps=len(moment.alphas))

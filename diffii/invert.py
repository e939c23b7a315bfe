"""Images -> latents -> inversions: sampling run backwards, without guidance (Diff-II, section 3.2).

The first steps may be diffusion forwards instead ("There and Back Again", ICLR 2026). Near the clean end a model's
answer hardly depends on noise, so steps taken there carry the image's smooth areas up into the inversion: it is
shorter than noise, and its negative, which a circle passes through, is no noise at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffii.backbone import Backbone
from diffii.kinds import Solver
from diffii.schedule import Grid
from diffii.solver import path


@torch.inference_mode()
def invert(
    backbone: Backbone,
    latents_BCHW: Tensor,
    prompts: Sequence[str],
    grid: Grid,
    diffused: int = 0,
    noise_BCHW: Tensor | None = None,
    *,
    solver: Solver = "ddim",
) -> Tensor:
    """Climb from clean float32 latents to the top of `grid`, each row under its own plain prompt.

    The model is asked at the upper timestep of each segment, which is where sampling asks it on the way down. The first
    `diffused` steps, 0 to all, are not asked for: `noise_BCHW`, of the latents' shape, takes them there in one go.
    Raises ValueError where it is missing.
    """
    text = backbone.prompts(list(prompts))
    x = latents_BCHW.to(backbone.device)
    if diffused:
        if noise_BCHW is None:
            raise ValueError(f"{diffused} steps are to be diffused, and there is no noise to do it with")
        alpha = grid.alphas[diffused - 1]
        x = alpha**0.5 * x + (1 - alpha) ** 0.5 * backbone.put(noise_BCHW)
    way = path(solver)
    for index in range(diffused, grid.steps):
        timestep, below = grid.timesteps[index], grid.below(index)
        epsilon = backbone.epsilon(x, timestep, below, text)
        x = way.move(x, epsilon, below, grid.alphas[index])
    return x


def fixed_batches(rows: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Cut row numbers 0..rows-1 into batches of exactly `size`; yields (row numbers, how many of them are real).

    The last batch repeats its last row: bits depend on a batch's size, not on what else is in it (law 5).
    """
    for start in range(0, rows, size):
        real = min(size, rows - start)
        yield [start + min(i, real - 1) for i in range(size)], real

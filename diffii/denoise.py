"""Circle points -> latents: classifier-free guidance in two stages (Diff-II, section 3.3).

In the noisy part of the path the prompt carries a context suffix; after that the plain prompt alone finishes. Guidance
may be kept to an interval of the path (Kynkäänniemi et al. 2024), outside of which a step costs half.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffii.backbone import Backbone
from diffii.kinds import Solver
from diffii.schedule import Grid, first_stage
from diffii.solver import path


@torch.inference_mode()
def denoise(
    backbone: Backbone,
    noise_BCHW: Tensor,
    plain: Sequence[str],
    with_suffix: Sequence[str],
    grid: Grid,
    split: float,
    guidance: float,
    steps: Sequence[int] | None = None,
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    solver: Solver = "ddim",
) -> Tensor:
    """Descend from the top of `grid` to clean float32 latents (B, C, H, W).

    `plain` and `with_suffix` are B prompts each; the latter rule while t >= T (1 - split). `guidance` 1 asks the
    model once a step, under the prompt; any other value asks twice, in one batch of 2B rows, at the steps within
    `interval`: shares of the path, counted from the noise end like `split`. `steps` says for each row from how many
    steps above the clean end it comes down, where that is not the top: until then it waits in its place, so that a
    batch keeps its shape.
    """
    begins = backbone.put(torch.tensor(steps)).view(-1, 1, 1, 1) if steps is not None else None
    top = max(steps) if steps is not None else grid.steps
    plain_BTD = backbone.prompts(list(plain))
    suffix_BTD = backbone.prompts(list(with_suffix))
    empty_BTD = backbone.prompt("").expand_as(plain_BTD)
    x = backbone.put(noise_BCHW)
    suffixed, guided, way = first_stage(grid, split), guided_steps(grid, guidance, interval), path(solver)
    for index in reversed(range(top)):
        text = suffix_BTD if suffixed[index] else plain_BTD
        timestep, alpha = grid.timesteps[index], grid.alphas[index]
        if not guided[index]:
            epsilon = backbone.epsilon(x, timestep, alpha, text)
        else:
            both = backbone.epsilon(torch.cat([x, x]), timestep, alpha, torch.cat([empty_BTD, text]))
            without, wanted = both.chunk(2)
            epsilon = without + guidance * (wanted - without)
        first = None if begins is None else begins == index + 1
        moved = way.move(x, epsilon, alpha, grid.below(index), first)
        x = moved if begins is None else torch.where(begins > index, moved, x)
    return x


def guided_steps(grid: Grid, guidance: float, interval: tuple[float, float] = (0.0, 1.0)) -> tuple[bool, ...]:
    """For each timestep of the grid: does it ask the model twice?"""
    if guidance == 1.0:
        return (False,) * grid.steps
    before, within = (first_stage(grid, share) for share in interval)
    return tuple(inside and not early for early, inside in zip(before, within, strict=True))

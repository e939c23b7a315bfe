"""Circle points -> latents: DDIM with classifier-free guidance in two stages (Diff-II, section 3.3).

In the noisy part of the path the prompt carries a context suffix; after that the plain prompt alone finishes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffii.backbone import Backbone
from diffii.schedule import Grid, ddim_move, suffix_stage


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
) -> Tensor:
    """Descend from the top of `grid` to clean float32 latents (B, C, H, W).

    `plain` and `with_suffix` are B prompts each; the latter rule while t >= T (1 - split). `guidance` 1 asks the
    model once a step, under the prompt; any other value asks twice, in one batch of 2B rows. `steps` says for each row
    from how many steps above the clean end it comes down, where that is not the top: until then it waits in its place,
    so that a batch keeps its shape.
    """
    begins = torch.tensor(steps, device=backbone.device).view(-1, 1, 1, 1) if steps is not None else None
    top = max(steps) if steps is not None else grid.steps
    plain_BTD = backbone.prompts(list(plain))
    suffix_BTD = backbone.prompts(list(with_suffix))
    empty_BTD = backbone.prompt("").expand_as(plain_BTD)
    x = noise_BCHW.to(backbone.device)
    first_stage = suffix_stage(grid, split)
    for index in reversed(range(top)):
        text = suffix_BTD if first_stage[index] else plain_BTD
        timestep, alpha = grid.timesteps[index], grid.alphas[index]
        if guidance == 1.0:
            epsilon = backbone.epsilon(x, timestep, alpha, text)
        else:
            both = backbone.epsilon(torch.cat([x, x]), timestep, alpha, torch.cat([empty_BTD, text]))
            without, wanted = both.chunk(2)
            epsilon = without + guidance * (wanted - without)
        moved = ddim_move(x, epsilon, alpha, grid.below(index))
        x = moved if begins is None else torch.where(begins > index, moved, x)
    return x

"""Diffusion captioning: the context of an image is the one under which the model denoises it best.

The image is noised once per round, and every candidate's prompt (plain prompt + context) must tell that same noise:
what differs between two losses is the prompt alone. Candidates that do worst leave after each round, so that a long
list costs little more than twice its length. No other model is needed than the resident one.

N images   B micro-batch   C latent channels   H, W latent height and width
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffii.backbone import Backbone
from diffii.circle import gaussian
from diffii.hashing import seed64
from diffii.invert import fixed_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionSettings:
    """How many rounds, at which noise, and who stays. The defaults were chosen with `tests/bench/contexts.py`."""

    levels: tuple[float, ...] = (0.95, 0.85)
    """The noise of each round as a part of the model's training timesteps, in (0, 1). High: what is left of an image
    in much noise is its ground, and at low noise the image itself tells the model more than any prompt."""
    keep: float = 0.5
    """The part of the candidates that stays after each round, in (0, 1], never less than two; 1 drops none."""
    micro_batch: int = 16
    """Rows of every model call."""

    def __post_init__(self) -> None:
        if not self.levels or not all(0.0 < level < 1.0 for level in self.levels):
            raise ValueError(f"levels are one or more numbers between 0 and 1, got {self.levels}")
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is in (0, 1], got {self.keep}")
        if self.micro_batch < 1:
            raise ValueError(f"a micro-batch has at least one row, got {self.micro_batch}")


@dataclass(frozen=True, slots=True)
class Choice:
    """The context chosen for one image, and how clearly."""

    context: str
    score: float
    """Its loss relative to the mean of the candidates of the same round, averaged over the rounds; below 1 is better
    than they."""
    margin: float
    """By how much the next best one's score is higher; 0 for a single candidate."""


def choose_contexts(
    backbone: Backbone,
    images: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    candidates: Sequence[str],
    settings: DiffusionSettings,
) -> list[Choice]:
    """One context of `candidates` for each of N uint8 images (N, S, S, 3) with its plain prompt and 64-bit seed.

    An image's choice depends on the image, its prompt, its seed (of its content), the candidates and the settings,
    never on the other images. Raises ValueError without candidates, for repeated ones, or for lists of unequal length.
    """
    if not candidates or len(set(candidates)) < len(candidates):
        raise ValueError("diffusion captioning needs one or more different candidate contexts")
    if not len(images) == len(prompts) == len(seeds):
        raise ValueError(f"{len(images)} images, {len(prompts)} prompts and {len(seeds)} seeds are not the same number")
    if not len(images):
        return []
    latents_NCHW = _encode(backbone, images, settings.micro_batch)
    alive = [list(range(len(candidates))) for _ in images]
    totals = np.zeros((len(images), len(candidates)))
    rounds = np.zeros((len(images), len(candidates)))
    for number, level in enumerate(settings.levels):
        jobs = [(image, candidate) for image, left in enumerate(alive) if len(left) > 1 for candidate in left]
        losses = _losses(backbone, latents_NCHW, prompts, seeds, candidates, jobs, number, level, settings.micro_batch)
        for image, left in enumerate(alive):
            if len(left) < 2:
                continue
            found = np.array([losses[image, candidate] for candidate in left])
            # Relative: losses of two noise levels differ tenfold, and the larger would decide alone.
            totals[image, left] += found / found.mean()
            rounds[image, left] += 1
            stay = max(2, math.ceil(len(left) * settings.keep))
            alive[image] = sorted(sorted(left, key=lambda c, row=totals[image]: float(row[c]))[:stay])
    return [_choice(left, totals[i], rounds[i], candidates) for i, left in enumerate(alive)]


def rows_per_image(candidates: int, settings: DiffusionSettings) -> int:
    """U-Net rows that one image costs, without the padding of the last batch of a round."""
    total = 0
    for _ in settings.levels:
        total += candidates if candidates > 1 else 0
        candidates = max(2, math.ceil(candidates * settings.keep)) if candidates > 1 else candidates
    return total


@torch.inference_mode()
def _losses(
    backbone: Backbone,
    latents_NCHW: Tensor,
    prompts: Sequence[str],
    seeds: Sequence[int],
    candidates: Sequence[str],
    jobs: list[tuple[int, int]],
    number: int,
    level: float,
    micro_batch: int,
) -> dict[tuple[int, int], float]:
    """(image, candidate) -> mean squared error of the predicted noise, the same noise for all of an image."""
    every = backbone.grid(backbone.grid(1, "matched").train_timesteps, "matched")
    index = int(level * every.steps)
    timestep, alpha = every.timesteps[index], every.alphas[index]
    losses: dict[tuple[int, int], float] = {}
    for rows, real in fixed_batches(len(jobs), micro_batch):
        batch = [jobs[row] for row in rows]
        noise = {image: gaussian(seed64(seeds[image], "context", number), backbone.latent_shape) for image, _ in batch}
        noise_BCHW = torch.from_numpy(np.stack([noise[image] for image, _ in batch])).to(backbone.device)
        clean_BCHW = latents_NCHW[[image for image, _ in batch]]
        x_BCHW = alpha**0.5 * clean_BCHW + (1.0 - alpha) ** 0.5 * noise_BCHW
        text_BTD = backbone.prompts([f"{prompts[image]} {candidates[candidate]}" for image, candidate in batch])
        error = backbone.epsilon(x_BCHW, timestep, alpha, text_BTD) - noise_BCHW
        means = error.double().square().mean((1, 2, 3)).tolist()
        losses.update(zip(batch[:real], means[:real], strict=True))
    return losses


def _encode(backbone: Backbone, images: np.ndarray, micro_batch: int) -> Tensor:
    batches = fixed_batches(len(images), micro_batch)
    return torch.cat([backbone.encode(images[rows])[:real] for rows, real in batches])


def _choice(left: list[int], totals: np.ndarray, rounds: np.ndarray, candidates: Sequence[str]) -> Choice:
    if len(left) == 1:
        return Choice(candidates[left[0]], 1.0, 0.0)
    # All that are left were in every round.
    scores = sorted((float(totals[c] / rounds[c]), c) for c in left)
    return Choice(candidates[scores[0][1]], scores[0][0], scores[1][0] - scores[0][0])
